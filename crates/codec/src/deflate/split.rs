//! Where one block ends and the next, with codes of its own, begins.

use super::bits::BitWriter;
use super::block::{self, Block};
use super::counts::Counts;
use super::parse::{Parse, Sequence};
use super::window::Window;

/// Input is taken in pieces of about this size; a block is one or more of them.
const PIECE_SIZE: usize = 8 << 10;

/// What a block of its own is reckoned to cost beside its symbols, in bits.
const HEADER_COST: f32 = 700.0;

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

/// Compresses what `window` holds from `start` on. `last` says that nothing follows.
pub(crate) fn parse_and_write(
    out: &mut BitWriter,
    window: &Window,
    start: usize,
    parser: &mut dyn Parse,
    sequences: &mut Vec<Sequence>,
    last: bool,
) {
    sequences.clear();
    let mut piece = parse_piece(window, start, parser, sequences);
    while piece.end < window.end() {
        let next = parse_piece(window, piece.end, parser, sequences);
        let counts = piece.counts.merged(&next.counts);
        let entropy = counts.entropy();
        if entropy < piece.entropy + next.entropy + HEADER_COST {
            piece = join(&piece, &next, counts, entropy, sequences);
        } else {
            write(out, window, &piece, sequences, false);
            piece = next;
        }
    }
    write(out, window, &piece, sequences, last);
}

fn parse_piece(
    window: &Window,
    start: usize,
    parser: &mut dyn Parse,
    sequences: &mut Vec<Sequence>,
) -> Piece {
    let mut stop = start.saturating_add(PIECE_SIZE).min(window.end());
    // A rest that is not worth a piece of its own is taken in.
    if window.end() - stop < PIECE_SIZE / 2 {
        stop = window.end();
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
    };
    block::write(out, block, &piece.counts, last);
}
