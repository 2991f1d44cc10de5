//! Integers at offsets of on-disk structures. Nothing here panics past the end.

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

/// Little-endian 64 bits; 0 past the end.
pub(crate) fn le64(bytes: &[u8], at: usize) -> u64 {
    bytes::le64(bytes, at).unwrap_or(0)
}

/// Stores little-endian 64 bits.
pub(crate) fn put64(target: &mut [u8], at: usize, value: u64) {
    put(target, at, &value.to_le_bytes());
}

/// The byte at `at`; 0 past the end.
pub(crate) fn byte(bytes: &[u8], at: usize) -> u8 {
    bytes.get(at).copied().unwrap_or(0)
}
