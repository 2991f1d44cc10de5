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

/// So many zeroes, of a number that an image gives: memory that is not to be had is an error, not
/// the end of the program. What is not touched costs no memory.
///
/// # Errors
/// `ENOMEM`.
pub fn zeroed<T: zerocopy::FromZeros>(count: usize) -> crate::Result<Vec<T>> {
    T::new_vec_zeroed(count).map_err(|_| no_memory())
}

/// Makes a list that long; what is added is zero.
///
/// # Errors
/// `ENOMEM`.
pub fn resize<T: Clone + Default>(list: &mut Vec<T>, count: usize) -> crate::Result<()> {
    list.try_reserve_exact(count.saturating_sub(list.len())).map_err(|_| no_memory())?;
    list.resize(count, T::default());
    Ok(())
}

/// Adds an element.
///
/// # Errors
/// `ENOMEM`.
pub fn push<T>(list: &mut Vec<T>, element: T) -> crate::Result<()> {
    list.try_reserve(1).map_err(|_| no_memory())?;
    list.push(element);
    Ok(())
}

fn no_memory() -> crate::Error {
    crate::Error::from_errno(ENOMEM)
}

const ENOMEM: i32 = 12;
