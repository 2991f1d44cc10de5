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

pub(crate) use crate::raw::{be16, be32, le16, le32, put, put_be32, put16, put32};

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
