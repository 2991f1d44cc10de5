//! The files that commands make.

use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use disksmith_disk::{Context, Disk, Error, Kind, Result};
use disksmith_formats::OpenMode;
use disksmith_host::{FileDisk, LockSet, NewFile, OpenOptions, Permission};
use disksmith_open::{ImageSpec, Settings};

use crate::face::Face;
use crate::signals;

/// A file being made. Dropped without [`keep`](Self::keep), it is removed if it was not there
/// before.
#[derive(Debug)]
pub(crate) struct Target {
    /// `None` for what is no file.
    file: Option<Arc<FileDisk>>,
    path: PathBuf,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Under a temporary name, renamed when whole.
    New(NewFile),
    /// Under its own name; the flag says that it is ours to remove.
    InPlace(bool),
    /// What another program serves under that name: it is there, and stays.
    Served(String),
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
            let options = OpenOptions { no_flush: true, ..OpenOptions::default() };
            let file = signals::new_file(path, options).with_context(attempt)?;
            return Ok(Self {
                file: Some(file.disk().clone()),
                path: path.to_path_buf(),
                state: State::New(file),
            });
        }
        if old.as_ref().is_some_and(|status| status.file_type().is_char_device()) {
            return Err(Error::new(Kind::Unsupported, "Cannot grow device files"));
        }
        let options =
            OpenOptions { write: true, create: true, no_flush: !durable, ..OpenOptions::default() };
        // To open a pipe may take until somebody reads it.
        let mut unfinished = old.is_none().then(signals::hold);
        let disk = Arc::new(FileDisk::open(path, options).with_context(attempt)?);
        if let Some(unfinished) = &mut unfinished {
            unfinished.push(path.to_path_buf());
        }
        drop(unfinished);
        let state = State::InPlace(old.is_none());
        let target = Self { file: Some(disk.clone()), path: path.to_path_buf(), state };
        disk.lock(creating())?;
        if !disk.is_block_device() {
            disk.set_size(0)?;
        }
        Ok(target)
    }

    /// A target that another program serves: `nbd://…`.
    pub(crate) fn served(name: &str) -> Self {
        Self { file: None, path: PathBuf::new(), state: State::Served(name.to_string()) }
    }

    /// Chooses whether the file is removed unless it is kept; answers what held before. Devices
    /// and files under another name stay as they are.
    pub(crate) fn remove_on_failure(&mut self, wanted: bool) -> bool {
        let has_content = self.has_content();
        match &mut self.state {
            State::InPlace(remove) if !has_content => std::mem::replace(remove, wanted),
            _ => false,
        }
    }

    /// Makes what was written to a file of ours durable, where that is wanted before it is kept.
    pub(crate) fn flush(&self) -> Result<()> {
        self.file.as_ref().map_or(Ok(()), |file| file.flush())
    }

    /// Opens what is to be written, as bytes. Servers may know one client at a time: it must be
    /// dropped before the target is opened as an image.
    pub(crate) fn storage(&self) -> Result<Arc<dyn Disk>> {
        match (&self.file, &self.state) {
            (Some(file), _) => Ok(file.clone()),
            (None, State::Served(name)) => {
                let spec = ImageSpec::from_name(name, Some("raw"))?;
                let attempt = || {
                    let scheme = name.split(['+', ':']).next().unwrap_or_default();
                    format!(
                        "Protocol driver '{scheme}' does not support creating new images, so an existing image must be selected as the target; however, opening the given target as an existing image failed"
                    )
                };
                let node = disksmith_open::open_plainly(&spec, &Settings::new(OpenMode::Write))
                    .with_context(attempt)?;
                Ok(node.image.storage().clone())
            }
            (None, _) => Err(Error::new(Kind::Unsupported, "the target is no file")),
        }
    }

    /// Whether it is of a given size and holds bytes of old, as devices and exports do.
    pub(crate) fn has_content(&self) -> bool {
        self.file.as_ref().is_none_or(|file| file.is_block_device())
    }

    /// How to open it as an image of `format`, while it is being made.
    pub(crate) fn spec(&self, shown: &str, format: &str) -> Result<ImageSpec> {
        match &self.state {
            State::Served(name) => ImageSpec::from_name(name, Some(format)),
            _ => Ok(ImageSpec::from_path(self.place(), shown, Some(format))),
        }
    }

    /// Where it lies while it is being made.
    pub(crate) fn place(&self) -> &Path {
        match &self.state {
            State::New(file) => file.temporary(),
            State::InPlace(_) | State::Served(_) | State::Kept => &self.path,
        }
    }

    /// Lets go of the locks, so that it can be opened as an image, which takes its own.
    pub(crate) fn unlock(&self) -> Result<()> {
        self.file.as_ref().map_or(Ok(()), |file| file.lock(LockSet::NONE))
    }

    /// It is whole: gives it its name, makes that durable and lets go of its locks.
    pub(crate) fn keep(mut self) -> Result<()> {
        match std::mem::replace(&mut self.state, State::Kept) {
            State::New(file) => {
                let temporary = file.temporary().to_path_buf();
                file.publish()?;
                signals::finished(&temporary);
            }
            State::InPlace(_) => signals::finished(&self.path),
            State::Served(_) | State::Kept => {}
        }
        self.unlock()
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
            State::InPlace(false) | State::Served(_) | State::Kept => {}
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
