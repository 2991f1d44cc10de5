//! Where the fields of the formats lie: the lists that the structure-aware mutator works from.

pub mod exfat;
pub mod ext;
pub mod fat;
pub mod luks;
pub mod qcow2;
pub mod tables;

/// A field of an on-disk structure.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// The specification's name.
    pub name: &'static str,
    /// Byte offset in the seed.
    pub offset: usize,
    /// Bytes: 1, 2, 4 or 8.
    pub width: usize,
    /// Byte order.
    pub big_endian: bool,
}

/// A big-endian field.
pub(crate) const fn be(name: &'static str, offset: usize, width: usize) -> Field {
    Field { name, offset, width, big_endian: true }
}

/// A little-endian field.
pub(crate) const fn le(name: &'static str, offset: usize, width: usize) -> Field {
    Field { name, offset, width, big_endian: false }
}
