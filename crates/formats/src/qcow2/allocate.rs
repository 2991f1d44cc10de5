//! Finding room for clusters, and keeping guest data away from tables.

use std::collections::HashSet;
use std::ops::Range;

use disksmith_disk::{Error, Kind, Result};

use super::layout::Shape;
use super::meta::Meta;
use super::places::{Place, Places, What};

/// Host offsets have this many bits.
const OFFSET_BITS: u32 = 56;

/// The tables of which there are many.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) enum TableKind {
    L2,
    RefcountBlock,
}

/// The clusters that a range touches, however absurd it is.
fn clusters_of(shape: &Shape, offset: u64, length: u64) -> Range<u64> {
    let first = shape.cluster(offset);
    match length.checked_sub(1) {
        None => first..first,
        Some(last) => first..shape.cluster(offset.saturating_add(last)) + 1,
    }
}

impl Meta {
    /// Takes up to `most` clusters that lie together: number of the first, how many.
    pub(super) fn allocate(&mut self, most: u64) -> Result<(u64, u64)> {
        self.storage.announce("cluster_alloc");
        let first = self.first_free()?;
        let mut count = 0;
        while count < most {
            match self.scan(first + count, most - count)? {
                Some((true, run)) => count += run,
                _ => break,
            }
        }
        self.check_allocation(first, count, "cluster")?;
        self.reference(first, count)?;
        self.hint = first + count;
        self.used_up_to(self.hint * self.shape.cluster_size());
        Ok((first, count))
    }

    /// Takes exactly `count` clusters that lie together, for `what`: their host offset.
    pub(super) fn allocate_exact(&mut self, count: u64, what: &str) -> Result<u64> {
        self.storage.announce("cluster_alloc");
        let mut start = self.first_free()?;
        let mut have = 0;
        while have < count {
            let at = start + have;
            self.check_offset(at)?;
            match self.scan(at, count - have)? {
                Some((true, run)) => have += run,
                Some((false, run)) => (start, have) = (at + run, 0),
                None => {
                    // The block takes the first free cluster, what follows it is one run.
                    let table = self.header.refcount_table_offset;
                    self.new_block(at, start)?;
                    let moved = table != self.header.refcount_table_offset;
                    (start, have) = if moved { (self.first_free()?, 0) } else { (start + 1, 0) };
                }
            }
        }
        self.check_allocation(start, count, what)?;
        self.reference(start, count)?;
        if self.hint == start {
            self.hint = start + count;
        }
        self.used_up_to((start + count) * self.shape.cluster_size());
        Ok(start * self.shape.cluster_size())
    }

    /// Takes room for `length` bytes of compressed data: host offset. `length` is less than a
    /// cluster.
    pub(super) fn allocate_bytes(&mut self, length: u64) -> Result<u64> {
        let shape = self.shape;
        if let Some(end) = self.packed_end {
            let cluster = shape.cluster(end);
            let room = shape.cluster_size() - shape.within(end);
            let full = self.refcount(cluster)? >= shape.refcount_max();
            if !full && length <= room {
                self.reference(cluster, 1)?;
                self.set_packed_end(end + length);
                return Ok(end);
            }
            let next = self.first_free()?;
            if !full && next == cluster + 1 {
                self.reference(cluster, 1)?;
                self.allocate_exact(1, "compressed cluster")?;
                self.set_packed_end(end + length);
                return Ok(end);
            }
        }
        let offset = self.allocate_exact(1, "compressed cluster")?;
        self.set_packed_end(offset + length);
        Ok(offset)
    }

    fn set_packed_end(&mut self, end: u64) {
        self.packed_end = (!self.shape.aligned(end)).then_some(end);
    }

    /// The first free cluster; makes refcount blocks where they are missing.
    fn first_free(&mut self) -> Result<u64> {
        loop {
            self.check_offset(self.hint)?;
            match self.scan(self.hint, 1)? {
                Some((true, _)) => return Ok(self.hint),
                Some((false, _)) => {
                    let used = self.scan(self.hint, u64::MAX)?;
                    self.hint += used.map_or(1, |(_, run)| run);
                }
                None => self.new_block(self.hint, self.hint)?,
            }
        }
    }

    fn check_offset(&self, cluster: u64) -> Result<()> {
        match cluster >> (OFFSET_BITS - self.shape.cluster_bits) {
            0 => Ok(()),
            _ => Err(Error::new(Kind::OutOfSpace, "File too large")),
        }
    }

    /// Notes that storage up to `end` is in use.
    pub(super) fn used_up_to(&mut self, end: u64) {
        self.fresh_from = self.fresh_from.max(end);
    }

    /// Refuses clusters that refcounts call free although they hold tables: the refcounts are
    /// wrong, and writing would destroy the image.
    pub(super) fn check_allocation(&mut self, first: u64, count: u64, what: &str) -> Result<()> {
        if first == 0 {
            let text = format!("Preventing invalid allocation of {what} at offset 0");
            return Err(self.damaged(&text));
        }
        self.check_overlap(first, count)
    }

    /// Refuses guest data where tables lie.
    pub(super) fn check_overlap(&mut self, first: u64, count: u64) -> Result<()> {
        if self.guarded.is_none() {
            self.guarded = Some(self.find_tables());
        }
        let Some(guarded) = &self.guarded else { return Ok(()) };
        let Some(hit) = (first..first + count).find(|cluster| guarded.contains(cluster)) else {
            return Ok(());
        };
        let name = self.name_of_table(hit);
        Err(self.damaged(&format!("Preventing invalid write on metadata (overlaps with {name})")))
    }

    /// Keeps guest data away from `count` clusters at `offset`.
    pub(super) fn guard(&mut self, offset: u64, count: u64) {
        let first = self.shape.cluster(offset);
        if let Some(guarded) = &mut self.guarded {
            guarded.extend(first..first + count);
        }
    }

    /// Refuses to write an L2 table or refcount block that lies where another table does: the
    /// image is damaged, and the write would damage it further.
    pub(super) fn check_table_place(&mut self, offset: u64, kind: TableKind) -> Result<()> {
        let cluster = self.shape.cluster(offset);
        if self.verified.contains(&(cluster, kind)) {
            return Ok(());
        }
        // Tables of its own kind may be many, and are what may lie there.
        let mut others = self.places();
        match kind {
            TableKind::L2 => others.l1 = &[],
            TableKind::RefcountBlock => others.table = &[],
        }
        let shape = self.shape;
        let (start, length) = (cluster << shape.cluster_bits, shape.cluster_size());
        let hit = others
            .all()
            .find(|place| place.what != What::SnapshotTable && place.meets(start, length));
        if let Some(hit) = hit {
            let name = hit.what.name();
            let text = format!("Preventing invalid write on metadata (overlaps with {name})");
            return Err(self.damaged(&text));
        }
        self.verified.insert((cluster, kind));
        Ok(())
    }

    /// Builds the guard anew when it is next needed: after tables were moved.
    pub(super) fn forget_guard(&mut self) {
        self.guarded = None;
        self.verified.clear();
    }

    fn places(&self) -> Places<'_> {
        Places {
            header: &self.header,
            bitmaps: self.extensions.bitmaps,
            l1: &self.l1,
            table: &self.table,
            snapshots: &self.snapshots,
            snapshots_length: super::snapshots::table_bytes(&self.snapshots),
        }
    }

    fn find_tables(&self) -> HashSet<u64> {
        let shape = self.shape;
        let clusters = |place: Place| clusters_of(&shape, place.offset, place.length);
        self.places().all().flat_map(clusters).collect()
    }

    fn name_of_table(&self, cluster: u64) -> &'static str {
        let (start, length) = (cluster << self.shape.cluster_bits, self.shape.cluster_size());
        let hit = self.places().all().find(|place| place.meets(start, length));
        hit.map_or("metadata", |place| place.what.name())
    }
}
