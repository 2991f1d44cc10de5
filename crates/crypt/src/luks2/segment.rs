//! The encrypted payload of a LUKS2 volume.

use std::collections::BTreeMap;

use disksmith_disk::{Error, Kind, Result};

use super::metadata::Segment;
use crate::{CipherSpec, SECTOR};

/// A segment that can be read and written.
#[derive(Clone, Debug)]
pub(super) struct CryptSegment {
    pub(super) name: String,
    /// Bytes.
    pub(super) offset: u64,
    /// Bytes; to the end of the disk if there is none.
    pub(super) size: Option<u64>,
    pub(super) sector_bytes: usize,
    /// The number of the first sector, in units of 512 bytes.
    pub(super) iv_tweak: u64,
    encryption: String,
}

impl CryptSegment {
    /// The cipher, for a key of `key_bytes`.
    pub(super) fn spec(&self, key_bytes: usize) -> Result<CipherSpec> {
        parse_encryption(&self.encryption, key_bytes)
    }
}

/// The one segment of a volume that is not in the middle of something.
pub(super) fn only(segments: &BTreeMap<String, Segment>) -> Result<CryptSegment> {
    let mut all = segments.iter();
    let (Some((name, segment)), None) = (all.next(), all.next()) else {
        let text = format!("LUKS2 volumes of {} segments are not supported", segments.len());
        return Err(unsupported(text));
    };
    let Segment::Crypt { offset, size, iv_tweak, encryption, sector_size, integrity, flags } =
        segment
    else {
        return Err(unsupported(format!("Type of LUKS2 segment {name} is not supported")));
    };
    if integrity.is_some() {
        return Err(unsupported("LUKS2 volumes with integrity protection are not supported"));
    }
    if let Some(flag) = flags.first() {
        return Err(unsupported(format!("LUKS2 segment flag '{flag}' is not supported")));
    }
    let size = match size.as_str() {
        "dynamic" => None,
        digits => Some(digits.parse().map_err(|_| corrupt("LUKS2 segment size is not valid"))?),
    };
    let sound = matches!(sector_size, 512 | 1024 | 2048 | 4096)
        && offset.0.is_multiple_of(SECTOR)
        && size.is_none_or(|size: u64| size.is_multiple_of(*sector_size as u64));
    if !sound {
        return Err(corrupt(format!("LUKS2 segment {name} is not aligned to its sectors")));
    }
    Ok(CryptSegment {
        name: name.clone(),
        offset: offset.0,
        size,
        sector_bytes: *sector_size,
        iv_tweak: iv_tweak.0,
        encryption: encryption.clone(),
    })
}

/// `aes-xts-plain64`, for a key of `key_bytes`.
pub(super) fn parse_encryption(text: &str, key_bytes: usize) -> Result<CipherSpec> {
    let (cipher, mode) = text
        .split_once('-')
        .ok_or_else(|| unsupported(format!("Encryption '{text}' is not supported")))?;
    CipherSpec::from_header(cipher, mode, key_bytes)
}

fn corrupt(message: impl Into<String>) -> Error {
    Error::new(Kind::Corrupt, message)
}

fn unsupported(message: impl Into<String>) -> Error {
    Error::new(Kind::Unsupported, message)
}
