//! Names come and go: create, remove, rename.

use disksmith_disk::Result;

use super::content::Node;
use super::core::Core;
use super::directory::Found;
use super::identity::ROOT;
use super::interface::is_directory;
use super::layout::{DirEntry, ENTRY, attribute};
use super::name::{self, fold, short_text};
use super::node::FileEntry as _;
use crate::{NewFile, Rename, errors};

/// The entries of a new name, and the hashes under which it is found.
struct Named {
    entries: Vec<[u8; ENTRY]>,
    names: [u64; 2],
}

impl Core {
    /// The number of a file that was found, its directory noted.
    pub(crate) fn number_of(&self, directory: u64, found: &Found) -> u64 {
        let mut identities = self.identities();
        let number = identities.number_at(found.place);
        if found.entry.is_directory() {
            identities.set_parent(number, directory);
        }
        number
    }

    /// The file with that name; `.` and `..` too.
    pub(crate) fn lookup(&self, directory: u64, name: &[u8]) -> Result<Node> {
        let start = self.directory_of(directory)?;
        match name {
            b"." => self.node(directory),
            b".." => {
                let parent = self.identities().parent(directory);
                self.node(parent.ok_or_else(errors::stale)?)
            }
            _ => {
                // What FAT cannot hold is not there.
                let units = name::to_units(name).ok_or_else(errors::not_found)?;
                let found = self.find(start, &units)?.ok_or_else(errors::not_found)?;
                let number = self.number_of(directory, &found);
                Ok(Node { number, entry: found.entry, place: Some(found.place) })
            }
        }
    }

    /// The start of a directory that still has a name: in others nothing can be made.
    fn living_directory(&self, number: u64) -> Result<u32> {
        let node = self.node(number)?;
        match node.place.is_none() && number != ROOT {
            true => Err(errors::not_found()),
            false => self.directory_start(&node),
        }
    }

    /// The entries that give `entry` the name `units` in a directory; `except` is a file there
    /// whose own short name does not count.
    fn name_entry(
        &self,
        start: u32,
        units: &[u16],
        entry: &DirEntry,
        except: Option<&Found>,
    ) -> Result<Named> {
        let directory = self.directory(start)?;
        let own = except.map(|found| found.slot);
        let taken = |short: &[u8; 11]| {
            let owner = self.short_owner(&directory, short);
            owner.is_some() && owner != own
        };
        let exact = name::exact_short(units).filter(|(short, _)| !taken(short));
        let mut entry = *entry;
        let long = self.name_hash(units);
        if let Some((short, case)) = exact {
            entry.set_name(&short, case);
            return Ok(Named { entries: vec![entry.raw], names: [long, long] });
        }
        let short = name::numbered_short(units, &taken);
        let short = short.ok_or_else(errors::no_space)?;
        entry.set_name(&short, 0);
        let mut entries = name::long_entries(units, &short);
        entries.push(entry.raw);
        Ok(Named { entries, names: [long, self.name_hash(&short_text(&short, 0))] })
    }

    /// A name that goes with the transaction must be gone before it comes back.
    fn settle_name(&mut self, start: u32, units: &[u16]) -> Result<()> {
        let hash = self.name_hash(units);
        if self.transaction.dead_names.contains(&(start, hash)) {
            self.commit()?;
        }
        Ok(())
    }

    /// Answers the slot of the new entry and its place.
    fn add_named(&mut self, start: u32, named: &Named) -> Result<(u32, u64)> {
        for hash in named.names {
            if self.transaction.dead_names.contains(&(start, hash)) {
                self.commit()?;
            }
        }
        let slot = self.add_entries(start, &named.entries, &named.names)?;
        let at = self.directory(start)?.byte(slot).ok_or_else(errors::stale)?;
        Ok((slot, at / ENTRY as u64))
    }

    /// Makes a file or a directory.
    pub(crate) fn create(&mut self, directory: u64, name: &[u8], file: &NewFile) -> Result<Node> {
        let start = self.living_directory(directory)?;
        let units = name::encode(name, "FAT")?;
        if self.find(start, &units)?.is_some() {
            return Err(errors::exists());
        }
        let is_directory = is_directory::<Self>(file.kind)?;
        self.begin()?;
        self.settle_name(start, &units)?;
        let now = self.now();
        let attributes = if is_directory { attribute::DIRECTORY } else { attribute::ARCHIVE };
        let mut entry = DirEntry::new(b"           ", attributes);
        entry.set_created(now);
        entry.set_modified(now);
        entry.set_accessed(now);
        entry.set_mode(file.mode);
        if is_directory {
            entry.set_start(self.new_directory(start, &entry)?);
        }
        let named = self.name_entry(start, &units, &entry, None)?;
        let place = match self.add_named(start, &named) {
            Ok((_, place)) => place,
            Err(error) => {
                // Nothing leads to the clusters: the next commit frees them.
                self.free_content(&entry)?;
                return Err(error);
            }
        };
        self.touch_directory(directory)?;
        let last = named.entries.last().and_then(|raw| DirEntry::read(raw));
        let entry = last.unwrap_or(entry);
        let mut identities = self.identities();
        let number = identities.number_at(place);
        if is_directory {
            identities.set_parent(number, directory);
        }
        drop(identities);
        Ok(Node { number, entry, place: Some(place) })
    }

    /// The first cluster of a new directory, with `.` and `..` in it.
    fn new_directory(&mut self, parent: u32, entry: &DirEntry) -> Result<u32> {
        let runs = self.allocate(1, 0)?;
        let cluster = runs.first().map_or(0, |run| run.cluster);
        let size = super::chunk::chunk_size(&self.shape);
        let begin = self.shape.place(cluster);
        for at in (begin..begin + self.shape.cluster_size()).step_by(size as usize) {
            self.chunks.insert(at, size);
            self.transaction.unreached.insert(at);
        }
        let mut dot = *entry;
        dot.set_name(b".          ", 0);
        dot.set_attributes(attribute::DIRECTORY);
        dot.set_start(cluster);
        let mut dots = dot;
        dots.set_name(b"..         ", 0);
        dots.set_start(self.dotdot(parent));
        for (number, entry) in [dot, dots].into_iter().enumerate() {
            let at = begin + (number * ENTRY) as u64;
            let chunk = self.chunks.store(&*self.disk, &self.shape, at, &entry.raw)?;
            self.transaction.chunks.insert(chunk);
        }
        Ok(cluster)
    }

    /// What `..` says of a parent: 0 for the root, also where that has a cluster.
    pub(crate) fn dotdot(&self, parent: u32) -> u32 {
        if parent == self.shape.root_cluster { 0 } else { parent }
    }

    /// Removes a name. `is_directory`: of an empty directory, else of a file.
    pub(crate) fn remove(&mut self, directory: u64, name: &[u8], is_directory: bool) -> Result<()> {
        let start = self.directory_of(directory)?;
        if matches!(name, b"." | b"..") {
            return Err(errors::invalid());
        }
        let units = name::to_units(name).ok_or_else(errors::not_found)?;
        let found = self.find(start, &units)?.ok_or_else(errors::not_found)?;
        match (is_directory, found.entry.is_directory()) {
            (true, false) => return Err(errors::not_a_directory()),
            (false, true) => return Err(errors::is_a_directory()),
            (true, true)
                if !self.is_empty(self.check_start(found.entry.start(self.is_fat32()))?)? =>
            {
                return Err(errors::not_empty());
            }
            _ => {}
        }
        self.begin()?;
        self.remove_entries(start, &found)?;
        self.touch_directory(directory)?;
        self.drop_file(&found)
    }

    /// The content of a directory changed. (The root has no entry to note it in.)
    fn touch_directory(&mut self, number: u64) -> Result<()> {
        let mut node = self.node(number)?;
        if node.place.is_some() {
            let now = self.now();
            node.entry.set_modified(now);
            self.put_node(&node)?;
        }
        Ok(())
    }

    /// A file lost its name: unless it is held, its clusters become free.
    fn drop_file(&mut self, found: &Found) -> Result<()> {
        let mut identities = self.identities();
        let number = identities.number_at(found.place);
        let lives = identities.unlinked(number, found.entry);
        drop(identities);
        if lives { Ok(()) } else { self.free_content(&found.entry) }
    }

    /// Moves a name.
    pub(crate) fn rename(
        &mut self,
        from: u64,
        old: &[u8],
        to: u64,
        new: &[u8],
        how: Rename,
    ) -> Result<()> {
        if !matches!(how, Rename::Replace | Rename::NoReplace) {
            return Err(errors::invalid().context("FAT can neither exchange names nor hide them"));
        }
        let (start, target) = (self.directory_of(from)?, self.living_directory(to)?);
        let old = name::to_units(old).ok_or_else(errors::not_found)?;
        let found = self.find(start, &old)?.ok_or_else(errors::not_found)?;
        let units = name::encode(new, "FAT")?;
        let there = self.find(target, &units)?;
        let number = self.number_of(from, &found);
        if found.entry.is_directory() {
            self.identities().refuse_inside(number, to)?;
        }
        let done = match there {
            Some(there) if there.place == found.place => {
                if how == Rename::NoReplace && fold(&found.units) != fold(&units) {
                    return Err(errors::exists());
                }
                self.begin()?;
                self.respell(start, &found, number, &units)
            }
            Some(_) if how == Rename::NoReplace => Err(errors::exists()),
            Some(there) => {
                self.check_replaceable(&found, &there)?;
                self.begin()?;
                self.replace((start, &found), (to, target, &there), number)
            }
            None => {
                self.begin()?;
                self.settle_name(target, &units)?;
                match start == target {
                    true => self.respell(start, &found, number, &units),
                    false => self.relocate((start, &found), (to, target), number, &units),
                }
            }
        };
        done?;
        self.touch_directory(from)?;
        self.touch_directory(to)
    }

    fn check_replaceable(&self, found: &Found, there: &Found) -> Result<()> {
        match (found.entry.is_directory(), there.entry.is_directory()) {
            (true, false) => Err(errors::not_a_directory()),
            (false, true) => Err(errors::is_a_directory()),
            (true, true)
                if !self.is_empty(self.check_start(there.entry.start(self.is_fat32()))?)? =>
            {
                Err(errors::not_empty())
            }
            _ => Ok(()),
        }
    }

    /// Another name in the same directory: where the entry stays, nothing can go wrong.
    fn respell(&mut self, start: u32, found: &Found, number: u64, units: &[u16]) -> Result<()> {
        let named = self.name_entry(start, units, &found.entry, Some(found))?;
        for hash in named.names {
            if self.transaction.dead_names.contains(&(start, hash)) {
                self.commit()?;
            }
        }
        if self.replace_entries(start, found, &named.entries, named.names)? {
            return Ok(());
        }
        // With both names there for a moment, their short names must differ.
        let named = self.name_entry(start, units, &found.entry, None)?;
        let (slot, place) = self.add_named(start, &named)?;
        self.remove_entries(start, found)?;
        // Names that both have are the new one's.
        self.give_names(start, named.names, slot);
        self.identities().moved(number, place);
        Ok(())
    }

    /// To another directory: the new entry first, then the old one goes. In between the file is
    /// there twice; the other order would lose it, and with a directory all that is in it.
    fn relocate(
        &mut self,
        (start, found): (u32, &Found),
        (to, target): (u64, u32),
        number: u64,
        units: &[u16],
    ) -> Result<()> {
        let named = self.name_entry(target, units, &found.entry, None)?;
        let (_, place) = self.add_named(target, &named)?;
        self.remove_entries(start, found)?;
        self.identities().moved(number, place);
        self.adopt(found, number, to, target)
    }

    /// A directory that moved has another parent.
    fn adopt(&mut self, found: &Found, number: u64, to: u64, target: u32) -> Result<()> {
        if !found.entry.is_directory() {
            return Ok(());
        }
        self.identities().set_parent(number, to);
        let own = self.check_start(found.entry.start(self.is_fat32()))?;
        let mut place = None;
        self.scan_slots(own, 0, &mut |entry, _, _, at, _| {
            if &entry.name() == b"..         " {
                place = Some((entry, at));
            }
            place.is_none()
        })?;
        if let Some((mut entry, at)) = place {
            entry.set_start(self.dotdot(target));
            let at = at * ENTRY as u64;
            let chunk = self.chunks.store(&*self.disk, &self.shape, at, &entry.raw)?;
            self.transaction.chunks.insert(chunk);
        }
        Ok(())
    }

    /// Over a name that is there: its entry gets the other file's clusters at once, and after that
    /// the other name goes. In between the file is there twice; the other order would lose it.
    fn replace(
        &mut self,
        (start, found): (u32, &Found),
        (to, target, there): (u64, u32, &Found),
        number: u64,
    ) -> Result<()> {
        self.remove_entries(start, found)?;
        let mut entry = found.entry;
        entry.set_name(&there.entry.name(), there.entry.case());
        self.drop_file(there)?;
        self.put_node(&Node { number, entry, place: Some(there.place) })?;
        self.identities().moved(number, there.place);
        self.adopt(found, number, to, target)
    }
}
