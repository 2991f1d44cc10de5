//! Logical blocks of a file to blocks of the filesystem, whichever way the file is mapped.

use disksmith_disk::Result;

use super::core::{Core, corrupt};
use super::extents::Extent;
use super::features::RoCompat;
use super::layout::Inode;
use super::layout::inode::flags;
use crate::errors;

/// A run of logical blocks in one state.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Run {
    pub(crate) start: u64,
    /// In blocks, at least one.
    pub(crate) length: u64,
    /// The first block; `None` for a hole.
    pub(crate) place: Option<u64>,
    /// Reserved, but reads as zeroes.
    pub(crate) unwritten: bool,
}

impl Run {
    pub(crate) fn hole(start: u64, length: u64) -> Self {
        Self { start, length: length.max(1), place: None, unwritten: false }
    }

    /// Where data lie that are to be read.
    pub(crate) fn data(&self) -> Option<u64> {
        self.place.filter(|_| !self.unwritten)
    }
}

impl Core {
    /// What lies at `logical`: a run of at most `most` blocks (and at least one).
    pub(crate) fn map(&self, inode: &Inode, logical: u64, most: u64) -> Result<Run> {
        let run = if inode.has_flag(flags::EXTENTS) {
            self.map_extent(inode, logical, most)?
        } else {
            self.map_indirect(inode, logical, most)?
        };
        match run.place {
            Some(place) if !self.shape.valid_range(place, run.length) => Err(corrupt(format!(
                "inode {} lies at block {place}, outside of the filesystem",
                inode.number
            ))),
            _ => Ok(run),
        }
    }

    /// All runs that are mapped, in order, up to `end` blocks.
    pub(crate) fn mapped_runs(&self, inode: &Inode, end: u64) -> Result<Vec<Run>> {
        let mut runs = Vec::new();
        let mut at = 0;
        while at < end {
            let run = self.map(inode, at, end - at)?;
            at += run.length;
            if run.place.is_some() {
                runs.push(run);
                if runs.len() as u64 > self.shape.blocks {
                    return Err(corrupt(format!(
                        "inode {} maps blocks again and again",
                        inode.number
                    )));
                }
            }
        }
        Ok(runs)
    }

    /// Where to look for space for this file first.
    pub(crate) fn inode_goal(&self, inode: &Inode) -> u64 {
        let _ = inode;
        self.goal
    }

    /// Counts `blocks` more or fewer in `i_blocks`.
    pub(crate) fn add_sectors(&self, inode: &mut Inode, blocks: u64, more: bool) -> Result<()> {
        let in_blocks = inode.has_flag(flags::HUGE_FILE) && self.shape.has_ro(RoCompat::HUGE_FILE);
        let unit = if in_blocks { 1 } else { self.shape.block_size as u64 / 512 };
        let change = blocks * unit;
        let now = inode.blocks_raw();
        let sum = if more { now + change } else { now.saturating_sub(change) };
        if sum >> 48 != 0 || !self.shape.has_ro(RoCompat::HUGE_FILE) && sum >> 32 != 0 {
            return Err(errors::too_big());
        }
        inode.set_blocks_raw(sum);
        Ok(())
    }

    /// Storage in units of 512 bytes.
    pub(crate) fn sectors(&self, inode: &Inode) -> u64 {
        let raw = if self.shape.has_ro(RoCompat::HUGE_FILE) {
            inode.blocks_raw()
        } else {
            inode.i_blocks_lo().into()
        };
        let in_blocks = inode.has_flag(flags::HUGE_FILE) && self.shape.has_ro(RoCompat::HUGE_FILE);
        if in_blocks { raw.saturating_mul(self.shape.block_size as u64 / 512) } else { raw }
    }

    /// Maps a part of a hole that begins at `logical`: at most `want` blocks, at least one. The
    /// caller writes the blocks (or asks for `unwritten` ones).
    pub(crate) fn allocate_mapped(
        &mut self,
        inode: &mut Inode,
        logical: u64,
        want: u64,
        unwritten: bool,
    ) -> Result<Run> {
        if !inode.has_flag(flags::EXTENTS) {
            let goal = self.goal_after(inode, logical)?;
            let (place, count) = self.allocate_blocks(goal, want)?;
            let count = self.give_back_rest(place, count, want)?;
            self.set_indirect(inode, logical, place, count)?;
            self.add_sectors(inode, count, true)?;
            return Ok(Run { start: logical, length: count, place: Some(place), unwritten: false });
        }
        if logical + want > u64::from(u32::MAX) {
            return Err(errors::too_big());
        }
        let want = want.min(32767);
        let (place, count) = match self.shared_cluster(inode, logical)? {
            Some(found) => (found.0, found.1.min(want)),
            None => self.allocate_clusters(inode, logical, want)?,
        };
        let extent = Extent { start: logical as u32, length: count as u32, place, unwritten };
        self.replace_extents(inode, logical, logical + count, &[extent])?;
        Ok(Run { start: logical, length: count, place: Some(place), unwritten })
    }

    fn give_back_rest(&mut self, place: u64, count: u64, want: u64) -> Result<u64> {
        if count > want {
            self.free_blocks(place + want, count - want)?;
        }
        Ok(count.min(want))
    }

    /// Blocks for `logical` and following; with bigalloc at the same place within the cluster.
    fn allocate_clusters(
        &mut self,
        inode: &mut Inode,
        logical: u64,
        want: u64,
    ) -> Result<(u64, u64)> {
        let mask = (1_u64 << self.shape.cluster_bits) - 1;
        let within = logical & mask;
        let mut want = want;
        if mask > 0 {
            // Clusters after the first must be free of mappings too.
            let first_end = (logical | mask) + 1;
            let mut end = first_end;
            while end < logical + want && self.shared_cluster(inode, end)?.is_none() {
                end += mask + 1;
            }
            want = want.min(end - logical);
        }
        let goal = self.goal_after(inode, logical)?;
        let (place, count) = self.allocate_blocks(goal, within + want)?;
        self.add_sectors(inode, count, true)?;
        Ok((place + within, (count - within).min(want)))
    }

    /// With bigalloc: where `logical` must lie because another block of its cluster is mapped,
    /// and how many unmapped blocks follow in the cluster.
    fn shared_cluster(&self, inode: &Inode, logical: u64) -> Result<Option<(u64, u64)>> {
        let mask = (1_u64 << self.shape.cluster_bits) - 1;
        if mask == 0 {
            return Ok(None);
        }
        let (start, end) = (logical & !mask, (logical | mask) + 1);
        let mut at = start;
        let mut place = None;
        let mut free_end = end;
        while at < end {
            let run = self.map(inode, at, end - at)?;
            if let Some(found) = run.place {
                place.get_or_insert(found - (at - start));
                if at > logical {
                    free_end = free_end.min(at);
                }
            }
            at += run.length;
        }
        Ok(place.map(|place| (place + (logical - start), free_end - logical)))
    }

    /// The block after the one that holds the block before `logical`.
    fn goal_after(&self, inode: &Inode, logical: u64) -> Result<u64> {
        if logical > 0 {
            let before = self.map(inode, logical - 1, 1)?;
            if let Some(place) = before.place {
                return Ok(place + 1);
            }
        }
        Ok(self.inode_goal(inode))
    }

    /// Turns unwritten blocks of `from..to` into written ones.
    pub(crate) fn mark_written(&mut self, inode: &mut Inode, from: u64, to: u64) -> Result<()> {
        let mut at = from;
        while at < to {
            let run = self.map(inode, at, to - at)?;
            if let Some(place) = run.place.filter(|_| run.unwritten) {
                let extent =
                    Extent { start: at as u32, length: run.length as u32, place, unwritten: false };
                self.replace_extents(inode, at, at + run.length, &[extent])?;
            }
            at += run.length;
        }
        Ok(())
    }

    /// Turns written blocks of `from..to` into unwritten ones; extent files only.
    pub(crate) fn mark_unwritten(&mut self, inode: &mut Inode, from: u64, to: u64) -> Result<()> {
        let mut at = from;
        while at < to {
            let run = self.map(inode, at, (to - at).min(32767))?;
            if let Some(place) = run.place.filter(|_| !run.unwritten) {
                // What comes next is written in place, and must not be hidden by this.
                self.forget_content(place, run.length);
                let extent =
                    Extent { start: at as u32, length: run.length as u32, place, unwritten: true };
                self.replace_extents(inode, at, at + run.length, &[extent])?;
            }
            at += run.length;
        }
        Ok(())
    }

    /// Unmaps `from..to` and frees the blocks.
    pub(crate) fn unmap(&mut self, inode: &mut Inode, from: u64, to: u64) -> Result<()> {
        if from >= to {
            return Ok(());
        }
        if !inode.has_flag(flags::EXTENTS) {
            for (start, count) in self.clear_indirect(inode, from, to)? {
                self.free_content(start, count)?;
                self.add_sectors(inode, count, false)?;
            }
            return Ok(());
        }
        let removed = self.replace_extents(inode, from, to, &[])?;
        for extent in removed {
            self.free_extent(inode, &extent)?;
        }
        Ok(())
    }

    fn free_content(&mut self, start: u64, count: u64) -> Result<()> {
        if !self.shape.valid_range(start, count) {
            return Err(corrupt(format!("blocks {start}+{count} lie outside of the filesystem")));
        }
        self.free_blocks(start, count)
    }

    /// Frees the clusters of an extent that was unmapped, but for those still in use.
    fn free_extent(&mut self, inode: &mut Inode, extent: &Extent) -> Result<()> {
        let mask = (1_u64 << self.shape.cluster_bits) - 1;
        if mask == 0 {
            self.free_content(extent.place, extent.length.into())?;
            return self.add_sectors(inode, extent.length.into(), false);
        }
        let mut at = u64::from(extent.start);
        while at < extent.end() {
            let next = ((at | mask) + 1).min(extent.end());
            if self.shared_cluster(inode, at)?.is_none() {
                let place = extent.place + (at - u64::from(extent.start));
                let cluster = place & !mask;
                // Another extent of the same cluster may have been unmapped and freed just now.
                let bits = self.block_bitmap(self.shape.group_of(cluster))?;
                if super::bitmap::get(&bits, self.shape.bit_of(cluster)) {
                    self.free_content(place, next - at)?;
                    self.add_sectors(inode, mask + 1, false)?;
                }
            }
            at = next;
        }
        Ok(())
    }
}
