//! The least length.

use disksmith_disk::Result;

use super::evacuate::used_inodes;
use super::geometry::{LAST_GROUP_LEAST, overhead, with_blocks};
use crate::ext::core::Core;

/// Blocks to spare for trees that grow while their files move.
const SPARE_LEAST: u64 = 32;

/// The least number of blocks that holds what is in use.
pub(super) fn minimum(core: &Core) -> Result<u64> {
    let shape = core.shape;
    let reserved = u64::from(core.sb.s_reserved_gdt_blocks());
    let inodes = used_inodes(core)?.len() as u64;
    let table = 2 + shape.table_blocks();
    let tables: u64 =
        (0..shape.groups).map(|group| table + shape.group_base_blocks(group, reserved)).sum();
    // Free blocks are what the superblock says, which may be more than there are.
    let used = (shape.blocks - shape.first_block).saturating_sub(core.sb.free_blocks());
    let content = used.saturating_sub(tables);
    let spare = SPARE_LEAST + content / 200;
    for groups in 1..=shape.groups {
        let whole = shape.first_block + u64::from(groups) * shape.blocks_per_group;
        let target = with_blocks(core, whole.min(shape.blocks))?;
        let reserved = u64::from(target.sb.s_reserved_gdt_blocks());
        let own: u64 =
            (0..groups).map(|g| table + target.shape.group_base_blocks(g, reserved)).sum();
        let own = own + guests(core, groups, whole);
        let room = u64::from(groups) * shape.blocks_per_group;
        if room < own + content + spare
            || u64::from(groups) * u64::from(shape.inodes_per_group) < inodes
        {
            continue;
        }
        let least = overhead(&target) + LAST_GROUP_LEAST;
        let before = u64::from(groups - 1) * shape.blocks_per_group;
        let wanted = (own + content + spare).max(before + least) + shape.first_block;
        let mask = (1_u64 << shape.cluster_bits) - 1;
        return Ok(((wanted + mask) & !mask).min(shape.blocks));
    }
    Ok(shape.blocks)
}

/// Blocks in front of `end` that tables of groups from `groups` on take: they are in the way until
/// these groups are gone.
fn guests(core: &Core, groups: u32, end: u64) -> u64 {
    let table = core.shape.table_blocks();
    let leaving = core.groups.iter().skip(groups as usize);
    leaving
        .map(|group| {
            u64::from(group.block_bitmap() < end)
                + u64::from(group.inode_bitmap() < end)
                + end.saturating_sub(group.inode_table()).min(table)
        })
        .sum()
}
