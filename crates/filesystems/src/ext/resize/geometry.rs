//! Superblock and shape of another length.

use disksmith_disk::{Error, Kind, Result};

use crate::ext::core::Core;
use crate::ext::features::{Compat, Incompat};
use crate::ext::layout::Superblock;
use crate::ext::shape::Shape;

/// A last group needs so many blocks besides its own tables, as resize2fs and mke2fs have it.
pub(super) const LAST_GROUP_LEAST: u64 = 50;

/// What the filesystem is to become.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// Sizes and features set; free counts still the old ones.
    pub(crate) sb: Superblock,
    pub(crate) shape: Shape,
}

/// The numbers of a filesystem of (about) `wanted` blocks.
pub(crate) fn target(core: &Core, wanted: u64) -> Result<Target> {
    let shape = &core.shape;
    if !shape.wide() && wanted > u32::MAX.into() {
        return Err(Error::new(
            Kind::Unsupported,
            format!("{wanted} blocks are more than 2^32, which needs the feature 64bit"),
        )
        .with_hint(
            "Ask for a smaller size, or switch 64bit on with 'tune2fs'/'resize2fs -b' first.",
        ));
    }
    let room = core.disk.size() >> shape.block_bits;
    if wanted > room {
        return Err(Error::new(
            Kind::InvalidInput,
            format!("The disk has room for {room} blocks, not for {wanted}"),
        )
        .with_hint("Enlarge the disk or partition first."));
    }
    let blocks = wanted >> shape.cluster_bits << shape.cluster_bits;
    let unchanged = || Ok(Target { sb: core.sb.clone(), shape: *shape });
    let growing = wanted >= shape.blocks;
    if wanted == shape.blocks || growing && blocks <= shape.blocks {
        return unchanged();
    }
    if blocks <= shape.first_block {
        return Err(Error::new(Kind::InvalidInput, "No filesystem is that small"));
    }
    let target = with_blocks(core, blocks)?;
    let rest = (blocks - shape.first_block) % shape.blocks_per_group;
    let same_group = growing && target.shape.groups == shape.groups;
    if rest == 0 || same_group || rest >= overhead(&target) + LAST_GROUP_LEAST {
        return Ok(target);
    }
    if target.shape.groups == 1 {
        return Err(Error::new(Kind::InvalidInput, "No filesystem is that small"));
    }
    match blocks - rest {
        // Between the old length and a useful last group there is nothing.
        less if growing && less <= shape.blocks => unchanged(),
        less => with_blocks(core, less),
    }
}

/// Blocks of the last group that it needs itself.
pub(super) fn overhead(target: &Target) -> u64 {
    let last = target.shape.groups - 1;
    let reserved = u64::from(target.sb.s_reserved_gdt_blocks());
    2 + target.shape.table_blocks() + target.shape.group_base_blocks(last, reserved)
}

pub(super) fn with_blocks(core: &Core, blocks: u64) -> Result<Target> {
    let shape = &core.shape;
    let mut sb = core.sb.clone();
    let groups = (blocks - shape.first_block).div_ceil(shape.blocks_per_group);
    let inodes = groups.checked_mul(shape.inodes_per_group.into());
    let Some(inodes) = inodes.and_then(|inodes| u32::try_from(inodes).ok()) else {
        return Err(Error::new(
            Kind::Unsupported,
            format!(
                "{groups} groups of {} inodes are more than 2^32 inodes",
                shape.inodes_per_group
            ),
        )
        .with_hint("Make a new filesystem with fewer inodes ('disksmith mkfs -i')."));
    };
    let share = sb.reserved_blocks() as f64 / shape.blocks as f64;
    sb.set_reserved_blocks((share * blocks as f64) as u64);
    sb.set_blocks_count(blocks);
    sb.set_s_inodes_count(inodes);
    descriptors(shape, &mut sb, groups);
    if shape.sparse_super2 {
        backups(shape, &mut sb, groups as u32);
    }
    let shape = Shape::new(&sb, core.disk.size())?;
    Ok(Target { sb, shape })
}

/// Where the descriptor table finds room.
fn descriptors(shape: &Shape, sb: &mut Superblock, groups: u64) {
    let (old, new) = (shape.descriptor_blocks(), groups.div_ceil(shape.descriptors_per_block()));
    if shape.meta_bg {
        sb.set_s_first_meta_bg(shape.first_meta_bg.min(new) as u32);
        return;
    }
    let reserved = u64::from(sb.s_reserved_gdt_blocks());
    let resizable = shape.has_compat(Compat::RESIZE_INODE);
    if new > old + reserved {
        sb.set_incompat(Incompat::META_BG, true);
        sb.set_s_first_meta_bg((old + reserved) as u32);
        sb.set_compat(Compat::RESIZE_INODE, false);
        sb.set_s_reserved_gdt_blocks(0);
    } else if resizable {
        let most = shape.block_size as u64 / 4;
        sb.set_s_reserved_gdt_blocks((old + reserved - new).min(most) as u16);
    }
}

/// With sparse_super2: copies that could not be so far are made in new groups; one that is gone
/// moves to the last group.
fn backups(shape: &Shape, sb: &mut Superblock, groups: u32) {
    let [mut first, mut second] = shape.backup_groups;
    if groups > shape.groups {
        if first == 0 && shape.groups == 1 {
            first = 1;
        }
        if second == 0 && groups > 2 {
            second = groups - 1;
        }
    } else {
        first = if first < groups { first } else { 0 };
        second = if second < groups { second } else { 0 };
    }
    sb.set_s_backup_bgs_0(first);
    sb.set_s_backup_bgs_1(second);
}
