//! Bitmaps and counts against what was found in use.

use disksmith_disk::Result;

use super::state::Fsck;
use crate::ext::bitmap;
use crate::ext::layout::group::{BLOCK_UNINIT, INODE_UNINIT};

impl Fsck {
    pub(super) fn summaries(&mut self) -> Result<()> {
        let shape = self.core.shape;
        let (mut blocks_free, mut inodes_free) = (0, 0);
        for group in 0..shape.groups {
            blocks_free += self.block_summary(group)?;
            inodes_free += self.inode_summary(group)?;
            self.save_if_much()?;
        }
        let blocks_free = blocks_free << shape.cluster_bits;
        self.report.blocks = shape.blocks.saturating_sub(blocks_free);
        // The kernel brings these two up to date when it unmounts only.
        if self.report.journal {
            return Ok(());
        }
        let counted = self.core.sb.free_blocks();
        if counted != blocks_free
            && self.slip(format!(
                "The superblock counts {counted} free blocks, there are {blocks_free}"
            ))
        {
            self.core.super_mut().set_free_blocks(blocks_free);
        }
        let counted = u64::from(self.core.sb.s_free_inodes_count());
        if counted != inodes_free
            && self.slip(format!(
                "The superblock counts {counted} free inodes, there are {inodes_free}"
            ))
        {
            self.core.super_mut().set_s_free_inodes_count(inodes_free as u32);
        }
        Ok(())
    }

    /// The bits that a group's bitmap should have: a slice of `all` from bit `first` on, and ones
    /// behind `count`.
    fn wanted(all: &[u8], first: u64, count: u64, size: usize) -> Vec<u8> {
        let mut bits = vec![0; size];
        if first.is_multiple_of(8) {
            let from = (first / 8) as usize;
            let bytes = count.div_ceil(8) as usize;
            for (place, byte) in
                bits.iter_mut().zip(all.get(from..).unwrap_or(&[]).iter().take(bytes))
            {
                *place = *byte;
            }
        } else {
            for bit in 0..count {
                bitmap::set(&mut bits, bit, bitmap::get(all, first + bit));
            }
        }
        bitmap::set_range(&mut bits, count, size as u64 * 8 - count, true);
        bits
    }

    /// True where the first `count` bits differ.
    fn differences(one: &[u8], other: &[u8], count: u64) -> usize {
        let whole = (count / 8) as usize;
        let bytes = one.iter().zip(other).take(whole);
        let in_bytes: u32 = bytes.map(|(a, b)| (a ^ b).count_ones()).sum();
        let differs = |bit: &u64| bitmap::get(one, *bit) != bitmap::get(other, *bit);
        in_bytes as usize + (whole as u64 * 8..count).filter(differs).count()
    }

    fn block_summary(&mut self, group: u32) -> Result<u64> {
        let shape = self.core.shape;
        let descriptor = *self.core.group(group)?;
        let clusters = shape.group_clusters(group);
        let first = self.cluster(shape.group_first_block(group));
        let wanted = Self::wanted(&self.used, first, clusters, shape.block_size);
        let mut mend = false;
        match self.core.block_bitmap(group) {
            Err(error) => mend |= self.slip(error.to_string()),
            Ok(bits) => {
                let wrong = Self::differences(&bits, &wanted, clusters);
                if wrong > 0 {
                    mend |= self.slip(format!(
                        "The block bitmap of group {group} is wrong in {wrong} places"
                    ));
                }
                let end = (shape.block_size as u64 * 8).min(shape.clusters_per_group.max(clusters));
                let padded = bitmap::find(&bits, clusters, end, false).is_none();
                if !padded && !descriptor.has_flag(BLOCK_UNINIT) {
                    mend |= self.slip(format!("The block bitmap of group {group} is not padded"));
                }
            }
        }
        if mend && shape.valid_range(descriptor.block_bitmap(), 1) {
            self.core.mark_checked(descriptor.block_bitmap());
            self.core.block_bitmap_mut(group)?.copy_from_slice(&wanted);
        }
        let free = bitmap::count_clear(&wanted, clusters);
        let counted = u64::from(descriptor.free_blocks());
        if counted != free
            && self.slip(format!("Group {group} counts {counted} free blocks, it has {free}"))
        {
            self.core.group_mut(group)?.set_free_blocks(free as u32);
        }
        Ok(free)
    }

    fn inode_summary(&mut self, group: u32) -> Result<u64> {
        let shape = self.core.shape;
        let descriptor = *self.core.group(group)?;
        let count = u64::from(shape.inodes_per_group);
        let start = u64::from(group) * count;
        let wanted = Self::wanted(&self.inodes, start, count, shape.block_size);
        let mut mend = false;
        match self.core.inode_bitmap(group) {
            Err(error) => mend |= self.slip(error.to_string()),
            Ok(bits) => {
                let wrong = Self::differences(&bits, &wanted, count);
                if wrong > 0 {
                    mend |= self.slip(format!(
                        "The inode bitmap of group {group} is wrong in {wrong} places"
                    ));
                }
                if bitmap::find(&bits, count, bits.len() as u64 * 8, false).is_some() {
                    mend |= self.slip(format!("The inode bitmap of group {group} is not padded"));
                }
            }
        }
        if mend && shape.valid_range(descriptor.inode_bitmap(), 1) {
            self.core.mark_checked(descriptor.inode_bitmap());
            let unused = descriptor.itable_unused();
            let uninitialised = descriptor.has_flag(INODE_UNINIT);
            self.core.inode_bitmap_mut(group)?.copy_from_slice(&wanted);
            if !uninitialised {
                self.core.group_mut(group)?.set_itable_unused(unused);
            }
        }
        let free = bitmap::count_clear(&wanted, count);
        let counted = u64::from(descriptor.free_inodes());
        if counted != free
            && self.slip(format!("Group {group} counts {counted} free inodes, it has {free}"))
        {
            self.core.group_mut(group)?.set_free_inodes(free as u32);
        }
        let range = (start + 1) as u32..=(start + count) as u32;
        let folders = self.folders.range(range).count();
        let counted = descriptor.used_dirs() as usize;
        if counted != folders
            && self.slip(format!("Group {group} counts {counted} directories, it has {folders}"))
        {
            self.core.group_mut(group)?.set_used_dirs(folders as u32);
        }
        Ok(free)
    }
}
