//! Turns bytes into literals and matches: lazy parsing.

use super::matchfinder::{Found, Matchfinder};
use super::tables::MATCH_MAX;
use super::window::Window;

/// Shortest match worth taking.
const LENGTH_MIN: usize = 4;

/// Some literals, then a match.
#[derive(Clone, Copy, Default)]
pub(crate) struct Sequence {
    pub(crate) literals: u16,
    pub(crate) length: u16,
    pub(crate) distance: u16,
}

/// How hard to look.
#[derive(Clone, Copy)]
pub(crate) struct Effort {
    /// A match of this length is taken without looking whether the next byte begins a longer.
    pub(crate) good_length: usize,
}

/// Appends to `sequences` what `window` holds from `start` on. Literals after the last match
/// are left over.
pub(crate) fn parse<const REACH: usize, const BUCKETS: usize>(
    window: &Window,
    start: usize,
    finder: &mut Matchfinder<REACH, BUCKETS>,
    effort: Effort,
    sequences: &mut Vec<Sequence>,
) {
    let end = window.end();
    let mut literals_start = start;
    let mut at = start;
    while at < end {
        let limit = (end - at).min(MATCH_MAX);
        let mut found = finder.find(window, at as u16, limit);
        if found.length().min(limit) < LENGTH_MIN {
            at += 1;
            continue;
        }
        while found.length() < effort.good_length && at + 1 < end {
            let limit = (end - at - 1).min(MATCH_MAX);
            let next = finder.find(window, at as u16 + 1, limit);
            if !is_better(at, found, next) {
                break;
            }
            at += 1;
            found = next;
        }
        let length = found.length().min(end - at);
        sequences.push(Sequence {
            literals: (at - literals_start) as u16,
            length: length as u16,
            distance: (at as u16).wrapping_sub(found.position()),
        });
        let stop = at + length;
        at += if found.length() < effort.good_length { 2 } else { 1 };
        while at < stop {
            finder.insert(window, at as u16);
            at += 1;
        }
        at = stop;
        literals_start = at;
    }
}

/// Whether the match at the position after `at` is worth a literal more.
#[inline(always)]
fn is_better(_at: usize, found: Found, next: Found) -> bool {
    next.length() > found.length()
}
