//! Names: up to 255 UTF-16 units in long entries, and the 8.3 name that each file has besides.
//!
//! To callers names are UTF-8. Unpaired surrogates, which are possible on disk, are spelled as
//! UTF-8 would spell their numbers, so that every name that is there can be named.

use std::fmt::Write as _;

use disksmith_disk::{Error, Kind, Result};

use super::layout::{
    ENTRY, KANJI_E5, LAST_LONG_ENTRY, LOWER_BASE, LOWER_EXTENSION, UNIT_PLACES, UNITS_PER_ENTRY,
    attribute,
};
use crate::raw::{le16, put, put16};

/// UTF-16 units in a name.
pub(crate) const UNITS_MAX: usize = 255;
/// What no name can have, besides control characters.
const FORBIDDEN: &[u8] = b"\"*/:<>?\\|";
/// What 8.3 names can have besides letters and digits.
const SHORT_SIGNS: &[u8] = b"!#$%&'()-@^_`{}~";
/// The characters of code page 437 from 0x80 on.
const CODE_PAGE_437: &str = "ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜ¢£¥₧ƒáíóúñÑªº¿⌐¬½¼¡«»░▒▓│┤╡╢╖╕╣║╗╝╜╛┐└┴┬├─┼╞╟╚╔╩╦╠═╬╧╨╤╥╙╘╒╓╫╪┘┌█▄▌▐▀αßΓπΣσµτΦΘΩδ∞φε∩≡±≥≤⌠⌡÷≈°∙·√ⁿ²■\u{a0}";

/// A short name and how it is to be shown: [`LOWER_BASE`], [`LOWER_EXTENSION`].
pub(crate) type Short = ([u8; 11], u8);

/// A caller's name in UTF-16; refused when `system` (FAT, exFAT) cannot hold it.
pub(crate) fn encode(name: &[u8], system: &str) -> Result<Vec<u16>> {
    let refused = |why: &str| {
        // It may be shown on a terminal.
        let shown = String::from_utf8_lossy(name).escape_debug().to_string();
        Error::new(Kind::InvalidInput, format!("{system} cannot hold the name '{shown}': {why}"))
    };
    let units = to_units(name).ok_or_else(|| refused("it is not UTF-8"))?;
    if units.len() > UNITS_MAX {
        return Err(crate::errors::name_too_long());
    }
    match fault(&units) {
        Some(why) => Err(refused(why)),
        None => Ok(units),
    }
}

/// Why FAT cannot hold a name.
pub(crate) fn fault(units: &[u16]) -> Option<&'static str> {
    let forbidden = |unit: &u16| {
        *unit < 0x20 || u8::try_from(*unit).is_ok_and(|byte| FORBIDDEN.contains(&byte))
    };
    match units.last() {
        None => Some("it is empty"),
        Some(0x2E) => Some("it ends in a dot"),
        Some(0x20) => Some("it ends in a space"),
        _ if units.iter().any(forbidden) => {
            Some("it has one of the characters \"*/:<>?\\| or a control character")
        }
        _ => None,
    }
}

/// The name that is nearest to one that FAT cannot hold.
pub(crate) fn nearest(name: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(name);
    let mut units: Vec<u16> = text
        .chars()
        .map(|c| {
            if (c as u32) < 0x20 || c.is_ascii() && FORBIDDEN.contains(&(c as u8)) {
                '_'
            } else {
                c
            }
        })
        .collect::<String>()
        .encode_utf16()
        .collect();
    units.truncate(UNITS_MAX);
    if let Some(last) = units.last_mut().filter(|unit| matches!(**unit, 0x20 | 0x2E)) {
        *last = u16::from(b'_');
    }
    to_bytes(&units)
}

/// UTF-8 (or surrogates spelled likewise) in UTF-16.
pub(crate) fn to_units(name: &[u8]) -> Option<Vec<u16>> {
    let mut units = Vec::with_capacity(name.len());
    let mut rest = name;
    while !rest.is_empty() {
        match std::str::from_utf8(rest) {
            Ok(text) => {
                units.extend(text.encode_utf16());
                break;
            }
            Err(error) => {
                let (good, bad) = rest.split_at(error.valid_up_to());
                units.extend(std::str::from_utf8(good).ok()?.encode_utf16());
                match *bad {
                    [0xED, b @ 0xA0..=0xBF, c @ 0x80..=0xBF, ..] => {
                        units.push(0xD000 | u16::from(b & 0x3F) << 6 | u16::from(c & 0x3F));
                        rest = bad.get(3..)?;
                    }
                    _ => return None,
                }
            }
        }
    }
    Some(units)
}

/// UTF-16 in UTF-8; unpaired surrogates as [`to_units`] reads them.
pub(crate) fn to_bytes(units: &[u16]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(units.len());
    for c in char::decode_utf16(units.iter().copied()) {
        match c {
            Ok(c) => bytes.extend(c.encode_utf8(&mut [0; 4]).as_bytes()),
            Err(error) => {
                let unit = error.unpaired_surrogate();
                bytes.extend([0xED, 0x80 | (unit >> 6 & 0x3F) as u8, 0x80 | (unit & 0x3F) as u8]);
            }
        }
    }
    bytes
}

/// The form in which names are compared: upper case, where that is one unit as well.
pub(crate) fn fold(units: &[u16]) -> Vec<u16> {
    units.iter().map(|unit| upper(*unit)).collect()
}

/// A unit in upper case.
pub(crate) fn upper(unit: u16) -> u16 {
    if unit < 0x80 {
        return u16::from((unit as u8).to_ascii_uppercase());
    }
    let Some(c) = char::from_u32(unit.into()) else { return unit };
    let mut upper = c.to_uppercase();
    match (upper.next(), upper.next()) {
        (Some(one), None) => u16::try_from(u32::from(one)).unwrap_or(unit),
        _ => unit,
    }
}

/// The short name that says all of a name, if there is one: then no long entries are needed.
pub(crate) fn exact_short(units: &[u16]) -> Option<Short> {
    let mut name = [b' '; 11];
    let dot = units.iter().rposition(|unit| *unit == 0x2E);
    let (base, extension) = match dot {
        Some(at) => (units.get(..at)?, units.get(at + 1..)?),
        None => (units, &[][..]),
    };
    if base.is_empty()
        || base.len() > 8
        || extension.len() > 3
        || dot.is_some() && extension.is_empty()
    {
        return None;
    }
    let lower_base = short_part(base, name.get_mut(..8)?)?;
    let lower_extension = short_part(extension, name.get_mut(8..)?)?;
    let case =
        if lower_base { LOWER_BASE } else { 0 } | if lower_extension { LOWER_EXTENSION } else { 0 };
    Some((name, case))
}

/// Puts a part in upper case; tells whether it was in lower case. `None` if it was in both.
fn short_part(units: &[u16], to: &mut [u8]) -> Option<bool> {
    let (mut lower, mut upper) = (false, false);
    for (unit, to) in units.iter().zip(to) {
        let byte = u8::try_from(*unit).ok().filter(|byte| is_short(*byte))?;
        lower |= byte.is_ascii_lowercase();
        upper |= byte.is_ascii_uppercase();
        *to = byte.to_ascii_uppercase();
    }
    (!(lower && upper)).then_some(lower)
}

fn is_short(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || SHORT_SIGNS.contains(&byte)
}

/// A short name for a name that has long entries, made as Windows makes them: `LONGNA~1.TXT`. From
/// the fifth of a kind on, with a checksum of the long name in it. `taken` tells of the short names
/// that are there.
pub(crate) fn numbered_short(units: &[u16], taken: &dyn Fn(&[u8; 11]) -> bool) -> Option<[u8; 11]> {
    let first = units.iter().position(|unit| *unit != 0x2E)?;
    let dot = units.iter().rposition(|unit| *unit == 0x2E).filter(|at| *at > first);
    let base = short_chars(units.get(first..dot.unwrap_or(units.len()))?, 6);
    let extension = short_chars(dot.and_then(|at| units.get(at + 1..)).unwrap_or(&[]), 3);
    let sum = units.iter().fold(0_u16, |sum, unit| sum.rotate_left(5).wrapping_mul(31) ^ unit);
    let numbered = |stem: &[u8], number: u32| {
        let mut tail = String::new();
        let _ = write!(tail, "~{number}");
        let keep = stem.len().min(8 - tail.len());
        let mut name = [b' '; 11];
        put(&mut name, 0, stem.get(..keep).unwrap_or(&[]));
        put(&mut name, keep, tail.as_bytes());
        put(&mut name, 8, &extension);
        name
    };
    let plain = (1..5).map(|number| numbered(&base, number));
    let summed = (0..=u16::MAX).map(|step| {
        let mut stem = base.get(..base.len().min(2)).unwrap_or(&[]).to_vec();
        stem.extend(format!("{:04X}", sum.wrapping_add(step)).bytes());
        numbered(&stem, 1)
    });
    plain.chain(summed).find(|name| !taken(name))
}

/// Up to `most` characters that a short name can have; spaces and dots are left out, others
/// become underscores.
fn short_chars(units: &[u16], most: usize) -> Vec<u8> {
    let kept = units.iter().filter(|unit| !matches!(**unit, 0x20 | 0x2E));
    kept.map(|unit| match u8::try_from(*unit) {
        Ok(byte) if is_short(byte) => byte.to_ascii_uppercase(),
        _ => b'_',
    })
    .take(most)
    .collect()
}

/// The text of a short name.
pub(crate) fn short_text(name: &[u8; 11], case: u8) -> Vec<u16> {
    let mut name = *name;
    if name[0] == KANJI_E5 {
        name[0] = 0xE5;
    }
    let (base, extension) = name.split_at(8);
    let mut units = part_text(base, case & LOWER_BASE != 0);
    let extension = part_text(extension, case & LOWER_EXTENSION != 0);
    if !extension.is_empty() {
        units.push(0x2E);
        units.extend(extension);
    }
    units
}

fn part_text(part: &[u8], lower: bool) -> Vec<u16> {
    let end = part.iter().rposition(|byte| *byte != b' ').map_or(0, |at| at + 1);
    let part = part.get(..end).unwrap_or(&[]);
    part.iter()
        .map(|byte| match *byte {
            byte @ 0x80.. => {
                CODE_PAGE_437.chars().nth(usize::from(byte - 0x80)).map_or(0x5F, |c| c as u16)
            }
            byte if lower => byte.to_ascii_lowercase().into(),
            byte => byte.into(),
        })
        .collect()
}

/// The checksum of a short name that its long entries bear.
pub(crate) fn checksum(name: &[u8; 11]) -> u8 {
    name.iter().fold(0_u8, |sum, byte| sum.rotate_right(1).wrapping_add(*byte))
}

/// The long entries of a name, in the order in which they stand before the short one.
pub(crate) fn long_entries(units: &[u16], short: &[u8; 11]) -> Vec<[u8; ENTRY]> {
    let count = units.len().div_ceil(UNITS_PER_ENTRY);
    let mut entries = Vec::with_capacity(count);
    for number in (1..=count).rev() {
        let mut raw = [0; ENTRY];
        raw[0] = number as u8 | if number == count { LAST_LONG_ENTRY } else { 0 };
        raw[11] = attribute::LONG_NAME;
        raw[13] = checksum(short);
        let from = (number - 1) * UNITS_PER_ENTRY;
        for (index, at) in UNIT_PLACES.iter().enumerate() {
            // A terminating zero, then nothing but ones.
            let unit = match units.get(from + index) {
                Some(unit) => *unit,
                None if from + index == units.len() => 0,
                None => 0xFFFF,
            };
            put16(&mut raw, *at, unit);
        }
        entries.push(raw);
    }
    entries
}

/// Puts the parts of a long name together as they are met.
#[derive(Debug, Default)]
pub(crate) struct Assembler {
    units: Vec<u16>,
    /// The number of the part that must come next; 0 when all are there.
    expected: u8,
    sum: u8,
    first: u32,
    started: bool,
}

impl Assembler {
    /// A long entry was met in the slot `slot`.
    pub(crate) fn add(&mut self, raw: &[u8; ENTRY], slot: u32) {
        let number = raw[0] & !LAST_LONG_ENTRY;
        if raw[0] & LAST_LONG_ENTRY != 0 {
            let parts = usize::from(number);
            self.started = (1..=UNITS_MAX.div_ceil(UNITS_PER_ENTRY)).contains(&parts);
            self.sum = raw[13];
            self.first = slot;
            self.units.clear();
            self.units.resize(parts.min(20) * UNITS_PER_ENTRY, 0xFFFF);
        } else if !self.started || number != self.expected || raw[13] != self.sum || number == 0 {
            self.started = false;
        }
        if !self.started {
            return;
        }
        let from = (usize::from(number) - 1) * UNITS_PER_ENTRY;
        for (index, at) in UNIT_PLACES.iter().enumerate() {
            if let Some(unit) = self.units.get_mut(from + index) {
                *unit = le16(raw, *at);
            }
        }
        self.expected = number - 1;
    }

    /// The short entry was met: the long name and its first slot, if it belongs to it.
    pub(crate) fn take(&mut self, short: &[u8; 11]) -> Option<(Vec<u16>, u32)> {
        let whole = std::mem::take(&mut self.started) && self.expected == 0;
        if !whole || self.sum != checksum(short) {
            return None;
        }
        let end = self.units.iter().position(|unit| *unit == 0).unwrap_or(self.units.len());
        let units = self.units.get(..end.min(UNITS_MAX))?.to_vec();
        (!units.is_empty()).then_some((units, self.first))
    }

    /// Something else was met.
    pub(crate) fn clear(&mut self) {
        self.started = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn units(text: &str) -> Vec<u16> {
        text.encode_utf16().collect()
    }

    fn shown(name: &[u8; 11]) -> String {
        String::from_utf8_lossy(name).into_owned()
    }

    #[test]
    fn short_names_that_say_all() {
        for (name, short, case) in [
            ("README.TXT", "README  TXT", 0),
            ("readme.txt", "README  TXT", LOWER_BASE | LOWER_EXTENSION),
            ("readme.TXT", "README  TXT", LOWER_BASE),
            ("A", "A          ", 0),
            ("12345678.abc", "12345678ABC", LOWER_EXTENSION),
        ] {
            let found = exact_short(&units(name)).unwrap();
            assert_eq!((shown(&found.0).as_str(), found.1), (short, case), "{name}");
            assert_eq!(short_text(&found.0, found.1), units(name), "{name}");
        }
        for name in
            ["Readme.txt", "a.b.c", "123456789", "a.text", "a b", ".bashrc", "ä", "a+b", "a."]
        {
            assert_eq!(exact_short(&units(name)), None, "{name}");
        }
    }

    #[test]
    fn numbered_short_names() {
        let mut there: Vec<[u8; 11]> = Vec::new();
        for expected in ["LONGNA~1TXT", "LONGNA~2TXT", "LONGNA~3TXT", "LONGNA~4TXT"] {
            let name = numbered_short(&units("Long name.txt"), &|n| there.contains(n)).unwrap();
            assert_eq!(shown(&name), expected);
            there.push(name);
        }
        for number in 0..300 {
            let name = format!("Long name {number}.txt");
            let short = numbered_short(&units(&name), &|n| there.contains(n)).unwrap();
            assert!(!there.contains(&short));
            there.push(short);
        }
        let name = numbered_short(&units(".bashrc"), &|_| false).unwrap();
        assert_eq!(shown(&name), "BASHRC~1   ");
        let name = numbered_short(&units("äöü.tar.gz"), &|_| false).unwrap();
        assert_eq!(shown(&name), "___TAR~1GZ ");
    }

    #[test]
    fn long_names_come_back() {
        for name in ["x", "exactly-13-ch", "fourteen chars", &"ü".repeat(255)] {
            let units = units(name);
            let short = numbered_short(&units, &|_| false).unwrap();
            let mut assembler = Assembler::default();
            for (slot, entry) in long_entries(&units, &short).iter().enumerate() {
                assembler.add(entry, slot as u32 + 7);
            }
            assert_eq!(assembler.take(&short), Some((units, 7)));
        }
        assert!(encode("a".repeat(256).as_bytes(), "FAT").is_err());
        for bad in ["a:b", "a.", "a ", "a\nb", ""] {
            assert!(encode(bad.as_bytes(), "FAT").is_err(), "{bad}");
            let near = nearest(bad.as_bytes());
            assert!(bad.is_empty() || encode(&near, "FAT").is_ok(), "{bad}");
        }
        assert!(encode(b"\xff", "FAT").is_err());
        let lone = [0xD800, 0x41];
        assert_eq!(to_units(&to_bytes(&lone)).unwrap(), lone);
    }
}
