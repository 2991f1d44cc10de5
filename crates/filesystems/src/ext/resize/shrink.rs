//! Shrinking: what lies in the part that is cut off moves away, step by step; then the superblock
//! says the new length.

use disksmith_disk::{Error, Kind, Result};

use super::evacuate::evacuate;
use super::geometry::{Target, with_blocks};
use super::grow::{check_tables, update_resize_inode};
use super::publish::publish;
use super::renumber::renumber;
use crate::ext::bitmap;
use crate::ext::core::Core;
use crate::ext::journal::Overlay;
use crate::ext::layout::group::BLOCK_UNINIT;
use crate::ext::shape::Shape;

/// Makes the open filesystem `core` what `target` says, and closes it.
pub(super) fn shrink(core: &mut Core, target: &Target) -> Result<()> {
    check_tables(core)?;
    let end = target.shape.blocks;
    refuse_tables_behind(core, &target.shape)?;
    core.limit = end;
    evacuate(core).and_then(|()| renumber(core)).inspect_err(|_| core.limit = u64::MAX)?;
    core.commit()?;
    core.checkpoint()?;
    core.limit = u64::MAX;
    // The superblock has changed meanwhile.
    let target = with_blocks(core, end)?;
    cut(core, target)
}

/// Tables of the groups that stay lie in front of the new end, unless somebody placed them oddly.
fn refuse_tables_behind(core: &Core, shape: &Shape) -> Result<()> {
    let table = shape.table_blocks();
    let behind = core.groups.iter().take(shape.groups as usize).any(|group| {
        group.block_bitmap() >= shape.blocks
            || group.inode_bitmap() >= shape.blocks
            || group.inode_table() + table > shape.blocks
    });
    if !behind {
        return Ok(());
    }
    Err(Error::new(
        Kind::Unsupported,
        "Tables of groups that stay lie in the part that would be cut off",
    )
    .with_hint("Ask for a larger size."))
}

fn cut(core: &mut Core, target: Target) -> Result<()> {
    let old = core.shape;
    let old_reserved = u64::from(core.sb.s_reserved_gdt_blocks());
    let mut next =
        Core::bare(core.disk.clone(), Overlay::default(), false, target.sb, target.shape);
    next.clock = core.clock;
    next.groups = core.groups.clone();
    next.groups.truncate(next.shape.groups as usize);
    shorten_last(&mut next, &old)?;
    free_tables(&mut next, core)?;
    free_descriptors(&mut next, &old, old_reserved)?;
    update_resize_inode(&mut next, &old)?;
    let shape = next.shape;
    let free: u64 = next.groups.iter().map(|group| u64::from(group.free_blocks())).sum();
    let inodes: u64 = next.groups.iter().map(|group| u64::from(group.free_inodes())).sum();
    let sb = next.super_mut();
    sb.set_free_blocks(free << shape.cluster_bits);
    sb.set_s_free_inodes_count(inodes as u32);
    // Who wants to know counts: the tables of groups that went may have lain anywhere.
    sb.set_s_overhead_blocks(0);
    publish(core, next)
}

/// The new last group ends earlier.
fn shorten_last(next: &mut Core, old: &Shape) -> Result<()> {
    let shape = next.shape;
    let last = shape.groups - 1;
    let clusters = shape.group_clusters(last);
    if old.group_clusters(last) == clusters && !next.group(last)?.has_flag(BLOCK_UNINIT) {
        return Ok(());
    }
    // The last group's bitmap is always there.
    let bits = next.block_bitmap_mut(last)?;
    let size = bits.len() as u64 * 8;
    bitmap::set_range(bits, clusters, size - clusters, true);
    let free = bitmap::count_clear(bits, clusters);
    next.group_mut(last)?.set_free_blocks(free as u32);
    Ok(())
}

/// Bitmaps and inode tables of groups that go may lie in groups that stay.
fn free_tables(next: &mut Core, core: &Core) -> Result<()> {
    let shape = next.shape;
    let mut runs = Vec::new();
    for group in core.groups.iter().skip(shape.groups as usize) {
        runs.push((group.block_bitmap(), 1));
        runs.push((group.inode_bitmap(), 1));
        runs.push((group.inode_table(), shape.table_blocks()));
    }
    if shape.cluster_bits > 0 {
        return free_shared(next, &runs);
    }
    for (start, count) in runs {
        let count = count.min(shape.blocks.saturating_sub(start));
        if count > 0 {
            release(next, start, count)?;
        }
    }
    Ok(())
}

/// With bigalloc a cluster is free only when no table of any group that stays lies in it.
fn free_shared(next: &mut Core, runs: &[(u64, u64)]) -> Result<()> {
    let shape = next.shape;
    let per_cluster = 1_u64 << shape.cluster_bits;
    let mut kept = std::collections::HashSet::new();
    let reserved = u64::from(next.sb.s_reserved_gdt_blocks());
    let cluster = |block: u64| (block - shape.first_block) >> shape.cluster_bits;
    for (number, group) in (0..).zip(&next.groups) {
        let first = shape.group_first_block(number);
        let base = shape.group_base_blocks(number, reserved);
        let areas = [
            (first, base),
            (group.block_bitmap(), 1),
            (group.inode_bitmap(), 1),
            (group.inode_table(), shape.table_blocks()),
        ];
        for (start, count) in areas.into_iter().filter(|(_, count)| *count > 0) {
            kept.extend(cluster(start)..=cluster(start + count - 1));
        }
    }
    let mut gone = std::collections::BTreeSet::new();
    for (start, count) in runs {
        let end = (start + count).min(shape.blocks);
        if *start < end {
            gone.extend((cluster(*start)..=cluster(end - 1)).filter(|c| !kept.contains(c)));
        }
    }
    for number in gone {
        release(next, shape.first_block + (number << shape.cluster_bits), per_cluster)?;
    }
    Ok(())
}

/// A shorter descriptor table, where it does not go to the reserve, leaves free blocks.
fn free_descriptors(next: &mut Core, old: &Shape, old_reserved: u64) -> Result<()> {
    let shape = next.shape;
    let reserved = u64::from(next.sb.s_reserved_gdt_blocks());
    for group in 0..shape.groups {
        let per_cluster = 1_u64 << shape.cluster_bits;
        let first = shape.group_first_block(group);
        let before = old.group_base_blocks(group, old_reserved).div_ceil(per_cluster);
        let now = shape.group_base_blocks(group, reserved).div_ceil(per_cluster);
        if now < before && next.group(group)?.has_flag(BLOCK_UNINIT) {
            let free = bitmap::count_clear(&next.block_bitmap(group)?, shape.group_clusters(group));
            next.group_mut(group)?.set_free_blocks(free as u32);
        } else if now < before {
            let start = first + (now << shape.cluster_bits);
            release(next, start, (before - now) << shape.cluster_bits)?;
        }
    }
    Ok(())
}

/// Frees what is still in use of these blocks: a bitmap that was made anew knows the new places only.
fn release(next: &mut Core, start: u64, count: u64) -> Result<()> {
    let shape = next.shape;
    let per_cluster = 1_u64 << shape.cluster_bits;
    for block in (start..start + count).step_by(per_cluster as usize) {
        let bits = next.block_bitmap(shape.group_of(block))?;
        if bitmap::get(&bits, shape.bit_of(block)) {
            drop(bits);
            next.free_blocks(block, per_cluster.min(shape.blocks - block))?;
        }
    }
    Ok(())
}
