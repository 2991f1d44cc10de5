//! Numbers as qemu-img reads them, with its words for what is wrong with them; the native face
//! reads more units.

use disksmith_disk::{Error, Kind};

use crate::face::{Face, Failure};

/// Reads a size in bytes from 0 to 2^63 - 1; `what` names it in the error.
pub(crate) fn size(face: &Face, what: &str, text: &str) -> Result<u64, Failure> {
    bounded(face, what, text, 0, i64::MAX as u64)
}

/// Reads a size within bounds.
pub(crate) fn bounded(
    face: &Face,
    what: &str,
    text: &str,
    low: u64,
    high: u64,
) -> Result<u64, Failure> {
    match parse(text, !face.drop_in) {
        Parse::Value(value) if (low..=high).contains(&value) => Ok(value),
        Parse::Invalid => invalid(format!("Invalid {what} specified: '{text}'.")),
        _ => invalid(format!("Invalid {what} specified. Must be between {low} and {high}.")),
    }
}

fn invalid<T>(text: String) -> Result<T, Failure> {
    Err(Error::new(Kind::InvalidInput, text).into())
}

enum Parse {
    Value(u64),
    OutOfRange,
    Invalid,
}

fn is_negative(text: &str) -> bool {
    text.strip_prefix('-')
        .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit()))
}

/// With `all_units`, `MB`, `KiB`, `s` and the like are read too.
fn parse(text: &str, all_units: bool) -> Parse {
    let text = text.trim_start();
    if is_negative(text) {
        return Parse::OutOfRange;
    }
    let text = text.strip_prefix('+').unwrap_or(text);
    if text.starts_with("0x") || text.starts_with("0X") {
        return match u64::from_str_radix(&text[2..], 16) {
            Ok(value) => Parse::Value(value),
            Err(e) if *e.kind() == std::num::IntErrorKind::PosOverflow => Parse::OutOfRange,
            Err(_) => Parse::Invalid,
        };
    }
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let power = match suffix {
        "" | "b" | "B" => 0,
        "k" | "K" => 1,
        "m" | "M" => 2,
        "g" | "G" => 3,
        "t" | "T" => 4,
        "p" | "P" => 5,
        "e" | "E" => 6,
        other => match disksmith_disk::parse_size(&format!("1{other}")) {
            Ok(unit) if all_units => return scaled(number, u128::from(unit)),
            _ => return Parse::Invalid,
        },
    };
    scaled(number, 1u128 << (10 * power))
}

fn scaled(number: &str, unit: u128) -> Parse {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if number.is_empty() || number == "." || fraction.contains('.') {
        return Parse::Invalid;
    }
    let fraction: f64 = match fraction {
        "" => 0.0,
        digits => format!("0.{digits}").parse().unwrap_or(0.0),
    };
    if fraction > 0.0 && unit == 1 {
        return Parse::Invalid;
    }
    let whole: u128 = match whole {
        "" => 0,
        digits => match digits.parse() {
            Ok(value) => value,
            Err(_) => return Parse::OutOfRange,
        },
    };
    let bytes = whole.saturating_mul(unit).saturating_add((fraction * unit as f64) as u128);
    u64::try_from(bytes).map_or(Parse::OutOfRange, Parse::Value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<u64, String> {
        size(&Face::qemu_img("qemu-img"), "image size", text).map_err(|failure| match failure {
            Failure::Error(error) => error.to_string(),
            other => format!("{other:?}"),
        })
    }

    #[test]
    fn the_native_face_reads_all_units() {
        for (text, bytes) in [("1MB", 1_000_000), ("1kB", 1000), ("1MiB", 1 << 20), ("63s", 32_256)]
        {
            assert_eq!(
                size(&Face::native("disksmith"), "image size", text).ok(),
                Some(bytes),
                "{text}"
            );
            assert!(read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_read_as_qemu_img_reads_them() {
        for (text, bytes) in [
            ("0", 0),
            ("1k", 1024),
            ("1.5G", 1_610_612_736),
            (".5k", 512),
            ("1.k", 1024),
            ("0x400", 1024),
            (" 1k", 1024),
            ("+1k", 1024),
        ] {
            assert_eq!(read(text), Ok(bytes), "{text}");
        }
        for text in ["1.5", "1kB", "1kx", "0x1k", "1e3", "x", "", "1.5b"] {
            assert_eq!(read(text), Err(format!("Invalid image size specified: '{text}'.")));
        }
        for text in ["9E", "-1", "99999999999999999999999999"] {
            assert!(
                read(text).unwrap_err().ends_with("Must be between 0 and 9223372036854775807.")
            );
        }
    }
}
