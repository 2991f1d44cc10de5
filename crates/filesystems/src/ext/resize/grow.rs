//! Growing.

use disksmith_disk::{Result, State};

use super::geometry::Target;
use super::publish::publish;
use crate::ext::bitmap;
use crate::ext::core::{Core, RESIZE_INODE, corrupt};
use crate::ext::features::{Compat, Incompat};
use crate::ext::journal::Overlay;
use crate::ext::layout::group::{BLOCK_UNINIT, INODE_ZEROED};
use crate::ext::layout::{GroupDescriptor, Inode};
use crate::ext::mkfs::{initialise_groups, place_tables, point_to_reserved};
use crate::ext::shape::Shape;

/// Makes the open filesystem `core` what `target` says, and closes it. When `resuming`, an earlier
/// run may have left some of its blocks behind, but not the superblock.
pub(super) fn grow(core: &mut Core, target: Target, resuming: bool) -> Result<()> {
    check_tables(core)?;
    let old = core.shape;
    let mut next =
        Core::bare(core.disk.clone(), Overlay::default(), false, target.sb, target.shape);
    next.clock = core.clock;
    next.groups = core.groups.clone();
    next.groups.resize(next.shape.groups as usize, GroupDescriptor::empty(old.wide()));
    let (free, overhead) = add_groups(&mut next, old.groups)?;
    if resuming {
        // Bitmap and descriptor may be of different age; both are made anew.
        next.mark_checked(next.group(old.groups - 1)?.block_bitmap());
    }
    let more = lengthen_last(&mut next, &old)?;
    for index in old.descriptor_blocks()..next.shape.descriptor_blocks() {
        next.fresh(next.shape.descriptor_block(index))?;
    }
    update_resize_inode(&mut next, &old)?;
    let inodes = next.shape.inodes - old.inodes;
    let blocks = next.sb.free_blocks() + ((free + more) << old.cluster_bits);
    let sb = next.super_mut();
    sb.set_free_blocks(blocks);
    sb.set_s_free_inodes_count(sb.s_free_inodes_count().saturating_add(inodes));
    if sb.s_overhead_blocks() > 0 {
        sb.set_s_overhead_blocks(sb.s_overhead_blocks().saturating_add(overhead as u32));
    }
    publish(core, next)
}

/// Descriptors that lead astray would let new tables overwrite old ones, or the reverse.
pub(super) fn check_tables(core: &Core) -> Result<()> {
    let shape = &core.shape;
    for (number, group) in core.groups.iter().enumerate() {
        let fine = shape.valid_range(group.block_bitmap(), 1)
            && shape.valid_range(group.inode_bitmap(), 1)
            && shape.valid_range(group.inode_table(), shape.table_blocks());
        if !fine {
            return Err(corrupt(format!("the tables of group {number} lie outside of it"))
                .with_hint("Run 'disksmith fsck -y' on it first."));
        }
    }
    Ok(())
}

/// Lays out the groups from `from` on. Answers their free and their used clusters.
fn add_groups(next: &mut Core, from: u32) -> Result<(u64, u64)> {
    let groups = from..next.shape.groups;
    let flexible = next.shape.has_incompat(Incompat::FLEX_BG);
    let bits = u32::from(next.sb.s_log_groups_per_flex()).min(16);
    let flex = if flexible { 1 << bits } else { 1 };
    // Where tables of a flexible group find no place together, each group has its own.
    place_tables(next, groups.clone(), flex).or_else(|_| place_tables(next, groups.clone(), 1))?;
    let counts = initialise_groups(next, groups.clone(), false)?;
    if next.shape.lazy_groups {
        for group in groups {
            let zeroed = table_is_zero(next, group)?;
            next.group_mut(group)?.set_flag(INODE_ZEROED, zeroed);
        }
    }
    Ok(counts)
}

/// True when the disk says, without being read, that the group's inode table is zero.
fn table_is_zero(next: &Core, group: u32) -> Result<bool> {
    let shape = &next.shape;
    let mut at = next.group(group)?.inode_table() << shape.block_bits;
    let end = at + (shape.table_blocks() << shape.block_bits);
    while at < end {
        let extent = next.disk.map(at, end - at)?;
        if extent.state != State::Zero || extent.length == 0 {
            return Ok(false);
        }
        at += extent.length;
    }
    Ok(true)
}

/// The group that was the last gets the blocks that it lacked. Answers how many clusters.
fn lengthen_last(next: &mut Core, old: &Shape) -> Result<u64> {
    let last = old.groups - 1;
    let (before, now) = (old.group_clusters(last), next.shape.group_clusters(last));
    if before == now {
        return Ok(0);
    }
    let descriptor = *next.group(last)?;
    if old.lazy_groups && descriptor.has_flag(BLOCK_UNINIT) {
        let bits = next.block_bitmap(last)?;
        let free = bitmap::count_clear(&bits, now);
        next.group_mut(last)?.set_free_blocks(free as u32);
        return Ok(now - before);
    }
    let bits = next.block_bitmap_mut(last)?;
    bitmap::set_range(bits, before, now - before, false);
    let size = bits.len() as u64 * 8;
    bitmap::set_range(bits, now, size - now, true);
    let free = bitmap::count_clear(bits, now);
    next.group_mut(last)?.set_free_blocks(free as u32);
    Ok(now - before)
}

/// What is left of the reserve, with copies in new groups too; or the end of the resize inode.
pub(super) fn update_resize_inode(next: &mut Core, old: &Shape) -> Result<()> {
    if !old.has_compat(Compat::RESIZE_INODE) {
        return Ok(());
    }
    let mut inode = next.inode(RESIZE_INODE)?;
    let double = u64::from(inode.block_pointer(13));
    if !old.valid_range(double, 1) {
        return Err(corrupt("the resize inode leads outside of the filesystem")
            .with_hint("Run 'disksmith fsck -y' on it first."));
    }
    if next.shape.has_compat(Compat::RESIZE_INODE) {
        return point_to_reserved(next, &mut inode, double);
    }
    next.free_metadata(double)?;
    next.put_inode(&Inode::empty(RESIZE_INODE, old.inode_size))
}
