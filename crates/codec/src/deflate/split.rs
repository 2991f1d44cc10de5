//! Where one block ends and the next, with codes of its own, begins.

use super::bits::BitWriter;
use super::block::{self, Block};
use super::counts::Counts;
use super::matchfinder::Matchfinder;
use super::parse::{self, Sequence};
use super::window::Window;

/// Input is taken in pieces of this size; a block is one or more of them.
const PIECE_SIZE: usize = 8 << 10;

/// What a block's header is reckoned to cost, in bits.
const HEADER_COST: f32 = 700.0;

struct Piece {
    start: usize,
    end: usize,
    first_sequence: usize,
    last_sequence: usize,
    counts: Counts,
    entropy: f32,
}

/// Compresses what `window` holds from `start` on.
pub(crate) fn parse_and_write<const REACH: usize, const BUCKETS: usize>(
    out: &mut BitWriter,
    window: &Window,
    start: usize,
    finder: &mut Matchfinder<REACH, BUCKETS>,
    sequences: &mut Vec<Sequence>,
    last: bool,
) {
    let mut pending: Option<Piece> = None;
    let mut at = start;
    while at < window.end() {
        let stop = (at + PIECE_SIZE).min(window.end());
        let stop = if window.end() - stop < PIECE_SIZE / 2 { window.end() } else { stop };
        let mut counts = Counts::new();
        let first = sequences.len();
        let end = parse::parse(window, at, stop, finder, sequences, &mut counts);
        let entropy = counts.entropy();
        let piece = Piece {
            start: at,
            end,
            first_sequence: first,
            last_sequence: sequences.len(),
            counts,
            entropy,
        };
        at = end;
        pending = Some(match pending {
            None => piece,
            Some(before) => {
                let merged = before.counts.merged(&piece.counts);
                let entropy = merged.entropy();
                if entropy < before.entropy + piece.entropy + HEADER_COST {
                    let covered: usize = sequences[before.first_sequence..before.last_sequence]
                        .iter()
                        .map(|s| usize::from(s.literals) + usize::from(s.length))
                        .sum();
                    let tail = before.end - before.start - covered;
                    if piece.first_sequence < piece.last_sequence {
                        sequences[piece.first_sequence].literals += tail as u16;
                    }
                    Piece {
                        start: before.start,
                        end,
                        first_sequence: before.first_sequence,
                        last_sequence: piece.last_sequence,
                        counts: merged,
                        entropy,
                    }
                } else {
                    let block = Block {
                        window,
                        start: before.start,
                        end: before.end,
                        sequences: &sequences[before.first_sequence..before.last_sequence],
                    };
                    block::write(out, block, &before.counts, false);
                    piece
                }
            }
        });
    }
    if let Some(before) = pending {
        let block = Block {
            window,
            start: before.start,
            end: before.end,
            sequences: &sequences[before.first_sequence..before.last_sequence],
        };
        block::write(out, block, &before.counts, last);
    }
}
