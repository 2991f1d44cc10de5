//! A GPT, into the bytes of both copies.

use disksmith_disk::{Error, Kind, Result};

use super::layout::{Entry, HEADER_SIZE, Header, NAME_UNITS, REVISION};
use crate::{DiskId, PartitionType, Table};

/// One copy, ready to be written.
pub(crate) struct Image {
    pub(crate) header_lba: u64,
    pub(crate) header: Vec<u8>,
    pub(crate) entries_lba: u64,
    /// Whole sectors.
    pub(crate) entries: Vec<u8>,
}

/// The primary and the backup copy of a table.
pub(crate) fn encode(table: &Table) -> Result<(Image, Image)> {
    let Some(DiskId::Gpt(disk_guid)) = table.id else {
        return Err(Error::new(Kind::InvalidInput, "a GPT needs a disk id that is a GUID"));
    };
    let array = entries(table)?;
    let sectors = entry_sectors(table.capacity, table.entries.size, table.sector_size);
    let last = table.disk_sectors.saturating_sub(1);
    let backup_entries = last.checked_sub(sectors).ok_or_else(too_small)?;
    let primary_after = table.entries.lba.checked_add(sectors).ok_or_else(too_small)?;
    if primary_after > table.first_usable
        || table.first_usable > table.last_usable.saturating_add(1)
        || table.last_usable >= backup_entries
    {
        return Err(too_small());
    }
    let mut header = Header {
        revision: REVISION,
        header_size: HEADER_SIZE,
        my_lba: 1,
        alternate_lba: last,
        first_usable_lba: table.first_usable,
        last_usable_lba: table.last_usable,
        disk_guid,
        partition_entry_lba: table.entries.lba,
        number_of_entries: table.capacity,
        size_of_entry: table.entries.size,
        entries_crc: crc32fast::hash(&array),
    };
    let mut padded = array;
    padded.resize(usize::try_from(sectors).unwrap_or(0) * table.sector_size as usize, 0);
    let primary = Image {
        header_lba: 1,
        header: header.encode(table.sector_size),
        entries_lba: table.entries.lba,
        entries: padded.clone(),
    };
    header.my_lba = last;
    header.alternate_lba = 1;
    header.partition_entry_lba = backup_entries;
    let backup = Image {
        header_lba: last,
        header: header.encode(table.sector_size),
        entries_lba: backup_entries,
        entries: padded,
    };
    Ok((primary, backup))
}

/// The sectors that the entries take.
pub(crate) fn entry_sectors(capacity: u32, entry_size: u32, sector_size: u32) -> u64 {
    (u64::from(capacity) * u64::from(entry_size)).div_ceil(u64::from(sector_size.max(1)))
}

fn too_small() -> Error {
    Error::new(Kind::OutOfSpace, "the disk is too small for a GPT")
}

fn entries(table: &Table) -> Result<Vec<u8>> {
    let size = table.entries.size as usize;
    let bytes = usize::try_from(u64::from(table.capacity) * u64::from(table.entries.size))
        .ok()
        .filter(|bytes| *bytes as u64 <= super::MAX_ENTRIES_BYTES)
        .ok_or_else(|| {
            Error::new(Kind::LimitExceeded, format!("a GPT of {} entries", table.capacity))
        })?;
    let mut array = vec![0; bytes];
    for partition in &table.partitions {
        let place = usize::try_from(partition.number)
            .ok()
            .and_then(|n| n.checked_sub(1))
            .and_then(|index| array.chunks_exact_mut(size.max(1)).nth(index))
            .ok_or_else(|| {
                Error::new(
                    Kind::InvalidInput,
                    format!(
                        "this GPT has {} entries and none for partition {}",
                        table.capacity, partition.number
                    ),
                )
            })?;
        let PartitionType::Gpt(partition_type) = partition.kind else {
            return Err(Error::new(
                Kind::InvalidInput,
                format!("partition {} has an MBR type, which a GPT cannot hold", partition.number),
            ));
        };
        let entry = Entry {
            partition_type,
            unique: partition.uuid.unwrap_or_default(),
            starting_lba: partition.start,
            ending_lba: partition.end(),
            attributes: partition.attributes,
            name: name_units(partition)?,
        };
        entry.encode_into(place);
    }
    Ok(array)
}

fn name_units(partition: &crate::Partition) -> Result<Vec<u16>> {
    if let Some(raw) = &partition.raw_name {
        return Ok(raw.clone());
    }
    check_name(&partition.name)?;
    Ok(partition.name.encode_utf16().collect())
}

/// Refuses names that an entry cannot hold.
pub(crate) fn check_name(name: &str) -> Result<()> {
    let units = name.encode_utf16().count();
    if units > NAME_UNITS {
        return Err(Error::new(
            Kind::InvalidInput,
            format!(
                "the name '{name}' takes {units} UTF-16 units; a GPT entry has room for {NAME_UNITS}"
            ),
        ));
    }
    if name.contains('\0') {
        return Err(Error::new(
            Kind::InvalidInput,
            "a partition name cannot contain a NUL character",
        ));
    }
    Ok(())
}
