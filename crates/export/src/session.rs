//! Mounting and unmounting.

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use disksmith_disk::{Context, Disk, Error, Kind, Result};
use fuser::{Config, MountOption, Session, SessionACL};
use rustix::mount::MountFlags;

use crate::DiskFolder;

/// Threads that serve requests.
const THREADS: usize = 4;

/// Twice the kernel's own. What is much more falls out of the processor's cache on its way.
const READ_AHEAD_KIB: &str = "256";

/// An extended attribute of every root directory of ours: the number of the serving process. It
/// is told when asked for, and not listed.
pub(crate) const PROCESS_XATTR: &str = "user.disksmith.process";
/// What the mount table gives as the type of a folder of disks.
pub const FOLDER_KIND: &str = "disksmith";
/// What it gives for a filesystem, with the filesystem's type after it.
pub const TREE_KIND: &str = "disksmith-";

/// How to mount.
#[derive(Clone, Debug, Default)]
pub struct MountOptions {
    /// What `mount` and `df` name as the source.
    pub source: String,
    /// What they name as the type, after `fuse.`.
    pub kind: String,
    /// Nothing can be written.
    pub read_only: bool,
    /// Others than the owner may look in (needs root or `user_allow_other`).
    pub allow_other: bool,
    /// The kernel checks permissions by the files' modes.
    pub default_permissions: bool,
    /// Setuid bits and file capabilities count (root only).
    pub suid: bool,
    /// Device files are devices (root only).
    pub dev: bool,
    /// Nothing can be executed.
    pub no_exec: bool,
    /// Every write is durable at once.
    pub sync: bool,
    /// Threads that take requests; 0: several.
    pub threads: usize,
}

impl MountOptions {
    fn config(&self) -> Config {
        let mut config = Config::default();
        config.mount_options = vec![
            // fusermount3 takes a comma for the end of the name.
            MountOption::FSName(self.source.replace('\\', "\\\\").replace(',', "\\,")),
            MountOption::Subtype(self.kind.clone()),
            if self.suid { MountOption::Suid } else { MountOption::NoSuid },
            if self.dev { MountOption::Dev } else { MountOption::NoDev },
            if self.read_only { MountOption::RO } else { MountOption::RW },
        ];
        if self.default_permissions {
            config.mount_options.push(MountOption::DefaultPermissions);
        }
        for (on, option) in [(self.no_exec, MountOption::NoExec), (self.sync, MountOption::Sync)] {
            config.mount_options.extend(on.then_some(option));
        }
        config.acl = self.acl();
        config.n_threads = Some(if self.threads > 0 { self.threads } else { THREADS });
        config.clone_fd = true;
        config
    }

    fn acl(&self) -> SessionACL {
        if self.allow_other { SessionACL::All } else { SessionACL::Owner }
    }

    /// Mounts as root: with the type's name, which `fuser` leaves out there. `None`: not permitted.
    fn mount_as_root(&self, directory: &Path) -> Result<Option<OwnedFd>> {
        let device = fs::File::options().read(true).write(true).open("/dev/fuse");
        let device = OwnedFd::from(device.context("/dev/fuse")?);
        let mut data = format!(
            "fd={},rootmode=40000,user_id={},group_id={}",
            device.as_raw_fd(),
            rustix::process::getuid().as_raw(),
            rustix::process::getgid().as_raw()
        );
        for (on, word) in
            [(self.allow_other, ",allow_other"), (self.default_permissions, ",default_permissions")]
        {
            data += if on { word } else { "" };
        }
        let mut flags = MountFlags::empty();
        for (on, flag) in [
            (!self.suid, MountFlags::NOSUID),
            (!self.dev, MountFlags::NODEV),
            (self.no_exec, MountFlags::NOEXEC),
            (self.sync, MountFlags::SYNCHRONOUS),
            (self.read_only, MountFlags::RDONLY),
        ] {
            flags.set(flag, on);
        }
        let kind = format!("fuse.{}", self.kind);
        let data = std::ffi::CString::new(data).map_err(std::io::Error::from)?;
        match rustix::mount::mount(self.source.as_str(), directory, kind, flags, data.as_c_str()) {
            Ok(()) => Ok(Some(device)),
            Err(rustix::io::Errno::PERM) => Ok(None),
            Err(error) => Err(Error::from_errno(error.raw_os_error())),
        }
    }
}

/// A mounted folder that is not served yet.
pub struct Mounted<F: fuser::Filesystem> {
    session: Session<F>,
    guard: Guard,
}

/// Takes the mount away if it was never served to its end.
struct Guard {
    directory: PathBuf,
    ended: bool,
}

impl Drop for Guard {
    fn drop(&mut self) {
        if !self.ended {
            Stopper { directory: self.directory.clone() }.detach();
        }
    }
}

/// Ends a mount from another thread.
#[derive(Clone, Debug)]
pub struct Stopper {
    directory: PathBuf,
}

impl Stopper {
    /// Writes back what the kernel still holds and takes the mount away, at once where nobody
    /// uses it, else when the last user leaves; then [`Mounted::serve`] returns.
    pub fn stop(&self) {
        if !is_mounted(&self.directory) {
            return;
        }
        if let Ok(directory) = fs::File::open(&self.directory) {
            // The unmount below does it again where it can.
            let _ = rustix::fs::syncfs(&directory);
        }
        self.detach();
    }

    fn detach(&self) {
        let lazily = rustix::mount::UnmountFlags::DETACH;
        if rustix::mount::unmount(&self.directory, lazily).is_err() {
            // Nobody can be told; the process ends the mount when it exits.
            let _ = by_fusermount(&self.directory, &["-u", "-z"]);
        }
    }
}

impl<F: fuser::Filesystem> Mounted<F> {
    /// Mounts a FUSE filesystem on an existing directory.
    pub fn new(filesystem: F, directory: &Path, options: &MountOptions) -> Result<Self> {
        let metadata = fs::metadata(directory)
            .with_context(|| format!("Could not mount on '{}'", directory.display()))?;
        if !metadata.is_dir() {
            return Err(Error::new(
                Kind::InvalidInput,
                format!("Could not mount on '{}': it is not a directory", directory.display()),
            ));
        }
        let session = Self::session(filesystem, directory, options)
            .with_context(|| format!("Could not mount on '{}'", directory.display()))
            .map_err(|e| {
                e.with_hint("FUSE needs /dev/fuse and, without root, fusermount3 (package fuse3).")
            })?;
        Ok(Self { session, guard: Guard { directory: absolute(directory), ended: false } })
    }

    fn session(filesystem: F, directory: &Path, options: &MountOptions) -> Result<Session<F>> {
        let config = options.config();
        let session = match rustix::process::geteuid().is_root() {
            true => options.mount_as_root(directory)?,
            false => None,
        };
        Ok(match session {
            Some(device) => {
                let guard = Guard { directory: absolute(directory), ended: false };
                let session = Session::from_fd(filesystem, device, options.acl(), config)?;
                std::mem::forget(guard);
                session
            }
            None => Session::new(filesystem, directory, &config)?,
        })
    }

    /// Ends the mount from another thread: a signal handler's.
    pub fn stopper(&self) -> Stopper {
        Stopper { directory: self.guard.directory.clone() }
    }

    /// Serves until the folder is unmounted.
    pub fn serve(self) -> Result<()> {
        let Self { session, mut guard } = self;
        read_further_ahead(&guard.directory);
        let result = session.run().context("Serving the mount failed");
        guard.ended = result.is_ok();
        result
    }
}

/// A mounted folder of disk files, and the disks in it.
pub type MountedDisks = (Mounted<DiskFolder>, Vec<Arc<dyn Disk>>);

/// Mounts a folder of disk files. Also answers the disks, to be flushed after
/// [`Mounted::serve`] has returned.
pub fn mount(folder: DiskFolder, directory: &Path, options: &MountOptions) -> Result<MountedDisks> {
    let disks = folder.disks();
    let watch = folder.watch();
    let mounted = Mounted::new(folder, directory, options)?;
    watch(mounted.session.notifier());
    Ok((mounted, disks))
}

/// Lets the kernel ask for more at once than its usual 128 KiB when a file is read in order. Only
/// root may; for others it stays as it is.
fn read_further_ahead(directory: &Path) {
    // Not asked of the mount itself, which nobody serves yet.
    let Ok(table) = fs::read_to_string("/proc/self/mountinfo") else { return };
    let wanted = absolute(directory);
    let device = table.lines().rev().find_map(|line| {
        let mut words = line.split(' ').skip(2);
        let (device, _) = (words.next()?, words.next()?);
        (unescape(words.next()?) == wanted).then_some(device)
    });
    if let Some(device) = device {
        let _ = fs::write(format!("/sys/class/bdi/{device}/read_ahead_kb"), READ_AHEAD_KIB);
    }
}

/// Whether something is mounted exactly there.
pub fn is_mounted(directory: &Path) -> bool {
    mount_entry(directory).is_some()
}

/// Unmounts what is mounted on a directory, and waits until the process that served it (one of
/// ours) has closed the image. Without root it is done by fusermount3.
pub fn unmount(directory: &Path) -> Result<()> {
    let attempt = || format!("Could not unmount '{}'", directory.display());
    let Some(entry) = mount_entry(directory) else {
        return Err(Error::new(Kind::NotFound, "nothing is mounted there").context(attempt()));
    };
    let server = if entry.is_ours() { server(directory) } else { None };
    if entry.is_ours() {
        make_durable(directory).with_context(attempt)?;
    }
    let direct = rustix::mount::unmount(directory, rustix::mount::UnmountFlags::empty());
    let result = match direct {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::PERM) => by_fusermount(directory, &["-u"]),
        Err(rustix::io::Errno::BUSY) => Err(Error::new(Kind::InUse, "it is in use")
            .with_hint("Leave the directory and close its files first.")),
        Err(error) => Err(Error::from_errno(error.raw_os_error())),
    };
    result.with_context(attempt)?;
    if let Some(process) = server {
        wait_for(process);
    }
    Ok(())
}

/// The process that serves a mount of ours.
pub fn server(directory: &Path) -> Option<u32> {
    let mut value = [0u8; 16];
    let length = rustix::fs::getxattr(directory, PROCESS_XATTR, &mut value).ok()?;
    std::str::from_utf8(value.get(..length)?).ok()?.parse().ok()
}

/// What waits is written, so that an error reaches the one who unmounts.
fn make_durable(directory: &Path) -> Result<()> {
    // A mount whose process is gone cannot be opened; it is to be unmounted all the same.
    let Ok(open) = fs::File::open(directory) else { return Ok(()) };
    let _ = rustix::fs::syncfs(&open);
    match open.sync_all() {
        Err(error) if error.raw_os_error() == Some(libc::EIO) => Err(error.into()),
        _ => Ok(()),
    }
}

fn wait_for(process: u32) {
    if process == std::process::id() {
        return;
    }
    let place = PathBuf::from(format!("/proc/{process}/stat"));
    let born = |text: &str| text.rsplit(')').next()?.split(' ').nth(20).map(str::to_string);
    let alive = || {
        let text = fs::read_to_string(&place).ok()?;
        // A zombie has closed everything.
        if text.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z')) {
            return None;
        }
        born(&text)
    };
    let first = alive();
    while first.is_some() && alive() == first {
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
}

fn by_fusermount(directory: &Path, options: &[&str]) -> Result<()> {
    let output = std::process::Command::new("fusermount3")
        .args(options)
        .arg(directory)
        .output()
        .context("fusermount3 (package fuse3)")?;
    match output.status.success() {
        true => Ok(()),
        false => {
            let text = String::from_utf8_lossy(&output.stderr);
            Err(Error::new(Kind::Io, text.trim().to_string()))
        }
    }
}

/// A line of the mount table.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct MountEntry {
    /// What is mounted: for ours, the image as the user named it.
    pub source: String,
    /// Where.
    pub directory: PathBuf,
    /// The type: `fuse.disksmith`.
    pub kind: String,
    /// Nothing can be written.
    pub read_only: bool,
}

impl MountEntry {
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let source = unescape(words.next()?);
        let directory = PathBuf::from(unescape(words.next()?));
        let kind = words.next()?.to_string();
        let read_only = words.next()?.split(',').any(|option| option == "ro");
        Some(Self { source, directory, kind, read_only })
    }

    /// Whether this program serves it.
    pub fn is_ours(&self) -> bool {
        self.kind
            .strip_prefix("fuse.")
            .is_some_and(|kind| kind == FOLDER_KIND || kind.starts_with(TREE_KIND))
    }
}

/// What this program has mounted on this machine.
pub fn mounts() -> Vec<MountEntry> {
    let table = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    table.lines().filter_map(MountEntry::parse).filter(MountEntry::is_ours).collect()
}

/// What the mount table says of a directory. It is looked up by text: a stat of a mount whose
/// server is gone would hang or fail.
pub fn mount_entry(directory: &Path) -> Option<MountEntry> {
    let wanted = absolute(directory);
    let table = fs::read_to_string("/proc/self/mounts").ok()?;
    table.lines().filter_map(MountEntry::parse).rfind(|e| e.directory == wanted)
}

fn absolute(directory: &Path) -> PathBuf {
    let parent = directory.parent().filter(|p| !p.as_os_str().is_empty());
    let parent = fs::canonicalize(parent.unwrap_or(Path::new("."))).unwrap_or_default();
    match directory.file_name() {
        Some(name) => parent.join(name),
        None => fs::canonicalize(directory).unwrap_or_else(|_| directory.to_path_buf()),
    }
}

/// Blanks and the like stand in the mount table as `\040`.
fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let octal = after.get(..3).filter(|digits| digits.iter().all(|d| (b'0'..b'8').contains(d)));
        match (first, octal) {
            (b'\\', Some(digits)) => {
                let value = digits.iter().fold(0u32, |value, d| value * 8 + u32::from(d - b'0'));
                bytes.push(value as u8);
                rest = &after[3..];
            }
            _ => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_table_escapes_are_undone() {
        assert_eq!(unescape("/a\\040b\\134c"), "/a b\\c");
        assert!(is_mounted(Path::new("/proc")));
        assert!(!is_mounted(Path::new("/proc/self")));
    }
}
