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
    FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, InitFlags,
    KernelConfig, LockOwner, Notifier, OpenAccMode, OpenFlags, ReplyAttr, ReplyData,
    ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite,
    ReplyXattr, Request, WriteFlags,
};

use crate::convert::new_attributes;
use crate::reply::{Answer, configure, process, sized};

const BLOCK: u32 = 4096;
/// Handles of files that the kernel caches, and of those that it does not.
const THROUGH_CACHE: FileHandle = FileHandle(0);
const PAST_CACHE: FileHandle = FileHandle(1);

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
    /// Which of them the kernel may have in its cache: those that were opened to be read.
    cached: Vec<AtomicBool>,
    read_only: bool,
    /// The kernel keeps its cache right when somebody writes past it (Linux 6.6).
    coherent: bool,
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
            coherent: false,
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

    /// A file whose content is asked for; the folder itself has none.
    fn content(&self, inode: INodeNo) -> Result<&DiskFile, Error> {
        self.file(inode).ok_or_else(errors::is_a_directory)
    }

    /// The same, to be changed.
    fn target(&self, inode: INodeNo) -> Result<&DiskFile, Error> {
        let file = self.content(inode)?;
        if self.writable(file) { Ok(file) } else { Err(errors::read_only()) }
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
            ..new_attributes(INodeNo(inode))
        }
    }

    /// How a file is opened. Who only writes goes past the kernel's cache: that is one copy less.
    fn opened(&self, inode: INodeNo, flags: OpenFlags) -> Result<(FileHandle, FopenFlags), Error> {
        if flags.acc_mode() != OpenAccMode::O_RDONLY {
            self.target(inode)?;
        }
        self.content(inode)?;
        if self.coherent && flags.acc_mode() == OpenAccMode::O_WRONLY {
            return Ok((PAST_CACHE, FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_KEEP_CACHE));
        }
        if let Some(cached) = self.cached.get((inode.0 - 2) as usize) {
            cached.store(true, Ordering::Release);
        }
        // Stale ranges are told, so the cache may be kept.
        Ok((THROUGH_CACHE, FopenFlags::FOPEN_KEEP_CACHE))
    }

    fn write_part(
        &self,
        inode: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
    ) -> Result<usize, Error> {
        let file = self.content(inode)?;
        let room = file.disk.size().saturating_sub(offset);
        if room == 0 && !data.is_empty() {
            return Err(errors::no_space());
        }
        let data = &data[..data.len().min(usize::try_from(room).unwrap_or(usize::MAX))];
        file.disk.write_at(data, offset)?;
        let known = (handle == THROUGH_CACHE).then_some(inode);
        self.written(known, file, offset, data.len() as u64);
        Ok(data.len())
    }

    /// `fallocate`: what it can do to a disk.
    fn make_room(&self, inode: INodeNo, offset: u64, length: u64, how: i32) -> Result<(), Error> {
        let file = self.target(inode)?;
        let length = length.min(file.disk.size().saturating_sub(offset));
        match how & !libc::FALLOC_FL_KEEP_SIZE {
            libc::FALLOC_FL_PUNCH_HOLE => {
                file.disk.write_zeroes(offset, length, ZeroMode::Unmap)?
            }
            libc::FALLOC_FL_ZERO_RANGE => file.disk.write_zeroes(offset, length, ZeroMode::Keep)?,
            0 => {}
            _ => return Err(errors::not_supported()),
        }
        self.written(Some(inode), file, offset, length);
        Ok(())
    }

    /// Files that show the same bytes must not answer from the kernel's cache any more, but for the
    /// one of which the kernel knows.
    fn written(&self, known: Option<INodeNo>, file: &DiskFile, offset: u64, length: u64) {
        let Some(sender) = self.stale.get() else { return };
        let (from, to) = (file.start + offset, file.start + offset + length);
        let (told, wait) = channel();
        for (index, other) in self.files.iter().enumerate() {
            let number = index as u64 + 2;
            let (first, last) = (from.max(other.start), to.min(other.end()));
            let cached = self.cached[index].load(Ordering::Acquire);
            if known == Some(INodeNo(number)) || first >= last || !cached {
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
        // Where it allows such files to be mapped, it also writes back and forgets before each write
        // what it has of them.
        self.coherent = config.add_capabilities(InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP).is_ok();
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
        reply.answer(self.opened(ino, flags));
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
        crate::reply::read(reply, size, |buffer| {
            let file = self.content(ino)?;
            let left = file.disk.size().saturating_sub(offset);
            let length = left.min(buffer.len() as u64) as usize;
            file.disk.read_at(&mut buffer[..length], offset)?;
            Ok(length)
        });
    }

    fn write(
        &self,
        _req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        reply.answer(self.write_part(ino, fh, offset, data));
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
        sized(reply, size, &process(ino, name).ok_or_else(errors::no_data));
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
        reply.answer(self.make_room(ino, offset, length, mode));
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
        let file = self.content(ino);
        let found = file.and_then(|file| seek(&*file.disk, offset, whence == libc::SEEK_DATA));
        reply.answer(found);
    }
}

/// The next data or hole from `offset` on. What this layer does not have counts as data,
/// for the backing layer may.
fn seek(disk: &dyn Disk, offset: i64, data: bool) -> Result<u64, Error> {
    let size = disk.size();
    let offset = u64::try_from(offset).ok().filter(|offset| *offset < size);
    let mut at = offset.ok_or_else(errors::no_such_address)?;
    while at < size {
        let extent = disk.map(at, size - at)?;
        if (extent.state != State::Zero) == data {
            return Ok(at);
        }
        at += extent.length;
    }
    // Every file ends with a hole.
    if data { Err(errors::no_such_address()) } else { Ok(size) }
}
