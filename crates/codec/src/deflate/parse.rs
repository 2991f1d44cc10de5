//! Turns bytes into literals and matches: lazy parsing.

use super::counts::Counts;
use super::matchfinder::{Found, Matchfinder};
use super::tables::{MATCH_MAX, distance_code};
use super::window::Window;

/// Shortest match worth taking.
const LENGTH_MIN: usize = 4;

/// Literals in a row before the search begins to skip positions: one more for each so many.
const PATIENCE_BITS: u32 = 8;

/// Some literals, then a match.
#[derive(Clone, Copy, Default)]
pub(crate) struct Sequence {
    pub(crate) literals: u16,
    pub(crate) length: u16,
    pub(crate) distance: u16,
    pub(crate) distance_code: u16,
}

/// How hard to look.
#[derive(Clone, Copy)]
pub(crate) struct Effort {
    /// A match of this length is taken without looking whether the next byte begins a longer.
    pub(crate) good_length: usize,
}

/// Appends to `sequences` what `window` holds from `start` to `stop`, and counts all symbols.
/// Literals after the last match are left over. Returns where it stopped: the last match may
/// reach further.
pub(crate) fn parse<const REACH: usize, const BUCKETS: usize>(
    window: &Window,
    start: usize,
    stop: usize,
    finder: &mut Matchfinder<REACH, BUCKETS>,
    effort: Effort,
    sequences: &mut Vec<Sequence>,
    counts: &mut Counts,
) -> usize {
    let end = window.end();
    let mut literals_start = start;
    let mut at = start;
    while at < stop {
        let next = window.load(at as u16);
        let limit = (end - at).min(MATCH_MAX);
        let Some(mut found) = finder.find(window, next, at as u16, limit) else {
            counts.add_literal(next as u8);
            at += 1;
            let skip = (at - literals_start) >> PATIENCE_BITS;
            if skip > 0 {
                let resume = (at + skip).min(stop);
                for &literal in window.slice(at, resume) {
                    counts.add_literal(literal);
                }
                at = resume;
            }
            continue;
        };
        while found.length() < effort.good_length && at + 1 < end {
            let after = window.load(at as u16 + 1);
            let limit = (end - at - 1).min(MATCH_MAX);
            match finder.find(window, after, at as u16 + 1, limit) {
                Some(later) if is_better(at, found, later) => {
                    counts.add_literal(window.load4(at as u16) as u8);
                    at += 1;
                    found = later;
                }
                _ => break,
            }
        }
        let length = found.length().min(end - at);
        if length < LENGTH_MIN {
            break;
        }
        let distance = (at as u16).wrapping_sub(found.position());
        let distance_code = distance_code(distance);
        sequences.push(Sequence {
            literals: (at - literals_start) as u16,
            length: length as u16,
            distance,
            distance_code: distance_code as u16,
        });
        counts.add_match(length, distance_code);
        let match_end = at + length;
        at += if found.length() < effort.good_length { 2 } else { 1 };
        while at < match_end {
            finder.insert(window, at as u16);
            at += 1;
        }
        at = match_end;
        literals_start = at;
    }
    for &literal in window.slice(at, stop) {
        counts.add_literal(literal);
    }
    at.max(stop)
}

/// Whether the match at the position after `at` is worth a literal more.
#[inline(always)]
fn is_better(_at: usize, found: Found, next: Found) -> bool {
    next.length() > found.length()
}
