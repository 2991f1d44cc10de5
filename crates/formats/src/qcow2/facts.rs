//! What `info` shows below "Format specific information".

use disksmith_crypt::luks;

use super::Qcow2;
use super::layout::{self, CryptoHeader};
use super::util::lock;
use crate::{Bitmap, Fact, Image};

type Facts = Vec<(&'static str, Fact)>;

impl Qcow2 {
    /// The facts, in qemu-img's order.
    pub(super) fn collect_facts(&self) -> Facts {
        let bitmaps = self.bitmaps();
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
            facts.push(("encrypt", Fact::Map(self.encryption_facts(luks))));
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
        facts
    }

    fn encryption_facts(&self, place: Option<CryptoHeader>) -> Facts {
        let text = |value: &str| Fact::Text(value.to_string());
        let Some(place) = place else { return vec![("format", text("aes"))] };
        let header = luks::Header::read(&*self.storage, place.offset, false);
        let Ok(header) = header else { return vec![("format", text("luks"))] };
        let info = header.info();
        let mut facts = vec![("ivgen-alg", text(info.ivgen_alg))];
        if let Some(hash) = info.ivgen_hash_alg {
            facts.push(("ivgen-hash-alg", text(hash)));
        }
        facts.push(("detached-header", Fact::Bool(info.detached_header)));
        facts.push(("hash-alg", text(info.hash_alg)));
        facts.push(("cipher-alg", text(info.cipher_alg)));
        facts.push(("uuid", Fact::Text(info.uuid)));
        facts.push(("format", text("luks")));
        facts.push(("cipher-mode", text(info.cipher_mode)));
        facts.push(("slots", Fact::List(info.slots.iter().map(slot_fact).collect())));
        facts.push(("payload-offset", Fact::Number(info.payload_offset)));
        facts.push(("master-key-iters", Fact::Number(info.master_key_iters.into())));
        facts
    }
}

fn slot_fact(slot: &luks::SlotInfo) -> Fact {
    let mut facts = vec![("active", Fact::Bool(slot.active))];
    if let Some(iterations) = slot.iters {
        facts.push(("iters", Fact::Number(iterations.into())));
    }
    facts.push(("key-offset", Fact::Number(slot.key_offset)));
    if let Some(stripes) = slot.stripes {
        facts.push(("stripes", Fact::Number(stripes.into())));
    }
    Fact::Map(facts)
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
