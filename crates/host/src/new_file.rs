//! Files that appear under their name only when whole.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use disksmith_disk::{Context, Disk, Result};

use crate::{FileDisk, OpenOptions};

/// A file being made under a temporary name beside its final one. Dropped without
/// [`publish`](Self::publish) it disappears.
#[derive(Debug)]
pub struct NewFile {
    disk: std::sync::Arc<FileDisk>,
    temporary: PathBuf,
    target: PathBuf,
    published: bool,
}

impl NewFile {
    /// Starts a file that is to be called `target`. What is there stays until
    /// [`publish`](Self::publish).
    pub fn create(target: &Path, options: OpenOptions) -> Result<Self> {
        // A link to a file keeps being a link: what it points to is replaced.
        let target = fs::canonicalize(target).unwrap_or_else(|_| target.to_path_buf());
        let name = target.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut attempt = 0u32;
        let (file, temporary) = loop {
            let temporary =
                target.with_file_name(format!(".{name}.{}-{attempt}.partial", std::process::id()));
            match File::options().read(true).write(true).create_new(true).open(&temporary) {
                Ok(file) => break (file, temporary),
                Err(error)
                    if error.kind() == std::io::ErrorKind::AlreadyExists && attempt < 100 =>
                {
                    attempt += 1;
                }
                Err(error) => return Err(error.into()),
            }
        };
        let options = OpenOptions { write: true, ..options };
        let disk = std::sync::Arc::new(FileDisk::from_file(file, &target, options)?);
        Ok(Self { disk, temporary, target, published: false })
    }

    /// The file to write.
    pub fn disk(&self) -> &std::sync::Arc<FileDisk> {
        &self.disk
    }

    /// Where it is being made, to be removed by a signal handler.
    pub fn temporary(&self) -> &Path {
        &self.temporary
    }

    /// Makes the content durable, gives the file its name, makes the name durable.
    pub fn publish(mut self) -> Result<()> {
        self.disk.flush()?;
        self.disk.file().sync_all()?;
        // Opened first: once the file has its name, as little as possible may fail.
        let folder = open_parent(&self.target)?;
        name(&self.temporary, &self.target)?;
        self.published = true;
        folder.sync_all().context("Could not sync the directory")
    }
}

/// Gives a file that is whole its name `target`, in place of what is there, and makes content and
/// name durable.
pub fn publish(file: &Path, target: &Path) -> Result<()> {
    File::open(file)
        .and_then(|file| file.sync_all())
        .with_context(|| format!("Could not sync '{}'", file.display()))?;
    let target = fs::canonicalize(target).unwrap_or_else(|_| target.to_path_buf());
    let folder = open_parent(&target)?;
    name(file, &target)?;
    folder.sync_all().context("Could not sync the directory")
}

fn name(file: &Path, target: &Path) -> Result<()> {
    if let Ok(old) = fs::metadata(target) {
        let _ = fs::set_permissions(file, old.permissions());
    }
    fs::rename(file, target)
        .with_context(|| format!("Could not name the file '{}'", target.display()))
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.published {
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

/// The directory that holds `path`.
fn open_parent(path: &Path) -> Result<File> {
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    File::open(parent).context("Could not open the directory to sync it")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn appears_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("image");
        let file = NewFile::create(&target, OpenOptions::default()).unwrap();
        file.disk().write_at(b"whole", 0).unwrap();
        assert!(!target.exists());
        drop(file);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        let file = NewFile::create(&target, OpenOptions::default()).unwrap();
        file.disk().write_at(b"whole", 0).unwrap();
        file.publish().unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"whole");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
