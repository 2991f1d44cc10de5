//! Filling a new filesystem.

use std::collections::{BTreeMap, HashMap};

use disksmith_disk::{Context as _, Error, Kind, Result};

use super::{MakeOptions, Need};
use crate::ext::core::{Core, ROOT};
use crate::ext::dirent;
use crate::ext::htree::NewEntry;
use crate::ext::layout::Inode;
use crate::ext::xattr::{self, Attribute};
use crate::source::{Ahead, Node, Source, SourceFile};
use crate::{FileKind, Time, errors};

/// Changed metadata blocks kept in memory, in bytes.
const DIRTY_BYTES: usize = 32 << 20;

/// What was put into a new filesystem.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Filled {
    /// Files of all kinds, each counted once.
    pub files: u64,
    /// Names, more than files where there are hard links.
    pub names: u64,
    /// Bytes of content written.
    pub bytes: u64,
}

/// A directory that is being filled.
struct Folder {
    inode: Inode,
    parent: usize,
    children: BTreeMap<Vec<u8>, Child>,
}

#[derive(Clone, Copy)]
struct Child {
    inode: u32,
    kind: FileKind,
    /// Index in the list of folders.
    folder: usize,
}

struct Filler<'a> {
    core: &'a mut Core,
    folders: Vec<Folder>,
    /// Inodes by path, for hard links.
    linked: HashMap<Vec<u8>, u32>,
    newest: Option<Time>,
    filled: Filled,
    folder_of: (Vec<u8>, usize),
}

/// Puts everything of `source` into a filesystem that was just laid out.
pub(super) fn fill(
    core: &mut Core,
    options: &MakeOptions,
    source: &mut dyn Source,
) -> Result<Filled> {
    let root = core.inode(ROOT)?;
    let mut filler = Filler {
        core,
        folders: vec![Folder { inode: root, parent: 0, children: BTreeMap::new() }],
        linked: HashMap::new(),
        newest: options.time,
        filled: Filled::default(),
        folder_of: (Vec::new(), 0),
    };
    filler.adopt_lost()?;
    std::thread::scope(|scope| filler.add_all(&mut Ahead::start(scope, source)?))?;
    filler.write_folders()?;
    Ok(filler.filled)
}

impl Filler<'_> {
    /// `lost+found` is there already; a source's own one only changes its attributes.
    fn adopt_lost(&mut self) -> Result<()> {
        let number = self.core.shape.first_inode;
        let child = Child { inode: number, kind: FileKind::Directory, folder: 1 };
        let inode = self.core.inode(number)?;
        self.folders.push(Folder { inode, parent: 0, children: BTreeMap::new() });
        self.folders[0].children.insert(b"lost+found".to_vec(), child);
        Ok(())
    }

    fn add_all(&mut self, source: &mut Ahead) -> Result<()> {
        while let Some(file) = source.next_file()? {
            self.add(&file, source).with_context(|| {
                format!("Could not add '{}'", String::from_utf8_lossy(&file.path))
            })?;
            self.flush_if_much()?;
        }
        Ok(())
    }

    fn flush_if_much(&mut self) -> Result<()> {
        match self.core.transaction.dirty.len() * self.core.shape.block_size > DIRTY_BYTES {
            true => self.core.flush_new(),
            false => Ok(()),
        }
    }

    fn clamp(&self, time: Time) -> Time {
        self.newest.map_or(time, |newest| time.min(newest))
    }

    fn add(&mut self, file: &SourceFile, source: &mut Ahead) -> Result<()> {
        if file.path.is_empty() {
            let mut inode = self.folders[0].inode.clone();
            self.dress(&mut inode, file, FileKind::Directory)?;
            self.folders[0].inode = inode;
            return Ok(());
        }
        let split = file.path.iter().rposition(|byte| *byte == b'/');
        let (parent, name) = match split {
            Some(at) => (&file.path[..at], &file.path[at + 1..]),
            None => (&[][..], &file.path[..]),
        };
        crate::ext::directory::check_name(name)?;
        let folder = self.folder(parent)?;
        let there = self.folders[folder].children.get(name).copied();
        if let (Some(child), Node::Directory) = (there, &file.node)
            && child.kind == FileKind::Directory
        {
            let mut inode = self.folders[child.folder].inode.clone();
            self.dress(&mut inode, file, FileKind::Directory)?;
            self.folders[child.folder].inode = inode;
            return Ok(());
        }
        if there.is_some_and(|child| child.kind == FileKind::Directory) {
            return Err(errors::is_a_directory());
        }
        let child = match &file.node {
            Node::HardLink(target) => self.link(target)?,
            Node::Directory => self.new_folder(folder, Some(file))?,
            _ => self.new_file(folder, file, source)?,
        };
        self.filled.names += 1;
        if let Some(old) = self.folders[folder].children.insert(name.to_vec(), child) {
            self.unlink(old)?;
        }
        if child.kind != FileKind::Directory {
            self.linked.insert(file.path.clone(), child.inode);
        }
        Ok(())
    }

    /// A later file of the same name takes the place of an earlier one, as tar has it.
    fn unlink(&mut self, child: Child) -> Result<()> {
        let mut inode = self.core.inode(child.inode)?;
        let links = inode.i_links_count().saturating_sub(1);
        inode.set_i_links_count(links);
        if links > 0 {
            return self.core.put_inode(&inode);
        }
        self.core.destroy_inode(&mut inode)
    }

    /// The folder of a path; made when it is missing.
    fn folder(&mut self, path: &[u8]) -> Result<usize> {
        if path.is_empty() {
            return Ok(0);
        }
        if self.folder_of.0 == path {
            return Ok(self.folder_of.1);
        }
        let mut at = 0;
        for name in path.split(|byte| *byte == b'/') {
            at = match self.folders[at].children.get(name).copied() {
                Some(child) if child.kind == FileKind::Directory => child.folder,
                Some(_) => return Err(errors::not_a_directory()),
                None => {
                    crate::ext::directory::check_name(name)?;
                    let child = self.new_folder(at, None)?;
                    self.folders[at].children.insert(name.to_vec(), child);
                    child.folder
                }
            };
        }
        self.folder_of = (path.to_vec(), at);
        Ok(at)
    }

    fn new_folder(&mut self, parent: usize, file: Option<&SourceFile>) -> Result<Child> {
        let near = self.folders[parent].inode.number;
        let number = self.core.allocate_inode(near, true)?;
        let mut inode = self.core.blank_inode(number, 0o040_755);
        inode.set_i_links_count(2);
        if let Some(file) = file {
            self.dress(&mut inode, file, FileKind::Directory)?;
        }
        self.core.put_inode(&inode)?;
        let mut up = self.folders[parent].inode.clone();
        self.core.add_link(&mut up);
        self.folders[parent].inode = up;
        self.folders.push(Folder { inode, parent, children: BTreeMap::new() });
        self.filled.files += 1;
        Ok(Child { inode: number, kind: FileKind::Directory, folder: self.folders.len() - 1 })
    }

    fn link(&mut self, target: &[u8]) -> Result<Child> {
        let number = *self.linked.get(target).ok_or_else(|| {
            Error::new(
                Kind::NotFound,
                format!(
                    "the target '{}' of a hard link did not come before it",
                    String::from_utf8_lossy(target)
                ),
            )
        })?;
        let mut inode = self.core.inode(number)?;
        if inode.i_links_count() >= 65000 {
            return Err(errors::too_many_links());
        }
        inode.set_i_links_count(inode.i_links_count() + 1);
        self.core.put_inode(&inode)?;
        let kind = inode.kind().ok_or_else(errors::invalid)?;
        Ok(Child { inode: number, kind, folder: 0 })
    }

    fn new_file(&mut self, folder: usize, file: &SourceFile, source: &mut Ahead) -> Result<Child> {
        let kind = match &file.node {
            Node::Symlink(_) => FileKind::Symlink,
            Node::Special(kind, _) => *kind,
            _ => FileKind::Regular,
        };
        let near = self.folders[folder].inode.number;
        let number = self.core.allocate_inode(near, false)?;
        let mut inode = self.core.blank_inode(number, kind.mode_bits());
        inode.set_i_links_count(1);
        match &file.node {
            Node::Symlink(target) => self.core.set_link_target(&mut inode, target)?,
            Node::Special(kind, device) if kind.is_device() => inode.set_device(*device),
            Node::Regular(size) => {
                let core = &mut *self.core;
                let mut bytes = 0;
                source.content(&mut |offset, data| {
                    bytes += data.len() as u64;
                    core.write_content(&mut inode, offset, data)
                })?;
                self.filled.bytes += bytes;
                if *size > inode.size() {
                    self.core.resize_content(&mut inode, *size)?;
                }
            }
            _ => {}
        }
        self.dress(&mut inode, file, kind)?;
        self.core.put_inode(&inode)?;
        self.filled.files += 1;
        Ok(Child { inode: number, kind, folder: 0 })
    }

    /// Owner, mode, times and attributes.
    fn dress(&mut self, inode: &mut Inode, file: &SourceFile, kind: FileKind) -> Result<()> {
        inode.set_i_mode(kind.mode_bits() | file.mode & 0o7777);
        inode.set_uid(file.uid);
        inode.set_gid(file.gid);
        // The host's other times say when the folder was copied, not what is in it.
        let time = self.clamp(file.modified);
        inode.set_modified(time);
        inode.set_accessed(time);
        inode.set_changed(time);
        inode.set_created(time);
        if file.xattrs.is_empty() {
            return Ok(());
        }
        let mut attributes = Vec::with_capacity(file.xattrs.len());
        for (name, value) in &file.xattrs {
            // Attributes of kinds that ext cannot hold stay behind.
            let Ok((index, short)) = xattr::split_name(name) else { continue };
            if (index, short) == xattr::INLINE_DATA {
                continue;
            }
            attributes.push(Attribute::new(index, short, xattr::to_disk(index, value)?));
        }
        self.core.store_attributes(inode, attributes)
    }

    fn write_folders(&mut self) -> Result<()> {
        for at in 0..self.folders.len() {
            let parent = self.folders[self.folders[at].parent].inode.number;
            let folder = &mut self.folders[at];
            let children = std::mem::take(&mut folder.children);
            if at != 1 {
                let entries: Vec<NewEntry> = children
                    .into_iter()
                    .map(|(name, child)| NewEntry { name, inode: child.inode, kind: child.kind })
                    .collect();
                self.core.build_directory(&mut folder.inode, parent, &entries, 0)?;
            } else if !children.is_empty() {
                let mut lost = folder.inode.clone();
                for (name, child) in children {
                    self.core.add_entry(&mut lost, &name, child.inode, child.kind)?;
                }
                folder.inode = lost;
            }
            let inode = folder.inode.clone();
            self.core.put_inode(&inode)?;
            self.flush_if_much()?;
        }
        Ok(())
    }
}

/// What a source will need.
pub(super) fn measure(options: &MakeOptions, source: &mut dyn Source) -> Result<Need> {
    let block = u64::from(options.block_size.unwrap_or(4096));
    let room = u64::from(options.inode_size.unwrap_or(256)).saturating_sub(160);
    let mut need = Need::default();
    let mut folders: HashMap<Vec<u8>, u64> = HashMap::new();
    while let Some(file) = source.next_file()? {
        let split = file.path.iter().rposition(|byte| *byte == b'/');
        let (parent, name) = match split {
            Some(at) => (&file.path[..at], &file.path[at + 1..]),
            None => (&[][..], &file.path[..]),
        };
        *folders.entry(parent.to_vec()).or_insert(24) += dirent::needed(name.len()) as u64;
        if matches!(file.node, Node::HardLink(_)) {
            continue;
        }
        need.inodes += 1;
        let attributes: u64 =
            file.xattrs.iter().map(|(name, value)| (name.len() + value.len() + 24) as u64).sum();
        need.blocks += u64::from(attributes > room);
        match &file.node {
            Node::Regular(_) => {
                let blocks = source.data_blocks(block)?;
                // Pointer blocks, or extent blocks of a file in many pieces.
                need.blocks += blocks + blocks / (block / 4) + u64::from(blocks > 12);
            }
            Node::Symlink(target) => need.blocks += u64::from(target.len() >= 60),
            Node::Directory => {
                folders.entry(file.path).or_insert(24);
            }
            _ => {}
        }
    }
    // Leaves are filled to seven eighths.
    need.blocks += folders.values().map(|bytes| (bytes * 5 / 4).div_ceil(block) + 1).sum::<u64>();
    Ok(need)
}
