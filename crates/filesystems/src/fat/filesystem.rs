//! An open FAT volume.

use std::sync::{Arc, MutexGuard};

use disksmith_disk::{Disk, Result};

use super::chain;
use super::content::Node;
use super::core::Core;
use super::identity::Identities;
use super::interface::{FatVolume, ListVisit, Opened, set_dos_attributes};
use super::label;
use super::layout::DirEntry;
use super::node::{FileEntry, Stamp};
use super::shared::{Committed, Shared};
use crate::{NewFile, Rename, Time};

/// An open FAT12, FAT16 or FAT32 volume.
///
/// FAT keeps neither owners nor permissions: files belong to root and are `rwxr-xr-x`, without `w`
/// where the read-only attribute is set (as Linux shows them by default).
#[derive(Debug)]
pub struct Fat {
    open: Shared<Core>,
}

impl Fat {
    /// Opens the volume on `disk`. Nothing is written before something changes; then it is marked
    /// as in use until [`close`](crate::Filesystem::close).
    pub fn open(disk: Arc<dyn Disk>, read_only: bool) -> Result<Self> {
        let core = Core::open(disk, read_only)?;
        Ok(Self { open: Shared::new(core) })
    }

    /// Lets every change bear this time instead of the clock's.
    pub fn set_clock(&self, time: Option<Time>) {
        self.open.write().volume.clock = time;
    }

    /// The attributes of a file as FAT numbers them: read-only 1, hidden 2, system 4, directory
    /// 16, archive 32.
    pub fn dos_attributes(&self, inode: u64) -> Result<u8> {
        Ok(self.open.read().volume.node(inode)?.entry.attributes())
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

impl Opened for Fat {
    type Volume = Core;

    fn shared(&self) -> &Shared<Core> {
        &self.open
    }
}

impl Committed for Core {
    fn check_writable(&self) -> Result<()> {
        self.check_writable()
    }

    fn has_pending_space(&self) -> bool {
        self.transaction.frees_space()
    }

    fn weight(&self) -> usize {
        self.transaction.weight()
    }

    fn give_up(&mut self) {
        self.failed = true;
    }

    fn commit(&mut self) -> Result<()> {
        self.commit()
    }
}

impl FileEntry for DirEntry {
    fn attributes(&self) -> u8 {
        self.attributes()
    }

    fn set_attributes(&mut self, attributes: u8) {
        self.set_attributes(attributes);
    }

    fn time(&self, which: Stamp) -> Option<Time> {
        match which {
            Stamp::Created => self.created(),
            Stamp::Modified => self.modified(),
            Stamp::Accessed => self.accessed(),
        }
    }

    fn set_time(&mut self, which: Stamp, time: Time) {
        match which {
            Stamp::Created => self.set_created(time),
            Stamp::Modified => self.set_modified(time),
            Stamp::Accessed => self.set_accessed(time),
        }
    }
}

impl FatVolume for Core {
    type File = DirEntry;

    const TYPE: &'static str = "vfat";
    const NAME: &'static str = "FAT";

    fn label(&self) -> Vec<u8> {
        label::of(self).unwrap_or_default()
    }

    fn serial(&self) -> Option<u32> {
        self.boot.serial()
    }

    fn is_read_only(&self) -> bool {
        self.read_only
    }

    fn now(&self) -> Time {
        self.now()
    }

    fn cluster_size(&self) -> u64 {
        self.shape.cluster_size()
    }

    fn clusters(&self) -> Result<(u32, u32)> {
        Ok((self.shape.clusters, self.free_clusters()?))
    }

    fn identities(&self) -> MutexGuard<'_, Identities> {
        self.identities()
    }

    fn node(&self, number: u64) -> Result<Node> {
        self.node(number)
    }

    fn lookup(&self, directory: u64, name: &[u8]) -> Result<Node> {
        self.lookup(directory, name)
    }

    fn length(&self, node: &Node) -> Result<u64> {
        if !node.entry.is_directory() {
            return Ok(node.entry.size().into());
        }
        match (self.directory_start(node)?, self.shape.fixed_root()) {
            (0, Some(root)) => Ok(root.end - root.start),
            (start, _) => {
                let clusters = u64::from(chain::length(&self.chain(start)?));
                Ok(clusters * self.shape.cluster_size())
            }
        }
    }

    fn list(&self, directory: u64, from: u32, visit: &mut ListVisit<'_, DirEntry>) -> Result<()> {
        self.scan(self.directory_of(directory)?, from, &mut |found| {
            let number = self.number_of(directory, &found);
            visit(number, &found.entry, &found.units, found.slot.saturating_add(1))
        })
    }

    fn read_content(&self, node: &Node, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        self.read_content(node, offset, buffer)
    }

    fn begin(&mut self) -> Result<()> {
        self.begin()
    }

    fn put_node(&mut self, node: &mut Node) -> Result<()> {
        Self::put_node(self, node)
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

    fn free_content(&mut self, entry: &DirEntry) -> Result<()> {
        self.free_content(entry)
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

    /// The mark that it is in use stays until the end.
    fn synced(&mut self) -> Result<()> {
        Ok(())
    }

    fn shut_down(&mut self) -> Result<()> {
        self.shut_down()
    }
}
