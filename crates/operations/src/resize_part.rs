//! Another length for one partition and the filesystem in it, or for a filesystem that has the whole
//! disk. What cannot be done is found out in memory first, and then nothing is changed.

use std::sync::Arc;

use disksmith_disk::{Context, Disk, Error, Kind, Result};
use disksmith_formats::{Image, Preallocation};
use disksmith_partitions::{Content, Length, Plan, probe, read, resize};

use crate::SizeChange;
use crate::grow::{Trial, bytes, part_of};
use crate::kinds::FilesystemKind;

/// What is to become of which part.
#[derive(Clone, Debug)]
pub struct ResizePart {
    /// The whole disk.
    pub disk: Arc<dyn Disk>,
    /// The partition; `None`: the filesystem has the whole disk.
    pub partition: Option<u32>,
    /// Bytes it has now.
    pub old: u64,
    /// Bytes it is to have.
    pub new: u64,
}

impl ResizePart {
    /// Does it.
    pub fn apply(&self, image: &dyn Image) -> Result<()> {
        self.try_out()?;
        let attempt = || match self.partition {
            Some(number) => format!("Could not resize partition {number}"),
            None => "Could not resize the filesystem".to_string(),
        };
        if self.new < self.old {
            self.shrink_filesystem(&self.disk).with_context(attempt)?;
            self.disk.flush()?;
            return self.change_length(&self.disk, Some(image)).with_context(attempt);
        }
        self.change_length(&self.disk, Some(image)).with_context(attempt)?;
        self.grow_filesystem(&self.disk).with_context(attempt)?;
        self.disk.flush()
    }

    fn try_out(&self) -> Result<()> {
        let longer = self.partition.is_none().then_some(self.new.max(self.old));
        let size = longer.unwrap_or(self.disk.size());
        let trial: Arc<dyn Disk> = Arc::new(Trial::new(self.disk.clone(), size));
        let tried = match self.new < self.old {
            true => self.shrink_filesystem(&trial),
            false => self.change_length(&trial, None).and_then(|()| self.grow_filesystem(&trial)),
        };
        match tried {
            Err(error) if !Trial::was_long(&error) => Err(error),
            _ => Ok(()),
        }
    }

    /// Of the partition, or of the container where there is none. Without an image it is tried.
    fn change_length(&self, disk: &Arc<dyn Disk>, image: Option<&dyn Image>) -> Result<()> {
        let Some(number) = self.partition else {
            let change = SizeChange::To(self.new);
            let image = image.filter(|_| self.new != self.old);
            let resized = image.map(|i| crate::resize(i, change, Preallocation::Off, true));
            return resized.unwrap_or(Ok(()));
        };
        let table = read(disk)?;
        let after = resize(&table, number, Length::Bytes(self.new), Default::default())?;
        Plan::new(disk, &table, &after)?.apply(disk, false)
    }

    fn known(&self, disk: &Arc<dyn Disk>) -> Result<(Arc<dyn Disk>, Option<Content>)> {
        let part = part_of(disk, self.partition)?;
        let content = probe(&part)?;
        Ok((part, content))
    }

    fn shrink_filesystem(&self, disk: &Arc<dyn Disk>) -> Result<()> {
        let (part, Some(content)) = self.known(disk)? else { return Ok(()) };
        let kind =
            FilesystemKind::of_content(&content).ok_or_else(|| cannot(&content, "shrunk"))?;
        kind.shrink(part.clone(), &content, Some(self.new)).map(drop).map_err(|error| {
            match kind.minimum(part) {
                Ok(least) if self.new < least => {
                    error.with_hint(format!("What is in it needs at least {}.", bytes(least)))
                }
                _ => error,
            }
        })
    }

    fn grow_filesystem(&self, disk: &Arc<dyn Disk>) -> Result<()> {
        let (part, Some(content)) = self.known(disk)? else { return Ok(()) };
        let kind = FilesystemKind::of_content(&content).ok_or_else(|| cannot(&content, "grown"))?;
        kind.grow(part, &content).map(drop)
    }
}

fn cannot(content: &Content, how: &str) -> Error {
    Error::new(Kind::Unsupported, format!("{} cannot be {how} here", content.kind))
        .with_hint("Nothing was changed. The partition alone: partition IMAGE resize.")
}
