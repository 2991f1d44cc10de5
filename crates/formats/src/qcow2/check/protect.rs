//! Which ranges hold metadata that a repaired L2 table must not overwrite.

use super::super::places::{Places, What};
use super::Checker;

impl Checker<'_> {
    /// Whether a write of L1 or L2 entries to this range would hit the header, the refcount
    /// structures, the snapshot table or the bitmap directory. `place` lies in the table that is
    /// being written.
    pub(super) fn protected_from_table(&self, place: u64, length: u64) -> bool {
        // Called for each entry that is mended: snapshots may be many, and do not matter here.
        let few = Places { snapshots: &[], ..self.places() };
        let cluster = self.roots.shape.cluster_size();
        let first = place.saturating_sub(cluster - 1);
        few.all().any(|known| known.what != What::ActiveL1 && known.meets(place, length))
            || self.blocks.range(first..place.saturating_add(length)).next().is_some()
    }

    /// As [`protected_from_table`](Self::protected_from_table), for a whole L2 table, which
    /// must not lie on an L1 table either.
    pub(super) fn protected_from_l2(&self, place: u64, length: u64) -> bool {
        self.protected_from_table(place, length)
            || self.places().all().any(|known| known.meets(place, length))
    }

    /// The large tables; blocks are looked up by themselves, L2 tables are what is written.
    fn places(&self) -> Places<'_> {
        Places {
            header: &self.roots.header,
            bitmaps: self.roots.extensions.bitmaps,
            l1: &[],
            table: &[],
            snapshots: &self.snapshots,
            snapshots_length: self.snapshots_bytes,
        }
    }
}
