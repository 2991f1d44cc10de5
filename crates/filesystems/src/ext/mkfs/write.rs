//! Laying a planned filesystem out on disk.

use std::ops::Range;
use std::sync::Arc;

use disksmith_disk::{Disk, Result, ZeroMode};

use super::MakeOptions;
use super::plan::Plan;
use crate::errors;
use crate::ext::bitmap;
use crate::ext::core::{Core, JOURNAL_INODE, RESIZE_INODE, ROOT};
use crate::ext::features::{Compat, Incompat, RoCompat};
use crate::ext::journal::{Overlay, encode_superblock};
use crate::ext::layout::group::{BLOCK_UNINIT, INODE_UNINIT, INODE_ZEROED};
use crate::ext::layout::inode::{BLOCK_AREA, flags};
use crate::ext::layout::superblock::SUPERBLOCK_SIZE;
use crate::ext::layout::{GroupDescriptor, Inode, put, put32};
use crate::ext::order::Order;

/// `lost+found` is given this many bytes, so that a repair needs no space.
const LOST_BYTES: u64 = 16 * 1024;
/// Inodes that no file has.
const RESERVED_INODES: u32 = 10;

/// Writes everything of an empty filesystem but what [`finish`] does.
pub(super) fn lay_out(disk: Arc<dyn Disk>, options: &MakeOptions, plan: &Plan) -> Result<Core> {
    if disk.read_only() {
        return Err(errors::read_only());
    }
    let mut core = Core::bare(disk, Overlay::default(), false, plan.superblock.clone(), plan.shape);
    core.clock = Some(options.time.unwrap_or_else(crate::Time::now));
    clear_start(&core)?;
    let groups = 0..core.shape.groups;
    core.groups = vec![GroupDescriptor::empty(core.shape.wide()); groups.end as usize];
    place_tables(&mut core, groups.clone(), plan.flex)?;
    let (free, overhead) = initialise_groups(&mut core, groups, options.full_init)?;
    core.sb.set_free_blocks(free << core.shape.cluster_bits);
    core.sb.set_s_overhead_blocks((overhead + core.shape.first_block) as u32);
    core.transaction.superblock = true;
    core.goal = core.shape.first_block;
    reserve_inodes(&mut core)?;
    make_root(&mut core, options)?;
    if plan.orphan_blocks > 0 {
        make_orphan_file(&mut core, plan)?;
    }
    if core.shape.has_compat(Compat::RESIZE_INODE) {
        make_resize_inode(&mut core)?;
    }
    if plan.journal_blocks > 0 {
        add_journal(&mut core, plan.journal_blocks)?;
    }
    if core.shape.has_incompat(Incompat::MMP) {
        return Err(errors::not_supported());
    }
    Ok(core)
}

/// What other formats leave in the first bytes must not be found again.
fn clear_start(core: &Core) -> Result<()> {
    let length = (core.shape.blocks << core.shape.block_bits).min(64 << 10);
    core.disk.write_zeroes(0, length.min(1024), ZeroMode::Keep)
}

/// Chooses where bitmaps and inode tables of `groups` lie: those of a flexible group together.
pub(crate) fn place_tables(core: &mut Core, groups: Range<u32>, flex: u32) -> Result<()> {
    let shape = core.shape;
    let reserved = u64::from(core.sb.s_reserved_gdt_blocks());
    let table = shape.table_blocks();
    let mut first = groups.start;
    while first < groups.end {
        let last = (first / flex).saturating_add(1).saturating_mul(flex).min(groups.end);
        let mut places = Places { core, reserved, at: shape.group_first_block(first) };
        let bitmaps: Vec<u64> = (first..last).map(|_| places.take(1)).collect::<Result<_>>()?;
        let inode_bitmaps: Vec<u64> =
            (first..last).map(|_| places.take(1)).collect::<Result<_>>()?;
        if first == 0 && last == 1 && flex > 1 {
            // mke2fs leaves the room that the bitmaps of a whole flexible group would take.
            places.at = bitmaps[0] + 2 * u64::from(flex);
        }
        let tables: Vec<u64> = (first..last).map(|_| places.take(table)).collect::<Result<_>>()?;
        for (index, group) in (first..last).enumerate() {
            let descriptor = &mut core.groups[group as usize];
            descriptor.set_block_bitmap(bitmaps[index]);
            descriptor.set_inode_bitmap(inode_bitmaps[index]);
            descriptor.set_inode_table(tables[index]);
        }
        first = last;
    }
    Ok(())
}

/// Gives out runs of blocks between the superblock and descriptor copies.
struct Places<'a> {
    core: &'a Core,
    reserved: u64,
    at: u64,
}

impl Places<'_> {
    fn take(&mut self, count: u64) -> Result<u64> {
        let shape = &self.core.shape;
        let mut start = self.at.max(shape.first_block);
        loop {
            if start + count > shape.blocks {
                return Err(errors::no_space());
            }
            let blocking =
                (shape.group_of(start)..=shape.group_of(start + count - 1)).find_map(|group| {
                    let first = shape.group_first_block(group);
                    let end = first + shape.group_base_blocks(group, self.reserved);
                    (start < end && start + count > first && end > first).then_some(end)
                });
            match blocking {
                Some(end) => start = end,
                None => break,
            }
        }
        self.at = start + count;
        Ok(start)
    }
}

/// Bitmaps, counts and flags of new groups; inode tables where they are not left for later.
/// Answers the clusters that are free and those that are not.
pub(crate) fn initialise_groups(
    core: &mut Core,
    groups: Range<u32>,
    full_init: bool,
) -> Result<(u64, u64)> {
    let shape = core.shape;
    let reserved = u64::from(core.sb.s_reserved_gdt_blocks());
    let mut areas_in: Vec<Vec<(u64, u64)>> = vec![Vec::new(); shape.groups as usize];
    for descriptor in &core.groups {
        let table = shape.table_blocks();
        let areas = [
            (descriptor.block_bitmap(), 1),
            (descriptor.inode_bitmap(), 1),
            (descriptor.inode_table(), table),
        ];
        for (start, count) in areas {
            let (mut at, last) = (start, start.saturating_add(count));
            while at < last {
                let group = shape.group_of(at);
                let end = (shape.group_first_block(group) + shape.blocks_per_group).min(last);
                let Some(areas) = areas_in.get_mut(group as usize) else { break };
                areas.push((at, end - at));
                at = end;
            }
        }
    }
    let zero = full_init || !shape.lazy_groups;
    let (mut free_total, mut overhead) = (0, 0);
    for group in groups {
        let clusters = shape.group_clusters(group);
        let mut bits = vec![0; shape.block_size];
        let base = shape.group_base_blocks(group, reserved);
        bitmap::set_range(&mut bits, 0, base.div_ceil(1 << shape.cluster_bits), true);
        for (start, count) in &areas_in[group as usize] {
            let (from, to) = (shape.bit_of(*start), shape.bit_of(start + count - 1));
            bitmap::set_range(&mut bits, from, to - from + 1, true);
        }
        let free = bitmap::count_clear(&bits, clusters);
        free_total += free;
        overhead += clusters - free;
        let mut descriptor = *core.group(group)?;
        descriptor.set_free_blocks(free as u32);
        descriptor.set_free_inodes(shape.inodes_per_group);
        let last = group + 1 == shape.groups;
        let only_base = areas_in[group as usize].is_empty()
            || shape.cluster_bits == 0 && plain(core, group, &areas_in[group as usize]);
        if shape.lazy_groups {
            descriptor.set_flag(INODE_UNINIT, true);
            descriptor.set_itable_unused(shape.inodes_per_group);
            descriptor.set_flag(BLOCK_UNINIT, only_base && !last && group != 0);
        }
        descriptor.set_flag(INODE_ZEROED, shape.lazy_groups && zero);
        let table = descriptor.inode_table() << shape.block_bits;
        *core.group_mut(group)? = descriptor;
        if !descriptor.has_flag(BLOCK_UNINIT) {
            bitmap::set_range(&mut bits, clusters, shape.block_size as u64 * 8 - clusters, true);
            core.mark_checked(descriptor.block_bitmap());
            core.fresh(descriptor.block_bitmap())?.copy_from_slice(&bits);
        }
        if !shape.lazy_groups {
            let end = u64::from(shape.inodes_per_group);
            core.mark_checked(descriptor.inode_bitmap());
            let block = core.fresh(descriptor.inode_bitmap())?;
            let size = block.len() as u64 * 8;
            bitmap::set_range(block, end, size - end, true);
        }
        if zero {
            let length = shape.table_blocks() << shape.block_bits;
            core.disk.write_zeroes(table, length, ZeroMode::Unmap)?;
        }
        if core.transaction.dirty.len() > 8192 {
            core.flush_new()?;
        }
    }
    Ok((free_total, overhead))
}

/// True when the only tables in the group are its own.
fn plain(core: &Core, group: u32, areas: &[(u64, u64)]) -> bool {
    core.groups.get(group as usize).is_some_and(|own| {
        areas.len() == 3
            && [own.block_bitmap(), own.inode_bitmap(), own.inode_table()]
                .iter()
                .all(|start| areas.iter().any(|(at, _)| at == start))
    })
}

fn reserve_inodes(core: &mut Core) -> Result<()> {
    for number in 1..=RESERVED_INODES {
        let (group, index) = core.shape.inode_place(number);
        core.take_inode(group, index, number == ROOT)?;
    }
    Ok(())
}

fn make_root(core: &mut Core, options: &MakeOptions) -> Result<()> {
    let mut root = core.blank_inode(ROOT, 0o040_755);
    root.set_i_links_count(3);
    root.set_uid(options.root_owner.0);
    root.set_gid(options.root_owner.1);
    core.put_inode(&root)?;
    let number = core.allocate_inode(ROOT, true)?;
    let mut lost = core.blank_inode(number, 0o040_700);
    lost.set_i_links_count(2);
    let size = core.shape.block_size as u64;
    let blocks = (LOST_BYTES / size).clamp(2, 12);
    core.build_directory(&mut lost, ROOT, &[], blocks)?;
    core.put_inode(&lost)
}

/// The root directory of an empty filesystem.
pub(super) fn write_root(core: &mut Core) -> Result<()> {
    let mut root = core.inode(ROOT)?;
    core.start_directory(&mut root, ROOT)?;
    let lost = core.shape.first_inode;
    core.add_entry(&mut root, b"lost+found", lost, crate::FileKind::Directory)?;
    core.put_inode(&root)
}

fn make_orphan_file(core: &mut Core, plan: &Plan) -> Result<()> {
    let number = core.allocate_inode(ROOT, false)?;
    let mut file = core.blank_inode(number, 0o100_600);
    file.set_i_links_count(1);
    core.put_inode(&file)?;
    let mut done = 0;
    while done < plan.orphan_blocks {
        let run = core.allocate_mapped(&mut file, done, plan.orphan_blocks - done, false)?;
        let place = run.place.ok_or_else(errors::no_space)?;
        for block in place..place + run.length {
            core.write_orphan_block(&file, block)?;
        }
        done += run.length;
    }
    file.set_size(plan.orphan_blocks << core.shape.block_bits);
    core.put_inode(&file)?;
    core.sb.set_s_orphan_file_inum(number);
    Ok(())
}

/// The inode that owns the reserved descriptor blocks: its double indirect block points to those of
/// the first group, each of which points to its copies in the other groups.
pub(crate) fn make_resize_inode(core: &mut Core) -> Result<()> {
    let shape = core.shape;
    let mut inode = core.blank_inode(RESIZE_INODE, 0o100_600);
    inode.set_flag(flags::EXTENTS, false);
    inode.set_block_area(&[]);
    inode.set_i_links_count(1);
    let pointers = (shape.block_size / 4) as u64;
    inode.set_size((12 + pointers + pointers * pointers) << shape.block_bits);
    let double = core.allocate_metadata(0)?;
    inode.set_block_pointer(13, double as u32);
    point_to_reserved(core, &mut inode, double)
}

/// Fills the resize inode's double indirect block and what hangs on it, and stores the inode.
pub(crate) fn point_to_reserved(core: &mut Core, inode: &mut Inode, double: u64) -> Result<()> {
    let shape = core.shape;
    let reserved = u64::from(core.sb.s_reserved_gdt_blocks());
    let pointers = (shape.block_size / 4) as u64;
    // The double indirect block is there even when nothing is reserved.
    let mut used = 1;
    core.fresh(double)?;
    if reserved > 0 {
        let first = shape.super_block() + 1;
        let old = shape.descriptor_blocks();
        let backups: Vec<u32> = (1..shape.groups).filter(|group| shape.has_super(*group)).collect();
        for index in 0..reserved {
            let primary = first + old + index;
            let slot = ((old + index) % pointers) as usize;
            put32(core.modify(double)?, slot * 4, primary as u32);
            let block = core.fresh(primary)?;
            for (position, group) in backups.iter().enumerate() {
                let copy = u64::from(*group) * shape.blocks_per_group + primary;
                put32(block, position * 4, copy as u32);
            }
            used += 1 + backups.len() as u64;
        }
    }
    inode.set_blocks_raw(0);
    core.add_sectors(inode, used << shape.cluster_bits, true)?;
    core.put_inode(inode)
}

/// Makes the journal's inode and an empty log.
pub(crate) fn add_journal(core: &mut Core, blocks: u32) -> Result<()> {
    let shape = core.shape;
    let mut inode: Inode = core.blank_inode(JOURNAL_INODE, 0o100_600);
    inode.set_i_links_count(1);
    core.put_inode(&inode)?;
    // In the middle, where the way to everything is shortest.
    let middle = shape.group_first_block(shape.group_of(shape.blocks / 2));
    let before = std::mem::replace(&mut core.goal, middle.max(1));
    let mut done = 0;
    let mut first = None;
    while done < blocks {
        let run = core.allocate_mapped(&mut inode, done.into(), (blocks - done).into(), false)?;
        let place = run.place.ok_or_else(errors::no_space)?;
        first.get_or_insert(place);
        core.disk.write_zeroes(
            place << shape.block_bits,
            run.length << shape.block_bits,
            ZeroMode::Unmap,
        )?;
        done += run.length as u32;
    }
    core.goal = before;
    let raw = encode_superblock(shape.block_size, blocks, 0, &core.sb.uuid());
    core.disk.write_at(&raw, first.unwrap_or(0) << shape.block_bits)?;
    inode.set_size(u64::from(blocks) << shape.block_bits);
    core.put_inode(&inode)?;
    let area: [u8; BLOCK_AREA] = inode.block_area().try_into().unwrap_or([0; BLOCK_AREA]);
    let sb = core.super_mut();
    sb.set_s_journal_inum(JOURNAL_INODE);
    sb.set_journal_backup(&area, u64::from(blocks) << shape.block_bits);
    if sb.s_overhead_blocks() > 0 {
        let overhead = sb.s_overhead_blocks() + (blocks >> shape.cluster_bits);
        sb.set_s_overhead_blocks(overhead);
    }
    Ok(())
}

/// Writes what is still in memory, and the copies of superblock and descriptors.
pub(super) fn finish(core: &mut Core, plan: &Plan) -> Result<()> {
    let _ = plan;
    if core.inode(ROOT)?.size() == 0 {
        write_root(core)?;
    }
    core.transaction.superblock = true;
    core.write_back_groups()?;
    core.flush_new()?;
    write_backups(core)?;
    core.disk.flush()
}

/// Writes superblock and descriptor table into the groups that have copies.
pub(crate) fn write_backups(core: &Core) -> Result<()> {
    let shape = core.shape;
    let mut table = vec![0; (shape.descriptor_blocks() as usize) << shape.block_bits];
    let used = shape.descriptor_size.min(64);
    for (group, descriptor) in core.groups.iter().enumerate() {
        put(&mut table, group * shape.descriptor_size, &descriptor.raw[..used]);
    }
    for group in 1..shape.groups {
        let first = shape.group_first_block(group);
        if shape.has_super(group) {
            let mut sb = core.sb.clone();
            sb.set_s_block_group_nr(group.min(0xffff) as u16);
            if sb.has_ro(RoCompat::METADATA_CSUM) {
                let sum = crate::ext::checksum::crc32c(!0, &sb.raw[..SUPERBLOCK_SIZE - 4]);
                sb.set_s_checksum(sum);
            }
            core.disk.write_at(&sb.raw, first << shape.block_bits)?;
            let whole = if shape.meta_bg { shape.first_meta_bg } else { u64::MAX };
            let whole = (whole.min(shape.descriptor_blocks()) as usize) << shape.block_bits;
            if whole > 0 && u64::from(group) / shape.descriptors_per_block() < shape.first_meta_bg
                || !shape.meta_bg
            {
                core.disk.write_at(&table[..whole], (first + 1) << shape.block_bits)?;
            }
        }
    }
    if shape.meta_bg {
        write_meta_backups(core, &table)?;
    }
    Ok(())
}

/// With meta_bg each block of the table has copies in the second and the last of its groups.
fn write_meta_backups(core: &Core, table: &[u8]) -> Result<()> {
    let shape = core.shape;
    let per_block = shape.descriptors_per_block() as u32;
    let skipped = shape.first_meta_bg as usize;
    for (index, bytes) in table.chunks_exact(shape.block_size).enumerate().skip(skipped) {
        let first = index as u32 * per_block;
        for group in [first + 1, first + per_block - 1] {
            if group < shape.groups && group != first {
                let block = shape.group_first_block(group) + u64::from(shape.has_super(group));
                core.disk.write_at(bytes, block << shape.block_bits)?;
            }
        }
    }
    Ok(())
}

impl Core {
    /// Writes all changed blocks in place; for a filesystem that nobody uses yet.
    pub(crate) fn flush_new(&mut self) -> Result<()> {
        let dirty: Vec<u64> = std::mem::take(&mut self.transaction.dirty).into_iter().collect();
        self.transaction.order = Order::default();
        self.transaction.freed.clear();
        self.write_blocks(&dirty)
    }
}
