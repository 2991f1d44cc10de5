//! Inodes with a purpose of their own: bad blocks, and the blocks kept for growing.

use disksmith_disk::{Result, is_zero};

use super::LARGE_FILE;
use crate::FileKind;
use crate::ext::check::state::Fsck;
use crate::ext::features::Compat;
use crate::ext::layout::inode::flags;
use crate::ext::layout::{Inode, le32};

impl Fsck {
    /// The list of bad blocks: pointers and nothing else. A list that claims what is in use is given
    /// up: disks keep such lists themselves.
    pub(super) fn bad_blocks(&mut self, inode: &mut Inode) -> Result<()> {
        let odd = inode.i_mode() != 0 && inode.kind() != Some(FileKind::Regular)
            || inode.i_links_count() > 1
            || inode.has_flag(flags::EXTENTS)
            || inode.file_acl() != 0;
        let odd = odd || inode.i_mode() != 0 && inode.blocks_raw() == 0;
        if odd && self.problem("The inode of bad blocks is none") {
            inode.raw.fill(0);
            return Ok(());
        }
        let mapped = self.mapping(inode)?;
        let mut fine = true;
        for block in &mapped.tree {
            fine &= self.claim(*block, 1, &|| "the list of bad blocks".into());
        }
        for piece in &mapped.pieces {
            fine &= self.claim(piece.place, piece.length, &|| "the list of bad blocks".into());
        }
        if !fine && self.problem("The list of bad blocks has blocks that are in use") {
            inode.raw.fill(0);
        }
        Ok(())
    }

    /// Its double indirect block; what that points to lies in the groups' reserved blocks.
    pub(super) fn resize_inode(&mut self, inode: &mut Inode) -> Result<()> {
        let shape = self.core.shape;
        if !shape.has_compat(Compat::RESIZE_INODE) {
            if !is_zero(inode.block_area())
                && self.problem("The resize inode is in use without its feature")
            {
                inode.raw.fill(0);
            }
            return Ok(());
        }
        self.large_files |= inode.size() > LARGE_FILE;
        let double = u64::from(inode.block_pointer(13));
        let sound = shape.valid_range(double, 1);
        if sound {
            self.claim(double, 1, &|| "the resize inode".into());
        }
        let odd = (0..15).any(|slot| slot != 13 && inode.block_pointer(slot) != 0)
            || !inode.is_regular()
            || inode.i_links_count() != 1;
        if !sound || odd || !self.reserve_is_right(double) {
            let text = "The resize inode does not point to the reserved blocks";
            self.waiting.resize_inode |= self.problem(text);
            return Ok(());
        }
        let copies = (1..shape.groups).filter(|group| shape.has_super(*group)).count() as u64;
        let blocks = 1 + u64::from(self.core.sb.s_reserved_gdt_blocks()) * (1 + copies);
        let expected = blocks * (shape.block_size as u64 / 512);
        let counted = self.core.sectors(inode);
        if shape.cluster_bits == 0
            && counted != expected
            && self.slip(format!(
                "The resize inode counts {counted} blocks of 512 bytes, it has {expected}"
            ))
        {
            inode.set_flag(flags::HUGE_FILE, false);
            inode.set_blocks_raw(expected);
        }
        Ok(())
    }

    fn reserve_is_right(&self, double: u64) -> bool {
        let shape = self.core.shape;
        let Ok(block) = self.core.block(double) else { return false };
        let pointers = shape.block_size as u64 / 4;
        let (first, old) = (shape.super_block() + 1, shape.descriptor_blocks());
        let copies: Vec<u32> = (1..shape.groups).filter(|group| shape.has_super(*group)).collect();
        let reserved = u64::from(self.core.sb.s_reserved_gdt_blocks());
        let pointed = (0..pointers as usize).filter(|slot| le32(&block, slot * 4) != 0).count();
        if pointed as u64 != reserved {
            return false;
        }
        (0..reserved).all(|index| {
            let slot = ((old + index) % pointers) as usize;
            let primary = first + old + index;
            let Ok(node) = self.core.block(primary) else { return false };
            u64::from(le32(&block, slot * 4)) == primary
                && copies.iter().enumerate().all(|(at, group)| {
                    let copy = u64::from(*group) * shape.blocks_per_group + primary;
                    u64::from(le32(&node, at * 4)) == copy
                })
        })
    }
}
