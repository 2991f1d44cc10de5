//! The sizes that `measure` tells, by format.

use disksmith_disk::{Error, Kind, Result};
use disksmith_formats::Bitmap;
use disksmith_open::Node;
use disksmith_operations::{Measured, data_bytes, measure_raw};

use crate::making::Plan;

/// Bytes of an entry in a table of the first level or of the refcount table.
const ENTRY: u64 = 8;
/// Largest first-level table that readers accept, in bytes.
const L1_MAX: u64 = 32 << 20;

/// What an image made by `plan` of `size` bytes needs to hold what `source` holds. `None`: not
/// known for this format.
pub(crate) fn measure(plan: &Plan, source: Option<&Node>, size: u64) -> Result<Option<Measured>> {
    match plan.driver.name {
        "raw" => measure_raw(size).map(Some),
        "qcow2" => Shape::new(plan)?.measure(plan, source, size).map(Some),
        "luks" => {
            let options = &plan.options;
            if options.text("key-secret").is_none() {
                return Err(invalid("Parameter 'key-secret' is required for cipher"));
            }
            let payload = luks_payload(options.text("cipher-alg"), options.text("cipher-mode"));
            let raw = measure_raw(size)?;
            let all = raw
                .required
                .checked_add(payload)
                .ok_or_else(|| invalid("The image size is too large"))?;
            Ok(Some(Measured { required: all, fully_allocated: all, ..raw }))
        }
        _ => Ok(None),
    }
}

/// What decides the size of a qcow2 image's tables.
struct Shape {
    cluster: u64,
    refcount_bits: u64,
    /// Bytes of an entry in a table of the second level.
    l2_entry: u64,
    version_2: bool,
    /// Header and key material of an encrypted image.
    payload: u64,
    has_backing: bool,
    reserved: bool,
}

impl Shape {
    fn new(plan: &Plan) -> Result<Self> {
        let options = &plan.options;
        let cluster = options.size("cluster_size")?.unwrap_or(65536);
        if !cluster.is_power_of_two() || !(512..=2 << 20).contains(&cluster) {
            return Err(invalid("Cluster size must be a power of two between 512 and 2048k"));
        }
        let refcount_bits = options.number("refcount_bits")?.unwrap_or(16);
        if !refcount_bits.is_power_of_two() || refcount_bits > 64 {
            return Err(invalid(
                "Refcount width must be a power of two and may not exceed 64 bits",
            ));
        }
        let extended = options.flag("extended_l2")?.unwrap_or(false);
        if extended && cluster < 16384 {
            return Err(invalid(
                "Extended L2 entries are only supported with cluster sizes of at least 16384 bytes",
            ));
        }
        let encrypted = options.text("encrypt.format") == Some("luks");
        let payload = match encrypted {
            true => luks_payload(
                options.text("encrypt.cipher-alg"),
                options.text("encrypt.cipher-mode"),
            )
            .next_multiple_of(cluster),
            false => 0,
        };
        Ok(Self {
            cluster,
            refcount_bits,
            l2_entry: if extended { 16 } else { 8 },
            version_2: matches!(options.text("compat"), Some("0.10" | "v2")),
            payload,
            has_backing: plan.backing().is_some(),
            reserved: matches!(options.text("preallocation"), Some("full" | "falloc")),
        })
    }

    fn measure(&self, plan: &Plan, source: Option<&Node>, size: u64) -> Result<Measured> {
        let _ = plan;
        let size = size
            .checked_next_multiple_of(self.cluster)
            .filter(|size| {
                let per_table = self.cluster * (self.cluster / self.l2_entry);
                size.div_ceil(per_table) * ENTRY <= L1_MAX
            })
            .ok_or_else(|| {
                invalid("The image size is too large (try using a larger cluster size)")
            })?;
        let data = match source {
            _ if self.reserved => size,
            Some(_) if self.has_backing => size,
            Some(source) => data_bytes(source, self.cluster)?,
            None => 0,
        };
        let full = self.payload + self.metadata(size) + size;
        let bitmaps = source
            .filter(|source| !self.version_2 && source.image.format() == "qcow2")
            .map(|source| self.bitmaps(&source.image.bitmaps(), size));
        Ok(Measured { required: full - size + data, fully_allocated: full, bitmaps })
    }

    /// Header, tables and refcounts of an image in which all of `size` bytes are stored.
    fn metadata(&self, size: u64) -> u64 {
        let cluster = self.cluster;
        let l2_entries = (size / cluster).next_multiple_of(cluster / self.l2_entry);
        let l2 = l2_entries * self.l2_entry;
        let l1 = (l2 / cluster).next_multiple_of(cluster / ENTRY) * ENTRY;
        let tables = cluster + l2 + l1;
        tables + self.refcounts((tables + size) / cluster)
    }

    /// Refcount table and blocks for so many clusters, their own included.
    fn refcounts(&self, clusters: u64) -> u64 {
        let per_block = self.cluster * 8 / self.refcount_bits;
        let (mut blocks, mut table, mut all) = (0u64, 0u64, 0u64);
        loop {
            let before = all;
            blocks = (clusters + table + blocks).div_ceil(per_block);
            table = blocks.div_ceil(self.cluster / ENTRY);
            all = clusters + blocks + table;
            if all == before {
                return (blocks + table) * self.cluster;
            }
        }
    }

    /// All bits of all bitmaps stored, with their tables and the directory.
    fn bitmaps(&self, bitmaps: &[Bitmap], size: u64) -> u64 {
        let (mut bytes, mut directory) = (0, 0);
        for bitmap in bitmaps {
            let bits = size.div_ceil(bitmap.granularity.max(1));
            let clusters = bits.div_ceil(8).div_ceil(self.cluster);
            bytes += clusters * self.cluster + (clusters * ENTRY).next_multiple_of(self.cluster);
            directory += (24 + bitmap.name.len() as u64).next_multiple_of(8);
        }
        bytes + u64::next_multiple_of(directory, self.cluster)
    }
}

/// Bytes before the payload of a LUKS volume: the header and eight slots of split key material.
fn luks_payload(algorithm: Option<&str>, mode: Option<&str>) -> u64 {
    const HEADER: u64 = 4096;
    const SLOTS: u64 = 8;
    const STRIPES: u64 = 4000;
    let bits = match algorithm.unwrap_or("aes-256").rsplit('-').next() {
        Some("128") => 128,
        Some("192" | "des") => 192,
        _ => 256,
    };
    let key = bits / 8 * if mode.unwrap_or("xts") == "xts" { 2 } else { 1 };
    HEADER + SLOTS * (key * STRIPES).next_multiple_of(HEADER)
}

fn invalid(text: &str) -> Error {
    Error::new(Kind::InvalidInput, text)
}
