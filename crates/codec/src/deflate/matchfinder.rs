//! Finds earlier copies of the bytes at a position.

use super::window::{Window, zeroed};

/// Fewest heads in use.
const HEADS_MIN: usize = 256;

/// Positions looked at in a search.
const WAYS: usize = 3;

/// Matches of up to this length are told apart while looking; longer ones compare on.
pub(crate) const QUICK_LENGTH: usize = 7;

/// Where a difference is made so that a comparison ends.
const LAST_BYTE: u64 = 1 << 63;

/// A match as one number that orders matches: longer is more; of equals, the nearer one.
#[derive(Clone, Copy, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Found(u32);

impl Found {
    #[inline(always)]
    fn new(length: u32, position: u16) -> Self {
        Self(length << 16 | u32::from(position))
    }

    /// Bytes that match.
    #[inline(always)]
    pub(crate) fn length(self) -> usize {
        (self.0 >> 16) as usize
    }

    /// Where the earlier copy begins.
    #[inline(always)]
    pub(crate) fn position(self) -> u16 {
        self.0 as u16
    }
}

/// Positions to compare with, most recent first.
#[derive(Clone, Copy)]
pub(crate) struct Candidates([u16; WAYS]);

/// The positions where each four bytes were seen, as chains from the most recent to older ones.
///
/// There is no mark for the end of a chain. It ends in positions that are out of reach or
/// hold other bytes, which the comparison finds out anyway: a search takes so many steps,
/// without a branch.
pub(crate) struct Matchfinder<const REACH: usize, const HEADS: usize> {
    /// The most recent position for each hash.
    heads: Box<[u16; HEADS]>,
    /// The one before each position with the same hash, by the position modulo the reach.
    previous: Box<[u16; REACH]>,
    /// One less than the heads in use, a power of two.
    mask: usize,
}

impl<const REACH: usize, const HEADS: usize> Matchfinder<REACH, HEADS> {
    pub(crate) fn new() -> Self {
        Self { heads: zeroed(), previous: zeroed(), mask: HEADS - 1 }
    }

    /// Forgets all positions, and prepares for so many bytes of input. A small cluster takes
    /// fewer heads, since clearing them all would take longer than compressing it.
    pub(crate) fn restart(&mut self, input_length: usize) {
        let in_use = input_length.saturating_mul(2).clamp(HEADS_MIN.min(HEADS), HEADS);
        let in_use = in_use.checked_next_power_of_two().unwrap_or(HEADS).min(HEADS);
        self.mask = in_use - 1;
        self.heads[..in_use].fill(0);
        self.previous[..input_length.min(REACH)].fill(0);
    }

    /// Follows a window whose bytes moved `by` places to the front, a multiple of the reach.
    pub(crate) fn shift(&mut self, by: u16) {
        for position in self.heads.iter_mut().chain(self.previous.iter_mut()) {
            *position = position.saturating_sub(by);
        }
    }

    #[inline(always)]
    fn slot(&self, next: u64) -> usize {
        let hash = (next as u32).wrapping_mul(0x9E37_79B1);
        (hash >> (32 - HEADS.trailing_zeros())) as usize & self.mask
    }

    /// Remembers all positions from `from` up to `to`.
    #[inline(always)]
    pub(crate) fn insert(&mut self, window: &Window, from: usize, to: usize) {
        let mut at = from;
        while at + 4 <= to {
            // Eight bytes serve four positions.
            let next = window.load(at as u16);
            for step in 0..4 {
                self.enter(next >> (8 * step), (at as u16).wrapping_add(step));
            }
            at += 4;
        }
        // Up to three more without a branch: those past the end do not become heads.
        let next = window.load(at as u16);
        for step in 0..3 {
            let slot = self.slot(next >> (8 * step));
            let head = &mut self.heads[slot];
            let position = at + step;
            self.previous[position & (REACH - 1)] = *head;
            *head = if position < to { position as u16 } else { *head };
        }
    }

    /// Remembers `position`, where `next` stands, and returns the position before with the
    /// same hash.
    #[inline(always)]
    pub(crate) fn enter(&mut self, next: u64, position: u16) -> u16 {
        let slot = self.slot(next);
        let before = std::mem::replace(&mut self.heads[slot], position);
        self.previous[usize::from(position) & (REACH - 1)] = before;
        before
    }

    /// Whether the nearest candidate has the four bytes of `next` and is in reach.
    #[inline(always)]
    pub(crate) fn promises(
        window: &Window,
        next: u64,
        position: u16,
        candidate: u16,
    ) -> bool {
        let distance_less_one = position.wrapping_sub(1).wrapping_sub(candidate);
        let out_of_reach = u32::from(distance_less_one >> REACH.trailing_zeros());
        (window.load4(candidate) ^ next as u32) | out_of_reach == 0
    }

    /// `nearest`, and those before it.
    #[inline(always)]
    pub(crate) fn candidates(&self, nearest: u16) -> Candidates {
        let mut candidates = [nearest; WAYS];
        for way in 1..WAYS {
            candidates[way] = self.previous[usize::from(candidates[way - 1]) & (REACH - 1)];
        }
        Candidates(candidates)
    }

    /// The best match, of whose length at most [`QUICK_LENGTH`] is known. Takes no branch.
    #[inline(always)]
    pub(crate) fn quick(
        window: &Window,
        next: u64,
        position: u16,
        candidates: Candidates,
    ) -> Found {
        let mut best = Self::judge(window, next, position, candidates.0[0]);
        for way in 1..WAYS {
            best = best.max(Self::judge(window, next, position, candidates.0[way]));
        }
        best
    }

    #[inline(always)]
    fn judge(window: &Window, next: u64, position: u16, candidate: u16) -> Found {
        // A difference in the last byte for certain, and one in the first if out of reach.
        let distance_less_one = position.wrapping_sub(1).wrapping_sub(candidate);
        let out_of_reach = u64::from(distance_less_one >> REACH.trailing_zeros());
        let difference = (window.load(candidate) ^ next) | LAST_BYTE | out_of_reach;
        let length = difference.trailing_zeros() >> 3;
        Found::new(length, candidate)
    }

    /// The longest match among candidates of which one has the quick length.
    #[inline(always)]
    pub(crate) fn longest(
        window: &Window,
        next: u64,
        position: u16,
        candidates: Candidates,
        limit: usize,
    ) -> Found {
        let further = window.load(position.wrapping_add(QUICK_LENGTH as u16));
        let mut best = Found(0);
        for way in 0..WAYS {
            let candidate = candidates.0[way];
            best = best.max(Self::judge_further(window, next, further, position, candidate));
        }
        if best.length() < 2 * QUICK_LENGTH {
            return best;
        }
        let length = window.common(best.position(), position, 2 * QUICK_LENGTH, limit);
        let mut best = Found::new(length as u32, best.position());
        for way in 1..WAYS {
            let candidate = candidates.0[way];
            // A longer match has the eight bytes that end one past the length so far.
            let tail = best.length().wrapping_sub(7) as u16;
            let same_tail = window.load(candidate.wrapping_add(tail))
                == window.load(position.wrapping_add(tail));
            let distance_less_one = position.wrapping_sub(1).wrapping_sub(candidate);
            let farther = candidate < best.position();
            if same_tail & farther & (usize::from(distance_less_one) < REACH) {
                let length = window.common(candidate, position, 0, limit);
                if length > best.length() {
                    best = Found::new(length as u32, candidate);
                }
            }
        }
        best
    }

    /// Compares twice as many bytes as [`judge`](Self::judge), without a branch either.
    #[inline(always)]
    fn judge_further(
        window: &Window,
        next: u64,
        further: u64,
        position: u16,
        candidate: u16,
    ) -> Found {
        let first = Self::judge(window, next, position, candidate);
        let difference = (window.load(candidate.wrapping_add(QUICK_LENGTH as u16)) ^ further)
            | LAST_BYTE;
        let more = difference.trailing_zeros() >> 3;
        let counts = u32::from(first.length() == QUICK_LENGTH);
        Found(first.0.wrapping_add((more * counts) << 16))
    }
}
