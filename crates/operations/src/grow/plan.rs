//! Finding out what growing a disk takes, and trying it.

use std::sync::Arc;

use disksmith_disk::{Context, Disk, Error, Kind, Result};
use disksmith_partitions::probe::Usage;
use disksmith_partitions::{
    Align, Content, Label, Length, Oddity, Partition, Plan, Severity, Source, Table, probe, read,
    repair, resize,
};

use super::{FilesystemChange, GrowPlan, GrowRequest, TableChange, Trial, part_of};
use crate::SizeChange;
use crate::kinds::FilesystemKind;

/// How much a table and alignment take at the most of what a disk is grown by: `+SIZE` is taken
/// for the repetition of a run that was cut short when the room not yet in use is between SIZE and
/// SIZE and this.
const SLACK: u64 = 4 << 20;

pub(super) fn plan(request: &GrowRequest) -> Result<GrowPlan> {
    let old_size = request.disk.size();
    let new_size = request.change.apply(old_size)?;
    if new_size < old_size {
        return Err(Error::new(
            Kind::InvalidInput,
            format!("the disk has {old_size} bytes, more than the {new_size} it is to be grown to"),
        )
        .with_hint("Making a disk smaller is what 'shrink' and 'resize --shrink' do."));
    }
    if let SizeChange::Add(more) = request.change
        && let Ok(rest) = towards(request, old_size)
        && !rest.is_empty()
        && (more..more.saturating_add(SLACK)).contains(&rest.unused())
    {
        return Ok(GrowPlan { resumed: true, ..rest });
    }
    towards(request, new_size)
}

/// The plan for a disk of `size` bytes.
fn towards(request: &GrowRequest, size: u64) -> Result<GrowPlan> {
    let old_size = request.disk.size();
    let trial: Arc<dyn Disk> = Arc::new(Trial::new(request.disk.clone(), size));
    let mut plan = GrowPlan {
        old_size,
        new_size: size,
        resumed: false,
        table: None,
        filesystem: None,
        left: None,
        partition: None,
    };
    let table = read(&request.disk)?;
    if table.label == Label::None {
        return without_table(request, plan, &trial);
    }
    let grown = read(&trial)?;
    let number = target(request, &grown)?;
    plan.partition = Some(number);
    let after = longer(&trial, &grown, number)?;
    let change = Plan::new(&trial, &grown, &after)?;
    if let Some(loss) = change.losses.first() {
        return Err(Error::new(Kind::Refused, loss.to_string()));
    }
    let gained = gain(&grown, &change.after, number);
    if !change.is_empty() {
        let lines = lines(&grown, &change.after);
        change.apply(&trial, false)?;
        plan.table =
            Some(TableChange { before: grown.clone(), after: change.after.clone(), lines });
    }
    let entry = change.after.require(number)?.clone();
    if gained == 0 && size > old_size && !request.force {
        return Err(cramped(&grown, &entry));
    }
    filesystem(request, &mut plan, &trial, Some(&entry))?;
    Ok(plan)
}

fn without_table(
    request: &GrowRequest,
    mut plan: GrowPlan,
    trial: &Arc<dyn Disk>,
) -> Result<GrowPlan> {
    if let Some(number) = request.partition {
        return Err(Error::new(
            Kind::NotFound,
            format!("there is no partition {number}: the disk has no partition table"),
        ));
    }
    filesystem(request, &mut plan, trial, None)?;
    Ok(plan)
}

/// Tries to grow what is in the partition (or on the whole disk).
fn filesystem(
    request: &GrowRequest,
    plan: &mut GrowPlan,
    trial: &Arc<dyn Disk>,
    partition: Option<&Partition>,
) -> Result<()> {
    let number = partition.map(|partition| partition.number);
    let part = part_of(trial, number)?;
    let content = probe(&part)?;
    let growable = content.as_ref().and_then(|c| Some((FilesystemKind::of_content(c)?, c)));
    let Some((kind, content)) = growable else {
        return refuse(request, plan, content.as_ref(), number);
    };
    let tried = kind.grow(part.clone(), content);
    let (old_size, new_size) = match tried {
        Ok(sizes) => sizes,
        Err(error) if Trial::was_long(&error) => (content.size.unwrap_or(0), part.size()),
        Err(error) if request.force => {
            plan.left = Some(format!("the {} is left as it is: {error}", content.kind));
            return Ok(());
        }
        Err(error) => {
            let place = place(number);
            return Err(error
                .context(format!("The {} {place} cannot be grown", content.kind))
                .with_hint("Nothing was changed. With --force the disk and the partition are grown without it."));
        }
    };
    if new_size != old_size {
        plan.filesystem = Some(FilesystemChange {
            kind,
            partition: number,
            content: content.clone(),
            old_size,
            new_size,
        });
    }
    Ok(())
}

/// What is there cannot be grown.
fn refuse(
    request: &GrowRequest,
    plan: &mut GrowPlan,
    content: Option<&Content>,
    number: Option<u32>,
) -> Result<()> {
    let place = place(number);
    let (what, remedy) = match content {
        Some(content) => {
            (format!("{} {place} cannot be grown here", content.kind), remedy(content))
        }
        None if number.is_some() => (format!("nothing that was recognised is {place}"), ""),
        None => (
            "the disk holds neither a partition table nor a filesystem that was recognised".into(),
            "",
        ),
    };
    if request.force {
        let then = if remedy.is_empty() { "" } else { "; " };
        plan.left = Some(format!("{what}: left as it is{then}{remedy}"));
        return Ok(());
    }
    // Where nothing needs to be grown, nothing that cannot be is in the way.
    if plan.new_size == plan.old_size && plan.table.is_none() {
        return Ok(());
    }
    Err(Error::new(Kind::Unsupported, what).with_hint(
        "Nothing was changed. With --force the disk and the partition are grown, and what is in it is left.",
    ))
}

fn place(number: Option<u32>) -> String {
    number.map_or_else(|| "on the disk".to_string(), |number| format!("in partition {number}"))
}

/// Who can grow it.
fn remedy(content: &Content) -> &'static str {
    match (content.kind, content.usage) {
        ("xfs", _) => "mount it and run xfs_growfs",
        ("btrfs", _) => "mount it and run btrfs filesystem resize max",
        ("ntfs", _) => "run ntfsresize, or let Windows extend the volume",
        ("LVM2_member", _) => "run pvresize, then lvextend",
        ("crypto_LUKS", _) => "open it and run cryptsetup resize",
        (_, Usage::Filesystem) => "its own tools may grow it",
        _ => "",
    }
}

/// The partition that gets the room: the one named, or the last.
fn target(request: &GrowRequest, table: &Table) -> Result<u32> {
    if let Some(number) = request.partition {
        let partition = table.require(number)?;
        if partition.is_extended() {
            return Err(Error::new(
                Kind::InvalidInput,
                format!("partition {number} is the extended one; name a partition inside of it"),
            ));
        }
        return Ok(number);
    }
    let last = table.partitions.iter().filter(|p| !p.is_extended()).max_by_key(|p| p.end());
    last.map(|partition| partition.number).ok_or_else(|| {
        Error::new(Kind::NotFound, "the partition table lists no partition that could be grown")
            .with_hint("Use 'resize' for the disk alone, then 'partition IMAGE add'.")
    })
}

/// The table for the larger disk, with the partition as long as it can be.
fn longer(trial: &Arc<dyn Disk>, table: &Table, number: u32) -> Result<Table> {
    let mut new = match table.label {
        // What a cut in the middle of an earlier run left of the two copies is mended on the way.
        Label::Gpt => {
            let mended = repair(trial, table, Source::Auto)
                .context("The partition table cannot be fitted to the larger disk")?;
            refuse_damaged(&mended.remaining)?;
            mended.plan.after
        }
        _ => {
            refuse_damaged(&table.oddities)?;
            table.clone()
        }
    };
    let partition = new.require(number)?;
    if partition.is_logical()
        && let Some(extended) = new.extended().map(|extended| extended.number)
    {
        new = resize(&new, extended, Length::Rest, Align::default())?;
    }
    resize(&new, number, Length::Rest, Align::default())
}

/// A table is mended first.
pub(crate) fn refuse_damaged(oddities: &[Oddity]) -> Result<()> {
    match oddities.iter().find(|odd| odd.severity() == Severity::Error) {
        None => Ok(()),
        Some(odd) => Err(Error::new(Kind::Refused, odd.detail.clone())
            .context("The partition table is damaged")
            .with_hint("Mend it first: partition IMAGE repair.")),
    }
}

/// Sectors that the partition gets.
fn gain(before: &Table, after: &Table, number: u32) -> u64 {
    let sectors = |table: &Table| table.partition(number).map_or(0, |p| p.sectors);
    sectors(after).saturating_sub(sectors(before))
}

/// Why a partition cannot become longer.
fn cramped(table: &Table, partition: &Partition) -> Error {
    let number = partition.number;
    let next = table
        .partitions
        .iter()
        .filter(|p| !p.is_extended() && p.start > partition.end())
        .min_by_key(|p| p.start);
    let error = match next {
        Some(next) => Error::new(
            Kind::Refused,
            format!("partition {number} cannot grow: partition {} begins behind it", next.number),
        ),
        None => Error::new(
            Kind::Refused,
            format!("partition {number} cannot grow: the table leaves no room behind it"),
        ),
    };
    error.with_hint("Nothing was changed. Grow the last partition (say no partition), or move the one in the way.")
}

/// What changes in the table, in words.
pub(crate) fn lines(before: &Table, after: &Table) -> Vec<String> {
    let mut lines = Vec::new();
    if before.label == Label::Gpt && before.last_usable != after.last_usable {
        lines.push("move the backup GPT to the new end of the disk".to_string());
    }
    for old in &before.partitions {
        let Some(new) = after.partition(old.number).filter(|new| new.sectors != old.sectors) else {
            continue;
        };
        let kind = if old.is_extended() { "extended partition" } else { "partition" };
        lines.push(format!(
            "{} {kind} {} from {} to {}",
            super::verb(old.sectors, new.sectors),
            old.number,
            super::bytes(old.length_bytes(before.sector_size)),
            super::bytes(new.length_bytes(after.sector_size))
        ));
    }
    if lines.is_empty() {
        lines.push("write the partition table anew for the size of the disk".to_string());
    }
    lines
}

impl GrowPlan {
    /// Bytes of the disk that nothing of what is to be grown uses yet.
    fn unused(&self) -> u64 {
        let table_end = self.table.as_ref().and_then(|change| {
            let old = change.before.partition(self.partition?)?;
            Some((old.end() + 1).saturating_mul(u64::from(change.before.sector_size)))
        });
        let filesystem_gain = self.filesystem.as_ref().map(|f| f.new_size - f.old_size);
        match (table_end, filesystem_gain) {
            (Some(end), _) => self.new_size.saturating_sub(end),
            (None, Some(gain)) => gain,
            (None, None) => 0,
        }
    }
}
