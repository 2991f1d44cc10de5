//! Mounting and unmounting.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use disksmith_disk::{Context, Disk, Error, Kind, Result};
use fuser::{Config, MountOption, Session, SessionACL, SessionUnmounter};

use crate::DiskFolder;

/// Threads that serve requests.
const THREADS: usize = 4;

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
}

impl MountOptions {
    fn config(&self) -> Config {
        let mut config = Config::default();
        config.mount_options = vec![
            MountOption::FSName(self.source.clone()),
            MountOption::Subtype(self.kind.clone()),
            MountOption::NoSuid,
            MountOption::NoDev,
            if self.read_only { MountOption::RO } else { MountOption::RW },
        ];
        if self.default_permissions {
            config.mount_options.push(MountOption::DefaultPermissions);
        }
        config.acl = if self.allow_other { SessionACL::All } else { SessionACL::Owner };
        config.n_threads = Some(THREADS);
        config.clone_fd = true;
        config
    }
}

/// A mounted folder that is not served yet.
pub struct Mounted<F: fuser::Filesystem> {
    session: Session<F>,
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
        let session = Session::new(filesystem, directory, &options.config())
            .with_context(|| format!("Could not mount on '{}'", directory.display()))
            .map_err(|e| {
                e.with_hint("FUSE needs /dev/fuse and, without root, fusermount3 (package fuse3).")
            })?;
        Ok(Self { session })
    }

    /// Ends the mount from another thread: a signal handler's.
    pub fn unmounter(&mut self) -> SessionUnmounter {
        self.session.unmount_callable()
    }

    /// Serves until the folder is unmounted.
    pub fn serve(self) -> Result<()> {
        self.session.run().context("Serving the mount failed")
    }
}

/// Mounts a folder of disk files. Also answers the disks, to be flushed after
/// [`Mounted::serve`] has returned.
pub fn mount(
    folder: DiskFolder,
    directory: &Path,
    options: &MountOptions,
) -> Result<(Mounted<DiskFolder>, Vec<Arc<dyn Disk>>)> {
    let disks = folder.disks();
    let watch = folder.watch();
    let mounted = Mounted::new(folder, directory, options)?;
    watch(mounted.session.notifier());
    Ok((mounted, disks))
}

/// Whether something is mounted exactly there.
pub fn is_mounted(directory: &Path) -> bool {
    mount_entry(directory).is_some()
}

/// Unmounts what is mounted on a directory. Without root it is done by fusermount3.
pub fn unmount(directory: &Path) -> Result<()> {
    let attempt = || format!("Could not unmount '{}'", directory.display());
    if mount_entry(directory).is_none() {
        return Err(Error::new(Kind::NotFound, "nothing is mounted there").context(attempt()));
    }
    let direct = rustix::mount::unmount(directory, rustix::mount::UnmountFlags::empty());
    match direct {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::PERM) => by_fusermount(directory).map_err(|e| e.context(attempt())),
        Err(rustix::io::Errno::BUSY) => Err(Error::new(Kind::InUse, "it is in use")
            .context(attempt())
            .with_hint("Leave the directory and close its files first.")),
        Err(error) => Err(Error::from_errno(error.raw_os_error()).context(attempt())),
    }
}

fn by_fusermount(directory: &Path) -> Result<()> {
    let output = std::process::Command::new("fusermount3")
        .arg("-u")
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

/// The source named in the mount table for a directory. It is looked up by text: a stat of a
/// mount whose server is gone would hang or fail.
fn mount_entry(directory: &Path) -> Option<String> {
    let wanted = absolute(directory);
    let table = fs::read_to_string("/proc/self/mounts").ok()?;
    let mut found = None;
    for line in table.lines() {
        let mut words = line.split(' ');
        if let (Some(source), Some(place)) = (words.next(), words.next())
            && Path::new(&unescape(place)) == wanted
        {
            found = Some(unescape(source));
        }
    }
    found
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
