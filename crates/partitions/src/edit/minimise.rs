//! The smallest disk that holds the partitions.

use disksmith_disk::{Error, Kind, Result};

use super::require_table;
use crate::{Label, Table, gpt};

/// The size of a disk is rounded up to this many bytes.
const UNIT: u64 = 1 << 20;

/// The table for a disk that ends behind the last partition (and the backup GPT), rounded up to
/// 1 MiB. The plan made from it also changes the size of the disk; never upwards.
pub fn minimise(table: &Table) -> Result<Table> {
    require_table(table)?;
    let last = table.partitions.iter().map(crate::Partition::after).max().unwrap_or(0);
    let needed = match table.label {
        Label::Gpt => {
            let entries =
                gpt::write::entry_sectors(table.capacity, table.entries.size, table.sector_size);
            last.max(table.first_usable.saturating_add(1))
                .checked_add(entries)
                .and_then(|n| n.checked_add(1))
        }
        _ => Some(last.max(1)),
    };
    let sector = u64::from(table.sector_size.max(1));
    let bytes = needed
        .and_then(|sectors| sectors.checked_mul(sector))
        .and_then(|bytes| bytes.checked_next_multiple_of(UNIT))
        .ok_or_else(|| Error::new(Kind::Corrupt, "a partition ends behind all disks"))?;
    let old_bytes = table.disk_sectors.saturating_mul(sector);
    if bytes >= old_bytes {
        return Ok(table.clone());
    }
    let mut new = table.clone();
    new.disk_sectors = bytes / sector;
    new.last_usable = last_usable(&new);
    Ok(new)
}

/// The table for a disk of so many bytes, which are no more than it has now. Partitions that end behind
/// it are refused.
pub fn shorten(table: &Table, bytes: u64) -> Result<Table> {
    require_table(table)?;
    let mut new = table.clone();
    new.disk_sectors = (bytes / u64::from(table.sector_size.max(1))).min(table.disk_sectors);
    new.last_usable = last_usable(&new);
    let usable_end = new.last_usable.saturating_add(1);
    match new.partitions.iter().find(|partition| partition.after() > usable_end) {
        None => Ok(new),
        Some(long) => Err(Error::new(
            Kind::OutOfSpace,
            format!(
                "partition {} ends at sector {}, and a disk of that size at sector {}",
                long.number,
                long.end(),
                new.last_usable
            ),
        )),
    }
}

/// Bytes that a partition from sector `start` on may have on a disk of so many bytes.
pub fn room_from(table: &Table, start: u64, bytes: u64) -> u64 {
    let sectors = bytes / u64::from(table.sector_size.max(1));
    let last = last_usable(&Table { disk_sectors: sectors, ..table.clone() });
    (last + 1).saturating_sub(start).saturating_mul(u64::from(table.sector_size))
}

/// The last sector that a partition may use on a disk of the table's size.
pub(crate) fn last_usable(table: &Table) -> u64 {
    match table.label {
        Label::Gpt => {
            let entries =
                gpt::write::entry_sectors(table.capacity, table.entries.size, table.sector_size);
            table.disk_sectors.saturating_sub(entries.saturating_add(2))
        }
        _ => table.disk_sectors.saturating_sub(1).min(crate::read::MBR_LAST_SECTOR),
    }
}
