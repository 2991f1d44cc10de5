//! Putting a source into a filesystem that is in use.

use std::collections::HashMap;

use disksmith_disk::{Context as _, Error, Kind, Result};

use super::{Node, Source, SourceFile};
use crate::{Changes, Device, FileKind, Filesystem, NewFile, errors};

/// What is kept of a source's files.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Keep {
    /// Owner and group.
    pub owner: bool,
    /// Times of the last change.
    pub times: bool,
    /// Extended attributes and access control lists.
    pub xattrs: bool,
}

impl Keep {
    /// Everything.
    pub const ALL: Self = Self { owner: true, times: true, xattrs: true };
}

/// Puts everything of `source` under `name` in the directory `parent` (with an empty `name`: into
/// `parent` itself). Files that are there are replaced, directories merged. Answers how many files
/// were put.
pub fn insert(
    filesystem: &dyn Filesystem,
    parent: u64,
    name: &[u8],
    source: &mut dyn Source,
    keep: Keep,
) -> Result<u64> {
    let mut work = Insert {
        filesystem,
        parent,
        name,
        keep,
        paths: HashMap::new(),
        times: Vec::new(),
        count: 0,
    };
    while let Some(file) = source.next_file()? {
        work.add(&file, source)
            .with_context(|| format!("Could not put '{}'", String::from_utf8_lossy(&file.path)))?;
    }
    // A directory's time changes with each name put into it: it is set at the end.
    for (inode, changes) in work.times.iter().rev() {
        filesystem.set_attributes(*inode, changes)?;
    }
    Ok(work.count)
}

struct Insert<'a> {
    filesystem: &'a dyn Filesystem,
    parent: u64,
    name: &'a [u8],
    keep: Keep,
    /// Inodes of what was put, by path.
    paths: HashMap<Vec<u8>, u64>,
    times: Vec<(u64, Changes)>,
    count: u64,
}

impl Insert<'_> {
    /// The directory and the name that a path means.
    fn place<'p>(&mut self, path: &'p [u8]) -> Result<(u64, &'p [u8])> {
        let split = path.iter().rposition(|byte| *byte == b'/');
        let (folder, name) = match split {
            Some(at) => (path.get(..at).unwrap_or(&[]), path.get(at + 1..).unwrap_or(&[])),
            None => (&[][..], path),
        };
        Ok((self.folder(folder)?, name))
    }

    /// The inode of a directory of the source; made when the source did not name it.
    fn folder(&mut self, path: &[u8]) -> Result<u64> {
        if let Some(inode) = self.paths.get(path) {
            return Ok(*inode);
        }
        let inode = if path.is_empty() {
            if self.name.is_empty() {
                self.parent
            } else {
                self.make_folder(self.parent, self.name)?
            }
        } else {
            let (parent, name) = self.place(path)?;
            self.make_folder(parent, name)?
        };
        self.paths.insert(path.to_vec(), inode);
        Ok(inode)
    }

    fn make_folder(&self, parent: u64, name: &[u8]) -> Result<u64> {
        match self.filesystem.lookup(parent, name) {
            Ok(found) if found.kind == FileKind::Directory => return Ok(found.inode),
            Ok(_) => return Err(errors::not_a_directory()),
            Err(error) if error.kind() == Kind::NotFound => {}
            Err(error) => return Err(error),
        }
        let file = NewFile {
            kind: FileKind::Directory,
            mode: 0o755,
            uid: 0,
            gid: 0,
            device: Device::default(),
        };
        Ok(self.filesystem.create(parent, name, &file)?.inode)
    }

    fn add(&mut self, file: &SourceFile, source: &mut dyn Source) -> Result<()> {
        self.count += 1;
        if file.node == Node::Directory {
            let inode = self.folder(&file.path)?;
            return self.dress(inode, file);
        }
        let (parent, name) = if file.path.is_empty() {
            (self.parent, self.name.to_vec())
        } else {
            let (parent, name) = self.place(&file.path)?;
            (parent, name.to_vec())
        };
        match self.filesystem.lookup(parent, &name) {
            Ok(found) if found.kind == FileKind::Directory => return Err(errors::is_a_directory()),
            Ok(_) => self.filesystem.unlink(parent, &name)?,
            Err(error) if error.kind() == Kind::NotFound => {}
            Err(error) => return Err(error),
        }
        let (uid, gid) = if self.keep.owner { (file.uid, file.gid) } else { (0, 0) };
        let new = |kind, device| NewFile { kind, mode: file.mode, uid, gid, device };
        let made = match &file.node {
            Node::HardLink(target) => {
                let inode = *self.paths.get(target).ok_or_else(|| {
                    Error::new(Kind::NotFound, "the target of a hard link did not come before it")
                })?;
                self.filesystem.link(inode, parent, &name)?;
                return Ok(());
            }
            Node::Symlink(target) => self.filesystem.symlink(parent, &name, target, uid, gid)?,
            Node::Special(kind, device) => {
                self.filesystem.create(parent, &name, &new(*kind, *device))?
            }
            Node::Regular(_) | Node::Directory => {
                self.filesystem.create(parent, &name, &new(FileKind::Regular, Device::default()))?
            }
        };
        if let Node::Regular(size) = file.node {
            source.content(&mut |offset, data| self.filesystem.write(made.inode, offset, data))?;
            let changes = Changes { size: Some(size), ..Changes::default() };
            if self.filesystem.attributes(made.inode)?.size != size {
                self.filesystem.set_attributes(made.inode, &changes)?;
            }
        }
        self.paths.insert(file.path.clone(), made.inode);
        self.dress(made.inode, file)
    }

    fn dress(&mut self, inode: u64, file: &SourceFile) -> Result<()> {
        if self.keep.xattrs && self.filesystem.posix() {
            for (name, value) in &file.xattrs {
                match self.filesystem.set_xattr(inode, name, value, None) {
                    Err(error) if error.kind() == Kind::Unsupported => {}
                    done => done?,
                }
            }
        }
        let owner = self.keep.owner && self.filesystem.posix();
        let changes = Changes {
            mode: (!matches!(file.node, Node::Symlink(_))).then_some(file.mode),
            uid: owner.then_some(file.uid),
            gid: owner.then_some(file.gid),
            accessed: self.keep.times.then_some(file.modified),
            modified: self.keep.times.then_some(file.modified),
            ..Changes::default()
        };
        if file.node == Node::Directory {
            self.times.push((inode, changes));
            return Ok(());
        }
        self.filesystem.set_attributes(inode, &changes)?;
        Ok(())
    }
}
