//! Taking room from a whole disk: filesystem, partition, partition table and container in one go.
//!
//! The order is that of [`grow`](crate::grow) turned round, so that each state stands by itself: a
//! filesystem that is shorter than its partition, a partition that ends before its disk. What was
//! cut short is completed by running it again. Files are moved, never lost: what they need is kept.
//!
//! The filesystem is shrunk in memory first ([`Trial`]), so that what cannot be done is refused with
//! nothing changed.

use std::sync::Arc;

use disksmith_disk::{Context, Disk, Error, Kind, Result, human_size, pass_on};
use disksmith_formats::{Image, Preallocation, ResizeRequest};
use disksmith_partitions::{
    Content, Label, Length, Partition, Plan, Severity, Table, minimise, probe, read, resize,
    room_from, shorten,
};

use crate::grow::{Trial, part_of};
use crate::kinds::FilesystemKind;

/// Partitions and disks become so many whole bytes long where that is free to choose.
const UNIT: u64 = 1 << 20;

/// What is to be shrunk.
#[derive(Clone, Debug)]
pub struct ShrinkRequest {
    /// The whole disk.
    pub disk: Arc<dyn Disk>,
    /// To how many bytes; `None`: as few as hold what is there.
    pub size: Option<u64>,
}

/// What shrinking a disk will do.
#[derive(Clone, Debug)]
pub struct ShrinkPlan {
    /// Bytes of the disk now.
    pub old_size: u64,
    /// Bytes of the disk then.
    pub new_size: u64,
    /// The partition that becomes shorter; `None`: the filesystem has the whole disk.
    pub partition: Option<u32>,
    /// The sort of filesystem, its length now and then.
    pub filesystem: Option<(&'static str, u64, u64)>,
    lines: Vec<String>,
    size: Option<u64>,
}

/// The last partition, or the whole disk, and what is in it.
struct Last {
    table: Table,
    partition: Option<Partition>,
    content: Option<Content>,
}

impl ShrinkPlan {
    /// Finds out what is to be done. Nothing is written.
    pub fn new(request: &ShrinkRequest) -> Result<Self> {
        let old_size = request.disk.size();
        if let Some(size) = request.size.filter(|size| *size > old_size) {
            return Err(Error::new(
                Kind::InvalidInput,
                format!(
                    "the disk has {old_size} bytes, fewer than the {size} it is to be shrunk to"
                ),
            )
            .with_hint("Making a disk larger is what 'grow' does."));
        }
        let trial: Arc<dyn Disk> = Arc::new(Trial::new(request.disk.clone(), old_size));
        let last = Last::find(&trial)?;
        let mut lines = Vec::new();
        let filesystem = last.shorten_filesystem(&trial, request.size)?;
        if let Some((kind, old, new)) = filesystem.filter(|(_, old, new)| old != new) {
            let place = last.place();
            lines.push(format!("shrink the {kind} {place} from {} to {}", bytes(old), bytes(new)));
        } else if let (None, Some(content)) = (filesystem, &last.content) {
            let place = last.place();
            lines.push(format!(
                "the {} {place} is left as it is: it cannot be shrunk here",
                content.kind
            ));
        }
        let (after, new_size) =
            last.after(filesystem.map(|(_, _, new)| new), request.size, old_size)?;
        if let (Some(old), Some(after)) = (&last.partition, &after) {
            let new = after.require(old.number)?;
            if new.sectors != old.sectors {
                let size = |p: &Partition| bytes(p.length_bytes(after.sector_size));
                lines.push(format!(
                    "shrink partition {} from {} to {}",
                    old.number,
                    size(old),
                    size(new)
                ));
            }
            if after.label == Label::Gpt && new_size != old_size {
                lines.push("move the backup GPT to the new end of the disk".to_string());
            }
        }
        if new_size != old_size {
            lines.push(format!("shrink the disk from {} to {}", bytes(old_size), bytes(new_size)));
        }
        let partition = last.partition.map(|partition| partition.number);
        Ok(Self { old_size, new_size, partition, filesystem, lines, size: request.size })
    }

    /// What will be done, a line each.
    pub fn describe(&self) -> &[String] {
        &self.lines
    }

    /// Does it. What was found out before is found out anew, step by step.
    pub fn apply(&self, image: &dyn Image, disk: &Arc<dyn Disk>) -> Result<()> {
        let last = Last::find(disk)?;
        let done = last.shorten_filesystem(disk, self.size)?;
        disk.flush()?;
        let resume = |error: Error| {
            error.with_hint("What is in it is shorter already. Run 'shrink' again to complete it.")
        };
        let (after, size) = last.after(done.map(|(_, _, new)| new), self.size, self.old_size)?;
        let attempt = "Could not change the partition table";
        match after {
            Some(after) => {
                let resizable = Resizable(image);
                let plan = Plan::new(&resizable, &last.table, &after).context(attempt);
                plan.and_then(|plan| plan.apply(&resizable, false).context(attempt)).map_err(resume)
            }
            None if size < image.size() => {
                let request = ResizeRequest { size, preallocation: Preallocation::Off };
                image.resize(request).context("Could not shrink the container").map_err(resume)?;
                image.flush()
            }
            None => Ok(()),
        }
    }
}

impl Last {
    fn find(disk: &Arc<dyn Disk>) -> Result<Self> {
        let table = read(disk)?;
        if table.label == Label::None {
            let content = probe(disk)?;
            if content.is_none() {
                return Err(Error::new(
                    Kind::NotFound,
                    "the disk holds neither a partition table nor a filesystem that was recognised",
                )
                .with_hint("Cut it off with: resize --shrink."));
            }
            return Ok(Self { table, partition: None, content });
        }
        if let Some(odd) = table.oddities.iter().find(|odd| odd.severity() == Severity::Error) {
            return Err(Error::new(Kind::Refused, odd.detail.clone())
                .context("The partition table is damaged")
                .with_hint("Mend it first: partition IMAGE repair."));
        }
        let usable = table.partitions.iter().filter(|partition| !partition.is_extended());
        let partition = usable.max_by_key(|partition| partition.end()).cloned();
        let content = match &partition {
            Some(partition) => probe(&part_of(disk, Some(partition.number))?)?,
            None => None,
        };
        Ok(Self { table, partition, content })
    }

    fn place(&self) -> String {
        match &self.partition {
            Some(partition) => format!("in partition {}", partition.number),
            None => "on the disk".to_string(),
        }
    }

    /// The bytes that the partition may have on a disk of `size`.
    fn room(&self, size: u64) -> Result<u64> {
        let Some(partition) = &self.partition else { return Ok(size) };
        match room_from(&self.table, partition.start, size) {
            0 => Err(Error::new(
                Kind::OutOfSpace,
                format!(
                    "partition {} begins behind the end of a disk of {}",
                    partition.number,
                    bytes(size)
                ),
            )),
            room => Ok(room),
        }
    }

    /// Answers the sort of filesystem, its length before and after. `None`: what is there cannot
    /// be shrunk, and need not be.
    fn shorten_filesystem(
        &self,
        disk: &Arc<dyn Disk>,
        size: Option<u64>,
    ) -> Result<Option<(&'static str, u64, u64)>> {
        let room = size.map(|size| self.room(size)).transpose()?;
        let part = part_of(disk, self.partition.as_ref().map(|partition| partition.number))?;
        let Some((kind, content)) =
            self.content.as_ref().and_then(|c| Some((FilesystemKind::of_content(c)?, c)))
        else {
            return match room {
                Some(room) if room < part.size() => Err(self.unshrinkable()),
                _ => Ok(None),
            };
        };
        let attempt = || format!("The {} {} cannot be shrunk", content.kind, self.place());
        let least = || kind.minimum(part.clone(), content);
        match kind.shrink(part.clone(), content, room) {
            Ok((old, new)) => Ok(Some((content.kind, old, new))),
            // Too much to try in memory; that much can be said.
            Err(error) if Trial::was_long(&error) => {
                let old = content.size.unwrap_or_else(|| part.size());
                Ok(Some((content.kind, old, room.map_or_else(least, Ok)?)))
            }
            Err(error) => {
                let error = error.context(attempt());
                Err(match least() {
                    Ok(least) if room.is_some_and(|room| room < least) => {
                        error.with_hint(format!("It needs at least {}.", bytes(least)))
                    }
                    _ => error,
                })
            }
        }
    }

    fn unshrinkable(&self) -> Error {
        let what = match &self.content {
            Some(content) => format!("{} {} cannot be shrunk here", content.kind, self.place()),
            None => format!("nothing that was recognised is {}", self.place()),
        };
        Error::new(Kind::Unsupported, what).with_hint("Nothing was changed.")
    }

    /// The table, if there is one, and the size of the disk, when the filesystem has `length`.
    fn after(
        &self,
        length: Option<u64>,
        size: Option<u64>,
        old_size: u64,
    ) -> Result<(Option<Table>, u64)> {
        if self.table.label == Label::None {
            let least = length.unwrap_or(old_size).next_multiple_of(UNIT);
            return Ok((None, size.unwrap_or(least).min(old_size)));
        }
        let mut after = self.table.clone();
        if let Some(partition) = &self.partition {
            let old = partition.length_bytes(after.sector_size);
            let wanted = match (size, length) {
                (Some(size), _) => self.room(size)?,
                (None, Some(length)) => length.next_multiple_of(UNIT),
                (None, None) => old,
            };
            if wanted < old {
                after = shorter(&after, partition, wanted / u64::from(after.sector_size))?;
            }
        }
        let after = match size {
            Some(size) => shorten(&after, size)?,
            None => minimise(&after)?,
        };
        let bytes = after.disk_sectors.saturating_mul(u64::from(after.sector_size));
        Ok((Some(after), bytes.min(old_size)))
    }
}

/// The table with the partition so many sectors long, and the extended one around it too.
fn shorter(table: &Table, partition: &Partition, sectors: u64) -> Result<Table> {
    let new = resize(table, partition.number, Length::Sectors(sectors), Default::default())?;
    let around = new.extended().filter(|_| partition.is_logical());
    match around.map(|extended| (extended.number, extended.start)) {
        Some((number, start)) => {
            let length = Length::Sectors((partition.start + sectors).saturating_sub(start));
            resize(&new, number, length, Default::default())
        }
        None => Ok(new),
    }
}

/// An image whose size can be changed through the disk interface.
#[derive(Debug)]
struct Resizable<'i>(&'i dyn Image);

impl Disk for Resizable<'_> {
    pass_on!(
        |own| own.0;
        size read_at write_at write_zeroes discard flush map read_only geometry announce
    );

    fn set_size(&self, size: u64) -> Result<()> {
        self.0.resize(ResizeRequest { size, preallocation: Preallocation::Off })
    }
}

fn bytes(size: u64) -> String {
    format!("{} ({size} bytes)", human_size(size))
}
