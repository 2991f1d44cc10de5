//! The structures of a qcow2 file, with the specification's names. Parse and encode, no I/O.

mod bitmap;
mod entry;
mod extension;
mod header;
mod shape;
mod snapshot;

pub use bitmap::{BitmapEntry, BitmapTableEntry, parse_bitmap_directory};
pub use entry::{Compressed, L1Entry, L2Entry, Unit};
pub use extension::{
    BitmapsExtension, CryptoHeader, ExtensionError, Extensions, FeatureName, parse_feature_names,
};
pub use header::{
    AUTOCLEAR_BITMAPS, AUTOCLEAR_DATA_FILE_RAW, AUTOCLEAR_KNOWN, COMPATIBLE_LAZY_REFCOUNTS,
    HEADER_LENGTH, Header, HeaderError, INCOMPATIBLE_COMPRESSION, INCOMPATIBLE_CORRUPT,
    INCOMPATIBLE_DATA_FILE, INCOMPATIBLE_DIRTY, INCOMPATIBLE_EXTENDED_L2, INCOMPATIBLE_KNOWN,
    MAGIC,
};
pub use shape::Shape;
pub use snapshot::{SnapshotEntry, SnapshotParse};

/// Storage writes so many bytes whole or not at all, when they begin at a multiple of it.
pub(super) const SECTOR: usize = 512;

/// Appends big-endian integers to a buffer.
pub(super) fn put(bytes: &mut [u8], offset: usize, value: &[u8]) {
    if let Some(place) = bytes.get_mut(offset..offset.saturating_add(value.len())) {
        place.copy_from_slice(value);
    }
}
