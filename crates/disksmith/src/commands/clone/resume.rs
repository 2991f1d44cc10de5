//! Going on where an earlier run stopped.

use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use disksmith_disk::Error;
use disksmith_host::{FileDisk, OpenOptions, writes_so_far};
use disksmith_open::OpenedDisk;
use disksmith_operations::clone::{MapFile, Reader, holds_beginning, resumable};

use super::CloneVerb;
use super::destination::Destination;
use crate::face::{Face, Failure};

impl CloneVerb {
    /// What says that a copy that was begun is this one.
    pub(super) fn identity(&self, source: &OpenedDisk) -> Result<String, Failure> {
        let mut text = format!("source={} size={}", self.from, source.disk.size());
        if let Some(file) = &source.node.file {
            let meta = file.file().metadata().map_err(Error::from)?;
            match file.is_block_device() {
                true => {
                    text += &format!(" device={}", meta.rdev());
                    // With a map file of his own the user says that the device is the same.
                    if let (None, Some(writes)) = (&self.rescue, writes_so_far(file)) {
                        text += &format!(" {writes}");
                    }
                }
                false => {
                    text += &format!(
                        " file={}:{} modified={}.{:09}",
                        meta.dev(),
                        meta.ino(),
                        meta.mtime(),
                        meta.mtime_nsec()
                    )
                }
            }
        }
        let format = self.format();
        let what = if self.used_only { "used" } else { "all" };
        Ok(text
            + &format!(
                " copy={what} target={} format={format} options={}",
                self.to,
                self.options.join(",")
            ))
    }

    /// The record of an earlier run that this one goes on with.
    pub(super) fn earlier(
        &self,
        face: &Face,
        source: &OpenedDisk,
        target: &Destination,
        (record, identity): (&Path, &str),
        free: &[Range<u64>],
    ) -> Result<Option<MapFile>, Failure> {
        let known = match resumable(record, identity, source.disk.size()) {
            Ok(known) => known.filter(|_| target.device || target.place.exists()),
            // The one that we keep by ourselves tells of an earlier copy of something else.
            Err(_) if self.rescue.is_none() || self.force => None,
            Err(error) => return Err(error.into()),
        };
        let Some(known) = known.filter(|known| known.resumable() < known.size()) else {
            return Ok(None);
        };
        if target.device {
            let reader = Reader::new(source.disk.clone()).without(free.to_vec());
            let device = FileDisk::open(&target.path, OpenOptions::default())?;
            if !holds_beginning(&reader, &device, known.resumable())? {
                face.warn(&format!(
                    "'{}' does not hold what was copied to it before; all of it is copied anew",
                    self.to
                ));
                return Ok(None);
            }
        }
        Ok(Some(known))
    }
}
