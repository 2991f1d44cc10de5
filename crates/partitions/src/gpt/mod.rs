//! The GUID partition table (UEFI specification, chapter 5): a header and an array of entries
//! behind sector 0, and a copy of both at the end of the disk.
//!
//! ```text
//! 0 protective MBR | 1 header | 2.. entries | first usable … last usable | entries | header
//! ```
//!
//! Each header has checksums of itself and of its entries, so a torn write shows and the other
//! copy counts.

pub mod layout;
pub(crate) mod protective;
pub(crate) mod read;
pub(crate) mod write;

/// Attribute bit 0: the platform needs this partition.
pub const ATTRIBUTE_REQUIRED: u64 = 1;
/// Attribute bit 1: firmware is to ignore it.
pub const ATTRIBUTE_NO_BLOCK_IO: u64 = 1 << 1;
/// Attribute bit 2: a legacy BIOS may boot it.
pub const ATTRIBUTE_LEGACY_BOOT: u64 = 1 << 2;

/// How attribute bits 0 to 2 are named by sfdisk.
pub(crate) const ATTRIBUTE_NAMES: &[(u64, &str)] = &[
    (ATTRIBUTE_REQUIRED, "RequiredPartition"),
    (ATTRIBUTE_NO_BLOCK_IO, "NoBlockIOProtocol"),
    (ATTRIBUTE_LEGACY_BOOT, "LegacyBIOSBootable"),
];

/// The entries that a new table has room for.
pub const DEFAULT_ENTRIES: u32 = 128;
/// More entries than this are not read: 16 times what tools make, and 1 MiB of memory.
pub const MAX_ENTRIES: u32 = 8192;
/// A table whose entries take more memory than this is not read.
pub const MAX_ENTRIES_BYTES: u64 = 1 << 20;
