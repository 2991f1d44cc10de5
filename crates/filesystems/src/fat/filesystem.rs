//! The filesystem interface over an open FAT volume.

use std::sync::Arc;

use disksmith_disk::{Disk, Result};

use super::chain;
use super::content::Node;
use super::core::Core;
use super::identity::ROOT;
use super::layout::attribute;
use super::namespace::{refused, set_mode};
use super::shared::{Committed, Shared};
use super::{label, name};
use crate::{
    Attributes, Changes, Device, Entry, Fallocate, FileKind, Filesystem, NewFile, Rename,
    Statistics, Time, errors,
};

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
    /// as in use until [`close`](Filesystem::close).
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
        const OURS: u8 =
            attribute::READ_ONLY | attribute::HIDDEN | attribute::SYSTEM | attribute::ARCHIVE;
        self.open.change(|core| {
            let mut node = core.node(inode)?;
            core.begin()?;
            let kept = node.entry.attributes() & !OURS;
            node.entry.set_attributes(kept | attributes & OURS);
            core.put_node(&node)
        })
    }

    /// Commits only when told: for filling a volume that nobody relies on yet.
    pub(crate) fn commit_rarely(&self) {
        self.open.commit_rarely();
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

/// What a file says, in the interface's terms.
fn attributes_of(core: &Core, node: &Node) -> Result<Attributes> {
    let entry = &node.entry;
    let is_directory = entry.is_directory();
    let cluster = core.shape.cluster_size();
    let size = if is_directory {
        match (core.directory_start(node)?, core.shape.fixed_root()) {
            (0, Some(root)) => root.end - root.start,
            (start, _) => u64::from(chain::length(&core.chain(start)?)) * cluster,
        }
    } else {
        entry.size().into()
    };
    let writable = is_directory || entry.attributes() & attribute::READ_ONLY == 0;
    let modified = entry.modified().unwrap_or_default();
    Ok(Attributes {
        inode: node.number,
        kind: if is_directory { FileKind::Directory } else { FileKind::Regular },
        mode: if writable { 0o755 } else { 0o555 },
        links: 1,
        uid: 0,
        gid: 0,
        size,
        blocks: size.next_multiple_of(cluster) / 512,
        device: Device::default(),
        accessed: entry.accessed().unwrap_or(modified),
        modified,
        changed: modified,
        created: entry.created(),
        flags: 0,
        generation: 0,
        project: 0,
    })
}

fn apply(core: &mut Core, node: &mut Node, changes: &Changes) -> Result<()> {
    if changes.uid.is_some_and(|uid| uid != 0) || changes.gid.is_some_and(|gid| gid != 0) {
        return Err(refused("owners: all files belong to root"));
    }
    if changes.project.is_some_and(|project| project != 0) {
        return Err(refused("projects"));
    }
    if changes.flags.is_some_and(|flags| flags != 0) {
        return Err(refused("inode flags"));
    }
    if let Some(size) = changes.size {
        core.resize_content(node, size)?;
        let now = core.now();
        touch(node, now);
    }
    if let Some(mode) = changes.mode {
        set_mode(&mut node.entry, mode);
    }
    if let Some(time) = changes.modified {
        node.entry.set_modified(time);
    }
    if let Some(time) = changes.accessed {
        node.entry.set_accessed(time);
    }
    if let Some(time) = changes.created {
        node.entry.set_created(time);
    }
    Ok(())
}

/// The content changed.
fn touch(node: &mut Node, now: Time) {
    node.entry.set_modified(now);
    let attributes = node.entry.attributes();
    node.entry.set_attributes(attributes | attribute::ARCHIVE);
}

impl Filesystem for Fat {
    fn type_name(&self) -> &'static str {
        "vfat"
    }

    fn label(&self) -> Vec<u8> {
        let open = self.open.read();
        label::of(&open.volume).unwrap_or_default()
    }

    fn uuid(&self) -> String {
        let serial = self.open.read().volume.boot.serial();
        serial.map(super::serial_text).unwrap_or_default()
    }

    fn root(&self) -> u64 {
        ROOT
    }

    fn read_only(&self) -> bool {
        self.open.read().volume.read_only
    }

    fn posix(&self) -> bool {
        false
    }

    fn statistics(&self) -> Result<Statistics> {
        let open = self.open.read();
        let core = &open.volume;
        let free = core.free_clusters()?.into();
        Ok(Statistics {
            block_size: core.shape.cluster_size() as u32,
            blocks: core.shape.clusters.into(),
            free,
            available: free,
            inodes: 0,
            free_inodes: 0,
            name_length: name::UNITS_MAX as u32,
        })
    }

    fn lookup(&self, directory: u64, name: &[u8]) -> Result<Attributes> {
        let open = self.open.read();
        attributes_of(&open.volume, &open.volume.lookup(directory, name)?)
    }

    fn attributes(&self, inode: u64) -> Result<Attributes> {
        let open = self.open.read();
        attributes_of(&open.volume, &open.volume.node(inode)?)
    }

    fn read_directory(
        &self,
        directory: u64,
        cookie: u64,
        visit: &mut dyn FnMut(Entry) -> bool,
    ) -> Result<()> {
        let open = self.open.read();
        let core = &open.volume;
        let start = core.directory_of(directory)?;
        let parent = core.identities().parent(directory).unwrap_or(directory);
        for (number, (inode, name)) in [(directory, "."), (parent, "..")].into_iter().enumerate() {
            let next = number as u64 + 1;
            let kind = Some(FileKind::Directory);
            if cookie < next && !visit(Entry { inode, kind, name: name.into(), cookie: next }) {
                return Ok(());
            }
        }
        // The slot s has the cookie s + 3: go on after it.
        let from = u32::try_from(cookie.saturating_sub(2)).unwrap_or(u32::MAX);
        core.scan(start, from, &mut |found| {
            let is_directory = found.entry.is_directory();
            let kind = if is_directory { FileKind::Directory } else { FileKind::Regular };
            visit(Entry {
                inode: core.number_of(directory, &found),
                kind: Some(kind),
                name: name::to_bytes(&found.units),
                cookie: u64::from(found.slot) + 3,
            })
        })
    }

    fn read(&self, inode: u64, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        let open = self.open.read();
        open.volume.read_content(&open.volume.node(inode)?, offset, buffer)
    }

    fn read_link(&self, inode: u64) -> Result<Vec<u8>> {
        self.attributes(inode)?;
        Err(errors::invalid())
    }

    fn xattr(&self, inode: u64, name: &[u8]) -> Result<Vec<u8>> {
        let _ = (inode, name);
        Err(errors::not_supported().context("FAT has no extended attributes"))
    }

    fn xattrs(&self, inode: u64) -> Result<Vec<Vec<u8>>> {
        let _ = inode;
        Ok(Vec::new())
    }

    fn hold(&self, inode: u64) {
        self.open.read().volume.identities().hold(inode);
    }

    fn release(&self, inode: u64, count: u64) -> Result<()> {
        let mut open = self.open.write();
        let gone = open.volume.identities().release(inode, count);
        match gone {
            Some(entry) => open.change(&mut |core| core.free_content(&entry)),
            None => Ok(()),
        }
    }

    fn write(&self, inode: u64, offset: u64, data: &[u8]) -> Result<()> {
        self.open.change(|core| {
            let mut node = core.node(inode)?;
            core.begin()?;
            core.write_content(&mut node, offset, data)?;
            let now = core.now();
            touch(&mut node, now);
            core.put_node(&node)
        })
    }

    fn create(&self, directory: u64, name: &[u8], file: &NewFile) -> Result<Attributes> {
        self.open.change(|core| {
            let node = core.create(directory, name, file)?;
            attributes_of(core, &node)
        })
    }

    fn symlink(&self, _: u64, _: &[u8], _: &[u8], _: u32, _: u32) -> Result<Attributes> {
        Err(refused("symbolic links"))
    }

    fn link(&self, _: u64, _: u64, _: &[u8]) -> Result<Attributes> {
        Err(refused("hard links"))
    }

    fn unlink(&self, directory: u64, name: &[u8]) -> Result<()> {
        self.open.change(|core| core.remove(directory, name, false))
    }

    fn remove_directory(&self, directory: u64, name: &[u8]) -> Result<()> {
        self.open.change(|core| core.remove(directory, name, true))
    }

    fn rename(&self, from: u64, old: &[u8], to: u64, new: &[u8], how: Rename) -> Result<()> {
        self.open.change(|core| core.rename(from, old, to, new, how))
    }

    fn set_attributes(&self, inode: u64, changes: &Changes) -> Result<Attributes> {
        self.open.change(|core| {
            let mut node = core.node(inode)?;
            core.begin()?;
            apply(core, &mut node, changes)?;
            core.put_node(&node)?;
            attributes_of(core, &node)
        })
    }

    fn set_xattr(&self, _: u64, _: &[u8], _: &[u8], _: Option<bool>) -> Result<()> {
        Err(errors::not_supported().context("FAT has no extended attributes"))
    }

    fn remove_xattr(&self, _: u64, _: &[u8]) -> Result<()> {
        Err(errors::not_supported().context("FAT has no extended attributes"))
    }

    fn fallocate(&self, inode: u64, offset: u64, length: u64, how: Fallocate) -> Result<()> {
        self.open.change(|core| {
            let mut node = core.node(inode)?;
            core.begin()?;
            let end = offset.checked_add(length).ok_or_else(errors::too_big)?;
            let size = u64::from(node.entry.size());
            match how {
                Fallocate::PunchHole => {
                    return Err(errors::not_supported().context("FAT has no holes"));
                }
                Fallocate::Allocate { keep_size: true } if end > size => {
                    return Err(errors::not_supported()
                        .context("FAT cannot reserve clusters behind the end of a file"));
                }
                Fallocate::ZeroRange { keep_size } => {
                    core.zero_content(&node, offset, end.min(size))?;
                    if end > size && !keep_size {
                        core.resize_content(&mut node, end)?;
                    }
                }
                Fallocate::Allocate { .. } if end > size => core.resize_content(&mut node, end)?,
                Fallocate::Allocate { .. } => {}
            }
            let now = core.now();
            touch(&mut node, now);
            core.put_node(&node)
        })
    }

    fn sync(&self) -> Result<()> {
        let mut open = self.open.write();
        if open.volume.read_only { Ok(()) } else { open.commit() }
    }

    fn close(&self) -> Result<()> {
        let mut open = self.open.write();
        let unlinked = open.volume.identities().take_unlinked();
        for entry in unlinked {
            open.volume.free_content(&entry)?;
        }
        open.volume.shut_down()
    }
}
