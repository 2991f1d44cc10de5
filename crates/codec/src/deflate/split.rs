//! Where one block ends and the next, with codes of its own, begins.

use super::bits::BitWriter;
use super::block::{self, Block};
use super::counts::Counts;
use super::parse::{Parse, Sequence};
use super::tables::MATCH_MAX;
use super::window::Window;

/// Input is taken in pieces of about this size; a block is one or more of them.
const PIECE_SIZE: usize = 8 << 10;

/// What a block of its own is reckoned to cost beside its symbols, in bits.
const HEADER_COST: f32 = 700.0;

/// A piece of so few literals may be carried over into the next window.
const LIGHT: usize = 1 << 10;

/// Literals that are carried at most, and `LIGHT` more: they fit a window.
const CARRIED_MOST: usize = 32 << 10;

/// A part of the window that is going to be a block, or the first part of one.
struct Piece {
    start: usize,
    end: usize,
    first_sequence: usize,
    last_sequence: usize,
    /// Literals after the last sequence.
    literals_left: usize,
    counts: Counts,
    entropy: f32,
}

/// Takes in one window after the other.
pub(crate) struct Splitter<'a> {
    pub(crate) out: &'a mut BitWriter,
    pub(crate) window: &'a Window,
    pub(crate) sequences: &'a mut Vec<Sequence>,
    pub(crate) carried: &'a mut Carried,
}

impl Splitter<'_> {
    /// Compresses what the window holds from `start` on. `last` says that nothing follows;
    /// otherwise a little is left to be compressed with the next window, so that no match ends
    /// where this one does. Returns how much.
    pub(crate) fn parse_and_write(
        &mut self,
        start: usize,
        parser: &mut dyn Parse,
        last: bool,
    ) -> usize {
        let left = if last { 0 } else { MATCH_MAX };
        let limit = self.window.end().saturating_sub(left).max(start);
        self.sequences.clear();
        let mut piece = parse_piece(self.window, (start, limit), parser, self.sequences);
        while piece.end < limit {
            let next = parse_piece(self.window, (piece.end, limit), parser, self.sequences);
            let counts = piece.counts.merged(&next.counts);
            let entropy = counts.entropy();
            if entropy < piece.entropy + next.entropy + HEADER_COST {
                piece = join(&piece, &next, counts, entropy, self.sequences);
            } else {
                self.settle(&piece, false);
                piece = next;
            }
        }
        match last {
            false => self.settle(&piece, true),
            true => self.end(&piece),
        }
        self.window.end() - piece.end
    }

    /// The piece is a block, unless it goes with what is carried, or may be carried itself.
    fn settle(&mut self, piece: &Piece, at_end: bool) {
        if self.goes_with_carried(piece) {
            return;
        }
        self.carried.write(self.out, false);
        match at_end && piece.literals(self.sequences) <= LIGHT {
            true => self.carried.append(self.window, piece, self.sequences),
            false => write(self.out, self.window, piece, self.sequences, false),
        }
    }

    fn end(&mut self, piece: &Piece) {
        if self.goes_with_carried(piece) {
            self.carried.write(self.out, true);
            return;
        }
        self.carried.write(self.out, false);
        write(self.out, self.window, piece, self.sequences, true);
    }

    fn goes_with_carried(&mut self, piece: &Piece) -> bool {
        let fits = self.carried.is_worth_joining(piece)
            && piece.literals(self.sequences) <= LIGHT
            && self.carried.literals.len() < CARRIED_MOST;
        if fits {
            self.carried.append(self.window, piece, self.sequences);
        }
        fits
    }
}

/// A block of few literals that windows before have begun: input that repeats itself over
/// hundreds of KiB is one block, not one for each window.
pub(crate) struct Carried {
    literals: Vec<u8>,
    sequences: Vec<Sequence>,
    literals_left: usize,
    counts: Counts,
    entropy: f32,
}

impl Carried {
    pub(crate) fn new() -> Self {
        Self {
            literals: Vec::new(),
            sequences: Vec::new(),
            literals_left: 0,
            counts: Counts::new(),
            entropy: 0.0,
        }
    }

    fn is_empty(&self) -> bool {
        self.sequences.is_empty() && self.literals.is_empty()
    }

    fn is_worth_joining(&self, piece: &Piece) -> bool {
        !self.is_empty()
            && self.counts.merged(&piece.counts).entropy()
                < self.entropy + piece.entropy + HEADER_COST
    }

    fn append(&mut self, window: &Window, piece: &Piece, sequences: &[Sequence]) {
        let mut at = piece.start;
        for sequence in &sequences[piece.first_sequence..piece.last_sequence] {
            let literals = usize::from(sequence.literals);
            self.literals.extend_from_slice(window.slice(at, at + literals));
            at += literals + usize::from(sequence.length);
            let literals = sequence.literals + std::mem::take(&mut self.literals_left) as u16;
            self.sequences.push(Sequence { literals, ..*sequence });
        }
        self.literals.extend_from_slice(window.slice(at, piece.end));
        self.literals_left += piece.end - at;
        self.counts = self.counts.merged(&piece.counts);
        self.entropy = self.counts.entropy();
    }

    /// Writes what there is, and starts anew.
    fn write(&mut self, out: &mut BitWriter, last: bool) {
        if self.is_empty() {
            return;
        }
        let mut window = Window::new();
        window.refill(0, &self.literals);
        let block = Block {
            window: &window,
            start: 0,
            end: self.literals.len(),
            sequences: &self.sequences,
            literals_alone: true,
        };
        block::write(out, block, &self.counts, last);
        *self = Self::new();
    }
}

impl Piece {
    fn literals(&self, sequences: &[Sequence]) -> usize {
        let sequences = &sequences[self.first_sequence..self.last_sequence];
        let matched: usize = sequences.iter().map(|sequence| usize::from(sequence.length)).sum();
        self.end - self.start - matched
    }
}

fn parse_piece(
    window: &Window,
    (start, limit): (usize, usize),
    parser: &mut dyn Parse,
    sequences: &mut Vec<Sequence>,
) -> Piece {
    let mut stop = start.saturating_add(PIECE_SIZE).min(limit);
    // A rest that is not worth a piece of its own is taken in.
    if limit - stop < PIECE_SIZE / 2 {
        stop = limit;
    }
    let mut counts = Counts::new();
    let first_sequence = sequences.len();
    let end = parser.parse(window, start, stop, sequences, &mut counts);
    let in_sequences: usize = sequences[first_sequence..]
        .iter()
        .map(|sequence| usize::from(sequence.literals) + usize::from(sequence.length))
        .sum();
    Piece {
        start,
        end,
        first_sequence,
        last_sequence: sequences.len(),
        literals_left: end - start - in_sequences,
        entropy: counts.entropy(),
        counts,
    }
}

/// Makes one of two neighbours: the literals left over in the first come before the first match
/// of the second.
fn join(
    first: &Piece,
    second: &Piece,
    counts: Counts,
    entropy: f32,
    sequences: &mut [Sequence],
) -> Piece {
    let mut literals_left = second.literals_left;
    match sequences[second.first_sequence..second.last_sequence].first_mut() {
        Some(sequence) => sequence.literals += first.literals_left as u16,
        None => literals_left += first.literals_left,
    }
    Piece {
        start: first.start,
        end: second.end,
        first_sequence: first.first_sequence,
        last_sequence: second.last_sequence,
        literals_left,
        counts,
        entropy,
    }
}

fn write(out: &mut BitWriter, window: &Window, piece: &Piece, sequences: &[Sequence], last: bool) {
    let block = Block {
        window,
        start: piece.start,
        end: piece.end,
        sequences: &sequences[piece.first_sequence..piece.last_sequence],
        literals_alone: false,
    };
    block::write(out, block, &piece.counts, last);
}
