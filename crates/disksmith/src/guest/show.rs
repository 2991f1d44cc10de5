//! How files are shown.

use disksmith_filesystems::{Attributes, FileKind, Time};
use serde_json::{Map, Value, json};

/// A name from an image, safe on a terminal: control bytes and what is no UTF-8 are escaped.
pub(crate) fn name(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        for letter in chunk.valid().chars() {
            match letter {
                '\\' => text.push_str("\\\\"),
                letter if letter.is_control() || is_formatting(letter) => {
                    text.extend(letter.escape_default());
                }
                letter => text.push(letter),
            }
        }
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}

/// Letters that change how their neighbours look: direction marks and overrides.
fn is_formatting(letter: char) -> bool {
    matches!(letter, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The letter by which `ls -l` names a kind.
pub(crate) fn letter(kind: FileKind) -> char {
    match kind {
        FileKind::Regular => '-',
        FileKind::Directory => 'd',
        FileKind::Symlink => 'l',
        FileKind::CharDevice => 'c',
        FileKind::BlockDevice => 'b',
        FileKind::Fifo => 'p',
        FileKind::Socket => 's',
    }
}

/// In words, as stat(1) has them.
pub(crate) fn kind(kind: FileKind) -> &'static str {
    match kind {
        FileKind::Regular => "regular file",
        FileKind::Directory => "directory",
        FileKind::Symlink => "symbolic link",
        FileKind::CharDevice => "character special file",
        FileKind::BlockDevice => "block special file",
        FileKind::Fifo => "fifo",
        FileKind::Socket => "socket",
    }
}

/// `-rwxr-xr-x`.
pub(crate) fn mode(found: &Attributes) -> String {
    let bits = found.mode;
    let mut text = String::from(letter(found.kind));
    for (shift, special, set, unset) in
        [(6, 0o4000, 's', 'S'), (3, 0o2000, 's', 'S'), (0, 0o1000, 't', 'T')]
    {
        let triple = bits >> shift;
        text.push(if triple & 4 != 0 { 'r' } else { '-' });
        text.push(if triple & 2 != 0 { 'w' } else { '-' });
        text.push(match (bits & special != 0, triple & 1 != 0) {
            (true, true) => set,
            (true, false) => unset,
            (false, true) => 'x',
            (false, false) => '-',
        });
    }
    text
}

/// Year, month and day of a day counted from 1970-01-01, in the proleptic Gregorian calendar.
fn civil(day: i64) -> (i64, u32, u32) {
    // Counted from 0000-03-01, so that leap days end a year; 146097 days are 400 years.
    let day = day.saturating_add(719_468);
    let era = day.div_euclid(146_097);
    let of_era = day.rem_euclid(146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let date = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + i64::from(month <= 2);
    (year, month as u32, date as u32)
}

/// `2026-11-22 09:15:34.000000000 +0000`; shorter without the seconds.
pub(crate) fn time(time: Time, long: bool) -> String {
    let (year, month, date) = civil(time.seconds.div_euclid(86_400));
    let second = time.seconds.rem_euclid(86_400);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    match long {
        true => format!(
            "{year:04}-{month:02}-{date:02} {hour:02}:{minute:02}:{second:02}.{:09} +0000",
            time.nanoseconds
        ),
        false => format!("{year:04}-{month:02}-{date:02} {hour:02}:{minute:02}"),
    }
}

/// `1.5K`, `20M`: powers of 1024, as `ls -h` rounds.
pub(crate) fn human(bytes: u64) -> String {
    if bytes < 1024 {
        return bytes.to_string();
    }
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit < 6 {
        value /= 1024.0;
        unit += 1;
    }
    let letter = ["", "K", "M", "G", "T", "P", "E"].get(unit).copied().unwrap_or_default();
    match value < 10.0 {
        true => format!("{:.1}{letter}", (value * 10.0).ceil() / 10.0),
        false => format!("{:.0}{letter}", value.ceil()),
    }
}

/// A file as JSON. Names that are no UTF-8 are also given as hexadecimal bytes.
pub(crate) fn json(label: &[u8], found: &Attributes, target: Option<&[u8]>) -> Value {
    let mut map = Map::new();
    put_name(&mut map, "name", label);
    map.insert("kind".into(), json!(kind(found.kind)));
    map.insert("inode".into(), json!(found.inode));
    map.insert("mode".into(), json!(format!("{:04o}", found.mode)));
    map.insert("links".into(), json!(found.links));
    map.insert("uid".into(), json!(found.uid));
    map.insert("gid".into(), json!(found.gid));
    map.insert("size".into(), json!(found.size));
    map.insert("allocated".into(), json!(found.blocks.saturating_mul(512)));
    if found.kind.is_device() {
        map.insert("major".into(), json!(found.device.major));
        map.insert("minor".into(), json!(found.device.minor));
    }
    for (key, value) in
        [("accessed", found.accessed), ("modified", found.modified), ("changed", found.changed)]
    {
        map.insert(key.into(), json!(time(value, true)));
    }
    if let Some(created) = found.created {
        map.insert("created".into(), json!(time(created, true)));
    }
    if let Some(target) = target {
        put_name(&mut map, "target", target);
    }
    Value::Object(map)
}

fn put_name(map: &mut Map<String, Value>, key: &str, bytes: &[u8]) {
    map.insert(key.into(), json!(String::from_utf8_lossy(bytes)));
    if std::str::from_utf8(bytes).is_err() {
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        map.insert(format!("{key}-bytes"), json!(hex));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_drive_the_terminal() {
        assert_eq!(name(b"a\x1b[31m\n\xff\\"), "a\\u{1b}[31m\\n\\xff\\\\");
        assert_eq!(name("größe".as_bytes()), "größe");
    }

    #[test]
    fn times_are_told_in_utc() {
        let at = |seconds| time(Time { seconds, nanoseconds: 5 }, true);
        assert_eq!(at(0), "1970-01-01 00:00:00.000000005 +0000");
        assert_eq!(at(951_782_400), "2000-02-29 00:00:00.000000005 +0000");
        assert_eq!(at(-1), "1969-12-31 23:59:59.000000005 +0000");
        assert_eq!(at(4_102_444_800), "2100-01-01 00:00:00.000000005 +0000");
    }

    #[test]
    fn sizes_round_up_as_ls_does() {
        assert_eq!(human(1023), "1023");
        assert_eq!(human(1025), "1.1K");
        assert_eq!(human(20 << 20), "20M");
    }
}
