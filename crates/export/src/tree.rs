//! A tree of files as a FUSE mount.
//!
//! The kernel is the only one who changes the tree while it is mounted, so it may cache
//! everything for ever: names, attributes, directories, data. What is written comes at once: written
//! back later, each file that is closed would cost a request for its times and a wait more. Files
//! need no handles; "open" and "flush" are answered once with "not implemented", after which the
//! kernel does not ask any more.

mod flags;
mod requests;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use disksmith_disk::Error;
use disksmith_filesystems::{
    Attributes, Changes, Device, Entry, FileKind, Filesystem as Tree, NewFile, acl,
};
use fuser::{
    FileType, Generation, INodeNo, ReplyData, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, Request,
    WriteFlags,
};

use crate::convert::{attributes, file_type, new_attributes};
use crate::privileges;
use crate::reply::{Answer, KEEP, process};
use crate::workers::{Pace, Workers};

/// Changes wait at most so long before they are made durable.
const COMMIT_EVERY: Duration = Duration::from_secs(5);
/// The attribute that holds a file's SELinux label.
const LABEL: &[u8] = b"security.selinux";
/// Names that are read from a directory at once.
const BATCH: usize = 256;

/// A filesystem, ready to be mounted.
#[derive(Debug)]
pub struct TreeMount {
    tree: Arc<dyn Tree>,
    changed: Arc<AtomicBool>,
    root: u64,
    checked: bool,
    /// Files bear SELinux labels.
    labelled: AtomicBool,
    workers: Workers,
    pace: Arc<Pace>,
}

impl TreeMount {
    /// A mount of `tree`. It is not closed when the mount ends: that is the caller's. `checked`:
    /// the kernel is to check permissions by modes and access lists; else whoever gets at the
    /// mount may all.
    pub fn new(tree: Arc<dyn Tree>, checked: bool) -> Self {
        let root = tree.root();
        Self::below(tree, root, checked)
    }

    /// The same of what is below the directory `root` of the tree.
    pub fn below(tree: Arc<dyn Tree>, root: u64, checked: bool) -> Self {
        // Where any file has one, the root has.
        let labelled = AtomicBool::new(tree.xattr(root, LABEL).is_ok());
        Self {
            tree,
            changed: Arc::default(),
            root,
            checked,
            labelled,
            workers: Workers::default(),
            pace: Arc::default(),
        }
    }

    /// Makes changes durable now and then, as long as the mount lives.
    fn commit_regularly(&self) {
        let (tree, changed) = (Arc::downgrade(&self.tree), self.changed.clone());
        std::thread::spawn(move || {
            loop {
                let Some(tree) = tree.upgrade() else { return };
                tree.wait_until_due(COMMIT_EVERY);
                if changed.swap(false, Ordering::AcqRel) {
                    // The one who asks for durability gets the error; here nobody listens.
                    let _ = tree.sync();
                }
            }
        });
    }

    /// The tree's number of a node: the kernel calls the root 1.
    fn inode(&self, node: INodeNo) -> u64 {
        match node {
            INodeNo::ROOT => self.root,
            INodeNo(number) => number,
        }
    }

    fn is_root(&self, node: INodeNo) -> bool {
        node == INodeNo::ROOT
    }

    fn touch(&self) {
        self.changed.store(true, Ordering::Release);
    }

    /// Answers a found or made file; the kernel holds it from now on.
    fn entry(&self, reply: ReplyEntry, found: Result<Attributes, Error>) {
        reply.answer(found.map(|found| {
            self.tree.hold(found.inode);
            (attributes(&found), Generation(u64::from(found.generation)))
        }));
    }

    /// Answers a file that `work` makes.
    fn made(&self, reply: ReplyEntry, work: impl FnOnce(&dyn Tree) -> Result<Attributes, Error>) {
        self.touch();
        self.entry(reply, work(&*self.tree));
    }

    /// Makes what was done to a file durable, in a thread that may wait.
    fn make_durable(&self, node: INodeNo, reply: ReplyEmpty) {
        let (tree, inode) = (self.tree.clone(), self.inode(node));
        self.workers.run(move || reply.answer(tree.fsync(inode)));
    }

    /// Reads in a thread of its own while reads are slow, so that others are answered meanwhile.
    fn read_part(&self, node: INodeNo, offset: u64, size: u32, reply: ReplyData) {
        let (tree, inode, pace) = (self.tree.clone(), self.inode(node), self.pace.clone());
        let slow = pace.is_slow();
        let work = move || {
            crate::reply::read(reply, size, |buffer| {
                let start = Instant::now();
                let read = tree.read(inode, offset, buffer);
                pace.note(buffer.len(), start.elapsed());
                read
            });
        };
        if slow { self.workers.run(work) } else { work() }
    }

    fn write_part(
        &self,
        node: INodeNo,
        offset: u64,
        data: &[u8],
        flags: WriteFlags,
    ) -> Result<usize, Error> {
        self.touch();
        let inode = self.inode(node);
        self.tree.write(inode, offset, data)?;
        if flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID) {
            self.drop_privileges(inode)?;
        }
        Ok(data.len())
    }

    fn done(&self, reply: ReplyEmpty, result: Result<(), Error>) {
        self.touch();
        reply.answer(result);
    }

    /// The next entries of a directory.
    fn batch(&self, directory: u64, cookie: u64) -> Result<Vec<Entry>, Error> {
        let mut entries = Vec::new();
        self.tree.read_directory(directory, cookie, &mut |entry| {
            entries.push(entry);
            entries.len() < BATCH
        })?;
        Ok(entries)
    }

    /// Tells of a directory's next entries, until `add` says that there is no more room.
    fn list(
        &self,
        directory: INodeNo,
        cookie: u64,
        add: impl FnMut(&Entry) -> bool,
    ) -> Result<(), Error> {
        let entries = self.batch(self.inode(directory), cookie)?;
        let _ = entries.iter().any(add);
        Ok(())
    }

    /// Adds an entry with its attributes; the kernel then holds the file. True: no room.
    fn add_known(&self, reply: &mut ReplyDirectoryPlus, entry: &Entry) -> bool {
        let dots = entry.name == b"." || entry.name == b"..";
        let name = OsStr::from_bytes(&entry.name);
        // An inode that cannot be read does not hide its neighbours: the name is told without
        // attributes, and looking at it then fails. Dots are not looked up either.
        let found = if dots { None } else { self.tree.attributes(entry.inode).ok() };
        let Some(found) = found else {
            let mut unknown = new_attributes(INodeNo(entry.inode));
            unknown.kind = entry.kind.map_or(FileType::Directory, file_type);
            let (none, new) = (INodeNo(0), Generation(0));
            return reply.add(none, entry.cookie, name, &Duration::ZERO, &unknown, new);
        };
        self.tree.hold(found.inode);
        let (node, generation) = (INodeNo(found.inode), Generation(u64::from(found.generation)));
        let full = reply.add(node, entry.cookie, name, &KEEP, &attributes(&found), generation);
        if full {
            let _ = self.tree.release(found.inode, 1);
        }
        full
    }

    /// Makes a file: with the list that its directory has for new ones, else less the umask.
    fn make(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        (kind, mode, umask, device): (FileKind, u32, u32, Device),
    ) -> Result<Attributes, Error> {
        self.touch();
        let parent = self.inode(parent);
        let inherited = acl::get(&*self.tree, parent, acl::DEFAULT)?;
        let mask = if inherited.is_some() { 0 } else { umask };
        let mode = (mode & !mask & 0o7777) as u16;
        let file = NewFile { kind, mode, uid: request.uid(), gid: request.gid(), device };
        let made = self.tree.create(parent, name.as_bytes(), &file)?;
        let Some(list) = inherited else { return Ok(made) };
        if kind == FileKind::Directory {
            self.tree.set_xattr(made.inode, acl::DEFAULT, &list.encode(), None)?;
        }
        let list = list.inherited(mode);
        acl::set(&*self.tree, made.inode, acl::ACCESS, &list.encode())?;
        self.tree.attributes(made.inode)
    }

    fn drop_privileges(&self, inode: u64) -> Result<(), Error> {
        let mode = self.tree.attributes(inode)?.mode;
        let mode = Some(privileges::drop_from(mode)).filter(|dropped| *dropped != mode);
        if mode.is_some() {
            self.tree.set_attributes(inode, &Changes { mode, ..Changes::default() })?;
        }
        Ok(())
    }

    fn xattr_value(&self, node: INodeNo, name: &OsStr) -> Result<Vec<u8>, Error> {
        match process(node, name) {
            Some(number) => Ok(number),
            None => self.tree.xattr(self.inode(node), name.as_bytes()).map_err(|error| {
                // 'ls -l' asks for each file's label until it is told that there are none here.
                let none = name.as_bytes() == LABEL && !self.labelled.load(Ordering::Acquire);
                if none && error.errno() == Some(libc::ENODATA) {
                    Error::from_errno(libc::EOPNOTSUPP)
                } else {
                    error
                }
            }),
        }
    }
}

/// Sets attributes; privileges go where they must, and access lists follow the mode.
fn change(
    tree: &dyn Tree,
    inode: u64,
    mut changes: Changes,
    root: bool,
) -> Result<Attributes, Error> {
    let mode = changes.mode;
    if changes.uid.is_some() || changes.gid.is_some() || changes.size.is_some() {
        let found = tree.attributes(inode)?;
        changes.mode = privileges::drop_with(&changes, &found, root).or(mode);
    }
    let found = tree.set_attributes(inode, &changes)?;
    if let Some(mode) = mode {
        acl::follow_mode(tree, inode, mode)?;
    }
    Ok(found)
}
