//! Taking room from a whole disk: filesystem, partition, partition table and container in one go.
//!
//! The order is that of growing ([`crate::grow`]), backwards: first the filesystem (a partition may
//! be longer than what is in it), then the table, then the container. Each state stands by itself,
//! and each step finds out from the disk what is left to do, so a run that was cut short is
//! completed by the next one.
//!
//! Everything is tried in memory first, so that what cannot be made smaller is refused with nothing
//! changed.

use std::sync::Arc;

use disksmith_disk::{Context, Disk, Error, Kind, Result};
use disksmith_formats::{Image, Preallocation};
use disksmith_partitions::{
    Align, Content, Label, Length, Partition, Plan, Source, Table, fit_disk, minimise, probe, read,
    repair, resize,
};

use crate::grow::{FilesystemChange, TableChange, Trial, bytes, lines, part_of, refuse_damaged};
use crate::kinds::FilesystemKind;
use crate::{Observer, Resizable, SizeChange};

/// A disk without a partition table gets a multiple of this many bytes.
const UNIT: u64 = 1 << 20;
const CUT_HINT: &str = "Nothing was changed. 'resize --shrink' cuts a disk without looking at it.";
const LEAST_HINT: &str =
    "Nothing was changed. 'shrink --minimum --dry-run' tells how small it can be.";

/// How small.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ShrinkTo {
    /// As small as it can be.
    Minimum,
    /// To this size.
    Size(SizeChange),
}

/// What is to be made smaller.
#[derive(Clone, Debug)]
pub struct ShrinkRequest {
    /// The whole disk.
    pub disk: Arc<dyn Disk>,
    /// To which size.
    pub to: ShrinkTo,
    /// The partition that gives the room: it must be the last one.
    pub partition: Option<u32>,
}

/// What making a disk smaller will do.
#[derive(Clone, Debug)]
pub struct ShrinkPlan {
    /// Bytes of the disk now.
    pub old_size: u64,
    /// Bytes of the disk then.
    pub new_size: u64,
    /// The change of the filesystem.
    pub filesystem: Option<FilesystemChange>,
    /// The change of the partition table.
    pub table: Option<TableChange>,
    /// What cannot be made smaller and keeps its length.
    pub left: Option<String>,
    /// The partition that gives room.
    pub partition: Option<u32>,
    to: ShrinkTo,
    /// What is in the partition (or on the whole disk), if it can be made smaller.
    held: Option<(FilesystemKind, Content)>,
    /// Bytes that the filesystem may have; as few as possible when not given.
    most: Option<u64>,
    /// The filesystem was made smaller in memory to the end: the table can be held against it.
    tried: bool,
}

impl ShrinkPlan {
    /// Finds out what is to be done. Nothing is written.
    pub fn new(request: &ShrinkRequest) -> Result<Self> {
        let old_size = request.disk.size();
        let most = match request.to {
            ShrinkTo::Minimum => None,
            ShrinkTo::Size(change) => Some(smaller(old_size, change)?),
        };
        let plan = Self {
            old_size,
            new_size: most.unwrap_or(old_size),
            filesystem: None,
            table: None,
            left: None,
            partition: None,
            to: request.to,
            held: None,
            most,
            tried: true,
        };
        let table = read(&request.disk)?;
        match table.label {
            Label::None => plan.without_table(request),
            _ => plan.with_table(request, &table),
        }
    }

    /// The disk is already as wanted.
    pub fn is_empty(&self) -> bool {
        self.new_size == self.old_size && self.table.is_none() && self.filesystem.is_none()
    }

    /// What will be done, a line each.
    pub fn describe(&self) -> Vec<String> {
        let mut lines = Vec::new();
        lines.extend(self.filesystem.as_ref().map(FilesystemChange::describe));
        lines.extend(self.left.clone());
        lines.extend(self.table.iter().flat_map(|table| table.lines.iter().cloned()));
        if self.new_size != self.old_size {
            lines.push(format!(
                "shrink the disk from {} to {}",
                bytes(self.old_size),
                bytes(self.new_size)
            ));
        }
        lines
    }

    /// Does it. Answers the size of the disk then. The observer is told how many of the two steps
    /// are done.
    pub fn apply(
        &self,
        image: &dyn Image,
        disk: &Arc<dyn Disk>,
        observer: &dyn Observer,
    ) -> Result<u64> {
        const STEPS: u64 = 2;
        observer.progress(0, STEPS);
        let length = self.shrink_filesystem(disk)?;
        observer.progress(1, STEPS);
        self.shrink_disk(image, disk, length).map_err(|error| {
            error.with_hint("What is on the disk is whole; run 'shrink' again to complete it.")
        })?;
        observer.progress(STEPS, STEPS);
        Ok(image.size())
    }

    /// The length of the filesystem then.
    fn shrink_filesystem(&self, disk: &Arc<dyn Disk>) -> Result<Option<u64>> {
        let Some((kind, content)) = &self.held else { return Ok(None) };
        let attempt = || format!("Could not shrink the {}", content.kind);
        let part = part_of(disk, self.partition).with_context(attempt)?;
        let (_, length) = kind.shrink(part, content, self.most).with_context(attempt)?;
        disk.flush().with_context(attempt)?;
        Ok(Some(length))
    }

    /// The filesystem may have turned out longer than it was thought to become.
    fn shrink_disk(
        &self,
        image: &dyn Image,
        disk: &Arc<dyn Disk>,
        length: Option<u64>,
    ) -> Result<()> {
        let Some(number) = self.partition else {
            let size = match (length, self.to) {
                (Some(length), ShrinkTo::Minimum) => whole_units(length, self.old_size),
                _ => self.new_size,
            };
            if size == image.size() {
                return image.flush().context("Could not shrink the container");
            }
            return crate::resize(image, SizeChange::To(size), Preallocation::Off, true)
                .context("Could not shrink the container");
        };
        let attempt = "Could not change the partition table";
        let now = read(disk).context(attempt)?;
        let after = self.shorter(&sound(disk, &now)?, number, length)?;
        let plan = Plan::new(disk, &now, &after).context(attempt)?;
        plan.apply(&Resizable(image), false).context(attempt)
    }

    fn without_table(mut self, request: &ShrinkRequest) -> Result<Self> {
        if let Some(number) = request.partition {
            return Err(Error::new(
                Kind::NotFound,
                format!("there is no partition {number}: the disk has no partition table"),
            ));
        }
        let trial: Arc<dyn Disk> = Arc::new(Trial::new(request.disk.clone(), self.old_size));
        match self.try_filesystem(request, &trial, None)? {
            Some(length) if self.to == ShrinkTo::Minimum => {
                self.new_size = whole_units(length, self.old_size);
            }
            Some(_) => {}
            None if self.left.is_none() => {
                return Err(Error::new(
                    Kind::NotFound,
                    "the disk holds neither a partition table nor a filesystem that was recognised",
                )
                .with_hint(CUT_HINT));
            }
            None if self.to == ShrinkTo::Minimum || self.new_size == self.old_size => {}
            None => return Err(cannot(self.left.take(), None)),
        }
        Ok(self)
    }

    fn with_table(mut self, request: &ShrinkRequest, found: &Table) -> Result<Self> {
        let table = &sound(&request.disk, found)?;
        let last = last_partition(request, table)?;
        let number = last.number;
        let sector = u64::from(table.sector_size);
        self.partition = Some(number);
        if let Some(size) = self.most {
            let room = fit_disk(table, size)?.last_usable.saturating_add(1);
            let sectors = room.saturating_sub(last.start).min(last.sectors);
            if sectors == 0 {
                return Err(in_the_way(number, size));
            }
            self.most = Some(sectors.saturating_mul(sector));
        }
        let trial: Arc<dyn Disk> = Arc::new(Trial::new(request.disk.clone(), self.old_size));
        let length = self.try_filesystem(request, &trial, Some(last))?;
        let fits = self.most.is_none_or(|most| last.length_bytes(table.sector_size) <= most);
        if length.is_none() && !fits {
            return Err(cannot(self.left.take(), Some(number)));
        }
        let after = self.shorter(table, number, length)?;
        self.new_size = after.disk_sectors.saturating_mul(sector);
        let change = Plan::new(&trial, found, &after)?;
        if let Some(loss) = change.losses.first().filter(|_| self.tried) {
            return Err(Error::new(Kind::Refused, loss.to_string()));
        }
        if !change.is_empty() {
            let lines = lines(found, &change.after);
            self.table = Some(TableChange { before: found.clone(), after: change.after, lines });
        }
        Ok(self)
    }

    /// Makes what is in the partition (or on the whole disk) smaller, in memory. Answers its
    /// length then; `None`: it is nothing that could be made smaller.
    fn try_filesystem(
        &mut self,
        request: &ShrinkRequest,
        trial: &Arc<dyn Disk>,
        partition: Option<&Partition>,
    ) -> Result<Option<u64>> {
        let number = partition.map(|partition| partition.number);
        let part = part_of(trial, number)?;
        let content = probe(&part)?;
        let known = content.as_ref().and_then(|c| Some((FilesystemKind::of_content(c)?, c)));
        let Some((kind, content)) = known else {
            self.left = kept(content.as_ref(), number);
            return Ok(None);
        };
        let (old_size, new_size) = match kind.shrink(part.clone(), content, self.most) {
            Ok(sizes) => sizes,
            // So much would move that the trial was ended: as far as is known.
            Err(error) if Trial::was_long(&error) => {
                self.tried = false;
                let old = content.size.unwrap_or_else(|| part.size());
                (old, self.most.map_or_else(|| kind.minimum(part), Ok)?.min(old))
            }
            Err(error) => {
                let least = part_of(&request.disk, number).and_then(|part| kind.minimum(part));
                let least = least.map_or_else(
                    |_| String::new(),
                    |least| format!(" It needs at least {}.", bytes(least)),
                );
                return Err(error
                    .context(format!("The {} cannot be shrunk that far", content.kind))
                    .with_hint(format!("Nothing was changed.{least}")));
            }
        };
        self.held = Some((kind, content.clone()));
        if new_size < old_size {
            let (partition, content) = (number, content.clone());
            self.filesystem =
                Some(FilesystemChange { kind, partition, content, old_size, new_size });
        }
        Ok(Some(new_size))
    }

    /// The table with the partition as long as a filesystem of that length, and a disk that ends
    /// behind it or has the wanted size.
    fn shorter(&self, table: &Table, number: u32, length: Option<u64>) -> Result<Table> {
        let mut new = table.clone();
        let partition = table.require(number)?;
        let old = partition.length_bytes(table.sector_size);
        let wanted = match (self.to, length) {
            (ShrinkTo::Minimum, Some(length)) => length,
            (ShrinkTo::Size(_), Some(length)) => self.most.unwrap_or(old).max(length),
            (_, None) => old,
        };
        if wanted < old {
            new = resize(&new, number, Length::Bytes(wanted), Align::default())?;
        }
        new = shorter_extended(&new)?;
        match self.to {
            ShrinkTo::Minimum => minimise(&new),
            ShrinkTo::Size(change) => fit_disk(&new, smaller(self.old_size, change)?),
        }
    }
}

/// The table without what a cut in the middle of an earlier run left of the two copies of a GPT.
fn sound(disk: &Arc<dyn Disk>, table: &Table) -> Result<Table> {
    if table.label != Label::Gpt {
        refuse_damaged(&table.oddities)?;
        return Ok(table.clone());
    }
    let mended = repair(disk, table, Source::Auto)?;
    refuse_damaged(&mended.remaining)?;
    Ok(mended.plan.after)
}

/// The extended partition ends where the last logical one does.
fn shorter_extended(table: &Table) -> Result<Table> {
    let end = table.partitions.iter().filter(|p| p.is_logical()).map(Partition::end).max();
    match (table.extended(), end) {
        (Some(extended), Some(end)) if extended.end() > end => {
            let sectors = end.saturating_sub(extended.start).saturating_add(1);
            resize(table, extended.number, Length::Sectors(sectors), Align::default())
        }
        _ => Ok(table.clone()),
    }
}

/// The size that is asked for; not more than there is.
fn smaller(old: u64, change: SizeChange) -> Result<u64> {
    let new = change.apply(old)?;
    if new > old {
        return Err(Error::new(
            Kind::InvalidInput,
            format!("the disk has {old} bytes, less than the {new} it is to be shrunk to"),
        )
        .with_hint("Making a disk larger is what 'grow' does."));
    }
    Ok(new)
}

/// What lies last on the disk.
fn last_partition<'t>(request: &ShrinkRequest, table: &'t Table) -> Result<&'t Partition> {
    let last = table.partitions.iter().filter(|p| !p.is_extended()).max_by_key(|p| p.end());
    let last = last.ok_or_else(|| {
        Error::new(Kind::NotFound, "the partition table lists no partition that could be shrunk")
            .with_hint("'partition IMAGE minimise' makes the disk end behind its partitions.")
    })?;
    match request.partition {
        Some(number) if table.require(number)?.number != last.number => Err(Error::new(
            Kind::Refused,
            format!(
                "partition {number} cannot give room: partition {} lies behind it",
                last.number
            ),
        )
        .with_hint(
            "Nothing was changed. Only the last partition can become shorter with its disk.",
        )),
        _ => Ok(last),
    }
}

fn in_the_way(number: u32, size: u64) -> Error {
    Error::new(Kind::Refused, format!("partition {number} begins behind a disk of {size} bytes"))
        .with_hint(LEAST_HINT)
}

/// Why what is there keeps its length.
fn kept(content: Option<&Content>, number: Option<u32>) -> Option<String> {
    match (content, number) {
        (Some(content), Some(number)) => Some(format!(
            "{} in partition {number} cannot be shrunk here: left as it is",
            content.kind
        )),
        (Some(content), None) => {
            Some(format!("{} on the disk cannot be shrunk here: left as it is", content.kind))
        }
        (None, Some(number)) => {
            Some(format!("nothing that was recognised is in partition {number}: left as it is"))
        }
        (None, None) => None,
    }
}

fn cannot(kept: Option<String>, number: Option<u32>) -> Error {
    let what = kept.unwrap_or_else(|| "nothing here can be made smaller".into());
    let hint = match number {
        Some(_) => "Nothing was changed. 'shrink --minimum' takes what is free behind it.",
        None => CUT_HINT,
    };
    Error::new(Kind::Unsupported, what).with_hint(hint)
}

fn whole_units(length: u64, most: u64) -> u64 {
    length.next_multiple_of(UNIT).min(most)
}
