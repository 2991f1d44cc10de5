//! Fixed-width integers at offsets of a byte slice, for on-disk structures that are read field
//! by field. Every function answers `None` past the end instead of panicking.

macro_rules! readers {
    ($($(#[$doc:meta])* $name:ident: $int:ty, $from:ident;)*) => {$(
        $(#[$doc])*
        pub fn $name(bytes: &[u8], offset: usize) -> Option<$int> {
            let end = offset.checked_add(size_of::<$int>())?;
            Some(<$int>::$from(bytes.get(offset..end)?.try_into().ok()?))
        }
    )*};
}

readers! {
    /// Big-endian 16 bits.
    be16: u16, from_be_bytes;
    /// Big-endian 32 bits.
    be32: u32, from_be_bytes;
    /// Big-endian 64 bits.
    be64: u64, from_be_bytes;
    /// Little-endian 16 bits.
    le16: u16, from_le_bytes;
    /// Little-endian 32 bits.
    le32: u32, from_le_bytes;
    /// Little-endian 64 bits.
    le64: u64, from_le_bytes;
}
