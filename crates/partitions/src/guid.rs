//! GUIDs as GPT stores them.

use std::fmt;
use std::str::FromStr;

use disksmith_disk::{Error, Kind};

/// A globally unique identifier. On disk its first three fields are little-endian (UEFI
/// specification, appendix A); its text form is the usual one, in upper case.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Guid(uuid::Uuid);

impl Guid {
    /// All zeroes: "unused" where a type is expected.
    pub const ZERO: Self = Self(uuid::Uuid::nil());

    /// From the number that the text form spells.
    pub const fn from_u128(value: u128) -> Self {
        Self(uuid::Uuid::from_u128(value))
    }

    /// The number that the text form spells.
    pub const fn as_u128(self) -> u128 {
        self.0.as_u128()
    }

    /// From the 16 bytes as they lie on disk.
    pub const fn from_disk(bytes: [u8; 16]) -> Self {
        Self(uuid::Uuid::from_bytes_le(bytes))
    }

    /// The 16 bytes as they lie on disk.
    pub fn to_disk(self) -> [u8; 16] {
        self.0.to_bytes_le()
    }

    /// A new random one (version 4).
    pub fn random() -> Self {
        Self(uuid::Uuid::new_v4())
    }

    /// True for [`Guid::ZERO`].
    pub fn is_zero(self) -> bool {
        self.0.is_nil()
    }
}

impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut buffer = uuid::Uuid::encode_buffer();
        f.pad(self.0.hyphenated().encode_upper(&mut buffer))
    }
}

impl FromStr for Guid {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        // The uuid crate also takes URNs and braces, which no partition tool writes.
        let plain = text.len() == 36 || text.len() == 32;
        uuid::Uuid::try_parse(text)
            .ok()
            .filter(|_| plain)
            .map(Self)
            .ok_or_else(|| Error::new(Kind::InvalidInput, format!("'{text}' is not a GUID")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mixed_endian() {
        let text = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B";
        let guid: Guid = text.parse().unwrap();
        assert_eq!(guid.to_disk()[..6], [0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8]);
        assert_eq!(Guid::from_disk(guid.to_disk()).to_string(), text);
        assert!("C12A7328".parse::<Guid>().is_err());
    }
}
