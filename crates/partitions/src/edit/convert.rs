//! MBR to GPT and back: the partitions stay where they are.

use disksmith_disk::{Error, Kind, Result};

use super::require_table;
use crate::{
    Align, Guid, Label, Partition, PartitionType, Role, Table, free_space, gpt, init, types,
};

/// The same partitions in the other sort of table.
///
/// To GPT: numbers are kept, the extended partition goes, types get their counterparts (a type
/// without one becomes Linux data), the active flag the legacy boot attribute. To MBR: up to four
/// partitions become primary, of more the last ones logical, for which a free sector before each
/// is needed; names and ids are lost.
pub fn convert(table: &Table, label: Label) -> Result<Table> {
    require_table(table)?;
    match (table.label, label) {
        (Label::Mbr, Label::Gpt) => to_gpt(table),
        (Label::Gpt, Label::Mbr) => to_mbr(table),
        (a, b) if a == b => Ok(table.clone()),
        _ => Err(Error::new(Kind::InvalidInput, "no sort of table was named")),
    }
}

fn to_gpt(table: &Table) -> Result<Table> {
    let mut new = init(table, Label::Gpt)?;
    for old in table.partitions.iter().filter(|p| !p.is_extended()) {
        if old.start < new.first_usable || old.end() > new.last_usable {
            return Err(Error::new(
                Kind::Refused,
                format!(
                    "partition {} (sectors {} to {}) leaves no room for a GPT, which needs all before sector {} and behind {}",
                    old.number, old.start, old.end(), new.first_usable, new.last_usable
                ),
            )
            .with_hint("Move or shrink the partition first, or grow the disk."));
        }
        let kind = types::counterpart(old.kind).unwrap_or(PartitionType::Gpt(types::GPT_LINUX));
        new.partitions.push(Partition {
            kind,
            role: Role::Primary,
            uuid: Some(Guid::random()),
            attributes: if old.bootable { gpt::ATTRIBUTE_LEGACY_BOOT } else { 0 },
            bootable: false,
            ..old.clone()
        });
    }
    Ok(new)
}

fn to_mbr(table: &Table) -> Result<Table> {
    let mut new = init(table, Label::Mbr)?;
    let mut olds: Vec<&Partition> = table.partitions.iter().collect();
    olds.sort_by_key(|p| p.start);
    let primaries = if olds.len() > 4 { 3 } else { olds.len() };
    let keep_numbers = olds.len() <= 4 && olds.iter().all(|p| p.number <= 4);
    for (index, old) in (1u32..).zip(olds.iter().take(primaries)) {
        let number = if keep_numbers { old.number } else { index };
        new.partitions.push(mbr_partition(old, number, Role::Primary));
    }
    if let (Some(first), Some(last)) = (olds.get(primaries), olds.last()) {
        add_extended(&mut new, first, last)?;
        for (number, old) in (5u32..).zip(olds.iter().skip(primaries)) {
            let record = record_for(&new, old)?;
            new.partitions.push(mbr_partition(old, number, Role::Logical { record }));
        }
    }
    if new.partitions.iter().filter(|p| p.bootable).count() > 1 {
        new.partitions.iter_mut().skip(1).for_each(|p| p.bootable = false);
    }
    new.sort();
    if let Some(far) = new.partitions.iter().find(|p| p.end() > new.last_usable) {
        return Err(Error::new(
            Kind::Unsupported,
            format!(
                "partition {} ends behind sector {}, the last that an MBR can name",
                far.number, new.last_usable
            ),
        ));
    }
    Ok(new)
}

fn mbr_partition(old: &Partition, number: u32, role: Role) -> Partition {
    Partition {
        number,
        kind: types::counterpart(old.kind).unwrap_or(PartitionType::Mbr(types::MBR_LINUX)),
        role,
        name: String::new(),
        raw_name: None,
        uuid: None,
        attributes: 0,
        bootable: old.boots(),
        ..old.clone()
    }
}

/// An extended partition from a free sector before `first` to the end of `last`.
fn add_extended(new: &mut Table, first: &Partition, last: &Partition) -> Result<()> {
    let lead = Align::default().lead(new.sector_size);
    let before = free_space(new)
        .into_iter()
        .find(|r| (r.start..r.after()).contains(&first.start))
        .ok_or_else(|| no_record(first))?;
    let start = crate::edit::add::record_before(before, first.start, lead)
        .ok_or_else(|| no_record(first))?;
    new.partitions.push(Partition {
        number: 4,
        start,
        sectors: last.after().saturating_sub(start),
        kind: PartitionType::Mbr(types::MBR_EXTENDED_LBA),
        role: Role::Extended,
        name: String::new(),
        raw_name: None,
        uuid: None,
        attributes: 0,
        bootable: false,
    });
    Ok(())
}

fn record_for(new: &Table, old: &Partition) -> Result<u64> {
    let extended = new.extended().map_or(0, |p| p.start);
    if !new.partitions.iter().any(Partition::is_logical) {
        return Ok(extended);
    }
    let lead = Align::default().lead(new.sector_size);
    free_space(new)
        .into_iter()
        .find(|r| r.logical && (r.start..r.after()).contains(&old.start))
        .and_then(|r| crate::edit::add::record_before(r, old.start, lead))
        .ok_or_else(|| no_record(old))
}

fn no_record(partition: &Partition) -> Error {
    Error::new(
        Kind::Refused,
        format!(
            "an MBR has four primary partitions; partition {} would have to be logical and there is no free sector before it",
            partition.number
        ),
    )
}
