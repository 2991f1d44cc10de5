//! Filesystems that are kept still while they are copied.
//!
//! A frozen filesystem whose process was killed would stay frozen for ever, and with it everybody
//! who writes to it. So another process freezes and thaws: it waits for the end of a socket that
//! only its parent holds open, and outlives it for as long as thawing takes.

use std::fs::File;
use std::io::{Read, Write, stdin, stdout};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use disksmith_disk::{Context, Error, Kind, Result};

use crate::Mount;
use crate::device::last_error;

const FIFREEZE: libc::c_ulong = 0xc004_5877;
const FITHAW: libc::c_ulong = 0xc004_5878;

/// A filesystem that is kept still: everything is on its device, and whoever writes waits. Ends
/// when dropped, or with this process, however that ends.
#[derive(Debug)]
pub struct Frozen {
    folder: File,
    /// Open for as long as it is to be still.
    line: Option<UnixStream>,
    keeper: Child,
    /// It could not be frozen: perhaps because somebody else has frozen it.
    refused: bool,
}

impl Frozen {
    /// Freezes the filesystem that is mounted there. Root may; not every filesystem can. `keeper`
    /// starts a program that calls [`keep_frozen`] and nothing else.
    pub fn freeze(mount: &Mount, keeper: Command) -> Result<Self> {
        let attempt = || format!("Could not freeze the filesystem on '{}'", mount.point.display());
        let folder = File::open(&mount.point).with_context(attempt)?;
        let mut frozen = Self::start(folder, keeper).with_context(attempt)?;
        match frozen.answer().with_context(attempt)? {
            0 => Ok(frozen),
            errno => {
                frozen.refused = true;
                Err(Error::from_errno(errno).context(attempt()))
            }
        }
    }

    fn start(folder: File, mut keeper: Command) -> Result<Self> {
        let (line, end) = UnixStream::pair()?;
        keeper.stdin(OwnedFd::from(end)).stdout(folder.try_clone()?).stderr(Stdio::null());
        // What a terminal sends to us is not for the keeper.
        keeper.process_group(0);
        let keeper = keeper.spawn().context("Could not start the process that thaws it again")?;
        Ok(Self { folder, line: Some(line), keeper, refused: false })
    }

    /// Waits until it is frozen; an error number if it cannot be.
    fn answer(&mut self) -> Result<i32> {
        let mut answer = [0; 4];
        self.line.iter_mut().try_for_each(|line| line.read_exact(&mut answer))?;
        Ok(i32::from_le_bytes(answer))
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        drop(self.line.take());
        let done = self.keeper.wait().is_ok_and(|status| status.success());
        if !done && !self.refused {
            // The keeper was killed.
            let _ = control(&self.folder, FITHAW);
        }
    }
}

/// For the process that [`Frozen::freeze`] starts: freezes the filesystem that its standard output
/// names, tells on its standard input how that went, and thaws when the other end is closed.
pub fn keep_frozen() -> Result<()> {
    // Those who end all processes of our name mean the one that copies; this one follows.
    let _ = rustix::thread::set_name(c"thaw-afterwards");
    let line = File::from(stdin().as_fd().try_clone_to_owned()?);
    if !line.metadata()?.file_type().is_socket() {
        return Err(Error::new(Kind::Refused, "only the process that copies may ask for this"));
    }
    let frozen = control(stdout(), FIFREEZE);
    let errno = frozen.as_ref().map_or_else(|error| error.errno().unwrap_or(libc::EIO), |()| 0);
    let told = (&line).write_all(&errno.to_le_bytes());
    frozen?;
    if told.is_ok() {
        // Nothing is ever written to it; any failure means that nobody is there.
        let _ = (&line).read(&mut [0]);
    }
    control(stdout(), FITHAW)
}

fn control(folder: impl AsFd, request: libc::c_ulong) -> Result<()> {
    // SAFETY: FIFREEZE and FITHAW take no argument that they would follow.
    match unsafe { libc::ioctl(folder.as_fd().as_raw_fd(), request, 0) } {
        0 => Ok(()),
        _ => Err(last_error()),
    }
}
