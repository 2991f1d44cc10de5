//! Checks of a table's layout: those that need no disk.

use std::collections::HashMap;

use crate::{Guid, Label, Oddity, OddityKind, Partition, Table, space};

/// Where partitions should begin, in bytes: a multiple of this suits every device.
const GOOD_ALIGNMENT: u64 = 1 << 20;

/// Overlaps, partitions out of bounds, misalignment, missing and double ids.
///
/// [`Table::oddities`] of a table that was read has these already, with the oddities of its
/// bytes; this is for tables that were edited.
pub fn verify(table: &Table) -> Vec<Oddity> {
    let mut oddities = Vec::new();
    if table.label == Label::None {
        return oddities;
    }
    bounds(table, &mut oddities);
    let (logical, top): (Vec<&Partition>, Vec<&Partition>) =
        table.partitions.iter().partition(|p| p.is_logical());
    overlaps(top, &mut oddities);
    overlaps(logical, &mut oddities);
    records(table, &mut oddities);
    ids(table, &mut oddities);
    alignment(table, &mut oddities);
    oddities
}

fn bounds(table: &Table, oddities: &mut Vec<Oddity>) {
    for p in &table.partitions {
        let range = format!("partition {} (sectors {} to {})", p.number, p.start, p.end());
        if p.start == 0 || p.start >= table.disk_sectors || p.after() > table.disk_sectors {
            oddities.push(Oddity::of(
                OddityKind::OutOfBounds,
                p.number,
                format!("{range} is not within the disk of {} sectors", table.disk_sectors),
            ));
        } else if table.label == Label::Gpt
            && (p.start < table.first_usable || p.end() > table.last_usable)
        {
            oddities.push(Oddity::of(
                OddityKind::OutsideUsable,
                p.number,
                format!(
                    "{range} is not within the usable sectors {} to {}",
                    table.first_usable, table.last_usable
                ),
            ));
        }
    }
}

/// Names, for each partition that begins inside of an earlier one, the one that reaches furthest.
fn overlaps(mut partitions: Vec<&Partition>, oddities: &mut Vec<Oddity>) {
    partitions.sort_by_key(|p| (p.start, p.number));
    let mut furthest: Option<&Partition> = None;
    for p in partitions {
        if let Some(before) = furthest.filter(|before| before.after() > p.start) {
            oddities.push(Oddity::of(
                OddityKind::Overlap,
                p.number,
                format!(
                    "partitions {} and {} share sectors {} to {}",
                    before.number,
                    p.number,
                    p.start,
                    before.end().min(p.end())
                ),
            ));
        }
        if furthest.is_none_or(|before| p.after() > before.after()) {
            furthest = Some(p);
        }
    }
}

fn records(table: &Table, oddities: &mut Vec<Oddity>) {
    let records = space::records(table);
    for p in table.partitions.iter().filter(|p| p.is_logical()) {
        if let Some(at) = records.iter().find(|at| (p.start..p.after()).contains(at)) {
            oddities.push(Oddity::of(
                OddityKind::EbrOverlap,
                p.number,
                format!("the boot record in sector {at} is inside of partition {}", p.number),
            ));
        }
    }
}

fn ids(table: &Table, oddities: &mut Vec<Oddity>) {
    let mut seen: HashMap<Guid, u32> = HashMap::new();
    for (number, uuid) in table.partitions.iter().filter_map(|p| Some((p.number, p.uuid?))) {
        if uuid.is_zero() {
            oddities.push(Oddity::of(
                OddityKind::ZeroId,
                number,
                format!("the id of partition {number} is all zeroes"),
            ));
        } else if let Some(first) = seen.insert(uuid, number) {
            oddities.push(Oddity::of(
                OddityKind::DuplicateId,
                number,
                format!("partitions {first} and {number} have the same id {uuid}"),
            ));
        }
    }
}

fn alignment(table: &Table, oddities: &mut Vec<Oddity>) {
    for p in table.partitions.iter().filter(|p| !p.is_extended()) {
        let bytes = p.start.wrapping_mul(u64::from(table.sector_size));
        if bytes % GOOD_ALIGNMENT != 0 {
            oddities.push(Oddity::of(
                OddityKind::Misaligned,
                p.number,
                format!(
                    "partition {} starts at sector {}, not on a 1 MiB boundary",
                    p.number, p.start
                ),
            ));
        }
    }
}
