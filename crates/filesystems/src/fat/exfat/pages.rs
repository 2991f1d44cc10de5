//! The structures of an open volume in memory, and the order in which changes reach the disk.
//!
//! Every change is stored in a [`Stage`]; there is no other way to change a byte of a structure.
//! A commit writes the stages one after the other, with a flush after each, so that what a cut
//! leaves is a prefix of the stages and any part of the next one. A sector that several stages
//! change is written once for each of them, each time without what belongs to the later ones.
//!
//! A change to bytes that a later stage of the same commit changes already would be written too
//! early or lost: then what is there is committed first.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, PoisonError, RwLock};

use disksmith_disk::{Context, Disk, Error, Result, ZeroMode};

/// When a change is written, in this order.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Stage {
    /// Bits and chains of clusters that were free, to which nothing leads yet. The content of
    /// files, written at once, is flushed with them.
    Allocate,
    /// Ends of chains lead on to them.
    Link,
    /// Entries in other sectors than the first one of their set, which nobody looks at without
    /// it; what must be zero behind the end of a directory.
    Secondary,
    /// Entries that are new or changed.
    Entry,
    /// Entries that go.
    Remove,
    /// New ends of chains that were cut: what goes may be the former name of a file that was longer.
    Cut,
    /// Bits of clusters that became free.
    Free,
}

const STAGES: usize = 7;
/// Bytes of a page.
const PAGE: u64 = 16 << 10;
/// Unchanged pages are dropped when there are more: 64 MiB.
const PAGES_MAX: usize = 4096;
/// Sectors written at once.
const RUN_MAX: usize = 256;

/// The bits of a sector that a stage changes.
#[derive(Debug)]
struct Patch {
    mask: Vec<u8>,
    value: Vec<u8>,
}

/// Pages of the disk, and the changes to them that are not yet written.
#[derive(Debug)]
pub(crate) struct Pages {
    disk: Arc<dyn Disk>,
    sector: u64,
    held: RwLock<HashMap<u64, Arc<Vec<u8>>>>,
    /// Pages that differ from the disk.
    changed: HashSet<u64>,
    /// By stage, the sectors that it changes.
    stages: [BTreeMap<u64, Patch>; STAGES],
    /// Content was written since the last flush.
    content: bool,
    /// A write failed: what is on the disk is not known any more.
    pub(crate) failed: bool,
}

impl Pages {
    pub(crate) fn new(disk: Arc<dyn Disk>, sector: u64) -> Self {
        Self {
            disk,
            sector,
            held: RwLock::default(),
            changed: HashSet::new(),
            stages: Default::default(),
            content: false,
            failed: false,
        }
    }

    pub(crate) fn disk(&self) -> &dyn Disk {
        &*self.disk
    }

    /// The page that has the byte `at`, and where in it that is.
    pub(crate) fn page(&self, at: u64) -> Result<(Arc<Vec<u8>>, usize)> {
        let start = at - at % PAGE;
        let within = (at - start) as usize;
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(page) = held.get(&start) {
            return Ok((page.clone(), within));
        }
        drop(held);
        let length = PAGE.min(self.disk.size().saturating_sub(start));
        if within as u64 >= length {
            return Err(super::corrupt("a structure lies behind the end of the disk"));
        }
        let mut bytes = vec![0; length as usize];
        self.disk.read_at(&mut bytes, start).context("Could not read the filesystem")?;
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        if held.len() >= PAGES_MAX.max(2 * self.changed.len()) {
            held.retain(|start, _| self.changed.contains(start));
        }
        Ok((held.entry(start).or_insert_with(|| Arc::new(bytes)).clone(), within))
    }

    /// Fills `buffer` with the bytes from `at` on, changes included.
    pub(crate) fn read(&self, at: u64, buffer: &mut [u8]) -> Result<()> {
        let mut done = 0;
        while done < buffer.len() {
            let (page, within) = self.page(at + done as u64)?;
            let step = (buffer.len() - done).min(page.len() - within);
            let from = page.get(within..within + step).unwrap_or(&[]);
            crate::raw::put(buffer, done, from);
            done += step;
        }
        Ok(())
    }

    /// Roughly how many sectors wait.
    pub(crate) fn weight(&self) -> usize {
        self.stages.iter().map(BTreeMap::len).sum()
    }

    /// Changes bytes.
    pub(crate) fn store(&mut self, stage: Stage, at: u64, bytes: &[u8]) -> Result<()> {
        let mut done = 0;
        while done < bytes.len() {
            let place = at + done as u64;
            let room = (self.sector - place % self.sector) as usize;
            let piece = bytes.get(done..(done + room).min(bytes.len())).unwrap_or(&[]);
            self.store_piece(stage, place, &vec![0xFF; piece.len()], piece)?;
            done += piece.len();
        }
        Ok(())
    }

    /// Sets the bits of `mask` in a byte to those of `value`.
    pub(crate) fn store_bits(&mut self, stage: Stage, at: u64, mask: u8, value: u8) -> Result<()> {
        self.store_piece(stage, at, &[mask], &[value])
    }

    /// Changes bits within one sector.
    fn store_piece(&mut self, stage: Stage, at: u64, mask: &[u8], value: &[u8]) -> Result<()> {
        let (start, within) = (at - at % self.sector, (at % self.sector) as usize);
        let index = stage as usize;
        let later = self.stages.iter().skip(index + 1).filter_map(|stage| stage.get(&start));
        let clash = later.into_iter().any(|patch| {
            let theirs = patch.mask.get(within..).unwrap_or(&[]);
            theirs.iter().zip(mask).any(|(theirs, ours)| theirs & ours != 0)
        });
        if clash {
            self.commit()?;
        }
        let (_, in_page) = self.page(at)?;
        let held = self.held.get_mut().unwrap_or_else(PoisonError::into_inner);
        let page_start = at - in_page as u64;
        let Some(page) = held.get_mut(&page_start) else { return Err(crate::errors::stale()) };
        let page: &mut Vec<u8> = Arc::make_mut(page);
        blend(page, in_page, mask, value);
        self.changed.insert(page_start);
        let length = self.sector as usize;
        let Some(stage) = self.stages.get_mut(index) else { return Ok(()) };
        let patch = stage
            .entry(start)
            .or_insert_with(|| Patch { mask: vec![0; length], value: vec![0; length] });
        blend(&mut patch.value, within, mask, value);
        for (to, from) in patch.mask.iter_mut().skip(within).zip(mask) {
            *to |= from;
        }
        Ok(())
    }

    // ---- content ---------------------------------------------------------------------------

    /// Writes content to clusters, at once. It is flushed before anything leads to it.
    pub(crate) fn write_content(&mut self, at: u64, bytes: &[u8]) -> Result<()> {
        self.content = true;
        let done = self.disk.write_at(bytes, at);
        self.note(done)
    }

    /// Makes content zero, at once.
    pub(crate) fn clear_content(&mut self, at: u64, length: u64) -> Result<()> {
        self.content = true;
        let done = self.disk.write_zeroes(at, length, ZeroMode::Unmap);
        self.note(done)
    }

    /// Makes a cluster that was free zero: it becomes a part of a directory.
    pub(crate) fn clear_fresh(&mut self, at: u64, length: u64) -> Result<()> {
        self.clear_content(at, length)?;
        let held = self.held.get_mut().unwrap_or_else(PoisonError::into_inner);
        for start in (at - at % PAGE..at + length).step_by(PAGE as usize) {
            let Some(page) = held.get_mut(&start) else { continue };
            let (from, to) = (at.max(start) - start, (at + length).min(start + PAGE) - start);
            if let Some(bytes) = Arc::make_mut(page).get_mut(from as usize..to as usize) {
                bytes.fill(0);
            }
        }
        Ok(())
    }

    fn note(&mut self, done: Result<()>) -> Result<()> {
        self.failed |= done.is_err();
        done
    }

    // ---- commit ----------------------------------------------------------------------------

    /// Makes all changes durable, stage by stage.
    pub(crate) fn commit(&mut self) -> Result<()> {
        if self.failed {
            return Err(Error::from_errno(5).context("An earlier write failed"));
        }
        let done = self.write_stages();
        self.note(done)
    }

    fn write_stages(&mut self) -> Result<()> {
        for index in 0..STAGES {
            let patches = self.stages.get_mut(index).map(std::mem::take).unwrap_or_default();
            let written = !patches.is_empty();
            self.write_patches(index, &patches)?;
            if written || std::mem::take(&mut self.content) {
                self.disk.flush()?;
                self.content = false;
            }
        }
        self.changed.clear();
        Ok(())
    }

    /// Writes the sectors that a stage changes, in as few pieces as they lie.
    fn write_patches(&self, index: usize, patches: &BTreeMap<u64, Patch>) -> Result<()> {
        let (mut start, mut run) = (0, Vec::new());
        for (at, patch) in patches {
            let full = run.len() >= RUN_MAX * self.sector as usize;
            if !run.is_empty() && (full || start + run.len() as u64 != *at) {
                self.write(start, &run)?;
                run.clear();
            }
            if run.is_empty() {
                start = *at;
            }
            run.extend(self.sector_for(index, *at, patch)?);
        }
        match run.is_empty() {
            true => Ok(()),
            false => self.write(start, &run),
        }
    }

    fn write(&self, at: u64, bytes: &[u8]) -> Result<()> {
        self.disk.write_at(bytes, at).context("Could not write the filesystem")
    }

    /// A sector as it is to be after this stage.
    fn sector_for(&self, index: usize, at: u64, patch: &Patch) -> Result<Vec<u8>> {
        let mut bytes = vec![0; self.sector as usize];
        if self.stages.iter().skip(index + 1).any(|stage| stage.contains_key(&at)) {
            self.disk.read_at(&mut bytes, at)?;
            blend(&mut bytes, 0, &patch.mask, &patch.value);
        } else {
            self.read(at, &mut bytes)?;
        }
        Ok(bytes)
    }
}

/// Puts the bits of `mask` from `value` into `bytes`.
fn blend(bytes: &mut [u8], at: usize, mask: &[u8], value: &[u8]) {
    for ((to, mask), value) in bytes.iter_mut().skip(at).zip(mask).zip(value) {
        *to = *to & !mask | value & mask;
    }
}

#[cfg(test)]
mod tests {
    use disksmith_disk::MemoryDisk;

    use super::*;

    fn pages() -> (Arc<MemoryDisk>, Pages) {
        let disk = Arc::new(MemoryDisk::new(64 << 10));
        (disk.clone(), Pages::new(disk, 512))
    }

    #[test]
    fn what_is_stored_is_read_before_and_after_the_commit() {
        let (disk, mut pages) = pages();
        pages.store(Stage::Entry, 510, &[1, 2, 3, 4]).unwrap();
        pages.store(Stage::Remove, 511, &[9]).unwrap();
        pages.store_bits(Stage::Allocate, 510, 0xF0, 0x70).unwrap();
        let mut seen = [0; 4];
        pages.read(510, &mut seen).unwrap();
        pages.commit().unwrap();
        let mut written = [0; 4];
        disk.read_at(&mut written, 510).unwrap();
        assert_eq!((seen, written), ([0x71, 9, 3, 4], [0x71, 9, 3, 4]));
        assert_eq!(pages.weight(), 0);
    }

    #[test]
    fn an_earlier_stage_over_a_later_one_is_committed_in_between() {
        let (disk, mut pages) = pages();
        pages.store(Stage::Remove, 100, &[1]).unwrap();
        pages.store(Stage::Entry, 101, &[2]).unwrap();
        assert_eq!(pages.weight(), 2);
        pages.store(Stage::Entry, 100, &[3]).unwrap();
        let mut byte = [0];
        disk.read_at(&mut byte, 100).unwrap();
        assert_eq!((byte, pages.weight()), ([1], 1));
        pages.commit().unwrap();
        disk.read_at(&mut byte, 100).unwrap();
        assert_eq!(byte, [3]);
    }
}
