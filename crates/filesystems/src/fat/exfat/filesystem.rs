//! An open exFAT volume.

use std::sync::{Arc, MutexGuard};

use disksmith_disk::{Disk, Result};

use super::super::identity::Identities;
use super::super::interface::{FatVolume, ListVisit, Opened, set_dos_attributes};
use super::super::node::{FileEntry, Stamp};
use super::super::shared::{Committed, Shared};
use super::layout::VOLUME_DIRTY;
use super::node::Node;
use super::set::FileSet;
use super::volume::Volume;
use crate::{NewFile, Rename, Time};

/// An open exFAT volume.
///
/// exFAT keeps neither owners nor permissions: files belong to root and are `rwxr-xr-x`, without
/// `w` where the read-only attribute is set (as Linux shows them by default).
#[derive(Debug)]
pub struct Exfat {
    open: Shared<Volume>,
}

impl Exfat {
    /// Opens the volume on `disk`. Nothing is written before something changes; then it is marked
    /// as in use until [`sync`](crate::Filesystem::sync) or [`close`](crate::Filesystem::close).
    /// Volumes with two FATs (TexFAT) can be opened to be read only.
    pub fn open(disk: Arc<dyn Disk>, read_only: bool) -> Result<Self> {
        let volume = Volume::open(disk, read_only)?;
        Ok(Self { open: Shared::new(volume) })
    }

    /// True if the volume is marked as in use.
    pub fn is_dirty(&self) -> bool {
        self.open.read().volume.geometry.flags & VOLUME_DIRTY != 0
    }

    /// Lets every change bear this time instead of the clock's.
    pub fn set_clock(&self, time: Option<Time>) {
        self.open.write().volume.clock = time;
    }

    /// The attributes of a file: read-only 1, hidden 2, system 4, directory 16, archive 32.
    pub fn dos_attributes(&self, inode: u64) -> Result<u8> {
        Ok(FileEntry::attributes(&self.open.read().volume.node(inode)?.entry))
    }

    /// Sets read-only, hidden, system and archive of a file.
    pub fn set_dos_attributes(&self, inode: u64, attributes: u8) -> Result<()> {
        set_dos_attributes(&self.open, inode, attributes)
    }

    /// Commits only when told: for filling a volume that nobody relies on yet.
    pub(crate) fn commit_rarely(&self) {
        self.open.commit_rarely();
    }
}

impl Opened for Exfat {
    type Volume = Volume;

    fn shared(&self) -> &Shared<Volume> {
        &self.open
    }
}

impl Committed for Volume {
    fn check_writable(&self) -> Result<()> {
        self.check_writable()
    }

    fn has_pending_space(&self) -> bool {
        !self.frees.is_empty() || !self.dead.is_empty()
    }

    fn weight(&self) -> usize {
        self.pages.weight()
    }

    fn give_up(&mut self) {
        self.pages.failed = true;
    }

    fn commit(&mut self) -> Result<()> {
        self.commit()
    }
}

impl FileEntry for FileSet {
    /// The lower half of `FileAttributes`; nothing is defined in the upper one.
    fn attributes(&self) -> u8 {
        self.attributes() as u8
    }

    fn set_attributes(&mut self, attributes: u8) {
        self.set_attributes(self.attributes() & 0xFF00 | u16::from(attributes));
    }

    fn time(&self, which: Stamp) -> Option<Time> {
        self.time(which)
    }

    fn set_time(&mut self, which: Stamp, time: Time) {
        self.set_time(which, time);
    }
}

impl FatVolume for Volume {
    type File = FileSet;

    const TYPE: &'static str = "exfat";
    const NAME: &'static str = "exFAT";

    fn label(&self) -> Vec<u8> {
        self.label.clone()
    }

    fn serial(&self) -> Option<u32> {
        Some(self.geometry.serial)
    }

    fn is_read_only(&self) -> bool {
        self.read_only
    }

    fn now(&self) -> Time {
        self.now()
    }

    fn cluster_size(&self) -> u64 {
        self.geometry.cluster
    }

    fn clusters(&self) -> Result<(u32, u32)> {
        Ok((self.geometry.clusters, self.free_clusters()?))
    }

    fn identities(&self) -> MutexGuard<'_, Identities<FileSet>> {
        self.identities()
    }

    fn node(&self, number: u64) -> Result<Node> {
        self.node(number)
    }

    fn lookup(&self, directory: u64, name: &[u8]) -> Result<Node> {
        self.lookup(directory, name)
    }

    fn length(&self, node: &Node) -> Result<u64> {
        Ok(node.entry.size())
    }

    fn list(&self, directory: u64, from: u32, visit: &mut ListVisit<'_, FileSet>) -> Result<()> {
        let stream = self.directory_stream(directory)?;
        self.scan(directory, stream, from, &mut |found, behind| {
            let number = self.number_of(directory, &found);
            visit(number, &found.set, &found.set.name(), behind)
        })
    }

    fn read_content(&self, node: &Node, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        self.read_content(node, offset, buffer)
    }

    fn begin(&mut self) -> Result<()> {
        self.begin()
    }

    fn put_node(&mut self, node: &mut Node) -> Result<()> {
        self.put_node(node)
    }

    fn write_content(&mut self, node: &mut Node, offset: u64, data: &[u8]) -> Result<()> {
        self.write_content(node, offset, data)
    }

    fn zero_content(&mut self, node: &Node, offset: u64, to: u64) -> Result<()> {
        self.zero_content(node, offset, to)
    }

    fn resize_content(&mut self, node: &mut Node, size: u64) -> Result<()> {
        self.resize_content(node, size)
    }

    fn free_content(&mut self, set: &FileSet) -> Result<()> {
        self.free_content(set)
    }

    fn create(&mut self, directory: u64, name: &[u8], file: &NewFile) -> Result<Node> {
        self.create(directory, name, file)
    }

    fn remove(&mut self, directory: u64, name: &[u8], is_directory: bool) -> Result<()> {
        self.remove(directory, name, is_directory)
    }

    fn rename(&mut self, from: u64, old: &[u8], to: u64, new: &[u8], how: Rename) -> Result<()> {
        self.rename(from, old, to, new, how)
    }

    /// The mark that it is in use goes.
    fn synced(&mut self) -> Result<()> {
        self.settle()
    }

    fn shut_down(&mut self) -> Result<()> {
        self.settle()
    }
}
