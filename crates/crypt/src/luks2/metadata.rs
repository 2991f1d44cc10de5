//! The JSON area of LUKS2, as far as unlocking needs it (specification, section 3).

use std::collections::BTreeMap;

use serde::Deserialize;

/// A 64-bit number, which the JSON has as a string of decimal digits.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Decimal(pub(super) u64);

impl TryFrom<String> for Decimal {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let number = if digits { text.parse().ok() } else { None };
        number.map(Self).ok_or_else(|| format!("'{text}' is not a number"))
    }
}

/// Bytes, which the JSON has in base64.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Base64(pub(super) Vec<u8>);

impl TryFrom<String> for Base64 {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        decode_base64(text.as_bytes()).map(Self).ok_or("not base64")
    }
}

/// The whole.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Metadata {
    pub(super) keyslots: BTreeMap<String, Keyslot>,
    pub(super) segments: BTreeMap<String, Segment>,
    pub(super) digests: BTreeMap<String, Digest>,
    pub(super) config: Config,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub(super) enum Keyslot {
    Luks2 {
        /// Bytes of the volume's key.
        key_size: usize,
        af: Splitter,
        area: Area,
        kdf: Kdf,
        /// 0: only when asked for by number; 2: before the others.
        #[serde(default = "normal_priority")]
        priority: u8,
    },
    /// For instance `reencrypt`.
    #[serde(other)]
    Other,
}

fn normal_priority() -> u8 {
    1
}

#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub(super) enum Splitter {
    Luks1 {
        stripes: u32,
        hash: String,
    },
    #[serde(other)]
    Other,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub(super) enum Area {
    Raw {
        /// Bytes from the start of the header.
        offset: Decimal,
        size: Decimal,
        encryption: String,
        /// Bytes of the key that encrypts the area.
        key_size: usize,
    },
    #[serde(other)]
    Other,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub(super) enum Kdf {
    Pbkdf2 {
        hash: String,
        iterations: u32,
        salt: Base64,
    },
    Argon2i(Argon2Cost),
    Argon2id(Argon2Cost),
    #[serde(other)]
    Other,
}

impl Kdf {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Pbkdf2 { .. } => "pbkdf2",
            Self::Argon2i(_) => "argon2i",
            Self::Argon2id(_) => "argon2id",
            Self::Other => "unknown",
        }
    }
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Argon2Cost {
    /// Passes over the memory.
    pub(super) time: u32,
    /// KiB.
    pub(super) memory: u32,
    pub(super) cpus: u32,
    pub(super) salt: Base64,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub(super) enum Segment {
    Crypt {
        /// Bytes from the start of the data device.
        offset: Decimal,
        /// Bytes, or `dynamic`.
        size: String,
        iv_tweak: Decimal,
        encryption: String,
        sector_size: usize,
        integrity: Option<serde::de::IgnoredAny>,
        #[serde(default)]
        flags: Vec<String>,
    },
    #[serde(other)]
    Other,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub(super) enum Digest {
    Pbkdf2 {
        keyslots: Vec<String>,
        segments: Vec<String>,
        hash: String,
        iterations: u32,
        salt: Base64,
        digest: Base64,
    },
    #[serde(other)]
    Other,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Config {
    #[serde(default)]
    pub(super) requirements: Requirements,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Requirements {
    #[serde(default)]
    pub(super) mandatory: Vec<String>,
}

/// Standard base64 with padding.
fn decode_base64(text: &[u8]) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(4) {
        return None;
    }
    let end = text.iter().rposition(|b| *b != b'=').map_or(0, |n| n + 1);
    if text.len() - end > 2 {
        return None;
    }
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    for group in text[..end].chunks(4) {
        let mut bits = 0u32;
        for digit in group {
            bits = bits << 6 | u32::from(base64_digit(*digit)?);
        }
        bits <<= 6 * (4 - group.len());
        let [_, a, b, c] = bits.to_be_bytes();
        bytes.extend_from_slice(&[a, b, c][..group.len() - 1]);
    }
    Some(bytes)
}

fn base64_digit(digit: u8) -> Option<u8> {
    match digit {
        b'A'..=b'Z' => Some(digit - b'A'),
        b'a'..=b'z' => Some(digit - b'a' + 26),
        b'0'..=b'9' => Some(digit - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64() {
        for (text, bytes) in [
            ("", &b""[..]),
            ("Zg==", b"f"),
            ("Zm8=", b"fo"),
            ("Zm9v", b"foo"),
            ("Zm9vYmFy", b"foobar"),
            ("+/+/", b"\xfb\xff\xbf"),
        ] {
            assert_eq!(decode_base64(text.as_bytes()).as_deref(), Some(bytes));
        }
        for text in ["Zg=", "====", "Z===", "Zm9v=", "Zm*v", "Z=g="] {
            assert_eq!(decode_base64(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn numbers() {
        assert_eq!(Decimal::try_from("16777216".to_string()).unwrap().0, 16_777_216);
        for text in ["", "-1", "+1", "0x10", "99999999999999999999"] {
            assert!(Decimal::try_from(text.to_string()).is_err());
        }
    }
}
