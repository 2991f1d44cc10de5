//! Where a copy goes.

use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use disksmith_disk::{Context, Error, Kind};
use disksmith_host::{FileDisk, LockSet, Mount, OpenOptions, Permission};
use disksmith_open::OpenedDisk;

use crate::face::{Failure, usage};

/// Where a copy goes.
pub(super) struct Destination {
    /// As it is to be called.
    pub(super) path: PathBuf,
    /// Where it is until it is whole; the same for a device.
    pub(super) place: PathBuf,
    /// Its map file, unless another is named: beside an image; of a device, in the user's folder.
    pub(super) map: Option<PathBuf>,
    pub(super) device: bool,
}

impl Destination {
    pub(super) fn of(name: &str) -> Result<Self, Failure> {
        let path = PathBuf::from(name);
        let there = std::fs::metadata(&path).ok();
        if there.as_ref().is_some_and(|meta| !meta.is_file()) {
            let map = map_of_device(&path);
            return Ok(Self { place: path.clone(), path, map, device: true });
        }
        let Some(file) = path.file_name() else { return usage(format!("'{name}' names no file")) };
        let beside =
            |suffix: &str| path.with_file_name(format!(".{}{suffix}", file.to_string_lossy()));
        Ok(Self {
            place: beside(".clone"),
            map: Some(beside(".clone-map")),
            path: path.clone(),
            device: false,
        })
    }

    /// Before these are frozen: the map of a device must not lie on one of them, or writing it would
    /// wait for ever.
    pub(super) fn keep_no_map_on(&mut self, mounted: &[Mount]) {
        let device = |path: &Path| std::fs::metadata(path).ok().map(|meta| meta.dev());
        let folder = self.map.as_deref().filter(|_| self.device).and_then(Path::parent);
        if let Some(folder) = folder.map(device)
            && mounted.iter().any(|mount| device(&mount.point) == folder)
        {
            self.map = None;
        }
    }

    /// After a failure: what can be gone on with is kept, the rest is not.
    pub(super) fn leave(&self, error: Error, record: Option<&Path>) -> Error {
        let kept = record.is_some_and(Path::exists);
        if self.device {
            return match kept {
                true => error.with_hint("Run the same command again to go on where it stopped."),
                false => error.with_hint(
                    "The device holds a part of the copy: run the same command with --force to copy all of it anew.",
                ),
            };
        }
        if kept {
            return error.with_hint(format!(
                "Run the same command again to go on where it stopped, or remove '{}'.",
                self.place.display()
            ));
        }
        let _ = std::fs::remove_file(&self.place);
        error
    }
}

/// A device has no place beside it: its map file is in the user's folder for what programs keep.
fn map_of_device(device: &Path) -> Option<PathBuf> {
    if !std::fs::metadata(device).is_ok_and(|meta| meta.file_type().is_block_device()) {
        return None;
    }
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let state = variable("XDG_STATE_HOME").map(PathBuf::from);
    let state = state.or_else(|| Some(Path::new(&variable("HOME")?).join(".local/state")))?;
    let folder = state.join("disksmith");
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder).ok()?;
    let name = std::fs::canonicalize(device).ok()?.to_string_lossy().replace('/', "-");
    Some(folder.join(format!("clone{name}.map")))
}

/// A disk is not copied onto itself.
pub(super) fn refuse_itself(source: &OpenedDisk, target: &str) -> Result<(), Error> {
    let Ok(meta) = std::fs::metadata(target) else { return Ok(()) };
    for node in source.node.chain() {
        let Some(file) = &node.file else { continue };
        let own = file.file().metadata()?;
        if (own.dev(), own.ino()) == (meta.dev(), meta.ino())
            || (meta.rdev() != 0 && meta.rdev() == own.rdev())
        {
            return Err(Error::new(
                Kind::InvalidInput,
                format!("'{target}' is (a part of) the source itself"),
            ));
        }
    }
    Ok(())
}

/// An image that somebody uses is not replaced.
pub(super) fn refuse_target_in_use(path: &Path) -> Result<(), Error> {
    let Ok(old) = FileDisk::open(path, OpenOptions { write: true, ..OpenOptions::default() })
    else {
        return Ok(());
    };
    let locks = LockSet::new(&[Permission::Write, Permission::Resize], &[Permission::Resize]);
    old.lock(locks).with_context(|| format!("Could not replace '{}'", path.display()))
}
