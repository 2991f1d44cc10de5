//! How often each symbol occurs in a block.

use super::tables::{
    DISTANCE_EXTRA_BITS, DISTANCE_SYMBOLS, END_OF_BLOCK, LENGTH_CODE, LENGTH_EXTRA_BITS,
    LITERAL_LENGTH_SYMBOLS, MATCH_MIN,
};

/// Counts of both alphabets' symbols.
pub(crate) struct Counts {
    pub(crate) literal_length: [u32; LITERAL_LENGTH_SYMBOLS],
    pub(crate) distance: [u32; DISTANCE_SYMBOLS],
}

impl Counts {
    /// One end of block, and nothing else.
    pub(crate) fn new() -> Self {
        let mut counts =
            Self { literal_length: [0; LITERAL_LENGTH_SYMBOLS], distance: [0; DISTANCE_SYMBOLS] };
        counts.literal_length[END_OF_BLOCK] = 1;
        counts
    }

    #[inline(always)]
    pub(crate) fn add_literal(&mut self, literal: u8) {
        let count = &mut self.literal_length[usize::from(literal)];
        *count = count.wrapping_add(1);
    }

    #[inline(always)]
    pub(crate) fn add_match(&mut self, length: usize, distance_code: usize) {
        let code = usize::from(LENGTH_CODE[length.wrapping_sub(MATCH_MIN) & 0xFF]);
        let count =
            &mut self.literal_length[(END_OF_BLOCK + 1 + code).min(LITERAL_LENGTH_SYMBOLS - 1)];
        *count = count.wrapping_add(1);
        let count = &mut self.distance[distance_code.min(DISTANCE_SYMBOLS - 1)];
        *count = count.wrapping_add(1);
    }

    /// All that occurs in `self` or in `next`, as one block.
    pub(crate) fn merged(&self, next: &Self) -> Self {
        let mut sum = Self::new();
        for (slot, (a, b)) in
            sum.literal_length.iter_mut().zip(self.literal_length.iter().zip(&next.literal_length))
        {
            *slot = a.wrapping_add(*b);
        }
        for (slot, (a, b)) in sum.distance.iter_mut().zip(self.distance.iter().zip(&next.distance))
        {
            *slot = a.wrapping_add(*b);
        }
        sum.literal_length[END_OF_BLOCK] = 1;
        sum
    }

    /// About how many bits the symbols take, in units of 1/256: their entropy.
    pub(crate) fn entropy(&self) -> u64 {
        entropy(&self.literal_length) + entropy(&self.distance)
    }

    /// Bits that follow the codes of lengths and distances.
    pub(crate) fn extra_bits(&self) -> u64 {
        let lengths = self.literal_length[END_OF_BLOCK + 1..].iter().zip(&LENGTH_EXTRA_BITS);
        let distances = self.distance.iter().zip(&DISTANCE_EXTRA_BITS);
        lengths.chain(distances).map(|(&count, &bits)| u64::from(count) * u64::from(bits)).sum()
    }
}

fn entropy(counts: &[u32]) -> u64 {
    let total: u32 = counts.iter().sum();
    let log_total = log2(total);
    counts
        .iter()
        .map(|&count| u64::from(count) * u64::from(log_total.wrapping_sub(log2(count))))
        .sum()
}

/// The binary logarithm in units of 1/256; 0 of 0.
#[inline(always)]
fn log2(count: u32) -> u32 {
    let shift = 32_u32.saturating_sub(count.leading_zeros()).saturating_sub(LOG_BITS);
    u32::from(LOG2[(count >> shift) as usize & (LOG2.len() - 1)]) + (shift << 8)
}

const LOG_BITS: u32 = 9;

static LOG2: [u16; 1 << LOG_BITS] = {
    let mut table = [0; 1 << LOG_BITS];
    let mut count = 1;
    while count < table.len() {
        table[count] = exact_log2(count as u64);
        count += 1;
    }
    table
};

/// The logarithm in units of 1/256, one bit of it for each squaring.
const fn exact_log2(count: u64) -> u16 {
    let whole = count.ilog2();
    let mut log = whole as u16;
    // 1.0 to 2.0, with 30 bits behind the point.
    let mut rest = (count << 30) >> whole;
    let mut bit = 0;
    while bit < 8 {
        rest = (rest * rest) >> 30;
        log <<= 1;
        if rest >= 2 << 30 {
            rest >>= 1;
            log |= 1;
        }
        bit += 1;
    }
    log
}
