//! The filesystem interface over an open exFAT volume.

use std::sync::Arc;

use disksmith_disk::{Disk, Result};

use super::super::layout::attribute;
use super::super::name;
use super::super::shared::{Committed, Shared};
use super::ROOT;
use super::layout::VOLUME_DIRTY;
use super::namespace::{refused, set_mode};
use super::node::{Node, directory_of};
use super::set::{FileSet, Stamp};
use super::volume::Volume;
use crate::{
    Attributes, Changes, Device, Entry, Fallocate, FileKind, Filesystem, NewFile, Rename,
    Statistics, Time, errors,
};

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
    /// as in use until [`sync`](Filesystem::sync) or [`close`](Filesystem::close). Volumes with two
    /// FATs (TexFAT) can be opened to be read only.
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
        Ok(self.open.read().volume.node(inode)?.set.attributes() as u8)
    }

    /// Sets read-only, hidden, system and archive of a file.
    pub fn set_dos_attributes(&self, inode: u64, attributes: u8) -> Result<()> {
        const OURS: u8 =
            attribute::READ_ONLY | attribute::HIDDEN | attribute::SYSTEM | attribute::ARCHIVE;
        self.open.change(|volume| {
            let mut node = volume.node(inode)?;
            volume.begin()?;
            let kept = node.set.attributes() & !u16::from(OURS);
            node.set.set_attributes(kept | u16::from(attributes & OURS));
            volume.put_node(&mut node)
        })
    }

    /// Commits only when told: for filling a volume that nobody relies on yet.
    pub(crate) fn commit_rarely(&self) {
        self.open.commit_rarely();
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

/// What a file says, in the interface's terms.
fn attributes_of(volume: &Volume, node: &Node) -> Attributes {
    let set = &node.set;
    let is_directory = set.is_directory();
    let writable = is_directory || set.attributes() & u16::from(attribute::READ_ONLY) == 0;
    let modified = set.time(Stamp::Modified).unwrap_or_default();
    let cluster = volume.geometry.cluster;
    Attributes {
        inode: node.number,
        kind: if is_directory { FileKind::Directory } else { FileKind::Regular },
        mode: if writable { 0o755 } else { 0o555 },
        links: 1,
        uid: 0,
        gid: 0,
        size: set.size(),
        blocks: set.size().div_ceil(cluster).saturating_mul(cluster / 512),
        device: Device::default(),
        accessed: set.time(Stamp::Accessed).unwrap_or(modified),
        modified,
        changed: modified,
        created: set.time(Stamp::Created),
        flags: 0,
        generation: 0,
        project: 0,
    }
}

fn apply(volume: &mut Volume, node: &mut Node, changes: &Changes) -> Result<()> {
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
        volume.resize_content(node, size)?;
        let now = volume.now();
        touch(&mut node.set, now);
    }
    if let Some(mode) = changes.mode {
        set_mode(&mut node.set, mode);
    }
    let times = [
        (Stamp::Modified, changes.modified),
        (Stamp::Accessed, changes.accessed),
        (Stamp::Created, changes.created),
    ];
    for (stamp, time) in times {
        if let Some(time) = time {
            node.set.set_time(stamp, time);
        }
    }
    Ok(())
}

/// The content changed.
fn touch(set: &mut FileSet, now: Time) {
    set.set_time(Stamp::Modified, now);
    set.set_attributes(set.attributes() | u16::from(attribute::ARCHIVE));
}

fn allocate(
    volume: &mut Volume,
    node: &mut Node,
    (offset, end): (u64, u64),
    how: Fallocate,
) -> Result<()> {
    let size = node.set.size();
    match how {
        Fallocate::PunchHole => Err(errors::not_supported().context("exFAT has no holes")),
        Fallocate::Allocate { keep_size: true } if end > size => Err(errors::not_supported()
            .context("exFAT cannot reserve clusters behind the end of a file")),
        Fallocate::ZeroRange { keep_size } => {
            volume.zero_content(node, offset, end.min(size))?;
            match end > size && !keep_size {
                true => volume.resize_content(node, end),
                false => Ok(()),
            }
        }
        Fallocate::Allocate { .. } if end > size => volume.resize_content(node, end),
        Fallocate::Allocate { .. } => Ok(()),
    }
}

impl Filesystem for Exfat {
    fn type_name(&self) -> &'static str {
        "exfat"
    }

    fn label(&self) -> Vec<u8> {
        self.open.read().volume.label.clone()
    }

    fn uuid(&self) -> String {
        super::super::serial_text(self.open.read().volume.geometry.serial)
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
        let free = open.volume.free_clusters()?.into();
        Ok(Statistics {
            block_size: open.volume.geometry.cluster as u32,
            blocks: open.volume.geometry.clusters.into(),
            free,
            available: free,
            inodes: 0,
            free_inodes: 0,
            name_length: name::UNITS_MAX as u32,
        })
    }

    fn lookup(&self, directory: u64, name: &[u8]) -> Result<Attributes> {
        let open = self.open.read();
        Ok(attributes_of(&open.volume, &open.volume.lookup(directory, name)?))
    }

    fn attributes(&self, inode: u64) -> Result<Attributes> {
        let open = self.open.read();
        Ok(attributes_of(&open.volume, &open.volume.node(inode)?))
    }

    fn read_directory(
        &self,
        directory: u64,
        cookie: u64,
        visit: &mut dyn FnMut(Entry) -> bool,
    ) -> Result<()> {
        let open = self.open.read();
        let volume = &open.volume;
        let node = volume.node(directory)?;
        let stream = if directory == ROOT { volume.root_stream() } else { directory_of(&node)? };
        let parent = volume.identities().parent(directory).unwrap_or(directory);
        for (number, (inode, name)) in [(directory, "."), (parent, "..")].into_iter().enumerate() {
            let next = number as u64 + 1;
            let kind = Some(FileKind::Directory);
            if cookie < next && !visit(Entry { inode, kind, name: name.into(), cookie: next }) {
                return Ok(());
            }
        }
        // The set that ends before the slot s has the cookie s + 2: go on there.
        let from = u32::try_from(cookie.saturating_sub(2)).unwrap_or(u32::MAX);
        volume.scan(directory, stream, from, &mut |found, behind| {
            let is_directory = found.set.is_directory();
            let kind = if is_directory { FileKind::Directory } else { FileKind::Regular };
            visit(Entry {
                inode: volume.number_of(directory, &found),
                kind: Some(kind),
                name: name::to_bytes(&found.set.name()),
                cookie: u64::from(behind) + 2,
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

    fn xattr(&self, _: u64, _: &[u8]) -> Result<Vec<u8>> {
        Err(errors::not_supported().context("exFAT has no extended attributes"))
    }

    fn xattrs(&self, _: u64) -> Result<Vec<Vec<u8>>> {
        Ok(Vec::new())
    }

    fn hold(&self, inode: u64) {
        self.open.read().volume.identities().hold(inode);
    }

    fn release(&self, inode: u64, count: u64) -> Result<()> {
        let mut open = self.open.write();
        let gone = open.volume.identities().release(inode, count);
        match gone {
            Some(set) => open.change(&mut |volume| {
                volume.begin()?;
                volume.free_content(&set)
            }),
            None => Ok(()),
        }
    }

    fn write(&self, inode: u64, offset: u64, data: &[u8]) -> Result<()> {
        self.open.change(|volume| {
            let mut node = volume.node(inode)?;
            volume.begin()?;
            volume.write_content(&mut node, offset, data)?;
            let now = volume.now();
            touch(&mut node.set, now);
            volume.put_node(&mut node)
        })
    }

    fn create(&self, directory: u64, name: &[u8], file: &NewFile) -> Result<Attributes> {
        self.open.change(|volume| {
            let node = volume.create(directory, name, file)?;
            Ok(attributes_of(volume, &node))
        })
    }

    fn symlink(&self, _: u64, _: &[u8], _: &[u8], _: u32, _: u32) -> Result<Attributes> {
        Err(refused("symbolic links"))
    }

    fn link(&self, _: u64, _: u64, _: &[u8]) -> Result<Attributes> {
        Err(refused("hard links"))
    }

    fn unlink(&self, directory: u64, name: &[u8]) -> Result<()> {
        self.open.change(|volume| volume.remove(directory, name, false))
    }

    fn remove_directory(&self, directory: u64, name: &[u8]) -> Result<()> {
        self.open.change(|volume| volume.remove(directory, name, true))
    }

    fn rename(&self, from: u64, old: &[u8], to: u64, new: &[u8], how: Rename) -> Result<()> {
        self.open.change(|volume| volume.rename(from, old, to, new, how))
    }

    fn set_attributes(&self, inode: u64, changes: &Changes) -> Result<Attributes> {
        self.open.change(|volume| {
            let mut node = volume.node(inode)?;
            volume.begin()?;
            apply(volume, &mut node, changes)?;
            volume.put_node(&mut node)?;
            Ok(attributes_of(volume, &node))
        })
    }

    fn set_xattr(&self, _: u64, _: &[u8], _: &[u8], _: Option<bool>) -> Result<()> {
        Err(errors::not_supported().context("exFAT has no extended attributes"))
    }

    fn remove_xattr(&self, _: u64, _: &[u8]) -> Result<()> {
        Err(errors::not_supported().context("exFAT has no extended attributes"))
    }

    fn fallocate(&self, inode: u64, offset: u64, length: u64, how: Fallocate) -> Result<()> {
        self.open.change(|volume| {
            let mut node = volume.node(inode)?;
            volume.begin()?;
            let end = offset.checked_add(length).ok_or_else(errors::too_big)?;
            allocate(volume, &mut node, (offset, end), how)?;
            let now = volume.now();
            touch(&mut node.set, now);
            volume.put_node(&mut node)
        })
    }

    fn fsync(&self, inode: u64) -> Result<()> {
        let _ = inode;
        let mut open = self.open.write();
        if open.volume.read_only { Ok(()) } else { open.commit() }
    }

    fn sync(&self) -> Result<()> {
        let mut open = self.open.write();
        if open.volume.read_only {
            return Ok(());
        }
        open.commit()?;
        // The clusters of files without a name belong to nothing after a cut.
        let whole = !open.volume.identities().has_unlinked();
        if whole { open.volume.settle() } else { Ok(()) }
    }

    fn close(&self) -> Result<()> {
        let mut open = self.open.write();
        let unlinked = open.volume.identities().take_unlinked();
        for set in unlinked {
            open.volume.free_content(&set)?;
        }
        open.volume.settle()
    }
}
