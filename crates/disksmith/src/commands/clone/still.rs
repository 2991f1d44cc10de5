//! Keeping a source still that is mounted.

use std::path::{Path, PathBuf};

use disksmith_disk::{Error, Kind};
use disksmith_host::{Frozen, Mount, mounts};
use disksmith_open::OpenedDisk;

use super::CloneVerb;
use super::destination::Destination;
use crate::face::{Face, Failure};

impl CloneVerb {
    /// Freezes what is mounted from the source.
    pub(super) fn keep_still(
        &self,
        face: &Face,
        source: &OpenedDisk,
        target: &mut Destination,
    ) -> Result<Vec<Frozen>, Failure> {
        let Some(file) = &source.node.file else { return Ok(Vec::new()) };
        let mounted: Vec<Mount> =
            mounts(file)?.into_iter().filter(|mount| !mount.read_only).collect();
        target.keep_no_map_on(&mounted);
        let mut frozen: Vec<Frozen> = Vec::new();
        let mut devices: Vec<&str> = Vec::new();
        for mount in &mounted {
            if devices.contains(&mount.device.as_str()) {
                continue;
            }
            let result = still(mount, target, self.rescue.as_deref());
            match result {
                Ok(one) => frozen.push(one),
                Err(error) if self.force => {
                    face.warn(&format!("{error}; it is copied while it is written to"));
                }
                Err(error) => {
                    return Err(error
                        .context(format!(
                            "'{}' is mounted on '{}'",
                            self.from,
                            mount.point.display()
                        ))
                        .with_hint("Unmount it, or say --force to copy it while it is written to.")
                        .into());
                }
            }
            devices.push(&mount.device);
        }
        Ok(frozen)
    }
}

/// Freezes a filesystem, unless we would write to it: that would wait for ever.
fn still(mount: &Mount, target: &Destination, map: Option<&Path>) -> Result<Frozen, Error> {
    use std::os::unix::fs::MetadataExt;
    let folder_of = |path: &Path| match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
        _ => PathBuf::from("."),
    };
    let folders = [Some(folder_of(&target.path)), map.map(folder_of)];
    let mut written: Vec<u64> = Vec::new();
    for folder in folders.into_iter().flatten() {
        written.extend(std::fs::metadata(folder).map(|meta| meta.dev()));
    }
    // What we print may go to a file.
    written.extend(rustix::fs::fstat(std::io::stdout()).map(|status| status.st_dev));
    written.extend(rustix::fs::fstat(std::io::stderr()).map(|status| status.st_dev));
    if written.contains(&std::fs::metadata(&mount.point)?.dev()) {
        return Err(Error::new(
            Kind::Refused,
            "the copy (or what is printed) would be written to the filesystem that is copied",
        ));
    }
    Frozen::freeze(mount, crate::program::keeper())
}
