//! Length-limited Huffman codes, RFC 1951, section 3.2.2.

/// Longest code of any alphabet that the writer makes tables for.
pub(crate) const CODE_BITS_MAX: usize = 15;

/// Room for the largest alphabet.
const SYMBOLS_MAX: usize = 288;

/// One symbol's code as it goes into the bit stream: first bit lowest.
#[derive(Clone, Copy, Default)]
pub(crate) struct Code {
    pub(crate) bits: u16,
    pub(crate) length: u8,
}

/// Chooses code lengths of at most `limit` bits for symbols that occur `counts` times.
///
/// At least two symbols get a code, as zlib does it too: a lone code of one bit is incomplete,
/// and some readers refuse that.
pub(crate) fn code_lengths<const N: usize>(counts: &[u32; N], limit: usize) -> [u8; N] {
    let mut keys = [0_u64; SYMBOLS_MAX];
    let mut used = 0;
    for (symbol, &count) in counts.iter().enumerate() {
        if count != 0 {
            keys[used] = u64::from(count) << 16 | symbol as u64;
            used += 1;
        }
    }
    let mut lengths = [0; N];
    if used < 2 {
        let only = if used == 1 { (keys[0] & 0xFFFF) as usize } else { 0 };
        lengths[only] = 1;
        lengths[if only == 0 { 1 } else { 0 }] = 1;
        return lengths;
    }
    let keys = &mut keys[..used];
    keys.sort_unstable();

    let mut per_length = tree_level_counts(keys, limit);
    let mut length = limit;
    for key in keys.iter() {
        while per_length[length] == 0 {
            length -= 1;
        }
        per_length[length] -= 1;
        lengths[(key & 0xFFFF) as usize] = length as u8;
    }
    lengths
}

/// How many symbols get codes of each length, for at least two keys sorted by count.
///
/// Builds the tree in one pass over two queues that are both in order: the leaves, and the
/// inner nodes as they are made. An inner node only remembers its parent.
fn tree_level_counts(keys: &[u64], limit: usize) -> [u16; CODE_BITS_MAX + 1] {
    let mut weights = [0_u32; SYMBOLS_MAX];
    let mut parents = [0_u16; SYMBOLS_MAX];
    let mut leaf_parents = [0_u16; SYMBOLS_MAX];
    let (mut next_leaf, mut next_inner) = (0, 0);
    let inner_count = keys.len() - 1;
    for made in 0..inner_count {
        let mut weight = 0_u32;
        for _ in 0..2 {
            let leaf = keys.get(next_leaf).map(|key| (key >> 16) as u32);
            match leaf {
                Some(leaf) if next_inner == made || leaf <= weights[next_inner] => {
                    weight = weight.saturating_add(leaf);
                    leaf_parents[next_leaf] = made as u16;
                    next_leaf += 1;
                }
                _ => {
                    weight = weight.saturating_add(weights[next_inner]);
                    parents[next_inner] = made as u16;
                    next_inner += 1;
                }
            }
        }
        weights[made] = weight;
    }

    let mut depths = [0_u16; SYMBOLS_MAX];
    for inner in (0..inner_count - 1).rev() {
        depths[inner] = depths[usize::from(parents[inner])] + 1;
    }
    let mut per_length = [0_u16; CODE_BITS_MAX + 1];
    for &parent in &leaf_parents[..keys.len()] {
        let depth = usize::from(depths[usize::from(parent)]) + 1;
        per_length[depth.min(limit)] += 1;
    }
    shorten(&mut per_length, limit);
    per_length
}

/// Makes room in the code space after codes were cut to `limit` bits: while the lengths ask for
/// more than there is, the longest code below the limit is split in two, and one of those
/// takes in a code of full length.
fn shorten(per_length: &mut [u16; CODE_BITS_MAX + 1], limit: usize) {
    let space = 1_u32 << limit;
    let mut asked: u32 =
        (1..=limit).map(|bits| u32::from(per_length[bits]) << (limit - bits)).sum();
    while asked > space {
        let Some(bits) = (1..limit).rev().find(|&bits| per_length[bits] > 0) else { return };
        per_length[bits] -= 1;
        per_length[bits + 1] += 2;
        per_length[limit] -= 1;
        asked -= 1;
    }
}

/// Gives each symbol its code by the rule of section 3.2.2: shorter codes first, equal lengths
/// in the order of the symbols.
pub(crate) fn codes<const N: usize>(lengths: &[u8; N]) -> [Code; N] {
    let mut next = [0_u16; CODE_BITS_MAX + 2];
    for &length in lengths {
        next[usize::from(length & 15) + 1] += 1;
    }
    next[1] = 0;
    let mut code = 0;
    for entry in &mut next[1..] {
        code = (code + *entry) << 1;
        *entry = code;
    }
    let mut codes = [Code::default(); N];
    for (slot, &length) in codes.iter_mut().zip(lengths) {
        if length != 0 {
            let code = &mut next[usize::from(length & 15)];
            *slot = Code { bits: code.reverse_bits() >> (16 - u32::from(length)), length };
            *code += 1;
        }
    }
    codes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kraft<const N: usize>(lengths: &[u8; N], limit: u32) -> u32 {
        lengths.iter().filter(|&&l| l > 0).map(|&l| 1 << (limit - u32::from(l))).sum()
    }

    #[test]
    fn the_example_of_the_rfc() {
        let codes = codes(&[3, 3, 3, 3, 3, 2, 4, 4]);
        let bits: Vec<u16> =
            codes.iter().map(|c| c.bits.reverse_bits() >> (16 - u16::from(c.length))).collect();
        assert_eq!(bits, [0b010, 0b011, 0b100, 0b101, 0b110, 0b00, 0b1110, 0b1111]);
    }

    #[test]
    fn steep_counts_keep_to_the_limit_and_fill_the_code_space() {
        let mut counts = [0_u32; 30];
        let (mut a, mut b) = (1, 1);
        for count in &mut counts {
            *count = a;
            (a, b) = (b, a + b);
        }
        for limit in [5, 7, 14, 15] {
            let lengths = code_lengths(&counts, limit);
            assert!(lengths.iter().all(|&l| l > 0 && usize::from(l) <= limit));
            assert_eq!(kraft(&lengths, limit as u32), 1 << limit);
        }
    }

    #[test]
    fn one_or_no_symbol_still_makes_a_complete_code() {
        let mut counts = [0_u32; 30];
        assert_eq!(kraft(&code_lengths(&counts, 15), 15), 1 << 15);
        counts[0] = 9;
        assert_eq!(kraft(&code_lengths(&counts, 15), 15), 1 << 15);
        counts[7] = 2;
        assert_eq!(kraft(&code_lengths(&counts, 15), 15), 1 << 15);
    }
}
