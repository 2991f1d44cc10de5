//! Answers to the kernel's requests, the same for folders of disks and trees of files.

use std::time::Duration;

use disksmith_disk::Error;
use disksmith_filesystems::Statistics;
use fuser::{
    Errno, FileAttr, Generation, InitFlags, KernelConfig, ReplyAttr, ReplyData, ReplyEmpty,
    ReplyEntry, ReplyLseek, ReplyStatfs, ReplyWrite, ReplyXattr,
};

/// How long the kernel may keep what it knows of names and attributes: nobody but the kernel
/// changes them.
pub(crate) const KEEP: Duration = Duration::from_secs(86_400);
/// Largest request; the kernel's own bound today.
pub(crate) const MAX_REQUEST: u32 = 1 << 20;
/// Requests of read-ahead and write-back that the kernel may have under way at once.
const MAX_BACKGROUND: u16 = 64;

/// Asks for what every mount of ours wants, and for `wishes`. What an older kernel does not know
/// only costs speed.
pub(crate) fn configure(config: &mut KernelConfig, wishes: &[InitFlags]) {
    let _ = config.set_max_write(MAX_REQUEST);
    let _ = config.set_max_readahead(MAX_REQUEST);
    let _ = config.set_max_background(MAX_BACKGROUND);
    for wish in wishes {
        let _ = config.add_capabilities(*wish);
    }
}

/// The system's number of an error.
pub(crate) fn errno(error: &Error) -> Errno {
    Errno::from_i32(disksmith_filesystems::errno(error))
}

/// An answer that is either a value or an error number.
pub(crate) trait Answer<T>: Sized {
    /// Sends it.
    fn answer(self, result: Result<T, Error>);
}

impl Answer<()> for ReplyEmpty {
    fn answer(self, result: Result<(), Error>) {
        match result {
            Ok(()) => self.ok(),
            Err(error) => self.error(errno(&error)),
        }
    }
}

impl Answer<FileAttr> for ReplyAttr {
    fn answer(self, result: Result<FileAttr, Error>) {
        match result {
            Ok(attributes) => self.attr(&KEEP, &attributes),
            Err(error) => self.error(errno(&error)),
        }
    }
}

impl Answer<(FileAttr, Generation)> for ReplyEntry {
    fn answer(self, result: Result<(FileAttr, Generation), Error>) {
        match result {
            Ok((attributes, generation)) => self.entry(&KEEP, &attributes, generation),
            Err(error) => self.error(errno(&error)),
        }
    }
}

impl<B: AsRef<[u8]>> Answer<B> for ReplyData {
    fn answer(self, result: Result<B, Error>) {
        match result {
            Ok(bytes) => self.data(bytes.as_ref()),
            Err(error) => self.error(errno(&error)),
        }
    }
}

impl Answer<usize> for ReplyWrite {
    fn answer(self, result: Result<usize, Error>) {
        match result {
            Ok(length) => self.written(u32::try_from(length).unwrap_or(u32::MAX)),
            Err(error) => self.error(errno(&error)),
        }
    }
}

impl Answer<u64> for ReplyLseek {
    fn answer(self, result: Result<u64, Error>) {
        match result {
            Ok(at) => self.offset(i64::try_from(at).unwrap_or(i64::MAX)),
            Err(error) => self.error(errno(&error)),
        }
    }
}

/// Answers a value of variable size: its length when asked with 0, else it must fit.
pub(crate) fn sized<B: AsRef<[u8]>>(reply: ReplyXattr, size: u32, value: &Result<B, Error>) {
    match value.as_ref().map(AsRef::as_ref) {
        Err(error) => reply.error(errno(error)),
        Ok(value) if size == 0 => reply.size(u32::try_from(value.len()).unwrap_or(u32::MAX)),
        Ok(value) if value.len() > size as usize => reply.error(Errno::ERANGE),
        Ok(value) => reply.data(value),
    }
}

/// What `df` shows.
impl Answer<Statistics> for ReplyStatfs {
    fn answer(self, result: Result<Statistics, Error>) {
        match result {
            Ok(s) => self.statfs(
                s.blocks,
                s.free,
                s.available,
                s.inodes,
                s.free_inodes,
                s.block_size,
                s.name_length,
                s.block_size,
            ),
            Err(error) => self.error(errno(&error)),
        }
    }
}
