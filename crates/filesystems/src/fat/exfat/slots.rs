//! Sets come into directories, change and go. A set lies in one sector where it fits into one, and
//! its first two entries always do: what changes of a file, but for its name, is written at once.

use std::collections::HashSet;

use disksmith_disk::{Error, Kind, Result};

use super::super::chain::length;
use super::directory::{Directory, Found};
use super::layout::{DIRECTORY_MAX, ENTRY, IN_USE, UNUSED, entry_type};
use super::node::Node;
use super::pages::Stage;
use super::set::{FileSet, Stream};
use super::volume::Volume;

impl Volume {
    /// Puts a set into free slots of a directory; answers its place.
    pub(crate) fn add_set(&mut self, number: u64, set: &FileSet) -> Result<u64> {
        let (stream, first, place) = self.add_entries(number, &set.sealed())?;
        let name = self.hash(&set.name());
        self.change_index(stream.start, &mut |directory| {
            directory.names.insert(name, first);
        });
        self.dead_names.remove(&(stream.start, name));
        Ok(place)
    }

    /// Puts entries into free slots of a directory; answers the directory, the first slot, and its
    /// place.
    pub(crate) fn add_entries(&mut self, number: u64, raw: &[u8]) -> Result<(Stream, u32, u64)> {
        let count = (raw.len() / ENTRY) as u32;
        let (stream, first) = self.make_room(number, count)?;
        let directory = self.index(number, stream)?;
        let behind = first + count;
        self.clear_ahead(&directory, first, behind)?;
        // Slots that are skipped are free, not the end.
        for slot in directory.end..first {
            let place = self.slot_place(&directory.runs, slot)?;
            self.pages.store(Stage::Entry, place, &[UNUSED])?;
        }
        let place = self.store_entries(number, &directory, first, raw)?;
        let sectors = directory.sector(directory.end.min(first))..=directory.sector(behind - 1);
        drop(directory);
        self.change_index(stream.start, &mut |directory| {
            directory.end = directory.end.max(behind);
        });
        self.measure(stream.start, sectors)?;
        Ok((stream, first, place))
    }

    /// Writes entries that belong together: those in the first sector, and of those the first one,
    /// at last.
    fn store_entries(
        &mut self,
        number: u64,
        directory: &Directory,
        first: u32,
        raw: &[u8],
    ) -> Result<u64> {
        let sector = directory.sector(first);
        let place = self.slot_place(&directory.runs, first)?;
        let mut adjacent = true;
        for (index, entry) in raw.chunks_exact(ENTRY).enumerate().rev() {
            let slot = first + index as u32;
            let at = self.slot_place(&directory.runs, slot)?;
            adjacent &= place + (index * ENTRY) as u64 == at;
            let stage =
                if directory.sector(slot) == sector { Stage::Entry } else { Stage::Secondary };
            self.pages.store(stage, at, entry)?;
        }
        let place = place / ENTRY as u64;
        self.note_scattered(number, first, place, adjacent);
        Ok(place)
    }

    /// What was left behind the end of a directory, and would come to light, is made zero.
    fn clear_ahead(&mut self, directory: &Directory, first: u32, behind: u32) -> Result<()> {
        if behind < directory.end {
            return Ok(());
        }
        let from = match directory.sector(first) > directory.sector(directory.end) {
            true => first,
            false => behind,
        };
        let sector_end = (directory.sector(behind) + 1) * directory.sector_slots;
        for slot in from..sector_end.min(directory.slots) {
            if self.slot_type(directory, slot)? != entry_type::END {
                let place = self.slot_place(&directory.runs, slot)?;
                self.pages.store(Stage::Secondary, place, &[0; ENTRY])?;
            }
        }
        Ok(())
    }

    /// Free slots, one after the other; answers the directory as it is then.
    fn make_room(&mut self, number: u64, count: u32) -> Result<(Stream, u32)> {
        loop {
            let stream = self.directory_stream(number)?;
            let directory = self.index(number, stream)?;
            if let Some(slot) = self.find_room(stream.start, &directory, count)? {
                let sector = directory.sector(slot);
                drop(directory);
                self.change_index(stream.start, &mut |directory| {
                    directory.note_hint(count, sector);
                });
                return Ok((stream, slot));
            }
            let bytes = u64::from(length(&directory.runs) + 1) * self.geometry.cluster;
            if bytes > DIRECTORY_MAX.max(self.geometry.cluster) {
                return Err(Error::from_errno(28)
                    .with_kind(Kind::OutOfSpace)
                    .context("An exFAT directory has at most 256 MiB"));
            }
            drop(directory);
            self.grow_directory(number, stream)?;
        }
    }

    fn find_room(&self, start: u32, directory: &Directory, count: u32) -> Result<Option<u32>> {
        if count > directory.sector_slots {
            // A long name in small sectors: only at the end, its first two entries together.
            let last = directory.end % directory.sector_slots == directory.sector_slots - 1;
            let first = directory.end + u32::from(last);
            return Ok((first + count <= directory.slots).then_some(first));
        }
        let Some(sector) = directory.sector_with_room(count) else { return Ok(None) };
        let from = sector * directory.sector_slots;
        let mut run = 0;
        for slot in from..(from + directory.sector_slots).min(directory.slots) {
            run = if self.is_free_slot(start, directory, slot)? { run + 1 } else { 0 };
            if run == count {
                return Ok(Some(slot + 1 - count));
            }
        }
        Ok(None)
    }

    /// Gives a directory one more cluster.
    fn grow_directory(&mut self, number: u64, stream: Stream) -> Result<()> {
        let there = length(&self.runs(Stream { size: stream.size.min(DIRECTORY_MAX), ..stream })?);
        let cluster = self.geometry.cluster;
        let old = u64::from(there) * cluster;
        let mut longer = Stream { size: old, ..stream };
        let runs = self.grow(&mut longer, old + cluster)?;
        if let Some((place, _)) = self.locate(&runs, old) {
            self.pages.clear_fresh(place, cluster)?;
        }
        if number != super::ROOT {
            let mut node = self.node(number)?;
            node.entry.set_stream(longer, longer.size);
            self.put_node(&mut node)?;
        }
        let slots = ((old + cluster) / ENTRY as u64) as u32;
        self.change_index(stream.start, &mut |directory| directory.extend(runs.clone(), slots));
        Ok(())
    }

    /// Lets the slots of a set be free from the next commit on.
    pub(crate) fn remove_set(&mut self, number: u64, found: &Found) -> Result<()> {
        let stream = self.directory_stream(number)?;
        let directory = self.index(number, stream)?;
        let sector = directory.sector(found.slot);
        for slot in found.slot..found.slot + found.set.entries() {
            let place = self.slot_place(&directory.runs, slot)?;
            let kind = self.slot_type(&directory, slot)? & !IN_USE;
            // Without its first entry nobody looks at the others.
            let stage = if directory.sector(slot) == sector { Stage::Remove } else { Stage::Free };
            self.pages.store(stage, place, &[kind])?;
            self.dead.insert((stream.start, slot));
        }
        drop(directory);
        let name = self.hash(&found.set.name());
        self.dead_names.insert((stream.start, name));
        self.change_index(stream.start, &mut |directory| {
            if directory.names.get(&name) == Some(&found.slot) {
                directory.names.remove(&name);
            }
        });
        Ok(())
    }

    /// After a commit: slots that became free can be used.
    pub(crate) fn revive(&mut self, dead: &HashSet<(u32, u32)>) {
        let slots = self.sector_slots();
        let sectors: HashSet<(u32, u32)> =
            dead.iter().map(|(start, slot)| (*start, slot / slots)).collect();
        for (start, sector) in sectors {
            // What cannot be measured is not used.
            let _ = self.measure(start, sector..=sector);
        }
    }

    /// Changes a file's first two entries, which are in one sector.
    pub(super) fn store_head(&mut self, place: u64, set: &FileSet) -> Result<()> {
        let raw = set.sealed();
        let head = raw.get(..2 * ENTRY).unwrap_or(&[]);
        self.pages.store(Stage::Entry, place * ENTRY as u64, head)
    }

    /// Puts another set in the place of a file's, if it fits there and all of it is in one sector.
    pub(crate) fn replace_set(
        &mut self,
        number: u64,
        found: &Found,
        set: &FileSet,
    ) -> Result<bool> {
        let stream = self.directory_stream(number)?;
        let directory = self.index(number, stream)?;
        let (there, count) = (found.set.entries(), set.entries());
        let last = found.slot + there - 1;
        if count > there || directory.sector(found.slot) != directory.sector(last) {
            return Ok(false);
        }
        let mut raw = set.sealed();
        for _ in count..there {
            let mut unused = [0; ENTRY];
            crate::raw::put(&mut unused, 0, &[UNUSED]);
            raw.extend(unused);
        }
        self.pages.store(Stage::Entry, found.place * ENTRY as u64, &raw)?;
        let sector = directory.sector(found.slot);
        drop(directory);
        let (old, new) = (self.hash(&found.set.name()), self.hash(&set.name()));
        if old != new {
            // Until the commit, the disk has the old name.
            self.dead_names.insert((stream.start, old));
        }
        self.change_index(stream.start, &mut |directory| {
            if directory.names.get(&old) == Some(&found.slot) {
                directory.names.remove(&old);
            }
            directory.names.insert(new, found.slot);
        });
        self.measure(stream.start, sector..=sector)?;
        Ok(true)
    }

    /// Changes a file's set, in memory. One whose first two entries are in two sectors moves.
    pub(crate) fn put_node(&mut self, node: &mut Node) -> Result<()> {
        let Some(place) = node.place else {
            if node.number != super::ROOT {
                self.identities().put_unlinked(node.number, node.entry.clone());
            }
            return Ok(());
        };
        if !self.is_divided(place) {
            return self.store_head(place, &node.entry);
        }
        let (number, slot) = self.scattered_at(place).ok_or_else(crate::errors::stale)?;
        let found = Found { set: node.entry.clone(), slot, place };
        let place = self.add_set(number, &node.entry)?;
        self.remove_set(number, &found)?;
        self.identities().moved(node.number, place);
        node.place = Some(place);
        Ok(())
    }
}
