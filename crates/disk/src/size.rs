//! Sizes as people write and read them.

use crate::{Error, Kind, Result};

/// Reads a size in bytes.
///
/// Plain digits are bytes. `k K M G T P E` and `KiB MiB …` are powers of 1024 as in qemu-img,
/// `kB MB GB …` powers of 1000 (units(7)), `b`/`B` bytes, `s` sectors of 512. A decimal
/// fraction is allowed with a suffix (`1.5G`), `0x` starts a hexadecimal number of bytes.
///
/// ```
/// # use disksmith_disk::parse_size;
/// assert_eq!(parse_size("1.5G").unwrap(), 1_610_612_736);
/// assert_eq!(parse_size("10MiB").unwrap(), 10 << 20);
/// assert_eq!(parse_size("10MB").unwrap(), 10_000_000);
/// assert_eq!(parse_size("63s").unwrap(), 63 * 512);
/// assert!(parse_size("-1").is_err());
/// ```
pub fn parse_size(text: &str) -> Result<u64> {
    let bad = || {
        Error::new(Kind::InvalidInput, format!("'{text}' is not a size"))
        .with_hint("Write bytes, or a number with k, M, G, T, P, E (powers of 1024), kB, MB … (powers of 1000) or s (512-byte sectors).")
    };
    if let Some(hex) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        return u64::from_str_radix(hex, 16).map_err(|_| bad());
    }
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(split);
    let unit = unit(suffix).ok_or_else(bad)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || fraction.contains('.') || (number.contains('.') && fraction.is_empty()) {
        return Err(bad());
    }
    let whole: u128 = whole.parse().map_err(|_| bad())?;
    let mut bytes = whole.checked_mul(unit).ok_or_else(bad)?;
    if !fraction.is_empty() {
        if fraction.len() > 18 {
            return Err(bad());
        }
        let scale = 10u128.pow(fraction.len() as u32);
        let fraction: u128 = fraction.parse().map_err(|_| bad())?;
        // There are no parts of a byte; `1024.0` is none.
        if unit == 1 && fraction != 0 {
            return Err(bad());
        }
        bytes += fraction * unit / scale;
    }
    u64::try_from(bytes).ok().filter(|b| i64::try_from(*b).is_ok()).ok_or_else(bad)
}

fn unit(suffix: &str) -> Option<u128> {
    let power = |c: char| "KMGTPE".find(c.to_ascii_uppercase()).map(|n| n as u32 + 1);
    let mut letters = suffix.chars();
    match (letters.next(), letters.as_str()) {
        (None, _) => Some(1),
        (Some('b' | 'B'), "") => Some(1),
        (Some('s'), "") => Some(512),
        (Some(c), "" | "iB" | "ib" | "i") => power(c).map(|p| 1024u128.pow(p)),
        (Some(c), "B") => power(c).map(|p| 1000u128.pow(p)),
        _ => None,
    }
}

/// A size for people, in powers of 1024 with three significant digits, as qemu-img prints it:
/// `196 KiB`, `1.01 GiB`, `0 B`.
pub fn human_size(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    // qemu-img takes the next unit as soon as 1000 of the lower one are reached, so that three
    // digits always suffice: 1000 KiB is printed as 0.977 MiB.
    let mut index = 0;
    let mut unit = 1u64;
    while index < UNITS.len() - 1 && bytes as f64 / unit as f64 >= 1000.0 {
        unit <<= 10;
        index += 1;
    }
    format!("{} {}", three_digits(bytes as f64 / unit as f64), UNITS[index])
}

/// `%0.3g` of C for numbers from 0 to 1023.
fn three_digits(value: f64) -> String {
    let decimals = match value {
        v if v >= 99.95 => 0,
        v if v >= 9.995 => 1,
        v if v >= 0.9995 => 2,
        _ => 3,
    };
    let text = format!("{value:.decimals$}");
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_string(),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_print_as_qemu_img_prints_them() {
        for (bytes, text) in [
            (0, "0 B"),
            (10_485_760, "10 MiB"),
            (1_084_227_584, "1.01 GiB"),
            (200_704, "196 KiB"),
            (999, "999 B"),
            (1000, "0.977 KiB"),
            (1023 << 10, "0.999 MiB"),
            (1 << 40, "1 TiB"),
            (u64::MAX, "16 EiB"),
        ] {
            assert_eq!(human_size(bytes), text);
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "x", "1x", "1.", ".5", "1.5", "-1", "1Q", "16E", "1 G", "1kk"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }
}
