//! A new, empty table.

use disksmith_disk::{Error, Kind, Result};

use crate::gpt::{self, layout::ENTRY_SIZE, read::EntryLayout};
use crate::read::{MBR_LAST_SECTOR, none};
use crate::{DiskId, Guid, Label, Table};

/// An empty table of sort `label`, with a random id, for the disk that `old` was read from.
pub fn init(old: &Table, label: Label) -> Result<Table> {
    init_with_id(old, label, None)
}

/// As [`init`], with a given id.
pub fn init_with_id(old: &Table, label: Label, id: Option<DiskId>) -> Result<Table> {
    let table = none(old.sector_size, old.disk_sectors);
    let table = match label {
        Label::Gpt => with_layout(table, gpt::DEFAULT_ENTRIES)?,
        Label::Mbr => Table {
            label,
            id: Some(DiskId::Mbr(random_id())),
            first_usable: 1,
            last_usable: old.disk_sectors.saturating_sub(1).min(MBR_LAST_SECTOR),
            capacity: 4,
            ..table
        },
        Label::None => return Err(Error::new(Kind::InvalidInput, "no sort of table was named")),
    };
    if old.disk_sectors < 2 {
        return Err(too_small());
    }
    match (table.id, id) {
        (_, None) => Ok(table),
        (Some(DiskId::Gpt(_)), Some(DiskId::Gpt(_)))
        | (Some(DiskId::Mbr(_)), Some(DiskId::Mbr(_))) => Ok(Table { id, ..table }),
        _ => Err(Error::new(Kind::InvalidInput, "the id does not suit the sort of table")),
    }
}

/// An empty GPT with room for `capacity` entries, both copies placed as usual.
pub(crate) fn with_layout(table: Table, capacity: u32) -> Result<Table> {
    if capacity == 0 || capacity > gpt::MAX_ENTRIES {
        return Err(Error::new(Kind::InvalidInput, format!("a GPT of {capacity} entries")));
    }
    let entries = gpt::write::entry_sectors(capacity, ENTRY_SIZE, table.sector_size);
    let first_usable = entries.saturating_add(2);
    let last_usable =
        table.disk_sectors.checked_sub(entries.saturating_add(2)).ok_or_else(too_small)?;
    if last_usable < first_usable {
        return Err(too_small());
    }
    Ok(Table {
        label: Label::Gpt,
        id: Some(DiskId::Gpt(Guid::random())),
        first_usable,
        last_usable,
        capacity,
        entries: EntryLayout::default(),
        ..table
    })
}

/// A 32-bit id that is not zero, which means "none".
fn random_id() -> u32 {
    let [a, b, c, d, ..] = Guid::random().to_disk();
    u32::from_le_bytes([a, b, c, d]).max(1)
}

fn too_small() -> Error {
    Error::new(Kind::OutOfSpace, "the disk is too small for a partition table")
}
