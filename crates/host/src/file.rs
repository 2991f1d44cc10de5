//! A host file or block device as a disk.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use disksmith_disk::{
    Context, Disk, Error, Extent, FailedFlush, Geometry, Kind, Result, State, ZeroMode,
};
use rustix::fs::{FallocateFlags, SeekFrom};
use rustix::io::Errno;

use crate::LockSet;
use crate::device;
use crate::direct::Direct;

/// Zeroes written at once where the host cannot zero a range by itself.
const ZERO_STEP: usize = 1 << 20;

/// How to open a file.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct OpenOptions {
    /// For writing too.
    pub write: bool,
    /// Make the file if it is not there.
    pub create: bool,
    /// Bypass the page cache (`cache=none`, `directsync`). Requests are then aligned here.
    pub direct: bool,
    /// Every write is durable when it returns (`writethrough`, `directsync`).
    pub sync: bool,
    /// Flushes do nothing (`cache=unsafe`).
    pub no_flush: bool,
}

/// Tells whether two open files are one.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct FileId {
    /// The device that holds the file.
    pub device: u64,
    /// Its number there.
    pub inode: u64,
}

/// A regular file or block device as a disk. Regular files grow when written past their end.
#[derive(Debug)]
pub struct FileDisk {
    file: File,
    path: PathBuf,
    options: OpenOptions,
    block_device: bool,
    size: AtomicU64,
    /// Held while flushing, so that nobody returns early because another one is at it.
    flushing: Mutex<()>,
    failed_flush: FailedFlush,
    /// Something may have changed since the last flush.
    changed: AtomicBool,
    /// The host said once that it cannot do this; not asked again.
    no_zero_range: AtomicBool,
    no_punch: AtomicBool,
    /// The run of data that [`map`](Disk::map) found last: finding its end can be slow. Writing
    /// leaves it data; what may make holes forgets it.
    known_data: Mutex<std::ops::Range<u64>>,
    locks: Mutex<LockSet>,
    /// Requests go past the page cache.
    direct: Option<Direct>,
}

impl FileDisk {
    /// Opens `path`: a regular file or a block device, nothing else.
    pub fn open(path: &Path, options: OpenOptions) -> Result<Self> {
        let mut flags = libc::O_CLOEXEC;
        if options.sync {
            flags |= libc::O_DSYNC;
        }
        if options.direct {
            flags |= libc::O_DIRECT;
        }
        let file = File::options()
            .read(true)
            .write(options.write)
            .create(options.create)
            // A pipe in the place of an image must be refused below, not waited for.
            .custom_flags(flags | libc::O_NONBLOCK)
            .open(path);
        let file = match file {
            Err(error) if options.direct && error.raw_os_error() == Some(libc::EINVAL) => {
                return Err(Error::new(Kind::Unsupported, "filesystem does not support O_DIRECT"));
            }
            file => file?,
        };
        let kind = file.metadata()?.file_type();
        if !kind.is_file() && !kind.is_block_device() {
            let what = match () {
                () if kind.is_dir() => "it is a directory",
                () if kind.is_fifo() => "it is a pipe",
                () if kind.is_char_device() => "it is a character device",
                () => "it is neither a regular file nor a block device",
            };
            return Err(Error::new(Kind::InvalidInput, what));
        }
        Self::from_file(file, path, options)
    }

    /// Wraps an open file; `path` is for messages and locks' owners only.
    pub fn from_file(file: File, path: &Path, options: OpenOptions) -> Result<Self> {
        let metadata = file.metadata()?;
        let block_device = metadata.file_type().is_block_device();
        let size = if block_device { device::size(file.as_fd())? } else { metadata.len() };
        let sector = block_device.then(|| device::geometry(file.as_fd()).sector);
        let direct = options.direct.then(|| Direct::new(&file, sector));
        Ok(Self {
            direct,
            file,
            path: path.to_path_buf(),
            options,
            block_device,
            size: AtomicU64::new(size),
            flushing: Mutex::default(),
            failed_flush: FailedFlush::default(),
            changed: AtomicBool::new(false),
            no_zero_range: AtomicBool::new(false),
            no_punch: AtomicBool::new(false),
            known_data: Mutex::default(),
            locks: Mutex::new(LockSet::default()),
        })
    }

    /// The path it was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The open file.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Whether it is a block device.
    pub fn is_block_device(&self) -> bool {
        self.block_device
    }

    /// Whether requests go past the page cache.
    pub fn is_direct(&self) -> bool {
        self.direct.is_some()
    }

    /// Which file it is.
    pub fn id(&self) -> Result<FileId> {
        let metadata = self.file.metadata()?;
        Ok(match self.block_device {
            true => FileId { device: metadata.rdev(), inode: 0 },
            false => FileId { device: metadata.dev(), inode: metadata.ino() },
        })
    }

    /// Bytes that the host has allocated for it.
    pub fn allocated(&self) -> Result<u64> {
        match self.block_device {
            true => Ok(self.size()),
            false => Ok(self.file.metadata()?.blocks() * 512),
        }
    }

    /// Takes and releases locks so that `wanted` is what is held. On conflict nothing changes,
    /// and the error is of kind [`Kind::InUse`].
    pub fn lock(&self, wanted: LockSet) -> Result<()> {
        let mut held = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
        crate::lock::change(&self.file, &self.path, *held, wanted)?;
        *held = wanted;
        Ok(())
    }

    /// Reserves storage for a range, without changing what it reads as.
    pub fn allocate(&self, offset: u64, length: u64) -> Result<()> {
        if length == 0 {
            return Ok(());
        }
        self.change(|| {
            rustix::fs::fallocate(&self.file, FallocateFlags::empty(), offset, length)
                .map_err(from_errno)
        })?;
        self.grown(offset + length);
        Ok(())
    }

    /// Starts writing a range (length 0: up to the end) to the disk, without waiting for it.
    /// Nothing when flushes do nothing.
    pub fn start_writeback(&self, offset: u64, length: u64) {
        if self.options.no_flush {
            return;
        }
        device::start_writeback(self.file.as_fd(), offset, length);
    }

    /// Tells the kernel that a range will not be needed again soon.
    pub fn drop_cache(&self, offset: u64, length: u64) {
        let length = std::num::NonZeroU64::new(length);
        // Advice only: a failure changes nothing.
        let _ = rustix::fs::fadvise(&self.file, offset, length, rustix::fs::Advice::DontNeed);
    }

    /// Tells the kernel to read no more than it is asked for.
    pub fn no_readahead(&self) {
        // Advice only: a failure changes nothing.
        let _ = rustix::fs::fadvise(&self.file, 0, None, rustix::fs::Advice::Random);
    }

    /// Whether the file can have holes; what the host compresses counts as if it had.
    pub fn may_have_holes(&self) -> bool {
        !self.block_device
            && self.file.metadata().map_or(true, |status| status.blocks() * 512 < status.len())
    }

    fn forget_map(&self) {
        *self.known_data.lock().unwrap_or_else(PoisonError::into_inner) = 0..0;
    }

    /// Where the data at `offset` ends, if that is known.
    fn known_data_end(&self, offset: u64) -> Option<u64> {
        let known = self.known_data.lock().unwrap_or_else(PoisonError::into_inner);
        known.contains(&offset).then_some(known.end)
    }

    fn grown(&self, end: u64) {
        self.size.fetch_max(end, Ordering::AcqRel);
    }

    fn write_out_zeroes(&self, offset: u64, length: u64) -> Result<()> {
        let zeroes = vec![0; ZERO_STEP.min(length as usize)];
        let mut done = 0;
        while done < length {
            let step = (length - done).min(zeroes.len() as u64);
            self.write_at(&zeroes[..step as usize], offset + done)?;
            done += step;
        }
        Ok(())
    }

    /// Zeroes a range by the host's own means. `false`: it has none.
    fn zero_by_host(&self, offset: u64, length: u64, mode: ZeroMode) -> Result<bool> {
        if self.block_device {
            return device::zero_out(self.file.as_fd(), offset, length);
        }
        let old = self.size();
        let end = offset + length;
        let inside = end.min(old).saturating_sub(offset);
        let done = inside == 0
            || match mode {
                ZeroMode::Unmap => {
                    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                    self.try_fallocate(&self.no_punch, flags, offset, inside)?
                }
                ZeroMode::Keep => {
                    let flags = FallocateFlags::ZERO_RANGE;
                    self.try_fallocate(&self.no_zero_range, flags, offset, inside)?
                }
            };
        if !done {
            return Ok(false);
        }
        if end > old {
            match mode {
                // Reserving may be impossible; a hole reads as zero too, but promises less.
                ZeroMode::Keep => {
                    let start = offset.max(old);
                    if rustix::fs::fallocate(
                        &self.file,
                        FallocateFlags::empty(),
                        start,
                        end - start,
                    )
                    .is_err_and(|e| e != Errno::OPNOTSUPP)
                    {
                        return Ok(false);
                    }
                    rustix::fs::ftruncate(&self.file, end).map_err(from_errno)?;
                }
                ZeroMode::Unmap => rustix::fs::ftruncate(&self.file, end).map_err(from_errno)?,
            }
            self.grown(end);
        }
        Ok(true)
    }

    fn try_fallocate(
        &self,
        refused: &AtomicBool,
        flags: FallocateFlags,
        offset: u64,
        length: u64,
    ) -> Result<bool> {
        if refused.load(Ordering::Relaxed) {
            return Ok(false);
        }
        match rustix::fs::fallocate(&self.file, flags, offset, length) {
            Ok(()) => Ok(true),
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::NODEV) => {
                refused.store(true, Ordering::Relaxed);
                Ok(false)
            }
            Err(error) => Err(from_errno(error)),
        }
    }

    fn check_writable(&self) -> Result<()> {
        match self.options.write {
            true => self.failed_flush.check(),
            false => Err(Error::new(Kind::Refused, "the file is open for reading only")),
        }
    }

    /// Carries a change out and tells the next flush of it, also when it fails half way.
    fn change<T>(&self, change: impl FnOnce() -> Result<T>) -> Result<T> {
        self.check_writable()?;
        let done = change();
        self.changed.store(true, Ordering::Release);
        done
    }
}

fn from_errno(errno: Errno) -> Error {
    Error::from_errno(errno.raw_os_error())
}

impl Disk for FileDisk {
    fn size(&self) -> u64 {
        self.size.load(Ordering::Acquire)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        let read = match &self.direct {
            Some(direct) => direct.read(&self.file, buffer, offset),
            None => self.file.read_exact_at(buffer, offset),
        };
        match read {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Err(Error::new(
                Kind::Io,
                format!(
                    "{} ends before byte {}",
                    self.path.display(),
                    offset + buffer.len() as u64
                ),
            )),
            Err(error) => Err(error.into()),
        }
    }

    fn write_at(&self, data: &[u8], offset: u64) -> Result<()> {
        self.change(|| match &self.direct {
            Some(direct) => Ok(direct.write(&self.file, data, offset)?),
            None => Ok(self.file.write_all_at(data, offset)?),
        })?;
        self.grown(offset + data.len() as u64);
        Ok(())
    }

    fn write_zeroes(&self, offset: u64, length: u64, mode: ZeroMode) -> Result<()> {
        let done = {
            let _alone = self.direct.as_ref().map(Direct::alone);
            self.change(|| Ok(length == 0 || self.zero_by_host(offset, length, mode)?))
        };
        self.forget_map();
        if done? {
            return Ok(());
        }
        self.write_out_zeroes(offset, length)
    }

    fn discard(&self, offset: u64, length: u64) -> Result<()> {
        let length = length.min(self.size().saturating_sub(offset));
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        let done = self.change(|| match (length, self.block_device) {
            (0, _) => Ok(()),
            (_, true) => {
                device::discard(self.file.as_fd(), offset, length);
                Ok(())
            }
            _ => self.try_fallocate(&self.no_punch, flags, offset, length).map(drop),
        });
        self.forget_map();
        done
    }

    fn flush(&self) -> Result<()> {
        if self.options.no_flush || !self.options.write {
            return Ok(());
        }
        let _alone = self.flushing.lock().unwrap_or_else(PoisonError::into_inner);
        self.failed_flush.check()?;
        // Requests tell of their changes before they return, so that what this flush is to cover
        // has been told; what is told from here on is for the next one.
        if !self.changed.swap(false, Ordering::AcqRel) {
            return Ok(());
        }
        self.failed_flush.note(self.file.sync_data().map_err(Error::from))
    }

    fn map(&self, offset: u64, length: u64) -> Result<Extent> {
        let size = self.size();
        if offset >= size || length == 0 {
            return Err(Error::new(Kind::InvalidInput, "nothing to map at the end of the file"));
        }
        let end = offset.saturating_add(length).min(size);
        let whole = Extent::data(end - offset, offset);
        if self.block_device {
            return Ok(whole);
        }
        if let Some(known) = self.known_data_end(offset) {
            return Ok(whole.cut(known - offset));
        }
        match rustix::fs::seek(&self.file, SeekFrom::Data(offset)) {
            Ok(data) if data > offset => {
                Ok(Extent { state: State::Zero, ..whole }.cut(data - offset))
            }
            Ok(_) => match rustix::fs::seek(&self.file, SeekFrom::Hole(offset)) {
                Ok(hole) if hole > offset => {
                    *self.known_data.lock().unwrap_or_else(PoisonError::into_inner) = offset..hole;
                    Ok(whole.cut(hole - offset))
                }
                _ => Ok(whole),
            },
            // No data up to the end of the file.
            Err(Errno::NXIO) => Ok(Extent { state: State::Zero, ..whole }),
            // The filesystem cannot tell: everything counts as data.
            Err(_) => Ok(whole),
        }
    }

    fn set_size(&self, size: u64) -> Result<()> {
        self.check_writable()?;
        if self.block_device {
            return match size <= self.size() {
                true => Ok(()),
                false => Err(Error::new(Kind::Unsupported, "Cannot grow device files")),
            };
        }
        let _alone = self.direct.as_ref().map(Direct::alone);
        // Truncating an empty file to nothing makes ext4 write it out when it is closed.
        if self.file.metadata()?.len() != size {
            self.change(|| self.file.set_len(size).context("Failed to resize the file"))?;
        }
        self.forget_map();
        self.size.store(size, Ordering::Release);
        Ok(())
    }

    fn read_only(&self) -> bool {
        !self.options.write
    }

    fn geometry(&self) -> Geometry {
        match self.block_device {
            true => device::geometry(self.file.as_fd()),
            false => Geometry::default(),
        }
    }

    fn host_window(&self) -> Option<(BorrowedFd<'_>, u64)> {
        if self.direct.is_some() || self.failed_flush.is_set() {
            return None;
        }
        // Whoever asks may write by himself.
        self.changed.store(true, Ordering::Release);
        Some((self.file.as_fd(), 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        (folder, path)
    }

    #[test]
    fn holes_are_seen_and_made() {
        let (_folder, path) = scratch("f");
        let disk =
            FileDisk::open(&path, OpenOptions { write: true, create: true, ..Default::default() })
                .unwrap();
        disk.set_size(1 << 20).unwrap();
        disk.write_at(&[7; 65536], 524_288).unwrap();
        let hole = disk.map(0, u64::MAX).unwrap();
        assert_eq!((hole.state, hole.length), (State::Zero, 524_288));
        let data = disk.map(524_288, u64::MAX).unwrap();
        assert_eq!((data.state, data.length), (State::Data, 65536));
        disk.write_zeroes(524_288, 65536, ZeroMode::Unmap).unwrap();
        assert_eq!(disk.map(0, u64::MAX).unwrap().length, 1 << 20);
        disk.write_zeroes(1 << 20, 4096, ZeroMode::Keep).unwrap();
        assert_eq!(disk.size(), (1 << 20) + 4096);
        disk.flush().unwrap();
    }

    /// Nothing may be built on what a failed flush has lost.
    #[test]
    fn after_a_failed_flush_nothing_is_changed() {
        let (_folder, path) = scratch("f");
        let options = OpenOptions { write: true, create: true, ..Default::default() };
        let disk = FileDisk::open(&path, options).unwrap();
        disk.write_at(&[1; 4096], 0).unwrap();
        // No fsync of a pipe: as close to a failing medium as a test gets without one.
        let (pipe, _writer) = std::io::pipe().unwrap();
        let broken = File::from(std::os::fd::OwnedFd::from(pipe));
        let disk = FileDisk { file: broken, ..disk };
        assert_eq!(disk.flush().unwrap_err().errno(), Some(libc::EINVAL));
        let real = std::fs::File::options().read(true).write(true).open(&path).unwrap();
        let disk = FileDisk { file: real, ..disk };
        let attempts = [
            disk.flush(),
            disk.write_at(&[2; 512], 0),
            disk.write_zeroes(0, 512, ZeroMode::Keep),
            disk.discard(0, 4096),
            disk.set_size(100),
            disk.allocate(0, 8192),
        ];
        for error in attempts.map(Result::unwrap_err) {
            assert!(error.to_string().contains("an earlier flush failed"), "{error}");
        }
        assert!(disk.host_window().is_none());
        let mut buffer = [0; 512];
        disk.read_at(&mut buffer, 0).unwrap();
        assert_eq!(buffer, [1; 512]);
        assert_eq!(std::fs::read(&path).unwrap(), [1; 4096]);
    }

    /// What a flush has covered is not flushed again; every kind of change is told.
    #[test]
    fn a_flush_covers_every_change() {
        let (_folder, path) = scratch("f");
        let options = OpenOptions { write: true, create: true, ..Default::default() };
        let disk = FileDisk::open(&path, options).unwrap();
        let clean = |disk: &FileDisk| !disk.changed.load(Ordering::Acquire);
        assert!(clean(&disk));
        let changes: [&dyn Fn(); 7] = [
            &|| disk.set_size(1 << 20).unwrap(),
            &|| disk.write_at(&[1; 512], 512).unwrap(),
            &|| disk.write_zeroes(0, 4096, ZeroMode::Keep).unwrap(),
            &|| disk.write_zeroes(0, 4096, ZeroMode::Unmap).unwrap(),
            &|| disk.discard(0, 4096).unwrap(),
            &|| disk.allocate(0, 8192).unwrap(),
            &|| {
                let _ = disk.host_window();
            },
        ];
        for (number, change) in changes.iter().enumerate() {
            change();
            assert!(!clean(&disk), "change {number}");
            disk.flush().unwrap();
            assert!(clean(&disk), "change {number}");
        }
        disk.read_at(&mut [0; 16], 0).unwrap();
        assert!(clean(&disk));
    }

    #[test]
    fn only_files_and_devices_are_opened() {
        let folder = tempfile::tempdir().unwrap();
        let error = FileDisk::open(folder.path(), OpenOptions::default()).unwrap_err();
        assert_eq!(error.to_string(), "it is a directory");
        let error = FileDisk::open(Path::new("/dev/null"), OpenOptions::default()).unwrap_err();
        assert_eq!(error.kind(), Kind::InvalidInput);
    }

    #[test]
    fn a_read_only_file_refuses_writes() {
        let (_folder, path) = scratch("f");
        std::fs::write(&path, [1; 512]).unwrap();
        let disk = FileDisk::open(&path, OpenOptions::default()).unwrap();
        assert_eq!(disk.write_at(&[0], 0).unwrap_err().kind(), Kind::Refused);
        assert!(disk.read_only());
    }
}
