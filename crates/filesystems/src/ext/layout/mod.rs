//! On-disk structures, with the field names and offsets of the kernel's "ext4 data structures
//! and algorithms" document. No I/O here.
//!
//! A structure keeps its raw bytes, so that fields which we do not know survive a rewrite.

pub(crate) mod group;
pub(crate) mod inode;
pub(crate) mod superblock;

pub(crate) use group::GroupDescriptor;
pub(crate) use inode::Inode;
pub(crate) use superblock::Superblock;

use disksmith_disk::bytes;

/// Little-endian 16 bits; 0 past the end.
pub(crate) fn le16(bytes: &[u8], at: usize) -> u16 {
    bytes::le16(bytes, at).unwrap_or(0)
}

/// Little-endian 32 bits; 0 past the end.
pub(crate) fn le32(bytes: &[u8], at: usize) -> u32 {
    bytes::le32(bytes, at).unwrap_or(0)
}

/// Big-endian 32 bits; 0 past the end.
pub(crate) fn be32(bytes: &[u8], at: usize) -> u32 {
    bytes::be32(bytes, at).unwrap_or(0)
}

/// Big-endian 16 bits; 0 past the end.
pub(crate) fn be16(bytes: &[u8], at: usize) -> u16 {
    bytes::be16(bytes, at).unwrap_or(0)
}

/// Stores bytes; nothing happens past the end.
pub(crate) fn put(target: &mut [u8], at: usize, value: &[u8]) {
    if let Some(place) = at.checked_add(value.len()).and_then(|end| target.get_mut(at..end)) {
        place.copy_from_slice(value);
    }
}

/// Stores little-endian 16 bits.
pub(crate) fn put16(target: &mut [u8], at: usize, value: u16) {
    put(target, at, &value.to_le_bytes());
}

/// Stores little-endian 32 bits.
pub(crate) fn put32(target: &mut [u8], at: usize, value: u32) {
    put(target, at, &value.to_le_bytes());
}

/// Stores big-endian 32 bits.
pub(crate) fn put_be32(target: &mut [u8], at: usize, value: u32) {
    put(target, at, &value.to_be_bytes());
}

/// Getters and setters for little-endian fields of a structure that keeps its bytes in `raw`.
macro_rules! fields {
    ($type:ident { $($get:ident, $set:ident: $int:ty, $at:expr;)* }) => {
        #[allow(dead_code, reason = "the tables are complete, whatever is in use")]
        impl $type {
            $(
                pub(crate) fn $get(&self) -> $int {
                    let mut bytes = [0; size_of::<$int>()];
                    if let Some(source) = self.raw.get($at..$at + size_of::<$int>()) {
                        bytes.copy_from_slice(source);
                    }
                    <$int>::from_le_bytes(bytes)
                }
                pub(crate) fn $set(&mut self, value: $int) {
                    super::put(&mut self.raw, $at, &value.to_le_bytes());
                }
            )*
        }
    };
}
pub(crate) use fields;

/// The low half of a 64-bit value.
pub(crate) fn low(value: u64) -> u32 {
    (value & 0xffff_ffff) as u32
}

/// The high half of a 64-bit value.
pub(crate) fn high(value: u64) -> u32 {
    (value >> 32) as u32
}
