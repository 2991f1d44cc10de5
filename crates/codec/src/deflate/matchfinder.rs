//! Finds earlier copies of the bytes at a position.

use super::window::{Window, zeroed};

/// What a comparison without a branch can tell of a match's length.
pub(crate) const QUICK_LENGTH: usize = 7;

/// Heads for matches of three bytes.
const SHORT_HEADS: usize = 2048;

/// Largest distance of a match of three bytes: farther ones save next to nothing. A power of two.
const SHORT_REACH: u32 = 256;

/// Fewest heads in use.
const HEADS_MIN: usize = 256;

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

/// A place in the window, and the eight bytes there.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    pub(crate) position: u16,
    pub(crate) next: u64,
}

impl Place {
    #[inline(always)]
    pub(crate) fn new(window: &Window, position: u16) -> Self {
        Self { position, next: window.load(position) }
    }

    /// Distance from `earlier` to here, less one: what is not earlier becomes far away.
    #[inline(always)]
    fn distance_less_one(self, earlier: u16) -> u16 {
        self.position.wrapping_sub(1).wrapping_sub(earlier)
    }
}

/// The positions where each four bytes were seen, as chains from the most recent to older ones.
///
/// There is no mark for the end of a chain. It goes on into positions that are out of reach or
/// hold other bytes, which a comparison finds out anyway. So a search takes `STEPS` steps,
/// always, and needs no branch that the processor could guess wrong.
///
/// `REACH`, the largest distance, and `HEADS` are powers of two.
pub(crate) struct Matchfinder<const REACH: usize, const HEADS: usize, const STEPS: usize> {
    /// The most recent position for each hash.
    heads: Box<[u16; HEADS]>,
    /// The one before each position with the same hash, by the position modulo the reach.
    previous: Box<[u16; REACH]>,
    /// The most recent position where three bytes were seen, for each hash of them.
    short_heads: Box<[u16; SHORT_HEADS]>,
    /// One less than the heads in use, a power of two.
    mask: usize,
}

impl<const REACH: usize, const HEADS: usize, const STEPS: usize> Matchfinder<REACH, HEADS, STEPS> {
    pub(crate) fn new() -> Self {
        Self { heads: zeroed(), previous: zeroed(), short_heads: zeroed(), mask: HEADS - 1 }
    }

    /// Forgets all positions, and prepares for so many bytes of input. A small cluster takes
    /// fewer heads, since clearing them all would take longer than compressing it.
    pub(crate) fn restart(&mut self, input_length: usize) {
        let wanted = input_length.clamp(HEADS_MIN, HEADS / 2) * 2;
        let in_use = wanted.next_power_of_two().min(HEADS);
        self.mask = in_use - 1;
        self.heads[..in_use].fill(0);
        self.short_heads.fill(0);
        self.previous[..input_length.min(REACH)].fill(0);
    }

    /// Follows a window whose bytes moved `by` places to the front, a multiple of the reach.
    pub(crate) fn shift(&mut self, by: u16) {
        for position in
            self.heads.iter_mut().chain(self.previous.iter_mut()).chain(self.short_heads.iter_mut())
        {
            *position = position.saturating_sub(by);
        }
    }

    #[inline(always)]
    fn slot(&self, next: u64) -> usize {
        // The odd number next to 2^32 divided by the golden ratio: Knuth's multiplicative hash.
        let hash = (next as u32).wrapping_mul(0x9E37_79B1);
        (hash >> (32 - HEADS.trailing_zeros())) as usize & self.mask
    }

    /// Remembers a place, and returns the position before with the same hash.
    #[inline(always)]
    pub(crate) fn enter(&mut self, place: Place) -> u16 {
        let slot = self.slot(place.next);
        let before = std::mem::replace(&mut self.heads[slot], place.position);
        self.previous[usize::from(place.position) & (REACH - 1)] = before;
        before
    }

    /// Remembers a place by its first three bytes, and returns the position before of the same
    /// hash.
    #[inline(always)]
    pub(crate) fn enter_short(&mut self, place: Place) -> u16 {
        let hash = ((place.next as u32) << 8).wrapping_mul(0x9E37_79B1);
        let slot = (hash >> (32 - SHORT_HEADS.trailing_zeros())) as usize;
        std::mem::replace(&mut self.short_heads[slot & (SHORT_HEADS - 1)], place.position)
    }

    /// Whether three bytes at `candidate`, which is near enough for that, are the same.
    #[inline(always)]
    pub(crate) fn is_short(window: &Window, place: Place, candidate: u16) -> bool {
        let too_far = u32::from(place.distance_less_one(candidate)) / SHORT_REACH;
        (window.load4(candidate) ^ place.next as u32) << 8 | too_far == 0
    }

    /// Remembers all positions from `from` up to `to`.
    #[inline(always)]
    pub(crate) fn enter_all(&mut self, window: &Window, from: usize, to: usize) {
        let mut at = from;
        while at + 4 <= to {
            // Eight bytes serve four positions.
            let next = window.load(at as u16);
            for step in 0..4 {
                let position = (at as u16).wrapping_add(step);
                self.enter(Place { position, next: next >> (8 * step) });
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

    /// Whether the nearest candidate has four bytes in common with `place` and is in reach.
    #[inline(always)]
    pub(crate) fn promises(window: &Window, place: Place, nearest: u16) -> bool {
        let out_of_reach = place.distance_less_one(nearest) >> REACH.trailing_zeros();
        // One test for both: which of them fails is hard to foresee.
        (window.load4(nearest) ^ place.next as u32) | u32::from(out_of_reach) == 0
    }

    /// `nearest`, and those before it.
    #[inline(always)]
    pub(crate) fn candidates(&self, nearest: u16) -> [u16; STEPS] {
        let mut candidates = [nearest; STEPS];
        for step in 1..STEPS {
            candidates[step] = self.previous[usize::from(candidates[step - 1]) & (REACH - 1)];
        }
        candidates
    }

    /// The best match, of whose length at most [`QUICK_LENGTH`] is known. Takes no branch.
    #[inline(always)]
    pub(crate) fn quick(window: &Window, place: Place, candidates: [u16; STEPS]) -> Found {
        let mut best = Found(0);
        for candidate in candidates {
            best = best.max(Self::compare(window, place, candidate));
        }
        best
    }

    #[inline(always)]
    fn compare(window: &Window, place: Place, candidate: u16) -> Found {
        // A difference in the last byte for certain, and one in the first if out of reach.
        let out_of_reach = place.distance_less_one(candidate) >> REACH.trailing_zeros();
        let difference =
            (window.load(candidate) ^ place.next) | LAST_BYTE | u64::from(out_of_reach);
        Found::new(difference.trailing_zeros() >> 3, candidate)
    }

    /// The longest match, up to `limit` or a little more, among candidates of which one has
    /// the quick length.
    #[inline(always)]
    pub(crate) fn longest(
        window: &Window,
        place: Place,
        candidates: [u16; STEPS],
        limit: usize,
    ) -> Found {
        const TWICE: usize = 2 * QUICK_LENGTH;
        let further = window.load(place.position.wrapping_add(QUICK_LENGTH as u16));
        let mut best = Found(0);
        for candidate in candidates {
            best = best.max(Self::compare_further(window, place, further, candidate));
        }
        if best.length() < TWICE {
            return best;
        }
        // The nearest of those that go on; then any that goes on longer.
        let length = window.common(best.position(), place.position, TWICE, limit);
        let mut best = Found::new(length as u32, best.position());
        for candidate in candidates {
            // A longer match has the same eight bytes that end one past the length so far.
            let tail = best.length().wrapping_sub(7) as u16;
            let same_tail = window.load(candidate.wrapping_add(tail))
                == window.load(place.position.wrapping_add(tail));
            let in_reach = usize::from(place.distance_less_one(candidate)) < REACH;
            if same_tail & in_reach & (candidate < best.position()) {
                let length = window.common(candidate, place.position, 0, limit);
                if length > best.length() {
                    best = Found::new(length as u32, candidate);
                }
            }
        }
        best
    }

    /// Compares twice the quick length, also without a branch.
    #[inline(always)]
    fn compare_further(window: &Window, place: Place, further: u64, candidate: u16) -> Found {
        let first = Self::compare(window, place, candidate);
        let there = window.load(candidate.wrapping_add(QUICK_LENGTH as u16));
        let more = ((there ^ further) | LAST_BYTE).trailing_zeros() >> 3;
        let goes_on = u32::from(first.length() == QUICK_LENGTH);
        Found(first.0.wrapping_add((more * goes_on) << 16))
    }
}
