//! The binary header of LUKS2: "LUKS2 On-Disk Format Specification" 1.1, section 2, with its
//! field names.

use zerocopy::{BE, FromBytes, Immutable, IntoBytes, KnownLayout, U16, U64, Unaligned};

/// `MAGIC_1ST`.
pub(super) const PRIMARY: [u8; 6] = *b"LUKS\xba\xbe";
/// `MAGIC_2ND`.
pub(super) const SECONDARY: [u8; 6] = *b"SKUL\xba\xbe";
/// Bytes of the binary header; the JSON area follows.
pub(super) const BINARY_BYTES: usize = size_of::<BinaryHeader>();
/// The sizes that header and JSON area together may have: also the places of the second copy.
pub(super) const SIZES: [u64; 9] =
    [16 << 10, 32 << 10, 64 << 10, 128 << 10, 256 << 10, 512 << 10, 1 << 20, 2 << 20, 4 << 20];

/// `luks2_hdr_disk`.
#[derive(Clone, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct BinaryHeader {
    pub(super) magic: [u8; 6],
    pub(super) version: U16<BE>,
    /// With the JSON area.
    pub(super) hdr_size: U64<BE>,
    pub(super) seqid: U64<BE>,
    pub(super) label: [u8; 48],
    pub(super) csum_alg: [u8; 32],
    pub(super) salt: [u8; 64],
    pub(super) uuid: [u8; 40],
    pub(super) subsystem: [u8; 48],
    /// Its own place: 0 or `hdr_size`.
    pub(super) hdr_offset: U64<BE>,
    padding: [u8; 184],
    pub(super) csum: [u8; 64],
    padding_4096: [u8; 3584],
}

/// Where the checksum lies in the binary header.
pub(super) const CSUM: std::ops::Range<usize> = 448..512;

/// A text field up to its NUL or its end.
pub(super) fn text(field: &[u8]) -> String {
    let end = field.iter().position(|b| *b == 0).unwrap_or(field.len());
    String::from_utf8_lossy(&field[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places() {
        assert_eq!(BINARY_BYTES, 4096);
        assert_eq!(std::mem::offset_of!(BinaryHeader, csum), CSUM.start);
        assert_eq!(std::mem::offset_of!(BinaryHeader, hdr_offset), 256);
    }
}
