//! Sizes as util-linux prints them.

/// One decimal and one letter: `1019.7M`, `100M`, `2.6G`.
pub fn short_size(bytes: u64) -> String {
    let (number, letter) = scaled(bytes, false);
    format!("{number}{letter}")
}

/// Two decimals and the whole unit: `1.07 GiB`, `0 B`.
pub(super) fn long_size(bytes: u64) -> String {
    match scaled(bytes, true) {
        (number, "B") => format!("{number} B"),
        (number, letter) => format!("{number} {letter}iB"),
    }
}

/// The largest unit that makes at least 1, rounded half up, without zeroes at the end. Unlike
/// elsewhere, 1023.99 MiB becomes `1024M`.
fn scaled(bytes: u64, two_decimals: bool) -> (String, &'static str) {
    const LETTERS: [&str; 7] = ["B", "K", "M", "G", "T", "P", "E"];
    let exponent = (bytes.max(1).ilog2() / 10).min(6);
    let unit = 1u128 << (10 * exponent);
    let letter = LETTERS.get(exponent as usize).copied().unwrap_or("E");
    let scale: u128 = if two_decimals { 100 } else { 10 };
    // Thousandths first, as util-linux does: rounding twice shows in the last digit.
    let (whole, rest) = (u128::from(bytes) / unit, u128::from(bytes) % unit);
    let thousandths = rest * 1000 / unit;
    let step = 1000 / scale;
    let fraction = (thousandths + step / 2) / step;
    let (whole, fraction) = if fraction == scale { (whole + 1, 0) } else { (whole, fraction) };
    let width = if two_decimals { 2 } else { 1 };
    let text = format!("{whole}.{fraction:0width$}");
    (text.trim_end_matches('0').trim_end_matches('.').to_string(), letter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_fdisk_prints() {
        assert_eq!(short_size(2_088_387 * 512), "1019.7M");
        assert_eq!(short_size(100 << 20), "100M");
        assert_eq!(short_size(2_000_000 * 512), "976.6M");
        assert_eq!(short_size(262_143 * 4096), "1024M");
        assert_eq!(short_size(512), "512B");
        assert_eq!(long_size(1_149_927_936), "1.07 GiB");
        assert_eq!(long_size(1 << 30), "1 GiB");
        assert_eq!(long_size(196_378_624), "187.28 MiB");
        assert_eq!(long_size(u64::MAX), "16 EiB");
        assert_eq!(long_size(0), "0 B");
    }
}
