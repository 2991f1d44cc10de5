//! Turns bytes into literals and matches.
//!
//! Lazy parsing of one step: a short match gives way to a longer one that begins a byte later.
//! Where no four bytes match, three that do nearby are taken.

use super::counts::Counts;
use super::matchfinder::{Found, Matchfinder, Place, QUICK_LENGTH};
use super::tables::{MATCH_MAX, MATCH_MIN, distance_code};
use super::window::Window;

/// Shortest match by the chains.
const LENGTH_MIN: usize = 4;

/// After so many literals in a row positions are skipped: one for each so many literals. It
/// makes short work of what does not shrink, such as compressed files.
const PATIENCE: usize = 512;

/// Matches at so small a distance repeat a short pattern: only the last positions in them are
/// worth remembering.
const PATTERN_LENGTH_MAX: u16 = 8;
const PATTERN_POSITIONS: usize = 12;

/// Some literals, then a match.
#[derive(Clone, Copy)]
pub(crate) struct Sequence {
    pub(crate) literals: u16,
    pub(crate) length: u16,
    pub(crate) distance: u16,
    pub(crate) distance_code: u16,
}

/// A match finder with a parser that fits it.
pub(crate) trait Parse: Send {
    /// The largest distance of a match.
    fn reach(&self) -> usize;

    /// Forgets everything, and prepares for so many bytes of input.
    fn restart(&mut self, input_length: usize);

    /// Follows a window whose bytes moved `by` places to the front, a multiple of the reach.
    fn shift(&mut self, by: u16);

    /// Appends to `sequences` what `window` holds from `start` to `stop`, and counts all
    /// symbols. Literals after the last match are left over. Returns where it stopped: the
    /// last match may reach past `stop`.
    fn parse(
        &mut self,
        window: &Window,
        start: usize,
        stop: usize,
        sequences: &mut Vec<Sequence>,
        counts: &mut Counts,
    ) -> usize;
}

impl<const REACH: usize, const HEADS: usize, const STEPS: usize> Parse
    for Matchfinder<REACH, HEADS, STEPS>
{
    fn reach(&self) -> usize {
        REACH
    }

    fn restart(&mut self, input_length: usize) {
        self.restart(input_length);
    }

    fn shift(&mut self, by: u16) {
        self.shift(by);
    }

    fn parse(
        &mut self,
        window: &Window,
        start: usize,
        stop: usize,
        sequences: &mut Vec<Sequence>,
        counts: &mut Counts,
    ) -> usize {
        let mut literals_start = start;
        let mut at = start;
        while at < stop {
            let here = Place::new(window, at as u16);
            let nearest = self.enter(here);
            let short = self.enter_short(here);
            if !Self::promises(window, here, nearest) {
                if Self::is_short(window, here, short) && at + MATCH_MIN <= window.end() {
                    let distance = here.position.wrapping_sub(short);
                    push(at - literals_start, MATCH_MIN, distance, sequences, counts);
                    self.enter_all(window, at + 1, at + MATCH_MIN);
                    at += MATCH_MIN;
                    literals_start = at;
                    continue;
                }
                counts.add_literal(here.next as u8);
                at += 1;
                if at - literals_start >= PATIENCE {
                    at = skip(window, at, literals_start, stop, counts);
                }
                continue;
            }

            let choice = self.choose(window, here, nearest);
            counts.add_literals(here.next as u8, choice.delay as u32);
            at += choice.delay;
            let length = choice.found.length().min(window.end() - at);
            if length < LENGTH_MIN {
                break;
            }
            let distance = (at as u16).wrapping_sub(choice.found.position());
            push(at - literals_start, length, distance, sequences, counts);

            let match_end = at + length;
            let mut enter_from = usize::from(here.position) + choice.entered;
            if distance <= PATTERN_LENGTH_MAX {
                enter_from = enter_from.max(match_end.saturating_sub(PATTERN_POSITIONS));
            }
            self.enter_all(window, enter_from, match_end);
            at = match_end;
            literals_start = at;
        }
        for &literal in window.slice(at, stop) {
            counts.add_literal(literal);
        }
        at.max(stop)
    }
}

#[inline(always)]
fn push(
    literals: usize,
    length: usize,
    distance: u16,
    sequences: &mut Vec<Sequence>,
    counts: &mut Counts,
) {
    let distance_code = distance_code(distance);
    sequences.push(Sequence {
        literals: literals as u16,
        length: length as u16,
        distance,
        distance_code: distance_code as u16,
    });
    counts.add_match(length, distance_code);
}

/// What was decided at a position with a match.
struct Choice {
    /// 1 if the match begins a byte later.
    delay: usize,
    found: Found,
    /// Positions already remembered, the first one included.
    entered: usize,
}

impl<const REACH: usize, const HEADS: usize, const STEPS: usize> Matchfinder<REACH, HEADS, STEPS> {
    #[inline(always)]
    fn choose(&mut self, window: &Window, here: Place, nearest: u16) -> Choice {
        let end = window.end();
        let at = usize::from(here.position);
        let candidates = self.candidates(nearest);
        let found = Self::quick(window, here, candidates);
        if found.length() >= QUICK_LENGTH {
            let limit = (end - at).min(MATCH_MAX);
            let found = Self::longest(window, here, candidates, limit);
            return Choice { delay: 0, found, entered: 1 };
        }

        let there = Place::new(window, here.position.wrapping_add(1));
        let nearest = self.enter(there);
        let candidates = self.candidates(nearest);
        let mut later = Self::quick(window, there, candidates);
        if later.length() >= QUICK_LENGTH {
            let limit = (end - at - 1).min(MATCH_MAX);
            later = Self::longest(window, there, candidates, limit);
        }
        let wait = later.length() > found.length();
        Choice { delay: usize::from(wait), found: if wait { later } else { found }, entered: 2 }
    }
}

/// Counts literals without looking for matches at them: the more, the longer none was found.
#[cold]
fn skip(
    window: &Window,
    at: usize,
    literals_start: usize,
    stop: usize,
    counts: &mut Counts,
) -> usize {
    let resume = (at + (at - literals_start) / PATIENCE).min(stop);
    for &literal in window.slice(at, resume) {
        counts.add_literal(literal);
    }
    resume
}
