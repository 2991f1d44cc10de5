//! Finding room for clusters, and keeping guest data away from tables.

use std::collections::HashSet;
use std::ops::Range;

use disksmith_disk::{Error, Kind, Result};

use super::layout::{L1Entry, L2Entry, Shape};
use super::meta::Meta;

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
        let shape = self.shape;
        let holds = |offset, length| clusters_of(&shape, offset, length).contains(&cluster);
        let fixed = self.tables().into_iter().find(|(offset, length, _)| holds(*offset, *length));
        let hit = match fixed {
            Some((_, _, name)) => Some(name),
            None if self.inactive_l1().any(|(offset, length)| holds(offset, length)) => {
                Some("inactive L1 table")
            }
            None if kind == TableKind::L2 => {
                self.table.iter().any(|entry| entry & !0x1ff == offset).then_some("refcount block")
            }
            None => {
                let same = |entry: &u64| L1Entry(*entry).offset() == offset;
                self.l1.iter().any(same).then_some("active L2 table")
            }
        };
        if let Some(name) = hit {
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

    fn tables(&self) -> [(u64, u64, &'static str); 4] {
        let header = &self.header;
        let directory =
            self.extensions.bitmaps.map_or((0, 0), |b| (b.directory_offset, b.directory_size));
        let table_bytes = u64::from(header.refcount_table_clusters) << header.cluster_bits;
        [
            (0, 1, "qcow2_header"),
            (header.l1_table_offset, u64::from(header.l1_size) * 8, "active L1 table"),
            (header.refcount_table_offset, table_bytes, "refcount table"),
            (directory.0, directory.1, "bitmap directory"),
        ]
    }

    fn inactive_l1(&self) -> impl Iterator<Item = (u64, u64)> {
        self.snapshots.iter().map(|s| (s.l1_table_offset, u64::from(s.l1_size) * 8))
    }

    fn find_tables(&self) -> HashSet<u64> {
        let mut found = HashSet::new();
        let mut add = |offset: u64, length: u64| {
            found.extend(clusters_of(&self.shape, offset, length));
        };
        for (offset, length, _) in self.tables() {
            add(offset, length);
        }
        for (offset, length) in self.inactive_l1() {
            if length <= super::open::L1_MOST {
                add(offset & L2Entry::OFFSET, length);
            }
        }
        if !self.snapshots.is_empty() {
            let bytes: u64 = self.snapshots.iter().map(|s| s.encode(0).len() as u64).sum();
            add(self.header.snapshots_offset, bytes);
        }
        for entry in self.table.iter().filter(|entry| **entry != 0) {
            add(entry & !0x1ff, 1);
        }
        for entry in self.l1.iter().map(|entry| L1Entry(*entry)).filter(|e| e.offset() != 0) {
            add(entry.offset(), 1);
        }
        found
    }

    fn name_of_table(&self, cluster: u64) -> &'static str {
        let shape = self.shape;
        let holds = |offset, length| clusters_of(&shape, offset, length).contains(&cluster);
        if let Some((_, _, name)) = self.tables().into_iter().find(|(o, l, _)| holds(*o, *l)) {
            return name;
        }
        if self.l1.iter().any(|entry| holds(L1Entry(*entry).offset(), 1)) {
            return "active L2 table";
        }
        if self.table.iter().any(|entry| holds(entry & !0x1ff, 1)) {
            return "refcount block";
        }
        match self.inactive_l1().any(|(offset, length)| holds(offset, length)) {
            true => "inactive L1 table",
            false => "snapshot table",
        }
    }
}
