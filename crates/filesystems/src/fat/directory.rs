//! Directories: their slots, the names in them, room for new ones.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, PoisonError};

use disksmith_disk::{Error, Kind, Result};

use super::chain::{append, length, tail};
use super::chunk::{Chunk, chunk_at, chunk_size};
use super::core::Core;
use super::layout::{DirEntry, ENTRY, FREE};
use super::name::{Assembler, fold, short_text};
use super::shape::corrupt;
use crate::errors;

/// Slots in a directory: 2 MiB, by the specification.
pub(crate) const SLOTS_MAX: u32 = 65_536;
/// Names of all directories whose index is kept.
const NAMES_MAX: usize = 1 << 20;

/// Directories whose names are known, by their first cluster (0: the root of FAT12 and FAT16).
#[derive(Debug, Default)]
pub(crate) struct Directories {
    known: HashMap<u32, Arc<Directory>>,
    names: usize,
    hasher: RandomState,
}

/// What is known of a directory.
#[derive(Clone, Debug)]
pub(crate) struct Directory {
    /// Its first cluster; 0 for the root of FAT12 and FAT16.
    pub(crate) start: u32,
    /// Where its pieces begin on the disk.
    chunks: Vec<u64>,
    chunk_slots: u32,
    slots: u32,
    sector_slots: u32,
    /// The first slot that was never used.
    end: u32,
    /// The longest run of free slots in each sector.
    room: Vec<u8>,
    /// Slots of short entries by the hash of each of their names.
    names: HashMap<u64, u32>,
}

/// A file in a directory.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) entry: DirEntry,
    /// The slot of its short entry, and the first one that belongs to it.
    pub(crate) slot: u32,
    pub(crate) first: u32,
    /// Where the short entry lies on the disk, in units of 32 bytes.
    pub(crate) place: u64,
    /// Its name: the long one, if there is one.
    pub(crate) units: Vec<u16>,
}

impl Directory {
    /// Where a slot lies on the disk, in bytes.
    pub(crate) fn byte(&self, slot: u32) -> Option<u64> {
        let chunk = self.chunks.get((slot / self.chunk_slots) as usize)?;
        Some(chunk + u64::from(slot % self.chunk_slots) * ENTRY as u64)
    }

    fn sector(&self, slot: u32) -> u32 {
        slot / self.sector_slots
    }
}

impl Core {
    /// Where the pieces of a directory begin. Bounded by what a directory can have.
    pub(crate) fn directory_chunks(&self, start: u32) -> Result<Vec<u64>> {
        if let (0, Some(root)) = (start, self.shape.fixed_root()) {
            let size = 64 * u64::from(self.shape.sector);
            return Ok((root.start..root.end).step_by(size as usize).collect());
        }
        let size = chunk_size(&self.shape);
        let most = u64::from(SLOTS_MAX) * ENTRY as u64 / size;
        let mut chunks = Vec::new();
        for run in self.chain(self.check_start(start)?)?.iter() {
            let begin = self.shape.place(run.cluster);
            let end = begin + u64::from(run.count) * self.shape.cluster_size();
            for at in (begin..end).step_by(size as usize) {
                if chunks.len() as u64 >= most.max(1) {
                    return Ok(chunks);
                }
                chunks.push(at);
            }
        }
        Ok(chunks)
    }

    fn chunk_slots(&self, start: u32) -> u32 {
        let size =
            if start == 0 { 64 * u64::from(self.shape.sector) } else { chunk_size(&self.shape) };
        (size / ENTRY as u64) as u32
    }

    /// Calls `visit` for each file from the slot `from` on until it answers false. Volume labels
    /// and the entries `.` and `..` are left out.
    pub(crate) fn scan(
        &self,
        start: u32,
        from: u32,
        visit: &mut dyn FnMut(Found) -> bool,
    ) -> Result<()> {
        self.scan_slots(start, from, &mut |entry, slot, first, place, units| {
            if entry.is_volume_id() || entry.is_dot() {
                return true;
            }
            let units = units.unwrap_or_else(|| short_text(&entry.name(), entry.case()));
            visit(Found { entry, slot, first, place, units })
        })
    }

    /// Calls `visit(entry, slot, first slot, place, long name)` for each short entry, labels and
    /// dots too.
    pub(crate) fn scan_slots(
        &self,
        start: u32,
        from: u32,
        visit: &mut dyn FnMut(DirEntry, u32, u32, u64, Option<Vec<u16>>) -> bool,
    ) -> Result<()> {
        let chunks = self.directory_chunks(start)?;
        self.scan_chunks(&chunks, self.chunk_slots(start), from, visit)
    }

    fn scan_chunks(
        &self,
        chunks: &[u64],
        chunk_slots: u32,
        from: u32,
        visit: &mut dyn FnMut(DirEntry, u32, u32, u64, Option<Vec<u16>>) -> bool,
    ) -> Result<()> {
        let mut names = Assembler::default();
        for (number, at) in chunks.iter().enumerate().skip((from / chunk_slots) as usize) {
            let base = number as u32 * chunk_slots;
            let chunk = self.chunks.get(&*self.disk, &self.shape, *at)?;
            let begin = from.saturating_sub(base) as usize;
            for index in begin..chunk.bytes.len() / ENTRY {
                let Some(entry) = chunk.entry(index) else { break };
                let slot = base + index as u32;
                if entry.is_end() {
                    return Ok(());
                }
                if entry.is_free() || chunk.is_dead(index) {
                    names.clear();
                } else if entry.is_long_part() {
                    names.add(&entry.raw, slot);
                } else {
                    let long = names.take(&entry.name());
                    let first = long.as_ref().map_or(slot, |long| long.1);
                    let place = at / ENTRY as u64 + index as u64;
                    if !visit(entry, slot, first, place, long.map(|long| long.0)) {
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }

    /// The hash by which a directory's index finds a name.
    pub(crate) fn name_hash(&self, units: &[u16]) -> u64 {
        let directories = self.directories.lock().unwrap_or_else(PoisonError::into_inner);
        directories.hasher.hash_one(fold(units))
    }

    /// The index of a directory; made when it is not known.
    pub(crate) fn directory(&self, start: u32) -> Result<Arc<Directory>> {
        let directories = self.directories.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(directory) = directories.known.get(&start) {
            return Ok(directory.clone());
        }
        let hasher = directories.hasher.clone();
        drop(directories);
        let directory = Arc::new(self.index(start, &hasher)?);
        let mut directories = self.directories.lock().unwrap_or_else(PoisonError::into_inner);
        if directories.names + directory.names.len() > NAMES_MAX {
            directories.known.clear();
            directories.names = 0;
        }
        directories.names += directory.names.len();
        directories.known.insert(start, directory.clone());
        Ok(directory)
    }

    fn index(&self, start: u32, hasher: &RandomState) -> Result<Directory> {
        let chunks = self.directory_chunks(start)?;
        let chunk_slots = self.chunk_slots(start);
        let mut slots = chunks.len() as u32 * chunk_slots;
        if start == 0 {
            slots = slots.min(self.shape.root_entries);
        }
        let sector_slots = self.shape.sector / ENTRY as u32;
        let mut names = HashMap::new();
        self.scan(start, 0, &mut |found| {
            let short = short_text(&found.entry.name(), 0);
            names.entry(hasher.hash_one(fold(&found.units))).or_insert(found.slot);
            names.entry(hasher.hash_one(fold(&short))).or_insert(found.slot);
            true
        })?;
        let mut directory = Directory {
            start,
            chunks,
            chunk_slots,
            slots,
            sector_slots,
            end: slots,
            room: Vec::new(),
            names,
        };
        for sector in 0..slots.div_ceil(sector_slots) {
            let (room, end) = self.measure_sector(&directory, sector)?;
            if let Some(end) = end.filter(|_| directory.end == slots) {
                directory.end = end;
            }
            // What lies behind the end is free, whatever it looks like.
            let room =
                if directory.end < sector * sector_slots { sector_slots as u8 } else { room };
            directory.room.push(room);
        }
        Ok(directory)
    }

    /// The longest run of free slots in a sector, and the first slot that was never used. Behind
    /// that, all are free.
    fn measure_sector(&self, directory: &Directory, sector: u32) -> Result<(u8, Option<u32>)> {
        let (mut run, mut longest, mut end) = (0_u32, 0, None);
        let from = sector * directory.sector_slots;
        for slot in from..(from + directory.sector_slots).min(directory.slots) {
            let free = end.is_some()
                || match self.slot(directory, slot)? {
                    (entry, _) if entry.is_end() => {
                        end = Some(slot);
                        true
                    }
                    (entry, dead) => entry.is_free() && !dead,
                };
            run = if free { run + 1 } else { 0 };
            longest = longest.max(run);
        }
        Ok((longest as u8, end))
    }

    /// A slot, and whether it becomes free at the next commit.
    fn slot(&self, directory: &Directory, slot: u32) -> Result<(DirEntry, bool)> {
        let at = directory.byte(slot).ok_or_else(errors::stale)?;
        let (start, _) = chunk_at(&self.shape, at).ok_or_else(errors::stale)?;
        let chunk: Arc<Chunk> = self.chunks.get(&*self.disk, &self.shape, start)?;
        let index = (at - start) as usize / ENTRY;
        let entry = chunk.entry(index).ok_or_else(errors::stale)?;
        Ok((entry, chunk.is_dead(index)))
    }

    /// The file with that name, long or short.
    pub(crate) fn find(&self, start: u32, units: &[u16]) -> Result<Option<Found>> {
        let directory = self.directory(start)?;
        let Some(slot) = directory.names.get(&self.name_hash(units)) else { return Ok(None) };
        self.found_at(&directory, *slot)
    }

    /// The file whose short entry is in this slot.
    fn found_at(&self, directory: &Directory, slot: u32) -> Result<Option<Found>> {
        // Its long entries are at most 20 before it.
        let (from, mut found) = (slot.saturating_sub(20), None);
        let chunks = &directory.chunks;
        self.scan_chunks(
            chunks,
            directory.chunk_slots,
            from,
            &mut |entry, at, first, place, units| {
                if at == slot && !entry.is_volume_id() && !entry.is_dot() {
                    let units = units.unwrap_or_else(|| short_text(&entry.name(), entry.case()));
                    found = Some(Found { entry, slot, first, place, units });
                }
                at < slot
            },
        )?;
        Ok(found)
    }

    /// True if a directory has no files.
    pub(crate) fn is_empty(&self, start: u32) -> Result<bool> {
        let mut empty = true;
        self.scan(start, 0, &mut |_| {
            empty = false;
            false
        })?;
        Ok(empty)
    }

    /// The slot of the file that has this name, short or long.
    pub(crate) fn short_owner(&self, directory: &Directory, name: &[u8; 11]) -> Option<u32> {
        directory.names.get(&self.name_hash(&short_text(name, 0))).copied()
    }

    fn change_directory(&mut self, start: u32, work: &mut dyn FnMut(&mut Directory)) {
        let directories = self.directories.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(directory) = directories.known.get_mut(&start) {
            work(Arc::make_mut(directory));
        }
    }

    /// Forgets a directory that is no more.
    pub(crate) fn forget_directory(&mut self, start: u32) {
        let directories = self.directories.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(directory) = directories.known.remove(&start) {
            directories.names = directories.names.saturating_sub(directory.names.len());
        }
    }

    fn remeasure(&mut self, start: u32, sectors: std::ops::RangeInclusive<u32>) -> Result<()> {
        for sector in sectors {
            let directory = self.directory(start)?;
            let room = match directory.end <= sector * directory.sector_slots {
                true => directory.sector_slots as u8,
                false => self.measure_sector(&directory, sector)?.0,
            };
            // Or the change would be made to a copy.
            drop(directory);
            self.change_directory(start, &mut |directory| {
                if let Some(place) = directory.room.get_mut(sector as usize) {
                    *place = room;
                }
            });
        }
        Ok(())
    }

    // ---- changes ---------------------------------------------------------------------------

    /// Puts entries (long ones, then the short one) into free slots; answers the short one's slot.
    pub(crate) fn add_entries(
        &mut self,
        start: u32,
        entries: &[[u8; ENTRY]],
        names: &[u64],
    ) -> Result<u32> {
        let first = self.make_room(start, entries.len() as u32)?;
        let directory = self.directory(start)?;
        let (end, count) = (directory.end, entries.len() as u32);
        // Slots that are skipped are free, not the end.
        let skipped = (end..first).map(|slot| (slot, [FREE].as_slice()));
        let taken = entries.iter().zip(first..).map(|(entry, slot)| (slot, entry.as_slice()));
        let behind = first + count;
        let after = match behind >= end && behind < directory.slots {
            true if !self.slot(&directory, behind)?.0.is_end() => Some((behind, [0].as_slice())),
            _ => None,
        };
        for (slot, bytes) in skipped.chain(taken).chain(after) {
            self.store_slot(&directory, slot, bytes, slot >= end)?;
        }
        let slot = behind - 1;
        let sectors = directory.sector(end.min(first))..=directory.sector(slot);
        drop(directory);
        self.change_directory(start, &mut |directory| {
            directory.end = directory.end.max(behind);
            for name in names {
                directory.names.entry(*name).or_insert(slot);
            }
        });
        self.remeasure(start, sectors)?;
        Ok(slot)
    }

    fn store_slot(
        &mut self,
        directory: &Directory,
        slot: u32,
        bytes: &[u8],
        past_end: bool,
    ) -> Result<()> {
        let at = directory.byte(slot).ok_or_else(errors::stale)?;
        let chunk = self.chunks.store(&*self.disk, &self.shape, at, bytes)?;
        self.transaction.chunks.insert(chunk);
        if past_end {
            let sector = at - at % u64::from(self.shape.sector);
            let ends = self.transaction.ends.entry(directory.start).or_default();
            if ends.last() != Some(&sector) {
                ends.push(sector);
            }
        }
        Ok(())
    }

    /// Free slots, one after the other; where possible in one sector, so that a name is on the
    /// disk whole or not at all.
    fn make_room(&mut self, start: u32, count: u32) -> Result<u32> {
        loop {
            let directory = self.directory(start)?;
            if let Some(slot) = self.find_room(&directory, count)? {
                return Ok(slot);
            }
            if start == 0 {
                return Err(Error::from_errno(28).with_kind(Kind::OutOfSpace).context(format!(
                    "The root directory has room for {} entries only",
                    directory.slots
                )));
            }
            if directory.slots >= SLOTS_MAX {
                return Err(Error::from_errno(28)
                    .with_kind(Kind::OutOfSpace)
                    .context(format!("A FAT directory has at most {SLOTS_MAX} entries")));
            }
            drop(directory);
            self.grow_directory(start)?;
        }
    }

    fn find_room(&self, directory: &Directory, count: u32) -> Result<Option<u32>> {
        if count > directory.sector_slots {
            // A long name in small sectors: only at the end.
            let fits = directory.end + count <= directory.slots;
            return Ok(fits.then_some(directory.end));
        }
        let Some(sector) = directory.room.iter().position(|room| u32::from(*room) >= count) else {
            return Ok(None);
        };
        let from = sector as u32 * directory.sector_slots;
        let mut run = 0;
        for slot in from..(from + directory.sector_slots).min(directory.slots) {
            let free = slot >= directory.end || {
                let (entry, dead) = self.slot(directory, slot)?;
                entry.is_free() && !dead
            };
            run = if free { run + 1 } else { 0 };
            if run == count {
                return Ok(Some(slot + 1 - count));
            }
        }
        Ok(None)
    }

    /// Gives a directory one more cluster.
    fn grow_directory(&mut self, start: u32) -> Result<()> {
        let chain = self.chain(start)?;
        let end = tail(&chain).ok_or_else(|| corrupt("a directory has no clusters"))?;
        let new = self.allocate(1, end + 1)?;
        let cluster = new.first().map_or(0, |run| run.cluster);
        let size = chunk_size(&self.shape);
        let begin = self.shape.place(cluster);
        let chunks: Vec<u64> =
            (begin..begin + self.shape.cluster_size()).step_by(size as usize).collect();
        self.link(end, cluster)?;
        let unreached = self.transaction.unreached.contains(&self.shape.place(start));
        for chunk in &chunks {
            self.chunks.insert(*chunk, size);
            match unreached {
                true => self.transaction.unreached.insert(*chunk),
                false => self.transaction.grown.insert(*chunk),
            };
        }
        let mut longer = (*chain).clone();
        append(&mut longer, &new);
        debug_assert_eq!(length(&longer), length(&chain) + 1);
        self.keep_chain(start, Arc::new(longer));
        self.change_directory(start, &mut |directory| {
            directory.chunks.extend(&chunks);
            // The end stays where it is, if there is one.
            directory.slots += chunks.len() as u32 * directory.chunk_slots;
            let sectors = directory.slots.div_ceil(directory.sector_slots) as usize;
            directory.room.resize(sectors, directory.sector_slots as u8);
        });
        Ok(())
    }

    /// Lets the slots of a file be free from the next commit on.
    pub(crate) fn remove_entries(&mut self, start: u32, found: &Found) -> Result<()> {
        let directory = self.directory(start)?;
        let long = self.name_hash(&found.units);
        let short = self.name_hash(&short_text(&found.entry.name(), 0));
        for slot in found.first..=found.slot {
            let at = directory.byte(slot).ok_or_else(errors::stale)?;
            let chunk = self.chunks.kill(&*self.disk, &self.shape, at)?;
            self.transaction.dead_chunks.insert(chunk);
            self.transaction.dead.push((start, slot));
        }
        self.transaction.dead_names.extend([(start, long), (start, short)]);
        drop(directory);
        self.forget_names(start, [long, short], found.slot);
        Ok(())
    }

    fn forget_names(&mut self, start: u32, names: [u64; 2], slot: u32) {
        self.change_directory(start, &mut |directory| {
            for name in names {
                if directory.names.get(&name) == Some(&slot) {
                    directory.names.remove(&name);
                }
            }
        });
    }

    /// Lets names be those of the file in this slot.
    pub(crate) fn give_names(&mut self, start: u32, names: [u64; 2], slot: u32) {
        for name in names {
            self.transaction.dead_names.remove(&(start, name));
        }
        self.change_directory(start, &mut |directory| {
            directory.names.extend(names.map(|name| (name, slot)));
        });
    }

    /// Puts other entries in the place of a file's, ending with the same slot; false if there is
    /// no room for that.
    pub(crate) fn replace_entries(
        &mut self,
        start: u32,
        found: &Found,
        entries: &[[u8; ENTRY]],
        names: [u64; 2],
    ) -> Result<bool> {
        let directory = self.directory(start)?;
        let Some(first) = (found.slot + 1).checked_sub(entries.len() as u32) else {
            return Ok(false);
        };
        // Longer than before: the slots ahead must be free, and in the same sector.
        if first < found.first && directory.sector(first) != directory.sector(found.slot) {
            return Ok(false);
        }
        for slot in first..found.first {
            let (entry, dead) = self.slot(&directory, slot)?;
            if !entry.is_free() || entry.is_end() || dead {
                return Ok(false);
            }
        }
        for slot in found.first..first {
            self.store_slot(&directory, slot, &[FREE], false)?;
        }
        for (entry, slot) in entries.iter().zip(first..) {
            self.store_slot(&directory, slot, entry, false)?;
        }
        let long = self.name_hash(&found.units);
        let short = self.name_hash(&short_text(&found.entry.name(), 0));
        let sectors = directory.sector(first.min(found.first))..=directory.sector(found.slot);
        drop(directory);
        self.forget_names(start, [long, short], found.slot);
        // Until the commit, the disk has the old name.
        let gone = [long, short].into_iter().filter(|name| !names.contains(name));
        self.transaction.dead_names.extend(gone.map(|name| (start, name)));
        self.change_directory(start, &mut |directory| {
            for name in names {
                directory.names.entry(name).or_insert(found.slot);
            }
        });
        self.remeasure(start, sectors)?;
        Ok(true)
    }

    /// After a commit: slots that became free can be used.
    pub(crate) fn revive(&mut self, dead: &[(u32, u32)]) {
        let mut last = None;
        for (start, slot) in dead {
            let directories = self.directories.get_mut().unwrap_or_else(PoisonError::into_inner);
            let Some(directory) = directories.known.get(start) else { continue };
            let sector = directory.sector(*slot);
            if last != Some((*start, sector)) {
                // What cannot be measured is not used.
                let _ = self.remeasure(*start, sector..=sector);
                last = Some((*start, sector));
            }
        }
    }
}
