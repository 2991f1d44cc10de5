//! What of a disk need not be copied.

use std::ops::Range;
use std::sync::Arc;

use disksmith_disk::{Disk, Result, Slice};
use disksmith_filesystems::used_ranges;
use disksmith_partitions::{Label, Oddity, OddityKind, probe, read};

/// How much of a part is used.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PartUse {
    /// The partition; `None`: the whole disk.
    pub partition: Option<u32>,
    /// What it holds, if that was recognised.
    pub kind: Option<&'static str>,
    /// Its bytes.
    pub size: u64,
    /// Bytes that are to be copied.
    pub used: u64,
    /// Why all of it is, where that needs saying.
    pub whole: Option<String>,
}

/// The ranges that filesystems on the disk say are free, ascending, and how much of each part is
/// used. Everything else counts as used: what was not recognised, partition tables, boot code, the
/// gaps between partitions.
pub fn free_space_of(disk: &Arc<dyn Disk>) -> Result<(Vec<Range<u64>>, Vec<PartUse>)> {
    let table = read(disk)?;
    let mut parts: Vec<(Option<u32>, u64, Arc<dyn Disk>)> = Vec::new();
    if table.label == Label::None {
        parts.push((None, 0, disk.clone()));
    }
    for partition in table.partitions.iter().filter(|partition| !partition.is_extended()) {
        let start = partition.start_bytes(table.sector_size);
        let length = partition.length_bytes(table.sector_size);
        // What the table claims beyond the disk cannot be read; it is left to the copy to say so.
        if let Ok(slice) = Slice::new(disk.clone(), start, length) {
            parts.push((Some(partition.number), start, Arc::new(slice)));
        }
    }
    let (mut free, mut uses) = (Vec::new(), Vec::new());
    for (number, start, part) in parts {
        let (ranges, mut used) = look(&part);
        used.partition = number;
        uses.push(used);
        free.extend(ranges.into_iter().map(|range| range.start + start..range.end + start));
    }
    free.sort_unstable_by_key(|range| range.start);
    // Where partitions overlap, what one calls free another may use.
    let apart = |odd: &Oddity| !matches!(odd.kind, OddityKind::Overlap | OddityKind::EbrOverlap);
    if !table.oddities.iter().all(apart) {
        free.clear();
    }
    Ok((free, uses))
}

/// What is free in one part. A filesystem that cannot be read is copied whole.
fn look(part: &Arc<dyn Disk>) -> (Vec<Range<u64>>, PartUse) {
    let size = part.size();
    let mut used = PartUse { partition: None, kind: None, size, used: size, whole: None };
    let content = match probe(part) {
        Ok(Some(content)) => content,
        Ok(None) => return (Vec::new(), used),
        Err(error) => {
            used.whole = Some(error.to_string());
            return (Vec::new(), used);
        }
    };
    used.kind = Some(content.kind);
    match used_ranges(part, content.kind) {
        Ok(Some(mut ranges)) => {
            // Of what lies behind the end of the filesystem nothing is known.
            if let Some(end) = content.size.filter(|end| *end < size) {
                ranges.push(end..size);
            }
            used.used = ranges.iter().map(|range| range.end - range.start).sum();
            (between(&ranges, size), used)
        }
        Ok(None) => (Vec::new(), used),
        Err(error) => {
            used.whole = Some(error.to_string());
            (Vec::new(), used)
        }
    }
}

/// What lies between ascending ranges.
fn between(ranges: &[Range<u64>], size: u64) -> Vec<Range<u64>> {
    let mut gaps = Vec::new();
    let mut at = 0;
    for range in ranges {
        if range.start > at {
            gaps.push(at..range.start);
        }
        at = at.max(range.end);
    }
    if at < size {
        gaps.push(at..size);
    }
    gaps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_what_is_not_used() {
        assert_eq!(between(&[0..10, 20..30], 40), [10..20, 30..40]);
        assert_eq!(between(&[], 5), std::slice::from_ref(&(0..5)));
    }
}
