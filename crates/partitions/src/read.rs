//! Which sort of table a disk has, and what it lists.

use disksmith_disk::{Context, Disk, Error, Kind, Result};

use crate::gpt::read::{EntryLayout, Survey};
use crate::mbr::layout::{RECORD_LENGTH, Record};
use crate::types::MBR_PROTECTIVE;
use crate::{DiskId, Geometry, Label, Oddity, OddityKind, Table, gpt, mbr, probe, verify};

/// Last sector number that an MBR can name.
pub(crate) const MBR_LAST_SECTOR: u64 = u32::MAX as u64;

/// Reads the partition table of a disk.
///
/// The sector size is the disk's own; a GPT that was made for the other of 512 and 4096 bytes
/// (an image of a disk with larger sectors) is read as it was made, and that is noted. Damage is
/// never an error: see [`Table::oddities`]. Errors are those of the disk.
pub fn read(disk: &dyn Disk) -> Result<Table> {
    let native = disk.geometry().sector;
    let table = read_with_sector_size(disk, native)?;
    if table.label == Label::Gpt && table.id.is_some() {
        return Ok(table);
    }
    let other = if native == 512 { 4096 } else { 512 };
    let survey = Survey::new(disk, other, disk.size() / u64::from(other))?;
    if survey.primary_is_valid() {
        let mut table = read_with_sector_size(disk, other)?;
        table.oddities.insert(
            0,
            Oddity::new(
                OddityKind::SectorSize,
                format!(
                    "the GPT is for sectors of {other} bytes, the disk has sectors of {native}"
                ),
            ),
        );
        return Ok(table);
    }
    Ok(table)
}

/// As [`read()`], with a given sector size: a power of two from 512 to 65536.
pub fn read_with_sector_size(disk: &dyn Disk, sector_size: u32) -> Result<Table> {
    if !sector_size.is_power_of_two() || !(512..=65536).contains(&sector_size) {
        return Err(Error::new(
            Kind::InvalidInput,
            format!("sectors of {sector_size} bytes (512 and 4096 are usual)"),
        ));
    }
    let disk_sectors = disk.size() / u64::from(sector_size);
    let mut table =
        read_any(disk, sector_size, disk_sectors).context("Could not read the partition table")?;
    let found = verify::verify(&table);
    table.oddities.extend(found);
    if let Some(pending) = crate::edit::moving::pending_move_in(disk, &table)? {
        table.oddities.push(Oddity::of(
            OddityKind::MoveInterrupted,
            pending.number,
            format!(
                "moving partition {} from sector {} to {} was interrupted",
                pending.number, pending.from, pending.to
            ),
        ));
    }
    Ok(table)
}

fn read_any(disk: &dyn Disk, sector_size: u32, disk_sectors: u64) -> Result<Table> {
    let Some(record) = sector_zero(disk)? else { return Ok(none(sector_size, disk_sectors)) };
    let survey = Survey::new(disk, sector_size, disk_sectors)?;
    let protective = record.entries.iter().any(|e| e.kind == MBR_PROTECTIVE);
    let plausible = record.is_plausible(disk_sectors);
    // Without a protective entry a GPT counts only where sector 0 lists nothing else: a disk
    // that was given an MBR later may still have it.
    let gpt_alone = survey.best().is_some() && !(record.signed && plausible);
    if survey.has_signature() && (protective || gpt_alone) {
        return Ok(gpt::read::table(&survey, &record, sector_size, disk_sectors));
    }
    if !is_mbr(disk, &record, plausible)? {
        return Ok(none(sector_size, disk_sectors));
    }
    let mut table = mbr_table(disk, &record, sector_size, disk_sectors)?;
    if protective {
        table.oddities.push(Oddity::new(
            OddityKind::GptUnreadable,
            "sector 0 announces a GPT and there is none",
        ));
    } else if survey.best().is_some() {
        table.oddities.push(Oddity::new(
            OddityKind::GptRemains,
            "a GPT is left over from before the disk was given an MBR",
        ));
    }
    Ok(table)
}

/// The record in sector 0; `None` on a disk that is too small for one.
pub(crate) fn sector_zero(disk: &dyn Disk) -> Result<Option<Record>> {
    if disk.size() < RECORD_LENGTH as u64 {
        return Ok(None);
    }
    let mut bytes = [0; RECORD_LENGTH];
    disk.read_at(&mut bytes, 0)?;
    Ok(Record::parse(&bytes))
}

/// Whether sector 0 is a partition table. A filesystem's boot sector has the same signature, and
/// whatever boot code there is where the entries would be.
fn is_mbr(disk: &dyn Disk, record: &Record, plausible: bool) -> Result<bool> {
    if record.signed && plausible {
        return Ok(true);
    }
    if !record.signed && !plausible {
        return Ok(false);
    }
    Ok(probe::probe(disk)?.is_none())
}

fn mbr_table(
    disk: &dyn Disk,
    record: &Record,
    sector_size: u32,
    disk_sectors: u64,
) -> Result<Table> {
    let found = mbr::read::read(disk, record, sector_size, disk_sectors)?;
    let mut table = Table {
        label: Label::Mbr,
        id: Some(DiskId::Mbr(record.disk_id)),
        first_usable: 1,
        last_usable: disk_sectors.saturating_sub(1).min(MBR_LAST_SECTOR),
        partitions: found.partitions,
        geometry: found.geometry,
        capacity: 4,
        oddities: found.oddities,
        ..none(sector_size, disk_sectors)
    };
    if !record.signed {
        table.oddities.insert(
            0,
            Oddity::new(
                OddityKind::SignatureMissing,
                "sector 0 lists partitions and lacks 55 aa at its end",
            ),
        );
    }
    table.sort();
    Ok(table)
}

pub(crate) fn none(sector_size: u32, disk_sectors: u64) -> Table {
    Table {
        label: Label::None,
        sector_size,
        disk_sectors,
        id: None,
        first_usable: 0,
        last_usable: disk_sectors.saturating_sub(1),
        partitions: Vec::new(),
        hybrid: Vec::new(),
        geometry: Geometry::default(),
        capacity: 0,
        entries: EntryLayout::default(),
        oddities: Vec::new(),
    }
}
