//! A plain reader of deflate streams that tells what distances they use. It knows nothing of
//! the encoder: bit by bit, as RFC 1951, section 3.2, has it. It panics at the first fault.

/// What came out of a stream.
#[derive(Default)]
pub(crate) struct Inflated {
    pub(crate) bytes: Vec<u8>,
    pub(crate) distance_max: usize,
    /// Blocks that are stored, of fixed codes, of dynamic codes.
    pub(crate) blocks: [usize; 3],
}

pub(crate) fn inflate(stream: &[u8]) -> Inflated {
    let mut bits = Bits { stream, at: 0 };
    let mut out = Inflated::default();
    loop {
        let last = bits.take(1) == 1;
        let kind = bits.take(2);
        out.blocks[kind] += 1;
        match kind {
            0 => stored(&mut bits, &mut out),
            1 => coded(&mut bits, &mut out, &fixed(), &Code::new(&[5; 32])),
            _ => {
                let (literals, distances) = dynamic(&mut bits);
                coded(&mut bits, &mut out, &literals, &distances);
            }
        }
        if last {
            return out;
        }
    }
}

struct Bits<'a> {
    stream: &'a [u8],
    at: usize,
}

impl Bits<'_> {
    fn take(&mut self, count: usize) -> usize {
        (0..count).fold(0, |value, place| {
            let bit = self.stream[self.at / 8] >> (self.at % 8) & 1;
            self.at += 1;
            value | usize::from(bit) << place
        })
    }
}

/// Symbols in the order of their codes, and how many codes there are of each length.
struct Code {
    symbols: Vec<usize>,
    per_length: [usize; 16],
}

impl Code {
    fn new(lengths: &[usize]) -> Self {
        let mut symbols: Vec<usize> = (0..lengths.len()).filter(|&s| lengths[s] > 0).collect();
        symbols.sort_by_key(|&symbol| lengths[symbol]);
        let mut per_length = [0; 16];
        for &symbol in &symbols {
            per_length[lengths[symbol]] += 1;
        }
        let space: usize = (1..16).map(|length| per_length[length] << (15 - length)).sum();
        assert_eq!(space, 1 << 15, "the code is incomplete or asks for too much");
        Self { symbols, per_length }
    }

    fn next(&self, bits: &mut Bits<'_>) -> usize {
        let (mut code, mut first, mut index) = (0, 0, 0);
        for count in &self.per_length[1..] {
            code = code << 1 | bits.take(1);
            first <<= 1;
            if code - first < *count {
                return self.symbols[index + code - first];
            }
            index += count;
            first += count;
        }
        panic!("no such code");
    }
}

fn stored(bits: &mut Bits<'_>, out: &mut Inflated) {
    bits.at = bits.at.next_multiple_of(8);
    let length = bits.take(16);
    assert_eq!(bits.take(16), !length & 0xFFFF);
    for _ in 0..length {
        let byte = bits.take(8) as u8;
        out.bytes.push(byte);
    }
}

fn fixed() -> Code {
    let mut lengths = [8; 288];
    lengths[144..256].fill(9);
    lengths[256..280].fill(7);
    Code::new(&lengths)
}

fn dynamic(bits: &mut Bits<'_>) -> (Code, Code) {
    let literals = bits.take(5) + 257;
    let distances = bits.take(5) + 1;
    assert!(literals <= 286 && distances <= 30);
    let mut lengths = [0; 19];
    const ORDER: [usize; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];
    for &symbol in &ORDER[..bits.take(4) + 4] {
        lengths[symbol] = bits.take(3);
    }
    let code = Code::new(&lengths);
    let mut lengths = Vec::new();
    while lengths.len() < literals + distances {
        let (length, times) = match code.next(bits) {
            16 => (*lengths.last().expect("a length to repeat"), 3 + bits.take(2)),
            17 => (0, 3 + bits.take(3)),
            18 => (0, 11 + bits.take(7)),
            length => (length, 1),
        };
        lengths.extend(std::iter::repeat_n(length, times));
    }
    assert_eq!(lengths.len(), literals + distances);
    (Code::new(&lengths[..literals]), Code::new(&lengths[literals..]))
}

fn coded(bits: &mut Bits<'_>, out: &mut Inflated, literals: &Code, distances: &Code) {
    loop {
        match literals.next(bits) {
            256 => return,
            literal @ 0..256 => out.bytes.push(literal as u8),
            code => {
                let length = match code - 257 {
                    28 => 258,
                    code @ 0..8 => 3 + code,
                    code => value(bits, code, 2) + 3,
                };
                let distance = match distances.next(bits) {
                    code @ 0..4 => 1 + code,
                    code => value(bits, code, 1) + 1,
                };
                out.distance_max = out.distance_max.max(distance);
                let start = out.bytes.len().checked_sub(distance).expect("within the output");
                for at in start..start + length {
                    out.bytes.push(out.bytes[at]);
                }
            }
        }
    }
}

/// A value less its alphabet's first: `1 << step_bits` codes share a number of extra bits.
fn value(bits: &mut Bits<'_>, code: usize, step_bits: usize) -> usize {
    let extra = (code >> step_bits) - 1;
    let leading = 1 << step_bits | code & ((1 << step_bits) - 1);
    (leading << extra) + bits.take(extra)
}
