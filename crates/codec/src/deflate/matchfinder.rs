//! Finds earlier copies of the bytes at a position.

use super::window::{Window, zeroed};

/// Positions remembered for each hash.
const WAYS: u32 = 4;

/// Matches of up to this length are told apart while looking; longer ones compare on.
pub(crate) const QUICK_LENGTH: usize = 7;

/// A match as one number that orders matches: longer is more; of equals, the nearer one.
#[derive(Clone, Copy, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Found(u32);

impl Found {
    const NONE: Self = Self(0);

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

/// A hash table of the most recent positions where each four bytes were seen.
///
/// A bucket is four 16-bit positions in one word, the most recent lowest, so that
/// remembering a position is a shift, and looking takes no data-dependent branch. An empty
/// place is position 0: that is a candidate like any other, since the bytes are compared.
pub(crate) struct Matchfinder<const REACH: usize, const BUCKETS: usize> {
    buckets: Box<[u64; BUCKETS]>,
}

impl<const REACH: usize, const BUCKETS: usize> Matchfinder<REACH, BUCKETS> {
    pub(crate) fn new() -> Self {
        Self { buckets: zeroed() }
    }

    /// Forgets all positions.
    pub(crate) fn clear(&mut self) {
        self.buckets.fill(0);
    }

    /// Follows a window whose bytes moved `by` places to the front.
    pub(crate) fn shift(&mut self, by: u16) {
        for bucket in self.buckets.iter_mut() {
            let mut moved = 0;
            for way in 0..WAYS {
                let position = (*bucket >> (16 * way)) as u16;
                moved |= u64::from(position.saturating_sub(by)) << (16 * way);
            }
            *bucket = moved;
        }
    }

    #[inline(always)]
    fn slot(next: u64) -> usize {
        let hash = (next as u32).wrapping_mul(0x9E37_79B1);
        (hash >> (32 - BUCKETS.trailing_zeros())) as usize & (BUCKETS - 1)
    }

    /// Remembers `position`.
    #[inline(always)]
    pub(crate) fn insert(&mut self, window: &Window, position: u16) {
        let bucket = &mut self.buckets[Self::slot(window.load(position))];
        *bucket = *bucket << 16 | u64::from(position);
    }

    /// The best match at `position`, which is remembered. Its length may reach `limit`, or
    /// the quick length if that is more.
    #[inline(always)]
    pub(crate) fn find(
        &mut self,
        window: &Window,
        next: u64,
        position: u16,
        limit: usize,
    ) -> Option<Found> {
        let bucket = &mut self.buckets[Self::slot(next)];
        let candidates = *bucket;
        *bucket = candidates << 16 | u64::from(position);

        // Most positions have no match: these branches are then all foreseen.
        let quad = next as u32;
        let distance_less_one = position.wrapping_sub(candidates as u16).wrapping_sub(1);
        let recent = usize::from(distance_less_one) < REACH;
        let hit = (window.load4(candidates as u16) == quad)
            | (window.load4((candidates >> 16) as u16) == quad)
            | (window.load4((candidates >> 32) as u16) == quad)
            | (window.load4((candidates >> 48) as u16) == quad);
        if !(recent & hit) {
            return None;
        }
        Self::best(window, next, position, candidates, limit)
    }

    /// The best match among candidates.
    #[inline(never)]
    fn best(
        window: &Window,
        next: u64,
        position: u16,
        candidates: u64,
        limit: usize,
    ) -> Option<Found> {
        let mut best = Found::NONE;
        for way in 0..WAYS {
            let candidate = (candidates >> (16 * way)) as u16;
            best = best.max(Self::judge(window, next, position, candidate));
        }
        if best.length() >= QUICK_LENGTH {
            best = Self::longest(window, next, position, candidates, limit);
        }
        (best.length() >= 4).then_some(best)
    }

    /// Compares the first bytes, without a branch.
    #[inline(always)]
    fn judge(window: &Window, next: u64, position: u16, candidate: u16) -> Found {
        const LAST_BYTE: u64 = 1 << 63;
        let difference = (window.load(candidate) ^ next) | LAST_BYTE;
        let length = difference.trailing_zeros() >> 3;
        let distance_less_one = position.wrapping_sub(candidate).wrapping_sub(1);
        let in_reach = u32::from(usize::from(distance_less_one) < REACH);
        Found::new(length * in_reach, candidate)
    }

    /// The longest match among candidates of which one has at least the quick length.
    #[inline(always)]
    fn longest(
        window: &Window,
        next: u64,
        position: u16,
        candidates: u64,
        limit: usize,
    ) -> Found {
        let mut best = Found::NONE;
        for way in 0..WAYS {
            let candidate = (candidates >> (16 * way)) as u16;
            let quick = Self::judge(window, next, position, candidate);
            if quick.length() >= QUICK_LENGTH {
                let length = window.common(candidate, position, QUICK_LENGTH, limit);
                best = best.max(Found::new(length as u32, candidate));
            }
        }
        best
    }
}
