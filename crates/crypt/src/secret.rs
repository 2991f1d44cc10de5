//! Bytes that must not leak.

use std::fmt;

use disksmith_disk::{Error, Kind, Result};
use zeroize::Zeroizing;

/// A password or key: overwritten in memory when dropped, never printed.
#[derive(Clone)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Keeps `bytes`.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// `length` bytes of zero, to be filled.
    pub fn zeroed(length: usize) -> Self {
        Self::new(vec![0; length])
    }

    /// `length` bytes from the system's random source.
    pub fn random(length: usize) -> Result<Self> {
        let mut secret = Self::zeroed(length);
        fill_random(secret.bytes_mut())?;
        Ok(secret)
    }

    /// The bytes themselves.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The bytes themselves, to be changed.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl From<Vec<u8>> for Secret {
    fn from(bytes: Vec<u8>) -> Self {
        Self::new(bytes)
    }
}

impl From<&[u8]> for Secret {
    fn from(bytes: &[u8]) -> Self {
        Self::new(bytes.to_vec())
    }
}

impl AsRef<[u8]> for Secret {
    fn as_ref(&self) -> &[u8] {
        self.bytes()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Fills `bytes` from the system's random source.
pub(crate) fn fill_random(bytes: &mut [u8]) -> Result<()> {
    getrandom::fill(bytes)
        .map_err(|e| Error::new(Kind::Io, format!("Unable to get random bytes: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_not_printed() {
        let secret = Secret::from(&b"hunter2"[..]);
        assert_eq!(format!("{secret:?}"), "Secret(…)");
        assert_eq!(secret.bytes(), b"hunter2");
    }
}
