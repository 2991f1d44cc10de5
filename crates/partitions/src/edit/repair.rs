//! Making a damaged table whole again, as far as it can be done without guessing.

use disksmith_disk::{Disk, Error, Kind, Result};

use super::minimise::last_usable;
use super::moving;
use crate::gpt::read::{Survey, table as gpt_table};
use crate::plan::{Options, Plan};
use crate::{Guid, Label, Oddity, OddityKind, Role, Severity, Table, gpt, read, verify};

/// Which copy of a GPT to believe where both are whole and differ.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Source {
    /// The primary one, if it is whole.
    #[default]
    Auto,
    /// The backup.
    Backup,
    /// The primary one.
    Primary,
}

/// What a repair would do.
#[derive(Clone, Debug)]
pub struct Repair {
    /// The writes.
    pub plan: Plan,
    /// What is wrong now and will not be.
    pub fixed: Vec<Oddity>,
    /// What is wrong and needs a decision: overlaps, partitions out of bounds.
    pub remaining: Vec<Oddity>,
}

/// Plans the repair of the table on `disk`, which was read as `table`.
///
/// An interrupted move is finished. A GPT is written anew from a whole copy, the backup at the
/// end of the disk. An MBR is written anew from what could be read. What would lose something
/// (a chain of boot records that breaks off) is among the plan's losses. Refused: a GPT of which
/// nothing is whole, and a disk that has become too small for its partitions.
pub fn repair(disk: &dyn Disk, table: &Table, source: Source) -> Result<Repair> {
    if table.oddities.iter().any(|odd| odd.kind == OddityKind::MoveInterrupted) {
        let plan = moving::resume_move(disk, table)?;
        return Ok(split(table, plan));
    }
    let mut options = Options { repairing: true, ..Options::default() };
    let new = match table.label {
        Label::None => {
            return Err(Error::new(Kind::NotFound, "the disk has no partition table to repair"));
        }
        Label::Gpt => repaired_gpt(disk, table, source)?,
        Label::Mbr => {
            options.erase_gpt = table.oddities.iter().any(|odd| odd.kind == OddityKind::GptRemains);
            repaired_mbr(table)?
        }
    };
    let plan = Plan::with_options(disk, table, &new, options)?;
    Ok(split(table, plan))
}

fn split(table: &Table, plan: Plan) -> Repair {
    let remaining = verify(&plan.after);
    let stays = |odd: &Oddity| {
        remaining.iter().any(|o| o.kind == odd.kind && o.partition == odd.partition)
            || matches!(
                odd.kind,
                OddityKind::HybridMbr
                    | OddityKind::BootSeveral
                    | OddityKind::NameInvalid
                    | OddityKind::SectorSize
                    | OddityKind::ExtendedSeveral
            )
            || plan.steps.is_empty()
    };
    let (kept, fixed): (Vec<Oddity>, Vec<Oddity>) = table.oddities.iter().cloned().partition(stays);
    Repair { plan, fixed, remaining: kept }
}

fn repaired_gpt(disk: &dyn Disk, table: &Table, source: Source) -> Result<Table> {
    let survey = Survey::new(disk, table.sector_size, table.disk_sectors)?;
    let mut new = match source {
        Source::Auto => table.clone(),
        Source::Primary | Source::Backup => only(disk, table, &survey, source)?,
    };
    if new.id.is_none() {
        return Err(Error::new(
            Kind::Refused,
            "neither copy of the GPT is whole: there is nothing to repair it from",
        ));
    }
    let entries = gpt::write::entry_sectors(new.capacity, new.entries.size, new.sector_size);
    let lowest = new.partitions.iter().map(|p| p.start).min().unwrap_or(u64::MAX);
    if new.entries.lba < 2 || new.entries.lba.saturating_add(entries) > lowest {
        new.entries.lba = 2;
    }
    let end = last_usable(&new);
    let first = new.entries.lba.saturating_add(entries);
    if new.first_usable < first || new.first_usable > end.saturating_add(1) {
        new.first_usable = first;
    }
    // Behind a disk that has grown there is room again; a disk that has shrunk has less.
    let moved = table.oddities.iter().any(|odd| {
        matches!(
            odd.kind,
            OddityKind::BackupNotAtEnd | OddityKind::UsableRange | OddityKind::BackupMissing
        )
    });
    if moved || new.last_usable > end {
        new.last_usable = end;
    }
    if let Some(p) = new.partitions.iter().find(|p| p.end() > end || p.start < first) {
        return Err(Error::new(
            Kind::Refused,
            format!(
                "partition {} (sectors {} to {}) does not fit on this disk with a GPT, which leaves sectors {first} to {end}",
                p.number, p.start, p.end()
            ),
        )
        .with_hint("Grow the disk to its former size, or remove or shrink the partition."));
    }
    new_ids(&mut new);
    Ok(new)
}

fn only(disk: &dyn Disk, table: &Table, survey: &Survey, source: Source) -> Result<Table> {
    let mut one = survey.clone();
    let whole = match source {
        Source::Backup => {
            one.primary = None;
            survey.backup_is_valid()
        }
        _ => {
            one.backup = None;
            survey.primary_is_valid()
        }
    };
    if !whole {
        return Err(Error::new(Kind::Refused, "that copy of the GPT is not whole"));
    }
    let record = read::sector_zero(disk)?.unwrap_or_default();
    Ok(gpt_table(&one, &record, table.sector_size, table.disk_sectors))
}

/// Ids that are missing or double are made anew.
fn new_ids(table: &mut Table) {
    if table.id == Some(crate::DiskId::Gpt(Guid::ZERO)) {
        table.id = Some(crate::DiskId::Gpt(Guid::random()));
    }
    let bad: Vec<u32> = verify(table)
        .into_iter()
        .filter(|odd| matches!(odd.kind, OddityKind::ZeroId | OddityKind::DuplicateId))
        .filter_map(|odd| odd.partition)
        .collect();
    for p in table.partitions.iter_mut().filter(|p| bad.contains(&p.number)) {
        p.uuid = Some(Guid::random());
    }
}

fn repaired_mbr(table: &Table) -> Result<Table> {
    if let Some(odd) = table.oddities.iter().find(|odd| odd.kind == OddityKind::GptUnreadable) {
        return Err(Error::new(Kind::Refused, odd.detail.clone()));
    }
    let mut new = table.clone();
    widen_extended(&mut new);
    Ok(new)
}

/// Makes the extended partition reach over all logical ones, where nothing else is in the way.
fn widen_extended(table: &mut Table) {
    let Some(extended) = table.extended().cloned() else { return };
    let inner = table.partitions.iter().filter(|p| p.is_logical());
    let mut start = extended.start;
    let mut after = extended.after();
    for p in inner {
        after = after.max(p.after());
        if let Role::Logical { record } = p.role {
            start = start.min(record);
        }
    }
    if start != extended.start || after == extended.after() || after > table.disk_sectors {
        return;
    }
    let mut wider = table.clone();
    if let Ok(p) = wider.partition_mut(extended.number) {
        p.sectors = after.saturating_sub(start);
    }
    let errors = |t: &Table| verify(t).iter().filter(|o| o.severity() == Severity::Error).count();
    if errors(&wider) <= errors(table) {
        *table = wider;
    }
}
