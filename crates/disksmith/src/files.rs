//! The files that commands make.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use disksmith_disk::{Context, Disk, Result};
use disksmith_host::{FileDisk, LockSet, NewFile, OpenOptions, Permission};

use crate::face::Face;
use crate::signals;

/// A file being made. Dropped without [`keep`](Self::keep), it is removed if it was not there
/// before.
#[derive(Debug)]
pub(crate) struct Target {
    disk: Arc<FileDisk>,
    path: PathBuf,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Under a temporary name, renamed when whole.
    New(NewFile),
    /// Under its own name; the flag says that it is ours to remove.
    InPlace(bool),
    /// Kept.
    Kept,
}

impl Target {
    /// Starts an empty file called `path`. The drop-in writes it in place, as scripts expect that
    /// look at it meanwhile or made it a link; the native face lets it appear when whole.
    /// Devices are always written in place. What is written in place becomes durable when flushed
    /// if `durable`; what is to appear when whole becomes so then.
    pub(crate) fn make(face: &Face, path: &Path, durable: bool) -> Result<Self> {
        let attempt = || format!("Could not create '{}'", path.display());
        let old = std::fs::metadata(path).ok();
        let in_place = face.drop_in || old.as_ref().is_some_and(|m| !m.is_file());
        if !in_place {
            refuse_if_in_use(path)?;
            let file =
                NewFile::create(path, OpenOptions { no_flush: true, ..OpenOptions::default() })
                    .with_context(attempt)?;
            signals::unfinished(file.temporary());
            return Ok(Self {
                disk: file.disk().clone(),
                path: path.to_path_buf(),
                state: State::New(file),
            });
        }
        let options =
            OpenOptions { write: true, create: true, no_flush: !durable, ..OpenOptions::default() };
        let disk = Arc::new(FileDisk::open(path, options).with_context(attempt)?);
        let target = Self { disk, path: path.to_path_buf(), state: State::InPlace(old.is_none()) };
        if old.is_none() {
            signals::unfinished(path);
        }
        target.disk.lock(creating())?;
        if !target.disk.is_block_device() {
            target.disk.set_size(0)?;
        }
        Ok(target)
    }

    /// The file to write.
    pub(crate) fn disk(&self) -> &Arc<FileDisk> {
        &self.disk
    }

    /// Where it lies while it is being made.
    pub(crate) fn place(&self) -> &Path {
        match &self.state {
            State::New(file) => file.temporary(),
            State::InPlace(_) | State::Kept => &self.path,
        }
    }

    /// Lets go of the locks, so that it can be opened as an image, which takes its own.
    pub(crate) fn unlock(&self) -> Result<()> {
        self.disk.lock(LockSet::NONE)
    }

    /// It is whole: gives it its name, makes that durable and lets go of its locks.
    pub(crate) fn keep(mut self) -> Result<()> {
        match std::mem::replace(&mut self.state, State::Kept) {
            State::New(file) => {
                let temporary = file.temporary().to_path_buf();
                file.publish()?;
                signals::finished(&temporary);
            }
            State::InPlace(_) | State::Kept => signals::finished(&self.path),
        }
        self.disk.lock(LockSet::NONE)
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        match &self.state {
            State::New(file) => signals::finished(file.temporary()),
            State::InPlace(true) => {
                let _ = std::fs::remove_file(&self.path);
                signals::finished(&self.path);
            }
            State::InPlace(false) | State::Kept => {}
        }
    }
}

/// What QEMU holds while it makes a file.
fn creating() -> LockSet {
    LockSet::new(&[Permission::Write, Permission::Resize], &[Permission::Resize])
}

/// Replacing a file that somebody has open would leave him with a file without a name.
fn refuse_if_in_use(path: &Path) -> Result<()> {
    match FileDisk::open(path, OpenOptions { write: true, ..OpenOptions::default() }) {
        Ok(old) => {
            old.lock(creating()).with_context(|| format!("Could not replace '{}'", path.display()))
        }
        Err(_) => Ok(()),
    }
}
