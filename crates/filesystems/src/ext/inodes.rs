//! Inodes in their tables, and the checksums that they seed.

use disksmith_disk::Result;

use super::checksum::crc32c;
use super::core::{Core, corrupt};
use super::layout::group::INODE_UNINIT;
use super::layout::{Inode, put32};
use super::shape::Shape;
use crate::errors;

impl Core {
    /// Block and byte in it where the inode lies.
    pub(crate) fn inode_place(&self, number: u32) -> Result<(u64, usize)> {
        if number == 0 || number > self.shape.inodes {
            return Err(errors::stale());
        }
        let (group, index) = self.shape.inode_place(number);
        let per_block = self.shape.inodes_per_block();
        let block = self.group(group)?.inode_table() + u64::from(index / per_block);
        Ok((block, (index % per_block) as usize * self.shape.inode_size))
    }

    /// Reads an inode; its checksum is verified.
    pub(crate) fn inode(&self, number: u32) -> Result<Inode> {
        let inode = self.inode_unchecked(number)?;
        if self.shape.checksums && inode.checksum() != self.inode_checksum(&inode) {
            return Err(corrupt(format!("inode {number} has a wrong checksum")));
        }
        Ok(inode)
    }

    pub(crate) fn inode_unchecked(&self, number: u32) -> Result<Inode> {
        let (block, at) = self.inode_place(number)?;
        let bytes = self.block(block)?;
        let raw = bytes.get(at..at + self.shape.inode_size).unwrap_or(&[]).to_vec();
        Ok(Inode { number, raw })
    }

    /// An inode that is in use.
    pub(crate) fn live_inode(&self, number: u64) -> Result<Inode> {
        let number = u32::try_from(number).map_err(|_| errors::stale())?;
        let inode = self.inode(number)?;
        if inode.i_mode() == 0 || inode.i_links_count() == 0 && !self.is_held(number) {
            return Err(errors::stale());
        }
        Ok(inode)
    }

    /// Stores an inode with its checksum.
    pub(crate) fn put_inode(&mut self, inode: &Inode) -> Result<()> {
        let (block, at) = self.inode_place(inode.number)?;
        let mut raw = inode.raw.clone();
        if self.shape.checksums {
            let mut sealed = inode.clone();
            sealed.set_checksum(self.inode_checksum(inode));
            raw = sealed.raw;
        }
        let bytes = if self.table_block_is_fresh(inode.number)? {
            self.fresh(block)?
        } else {
            self.modify(block)?
        };
        super::layout::put(bytes, at, &raw);
        Ok(())
    }

    /// True for a block of the inode table that was never used: what is on disk is no inode.
    fn table_block_is_fresh(&self, number: u32) -> Result<bool> {
        let (group, index) = self.shape.inode_place(number);
        let descriptor = self.group(group)?;
        if !self.shape.lazy_groups {
            return Ok(false);
        }
        let used = if descriptor.has_flag(INODE_UNINIT) {
            0
        } else {
            self.shape.inodes_per_group.saturating_sub(descriptor.itable_unused())
        };
        let per_block = self.shape.inodes_per_block();
        Ok(index / per_block * per_block >= used)
    }

    /// The start value of checksums of everything that belongs to an inode.
    pub(crate) fn inode_seed(&self, inode: &Inode) -> u32 {
        let seed = crc32c(self.shape.seed, &inode.number.to_le_bytes());
        crc32c(seed, &inode.i_generation().to_le_bytes())
    }

    pub(crate) fn inode_checksum(&self, inode: &Inode) -> u32 {
        let mut bytes = inode.raw.clone();
        super::layout::put16(&mut bytes, 0x7C, 0);
        let has_high = inode.reaches(0x84);
        if has_high {
            super::layout::put16(&mut bytes, 0x82, 0);
        }
        let sum = crc32c(self.inode_seed(inode), &bytes);
        if has_high { sum } else { sum & 0xffff }
    }

    /// Checks or makes the checksum over `block[..at]`, stored at `at`, seeded by the inode.
    pub(crate) fn tail_is_right(&self, inode: &Inode, block: &[u8], at: usize) -> bool {
        !self.shape.checksums
            || block.get(..at).is_some_and(|body| {
                crc32c(self.inode_seed(inode), body) == super::layout::le32(block, at)
            })
    }

    /// Stores the checksum of `block[..covered]` at `at`.
    pub(crate) fn seal(shape: &Shape, seed: u32, block: &mut [u8], covered: usize, at: usize) {
        if shape.checksums {
            let sum = block.get(..covered).map_or(0, |body| crc32c(seed, body));
            put32(block, at, sum);
        }
    }
}
