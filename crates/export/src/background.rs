//! Going on in the background: the program starts itself anew, and the new process says when it
//! is ready.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::process::{Command, Stdio};

use disksmith_disk::{Context, Result};

/// What the new process writes when it serves.
const READY: &[u8] = b"ready\n";

/// How the start in the background went.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Started {
    /// It serves; its process number.
    Ready(u32),
    /// It ended before it was ready, having told why; its exit status.
    Failed(u8),
}

/// Starts this program with these arguments in the background and waits until it calls
/// [`ready`]. Its errors until then go to our standard error.
pub fn start<A: AsRef<OsStr>>(arguments: &[A]) -> Result<Started> {
    let attempt = "Could not go on in the background";
    let (mut reader, writer) = std::io::pipe().context(attempt)?;
    let name = std::env::args_os().next().unwrap_or_else(|| OsString::from("disksmith"));
    // By its path, for the process to bear its name; unless it was replaced meanwhile.
    let program = std::env::current_exe().ok().filter(|path| path.exists());
    let mut command = Command::new(program.unwrap_or_else(|| "/proc/self/exe".into()));
    std::os::unix::process::CommandExt::arg0(&mut command, name);
    command.args(arguments).stdin(Stdio::null()).stdout(writer);
    let mut child = command.spawn().context(attempt)?;
    // Ours is the only end left to read from, and the child's the only one to write to.
    drop(command);
    let mut word = [0; READY.len()];
    if reader.read_exact(&mut word).is_ok() && word == READY {
        return Ok(Started::Ready(child.id()));
    }
    let status = child.wait().context(attempt)?;
    Ok(Started::Failed(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1).max(1)))
}

/// For the process in the background, first of all: leaves the terminal's session.
pub fn leave_session() {
    // Fails only for the leader of a process group, who needs no session of his own.
    let _ = rustix::process::setsid();
}

/// For the process in the background, when it serves: tells so and lets go of the terminal and
/// the working directory.
pub fn ready() -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(READY).and_then(|()| out.flush()).context("Could not tell that it is ready")?;
    drop(out);
    let _ = std::env::set_current_dir("/");
    let null = File::options().read(true).write(true).open("/dev/null").context("/dev/null")?;
    for standard in 0..=2 {
        // SAFETY: both are open descriptors of this process; 0, 1 and 2 are used by nobody but
        // the standard streams, which work on whatever they name.
        unsafe { libc::dup2(null.as_raw_fd(), standard) };
    }
    Ok(())
}
