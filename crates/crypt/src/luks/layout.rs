//! The 592 bytes of a LUKS1 header as they lie on disk: "LUKS On-Disk Format Specification"
//! 1.2.3, section 3, with its field names.

use zerocopy::{BE, FromBytes, Immutable, IntoBytes, KnownLayout, U16, U32, Unaligned};

/// `LUKS_MAGIC`.
pub(super) const MAGIC: [u8; 6] = *b"LUKS\xba\xbe";
/// `LUKS_NUMKEYS`.
pub(super) const SLOTS: usize = 8;
/// `LUKS_STRIPES`: the only count in use.
pub(super) const STRIPES: u32 = 4000;
/// `LUKS_KEY_ENABLED`.
pub(super) const ENABLED: u32 = 0x00AC_71F3;
/// `LUKS_KEY_DISABLED`.
pub(super) const DISABLED: u32 = 0x0000_DEAD;
/// `LUKS_DIGESTSIZE`.
pub(super) const DIGEST_BYTES: usize = 20;
/// `LUKS_SALTSIZE`.
pub(super) const SALT_BYTES: usize = 32;
/// The first sector that key material may lie in: `LUKS_ALIGN_KEYSLOTS` / 512.
pub(super) const HEADER_SECTORS: u32 = 8;
/// Bytes of the header.
pub(super) const HEADER_BYTES: usize = size_of::<Phdr>();

/// The partition header, `phdr`.
#[derive(Clone, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct Phdr {
    pub(super) magic: [u8; 6],
    pub(super) version: U16<BE>,
    pub(super) cipher_name: [u8; 32],
    pub(super) cipher_mode: [u8; 32],
    pub(super) hash_spec: [u8; 32],
    /// Sectors.
    pub(super) payload_offset: U32<BE>,
    pub(super) key_bytes: U32<BE>,
    pub(super) mk_digest: [u8; DIGEST_BYTES],
    pub(super) mk_digest_salt: [u8; SALT_BYTES],
    pub(super) mk_digest_iter: U32<BE>,
    pub(super) uuid: [u8; 40],
    pub(super) slots: [KeySlot; SLOTS],
}

/// One key slot.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct KeySlot {
    pub(super) active: U32<BE>,
    pub(super) iterations: U32<BE>,
    pub(super) salt: [u8; SALT_BYTES],
    /// Sectors from the start of the header.
    pub(super) key_material_offset: U32<BE>,
    pub(super) stripes: U32<BE>,
}

/// The text of a NUL-terminated field; `None` without a NUL.
pub(super) fn text(field: &[u8]) -> Option<String> {
    let end = field.iter().position(|b| *b == 0)?;
    Some(String::from_utf8_lossy(field.get(..end)?).into_owned())
}

/// A field of `N` bytes with `text` and zeroes; `None` if it does not fit with a NUL.
pub(super) fn field<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut field = [0; N];
    field[..N - 1].get_mut(..text.len())?.copy_from_slice(text.as_bytes());
    Some(field)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_texts() {
        assert_eq!(HEADER_BYTES, 592);
        assert_eq!(size_of::<KeySlot>(), 48);
        assert_eq!(text(b"aes\0x"), Some("aes".into()));
        assert_eq!(text(b"aes"), None);
        assert_eq!(field::<4>("aes"), Some(*b"aes\0"));
        assert_eq!(field::<3>("aes"), None);
    }
}
