//! What a plan would take away.

use std::fmt;

use disksmith_disk::{Disk, Result, Slice, human_size, is_zero};

use super::Options;
use crate::probe::{self, Content};
use crate::{Label, OddityKind, Partition, Table, gpt};

/// Recognised content that would be overwritten or no longer be reachable.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Loss {
    /// The partition that holds it, if one does.
    pub partition: Option<u32>,
    /// One line for people.
    pub detail: String,
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

pub(super) fn losses(
    disk: &dyn Disk,
    before: &Table,
    after: &Table,
    options: Options,
) -> Result<Vec<Loss>> {
    let mut losses = Vec::new();
    if before.label == Label::None && after.label != Label::None {
        if let Some(content) = probe::probe(disk)? {
            losses.push(Loss {
                partition: None,
                detail: format!("the disk holds {} and would lose it", describe(&content)),
            });
        }
        return Ok(losses);
    }
    losses.extend(whole_table(before, after));
    for partition in before.partitions.iter().filter(|p| !p.is_extended()) {
        losses.extend(of_partition(disk, before, after, partition, options)?);
    }
    unread(before, after, options, &mut losses);
    if before.label == Label::Mbr && after.label == Label::Gpt {
        under_the_gpt(disk, after, &mut losses)?;
    }
    Ok(losses)
}

/// Another table in place of one that lists partitions, none of which stays.
fn whole_table(before: &Table, after: &Table) -> Option<Loss> {
    let stays = |p: &Partition| after.partitions.iter().any(|q| q.start == p.start);
    let count = before.partitions.len();
    if count == 0 || before.id == after.id || before.partitions.iter().any(stays) {
        return None;
    }
    let plural = if count == 1 { "partition" } else { "partitions" };
    let detail = format!(
        "the disk has a partition table ({}) with {count} {plural}, which would be gone",
        before.label.name()
    );
    Some(Loss { partition: None, detail })
}

fn of_partition(
    disk: &dyn Disk,
    before: &Table,
    after: &Table,
    old: &Partition,
    options: Options,
) -> Result<Option<Loss>> {
    if options.moved == Some(old.number) {
        return Ok(None);
    }
    let left = after.partitions.iter().filter(|p| !p.is_extended() && p.start == old.start);
    let left = left.map(|p| p.sectors).max().unwrap_or(0);
    if left >= old.sectors {
        return Ok(None);
    }
    let unit = u64::from(before.sector_size);
    let length = old
        .length_bytes(before.sector_size)
        .min(disk.size().saturating_sub(old.start_bytes(before.sector_size)));
    let Ok(slice) = Slice::new(disk, old.start_bytes(before.sector_size), length) else {
        return Ok(None);
    };
    let Some(content) = probe::probe(&slice)? else { return Ok(None) };
    let what = describe(&content);
    let left_bytes = left.saturating_mul(unit);
    let detail = match content.size {
        Some(size) if left > 0 && size <= left_bytes => return Ok(None),
        Some(size) if left > 0 => format!(
            "partition {} holds {what}, which takes {} bytes; it would have {left_bytes} bytes",
            old.number, size
        ),
        _ if left > 0 => {
            format!("partition {} holds {what}, whose end would be cut off", old.number)
        }
        _ => format!("partition {} holds {what} and would be gone", old.number),
    };
    Ok(Some(Loss { partition: Some(old.number), detail }))
}

/// Entries that could not be read go when the table is written anew.
fn unread(before: &Table, after: &Table, options: Options, losses: &mut Vec<Loss>) {
    let same = before.label == after.label;
    for odd in before.oddities.iter().filter(|_| same) {
        let lost = match odd.kind {
            OddityKind::EbrLink
            | OddityKind::EbrLoop
            | OddityKind::EbrSignature
            | OddityKind::EbrTooMany => chain_changes(before, after) || options.repairing,
            OddityKind::EbrExtra => chain_changes(before, after) && !options.repairing,
            OddityKind::Empty | OddityKind::TypeMissing => !options.repairing,
            _ => false,
        };
        if lost {
            losses.push(Loss {
                partition: odd.partition,
                detail: format!("{}; what it was meant to say would be lost", odd.detail),
            });
        }
    }
}

fn chain_changes(before: &Table, after: &Table) -> bool {
    let logical = |table: &Table| -> Vec<Partition> {
        table.partitions.iter().filter(|p| p.is_logical() || p.is_extended()).cloned().collect()
    };
    logical(before) != logical(after)
}

/// Boot loaders keep code between sector 0 and the first partition.
fn under_the_gpt(disk: &dyn Disk, after: &Table, losses: &mut Vec<Loss>) -> Result<()> {
    let unit = u64::from(after.sector_size);
    let entries = gpt::write::entry_sectors(after.capacity, after.entries.size, after.sector_size);
    let last = after.disk_sectors.saturating_sub(1);
    let places = [
        (1, after.entries.lba.saturating_add(entries), "a boot loader may live there"),
        (last.saturating_sub(entries), last.saturating_add(1), "the backup GPT goes there"),
    ];
    for (from, until, why) in places {
        let start = from.saturating_mul(unit);
        // What lies past the end of a disk that is to grow is not there yet.
        let length = until
            .saturating_sub(from)
            .saturating_mul(unit)
            .min(gpt::MAX_ENTRIES_BYTES * 2)
            .min(disk.size().saturating_sub(start));
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
        disk.read_at(&mut bytes, start)?;
        if !is_zero(&bytes) {
            losses.push(Loss {
                partition: None,
                detail: format!(
                    "sectors {from} to {} are not empty: {why}",
                    until.saturating_sub(1)
                ),
            });
        }
    }
    Ok(())
}

fn describe(content: &Content) -> String {
    let label = match &content.label {
        Some(label) if !label.is_empty() => format!(" '{label}'"),
        _ => String::new(),
    };
    match content.size {
        Some(size) => format!("{}{label} of {}", content.kind, human_size(size)),
        None => format!("{}{label}", content.kind),
    }
}
