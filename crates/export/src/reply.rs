//! Answers to the kernel's requests, the same for folders of disks and trees of files.

use std::ffi::OsStr;
use std::time::Duration;

use disksmith_disk::Error;
use disksmith_filesystems::Statistics;
use fuser::{
    Errno, FileAttr, FileHandle, FopenFlags, Generation, INodeNo, InitFlags, KernelConfig,
    ReplyAttr, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl,
    ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr,
};

use crate::session::PROCESS_XATTR;

/// How long the kernel may keep what it knows of names and attributes: nobody but the kernel
/// changes them.
pub(crate) const KEEP: Duration = Duration::from_secs(86_400);
/// Largest request; the kernel's own bound today.
const MAX_REQUEST: u32 = 1 << 20;
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

/// How each kind of answer is given when there is one; an error is its number.
macro_rules! answers {
    ($($value:ty, $reply:ty: |$self:ident, $found:ident| $send:expr;)*) => {$(
        impl Answer<$value> for $reply {
            fn answer(self, result: Result<$value, Error>) {
                let $self = self;
                match result {
                    Ok($found) => $send,
                    Err(error) => $self.error(errno(&error)),
                }
            }
        }
    )*};
}

answers! {
    (), ReplyEmpty: |reply, _done| reply.ok();
    (), ReplyDirectory: |reply, _done| reply.ok();
    (), ReplyDirectoryPlus: |reply, _done| reply.ok();
    (FileHandle, FopenFlags), ReplyOpen: |reply, how| reply.opened(how.0, how.1);
    FileAttr, ReplyAttr: |reply, found| reply.attr(&KEEP, &found);
    (FileAttr, Generation), ReplyEntry: |reply, found| reply.entry(&KEEP, &found.0, found.1);
    &[u8], ReplyData: |reply, bytes| reply.data(bytes);
    Vec<u8>, ReplyData: |reply, bytes| reply.data(&bytes);
    Vec<u8>, ReplyIoctl: |reply, bytes| reply.ioctl(0, &bytes);
    usize, ReplyWrite: |reply, length| reply.written(u32::try_from(length).unwrap_or(u32::MAX));
    u64, ReplyLseek: |reply, at| reply.offset(i64::try_from(at).unwrap_or(i64::MAX));
    // What `df` shows.
    Statistics, ReplyStatfs: |reply, s| reply.statfs(
        s.blocks,
        s.free,
        s.available,
        s.inodes,
        s.free_inodes,
        s.block_size,
        s.name_length,
        s.block_size,
    );
}

/// Answers a read of `size` bytes: `fill` is given a buffer and tells how much of it is the answer.
pub(crate) fn read(
    reply: ReplyData,
    size: u32,
    fill: impl FnOnce(&mut [u8]) -> Result<usize, Error>,
) {
    crate::buffer::with(size.min(MAX_REQUEST) as usize, |buffer| {
        let filled = fill(buffer);
        reply.answer(filled.map(|length| &buffer[..length.min(buffer.len())]));
    });
}

/// The number of the serving process, where it is asked for as an attribute of the root.
pub(crate) fn process(node: INodeNo, name: &OsStr) -> Option<Vec<u8>> {
    let asked = node == INodeNo::ROOT && name == PROCESS_XATTR;
    asked.then(|| std::process::id().to_string().into_bytes())
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
