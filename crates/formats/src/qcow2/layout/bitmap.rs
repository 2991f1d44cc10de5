//! The bitmap directory and bitmap tables (digest section 10).

use disksmith_disk::bytes::{be16, be32, be64};

use super::put;

const FIXED: usize = 24;

/// An entry of the bitmap directory.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct BitmapEntry {
    /// Where its table lies.
    pub bitmap_table_offset: u64,
    /// Entries of its table.
    pub bitmap_table_size: u32,
    /// See the constants.
    pub flags: u32,
    /// 1: dirty tracking.
    pub kind: u8,
    /// log2 of the bytes per bit.
    pub granularity_bits: u8,
    /// 1 to 1023 bytes.
    pub name: Vec<u8>,
    /// For types that this program does not know.
    pub extra_data: Vec<u8>,
}

impl BitmapEntry {
    /// Not closed cleanly: the content cannot be trusted.
    pub const IN_USE: u32 = 1;
    /// Records writes from opening on.
    pub const AUTO: u32 = 2;
    /// The extra data may be ignored.
    pub const EXTRA_COMPATIBLE: u32 = 4;
    /// Flags that must be zero.
    pub const RESERVED: u32 = !7;
    /// The one type there is.
    pub const DIRTY_TRACKING: u8 = 1;

    /// Reads the entry at the front of `bytes`: with the bytes it takes.
    pub fn parse(bytes: &[u8]) -> Option<(Self, usize)> {
        let name_size = usize::from(be16(bytes, 18)?);
        let extra_size = be32(bytes, 20)? as usize;
        let name_start = FIXED.checked_add(extra_size)?;
        let end = name_start.checked_add(name_size)?;
        let entry = Self {
            bitmap_table_offset: be64(bytes, 0)?,
            bitmap_table_size: be32(bytes, 8)?,
            flags: be32(bytes, 12)?,
            kind: *bytes.get(16)?,
            granularity_bits: *bytes.get(17)?,
            name: bytes.get(name_start..end)?.to_vec(),
            extra_data: bytes.get(FIXED..name_start)?.to_vec(),
        };
        Some((entry, end.checked_next_multiple_of(8)?))
    }

    /// The entry with its padding.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![0; FIXED];
        put(&mut bytes, 0, &self.bitmap_table_offset.to_be_bytes());
        put(&mut bytes, 8, &self.bitmap_table_size.to_be_bytes());
        put(&mut bytes, 12, &self.flags.to_be_bytes());
        put(&mut bytes, 16, &[self.kind, self.granularity_bits]);
        put(&mut bytes, 18, &(self.name.len() as u16).to_be_bytes());
        put(&mut bytes, 20, &(self.extra_data.len() as u32).to_be_bytes());
        bytes.extend_from_slice(&self.extra_data);
        bytes.extend_from_slice(&self.name);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes
    }
}

/// Reads `count` entries of a directory; `None` if they are not exactly what `bytes` holds.
pub fn parse_bitmap_directory(bytes: &[u8], count: u32) -> Option<Vec<BitmapEntry>> {
    let mut entries = Vec::new();
    let mut rest = bytes;
    for _ in 0..count {
        let (entry, taken) = BitmapEntry::parse(rest)?;
        rest = rest.get(taken..)?;
        entries.push(entry);
    }
    rest.is_empty().then_some(entries)
}

/// An entry of a bitmap's table: one cluster of bits.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct BitmapTableEntry(pub u64);

impl BitmapTableEntry {
    /// All bits of the cluster are ones; there is no storage.
    pub const ALL_ONES: u64 = 1;
    const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
    /// Bits that must be zero; bit 0 too when there is an offset.
    pub const RESERVED: u64 = 0xff00_0000_0000_01fe;

    /// Where the bits lie; 0 = nowhere.
    pub fn offset(self) -> u64 {
        self.0 & Self::OFFSET
    }

    /// Without storage: whether all bits are ones.
    pub fn all_ones(self) -> bool {
        self.0 & Self::ALL_ONES != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        let entry = BitmapEntry {
            bitmap_table_offset: 0x60000,
            bitmap_table_size: 1,
            flags: BitmapEntry::AUTO,
            kind: 1,
            granularity_bits: 16,
            name: b"b0".to_vec(),
            extra_data: Vec::new(),
        };
        let bytes = entry.encode();
        assert_eq!(bytes.len(), 32);
        assert_eq!(parse_bitmap_directory(&bytes, 1), Some(vec![entry]));
        assert_eq!(parse_bitmap_directory(&bytes, 2), None);
        assert_eq!(parse_bitmap_directory(&bytes[..31], 1), None);
    }
}
