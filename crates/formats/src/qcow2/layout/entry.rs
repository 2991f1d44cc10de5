//! L1 and L2 entries (digest sections 4 and 5).

use super::Shape;

const COPIED: u64 = 1 << 63;
const COMPRESSED: u64 = 1 << 62;
const ZERO: u64 = 1;
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;

/// An entry of an L1 table.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct L1Entry(pub u64);

impl L1Entry {
    /// The COPIED bit.
    pub const COPIED: u64 = COPIED;
    /// Bits that must be zero.
    pub const RESERVED: u64 = 0x7f00_0000_0000_01ff;

    /// A table at `offset`; `copied` if nothing else refers to it.
    pub fn new(offset: u64, copied: bool) -> Self {
        Self(offset | if copied { COPIED } else { 0 })
    }

    /// Where the L2 table lies; 0 = there is none.
    pub fn offset(self) -> u64 {
        self.0 & OFFSET
    }

    /// The L2 table belongs to the active L1 alone.
    pub fn copied(self) -> bool {
        self.0 & COPIED != 0
    }
}

/// An entry of an L2 table. `bitmap` is the second half of an extended one, else 0.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct L2Entry {
    /// The first eight bytes.
    pub raw: u64,
    /// Bits 0..32: subcluster allocated; bits 32..64: subcluster reads as zero.
    pub bitmap: u64,
}

/// What one unit (subcluster, or cluster without extended L2) holds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Unit {
    /// Decided by the backing layer.
    Absent,
    /// Reads as zero.
    Zero,
    /// Stored in the cluster's storage.
    Data,
    /// The bitmap or the entry breaks the rules.
    Invalid,
}

/// Where a compressed cluster lies.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Compressed {
    /// Its first byte in the image file.
    pub offset: u64,
    /// Bytes that may be read for it: up to the end of its last sector.
    pub length: u64,
}

impl L2Entry {
    /// The COPIED bit.
    pub const COPIED: u64 = COPIED;
    /// The compressed bit.
    pub const COMPRESSED: u64 = COMPRESSED;
    /// The reads-as-zero bit of a standard entry.
    pub const ZERO: u64 = ZERO;
    /// The bits of the host offset.
    pub const OFFSET: u64 = OFFSET;
    /// Bits of a standard entry that must be zero.
    pub const RESERVED: u64 = 0x3f00_0000_0000_01fe;
    /// All subclusters allocated.
    pub const ALL_ALLOCATED: u64 = 0xffff_ffff;
    /// All subclusters zero.
    pub const ALL_ZERO: u64 = 0xffff_ffff << 32;

    /// A cluster of data at `offset` that nothing else refers to.
    pub fn data(shape: &Shape, offset: u64) -> Self {
        Self { raw: offset | COPIED, bitmap: if shape.extended { Self::ALL_ALLOCATED } else { 0 } }
    }

    /// A cluster that reads as zero and has no storage.
    pub fn zero(shape: &Shape) -> Self {
        match shape.extended {
            true => Self { raw: 0, bitmap: Self::ALL_ZERO },
            false => Self { raw: ZERO, bitmap: 0 },
        }
    }

    /// A compressed cluster of `length` bytes at `offset`; `None` if the fields cannot hold it.
    pub fn compressed(shape: &Shape, offset: u64, length: u64) -> Option<Self> {
        let shift = shape.compressed_shift();
        let last = offset.checked_add(length)?.checked_sub(1)?;
        let sectors = (last >> 9) - (offset >> 9);
        if offset >> shift.min(56) != 0 || sectors >> (62 - shift) != 0 {
            return None;
        }
        Some(Self { raw: COMPRESSED | sectors << shift | offset, bitmap: 0 })
    }

    /// Whether the cluster is compressed.
    pub fn is_compressed(self) -> bool {
        self.raw & COMPRESSED != 0
    }

    /// Whether the cluster belongs to this table alone.
    pub fn copied(self) -> bool {
        self.raw & COPIED != 0
    }

    /// The host offset of uncompressed storage; 0 without a data file means none.
    pub fn offset(self) -> u64 {
        self.raw & OFFSET
    }

    /// The uncompressed storage of the cluster. With an external data file offset 0 is storage
    /// too if the COPIED bit says so.
    pub fn host(self, data_file: bool) -> Option<u64> {
        if self.is_compressed() || (self.offset() == 0 && !(data_file && self.copied())) {
            return None;
        }
        Some(self.offset())
    }

    /// Place and readable length of a compressed cluster.
    pub fn compressed_range(self, shape: &Shape) -> Compressed {
        let shift = shape.compressed_shift();
        let offset = self.raw & ((1 << shift) - 1);
        let sectors = (self.raw & (COMPRESSED - 1)) >> shift;
        Compressed { offset, length: (sectors + 1) * 512 - offset % 512 }
    }

    /// What unit number `unit` of an uncompressed cluster holds.
    pub fn unit(self, shape: &Shape, unit: u32, data_file: bool) -> Unit {
        let host = self.host(data_file).is_some();
        if !shape.extended {
            return match (self.raw & ZERO != 0, host) {
                (true, _) if shape.version < 3 => Unit::Invalid,
                (true, _) => Unit::Zero,
                (false, true) => Unit::Data,
                (false, false) => Unit::Absent,
            };
        }
        let allocated = self.bitmap >> unit & 1 != 0;
        let zero = self.bitmap >> (unit + 32) & 1 != 0;
        match (allocated, zero) {
            (true, true) => Unit::Invalid,
            (true, false) if !host => Unit::Invalid,
            (true, false) => Unit::Data,
            (false, true) => Unit::Zero,
            (false, false) => Unit::Absent,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(cluster_bits: u32, extended: bool) -> Shape {
        Shape { cluster_bits, refcount_order: 4, extended, version: 3 }
    }

    #[test]
    fn compressed_entries_as_qemu_packs_them() {
        // The first two compressed clusters of an image that qemu-img wrote.
        let shape = shape(16, false);
        let first = L2Entry::compressed(&shape, 0x60000, 79).unwrap();
        assert_eq!(first.raw, 0x4000_0000_0006_0000);
        let second = L2Entry::compressed(&shape, 0x6004f, 79).unwrap();
        assert_eq!(second.raw, 0x4000_0000_0006_004f);
        assert_eq!(second.compressed_range(&shape), Compressed { offset: 0x6004f, length: 433 });
        let across = L2Entry::compressed(&shape, 0x601ff, 2).unwrap();
        assert_eq!(across.compressed_range(&shape), Compressed { offset: 0x601ff, length: 513 });
    }

    #[test]
    fn subclusters() {
        let shape = shape(16, true);
        let entry = L2Entry { raw: 0x8000_0000_0005_0000, bitmap: 0x0000_0020_0000_0002 };
        assert_eq!(entry.unit(&shape, 0, false), Unit::Absent);
        assert_eq!(entry.unit(&shape, 1, false), Unit::Data);
        assert_eq!(entry.unit(&shape, 5, false), Unit::Zero);
        let broken = L2Entry { raw: 0, bitmap: 1 };
        assert_eq!(broken.unit(&shape, 0, false), Unit::Invalid);
    }

    #[test]
    fn offset_zero_of_a_data_file_is_storage() {
        let entry = L2Entry { raw: COPIED, bitmap: 0 };
        assert_eq!(entry.host(true), Some(0));
        assert_eq!(entry.host(false), None);
    }
}
