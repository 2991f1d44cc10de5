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
        self.add_literals(literal, 1);
    }

    /// Counts `literal` so many times; none is all right.
    #[inline(always)]
    pub(crate) fn add_literals(&mut self, literal: u8, times: u32) {
        let count = &mut self.literal_length[usize::from(literal)];
        *count = count.wrapping_add(times);
    }

    #[inline(always)]
    pub(crate) fn add_match(&mut self, length: usize, distance_code: usize) {
        let code = usize::from(LENGTH_CODE[length.wrapping_sub(MATCH_MIN) & 0xFF]);
        let count =
            &mut self.literal_length[(END_OF_BLOCK + 1 + code).min(LITERAL_LENGTH_SYMBOLS - 1)];
        *count = count.wrapping_add(1);
        let count = &mut self.distance[distance_code & (DISTANCE_SYMBOLS - 1)];
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

    /// About how many bits the symbols take: their entropy.
    pub(crate) fn entropy(&self) -> f32 {
        entropy(&self.literal_length) + entropy(&self.distance)
    }

    /// Bits that follow the codes of lengths and distances.
    pub(crate) fn extra_bits(&self) -> u64 {
        let lengths = self.literal_length[END_OF_BLOCK + 1..].iter().zip(&LENGTH_EXTRA_BITS);
        let distances = self.distance.iter().zip(&DISTANCE_EXTRA_BITS);
        lengths.chain(distances).map(|(&count, &bits)| u64::from(count) * u64::from(bits)).sum()
    }
}

/// What symbols that occur so often take together, in bits: `total * log2(total)` less the same
/// of each count.
fn entropy(counts: &[u32]) -> f32 {
    const LANES: usize = 8;
    let mut totals = [0_u32; LANES];
    let mut sums = [0_f32; LANES];
    for few in counts.chunks_exact(LANES) {
        for ((total, sum), &count) in totals.iter_mut().zip(&mut sums).zip(few) {
            *total = total.wrapping_add(count);
            *sum += weighted_log2(count);
        }
    }
    let total = totals.iter().fold(0_u32, |total, &lane| total.wrapping_add(lane));
    weighted_log2(total) - sums.iter().sum::<f32>()
}

/// `count * log2(count)` to half a per cent, in operations that the compiler can do for many
/// counts at once; 0 of 0.
///
/// The exponent of the count as a float is the whole part; a parabola through the mantissa
/// makes the rest.
#[inline(always)]
fn weighted_log2(count: u32) -> f32 {
    // Counts are far below what a signed number holds, and its conversion is the faster one.
    let value = count as i32 as f32;
    let bits = value.to_bits();
    let whole = (bits >> 23) as i32 as f32;
    let mantissa = f32::from_bits(bits & 0x007F_FFFF | 0x3F80_0000);
    value * (whole - 127.0 + (2.024_66 - 0.344_845 * mantissa) * mantissa - 1.674_87)
}
