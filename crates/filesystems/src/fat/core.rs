//! An open volume: its pieces in memory, and how changes reach the disk.
//!
//! FAT has no journal, so what is written goes out in steps with a flush after each
//! ([`commit`](Core::commit)): first what nothing points to yet, last what nothing points to any
//! more. A cut between any two writes leaves clusters that belong to nothing and copies of the FAT
//! that differ, never two owners of a cluster or a name without its file. (Only a file that moves
//! to another place can be there under both names.)
//!
//! 1. file content (written at once) and new directory clusters;
//! 2. the chains of new clusters; then the links from what was there to them;
//! 3. directory entries that are new or changed;
//! 4. directory entries that go;
//! 5. the new ends of chains that were cut: what goes may be the former name of a file that was
//!    longer;
//! 6. the clusters that became free.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use disksmith_disk::{Context, Disk, Error, Kind, Result};

use super::chain::{Chains, Run};
use super::chunk::Chunks;
use super::directory::Directories;
use super::identity::Identities;
use super::layout::{BootSector, Info};
use super::shape::{FatKind, Shape, corrupt};
use super::shared::check_writable;
use super::table::{Table, is_split};
use crate::raw::put;
use crate::{Time, errors};

/// An open volume.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) shape: Shape,
    pub(crate) boot: BootSector,
    pub(crate) read_only: bool,
    /// A write failed: what is on the disk is not known any more.
    pub(crate) failed: bool,
    /// Instead of the host's clock.
    pub(crate) clock: Option<Time>,
    pub(crate) table: Table,
    pub(crate) chunks: Chunks,
    pub(crate) chains: Mutex<Chains>,
    pub(crate) directories: Mutex<Directories>,
    pub(crate) identities: Mutex<Identities>,
    pub(crate) transaction: Transaction,
    /// Free clusters, without those that the transaction frees.
    free: Mutex<Option<u32>>,
    /// Only clusters in this range are taken.
    pub(crate) allowed: Option<Range<u32>>,
    /// Where to look for free clusters.
    next: u32,
    /// It was marked as in use when it was opened: somebody did not finish.
    was_dirty: bool,
    /// We marked it as in use.
    marked: bool,
}

/// What is to be written at the next commit, besides pages and chunks.
#[derive(Debug, Default)]
pub(crate) struct Transaction {
    /// Content was written since the last flush.
    pub(crate) content: bool,
    /// Clusters that were free at the last commit: runs by their start.
    fresh: BTreeMap<u32, u32>,
    /// Entries of the FAT that are to lead on to new clusters.
    links: BTreeMap<u32, u32>,
    /// Entries of the FAT that become the end of a chain.
    cuts: HashSet<u32>,
    /// Clusters that become free: first and count.
    frees: Vec<(u32, u32)>,
    /// Chunks that differ from the disk.
    pub(crate) chunks: BTreeSet<u64>,
    /// Chunks with slots that become free.
    pub(crate) dead_chunks: BTreeSet<u64>,
    /// Chunks of new directories, to which nothing leads yet.
    pub(crate) unreached: BTreeSet<u64>,
    /// Chunks of clusters with which directories grow.
    pub(crate) grown: BTreeSet<u64>,
    /// Directory and sectors in which never used slots came into use, in order.
    pub(crate) ends: HashMap<u32, Vec<u64>>,
    /// Directory and slot that become free.
    pub(crate) dead: Vec<(u32, u32)>,
    /// Directory and hash of the names that go.
    pub(crate) dead_names: HashSet<(u32, u64)>,
}

impl Transaction {
    /// True when the commit frees clusters or slots.
    pub(crate) fn frees_space(&self) -> bool {
        !self.frees.is_empty() || !self.dead.is_empty()
    }

    /// How much there is, roughly in sectors.
    pub(crate) fn weight(&self) -> usize {
        self.chunks.len() + self.links.len() + self.cuts.len() + self.frees.len() + self.dead.len()
    }
}

impl Core {
    /// Opens the volume on `disk`. Nothing is written before something changes.
    pub(crate) fn open(disk: Arc<dyn Disk>, read_only: bool) -> Result<Self> {
        let (mut shape, boot) = Shape::open(&disk)?;
        if shape.size() > disk.size() && !read_only {
            return Err(Error::new(
                Kind::Corrupt,
                format!(
                    "The FAT filesystem has {} bytes, but its disk only {}",
                    shape.size(),
                    disk.size()
                ),
            )
            .with_hint("It can be read, not written: the end is missing."));
        }
        // Of a volume whose end is missing, what is there can be read.
        let room = disk.size().saturating_sub(shape.byte(shape.data_start)) / shape.cluster_size();
        shape.clusters = shape.clusters.min(u32::try_from(room).unwrap_or(u32::MAX));
        if shape.clusters == 0 {
            return Err(corrupt("its disk ends before the first cluster"));
        }
        let mut core = Self {
            read_only: read_only || disk.read_only(),
            failed: false,
            clock: None,
            table: Table::default(),
            chunks: Chunks::default(),
            chains: Mutex::default(),
            directories: Mutex::default(),
            identities: Mutex::default(),
            transaction: Transaction::default(),
            free: Mutex::new(None),
            allowed: None,
            next: 2,
            was_dirty: false,
            marked: false,
            disk,
            shape,
            boot,
        };
        core.was_dirty = core.boot.is_dirty() || core.table_is_dirty()?;
        if let Some(info) = core.info()? {
            if !core.was_dirty && info.free < core.shape.clusters {
                core.free = Mutex::new(Some(info.free));
            }
            if core.shape.is_cluster(info.next) {
                core.next = info.next;
            }
        }
        Ok(core)
    }

    /// The time that changes bear.
    pub(crate) fn now(&self) -> Time {
        self.clock.unwrap_or_else(Time::now)
    }

    pub(crate) fn identities(&self) -> MutexGuard<'_, Identities> {
        self.identities.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // ---- marks -----------------------------------------------------------------------------

    /// The mark in the entry of cluster 1 that says "properly unmounted".
    pub(crate) fn clean_bit(&self) -> u32 {
        match self.shape.kind {
            FatKind::Fat12 => 0,
            FatKind::Fat16 => 0x8000,
            FatKind::Fat32 => 0x0800_0000,
        }
    }

    pub(crate) fn table_is_dirty(&self) -> Result<bool> {
        let bit = self.clean_bit();
        Ok(bit != 0 && self.table.get(&*self.disk, &self.shape, 1)? & bit == 0)
    }

    /// What FSInfo says, if there is one.
    pub(crate) fn info(&self) -> Result<Option<Info>> {
        if self.shape.info_sector == 0 {
            return Ok(None);
        }
        let mut sector = vec![0; self.shape.sector as usize];
        self.disk
            .read_at(&mut sector, self.shape.byte(self.shape.info_sector))
            .context("Could not read FSInfo")?;
        Ok(Info::parse(&sector))
    }

    fn put_info(&self, info: Info) -> Result<()> {
        if self.info()?.is_none() {
            return Ok(());
        }
        let mut sector = vec![0; self.shape.sector as usize];
        let at = self.shape.byte(self.shape.info_sector);
        self.disk.read_at(&mut sector, at)?;
        let fresh = info.encode(sector.len());
        put(&mut sector, 488, fresh.get(488..496).unwrap_or(&[]));
        self.disk.write_at(&sector, at)
    }

    /// Says in the boot sector and in the FAT that the volume is in use, or that it is not.
    fn put_marks(&mut self, dirty: bool) -> Result<()> {
        self.boot.set_dirty(dirty);
        self.put_boot(0)?;
        let bit = self.clean_bit();
        if bit != 0 {
            let now = self.table.get(&*self.disk, &self.shape, 1)?;
            let value = if dirty { now & !bit } else { now | bit };
            self.table.set(&*self.disk, &self.shape, 1, value)?;
            self.table.write_back(&*self.disk, &self.shape)?;
        }
        Ok(())
    }

    /// Writes the boot sector to a sector; what comes after its 512 bytes stays.
    pub(crate) fn put_boot(&self, sector: u32) -> Result<()> {
        let mut bytes = vec![0; self.shape.sector as usize];
        let at = self.shape.byte(sector);
        self.disk.read_at(&mut bytes, at)?;
        put(&mut bytes, 0, &self.boot.raw);
        self.disk.write_at(&bytes, at).context("Could not write the boot sector")
    }

    /// Writes the boot sector to its backup too. The mark of use is only in the first one.
    pub(crate) fn put_backup(&mut self) -> Result<()> {
        if self.shape.backup_boot != 0 {
            let dirty = self.boot.is_dirty();
            self.boot.set_dirty(false);
            let done = self.put_boot(self.shape.backup_boot);
            self.boot.set_dirty(dirty);
            done?;
        }
        Ok(())
    }

    /// Writes the counts of a volume that is not in use.
    pub(crate) fn settle_info(&mut self) -> Result<()> {
        let free = self.recount_free()?;
        self.put_info(Info { free, next: self.next.clamp(2, self.shape.clusters + 1) })?;
        self.disk.flush()
    }

    /// Refuses changes where none can be made.
    pub(crate) fn check_writable(&self) -> Result<()> {
        check_writable(self.read_only, self.failed)
    }

    /// Before anything changes: the volume is in use, and FSInfo knows nothing.
    pub(crate) fn begin(&mut self) -> Result<()> {
        self.check_writable()?;
        if !self.marked {
            self.marked = true;
            let marked = self.put_marks(true).and_then(|()| {
                self.put_info(Info { free: Info::UNKNOWN, next: self.next })?;
                self.disk.flush()
            });
            self.failed = marked.is_err();
            marked?;
        }
        Ok(())
    }

    // ---- clusters --------------------------------------------------------------------------

    /// Free clusters now; those included that become free at the next commit.
    pub(crate) fn free_clusters(&self) -> Result<u32> {
        let pending: u32 = self.transaction.frees.iter().map(|run| run.1).sum();
        Ok(self.count_free()?.saturating_add(pending))
    }

    fn count_free(&self) -> Result<u32> {
        let mut known = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(free) = *known {
            return Ok(free);
        }
        let mut reader = self.table.reader(&*self.disk, &self.shape);
        let (mut free, mut at, end) = (0, 2, self.shape.clusters + 2);
        while let Some(first) = reader.find(at, end, true)? {
            at = reader.find(first, end, false)?.unwrap_or(end);
            free += at - first;
        }
        *known = Some(free);
        Ok(free)
    }

    /// Counts the free clusters anew.
    pub(crate) fn recount_free(&self) -> Result<u32> {
        *self.free.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.count_free()
    }

    /// That somebody left the volume marked as in use does not matter any more.
    pub(crate) fn forget_dirt(&mut self) {
        self.was_dirty = false;
    }

    fn add_free(&mut self, change: i64) {
        let known = self.free.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(free) = known {
            *free = u32::try_from(i64::from(*free) + change).unwrap_or(0);
        }
    }

    /// Takes `count` clusters, chained, in as few runs as lie ahead of `hint` (0: anywhere).
    pub(crate) fn allocate(&mut self, count: u32, hint: u32) -> Result<Vec<Run>> {
        let range = self.allowed.clone().unwrap_or(2..self.shape.clusters + 2);
        let start = if self.shape.is_cluster(hint) { hint } else { self.next };
        let start = if range.contains(&start) { start } else { range.start };
        let ranges = [start..range.end, range.start..start];
        // Split entries of FAT12 cannot be changed at once: they are used last.
        let mut runs = self.find_free(count, &ranges, false)?;
        let found: u32 = runs.iter().map(|run| run.1).sum();
        if found < count && self.shape.kind == FatKind::Fat12 {
            runs.extend(self.find_free(count - found, &ranges, true)?);
        }
        if runs.iter().map(|run| run.1).sum::<u32>() < count {
            return Err(errors::no_space());
        }
        let after: Vec<u32> = runs.iter().skip(1).map(|run| run.0).collect();
        for (index, run) in runs.iter().enumerate() {
            let last = after.get(index).copied().unwrap_or(self.shape.kind.end());
            self.table.chain(&*self.disk, &self.shape, *run, last)?;
            self.note_fresh(*run);
        }
        self.next = runs.last().map_or(self.next, |run| run.0 + run.1);
        self.add_free(-i64::from(count));
        let mut index = 0;
        Ok(runs
            .into_iter()
            .map(|(cluster, count)| {
                let run = Run { index, cluster, count };
                index += count;
                run
            })
            .collect())
    }

    /// Free runs in these ranges, of `count` clusters at most: only of split entries, or only of
    /// others.
    fn find_free(&self, count: u32, ranges: &[Range<u32>], split: bool) -> Result<Vec<(u32, u32)>> {
        let mut runs = Vec::new();
        let mut left = count;
        let mut reader = self.table.reader(&*self.disk, &self.shape);
        for range in ranges {
            let (mut at, to) = (range.start, range.end);
            while left > 0
                && let Some(first) = reader.find(at, to, true)?
            {
                if is_split(&self.shape, first) != split {
                    at = first + 1;
                    continue;
                }
                let most = to.min(first.saturating_add(left));
                let end = reader.find(first, most, false)?.unwrap_or(most);
                at = (first..end)
                    .find(|other| is_split(&self.shape, *other) != split)
                    .unwrap_or(end);
                runs.push((first, at - first));
                left -= at - first;
            }
        }
        Ok(runs)
    }

    fn note_fresh(&mut self, (first, count): (u32, u32)) {
        let before = self.transaction.fresh.range_mut(..=first).next_back();
        match before {
            Some((start, length)) if *start + *length == first => *length += count,
            _ => {
                self.transaction.fresh.insert(first, count);
            }
        }
    }

    fn is_fresh(&self, cluster: u32) -> bool {
        let before = self.transaction.fresh.range(..=cluster).next_back();
        before.is_some_and(|(start, count)| cluster - start < *count)
    }

    /// Lets the end of a chain lead on to new clusters.
    pub(crate) fn link(&mut self, tail: u32, next: u32) -> Result<()> {
        if self.transaction.cuts.contains(&tail) {
            self.commit()?;
        }
        if self.is_fresh(tail) {
            return self.table.set(&*self.disk, &self.shape, tail, next);
        }
        self.transaction.links.insert(tail, next);
        Ok(())
    }

    /// Lets a chain end at `tail`, and frees the runs behind it.
    pub(crate) fn cut(&mut self, tail: u32, behind: &[Run]) -> Result<()> {
        if self.transaction.links.contains_key(&tail) {
            self.commit()?;
        }
        self.transaction.cuts.insert(tail);
        self.free_runs(behind);
        Ok(())
    }

    /// Frees clusters at the next commit.
    pub(crate) fn free_runs(&mut self, runs: &[Run]) {
        self.transaction.frees.extend(runs.iter().map(|run| (run.cluster, run.count)));
    }

    /// The cluster after this one, if the transaction changes that.
    pub(crate) fn pending_next(&self, cluster: u32) -> Option<u32> {
        if self.transaction.cuts.contains(&cluster) {
            return Some(self.shape.kind.end());
        }
        self.transaction.links.get(&cluster).copied()
    }

    // ---- commit ----------------------------------------------------------------------------

    /// Makes all changes durable, in an order that leaves no damage when it is cut short.
    pub(crate) fn commit(&mut self) -> Result<()> {
        if self.failed {
            return Err(Error::from_errno(5).context("An earlier write failed"));
        }
        let done = self.write_all();
        self.failed = done.is_err();
        done
    }

    fn write_all(&mut self) -> Result<()> {
        let disk = self.disk.clone();
        let shape = self.shape.clone();
        let mut work = std::mem::take(&mut self.transaction);
        let mut written = work.content;
        for start in std::mem::take(&mut work.unreached) {
            self.chunks.write_whole(&*disk, start, false)?;
            written = true;
        }
        for start in &work.grown {
            self.chunks.write_whole(&*disk, *start, true)?;
            written = true;
        }
        for sectors in work.ends.values() {
            for sector in sectors.iter().rev().skip(1) {
                let known = super::chunk::chunk_at(&shape, *sector).map_or(0, |chunk| chunk.0);
                if !work.grown.contains(&known) {
                    self.chunks.write_without_end(&*disk, &shape, *sector)?;
                    written = true;
                }
            }
        }
        if written {
            disk.flush()?;
        }
        self.write_table()?;
        for (tail, next) in work.links {
            self.table.set(&*disk, &shape, tail, next)?;
        }
        self.write_table()?;
        let mut written = false;
        for start in &work.chunks {
            written |= self.chunks.write_back(&*disk, &shape, *start)?;
        }
        if written {
            disk.flush()?;
        }
        let mut written = false;
        for start in &work.dead_chunks {
            self.chunks.bury(&*disk, &shape, *start)?;
            written |= self.chunks.write_back(&*disk, &shape, *start)?;
        }
        if written {
            disk.flush()?;
        }
        for tail in work.cuts {
            self.table.set(&*disk, &shape, tail, shape.kind.end())?;
        }
        self.write_table()?;
        let mut freed = 0;
        for (first, count) in work.frees {
            for cluster in first..first + count {
                self.table.set(&*disk, &shape, cluster, 0)?;
            }
            freed += i64::from(count);
            let (start, size) = (shape.place(first), super::chunk::chunk_size(&shape));
            self.chunks.forget(start, u64::from(count) * shape.cluster_size(), size);
        }
        self.add_free(freed);
        self.write_table()?;
        self.revive(&work.dead);
        Ok(())
    }

    fn write_table(&mut self) -> Result<()> {
        if self.table.is_dirty() {
            self.table.write_back(&*self.disk, &self.shape)?;
            self.disk.flush()?;
        }
        Ok(())
    }

    /// Everything durable, and the volume marked as not in use any more (unless somebody before
    /// us left it marked: then it wants to be checked).
    pub(crate) fn shut_down(&mut self) -> Result<()> {
        if self.read_only || !self.marked {
            return Ok(());
        }
        if self.failed {
            return Err(Error::from_errno(5).context("An earlier write failed"));
        }
        self.commit()?;
        let free = self.count_free()?;
        self.put_info(Info { free, next: self.next.clamp(2, self.shape.clusters + 1) })?;
        self.disk.flush()?;
        if !self.was_dirty {
            self.put_marks(false)?;
        }
        self.disk.flush()?;
        self.marked = false;
        Ok(())
    }

    /// Checks that a file's or directory's first cluster is one.
    pub(crate) fn check_start(&self, start: u32) -> Result<u32> {
        match self.shape.is_cluster(start) {
            true => Ok(start),
            false => {
                Err(corrupt(format!("something begins at cluster {start}, which is not there")))
            }
        }
    }
}
