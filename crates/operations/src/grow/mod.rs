//! Giving a whole disk more room: container, partition table, partition and filesystem in one go.
//!
//! The order is the one in which each state stands by itself: first the container (room behind the
//! end harms nobody), then the table (the backup GPT before the primary one), then the filesystem
//! (a partition may be longer than what is in it). Each step finds out from the disk what is left
//! to do, so a run that was cut short is completed by the next one.
//!
//! Everything is tried before anything is written: the table is planned on the disk as it will be,
//! and the filesystem is grown in memory ([`Trial`]), so that what cannot be grown is refused with
//! nothing changed.

mod plan;
mod trial;

use std::sync::Arc;

use disksmith_disk::{Context, Disk, Error, Kind, Result, Slice, human_size};
use disksmith_formats::{Image, Preallocation, ResizeRequest};
use disksmith_partitions::{Content, Table};

use crate::kinds::FilesystemKind;
use crate::{Observer, SizeChange};

pub(crate) use trial::Trial;

/// What is to be grown.
#[derive(Clone, Debug)]
pub struct GrowRequest {
    /// The whole disk.
    pub disk: Arc<dyn Disk>,
    /// To which size.
    pub change: SizeChange,
    /// Which partition gets the room; the last one when not given.
    pub partition: Option<u32>,
    /// Grow what can be grown, even if what is in the partition cannot.
    pub force: bool,
}

/// What growing a disk will do.
#[derive(Clone, Debug)]
pub struct GrowPlan {
    /// Bytes of the disk now.
    pub old_size: u64,
    /// Bytes of the disk then.
    pub new_size: u64,
    /// An earlier run that was cut short is being completed.
    pub resumed: bool,
    /// The change of the partition table.
    pub table: Option<TableChange>,
    /// The change of the filesystem.
    pub filesystem: Option<FilesystemChange>,
    /// What cannot be grown and is left as it is, because it was asked for with force.
    pub left: Option<String>,
    partition: Option<u32>,
}

/// A change of the partition table.
#[derive(Clone, Debug)]
pub struct TableChange {
    /// The table as it is, on the larger disk.
    pub before: Table,
    /// The table as it will be.
    pub after: Table,
    /// What changes, a line each.
    pub lines: Vec<String>,
}

/// A change of a filesystem.
#[derive(Clone, Debug)]
pub struct FilesystemChange {
    /// Which sort.
    pub kind: FilesystemKind,
    /// The partition it is in; `None`: it has the whole disk.
    pub partition: Option<u32>,
    /// As it was recognised.
    pub content: Content,
    /// Its length in bytes now.
    pub old_size: u64,
    /// Its length in bytes then.
    pub new_size: u64,
}

impl GrowPlan {
    /// Finds out what is to be done. Nothing is written.
    pub fn new(request: &GrowRequest) -> Result<Self> {
        plan::plan(request)
    }

    /// The disk is already as wanted.
    pub fn is_empty(&self) -> bool {
        self.new_size == self.old_size && self.table.is_none() && self.filesystem.is_none()
    }

    /// What will be done, a line each.
    pub fn describe(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if self.resumed {
            lines.push(format!(
                "an earlier run was cut short: the disk has {} already, the rest is completed",
                bytes(self.new_size)
            ));
        }
        if self.new_size != self.old_size {
            lines.push(format!(
                "grow the disk from {} to {}",
                bytes(self.old_size),
                bytes(self.new_size)
            ));
        }
        if let Some(table) = &self.table {
            lines.extend(table.lines.iter().cloned());
        }
        if let Some(filesystem) = &self.filesystem {
            lines.push(filesystem.describe());
        }
        lines.extend(self.left.clone());
        lines
    }

    /// Does it. The observer is told how many of the three steps are done.
    pub fn apply(
        &self,
        image: &dyn Image,
        disk: &Arc<dyn Disk>,
        observer: &dyn Observer,
    ) -> Result<()> {
        const STEPS: u64 = 3;
        observer.progress(0, STEPS);
        self.grow_container(image).map_err(|error| match error.kind() {
            Kind::OutOfSpace | Kind::Unsupported => error.with_hint("Nothing was changed."),
            _ => error,
        })?;
        observer.progress(1, STEPS);
        let resume = |error: Error| {
            error.with_hint(format!(
                "The disk is larger already; run 'grow' with {} to complete it.",
                self.new_size
            ))
        };
        self.change_table(disk).map_err(resume)?;
        observer.progress(2, STEPS);
        self.grow_filesystem(disk).map_err(resume)?;
        observer.progress(STEPS, STEPS);
        Ok(())
    }

    fn grow_container(&self, image: &dyn Image) -> Result<()> {
        if image.size() >= self.new_size {
            return Ok(());
        }
        let request = ResizeRequest { size: self.new_size, preallocation: Preallocation::Off };
        image.resize(request).context("Could not grow the container")?;
        image.flush().context("Could not grow the container")
    }

    fn change_table(&self, disk: &Arc<dyn Disk>) -> Result<()> {
        let Some(change) = &self.table else { return Ok(()) };
        let attempt = "Could not change the partition table";
        let now = disksmith_partitions::read(disk).context(attempt)?;
        let plan = disksmith_partitions::Plan::new(disk, &now, &change.after).context(attempt)?;
        plan.apply(disk, false).context(attempt)
    }

    fn grow_filesystem(&self, disk: &Arc<dyn Disk>) -> Result<()> {
        let Some(change) = &self.filesystem else { return Ok(()) };
        let attempt = || format!("Could not grow the {}", change.name());
        let part = part_of(disk, change.partition).with_context(attempt)?;
        change.kind.grow(part, &change.content).with_context(attempt)?;
        disk.flush().with_context(attempt)
    }

    /// Which partition gets the room.
    pub fn partition(&self) -> Option<u32> {
        self.partition
    }
}

impl FilesystemChange {
    fn name(&self) -> String {
        let what = match self.kind {
            FilesystemKind::Swap => "swap".to_string(),
            _ => format!("{} filesystem", self.content.kind),
        };
        match self.partition {
            Some(number) => format!("{what} in partition {number}"),
            None => what,
        }
    }

    fn describe(&self) -> String {
        format!(
            "grow the {} from {} to {}",
            self.name(),
            bytes(self.old_size),
            bytes(self.new_size)
        )
    }
}

/// The disk that a partition is.
pub(crate) fn part_of(disk: &Arc<dyn Disk>, partition: Option<u32>) -> Result<Arc<dyn Disk>> {
    let Some(number) = partition else { return Ok(disk.clone()) };
    let table = disksmith_partitions::read(disk)?;
    let entry = table.require(number)?;
    let (start, length) =
        (entry.start_bytes(table.sector_size), entry.length_bytes(table.sector_size));
    Ok(Arc::new(Slice::new(disk.clone(), start, length)?))
}

fn bytes(size: u64) -> String {
    format!("{} ({size} bytes)", human_size(size))
}
