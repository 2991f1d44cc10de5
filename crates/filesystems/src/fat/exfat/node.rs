//! Files by number.

use std::sync::{Arc, PoisonError};

use disksmith_disk::Result;

use super::super::chain::length;
use super::super::identity::Whereabouts;
use super::super::layout::attribute;
use super::super::node::Stamp;
use super::ROOT;
use super::directory::Directory;
use super::layout::{DIRECTORY_MAX, ENTRY};
use super::set::{FileSet, Stream};
use super::volume::Volume;
use crate::{Time, errors};

/// A file and its set of entries.
pub(crate) type Node = super::super::node::Node<FileSet>;

impl Volume {
    /// The file with that number. The root directory has no set: one is made up for it.
    pub(crate) fn node(&self, number: u64) -> Result<Node> {
        if number == ROOT {
            return self.root_node();
        }
        let whereabouts = self.identities().find(number);
        match whereabouts {
            Whereabouts::Unlinked(set) => Ok(Node { number, entry: set, place: None }),
            Whereabouts::Place(place) => {
                let set = self.set_of(place)?;
                Ok(Node { number, entry: set, place: Some(place) })
            }
        }
    }

    fn root_node(&self) -> Result<Node> {
        let clusters = length(&self.runs(self.root_stream())?);
        let size = u64::from(clusters) * self.geometry.cluster;
        let mut set =
            FileSet::new(&[0x2F], &[0x2F], attribute::DIRECTORY, Time::from_seconds(315_532_800));
        let stream = Stream { start: self.geometry.root, size, contiguous: false };
        set.set_stream(stream, size);
        Ok(Node { number: ROOT, entry: set, place: None })
    }

    /// The directory and slot of a set that is remembered because its place says too little.
    pub(crate) fn scattered_at(&self, place: u64) -> Option<(u64, u32)> {
        self.scattered.lock().unwrap_or_else(PoisonError::into_inner).get(&place).copied()
    }

    fn set_of(&self, place: u64) -> Result<FileSet> {
        if let Some((number, slot)) = self.scattered_at(place)
            && let Ok(directory) = self.index_of(number)
            && let Ok(at) = self.slot_place(&directory.runs, slot)
            && at == place * ENTRY as u64
        {
            return self.set_at(place, Some((&directory.runs, slot)));
        }
        self.set_at(place, None)
    }

    /// The index of the directory with that number.
    pub(crate) fn index_of(&self, number: u64) -> Result<Arc<Directory>> {
        self.index(number, self.directory_stream(number)?)
    }

    /// Where the directory with that number lies.
    pub(crate) fn directory_stream(&self, number: u64) -> Result<Stream> {
        if number == ROOT {
            return Ok(self.root_stream());
        }
        directory_of(&self.node(number)?)
    }

    /// The content of a directory changed. (The root has no set to note it in.)
    pub(crate) fn touch_directory(&mut self, number: u64) -> Result<()> {
        let mut node = self.node(number)?;
        if node.place.is_some() {
            let now = self.now();
            node.entry.set_time(Stamp::Modified, now);
            self.put_node(&mut node)?;
        }
        Ok(())
    }
}

/// Where a directory's entries are.
pub(crate) fn directory_of(node: &Node) -> Result<Stream> {
    match node.entry.is_directory() {
        true => {
            let stream = node.entry.stream();
            Ok(Stream { size: stream.size.min(DIRECTORY_MAX), ..stream })
        }
        false => Err(errors::not_a_directory()),
    }
}
