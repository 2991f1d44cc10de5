//! Directories: the sets in them, and an index of their names and of their free slots.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, PoisonError};

use disksmith_disk::Result;

use super::super::chain::{Run, length};
use super::layout::{DIRECTORY_MAX, ENTRY, IN_USE, entry_type};
use super::set::{FileSet, Stream};
use super::volume::Volume;
use crate::errors;
use crate::raw::byte;

/// Names of all directories whose index is kept.
const NAMES_MAX: usize = 1 << 20;
/// Sets that do not lie in one piece and are remembered.
const SCATTERED_MAX: usize = 1 << 20;
/// Runs of free slots longer than this are not told apart.
const ROOM_MAX: usize = 20;

/// Is told an entry's slot, its place on the disk and what is in it; answers whether to go on.
pub(crate) type Visit<'a> = dyn FnMut(u32, u64, &[u8]) -> Result<bool> + 'a;

/// Directories whose names are known, by their first cluster.
#[derive(Debug, Default)]
pub(crate) struct Directories {
    known: HashMap<u32, Arc<Directory>>,
    names: usize,
    hasher: RandomState,
}

/// What is known of a directory.
#[derive(Clone, Debug)]
pub(crate) struct Directory {
    /// Where it lies.
    pub(crate) runs: Arc<Vec<Run>>,
    pub(crate) slots: u32,
    pub(crate) sector_slots: u32,
    /// The first slot that was never used.
    pub(crate) end: u32,
    /// The longest run of free slots in each sector.
    room: Vec<u8>,
    /// For each number of slots, a sector before which there is no such room.
    hints: [u32; ROOM_MAX + 1],
    /// Slots of sets by the hash of their names.
    pub(crate) names: HashMap<u64, u32>,
}

/// A file in a directory.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) set: FileSet,
    /// The slot of its first entry.
    pub(crate) slot: u32,
    /// Where that lies on the disk, in units of 32 bytes.
    pub(crate) place: u64,
}

impl Directory {
    pub(crate) fn sector(&self, slot: u32) -> u32 {
        slot / self.sector_slots
    }

    /// The first sector with so many free slots one after the other.
    pub(crate) fn sector_with_room(&self, count: u32) -> Option<u32> {
        let hint = self.hints.get(count as usize).copied().unwrap_or(0) as usize;
        let rest = self.room.get(hint..)?;
        let found = rest.iter().position(|room| u32::from(*room) >= count);
        found.map(|at| (hint + at) as u32)
    }

    /// Before this sector there is no room for so many.
    pub(crate) fn note_hint(&mut self, count: u32, sector: u32) {
        if let Some(hint) = self.hints.get_mut(count as usize) {
            *hint = (*hint).max(sector);
        }
    }

    fn set_room(&mut self, sector: u32, room: u8) {
        if let Some(place) = self.room.get_mut(sector as usize) {
            *place = room;
            for hint in self.hints.iter_mut().take(usize::from(room) + 1) {
                *hint = (*hint).min(sector);
            }
        }
    }

    /// More clusters at its end.
    pub(crate) fn extend(&mut self, runs: Arc<Vec<Run>>, slots: u32) {
        let before = self.room.len() as u32;
        (self.runs, self.slots) = (runs, slots);
        for sector in before..slots.div_ceil(self.sector_slots) {
            self.room.push(0);
            self.set_room(sector, self.sector_slots as u8);
        }
    }
}

impl Volume {
    pub(crate) fn sector_slots(&self) -> u32 {
        (self.geometry.sector / ENTRY as u64) as u32
    }

    /// Calls `visit` for each entry from the slot `from` on, up to the end of the directory.
    pub(crate) fn entries(&self, stream: Stream, from: u32, visit: &mut Visit<'_>) -> Result<()> {
        let size = stream.size.min(DIRECTORY_MAX);
        let runs = self.runs(Stream { size, ..stream })?;
        let mut offset = u64::from(from) * ENTRY as u64;
        while offset < size {
            let Some((place, room)) = self.locate(&runs, offset) else { break };
            let (page, within) = self.pages.page(place)?;
            let bytes = page.get(within..).unwrap_or(&[]);
            let step = (bytes.len() as u64).min(room).min(size - offset) as usize;
            for (number, raw) in bytes.get(..step).unwrap_or(&[]).chunks_exact(ENTRY).enumerate() {
                let at = (number * ENTRY) as u64;
                let slot = ((offset + at) / ENTRY as u64) as u32;
                if byte(raw, 0) == entry_type::END || !visit(slot, place + at, raw)? {
                    return Ok(());
                }
            }
            offset += step as u64;
        }
        Ok(())
    }

    /// Calls `visit(file, behind)` for each file from the slot `from` on until it answers false;
    /// `behind` is the first slot behind its set. `number`: the directory's.
    pub(crate) fn scan(
        &self,
        number: u64,
        stream: Stream,
        from: u32,
        visit: &mut dyn FnMut(Found, u32) -> bool,
    ) -> Result<()> {
        let (mut raw, mut left, mut first, mut place) = (Vec::new(), 0, 0, 0);
        let mut adjacent = true;
        self.entries(stream, from, &mut |slot, at, entry| {
            if byte(entry, 0) == entry_type::FILE {
                (left, first, place, adjacent) = (byte(entry, 1), slot, at, true);
                raw.clear();
                raw.extend(entry);
                return Ok(true);
            }
            if left == 0 || byte(entry, 0) & 0xC0 != 0xC0 {
                left = 0;
                return Ok(true);
            }
            adjacent &= place + raw.len() as u64 == at;
            raw.extend(entry);
            left -= 1;
            let Some(set) = FileSet::parse(&raw).filter(|_| left == 0) else { return Ok(true) };
            let place = place / ENTRY as u64;
            self.note_scattered(number, first, place, adjacent);
            Ok(visit(Found { set, slot: first, place }, slot + 1))
        })
    }

    /// Remembers sets that cannot be found, or not be changed, from their place alone.
    pub(crate) fn note_scattered(&self, number: u64, slot: u32, place: u64, adjacent: bool) {
        let mut scattered = self.scattered.lock().unwrap_or_else(PoisonError::into_inner);
        if adjacent && !self.is_divided(place) {
            scattered.remove(&place);
        } else if scattered.len() < SCATTERED_MAX {
            scattered.insert(place, (number, slot));
        }
    }

    /// True if the first two entries of a set that begins there are in two sectors.
    pub(crate) fn is_divided(&self, place: u64) -> bool {
        let slots = u64::from(self.sector_slots());
        place % slots == slots - 1
    }

    /// The hash by which a directory's index finds a name.
    pub(crate) fn hash(&self, units: &[u16]) -> u64 {
        let folded = self.upcase.fold(units);
        let directories = self.directories.lock().unwrap_or_else(PoisonError::into_inner);
        directories.hasher.hash_one(folded)
    }

    /// The index of a directory; made when it is not known.
    pub(crate) fn index(&self, number: u64, stream: Stream) -> Result<Arc<Directory>> {
        let directories = self.directories.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(directory) = directories.known.get(&stream.start) {
            return Ok(directory.clone());
        }
        drop(directories);
        let directory = Arc::new(self.make_index(number, stream)?);
        let mut directories = self.directories.lock().unwrap_or_else(PoisonError::into_inner);
        if directories.names + directory.names.len() > NAMES_MAX {
            directories.known.clear();
            directories.names = 0;
        }
        if stream.start != 0 {
            directories.names += directory.names.len();
            directories.known.insert(stream.start, directory.clone());
        }
        Ok(directory)
    }

    fn make_index(&self, number: u64, stream: Stream) -> Result<Directory> {
        let size = stream.size.min(DIRECTORY_MAX);
        let runs = self.runs(Stream { size, ..stream })?;
        let clusters = u64::from(length(&runs)) * self.geometry.cluster;
        let slots = (clusters.min(size) / ENTRY as u64) as u32;
        let mut names = HashMap::new();
        self.scan(number, stream, 0, &mut |found, _| {
            names.entry(self.hash(&found.set.name())).or_insert(found.slot);
            true
        })?;
        let sector_slots = self.sector_slots();
        let mut rooms = vec![sector_slots as u8; slots.div_ceil(sector_slots) as usize];
        let (mut end, mut run) = (0, 0_u8);
        self.entries(stream, 0, &mut |slot, _, raw| {
            end = slot + 1;
            let Some(room) = rooms.get_mut((slot / sector_slots) as usize) else { return Ok(true) };
            if slot.is_multiple_of(sector_slots) {
                (*room, run) = (0, 0);
            }
            run = if byte(raw, 0) & IN_USE == 0 { run + 1 } else { 0 };
            *room = (*room).max(run);
            Ok(true)
        })?;
        let mut directory = Directory {
            runs,
            slots,
            sector_slots,
            end,
            room: Vec::new(),
            hints: [0; ROOM_MAX + 1],
            names,
        };
        // The sector with the end: what is behind that is free, too.
        if !end.is_multiple_of(sector_slots)
            && let Some(room) = rooms.get_mut((end / sector_slots) as usize)
        {
            *room = (*room).max(run + (sector_slots - end % sector_slots) as u8);
        }
        directory.room = rooms;
        Ok(directory)
    }

    /// Changes what is known of a directory, if anything is.
    pub(crate) fn change_index(&mut self, start: u32, work: &mut dyn FnMut(&mut Directory)) {
        let directories = self.directories.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(directory) = directories.known.get_mut(&start) {
            work(Arc::make_mut(directory));
        }
    }

    /// Forgets a directory that is no more.
    pub(crate) fn forget_index(&mut self, start: u32) {
        let directories = self.directories.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(directory) = directories.known.remove(&start) {
            directories.names = directories.names.saturating_sub(directory.names.len());
        }
    }

    /// The type of the entry in a slot.
    pub(crate) fn slot_type(&self, directory: &Directory, slot: u32) -> Result<u8> {
        let place = self.slot_place(&directory.runs, slot)?;
        let (page, within) = self.pages.page(place)?;
        Ok(byte(&page, within))
    }

    /// True if a slot can be used now.
    pub(crate) fn is_free_slot(
        &self,
        start: u32,
        directory: &Directory,
        slot: u32,
    ) -> Result<bool> {
        Ok(slot >= directory.end
            || self.slot_type(directory, slot)? & IN_USE == 0
                && !self.dead.contains(&(start, slot)))
    }

    /// Measures the room in some sectors of a directory anew.
    pub(crate) fn measure(
        &mut self,
        start: u32,
        sectors: std::ops::RangeInclusive<u32>,
    ) -> Result<()> {
        for sector in sectors {
            let directories = self.directories.get_mut().unwrap_or_else(PoisonError::into_inner);
            let Some(directory) = directories.known.get(&start).cloned() else { return Ok(()) };
            let from = sector * directory.sector_slots;
            let (mut run, mut room) = (0, 0);
            for slot in from..(from + directory.sector_slots).min(directory.slots) {
                let free = self.is_free_slot(start, &directory, slot)?;
                run = if free { run + 1 } else { 0 };
                room = room.max(run);
            }
            // Or the change would be made to a copy.
            drop(directory);
            self.change_index(start, &mut |directory| directory.set_room(sector, room));
        }
        Ok(())
    }

    /// The file with that name.
    pub(crate) fn find(&self, number: u64, stream: Stream, units: &[u16]) -> Result<Option<Found>> {
        let directory = self.index(number, stream)?;
        let Some(slot) = directory.names.get(&self.hash(units)) else { return Ok(None) };
        let place = self.slot_place(&directory.runs, *slot)?;
        let set = self.set_at(place / ENTRY as u64, Some((&directory.runs, *slot)))?;
        Ok(Some(Found { set, slot: *slot, place: place / ENTRY as u64 }))
    }

    /// The set that begins at a place; where it lies in its directory, if that is known.
    pub(crate) fn set_at(&self, place: u64, known: Option<(&[Run], u32)>) -> Result<FileSet> {
        let at = place.checked_mul(ENTRY as u64).ok_or_else(errors::stale)?;
        let (start, end) = (self.geometry.place(2), self.geometry.place(self.end()));
        if !(start..end).contains(&at) {
            return Err(errors::stale());
        }
        let (page, within) = self.pages.page(at)?;
        let count = usize::from(byte(&page, within + 1)) + 1;
        let mut raw = vec![0; count * ENTRY];
        for (index, entry) in raw.chunks_exact_mut(ENTRY).enumerate() {
            let place = match known {
                Some((runs, slot)) => self.slot_place(runs, slot + index as u32)?,
                None => at + (index * ENTRY) as u64,
            };
            if !(start..end).contains(&place) {
                return Err(errors::stale());
            }
            self.pages.read(place, entry)?;
        }
        FileSet::parse(&raw).ok_or_else(errors::stale)
    }

    /// True if a directory has no entries in use.
    pub(crate) fn is_empty(&self, stream: Stream) -> Result<bool> {
        let mut empty = true;
        self.entries(stream, 0, &mut |_, _, raw| {
            empty = byte(raw, 0) & IN_USE == 0;
            Ok(empty)
        })?;
        Ok(empty)
    }
}
