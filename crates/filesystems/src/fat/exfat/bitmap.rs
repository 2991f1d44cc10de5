//! The bitmap of clusters in use (specification, section 7.1), and what is done with it: finding
//! free clusters, taking them, giving them back.

use std::ops::Range;
use std::sync::PoisonError;

use disksmith_disk::Result;

use super::super::chain::{Run, at};
use super::corrupt;
use super::layout::CHAIN_END;
use super::pages::Stage;
use super::volume::Volume;
use crate::errors;

impl Volume {
    /// Where the byte of the bitmap lies that has the bit of a cluster, and which bit it is.
    fn bit(&self, cluster: u32) -> Result<(u64, u32)> {
        let index = cluster.saturating_sub(2);
        let (byte, bit) = (u64::from(index / 8), index % 8);
        Ok((self.bitmap_place(byte)?.0, bit))
    }

    /// Where a byte of the bitmap lies, and how many follow it directly.
    fn bitmap_place(&self, byte: u64) -> Result<(u64, u64)> {
        let cluster = self.geometry.cluster;
        let found = at(&self.bitmap, u32::try_from(byte / cluster).unwrap_or(u32::MAX));
        let (first, count) = found.ok_or_else(|| corrupt("its bitmap is too short"))?;
        let within = byte % cluster;
        Ok((self.geometry.place(first) + within, u64::from(count) * cluster - within))
    }

    /// Marks clusters.
    pub(crate) fn mark(
        &mut self,
        stage: Stage,
        (first, count): (u32, u32),
        used: bool,
    ) -> Result<()> {
        let mut cluster = first;
        let end = first + count;
        while cluster < end {
            let (place, bit) = self.bit(cluster)?;
            let here = (8 - bit).min(end - cluster);
            let mask = ((1_u32 << here) - 1) << bit;
            let value = if used { 0xFF } else { 0 };
            self.pages.store_bits(stage, place, mask as u8, value)?;
            cluster += here;
        }
        Ok(())
    }

    /// The first cluster from `from` on, below `to`, that is free or not.
    pub(crate) fn find_bit(&self, from: u32, to: u32, free: bool) -> Result<Option<u32>> {
        let mut cluster = from.max(2);
        let (all, flip) = if free { (0xFF, 0xFF) } else { (0, 0) };
        while cluster < to {
            let (byte, bit) = (u64::from((cluster - 2) / 8), (cluster - 2) % 8);
            let (place, room) = self.bitmap_place(byte)?;
            let (page, within) = self.pages.page(place)?;
            let bytes = page.get(within..).unwrap_or(&[]);
            let bytes = bytes.get(..bytes.len().min(room as usize)).unwrap_or(bytes);
            for (number, byte) in bytes.iter().enumerate() {
                let base = cluster - bit + number as u32 * 8;
                if base >= to {
                    return Ok(None);
                }
                if *byte == all {
                    continue;
                }
                let skip = if number == 0 { bit } else { 0 };
                let rest = (byte ^ flip) >> skip;
                if rest != 0 {
                    let found = base + skip + rest.trailing_zeros();
                    return Ok((found < to).then_some(found));
                }
            }
            let Some(next) = (cluster - bit).checked_add(bytes.len() as u32 * 8) else { break };
            cluster = next;
        }
        Ok(None)
    }

    /// Behind the last cluster.
    pub(crate) fn end(&self) -> u32 {
        self.geometry.clusters + 2
    }

    /// Calls `visit` with each run of clusters in use: first and count.
    pub(crate) fn used_runs(&self, visit: &mut dyn FnMut(u32, u32)) -> Result<()> {
        let (mut at, end) = (2, self.end());
        while let Some(first) = self.find_bit(at, end, false)? {
            at = self.find_bit(first, end, true)?.unwrap_or(end);
            visit(first, at - first);
        }
        Ok(())
    }

    /// Free clusters now; those included that become free at the next commit.
    pub(crate) fn free_clusters(&self) -> Result<u32> {
        let pending: u32 = self.frees.iter().map(|run| run.1).sum();
        Ok(self.count_free()?.saturating_add(pending).min(self.geometry.clusters))
    }

    /// Free clusters, without those that the next commit frees.
    pub(crate) fn count_free(&self) -> Result<u32> {
        let mut known = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(free) = *known {
            return Ok(free);
        }
        let mut used = 0;
        self.used_runs(&mut |_, count| used += count)?;
        let free = self.geometry.clusters - used;
        *known = Some(free);
        Ok(free)
    }

    fn add_free(&mut self, change: i64) {
        let known = self.free.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(free) = known {
            // What two files claim to have may be freed twice.
            let sum = u32::try_from(i64::from(*free) + change).unwrap_or(0);
            *free = sum.min(self.geometry.clusters);
        }
    }

    /// Takes `count` clusters. With a `hint`, those ahead of it come first; without, they lie in
    /// one piece if there is one. All or none: `ENOSPC`.
    pub(crate) fn allocate(&mut self, count: u32, hint: u32) -> Result<Vec<Run>> {
        if count > self.count_free()? {
            return Err(errors::no_space());
        }
        let with_hint = self.geometry.is_cluster(hint);
        let start = if with_hint { hint } else { self.next.clamp(2, self.end()) };
        let ranges = [start..self.end(), 2..start];
        let mut runs = self.find_free(count, &ranges, 1)?;
        if runs.len() > 1 && !with_hint {
            let whole = self.find_free(count, &ranges, count)?;
            runs = if whole.is_empty() { runs } else { whole };
        }
        if runs.iter().map(|run| run.1).sum::<u32>() < count {
            return Err(errors::no_space());
        }
        let mut index = 0;
        let mut taken = Vec::with_capacity(runs.len());
        for (cluster, count) in runs {
            self.mark(Stage::Allocate, (cluster, count), true)?;
            taken.push(Run { index, cluster, count });
            index += count;
            self.next = cluster + count;
        }
        self.add_free(-i64::from(count));
        Ok(taken)
    }

    /// Free runs of at least `least` clusters, `count` in all.
    fn find_free(&self, count: u32, ranges: &[Range<u32>], least: u32) -> Result<Vec<(u32, u32)>> {
        let (mut runs, mut left) = (Vec::new(), count);
        for range in ranges {
            let (mut at, to) = (range.start, range.end);
            while left > 0
                && let Some(first) = self.find_bit(at, to, true)?
            {
                let most = to.min(first.saturating_add(left));
                at = self.find_bit(first, most, false)?.unwrap_or(most);
                if at - first >= least {
                    runs.push((first, at - first));
                    left -= at - first;
                }
            }
        }
        Ok(if left > 0 && least > 1 { Vec::new() } else { runs })
    }

    /// Frees clusters at the next commit.
    pub(crate) fn free_runs(&mut self, runs: &[Run]) {
        self.frees.extend(runs.iter().map(|run| (run.cluster, run.count)));
    }

    /// Puts what becomes free into its stage, and before that the ends of chains that were cut.
    pub(super) fn store_frees(&mut self) -> Result<()> {
        for cluster in std::mem::take(&mut self.cuts) {
            self.set_fat(Stage::Cut, cluster, CHAIN_END)?;
        }
        for run in std::mem::take(&mut self.frees) {
            self.mark(Stage::Free, run, false)?;
            self.add_free(run.1.into());
        }
        Ok(())
    }
}
