//! Moving a partition with its data, so that it can be resumed after a crash.
//!
//! The old table counts until all data has been moved; a record in a free sector says how far the
//! move is. The record is found again by looking where it is put: at the ends of free regions.

use disksmith_disk::bytes::{le32, le64};
use disksmith_disk::{Disk, Error, Kind, Result, is_zero};

use super::require_table;
use crate::plan::{Options, Plan};
use crate::{Align, OddityKind, Partition, Role, Table, free_space, verify};

const MAGIC: &[u8; 16] = b"disksmith move 1";
/// Bytes of a record that mean something; the rest of its sector is zero.
const RECORD_LENGTH: usize = 64;
/// The record is looked for in so many free regions, first and last sector of each.
const MAX_REGIONS: usize = 16;

/// A move that was interrupted.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PendingMove {
    /// The partition's number.
    pub number: u32,
    /// The sector that it started at.
    pub from: u64,
    /// The sector that it is to start at.
    pub to: u64,
    /// Its length in sectors.
    pub sectors: u64,
    /// How many bytes have been moved.
    pub done: u64,
    pub(crate) journal: Journal,
}

/// Where and for which move progress is recorded.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Journal {
    /// The byte offset of its sector.
    pub(crate) offset: u64,
    number: u32,
    sector_size: u32,
    from: u64,
    to: u64,
    sectors: u64,
}

impl Journal {
    /// Writes that `done` bytes have been moved. One sector: it is whole or not there.
    pub(crate) fn record(&self, disk: &dyn Disk, done: u64) -> Result<()> {
        let mut sector = vec![0; (self.sector_size as usize).max(RECORD_LENGTH)];
        sector[..16].copy_from_slice(MAGIC);
        sector[16..20].copy_from_slice(&self.number.to_le_bytes());
        sector[20..24].copy_from_slice(&self.sector_size.to_le_bytes());
        sector[24..32].copy_from_slice(&self.from.to_le_bytes());
        sector[32..40].copy_from_slice(&self.to.to_le_bytes());
        sector[40..48].copy_from_slice(&self.sectors.to_le_bytes());
        sector[48..56].copy_from_slice(&done.to_le_bytes());
        let crc = crc32fast::hash(&sector[..56]);
        sector[56..60].copy_from_slice(&crc.to_le_bytes());
        disk.write_at(&sector, self.offset)
    }

    fn parse(bytes: &[u8], offset: u64) -> Option<(Self, u64)> {
        let whole =
            bytes.get(..16)? == MAGIC && crc32fast::hash(bytes.get(..56)?) == le32(bytes, 56)?;
        let journal = Self {
            offset,
            number: le32(bytes, 16)?,
            sector_size: le32(bytes, 20)?,
            from: le64(bytes, 24)?,
            to: le64(bytes, 32)?,
            sectors: le64(bytes, 40)?,
        };
        whole.then_some((journal, le64(bytes, 48)?))
    }
}

/// The plan to move partition `number` with its data so that it starts at sector `to`.
///
/// The same call after an interruption resumes the move.
pub fn move_partition(disk: &dyn Disk, table: &Table, number: u32, to: u64) -> Result<Plan> {
    require_table(table)?;
    if let Some(pending) = pending_move_in(disk, table)? {
        if pending.number == number && pending.to == to {
            return resume_move(disk, table);
        }
        return Err(Error::new(
            Kind::Refused,
            format!("moving partition {} to sector {} was interrupted", pending.number, pending.to),
        )
        .with_hint("Finish it first: partition IMAGE repair."));
    }
    let new = moved(table, number, to)?;
    if new == *table {
        return Plan::new(disk, table, table);
    }
    Plan::with_options(disk, table, &new, Options { moved: Some(number), ..Options::default() })
}

/// The plan to finish a move that was interrupted; an error of kind not found without one.
pub fn resume_move(disk: &dyn Disk, table: &Table) -> Result<Plan> {
    let pending = pending_move_in(disk, table)?
        .ok_or_else(|| Error::new(Kind::NotFound, "no move was interrupted on this disk"))?;
    let mut clean = table.clone();
    clean.oddities.retain(|odd| odd.kind != OddityKind::MoveInterrupted);
    let old = table.require(pending.number)?;
    let new = match old.start == pending.to {
        true => clean.clone(),
        false => moved(&clean, pending.number, pending.to)?,
    };
    let options = Options { moved: Some(pending.number), ..Options::default() };
    Plan::with_options(disk, &clean, &new, options)
}

/// The interrupted move on a disk, if there is one.
pub fn pending_move(disk: &dyn Disk) -> Result<Option<PendingMove>> {
    let table = crate::read(disk)?;
    pending_move_in(disk, &table)
}

pub(crate) fn pending_move_in(disk: &dyn Disk, table: &Table) -> Result<Option<PendingMove>> {
    for offset in journal_places(table) {
        let mut bytes = [0; RECORD_LENGTH];
        if offset.saturating_add(RECORD_LENGTH as u64) > disk.size() {
            continue;
        }
        disk.read_at(&mut bytes, offset)?;
        let Some((journal, done)) = Journal::parse(&bytes, offset) else { continue };
        // A record counts only for the partition that it was made for, before or after the table
        // was changed.
        let fits = table.partition(journal.number).is_some_and(|p| {
            p.sectors == journal.sectors
                && (p.start == journal.from || p.start == journal.to && done == length(&journal))
        });
        if fits && journal.sector_size == table.sector_size && done <= length(&journal) {
            return Ok(Some(PendingMove {
                number: journal.number,
                from: journal.from,
                to: journal.to,
                sectors: journal.sectors,
                done,
                journal,
            }));
        }
    }
    Ok(None)
}

fn length(journal: &Journal) -> u64 {
    journal.sectors.saturating_mul(u64::from(journal.sector_size))
}

fn journal_places(table: &Table) -> impl Iterator<Item = u64> {
    let unit = u64::from(table.sector_size);
    free_space(table)
        .into_iter()
        .filter(|region| region.start > 0)
        .take(MAX_REGIONS)
        .flat_map(move |r| [r.start.saturating_mul(unit), r.end().saturating_mul(unit)])
}

/// A place for the record: free before, during and after the move, and empty.
pub(crate) fn place_journal(
    disk: &dyn Disk,
    table: &Table,
    old: &Partition,
    new: &Partition,
) -> Result<Option<Journal>> {
    let unit = u64::from(table.sector_size);
    let record = match new.role {
        Role::Logical { record } => Some(record),
        _ => None,
    };
    for offset in journal_places(table) {
        let sector = offset / unit.max(1);
        let used = (new.start..new.after()).contains(&sector) || record == Some(sector);
        let mut bytes = vec![0; table.sector_size as usize];
        if used || offset.saturating_add(unit) > disk.size() {
            continue;
        }
        disk.read_at(&mut bytes, offset)?;
        if is_zero(&bytes) {
            return Ok(Some(Journal {
                offset,
                number: old.number,
                sector_size: table.sector_size,
                from: old.start,
                to: new.start,
                sectors: old.sectors,
            }));
        }
    }
    let apart = new.after() <= old.start || old.after() <= new.start;
    let record_apart = record.is_none_or(|at| !(old.start..old.after()).contains(&at));
    if apart && record_apart {
        return Ok(None);
    }
    Err(Error::new(
        Kind::Refused,
        format!("partition {} cannot be moved safely: there is no free, empty sector to record the progress in", old.number),
    )
    .with_hint("Leave a sector free on the disk, or move it by more than its length."))
}

/// The table with partition `number` at sector `to`.
fn moved(table: &Table, number: u32, to: u64) -> Result<Table> {
    let old = table.require(number)?.clone();
    if old.is_extended() {
        return Err(Error::new(Kind::Unsupported, "an extended partition cannot be moved")
            .with_hint("Move its logical partitions."));
    }
    if old.start == to {
        return Ok(table.clone());
    }
    if old.start == 0 || old.after() > table.disk_sectors {
        return Err(Error::new(
            Kind::Refused,
            format!(
                "partition {number} (sectors {} to {}) is not within the disk",
                old.start,
                old.end()
            ),
        ));
    }
    let mut new = table.clone();
    new.partitions.retain(|p| p.number != number);
    let role = match old.role {
        Role::Logical { record } => Role::Logical { record: new_record(&new, &old, record, to)? },
        role => role,
    };
    new.partitions.push(Partition { start: to, role, ..old });
    new.sort();
    let already = verify(table);
    match verify(&new).into_iter().find(|odd| {
        odd.severity() == crate::Severity::Error
            && !already.iter().any(|o| o.kind == odd.kind && o.partition == odd.partition)
    }) {
        Some(odd) => Err(Error::new(Kind::InvalidInput, odd.detail)),
        None => Ok(new),
    }
}

/// The boot record of a logical partition that goes to sector `to`. It stays where it is when
/// that still lies before the partition in the same free stretch.
fn new_record(without: &Table, old: &Partition, record: u64, to: u64) -> Result<u64> {
    let extended = without.extended().map_or(0, |p| p.start);
    let lead = Align::default().lead(without.sector_size);
    let first = !without.partitions.iter().any(|p| p.is_logical() && p.number < old.number);
    if first && record == extended {
        return Ok(extended);
    }
    free_space(without)
        .into_iter()
        .find(|r| r.logical && (r.start..r.after()).contains(&to))
        .and_then(|r| match (r.start..to).contains(&record) {
            true => Some(record),
            false => crate::edit::add::record_before(r, to, lead),
        })
        .ok_or_else(|| {
            Error::new(
                Kind::InvalidInput,
                format!("there is no room for logical partition {} at sector {to}", old.number),
            )
        })
}
