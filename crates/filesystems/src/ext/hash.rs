//! Directory hashes: legacy, half MD4 (after RFC 1320) and TEA (Wheeler and Needham, 1994).

use disksmith_disk::{Error, Kind, Result};

/// A name's place in an indexed directory.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct NameHash {
    pub(crate) major: u32,
    pub(crate) minor: u32,
}

/// `hash_version` values.
pub(crate) const LEGACY: u8 = 0;
pub(crate) const HALF_MD4: u8 = 1;
pub(crate) const TEA: u8 = 2;
/// Added to the above: bytes are taken as unsigned.
pub(crate) const UNSIGNED: u8 = 3;
pub(crate) const SIPHASH: u8 = 6;

/// The largest hash value stands for "end of directory" in the kernel's readdir.
const END: u32 = 0x7fff_ffff << 1;

/// The hash of `name`.
pub(crate) fn name_hash(name: &[u8], version: u8, seed: [u32; 4]) -> Result<NameHash> {
    let signed = version < UNSIGNED;
    let start =
        if seed == [0; 4] { [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476] } else { seed };
    let (major, minor) = match version {
        LEGACY | UNSIGNED => (legacy(name, signed), 0),
        HALF_MD4 | 4 => half_md4(name, start, signed),
        TEA | 5 => tea(name, start, signed),
        SIPHASH => return Err(Error::new(Kind::Unsupported, "SipHash directories need their key")),
        _ => return Err(Error::new(Kind::Corrupt, format!("unknown directory hash {version}"))),
    };
    let major = major & !1;
    Ok(NameHash { major: if major == END { END - 2 } else { major }, minor })
}

fn byte_value(byte: u8, signed: bool) -> u32 {
    if signed { i32::from(byte as i8) as u32 } else { u32::from(byte) }
}

fn legacy(name: &[u8], signed: bool) -> u32 {
    let (mut previous, mut current) = (0x37ab_e8f9_u32, 0x12a3_fe2d_u32);
    for byte in name {
        let product = byte_value(*byte, signed).wrapping_mul(7_152_373);
        let mut next = previous.wrapping_add(current ^ product);
        if next & 0x8000_0000 != 0 {
            next = next.wrapping_sub(0x7fff_ffff);
        }
        previous = current;
        current = next;
    }
    current << 1
}

/// Packs up to `4 * N` bytes into words, the rest filled with the name's length.
fn pack<const N: usize>(rest: &[u8], signed: bool) -> [u32; N] {
    let length = rest.len() as u32;
    let pad = length | length << 8;
    let pad = pad | pad << 16;
    let mut words = [pad; N];
    for (word, bytes) in words.iter_mut().zip(rest.chunks(4)) {
        for byte in bytes {
            *word = byte_value(*byte, signed).wrapping_add(*word << 8);
        }
    }
    words
}

fn half_md4(name: &[u8], mut state: [u32; 4], signed: bool) -> (u32, u32) {
    let mut rest = name;
    while !rest.is_empty() {
        half_md4_block(&mut state, &pack::<8>(rest, signed));
        rest = rest.get(32..).unwrap_or(&[]);
    }
    (state[1], state[2])
}

/// MD4's three rounds, with eight steps instead of sixteen in each.
fn half_md4_block(state: &mut [u32; 4], input: &[u32; 8]) {
    const ORDER: [[usize; 8]; 3] =
        [[0, 1, 2, 3, 4, 5, 6, 7], [1, 3, 5, 7, 0, 2, 4, 6], [3, 7, 2, 6, 1, 5, 0, 4]];
    const SHIFTS: [[u32; 4]; 3] = [[3, 7, 11, 19], [3, 5, 9, 13], [3, 9, 11, 15]];
    const CONSTANTS: [u32; 3] = [0, 0x5A82_7999, 0x6ED9_EBA1];
    let [mut a, mut b, mut c, mut d] = *state;
    for round in 0..3 {
        for step in 0..8 {
            let mixed = match round {
                0 => d ^ b & (c ^ d),
                1 => (b & c).wrapping_add((b ^ c) & d),
                _ => b ^ c ^ d,
            };
            let sum = a
                .wrapping_add(mixed)
                .wrapping_add(input[ORDER[round][step]])
                .wrapping_add(CONSTANTS[round]);
            (a, b, c, d) = (d, sum.rotate_left(SHIFTS[round][step % 4]), b, c);
        }
    }
    for (word, value) in state.iter_mut().zip([a, b, c, d]) {
        *word = word.wrapping_add(value);
    }
}

fn tea(name: &[u8], mut state: [u32; 4], signed: bool) -> (u32, u32) {
    let mut rest = name;
    while !rest.is_empty() {
        let key = pack::<4>(rest, signed);
        let (mut left, mut right, mut sum) = (state[0], state[1], 0_u32);
        for _ in 0..16 {
            sum = sum.wrapping_add(0x9E37_79B9);
            left = left.wrapping_add(
                (right << 4).wrapping_add(key[0])
                    ^ right.wrapping_add(sum)
                    ^ (right >> 5).wrapping_add(key[1]),
            );
            right = right.wrapping_add(
                (left << 4).wrapping_add(key[2])
                    ^ left.wrapping_add(sum)
                    ^ (left >> 5).wrapping_add(key[3]),
            );
        }
        state[0] = state[0].wrapping_add(left);
        state[1] = state[1].wrapping_add(right);
        rest = rest.get(16..).unwrap_or(&[]);
    }
    (state[0], state[1])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values printed by `debugfs -R 'dx_hash -h TYPE -s SEED NAME'`; the seed where true.
    #[test]
    fn known_hashes() {
        let seed = [0x6745_2301, 0xefcd_ab89, 0x6745_2301, 0xefcd_ab89];
        for (name, version, seeded, major, minor) in KNOWN {
            let seed = if *seeded { seed } else { [0; 4] };
            let hash = name_hash(name.as_bytes(), *version, seed).unwrap();
            assert_eq!((hash.major, hash.minor), (*major, *minor), "{name:?} {version}");
        }
    }

    type Known = (&'static str, u8, bool, u32, u32);
    const LONG: &str = "a-name-that-is-longer-than-thirty-two-bytes-of-course";
    const KNOWN: &[Known] = &[
        ("a", LEGACY, false, 0xe74b_53e2, 0),
        ("hello.txt", LEGACY, false, 0x65a0_5776, 0),
        (LONG, LEGACY, false, 0xd42a_a204, 0),
        ("ünï", LEGACY, false, 0x46fd_855c, 0),
        ("a", HALF_MD4, false, 0xd5fa_7d7a, 0xacb4_8187),
        ("a", HALF_MD4, true, 0x35dc_0cc4, 0x3f1d_acef),
        ("hello.txt", HALF_MD4, false, 0xa26e_1d86, 0x133b_3f98),
        (LONG, HALF_MD4, false, 0x52d7_7ae2, 0xb471_dd05),
        (LONG, HALF_MD4, true, 0xe7c8_e2c4, 0x1b12_7ede),
        ("ünï", HALF_MD4, true, 0x64be_b17e, 0x4622_8a85),
        ("a", TEA, false, 0x6d0e_a4c0, 0xc189_22df),
        ("hello.txt", TEA, true, 0x5107_c3f2, 0x0384_0cb7),
        (LONG, TEA, false, 0xc600_b396, 0x689f_c4e6),
        ("ünï", TEA, false, 0x7dee_2ad4, 0x3d89_21bd),
    ];
}
