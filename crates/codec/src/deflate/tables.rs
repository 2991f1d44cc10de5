//! The alphabets of RFC 1951, section 3.2.5, as lookup tables made at compile time.

/// Literals 0 to 255, end of block, 29 length codes; the last two never occur, but the fixed
/// code reckons with them.
pub(crate) const LITERAL_LENGTH_SYMBOLS: usize = 288;
/// The end-of-block symbol.
pub(crate) const END_OF_BLOCK: usize = 256;
/// Distance codes; the last two never occur.
pub(crate) const DISTANCE_SYMBOLS: usize = 32;
/// Shortest match that deflate can express.
pub(crate) const MATCH_MIN: usize = 3;
/// Longest match that deflate can express.
pub(crate) const MATCH_MAX: usize = 258;

const LENGTH_CODES: usize = 29;

/// Extra bits after each length code (257 is entry 0).
pub(crate) const LENGTH_EXTRA_BITS: [u8; LENGTH_CODES] =
    [0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0];

/// Extra bits after each distance code.
pub(crate) const DISTANCE_EXTRA_BITS: [u8; DISTANCE_SYMBOLS] = [
    0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13,
    13, 0, 0,
];

/// The shortest length of each code.
pub(crate) const LENGTH_BASE: [u16; LENGTH_CODES] = {
    let mut base = first_values(&LENGTH_EXTRA_BITS, MATCH_MIN as u16);
    // Code 285 is 258 alone, cutting short the range of code 284.
    base[LENGTH_CODES - 1] = MATCH_MAX as u16;
    base
};

/// The smallest distance of each code.
pub(crate) const DISTANCE_BASE: [u16; DISTANCE_SYMBOLS] = first_values(&DISTANCE_EXTRA_BITS, 1);

/// The length code, less 257, of each match length less 3.
pub(crate) const LENGTH_CODE: [u8; 256] = {
    let mut codes = [0; 256];
    let mut code = 0;
    while code < LENGTH_CODES {
        let mut at = LENGTH_BASE[code] as usize - MATCH_MIN;
        let end =
            if code + 1 < LENGTH_CODES { LENGTH_BASE[code + 1] as usize - MATCH_MIN } else { 256 };
        while at < end {
            codes[at] = code as u8;
            at += 1;
        }
        code += 1;
    }
    codes
};

/// The distance code of `distance`, which is 1 to 32768.
///
/// From 5 on there are two codes for each power of two: which, the second highest bit of the
/// distance less one says.
#[inline(always)]
pub(crate) fn distance_code(distance: u16) -> usize {
    let less_one = u32::from(distance.wrapping_sub(1));
    let top = 31 - (less_one | 1).leading_zeros();
    let half = (less_one >> (top.wrapping_sub(1) & 31)) & 1;
    let code = 2 * top + half;
    if less_one < 2 { less_one as usize } else { code as usize }
}

const fn first_values<const N: usize>(extra_bits: &[u8; N], first: u16) -> [u16; N] {
    let mut base = [0; N];
    let mut value = first as u32;
    let mut code = 0;
    while code < N {
        base[code] = value as u16;
        value += 1 << extra_bits[code];
        code += 1;
    }
    base
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_match_the_ranges_of_the_rfc() {
        assert_eq!(LENGTH_BASE[8], 11);
        assert_eq!(LENGTH_BASE[27], 227);
        assert_eq!(LENGTH_BASE[28], 258);
        assert_eq!(LENGTH_CODE[257 - 3], 27);
        assert_eq!(LENGTH_CODE[258 - 3], 28);
        assert_eq!(DISTANCE_BASE[23], 3073);
        assert_eq!(DISTANCE_BASE[29], 24577);
    }

    #[test]
    fn distance_codes_hold_their_distances() {
        for distance in 1..=32768_u16 {
            let code = distance_code(distance);
            let reach = 1_u32 << DISTANCE_EXTRA_BITS[code];
            let base = u32::from(DISTANCE_BASE[code]);
            assert!((base..base + reach).contains(&u32::from(distance)), "{distance}");
        }
    }
}
