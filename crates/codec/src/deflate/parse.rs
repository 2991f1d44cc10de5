//! Turns bytes into literals and matches: lazy parsing.

use super::counts::Counts;
use super::matchfinder::{Matchfinder, QUICK_LENGTH};
use super::tables::{MATCH_MAX, distance_code};
use super::window::Window;

/// Shortest match worth taking.
const LENGTH_MIN: usize = 4;

/// Literals in a row before the search begins to skip positions: one more for each so many.
const PATIENCE_BITS: u32 = 9;
const PATIENCE: usize = 1 << PATIENCE_BITS;

/// Some literals, then a match.
#[derive(Clone, Copy, Default)]
pub(crate) struct Sequence {
    pub(crate) literals: u16,
    pub(crate) length: u16,
    pub(crate) distance: u16,
    pub(crate) distance_code: u16,
}

/// Appends to `sequences` what `window` holds from `start` to `stop`, and counts all symbols.
/// Literals after the last match are left over. Returns where it stopped: the last match may
/// reach further.
pub(crate) fn parse<const REACH: usize, const BUCKETS: usize>(
    window: &Window,
    start: usize,
    stop: usize,
    finder: &mut Matchfinder<REACH, BUCKETS>,
    sequences: &mut Vec<Sequence>,
    counts: &mut Counts,
) -> usize {
    let end = window.end();
    let mut literals_start = start;
    let mut at = start;
    let mut patient_end = at + PATIENCE;
    while at < stop {
        let position = at as u16;
        let next = window.load(position);
        let nearest = finder.enter(next, position);
        if !Matchfinder::<REACH, BUCKETS>::promises(window, next, position, nearest) {
            counts.add_literal(next as u8);
            at += 1;
            if at >= patient_end {
                let skip = (at - literals_start) >> PATIENCE_BITS;
                let resume = (at + skip).min(stop);
                for &literal in window.slice(at, resume) {
                    counts.add_literal(literal);
                }
                at = resume;
            }
            continue;
        }
        let candidates = finder.candidates(nearest);
        let mut found = Matchfinder::<REACH, BUCKETS>::quick(window, next, position, candidates);
        let mut insert_from = at + 1;
        if found.length() >= QUICK_LENGTH {
            let limit = (end - at).min(MATCH_MAX);
            found = Matchfinder::<REACH, BUCKETS>::longest(
                window, next, position, candidates, limit,
            );
        } else {
            let next_position = position.wrapping_add(1);
            let after = window.load(next_position);
            let nearest = finder.enter(after, next_position);
            let later_candidates = finder.candidates(nearest);
            insert_from += 1;
            let later =
                Matchfinder::<REACH, BUCKETS>::quick(window, after, next_position, later_candidates);
            let wait = later.length() > found.length();
            found = if wait { later } else { found };
            if later.length() >= QUICK_LENGTH {
                let limit = (end - at - 1).min(MATCH_MAX);
                found = Matchfinder::<REACH, BUCKETS>::longest(
                    window,
                    after,
                    next_position,
                    later_candidates,
                    limit,
                );
            }
            let literal = &mut counts.literal_length[usize::from(next as u8)];
            *literal = literal.wrapping_add(u32::from(wait));
            at += usize::from(wait);
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
        let from = if distance <= 8 { insert_from.max(match_end.saturating_sub(12)) } else { insert_from };
        finder.insert(window, from, match_end);
        at = match_end;
        literals_start = at;
        patient_end = at + PATIENCE;
    }
    for &literal in window.slice(at, stop) {
        counts.add_literal(literal);
    }
    at.max(stop)
}
