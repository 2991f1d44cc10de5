//! Image locks as QEMU takes them: open-file-description locks on single bytes of the image.
//!
//! Byte 100 + p means "I use permission p", byte 200 + p "I do not let others use p". All locks
//! are shared; conflicts are found by testing whether the opposite byte could be locked
//! exclusively. Both sides take before they test, so of two racing processes at least one
//! fails. Source: QEMU's file-posix driver as described in its documentation; measured against
//! qemu-img 10.0.2.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;

use disksmith_disk::{Error, Kind, Result};

use crate::device::last_error;
use crate::holder;

const USE_BASE: i64 = 100;
const FORBID_BASE: i64 = 200;

/// What one may do with an image, with QEMU's numbers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Permission {
    /// Read, and rely on what was read to stay.
    ConsistentRead = 0,
    /// Write.
    Write = 1,
    /// Write what is there already.
    WriteUnchanged = 2,
    /// Change the size.
    Resize = 3,
}

impl Permission {
    const ALL: [Self; 4] = [Self::ConsistentRead, Self::Write, Self::WriteUnchanged, Self::Resize];

    fn name(self) -> &'static str {
        match self {
            Self::ConsistentRead => "consistent read",
            Self::Write => "write",
            Self::WriteUnchanged => "write unchanged",
            Self::Resize => "resize",
        }
    }

    fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// The permissions somebody uses, and those that others must not use meanwhile.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct LockSet {
    used: u8,
    forbidden: u8,
}

impl LockSet {
    /// Nothing used, nothing forbidden.
    pub const NONE: Self = Self { used: 0, forbidden: 0 };

    /// With these.
    pub fn new(used: &[Permission], forbidden: &[Permission]) -> Self {
        let bits = |set: &[Permission]| set.iter().fold(0, |bits, p| bits | p.bit());
        Self { used: bits(used), forbidden: bits(forbidden) }
    }
}

/// Makes `wanted` what this open file holds instead of `held`.
pub(crate) fn change(file: &File, path: &Path, held: LockSet, wanted: LockSet) -> Result<()> {
    let result = take(file, held, wanted)
        .and_then(|()| test(file, path, wanted))
        .map_err(|error| error.with_hint(hint(path)));
    match result {
        Ok(()) => release(file, held, wanted),
        Err(_) => release(file, wanted, held),
    }
    result
}

fn hint(path: &Path) -> String {
    format!("Is another process using the image [{}]?", path.display())
}

fn take(file: &File, held: LockSet, wanted: LockSet) -> Result<()> {
    for permission in Permission::ALL {
        let bit = permission.bit();
        for (base, had, want) in
            [(USE_BASE, held.used, wanted.used), (FORBID_BASE, held.forbidden, wanted.forbidden)]
        {
            if want & bit != 0 && had & bit == 0 {
                set(file, libc::F_RDLCK, base + permission as i64)
                    .map_err(|error| in_use(error, permission, base == FORBID_BASE))?;
            }
        }
    }
    Ok(())
}

fn test(file: &File, path: &Path, wanted: LockSet) -> Result<()> {
    for permission in Permission::ALL {
        let bit = permission.bit();
        for (mine, opposite, shared) in
            [(wanted.used, FORBID_BASE, false), (wanted.forbidden, USE_BASE, true)]
        {
            let byte = opposite + permission as i64;
            if mine & bit != 0 && conflicts(file, byte)? {
                let error = Error::new(Kind::InUse, text(permission, shared));
                return Err(match holder::find(file, byte) {
                    Some(who) => error.with_hint(format!("{}\nIt is held by {who}.", hint(path))),
                    None => error,
                });
            }
        }
    }
    Ok(())
}

fn text(permission: Permission, shared: bool) -> String {
    let shared = if shared { "shared " } else { "" };
    format!("Failed to get {shared}\"{}\" lock", permission.name())
}

fn in_use(error: Error, permission: Permission, shared: bool) -> Error {
    match error.errno() {
        Some(libc::EAGAIN | libc::EACCES) => Error::new(Kind::InUse, text(permission, shared)),
        _ => error.context(text(permission, shared)),
    }
}

/// Lets go of what `from` has and `to` has not. Failures are of no consequence (NFS answers
/// errors to unlocking): the locks end with the descriptor.
fn release(file: &File, from: LockSet, to: LockSet) {
    for permission in Permission::ALL {
        let bit = permission.bit();
        for (base, had, keep) in
            [(USE_BASE, from.used, to.used), (FORBID_BASE, from.forbidden, to.forbidden)]
        {
            if had & bit != 0 && keep & bit == 0 {
                let _ = set(file, libc::F_UNLCK, base + permission as i64);
            }
        }
    }
}

fn range(kind: i32, byte: i64) -> libc::flock {
    libc::flock {
        l_type: kind as i16,
        l_whence: libc::SEEK_SET as i16,
        l_start: byte,
        l_len: 1,
        l_pid: 0,
    }
}

fn set(file: &File, kind: i32, byte: i64) -> Result<()> {
    let lock = range(kind, byte);
    // SAFETY: F_OFD_SETLK reads one struct flock through the pointer, valid for the call.
    match unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) } {
        0 => Ok(()),
        _ => Err(last_error()),
    }
}

fn conflicts(file: &File, byte: i64) -> Result<bool> {
    let mut lock = range(libc::F_WRLCK, byte);
    // SAFETY: F_OFD_GETLK reads and writes one struct flock through the pointer.
    match unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_GETLK, &raw mut lock) } {
        0 => Ok(i32::from(lock.l_type) != libc::F_UNLCK),
        _ => Err(last_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{FileDisk, OpenOptions};
    use Permission::{ConsistentRead, Resize, Write};

    fn open(path: &Path) -> FileDisk {
        FileDisk::open(path, OpenOptions { write: true, ..Default::default() }).unwrap()
    }

    #[test]
    fn a_writer_excludes_a_reader_that_forbids_writing() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let (first, second) = (open(file.path()), open(file.path()));
        let writer = LockSet::new(&[ConsistentRead, Write, Resize], &[Write, Resize]);
        let reader = LockSet::new(&[ConsistentRead], &[Write, Resize]);
        first.lock(writer).unwrap();
        let error = second.lock(reader).unwrap_err();
        assert_eq!(error.kind(), Kind::InUse);
        assert_eq!(error.to_string(), "Failed to get shared \"write\" lock");
        assert!(error.hint().unwrap().contains(&format!("(process {})", std::process::id())));
        let error = second.lock(writer).unwrap_err();
        assert_eq!(error.to_string(), "Failed to get \"write\" lock");
        first.lock(reader).unwrap();
        second.lock(reader).unwrap();
        assert!(second.lock(writer).is_err());
        first.lock(LockSet::NONE).unwrap();
        second.lock(writer).unwrap();
    }

    /// Locks belong to open file descriptions, so threads with descriptors of their own stand
    /// for processes.
    #[test]
    fn of_two_writers_that_start_together_at_most_one_wins() {
        use std::sync::Barrier;
        use std::sync::atomic::{AtomicU32, Ordering};

        // Each loser looks through /proc for who holds the image.
        let starts = if std::env::var_os("DISKSMITH_LONG").is_some() { 10_000 } else { 400 };
        let file = tempfile::NamedTempFile::new().unwrap();
        let writer = LockSet::new(&[ConsistentRead, Write, Resize], &[Write, Resize]);
        let barrier = Barrier::new(2);
        let (won, both) = (AtomicU32::new(0), AtomicU32::new(0));
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for _ in 0..starts {
                        let disk = open(file.path());
                        barrier.wait();
                        let mine = disk.lock(writer).is_ok();
                        let before = if mine { won.fetch_add(1, Ordering::SeqCst) } else { 0 };
                        both.fetch_add(before, Ordering::SeqCst);
                        barrier.wait();
                        won.store(0, Ordering::SeqCst);
                        drop(disk);
                        barrier.wait();
                    }
                });
            }
        });
        assert_eq!(both.into_inner(), 0, "both held the image at one time");
    }

    #[test]
    fn closing_another_descriptor_of_the_file_leaves_the_locks() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let writer = LockSet::new(&[ConsistentRead, Write, Resize], &[Write, Resize]);
        let (holder, other) = (open(file.path()), open(file.path()));
        holder.lock(writer).unwrap();
        // POSIX' own locks would go with any descriptor of the file, and with a copy's end.
        drop(std::fs::File::open(file.path()).unwrap());
        drop(holder.file().try_clone().unwrap());
        let status = std::process::Command::new("true").status().unwrap();
        assert!(status.success());
        assert!(other.lock(writer).is_err());
        let copy = holder.file().try_clone().unwrap();
        drop(holder);
        assert!(other.lock(writer).is_err(), "the copy holds them still");
        drop(copy);
        other.lock(writer).unwrap();
    }
}
