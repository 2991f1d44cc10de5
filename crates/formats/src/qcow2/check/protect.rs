//! Which ranges hold metadata that a repaired L2 table must not overwrite.

use super::Checker;

impl Checker<'_> {
    /// Whether a write of L1 or L2 entries to this range would hit the header, the refcount
    /// structures, the snapshot table, or an L1 table that it is not part of. `place` lies in
    /// the table that is being written.
    pub(super) fn protected_from_table(&self, place: u64, length: u64) -> bool {
        let hits = |start: u64, size: u64| {
            size > 0 && place < start.saturating_add(size) && start < place.saturating_add(length)
        };
        let header = &self.roots.header;
        let cluster = self.roots.shape.cluster_size();
        let bitmaps = self.roots.extensions.bitmaps;
        let first = place.saturating_sub(cluster - 1);
        hits(0, cluster)
            || hits(header.refcount_table_offset, self.roots.refcount_table_bytes())
            || hits(header.snapshots_offset, self.snapshots_bytes)
            || bitmaps.is_some_and(|b| hits(b.directory_offset, b.directory_size))
            || self.blocks.range(first..place.saturating_add(length)).next().is_some()
    }

    /// As [`protected_from_table`](Self::protected_from_table), for a whole L2 table, which
    /// must not lie on an L1 table either.
    pub(super) fn protected_from_l2(&self, place: u64, length: u64) -> bool {
        let hits = |start: u64, entries: u32| {
            let end = start.saturating_add(u64::from(entries) * 8);
            place < end && start < place.saturating_add(length)
        };
        self.protected_from_table(place, length)
            || hits(self.roots.header.l1_table_offset, self.roots.header.l1_size)
            || self.snapshots.iter().any(|s| hits(s.l1_table_offset, s.l1_size))
    }
}
