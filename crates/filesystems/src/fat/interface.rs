//! The filesystem interface over open volumes of every kind of FAT.
//!
//! FAT keeps neither owners nor permissions: files belong to root and are `rwxr-xr-x`, without `w`
//! where the read-only attribute is set (as Linux shows them by default).

use std::fmt::Debug;
use std::sync::MutexGuard;

use disksmith_disk::{Error, Kind, Result};

use super::identity::{Identities, ROOT};
use super::name;
use super::node::{FileEntry, Node, Stamp};
use super::shared::{Committed, Shared};
use crate::{
    Attributes, Changes, Device, Entry, Fallocate, FileKind, Filesystem, NewFile, Rename,
    Statistics, Time, errors,
};

/// What a kind of FAT does in its own way.
pub(crate) trait FatVolume: Committed + Debug + Send + Sync {
    type File: FileEntry + Debug + Send;

    /// As the kernel calls it.
    const TYPE: &'static str;
    /// As messages call it.
    const NAME: &'static str;

    fn label(&self) -> Vec<u8>;

    fn serial(&self) -> Option<u32>;

    fn is_read_only(&self) -> bool;

    fn now(&self) -> Time;

    /// Bytes of a cluster.
    fn cluster_size(&self) -> u64;

    /// Clusters, and how many of them are free.
    fn clusters(&self) -> Result<(u32, u32)>;

    fn identities(&self) -> MutexGuard<'_, Identities<Self::File>>;

    fn node(&self, number: u64) -> Result<Node<Self::File>>;

    fn lookup(&self, directory: u64, name: &[u8]) -> Result<Node<Self::File>>;

    /// Bytes of a file, or of the clusters of a directory.
    fn length(&self, node: &Node<Self::File>) -> Result<u64>;

    /// Calls `visit` with each file of a directory from a slot on, until it says no: number, name,
    /// and the slot to go on at.
    fn list(&self, directory: u64, from: u32, visit: &mut ListVisit<'_, Self::File>) -> Result<()>;

    fn read_content(
        &self,
        node: &Node<Self::File>,
        offset: u64,
        buffer: &mut [u8],
    ) -> Result<usize>;

    /// Before anything changes: the volume is in use.
    fn begin(&mut self) -> Result<()>;

    fn put_node(&mut self, node: &mut Node<Self::File>) -> Result<()>;

    fn write_content(
        &mut self,
        node: &mut Node<Self::File>,
        offset: u64,
        data: &[u8],
    ) -> Result<()>;

    fn zero_content(&mut self, node: &Node<Self::File>, offset: u64, to: u64) -> Result<()>;

    fn resize_content(&mut self, node: &mut Node<Self::File>, size: u64) -> Result<()>;

    fn free_content(&mut self, file: &Self::File) -> Result<()>;

    fn create(&mut self, directory: u64, name: &[u8], file: &NewFile) -> Result<Node<Self::File>>;

    fn remove(&mut self, directory: u64, name: &[u8], is_directory: bool) -> Result<()>;

    fn rename(&mut self, from: u64, old: &[u8], to: u64, new: &[u8], how: Rename) -> Result<()>;

    /// All changes are durable and every file has a name.
    fn synced(&mut self) -> Result<()>;

    /// Ends the use: everything in its place, the volume marked clean.
    fn shut_down(&mut self) -> Result<()>;
}

/// See [`FatVolume::list`].
pub(crate) type ListVisit<'v, F> = dyn FnMut(u64, &F, &[u16], u32) -> bool + 'v;

/// An open volume, whatever its kind.
pub(crate) trait Opened: Debug + Send + Sync {
    type Volume: FatVolume;

    fn shared(&self) -> &Shared<Self::Volume>;
}

/// What a kind of FAT does not have.
pub(crate) fn refused<V: FatVolume>(what: &str) -> Error {
    let name = V::NAME;
    Error::from_errno(1).with_kind(Kind::Unsupported).context(format!("{name} has no {what}"))
}

/// True for directories; what is neither one nor a file is refused.
pub(crate) fn is_directory<V: FatVolume>(kind: FileKind) -> Result<bool> {
    match kind {
        FileKind::Regular => Ok(false),
        FileKind::Directory => Ok(true),
        FileKind::Symlink => Err(refused::<V>("symbolic links")),
        FileKind::CharDevice | FileKind::BlockDevice => Err(refused::<V>("device files")),
        FileKind::Fifo | FileKind::Socket => Err(refused::<V>("pipes and sockets")),
    }
}

/// The attributes of a file that are Windows's.
pub(crate) fn set_dos_attributes<V: FatVolume>(
    shared: &Shared<V>,
    inode: u64,
    attributes: u8,
) -> Result<()> {
    use super::layout::attribute;
    const OURS: u8 =
        attribute::READ_ONLY | attribute::HIDDEN | attribute::SYSTEM | attribute::ARCHIVE;
    shared.change(|volume| {
        let mut node = volume.node(inode)?;
        volume.begin()?;
        let kept = node.entry.attributes() & !OURS;
        node.entry.set_attributes(kept | attributes & OURS);
        volume.put_node(&mut node)
    })
}

/// What a file says, in the interface's terms.
fn attributes_of<V: FatVolume>(volume: &V, node: &Node<V::File>) -> Result<Attributes> {
    let entry = &node.entry;
    let (cluster, size) = (volume.cluster_size(), volume.length(node)?);
    let modified = entry.time(Stamp::Modified).unwrap_or_default();
    Ok(Attributes {
        inode: node.number,
        kind: kind_of(entry),
        mode: if entry.is_writable() { 0o755 } else { 0o555 },
        links: 1,
        uid: 0,
        gid: 0,
        size,
        blocks: size.div_ceil(cluster).saturating_mul(cluster / 512),
        device: Device::default(),
        accessed: entry.time(Stamp::Accessed).unwrap_or(modified),
        modified,
        changed: modified,
        created: entry.time(Stamp::Created),
        flags: 0,
        generation: 0,
        project: 0,
    })
}

fn kind_of(entry: &impl FileEntry) -> FileKind {
    if entry.is_directory() { FileKind::Directory } else { FileKind::Regular }
}

fn apply<V: FatVolume>(volume: &mut V, node: &mut Node<V::File>, changes: &Changes) -> Result<()> {
    if changes.uid.is_some_and(|uid| uid != 0) || changes.gid.is_some_and(|gid| gid != 0) {
        return Err(refused::<V>("owners: all files belong to root"));
    }
    if changes.project.is_some_and(|project| project != 0) {
        return Err(refused::<V>("projects"));
    }
    if changes.flags.is_some_and(|flags| flags != 0) {
        return Err(refused::<V>("inode flags"));
    }
    if let Some(size) = changes.size {
        volume.resize_content(node, size)?;
        node.entry.touch(volume.now());
    }
    if let Some(mode) = changes.mode {
        node.entry.set_mode(mode);
    }
    let times = [
        (Stamp::Modified, changes.modified),
        (Stamp::Accessed, changes.accessed),
        (Stamp::Created, changes.created),
    ];
    for (stamp, time) in times {
        if let Some(time) = time {
            node.entry.set_time(stamp, time);
        }
    }
    Ok(())
}

fn allocate<V: FatVolume>(
    volume: &mut V,
    node: &mut Node<V::File>,
    (offset, end): (u64, u64),
    how: Fallocate,
) -> Result<()> {
    let size = volume.length(node)?;
    match how {
        Fallocate::PunchHole => Err(not_supported::<V>("has no holes")),
        Fallocate::Allocate { keep_size: true } if end > size => {
            Err(not_supported::<V>("cannot reserve clusters behind the end of a file"))
        }
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

fn not_supported<V: FatVolume>(what: &str) -> Error {
    errors::not_supported().context(format!("{} {what}", V::NAME))
}

fn no_xattrs<V: FatVolume>() -> Error {
    not_supported::<V>("has no extended attributes")
}

impl<T: Opened> Filesystem for T {
    fn type_name(&self) -> &'static str {
        T::Volume::TYPE
    }

    fn label(&self) -> Vec<u8> {
        self.shared().read().volume.label()
    }

    fn uuid(&self) -> String {
        let serial = self.shared().read().volume.serial();
        serial.map(super::serial_text).unwrap_or_default()
    }

    fn root(&self) -> u64 {
        ROOT
    }

    fn read_only(&self) -> bool {
        self.shared().read().volume.is_read_only()
    }

    fn posix(&self) -> bool {
        false
    }

    fn statistics(&self) -> Result<Statistics> {
        let open = self.shared().read();
        let (clusters, free) = open.volume.clusters()?;
        Ok(Statistics {
            block_size: open.volume.cluster_size() as u32,
            blocks: clusters.into(),
            free: free.into(),
            available: free.into(),
            inodes: 0,
            free_inodes: 0,
            name_length: name::UNITS_MAX as u32,
        })
    }

    fn lookup(&self, directory: u64, name: &[u8]) -> Result<Attributes> {
        let open = self.shared().read();
        attributes_of(&open.volume, &open.volume.lookup(directory, name)?)
    }

    fn attributes(&self, inode: u64) -> Result<Attributes> {
        let open = self.shared().read();
        attributes_of(&open.volume, &open.volume.node(inode)?)
    }

    fn read_directory(
        &self,
        directory: u64,
        cookie: u64,
        visit: &mut dyn FnMut(Entry) -> bool,
    ) -> Result<()> {
        let open = self.shared().read();
        let volume = &open.volume;
        if !volume.node(directory)?.entry.is_directory() {
            return Err(errors::not_a_directory());
        }
        let parent = volume.identities().parent(directory).unwrap_or(directory);
        for (number, (inode, name)) in [(directory, "."), (parent, "..")].into_iter().enumerate() {
            let next = number as u64 + 1;
            let kind = Some(FileKind::Directory);
            if cookie < next && !visit(Entry { inode, kind, name: name.into(), cookie: next }) {
                return Ok(());
            }
        }
        // To go on at the slot s, the cookie is s + 2.
        let from = u32::try_from(cookie.saturating_sub(2)).unwrap_or(u32::MAX);
        volume.list(directory, from, &mut |inode, entry, units, next| {
            let (kind, name) = (Some(kind_of(entry)), name::to_bytes(units));
            visit(Entry { inode, kind, name, cookie: u64::from(next) + 2 })
        })
    }

    fn read(&self, inode: u64, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        let open = self.shared().read();
        open.volume.read_content(&open.volume.node(inode)?, offset, buffer)
    }

    fn read_link(&self, inode: u64) -> Result<Vec<u8>> {
        self.attributes(inode)?;
        Err(errors::invalid())
    }

    fn xattr(&self, _: u64, _: &[u8]) -> Result<Vec<u8>> {
        Err(no_xattrs::<T::Volume>())
    }

    fn xattrs(&self, _: u64) -> Result<Vec<Vec<u8>>> {
        Ok(Vec::new())
    }

    fn hold(&self, inode: u64) {
        self.shared().read().volume.identities().hold(inode);
    }

    fn release(&self, inode: u64, count: u64) -> Result<()> {
        let mut open = self.shared().write();
        let gone = open.volume.identities().release(inode, count);
        match gone {
            Some(file) => open.change(&mut |volume| {
                volume.begin()?;
                volume.free_content(&file)
            }),
            None => Ok(()),
        }
    }

    fn write(&self, inode: u64, offset: u64, data: &[u8]) -> Result<()> {
        self.shared().change(|volume| {
            let mut node = volume.node(inode)?;
            volume.begin()?;
            volume.write_content(&mut node, offset, data)?;
            node.entry.touch(volume.now());
            volume.put_node(&mut node)
        })
    }

    fn create(&self, directory: u64, name: &[u8], file: &NewFile) -> Result<Attributes> {
        self.shared().change(|volume| {
            let node = volume.create(directory, name, file)?;
            attributes_of(volume, &node)
        })
    }

    fn symlink(&self, _: u64, _: &[u8], _: &[u8], _: u32, _: u32) -> Result<Attributes> {
        Err(refused::<T::Volume>("symbolic links"))
    }

    fn link(&self, _: u64, _: u64, _: &[u8]) -> Result<Attributes> {
        Err(refused::<T::Volume>("hard links"))
    }

    fn unlink(&self, directory: u64, name: &[u8]) -> Result<()> {
        self.shared().change(|volume| volume.remove(directory, name, false))
    }

    fn remove_directory(&self, directory: u64, name: &[u8]) -> Result<()> {
        self.shared().change(|volume| volume.remove(directory, name, true))
    }

    fn rename(&self, from: u64, old: &[u8], to: u64, new: &[u8], how: Rename) -> Result<()> {
        self.shared().change(|volume| volume.rename(from, old, to, new, how))
    }

    fn set_attributes(&self, inode: u64, changes: &Changes) -> Result<Attributes> {
        self.shared().change(|volume| {
            let mut node = volume.node(inode)?;
            volume.begin()?;
            apply(volume, &mut node, changes)?;
            volume.put_node(&mut node)?;
            attributes_of(volume, &node)
        })
    }

    fn set_xattr(&self, _: u64, _: &[u8], _: &[u8], _: Option<bool>) -> Result<()> {
        Err(no_xattrs::<T::Volume>())
    }

    fn remove_xattr(&self, _: u64, _: &[u8]) -> Result<()> {
        Err(no_xattrs::<T::Volume>())
    }

    fn fallocate(&self, inode: u64, offset: u64, length: u64, how: Fallocate) -> Result<()> {
        self.shared().change(|volume| {
            let mut node = volume.node(inode)?;
            volume.begin()?;
            let end = offset.checked_add(length).ok_or_else(errors::too_big)?;
            allocate(volume, &mut node, (offset, end), how)?;
            node.entry.touch(volume.now());
            volume.put_node(&mut node)
        })
    }

    fn fsync(&self, _: u64) -> Result<()> {
        let mut open = self.shared().write();
        if open.volume.is_read_only() { Ok(()) } else { open.commit() }
    }

    fn sync(&self) -> Result<()> {
        let mut open = self.shared().write();
        if open.volume.is_read_only() {
            return Ok(());
        }
        open.commit()?;
        // The clusters of files without a name belong to nothing after a cut.
        let whole = !open.volume.identities().has_unlinked();
        if whole { open.volume.synced() } else { Ok(()) }
    }

    fn close(&self) -> Result<()> {
        let mut open = self.shared().write();
        let unlinked = open.volume.identities().take_unlinked();
        for file in unlinked {
            open.volume.free_content(&file)?;
        }
        open.volume.shut_down()
    }
}
