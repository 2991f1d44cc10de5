//! What `info` shows below "Format specific information".

use disksmith_crypt::luks;
use disksmith_disk::{Kind, Result};

use super::Qcow2;
use super::layout::{self, CryptoHeader};
use super::util::lock;
use crate::{Bitmap, Fact, Image};

type Facts = Vec<(&'static str, Fact)>;

impl Qcow2 {
    /// The facts, in qemu-img's order.
    pub(super) fn collect_facts(&self) -> Result<Facts> {
        let bitmaps = self.bitmaps()?;
        let meta = lock(&self.meta);
        let header = &meta.header;
        let text = |value: &str| Fact::Text(value.to_string());
        let v3 = header.version >= 3;
        let mut facts = vec![("compat", text(if v3 { "1.1" } else { "0.10" }))];
        let compression = if header.compression_type == 1 { "zstd" } else { "zlib" };
        facts.push(("compression-type", text(compression)));
        if v3 {
            let lazy = header.compatible_features & layout::COMPATIBLE_LAZY_REFCOUNTS != 0;
            facts.push(("lazy-refcounts", Fact::Bool(lazy)));
            if !bitmaps.is_empty() {
                facts.push(("bitmaps", Fact::List(bitmaps.iter().map(bitmap_fact).collect())));
            }
        }
        facts.push(("refcount-bits", Fact::Number(meta.shape.refcount_bits().into())));
        if header.crypt_method != 0 {
            let luks = meta.extensions.crypto_header.filter(|_| header.crypt_method == 2);
            facts.push(("encrypt", Fact::Map(self.encryption_facts(luks)?)));
        }
        if v3 {
            if meta.has_data_file() {
                // The name is optional: it can be given when opening.
                if let Some(name) = &meta.extensions.data_file {
                    facts.push((
                        "data-file",
                        Fact::Text(String::from_utf8_lossy(name).into_owned()),
                    ));
                }
                facts.push(("data-file-raw", Fact::Bool(meta.data_file_raw())));
            }
            facts.push(("corrupt", Fact::Bool(header.has(layout::INCOMPATIBLE_CORRUPT))));
            facts.push(("extended-l2", Fact::Bool(meta.shape.extended)));
        }
        Ok(facts)
    }

    /// Of a header that is broken, no more than that there is one.
    fn encryption_facts(&self, place: Option<CryptoHeader>) -> Result<Facts> {
        let text = |value: &str| Fact::Text(value.to_string());
        let Some(place) = place else { return Ok(vec![("format", text("aes"))]) };
        match luks::Header::read(&*self.storage, place.offset, false) {
            Ok(header) => Ok(crate::luks::header_facts(&header, Some("luks"))),
            Err(error) if error.kind() == Kind::Io => Err(error),
            Err(_) => Ok(vec![("format", text("luks"))]),
        }
    }
}

fn bitmap_fact(bitmap: &Bitmap) -> Fact {
    let mut flags = Vec::new();
    if bitmap.in_use {
        flags.push(Fact::Text("in-use".to_string()));
    }
    if bitmap.enabled {
        flags.push(Fact::Text("auto".to_string()));
    }
    Fact::Map(vec![
        ("flags", Fact::List(flags)),
        ("name", Fact::Text(bitmap.name.clone())),
        ("granularity", Fact::Number(bitmap.granularity)),
    ])
}
