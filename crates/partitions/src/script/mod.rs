//! Tables as text: sfdisk's script and its JSON, written and read.

mod json;
mod parse;
mod restore;
mod write;

use crate::Length;

pub use parse::parse_dump;
pub use restore::restore;
pub use write::{dump_json, dump_script};

/// A table as a dump describes it; what is not said is `None`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Dump {
    /// `gpt` or `dos`.
    pub label: Option<String>,
    /// The disk's id as text.
    pub id: Option<String>,
    /// Bytes in a sector.
    pub sector_size: Option<u32>,
    /// The first sector that a partition may use.
    pub first_lba: Option<u64>,
    /// The last sector that a partition may use.
    pub last_lba: Option<u64>,
    /// How many entries a GPT has room for.
    pub table_length: Option<u32>,
    /// The alignment of what has no start, in bytes.
    pub grain: Option<u64>,
    /// The partitions, in the order of the dump.
    pub partitions: Vec<DumpPartition>,
}

/// One partition of a dump.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DumpPartition {
    /// The number at the end of its device name.
    pub number: Option<u32>,
    /// The first sector; the first free one when missing.
    pub start: Option<Amount>,
    /// The length; [`Length::Rest`] when missing.
    pub size: Option<Amount>,
    /// The type as text.
    pub kind: Option<String>,
    /// The unique id as text.
    pub uuid: Option<String>,
    /// The label.
    pub name: String,
    /// Attributes as sfdisk names them.
    pub attributes: String,
    /// The active flag.
    pub bootable: bool,
}

/// A position or a length: sectors where only digits are given, bytes with a suffix.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Amount {
    /// Bytes.
    Bytes(u64),
    /// Sectors.
    Sectors(u64),
}

impl Amount {
    /// In sectors of so many bytes, rounded up.
    pub fn sectors(self, sector_size: u32) -> u64 {
        match self {
            Self::Sectors(n) => n,
            Self::Bytes(n) => n.div_ceil(u64::from(sector_size.max(1))),
        }
    }
}

/// Digits alone and digits with `s` are sectors; anything else is a size (`1MiB`).
impl std::str::FromStr for Amount {
    type Err = disksmith_disk::Error;

    fn from_str(text: &str) -> disksmith_disk::Result<Self> {
        match text.strip_suffix('s').unwrap_or(text).parse() {
            Ok(sectors) => Ok(Self::Sectors(sectors)),
            Err(_) => disksmith_disk::parse_size(text).map(Self::Bytes),
        }
    }
}

impl From<Option<Amount>> for Length {
    fn from(amount: Option<Amount>) -> Self {
        match amount {
            None => Self::Rest,
            Some(Amount::Bytes(n)) => Self::Bytes(n),
            Some(Amount::Sectors(n)) => Self::Sectors(n),
        }
    }
}

/// Attribute bits as sfdisk writes them: the names of bits 0 to 2, `GUID:` and the numbers of
/// bits 48 to 63. Bits in between have no form; the text leaves them out.
pub fn attributes_text(bits: u64) -> String {
    let mut words: Vec<String> = crate::gpt::ATTRIBUTE_NAMES
        .iter()
        .filter(|(bit, _)| bits & bit != 0)
        .map(|(_, name)| (*name).to_string())
        .collect();
    let numbers: Vec<String> =
        (48..64).filter(|n| bits >> n & 1 == 1).map(|n| n.to_string()).collect();
    if !numbers.is_empty() {
        words.push(format!("GUID:{}", numbers.join(",")));
    }
    words.join(" ")
}

/// Reads attributes: names, `GUID:` with bit numbers, bare bit numbers, or all bits as a
/// hexadecimal number (`0x…`).
pub fn parse_attributes(text: &str) -> disksmith_disk::Result<u64> {
    let bad = |word: &str| {
        disksmith_disk::Error::new(
            disksmith_disk::Kind::InvalidInput,
            format!("'{word}' is not a partition attribute"),
        )
        .with_hint("Known are RequiredPartition, NoBlockIOProtocol, LegacyBIOSBootable, GUID:48 to GUID:63, bit numbers and 0x….")
    };
    let mut bits = 0;
    for word in text.split([' ', ',', '\t']).filter(|word| !word.is_empty()) {
        let named = crate::gpt::ATTRIBUTE_NAMES.iter().find(|(_, n)| n.eq_ignore_ascii_case(word));
        let number = word.strip_prefix("GUID:").unwrap_or(word);
        bits |= match (named, word.strip_prefix("0x")) {
            (Some((bit, _)), _) => *bit,
            (None, Some(hex)) => u64::from_str_radix(hex, 16).map_err(|_| bad(word))?,
            (None, None) => match number.parse::<u32>() {
                Ok(n @ 0..64) => 1 << n,
                _ => return Err(bad(word)),
            },
        };
    }
    Ok(bits)
}
