//! Giving out and taking back blocks and inodes.

use disksmith_disk::Result;

use super::bitmap;
use super::cache::Block;
use super::checksum::crc32c;
use super::core::{Core, corrupt};
use super::layout::Inode;
use super::layout::group::{BLOCK_UNINIT, INODE_UNINIT};
use crate::errors;

/// Groups looked at for one long run before any free block will do.
const GROUPS_TRIED: u32 = 32;
/// A run of this many clusters is long enough.
const RUN_ENOUGH: u64 = 2048;

impl Core {
    // ---- bitmaps ---------------------------------------------------------------------------

    /// The block bitmap of a group; made up when the group is uninitialised.
    pub(crate) fn block_bitmap(&self, group: u32) -> Result<Block> {
        let descriptor = *self.group(group)?;
        if self.shape.lazy_groups && descriptor.has_flag(BLOCK_UNINIT) {
            return Ok(std::sync::Arc::new(self.initial_block_bitmap(group)?));
        }
        let number = descriptor.block_bitmap();
        let bits = self.block(number)?;
        if self.bitmap_is_unchecked(number) {
            let sum = self.block_bitmap_sum(&bits);
            self.check_bitmap(number, sum == descriptor.block_bitmap_csum(), "block", group)?;
        }
        Ok(bits)
    }

    /// The inode bitmap of a group; empty when the group is uninitialised.
    pub(crate) fn inode_bitmap(&self, group: u32) -> Result<Block> {
        let descriptor = *self.group(group)?;
        if self.shape.lazy_groups && descriptor.has_flag(INODE_UNINIT) {
            return Ok(std::sync::Arc::new(self.initial_inode_bitmap()));
        }
        let number = descriptor.inode_bitmap();
        let bits = self.block(number)?;
        if self.bitmap_is_unchecked(number) {
            let sum = self.inode_bitmap_sum(&bits);
            self.check_bitmap(number, sum == descriptor.inode_bitmap_csum(), "inode", group)?;
        }
        Ok(bits)
    }

    /// True once per bitmap: what was changed here later has no checksum until the commit.
    fn bitmap_is_unchecked(&self, number: u64) -> bool {
        let mut checked =
            self.checked_bitmaps.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        self.shape.checksums && checked.insert(number)
    }

    fn check_bitmap(&self, number: u64, right: bool, what: &str, group: u32) -> Result<()> {
        if right {
            return Ok(());
        }
        self.checked_bitmaps
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .remove(&number);
        Err(corrupt(format!("the {what} bitmap of group {group} has a wrong checksum")))
    }

    /// A bitmap that was made here needs no check.
    pub(crate) fn mark_checked(&self, number: u64) {
        self.checked_bitmaps
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .insert(number);
    }

    fn initial_block_bitmap(&self, group: u32) -> Result<Vec<u8>> {
        let shape = &self.shape;
        let mut bits = vec![0; shape.block_size];
        let descriptor = self.group(group)?;
        let first = shape.group_first_block(group);
        let base = shape.group_base_blocks(group, self.sb.s_reserved_gdt_blocks().into());
        let per_cluster = 1 << shape.cluster_bits;
        bitmap::set_range(&mut bits, 0, base.div_ceil(per_cluster), true);
        let tables = [
            (descriptor.block_bitmap(), 1),
            (descriptor.inode_bitmap(), 1),
            (descriptor.inode_table(), shape.table_blocks()),
        ];
        for (start, count) in tables {
            for block in start..start.saturating_add(count) {
                if block >= first && shape.group_of(block) == group {
                    bitmap::set(&mut bits, shape.bit_of(block), true);
                }
            }
        }
        let end = shape.group_clusters(group);
        bitmap::set_range(&mut bits, end, shape.block_size as u64 * 8 - end, true);
        Ok(bits)
    }

    fn initial_inode_bitmap(&self) -> Vec<u8> {
        let mut bits = vec![0; self.shape.block_size];
        let end = u64::from(self.shape.inodes_per_group);
        bitmap::set_range(&mut bits, end, self.shape.block_size as u64 * 8 - end, true);
        bits
    }

    pub(crate) fn block_bitmap_mut(&mut self, group: u32) -> Result<&mut Vec<u8>> {
        let bits = self.block_bitmap(group)?;
        let descriptor = self.group_mut(group)?;
        let number = descriptor.block_bitmap();
        if descriptor.has_flag(BLOCK_UNINIT) {
            descriptor.set_flag(BLOCK_UNINIT, false);
            self.mark_checked(number);
            let block = self.fresh(number)?;
            block.copy_from_slice(&bits);
            return Ok(block);
        }
        drop(bits);
        self.modify(number)
    }

    pub(crate) fn inode_bitmap_mut(&mut self, group: u32) -> Result<&mut Vec<u8>> {
        let bits = self.inode_bitmap(group)?;
        let lazy = self.shape.lazy_groups;
        let per_group = self.shape.inodes_per_group;
        let descriptor = self.group_mut(group)?;
        let number = descriptor.inode_bitmap();
        if lazy && descriptor.has_flag(INODE_UNINIT) {
            descriptor.set_flag(INODE_UNINIT, false);
            descriptor.set_itable_unused(per_group);
            if descriptor.has_flag(BLOCK_UNINIT) {
                self.block_bitmap_mut(group)?;
            }
            self.mark_checked(number);
            let block = self.fresh(number)?;
            block.copy_from_slice(&bits);
            return Ok(block);
        }
        drop(bits);
        self.modify(number)
    }

    pub(crate) fn block_bitmap_sum(&self, bits: &[u8]) -> u32 {
        let covered = (self.shape.clusters_per_group / 8) as usize;
        self.bitmap_sum(bits.get(..covered).unwrap_or(bits))
    }

    pub(crate) fn inode_bitmap_sum(&self, bits: &[u8]) -> u32 {
        let covered = (self.shape.inodes_per_group / 8) as usize;
        self.bitmap_sum(bits.get(..covered).unwrap_or(bits))
    }

    fn bitmap_sum(&self, bits: &[u8]) -> u32 {
        let sum = crc32c(self.shape.seed, bits);
        if self.shape.wide() { sum } else { sum & 0xffff }
    }

    /// Stores the checksums of a changed group's bitmaps in its descriptor.
    pub(crate) fn refresh_bitmap_checksums(&mut self, group: u32) -> Result<()> {
        if !self.shape.checksums {
            return Ok(());
        }
        let mut descriptor = *self.group(group)?;
        if !descriptor.has_flag(BLOCK_UNINIT)
            && let Some(bits) = self.cached(descriptor.block_bitmap())
        {
            descriptor.set_block_bitmap_csum(self.block_bitmap_sum(&bits));
        }
        if !descriptor.has_flag(INODE_UNINIT)
            && let Some(bits) = self.cached(descriptor.inode_bitmap())
        {
            descriptor.set_inode_bitmap_csum(self.inode_bitmap_sum(&bits));
        }
        if let Some(place) = self.groups.get_mut(group as usize) {
            *place = descriptor;
        }
        Ok(())
    }

    // ---- blocks ----------------------------------------------------------------------------

    /// Takes up to `want` free blocks in one run, best at `goal`; whole clusters.
    pub(crate) fn allocate_blocks(&mut self, goal: u64, want: u64) -> Result<(u64, u64)> {
        let shape = self.shape;
        let goal = if goal == 0 { self.goal } else { goal };
        let goal = if shape.valid_range(goal, 1) { goal } else { shape.first_block };
        let clusters = want.div_ceil(1 << shape.cluster_bits).max(1);
        let (group, bit, count) = self.find_run(goal, clusters)?.ok_or_else(errors::no_space)?;
        bitmap::set_range(self.block_bitmap_mut(group)?, bit, count, true);
        let descriptor = self.group_mut(group)?;
        let free = u64::from(descriptor.free_blocks());
        let left = free.checked_sub(count).ok_or_else(|| {
            corrupt(format!("group {group} has more free blocks than its descriptor says"))
        })?;
        descriptor.set_free_blocks(left as u32);
        let blocks = count << shape.cluster_bits;
        let free = self.sb.free_blocks().saturating_sub(blocks);
        self.super_mut().set_free_blocks(free);
        let start = shape.group_first_block(group) + (bit << shape.cluster_bits);
        self.goal = start + blocks;
        Ok((start, blocks))
    }

    /// Group, first bit and length of a run of free clusters.
    fn find_run(&self, goal: u64, want: u64) -> Result<Option<(u32, u64, u64)>> {
        let shape = &self.shape;
        let first = shape.group_of(goal);
        let enough = want.min(RUN_ENOUGH);
        let mut best: Option<(u32, u64, u64)> = None;
        for step in 0..=shape.groups {
            let group = (first + step) % shape.groups;
            if self.group(group)?.free_blocks() == 0 {
                continue;
            }
            let from = if step == 0 { shape.bit_of(goal) } else { 0 };
            let end =
                if step == shape.groups { shape.bit_of(goal) } else { shape.group_clusters(group) };
            let room = self.limit.saturating_sub(shape.group_first_block(group));
            let end = end.min(room >> shape.cluster_bits);
            let bits = self.usable_bits(group)?;
            let mut at = from;
            while let Some(start) = bitmap::find(&bits, at, end, false) {
                let limit = end.min(start + want);
                let stop = bitmap::find(&bits, start, limit, true).unwrap_or(limit);
                let length = stop - start;
                if length >= enough || step == 0 && start == from {
                    return Ok(Some((group, start, length)));
                }
                if best.is_none_or(|(_, _, most)| length > most) {
                    best = Some((group, start, length));
                }
                at = stop + 1;
            }
            if best.is_some() && step >= GROUPS_TRIED {
                break;
            }
        }
        Ok(best)
    }

    /// The group's bitmap with what was freed and not committed still taken.
    fn usable_bits(&self, group: u32) -> Result<Block> {
        let mut bits = self.block_bitmap(group)?;
        let flight = self.in_flight.as_ref().and_then(|flight| flight.freed.get(&group));
        for freed in self.transaction.freed.get(&group).into_iter().chain(flight) {
            let own = std::sync::Arc::make_mut(&mut bits);
            own.iter_mut().zip(freed).for_each(|(bit, freed)| *bit |= freed);
        }
        Ok(bits)
    }

    /// Gives back blocks; with bigalloc the clusters that they lie in.
    pub(crate) fn free_blocks(&mut self, start: u64, count: u64) -> Result<()> {
        let shape = self.shape;
        if count == 0 {
            return Ok(());
        }
        let mask = (1 << shape.cluster_bits) - 1;
        let end = start.checked_add(count).map(|end| (end + mask) & !mask);
        let mut at = start & !mask;
        let end = end.filter(|end| *end <= (shape.blocks + mask) & !mask).ok_or_else(|| {
            corrupt(format!("blocks {start}+{count} lie outside of the filesystem"))
        })?;
        if at < shape.first_block {
            return Err(corrupt(format!("block {start} cannot be freed")));
        }
        while at < end {
            let group = shape.group_of(at);
            let group_end = shape.group_first_block(group) + shape.blocks_per_group;
            let stop = end.min(group_end);
            let (bit, bits) = (shape.bit_of(at), (stop - at).div_ceil(mask + 1));
            let map = self.block_bitmap_mut(group)?;
            if bitmap::find(map, bit, bit + bits, false).is_some() {
                return Err(corrupt(format!("block {at} is freed twice")));
            }
            bitmap::set_range(map, bit, bits, false);
            self.note_freed(at, stop - at);
            let descriptor = self.group_mut(group)?;
            descriptor.set_free_blocks(descriptor.free_blocks().saturating_add(bits as u32));
            let free = self.sb.free_blocks() + (bits << shape.cluster_bits);
            self.super_mut().set_free_blocks(free);
            at = stop;
        }
        self.forget_content(start, count);
        Ok(())
    }

    /// File content of these blocks that waits in memory is of no interest any more.
    pub(crate) fn forget_content(&mut self, start: u64, count: u64) {
        if self.content.is_empty() {
            return;
        }
        for block in start..start + count {
            if self.content.contains(&block) {
                self.forget(block);
            }
        }
    }

    /// One block for metadata.
    pub(crate) fn allocate_metadata(&mut self, goal: u64) -> Result<u64> {
        Ok(self.allocate_blocks(goal, 1)?.0)
    }

    /// Gives back a block that held metadata.
    pub(crate) fn free_metadata(&mut self, block: u64) -> Result<()> {
        self.free_blocks(block, 1)?;
        self.forget(block);
        Ok(())
    }

    /// True when a commit would let freed space be used.
    pub(crate) fn has_pending_space(&self) -> bool {
        !self.transaction.freed.is_empty()
            || self.transaction.order.has_unnamed()
            || self.in_flight.as_ref().is_some_and(|flight| !flight.freed.is_empty())
    }

    // ---- inodes ----------------------------------------------------------------------------

    /// Takes a free inode near `parent`.
    pub(crate) fn allocate_inode(&mut self, parent: u32, directory: bool) -> Result<u32> {
        let shape = self.shape;
        let (near, _) = shape.inode_place(parent);
        for step in 0..shape.groups {
            let group = (near + step) % shape.groups;
            let descriptor = self.group(group)?;
            if descriptor.free_inodes() == 0 || shape.group_first_block(group) >= self.limit {
                continue;
            }
            if let Some(index) = self.find_inode(group)? {
                return self.take_inode(group, index, directory);
            }
        }
        Err(errors::no_space())
    }

    /// A free inode of a group; not one that directories on the disk still name.
    fn find_inode(&self, group: u32) -> Result<Option<u32>> {
        let shape = self.shape;
        let bits = self.inode_bitmap(group)?;
        let mut from = if group == 0 { u64::from(shape.first_inode) - 1 } else { 0 };
        let end = u64::from(shape.inodes_per_group);
        while let Some(index) = bitmap::find(&bits, from, end, false) {
            let number = group * shape.inodes_per_group + index as u32 + 1;
            if !self.transaction.order.is_unnamed(number) {
                return Ok(Some(index as u32));
            }
            from = index + 1;
        }
        Ok(None)
    }

    /// Marks an inode as used.
    pub(crate) fn take_inode(&mut self, group: u32, index: u32, directory: bool) -> Result<u32> {
        let shape = self.shape;
        bitmap::set(self.inode_bitmap_mut(group)?, index.into(), true);
        let descriptor = self.group_mut(group)?;
        descriptor.set_free_inodes(descriptor.free_inodes().saturating_sub(1));
        if directory {
            descriptor.set_used_dirs(descriptor.used_dirs() + 1);
        }
        if shape.lazy_groups {
            let used = shape.inodes_per_group.saturating_sub(descriptor.itable_unused());
            let per_block = shape.inodes_per_block();
            let table = descriptor.inode_table();
            if index >= used {
                descriptor.set_itable_unused(shape.inodes_per_group - index - 1);
                // Table blocks not used so far hold anything.
                let first = used.div_ceil(per_block);
                for block in first..=index / per_block {
                    self.fresh(table + u64::from(block))?;
                }
            }
        }
        let free = self.sb.s_free_inodes_count().saturating_sub(1);
        self.super_mut().set_s_free_inodes_count(free);
        Ok(group * shape.inodes_per_group + index + 1)
    }

    /// True when the bitmap says that the inode is in use.
    pub(crate) fn inode_is_used(&self, number: u32) -> Result<bool> {
        let (group, index) = self.shape.inode_place(number);
        Ok(bitmap::get(&self.inode_bitmap(group)?, index.into()))
    }

    /// Marks an inode as free.
    pub(crate) fn free_inode(&mut self, inode: &Inode, directory: bool) -> Result<()> {
        let (group, index) = self.shape.inode_place(inode.number);
        bitmap::set(self.inode_bitmap_mut(group)?, index.into(), false);
        let descriptor = self.group_mut(group)?;
        descriptor.set_free_inodes(descriptor.free_inodes() + 1);
        if directory {
            descriptor.set_used_dirs(descriptor.used_dirs().saturating_sub(1));
        }
        let free = self.sb.s_free_inodes_count().saturating_add(1);
        self.super_mut().set_s_free_inodes_count(free);
        Ok(())
    }
}
