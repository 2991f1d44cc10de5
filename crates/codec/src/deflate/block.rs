//! Blocks, RFC 1951, section 3.2: the cheapest of stored, fixed and dynamic codes.

use super::bits::BitWriter;
use super::counts::Counts;
use super::huffman::{Code, code_lengths, codes};
use super::parse::Sequence;
use super::tables::{
    DISTANCE_BASE, DISTANCE_EXTRA_BITS, DISTANCE_SYMBOLS, END_OF_BLOCK, LENGTH_BASE, LENGTH_CODE,
    LENGTH_EXTRA_BITS, LITERAL_LENGTH_SYMBOLS, MATCH_MIN,
};
use super::window::Window;

/// Literal and length codes of at most 14 bits: four of them fit between two flushes.
const LITERAL_LENGTH_LIMIT: usize = 14;
const DISTANCE_LIMIT: usize = 15;
/// Codes for code lengths have lengths of three bits, section 3.2.7.
const CODE_LENGTH_LIMIT: usize = 7;
const CODE_LENGTH_SYMBOLS: usize = 19;
/// The order in which the lengths of the code length codes are sent.
const CODE_LENGTH_ORDER: [usize; CODE_LENGTH_SYMBOLS] =
    [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];
const STORED_LENGTH_MAX: usize = 0xFFFF;
/// One block's input: a range of the window, and the sequences found there. What follows the
/// last of them is literals.
#[derive(Clone, Copy)]
pub(crate) struct Block<'a> {
    pub(crate) window: &'a Window,
    pub(crate) start: usize,
    pub(crate) end: usize,
    pub(crate) sequences: &'a [Sequence],
    /// The window holds the literals alone, without the bytes that matches stand for.
    pub(crate) literals_alone: bool,
}

/// Writes one block whose symbols occur as often as `counts` says.
pub(crate) fn write(out: &mut BitWriter, block: Block<'_>, counts: &Counts, last: bool) {
    let lengths = Lengths {
        literal_length: code_lengths(&counts.literal_length, LITERAL_LENGTH_LIMIT),
        distance: code_lengths(&counts.distance, DISTANCE_LIMIT),
    };
    let header = Header::new(&lengths);
    let extra = counts.extra_bits();
    let dynamic = header.cost() + lengths.cost(counts) + extra;
    let fixed = FIXED.cost(counts) + extra;
    let stored = stored_cost(out, block.end - block.start);
    if stored <= dynamic.min(fixed) && !block.literals_alone {
        write_stored(out, block.window.slice(block.start, block.end), last);
    } else if fixed <= dynamic {
        out.add(u64::from(last) | 1 << 1, 3);
        write_symbols(out, block, &FIXED);
    } else {
        out.add(u64::from(last) | 2 << 1, 3);
        header.write(out);
        write_symbols(out, block, &lengths);
    }
}

/// Code lengths of both alphabets.
struct Lengths {
    literal_length: [u8; LITERAL_LENGTH_SYMBOLS],
    distance: [u8; DISTANCE_SYMBOLS],
}

/// The fixed codes, section 3.2.6.
static FIXED: Lengths = Lengths {
    literal_length: {
        let mut lengths = [8; LITERAL_LENGTH_SYMBOLS];
        let mut symbol = 144;
        while symbol < 280 {
            lengths[symbol] = if symbol < 256 { 9 } else { 7 };
            symbol += 1;
        }
        lengths
    },
    distance: [5; DISTANCE_SYMBOLS],
};

impl Lengths {
    /// Bits of all symbols' codes, without extra bits.
    fn cost(&self, counts: &Counts) -> u64 {
        let literal_length = self.literal_length.iter().zip(&counts.literal_length);
        let distance = self.distance.iter().zip(&counts.distance);
        literal_length
            .chain(distance)
            .map(|(&bits, &count)| u64::from(count) * u64::from(bits))
            .sum()
    }
}

/// The description of dynamic codes, section 3.2.7.
struct Header {
    literal_length_count: usize,
    distance_count: usize,
    code_length_count: usize,
    code_length_lengths: [u8; CODE_LENGTH_SYMBOLS],
    /// Symbol and, above it, the value of its extra bits.
    items: [u16; LITERAL_LENGTH_SYMBOLS + DISTANCE_SYMBOLS],
    items_count: usize,
}

impl Header {
    fn new(lengths: &Lengths) -> Self {
        let literal_length_count = used(&lengths.literal_length).max(257);
        let distance_count = used(&lengths.distance).max(1);
        let mut all = [0; LITERAL_LENGTH_SYMBOLS + DISTANCE_SYMBOLS];
        let total = literal_length_count + distance_count;
        all[..literal_length_count]
            .copy_from_slice(&lengths.literal_length[..literal_length_count]);
        all[literal_length_count..total].copy_from_slice(&lengths.distance[..distance_count]);

        let mut items = [0; LITERAL_LENGTH_SYMBOLS + DISTANCE_SYMBOLS];
        let items_count = run_lengths(&all[..total], &mut items);
        let mut counts = [0; CODE_LENGTH_SYMBOLS];
        for item in &items[..items_count] {
            counts[usize::from(item & 31)] += 1;
        }
        let code_length_lengths = code_lengths(&counts, CODE_LENGTH_LIMIT);
        let code_length_count = CODE_LENGTH_ORDER
            .iter()
            .rposition(|&symbol| code_length_lengths[symbol] != 0)
            .map_or(4, |last| (last + 1).max(4));
        Self {
            literal_length_count,
            distance_count,
            code_length_count,
            code_length_lengths,
            items,
            items_count,
        }
    }

    fn items(&self) -> impl Iterator<Item = (usize, u64, u32)> {
        self.items[..self.items_count].iter().map(|item| {
            let symbol = usize::from(item & 31);
            (symbol, u64::from(item >> 5), repeat_bits(symbol))
        })
    }

    fn cost(&self) -> u64 {
        let items: u32 = self
            .items()
            .map(|(symbol, _, extra)| u32::from(self.code_length_lengths[symbol]) + extra)
            .sum();
        3 + 14 + 3 * self.code_length_count as u64 + u64::from(items)
    }

    fn write(&self, out: &mut BitWriter) {
        out.add((self.literal_length_count - 257) as u64, 5);
        out.add((self.distance_count - 1) as u64, 5);
        out.add((self.code_length_count - 4) as u64, 4);
        out.flush();
        for &symbol in &CODE_LENGTH_ORDER[..self.code_length_count] {
            out.add(u64::from(self.code_length_lengths[symbol]), 3);
            out.flush();
        }
        let codes = codes(&self.code_length_lengths);
        for (symbol, value, extra) in self.items() {
            let code = codes[symbol];
            out.add(u64::from(code.bits), code.length.into());
            out.add(value, extra);
            out.flush();
        }
    }
}

fn used(lengths: &[u8]) -> usize {
    lengths.iter().rposition(|&length| length != 0).map_or(0, |last| last + 1)
}

fn repeat_bits(symbol: usize) -> u32 {
    match symbol {
        16 => 2,
        17 => 3,
        18 => 7,
        _ => 0,
    }
}

/// Writes code lengths as symbols of the code length alphabet; returns how many.
fn run_lengths(lengths: &[u8], items: &mut [u16]) -> usize {
    let mut count = 0;
    let mut put = |symbol: u16, value: usize| {
        items[count] = symbol | (value as u16) << 5;
        count += 1;
    };
    for run in lengths.chunk_by(|a, b| a == b) {
        let length = u16::from(run[0]);
        let mut left = run.len();
        if length == 0 {
            while left >= 11 {
                let now = left.min(138);
                put(18, now - 11);
                left -= now;
            }
            if left >= 3 {
                put(17, left - 3);
                left = 0;
            }
        } else {
            put(length, 0);
            left -= 1;
            while left >= 3 {
                let now = left.min(6);
                put(16, now - 3);
                left -= now;
            }
        }
        for _ in 0..left {
            put(length, 0);
        }
    }
    count
}

/// Bits of a code, and how many: those in the low half, that in the high.
#[inline(always)]
fn packed(code: Code, extra_bits: u8, extra: u32) -> u32 {
    let bits = u32::from(code.bits) | extra << code.length;
    bits | u32::from(code.length + extra_bits) << 24
}

fn write_symbols(out: &mut BitWriter, block: Block<'_>, lengths: &Lengths) {
    let codes_of_literals = codes(&lengths.literal_length);
    let mut literal_codes = [0; 256];
    for (slot, &code) in literal_codes.iter_mut().zip(&codes_of_literals) {
        *slot = packed(code, 0, 0);
    }
    // A match length's code and extra bits together: at most 14 + 5 bits.
    let mut length_codes = [0; 256];
    for (index, slot) in length_codes.iter_mut().enumerate() {
        let code = usize::from(LENGTH_CODE[index]);
        let extra = index + MATCH_MIN - usize::from(LENGTH_BASE[code]);
        *slot = packed(
            codes_of_literals[END_OF_BLOCK + 1 + code],
            LENGTH_EXTRA_BITS[code],
            extra as u32,
        );
    }
    let mut distance_codes = [0; 32];
    for (slot, &code) in distance_codes.iter_mut().zip(&codes(&lengths.distance)) {
        *slot = packed(code, 0, 0);
    }

    let in_window = if block.literals_alone { 0 } else { !0 };
    let mut at = block.start;
    for sequence in block.sequences {
        let literals = usize::from(sequence.literals);
        write_literals(out, block.window, at, literals, &literal_codes);
        at = at.wrapping_add(literals).wrapping_add(usize::from(sequence.length & in_window));
        let length = sequence.length.wrapping_sub(MATCH_MIN as u16);
        add(out, length_codes[usize::from(length & 0xFF)]);
        let code = usize::from(sequence.distance_code & 31);
        add(out, distance_codes[code]);
        let extra = sequence.distance.wrapping_sub(DISTANCE_BASE[code]);
        out.add(u64::from(extra), DISTANCE_EXTRA_BITS[code].into());
        out.flush();
    }
    write_literals(out, block.window, at, block.end.wrapping_sub(at), &literal_codes);
    let end = codes_of_literals[END_OF_BLOCK];
    out.add(u64::from(end.bits), end.length.into());
    out.flush();
}

#[inline(always)]
fn add(out: &mut BitWriter, packed: u32) {
    out.add(u64::from(packed & 0xFF_FFFF), packed >> 24);
}

/// Which of three literals count when that many are left.
static LAST_LITERALS: [[u32; 3]; 4] = [[0, 0, 0], [!0, 0, 0], [!0, !0, 0], [!0, !0, !0]];

#[inline(always)]
fn write_literals(
    out: &mut BitWriter,
    window: &Window,
    start: usize,
    count: usize,
    codes: &[u32; 256],
) {
    let mut at = start as u16;
    for _ in 0..count / 4 {
        for literal in window.load4(at).to_le_bytes() {
            add(out, codes[usize::from(literal)]);
        }
        out.flush();
        at = at.wrapping_add(4);
    }
    // The last few without a branch: codes that are not meant become empty.
    let masks = LAST_LITERALS[count % 4];
    for (literal, mask) in window.load4(at).to_le_bytes().into_iter().zip(masks) {
        add(out, codes[usize::from(literal)] & mask);
    }
    out.flush();
}

/// Bits of a block stored from where `out` stands.
fn stored_cost(out: &BitWriter, length: usize) -> u64 {
    let pieces = length.div_ceil(STORED_LENGTH_MAX).max(1) as u64;
    let first_padding = (out.bit_length() + 3).next_multiple_of(8) - out.bit_length() - 3;
    pieces * (3 + 32) + first_padding + (pieces - 1) * 5 + length as u64 * 8
}

fn write_stored(out: &mut BitWriter, bytes: &[u8], last: bool) {
    let mut pieces = bytes.chunks(STORED_LENGTH_MAX).peekable();
    while let Some(piece) = pieces.next() {
        out.add(u64::from(last && pieces.peek().is_none()), 3);
        out.align();
        let length = piece.len() as u64;
        out.add(length | (!length & 0xFFFF) << 16, 32);
        out.flush();
        out.extend(piece);
    }
}
