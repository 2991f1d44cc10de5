//! Names come and go: create, remove, rename.

use disksmith_disk::Result;

use super::super::interface::is_directory;
use super::super::layout::attribute;
use super::super::name;
use super::super::node::FileEntry as _;
use super::ROOT;
use super::directory::Found;
use super::node::{Node, directory_of};
use super::set::{FileSet, Stream};
use super::volume::Volume;
use crate::{NewFile, Rename, errors};

/// Entries that a set can have: the count of those behind the first has 8 bits.
const ENTRIES_MAX: u32 = 256;

impl Volume {
    /// The number of a file that was found, its directory noted.
    pub(crate) fn number_of(&self, directory: u64, found: &Found) -> u64 {
        let mut identities = self.identities();
        let number = identities.number_at(found.place);
        if found.set.is_directory() {
            identities.set_parent(number, directory);
        }
        number
    }

    /// The file with that name; `.` and `..` too.
    pub(crate) fn lookup(&self, directory: u64, name: &[u8]) -> Result<Node> {
        let stream = self.directory_stream(directory)?;
        match name {
            b"." => self.node(directory),
            b".." => {
                let parent = self.identities().parent(directory);
                self.node(parent.ok_or_else(errors::stale)?)
            }
            _ => {
                // What exFAT cannot hold is not there.
                let units = name::to_units(name).ok_or_else(errors::not_found)?;
                let found = self.find(directory, stream, &units)?.ok_or_else(errors::not_found)?;
                let number = self.number_of(directory, &found);
                Ok(Node { number, entry: found.set, place: Some(found.place) })
            }
        }
    }

    /// A directory that still has a name: in others nothing can be made.
    fn living_directory(&self, number: u64) -> Result<Stream> {
        let node = self.node(number)?;
        if number == ROOT {
            return Ok(self.root_stream());
        }
        match node.place {
            Some(_) => directory_of(&node),
            None => Err(errors::not_found()),
        }
    }

    /// A name that goes at the next commit must be gone before it comes again.
    fn settle_name(&mut self, stream: Stream, units: &[u16]) -> Result<()> {
        match self.dead_names.contains(&(stream.start, self.hash(units))) {
            true => self.commit(),
            false => Ok(()),
        }
    }

    /// Makes an empty file or directory.
    pub(crate) fn create(&mut self, directory: u64, name: &[u8], file: &NewFile) -> Result<Node> {
        let stream = self.living_directory(directory)?;
        let is_directory = is_directory::<Self>(file.kind)?;
        let units = name::encode(name, "exFAT")?;
        if matches!(name, b"." | b"..") || self.find(directory, stream, &units)?.is_some() {
            return Err(errors::exists());
        }
        self.begin()?;
        self.settle_name(stream, &units)?;
        let attributes = if is_directory { attribute::DIRECTORY } else { attribute::ARCHIVE };
        let now = self.now();
        let mut set = FileSet::new(&units, &self.upcase.fold(&units), attributes, now);
        set.set_mode(file.mode);
        if is_directory {
            let content = self.new_directory()?;
            set.set_stream(content, content.size);
        }
        let place = match self.add_set(directory, &set) {
            Ok(place) => place,
            Err(error) => {
                // Nothing leads to the clusters: the next commit frees them.
                self.free_content(&set)?;
                return Err(error);
            }
        };
        self.touch_directory(directory)?;
        let mut identities = self.identities();
        let number = identities.number_at(place);
        if is_directory {
            identities.set_parent(number, directory);
        }
        drop(identities);
        Ok(Node { number, entry: set, place: Some(place) })
    }

    /// The first cluster of a new directory.
    fn new_directory(&mut self) -> Result<Stream> {
        let mut stream = Stream::default();
        let cluster = self.geometry.cluster;
        let runs = self.grow(&mut stream, cluster)?;
        if let Some((place, _)) = self.locate(&runs, 0) {
            self.pages.clear_fresh(place, cluster)?;
        }
        Ok(stream)
    }

    /// Removes a name. `is_directory`: of an empty directory, else of a file.
    pub(crate) fn remove(&mut self, directory: u64, name: &[u8], is_directory: bool) -> Result<()> {
        let stream = self.directory_stream(directory)?;
        if matches!(name, b"." | b"..") {
            return Err(errors::invalid());
        }
        let units = name::to_units(name).ok_or_else(errors::not_found)?;
        let found = self.find(directory, stream, &units)?.ok_or_else(errors::not_found)?;
        match (is_directory, found.set.is_directory()) {
            (true, false) => return Err(errors::not_a_directory()),
            (false, true) => return Err(errors::is_a_directory()),
            (true, true) if !self.is_empty(found.set.stream())? => {
                return Err(errors::not_empty());
            }
            _ => {}
        }
        // What cannot be freed is not removed.
        self.all_runs(&found.set)?;
        self.begin()?;
        self.remove_set(directory, &found)?;
        self.touch_directory(directory)?;
        self.drop_file(&found)
    }

    /// A file lost its name: unless it is held, its clusters become free.
    fn drop_file(&mut self, found: &Found) -> Result<()> {
        let mut identities = self.identities();
        let number = identities.number_at(found.place);
        let lives = identities.unlinked(number, found.set.clone());
        drop(identities);
        if lives { Ok(()) } else { self.free_content(&found.set) }
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
            return Err(errors::invalid().context("exFAT can neither exchange names nor hide them"));
        }
        let (source, target) = (self.directory_stream(from)?, self.living_directory(to)?);
        let old = name::to_units(old).ok_or_else(errors::not_found)?;
        let found = self.find(from, source, &old)?.ok_or_else(errors::not_found)?;
        let units = name::encode(new, "exFAT")?;
        let there = self.find(to, target, &units)?;
        let number = self.number_of(from, &found);
        if found.set.is_directory() {
            self.identities().refuse_inside(number, to)?;
        }
        match there {
            Some(there) if there.place == found.place => {
                self.begin()?;
                self.respell((from, &found), to, number, &units)?;
            }
            Some(_) if how == Rename::NoReplace => return Err(errors::exists()),
            Some(there) => {
                self.check_replaceable(&found, &there)?;
                self.begin()?;
                self.replace((from, &found), (to, &there), number)?;
            }
            None => {
                self.begin()?;
                self.settle_name(target, &units)?;
                self.respell((from, &found), to, number, &units)?;
            }
        }
        if found.set.is_directory() {
            self.identities().set_parent(number, to);
        }
        self.touch_directory(from)?;
        self.touch_directory(to)
    }

    fn check_replaceable(&self, found: &Found, there: &Found) -> Result<()> {
        match (found.set.is_directory(), there.set.is_directory()) {
            (true, false) => return Err(errors::not_a_directory()),
            (false, true) => return Err(errors::is_a_directory()),
            (true, true) if !self.is_empty(there.set.stream())? => {
                return Err(errors::not_empty());
            }
            _ => {}
        }
        // What cannot be freed is not replaced.
        self.all_runs(&there.set).map(drop)
    }

    /// Another name, in place where that can be, else the new set first, then the old one goes.
    /// In between the file is there twice; the other order would lose it.
    fn respell(
        &mut self,
        (from, found): (u64, &Found),
        to: u64,
        number: u64,
        units: &[u16],
    ) -> Result<()> {
        let mut set = found.set.clone();
        set.rename(units, &self.upcase.fold(units));
        if from == to && self.replace_set(from, found, &set)? {
            return Ok(());
        }
        self.move_set((from, found), to, number, &set)
    }

    fn move_set(
        &mut self,
        (from, found): (u64, &Found),
        to: u64,
        number: u64,
        set: &FileSet,
    ) -> Result<()> {
        if set.entries() > ENTRIES_MAX {
            return Err(errors::name_too_long());
        }
        let place = self.add_set(to, set)?;
        self.remove_set(from, found)?;
        self.identities().moved(number, place);
        Ok(())
    }

    /// Over a name that is there: its set gets the other file's clusters at once, then the other
    /// name goes.
    fn replace(
        &mut self,
        (from, found): (u64, &Found),
        (to, there): (u64, &Found),
        number: u64,
    ) -> Result<()> {
        let mut set = there.set.clone();
        if set.has_extras() || found.set.has_extras() || self.is_divided(there.place) {
            // The name that is replaced stays as it is spelled.
            let units = set.name();
            set = found.set.clone();
            set.rename(&units, &self.upcase.fold(&units));
            self.move_set((from, found), to, number, &set)?;
            self.remove_set(to, there)?;
            return self.drop_file(there);
        }
        set.take_file(&found.set);
        self.store_head(there.place, &set)?;
        self.remove_set(from, found)?;
        self.drop_file(there)?;
        self.identities().moved(number, there.place);
        Ok(())
    }
}
