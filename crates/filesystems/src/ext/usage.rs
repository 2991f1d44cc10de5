//! Where things lie: the blocks that are in use, and those of one file.

use std::ops::Range;

use disksmith_disk::Result;

use super::bitmap;
use super::core::Core;
use super::handle::Ext;
use super::layout::superblock::STATE_ERROR;

/// A run of a file's content.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Place {
    /// Where it begins in the file, in bytes.
    pub offset: u64,
    /// Where it begins on the disk, in bytes.
    pub at: u64,
    /// Bytes.
    pub length: u64,
}

impl Ext {
    /// Where the content of a file lies on the disk, in the order of the file. Holes, and what is
    /// reserved but reads as zeroes, are left out.
    pub fn places(&self, inode: u64) -> Result<Vec<Place>> {
        self.with_core(|core| {
            let inode = core.live_inode(inode)?;
            let block = core.shape.block_size as u64;
            let runs = core.mapped_runs(&inode, inode.size().div_ceil(block))?;
            let place = |run: super::mapping::Run| {
                let at = run.data()?.checked_mul(block)?;
                Some(Place { offset: run.start * block, at, length: run.length * block })
            };
            Ok(runs.into_iter().filter_map(place).collect())
        })
    }

    /// The ranges of the disk, in bytes and ascending, that the filesystem uses. What is not among
    /// them is free; it may be left out of a copy (and read as anything there). Unused inodes of
    /// groups that keep count of them are left out too: nobody reads them before they are made.
    pub fn used_ranges(&self) -> Result<Vec<Range<u64>>> {
        self.with_core(|core| {
            let block = core.shape.block_size as u64;
            let mut ranges = Vec::new();
            push(&mut ranges, 0..(core.shape.first_block * block).max(2048));
            let unused = unused_tables(core)?;
            for group in 0..core.shape.groups {
                group_ranges(core, group, &unused, &mut ranges)?;
            }
            Ok(ranges)
        })
    }

    /// Whether the filesystem says of itself that errors were found in it: what it says of its
    /// blocks is not to be relied on then.
    pub fn has_errors(&self) -> bool {
        self.with_core(|core| Ok(core.sb.s_state() & STATE_ERROR != 0)).unwrap_or(true)
    }
}

fn group_ranges(
    core: &Core,
    group: u32,
    unused: &[Range<u64>],
    ranges: &mut Vec<Range<u64>>,
) -> Result<()> {
    let shape = &core.shape;
    let clusters = shape.group_clusters(group);
    let bits = core.block_bitmap(group)?;
    let first = shape.group_first_block(group);
    let mut at = 0;
    while let Some(start) = bitmap::find(&bits, at, clusters, true) {
        let end = bitmap::find(&bits, start, clusters, false).unwrap_or(clusters);
        let from = first + (start << shape.cluster_bits);
        let to = (first + (end << shape.cluster_bits)).min(shape.blocks);
        for part in without(from..to, unused) {
            push(ranges, part.start << shape.block_bits..part.end << shape.block_bits);
        }
        at = end;
    }
    Ok(())
}

/// The blocks of inode tables that hold no inode yet, ascending.
fn unused_tables(core: &Core) -> Result<Vec<Range<u64>>> {
    let shape = &core.shape;
    let mut all = Vec::new();
    if !shape.lazy_groups {
        return Ok(all);
    }
    for group in 0..shape.groups {
        let descriptor = core.group(group)?;
        let inodes = u64::from(shape.inodes_per_group);
        let used = inodes - u64::from(descriptor.itable_unused()).min(inodes);
        let table = descriptor.inode_table();
        let start = table.saturating_add(used.div_ceil(shape.inodes_per_block().into()));
        let end = table.saturating_add(shape.table_blocks());
        if start < end && shape.valid_range(start, end - start) {
            all.push(start..end);
        }
    }
    all.sort_unstable_by_key(|range| range.start);
    Ok(all)
}

/// What of a range is in none of the `holes` (ascending).
fn without(range: Range<u64>, holes: &[Range<u64>]) -> Vec<Range<u64>> {
    let mut parts = Vec::new();
    let mut at = range.start;
    let first = holes.partition_point(|hole| hole.end <= range.start);
    for hole in holes.iter().skip(first).take_while(|hole| hole.start < range.end) {
        if hole.start > at {
            parts.push(at..hole.start);
        }
        at = at.max(hole.end);
    }
    if at < range.end {
        parts.push(at..range.end);
    }
    parts
}

/// Adds a range, joined to the one before where they touch.
fn push(ranges: &mut Vec<Range<u64>>, range: Range<u64>) {
    match ranges.last_mut() {
        Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
        _ => ranges.push(range),
    }
}

#[cfg(test)]
mod tests {
    use std::slice::from_ref;

    use super::*;

    #[test]
    fn holes_are_cut_out() {
        assert_eq!(without(10..20, &[]), from_ref(&(10..20)));
        assert_eq!(without(10..20, &[5..12, 14..16, 19..30]), [12..14, 16..19]);
        assert_eq!(without(10..20, from_ref(&(0..40))), Vec::<Range<u64>>::new());
    }
}
