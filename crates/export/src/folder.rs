//! A FUSE folder whose files are disks.

use std::ffi::OsStr;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use disksmith_disk::{Disk, Error, State, ZeroMode};
use disksmith_filesystems::{Statistics, errors};
use fuser::{
    Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, InitFlags,
    KernelConfig, LockOwner, Notifier, OpenAccMode, OpenFlags, ReplyAttr, ReplyData,
    ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite,
    ReplyXattr, Request, WriteFlags,
};

use crate::reply::{Answer, MAX_REQUEST, configure, sized};
use crate::session::PROCESS_XATTR;

const BLOCK: u32 = 4096;

/// One file of a folder.
#[derive(Debug)]
pub struct DiskFile {
    /// Its name in the folder.
    pub name: String,
    /// Its content.
    pub disk: Arc<dyn Disk>,
    /// Where its bytes lie in the whole disk: files that overlap there are kept coherent.
    pub start: u64,
}

impl DiskFile {
    fn end(&self) -> u64 {
        self.start + self.disk.size()
    }
}

/// A folder of disk files, as a FUSE filesystem.
#[derive(Debug)]
pub struct DiskFolder {
    files: Arc<Vec<DiskFile>>,
    /// Which of them the kernel may have in its cache: those that were opened.
    cached: Vec<AtomicBool>,
    read_only: bool,
    made: SystemTime,
    owner: (u32, u32),
    stale: OnceLock<Sender<Stale>>,
}

/// A range of a file that the kernel must read anew: another file that shares it was written.
struct Stale {
    inode: u64,
    offset: i64,
    length: i64,
    /// Dropped when the kernel was told.
    told: Sender<()>,
}

/// A write is answered when the kernel has forgotten what it made stale; or after this, where the
/// kernel itself waits for the answer to another request and no thread of ours is left for it.
const PATIENCE: Duration = Duration::from_millis(100);

impl DiskFolder {
    /// A folder of these files. Files of read-only disks are read-only, all are with
    /// `read_only`.
    pub fn new(files: Vec<DiskFile>, read_only: bool) -> Self {
        let owner = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        Self {
            cached: files.iter().map(|_| AtomicBool::new(false)).collect(),
            files: Arc::new(files),
            read_only,
            made: SystemTime::now(),
            owner,
            stale: OnceLock::new(),
        }
    }

    /// What `flush` must reach when the mount ends.
    pub(crate) fn disks(&self) -> Vec<Arc<dyn Disk>> {
        self.files.iter().map(|file| file.disk.clone()).collect()
    }

    /// Starts the thread that tells the kernel of stale ranges. It is a thread of its own
    /// because the kernel may need an answer to another request before it takes the notice.
    pub(crate) fn watch(&self) -> impl FnOnce(Notifier) + use<> {
        let (sender, receiver) = channel::<Stale>();
        // Set once, before the mount exists.
        let _ = self.stale.set(sender);
        move |notifier| {
            std::thread::spawn(move || {
                for stale in receiver {
                    // An inode that the kernel does not know has nothing to forget.
                    let _ = notifier.inval_inode(INodeNo(stale.inode), stale.offset, stale.length);
                    drop(stale.told);
                }
            });
        }
    }

    fn file(&self, inode: INodeNo) -> Option<&DiskFile> {
        self.files.get(usize::try_from(inode.0).ok()?.checked_sub(2)?)
    }

    fn find(&self, name: &OsStr) -> Option<(u64, &DiskFile)> {
        let at = self.files.iter().position(|file| OsStr::new(&file.name) == name)?;
        Some((at as u64 + 2, &self.files[at]))
    }

    fn writable(&self, file: &DiskFile) -> bool {
        !self.read_only && !file.disk.read_only()
    }

    /// The folder's own, or those of a file.
    fn known(&self, inode: INodeNo) -> Result<FileAttr, Error> {
        match self.file(inode) {
            None if inode != INodeNo::ROOT => Err(errors::not_found()),
            file => Ok(self.attributes(inode.0, file)),
        }
    }

    fn attributes(&self, inode: u64, file: Option<&DiskFile>) -> FileAttr {
        let (kind, perm, size) = match file {
            None => (FileType::Directory, 0o500, 0),
            Some(file) if self.writable(file) => (FileType::RegularFile, 0o600, file.disk.size()),
            Some(file) => (FileType::RegularFile, 0o400, file.disk.size()),
        };
        FileAttr {
            ino: INodeNo(inode),
            size,
            blocks: size.div_ceil(512),
            atime: self.made,
            mtime: self.made,
            ctime: self.made,
            crtime: self.made,
            kind,
            perm,
            nlink: if file.is_some() { 1 } else { 2 },
            uid: self.owner.0,
            gid: self.owner.1,
            rdev: 0,
            blksize: BLOCK,
            flags: 0,
        }
    }

    /// Other files that show the same bytes must not answer from the kernel's cache any more.
    fn written(&self, inode: INodeNo, file: &DiskFile, offset: u64, length: u64) {
        let Some(sender) = self.stale.get() else { return };
        let (from, to) = (file.start + offset, file.start + offset + length);
        let (told, wait) = channel();
        for (index, other) in self.files.iter().enumerate() {
            let number = index as u64 + 2;
            let (first, last) = (from.max(other.start), to.min(other.end()));
            let cached = self.cached[index].load(Ordering::Acquire);
            if number == inode.0 || first >= last || !cached {
                continue;
            }
            let stale = Stale {
                inode: number,
                offset: (first - other.start) as i64,
                length: (last - first) as i64,
                told: told.clone(),
            };
            // The receiver ends only with the process.
            let _ = sender.send(stale);
        }
        drop(told);
        // Nothing is ever sent: it ends when all have been told.
        let _ = wait.recv_timeout(PATIENCE);
    }
}

impl Filesystem for DiskFolder {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // No write-back: writes come in large pieces anyway, gathering them costs the kernel more
        // than it saves, and files that show the same bytes would lose sight of each other's.
        configure(config, &[InitFlags::FUSE_ASYNC_READ, InitFlags::FUSE_PARALLEL_DIROPS]);
        Ok(())
    }

    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let found = self.find(name).filter(|_| parent == INodeNo::ROOT);
        let found = found.map(|(inode, file)| self.attributes(inode, Some(file)));
        reply.answer(found.map(|found| (found, Generation(0))).ok_or_else(errors::not_found));
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        reply.answer(self.known(ino));
    }

    fn setattr(
        &self,
        _req: &Request,
        ino: INodeNo,
        _mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<fuser::TimeOrNow>,
        _mtime: Option<fuser::TimeOrNow>,
        _ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<fuser::BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        // A disk keeps its size: `cp` onto it truncates to 0 first and means the content, a
        // growing size is an error.
        match self.file(ino).zip(size) {
            Some((file, size)) if size > file.disk.size() => {
                reply.answer(Err(errors::too_big()));
            }
            _ => reply.answer(self.known(ino)),
        }
    }

    fn open(&self, _req: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        match self.file(ino) {
            None => reply.error(Errno::EISDIR),
            Some(file) if flags.acc_mode() != OpenAccMode::O_RDONLY && !self.writable(file) => {
                reply.error(Errno::EROFS);
            }
            // Stale ranges are told, so the cache may be kept.
            Some(_) => {
                if let Some(cached) = self.cached.get((ino.0 - 2) as usize) {
                    cached.store(true, Ordering::Release);
                }
                reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE);
            }
        }
    }

    fn read(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let Some(file) = self.file(ino) else { return reply.error(Errno::EISDIR) };
        let left = file.disk.size().saturating_sub(offset);
        let length = left.min(u64::from(size.min(MAX_REQUEST))) as usize;
        crate::buffer::with(length, |buffer| {
            let read = file.disk.read_at(buffer, offset);
            reply.answer(read.map(|()| &*buffer));
        });
    }

    fn write(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let Some(file) = self.file(ino) else { return reply.error(Errno::EISDIR) };
        let room = file.disk.size().saturating_sub(offset);
        if room == 0 && !data.is_empty() {
            return reply.error(Errno::ENOSPC);
        }
        let data = &data[..data.len().min(usize::try_from(room).unwrap_or(usize::MAX))];
        let written = file.disk.write_at(data, offset);
        reply.answer(written.map(|()| {
            self.written(ino, file, offset, data.len() as u64);
            data.len()
        }));
    }

    fn flush(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        // Called at each close; durability is fsync's matter.
        reply.ok();
    }

    fn fsync(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        reply.answer(self.file(ino).map_or(Ok(()), |file| file.disk.flush()));
    }

    fn fsyncdir(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        // Of the folder: all files.
        reply.answer(self.files.iter().try_for_each(|file| file.disk.flush()));
    }

    fn getxattr(&self, _req: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let value = match ino == INodeNo::ROOT && name == PROCESS_XATTR {
            true => Ok(std::process::id().to_string()),
            false => Err(errors::no_data()),
        };
        sized(reply, size, &value);
    }

    fn listxattr(&self, _req: &Request, _ino: INodeNo, size: u32, reply: ReplyXattr) {
        sized(reply, size, &Ok([]));
    }

    fn readdir(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let dots = [(1, FileType::Directory, "."), (1, FileType::Directory, "..")];
        let files = self.files.iter().enumerate();
        let files = files.map(|(n, f)| (n as u64 + 2, FileType::RegularFile, f.name.as_str()));
        let all = dots.into_iter().chain(files).enumerate();
        for (index, (inode, kind, name)) in all.skip(usize::try_from(offset).unwrap_or(usize::MAX))
        {
            if reply.add(INodeNo(inode), index as u64 + 1, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn statfs(&self, _req: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        let blocks = self.files.first().map_or(0, |f| f.disk.size() / u64::from(BLOCK));
        let found = Statistics {
            block_size: BLOCK,
            blocks,
            free: 0,
            available: 0,
            inodes: self.files.len() as u64,
            free_inodes: 0,
            name_length: 255,
        };
        reply.answer(Ok(found));
    }

    fn fallocate(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let Some(file) = self.file(ino) else { return reply.error(Errno::EISDIR) };
        if !self.writable(file) {
            return reply.error(Errno::EROFS);
        }
        let length = length.min(file.disk.size().saturating_sub(offset));
        let zero = |mode| file.disk.write_zeroes(offset, length, mode);
        let done = match mode & !libc::FALLOC_FL_KEEP_SIZE {
            libc::FALLOC_FL_PUNCH_HOLE => zero(ZeroMode::Unmap),
            libc::FALLOC_FL_ZERO_RANGE => zero(ZeroMode::Keep),
            0 => Ok(()),
            _ => return reply.error(Errno::EOPNOTSUPP),
        };
        reply.answer(done.map(|()| self.written(ino, file, offset, length)));
    }

    fn lseek(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        let Some(file) = self.file(ino) else { return reply.error(Errno::EISDIR) };
        let Ok(offset) = u64::try_from(offset) else { return reply.error(Errno::ENXIO) };
        let found = seek(&*file.disk, offset, whence == libc::SEEK_DATA);
        reply.answer(found.and_then(|at| at.ok_or_else(errors::no_such_address)));
    }
}

/// The next data or hole from `offset` on. What this layer does not have counts as data,
/// for the backing layer may.
fn seek(disk: &dyn Disk, offset: u64, data: bool) -> disksmith_disk::Result<Option<u64>> {
    let size = disk.size();
    if offset >= size {
        return Ok(None);
    }
    let mut at = offset;
    while at < size {
        let extent = disk.map(at, size - at)?;
        if (extent.state != State::Zero) == data {
            return Ok(Some(at));
        }
        at += extent.length;
    }
    // Every file ends with a hole.
    Ok(if data { None } else { Some(size) })
}
