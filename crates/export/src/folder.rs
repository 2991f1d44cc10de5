//! A FUSE folder whose files are disks.

use std::ffi::OsStr;
use std::io;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use disksmith_disk::{Disk, Error, State, ZeroMode};
use fuser::{
    Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, InitFlags,
    KernelConfig, LockOwner, Notifier, OpenAccMode, OpenFlags, ReplyAttr, ReplyData,
    ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite,
    ReplyXattr, Request, WriteFlags,
};

use crate::session::PROCESS_XATTR;

/// How long the kernel may keep names and attributes: they never change by themselves.
const KEEP: Duration = Duration::from_secs(3600);
/// Largest request; the kernel's own bound today.
const MAX_REQUEST: u32 = 1 << 20;
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
}

impl DiskFolder {
    /// A folder of these files. Files of read-only disks are read-only, all are with
    /// `read_only`.
    pub fn new(files: Vec<DiskFile>, read_only: bool) -> Self {
        let owner = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        Self {
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
        for (index, other) in self.files.iter().enumerate() {
            let number = index as u64 + 2;
            let (first, last) = (from.max(other.start), to.min(other.end()));
            if number == inode.0 || first >= last {
                continue;
            }
            let stale = Stale {
                inode: number,
                offset: (first - other.start) as i64,
                length: (last - first) as i64,
            };
            // The receiver ends only with the process.
            let _ = sender.send(stale);
        }
    }
}

fn errno(error: &Error) -> Errno {
    use disksmith_disk::Kind;
    let number = error.errno().unwrap_or(match error.kind() {
        Kind::InvalidInput => libc::EINVAL,
        Kind::Refused => libc::EROFS,
        Kind::OutOfSpace => libc::ENOSPC,
        Kind::Unsupported => libc::EOPNOTSUPP,
        _ => libc::EIO,
    });
    Errno::from_i32(number)
}

impl Filesystem for DiskFolder {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // Refusals only mean that the kernel's own, smaller bounds hold.
        let _ = config.set_max_write(MAX_REQUEST);
        let _ = config.set_max_readahead(MAX_REQUEST);
        let _ = config.set_max_background(64);
        let _ =
            config.add_capabilities(InitFlags::FUSE_ASYNC_READ | InitFlags::FUSE_PARALLEL_DIROPS);
        // Where no two files show the same bytes, the kernel may gather writes as it does for a
        // disk of its own.
        if self.files.len() == 1 {
            let _ = config.add_capabilities(InitFlags::FUSE_WRITEBACK_CACHE);
        }
        Ok(())
    }

    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.find(name) {
            Some((inode, file)) if parent == INodeNo::ROOT => {
                reply.entry(&KEEP, &self.attributes(inode, Some(file)), Generation(0));
            }
            _ => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        match self.file(ino) {
            None if ino == INodeNo::ROOT => reply.attr(&KEEP, &self.attributes(1, None)),
            None => reply.error(Errno::ENOENT),
            Some(file) => reply.attr(&KEEP, &self.attributes(ino.0, Some(file))),
        }
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
        match self.file(ino) {
            Some(file) if size.is_none_or(|size| size <= file.disk.size()) => {
                reply.attr(&KEEP, &self.attributes(ino.0, Some(file)));
            }
            Some(_) => reply.error(Errno::from_i32(libc::EFBIG)),
            None if ino == INodeNo::ROOT => reply.attr(&KEEP, &self.attributes(1, None)),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn open(&self, _req: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        match self.file(ino) {
            None => reply.error(Errno::EISDIR),
            Some(file) if flags.acc_mode() != OpenAccMode::O_RDONLY && !self.writable(file) => {
                reply.error(Errno::EROFS);
            }
            // Stale ranges are told, so the cache may be kept.
            Some(_) => reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE),
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
        crate::buffer::with(length, |buffer| match file.disk.read_at(buffer, offset) {
            Ok(()) => reply.data(buffer),
            Err(error) => reply.error(errno(&error)),
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
        match file.disk.write_at(data, offset) {
            Ok(()) => {
                self.written(ino, file, offset, data.len() as u64);
                reply.written(data.len() as u32);
            }
            Err(error) => reply.error(errno(&error)),
        }
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
        match self.file(ino).map(|file| file.disk.flush()) {
            Some(Err(error)) => reply.error(errno(&error)),
            _ => reply.ok(),
        }
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
        match self.files.iter().try_for_each(|file| file.disk.flush()) {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn getxattr(&self, _req: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        if ino != INodeNo::ROOT || name != PROCESS_XATTR {
            return reply.error(Errno::from_i32(libc::ENODATA));
        }
        let value = std::process::id().to_string();
        match size as usize {
            0 => reply.size(value.len() as u32),
            size if size < value.len() => reply.error(Errno::ERANGE),
            _ => reply.data(value.as_bytes()),
        }
    }

    fn listxattr(&self, _req: &Request, _ino: INodeNo, size: u32, reply: ReplyXattr) {
        match size {
            0 => reply.size(0),
            _ => reply.data(&[]),
        }
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
        reply.statfs(blocks, 0, 0, self.files.len() as u64, 0, BLOCK, 255, BLOCK);
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
        match done {
            Ok(()) => {
                self.written(ino, file, offset, length);
                reply.ok();
            }
            Err(error) => reply.error(errno(&error)),
        }
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
        match seek(&*file.disk, offset, whence == libc::SEEK_DATA) {
            Ok(Some(at)) => reply.offset(at as i64),
            Ok(None) => reply.error(Errno::ENXIO),
            Err(error) => reply.error(errno(&error)),
        }
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
