//! Orphans: inodes without names that are still in use, and files that are being cut. They are
//! listed on disk, so that whoever opens the filesystem after a crash can finish the work.

use disksmith_disk::Result;

use super::core::{Core, corrupt};
use super::features::{Compat, RoCompat};
use super::layout::{Inode, le32, put32};

/// `ob_magic`, in the last eight bytes of the orphan file's blocks, before the checksum.
const FILE_MAGIC: u32 = 0x0B10_CA04;
const FILE_TAIL: usize = 8;

impl Core {
    /// Puts an inode at the head of the list; stores it.
    pub(crate) fn add_orphan(&mut self, inode: &mut Inode) -> Result<()> {
        inode.set_i_dtime(self.sb.s_last_orphan());
        let number = inode.number;
        self.super_mut().set_s_last_orphan(number);
        self.put_inode(inode)
    }

    /// Takes an inode off the list; the inode is changed but not stored.
    pub(crate) fn remove_orphan(&mut self, inode: &mut Inode) -> Result<()> {
        let next = inode.i_dtime();
        inode.set_i_dtime(0);
        if self.sb.s_last_orphan() == inode.number {
            self.super_mut().set_s_last_orphan(next);
            return Ok(());
        }
        let mut at = self.sb.s_last_orphan();
        for _ in 0..self.shape.inodes {
            if at == 0 {
                return Ok(());
            }
            let mut before = self.inode(at)?;
            at = before.i_dtime();
            if at == inode.number {
                before.set_i_dtime(next);
                return self.put_inode(&before);
            }
        }
        Err(corrupt("the orphan list is a loop"))
    }

    /// Finishes what a crash interrupted.
    pub(crate) fn process_orphans(&mut self) -> Result<()> {
        let mut count: u64 = 0;
        while self.sb.s_last_orphan() != 0 {
            let number = self.sb.s_last_orphan();
            count += 1;
            if number < self.shape.first_inode || count > self.shape.inodes.into() {
                return Err(corrupt("the orphan list is bad"));
            }
            let mut inode = self.inode(number)?;
            let next = inode.i_dtime();
            inode.set_i_dtime(0);
            self.super_mut().set_s_last_orphan(next);
            self.finish_orphan(&mut inode)?;
            if count.is_multiple_of(64) {
                self.commit()?;
            }
        }
        self.process_orphan_file()?;
        if count > 0 {
            self.commit()?;
        }
        Ok(())
    }

    fn finish_orphan(&mut self, inode: &mut Inode) -> Result<()> {
        if inode.i_links_count() == 0 {
            return self.destroy_inode(inode);
        }
        if self.has_mapping(inode) {
            let from = inode.size().div_ceil(self.shape.block_size as u64);
            let end = self.mapped_end(inode)?;
            self.unmap(inode, from, end)?;
        }
        self.put_inode(inode)
    }

    fn process_orphan_file(&mut self) -> Result<()> {
        if !self.sb.has_compat(Compat::ORPHAN_FILE) || !self.sb.has_ro(RoCompat::ORPHAN_PRESENT) {
            return Ok(());
        }
        let file = self.inode(self.sb.s_orphan_file_inum())?;
        let blocks = file.size() >> self.shape.block_bits;
        for run in self.mapped_runs(&file, blocks)? {
            let Some(place) = run.data() else { continue };
            for number in place..place + run.length {
                self.process_orphan_block(&file, number)?;
            }
        }
        self.super_mut().set_ro(RoCompat::ORPHAN_PRESENT, false);
        self.commit()
    }

    /// The inodes that the orphan file names.
    pub(crate) fn orphans_in_file(&self, number: u32) -> Result<Vec<u32>> {
        let file = self.inode(number)?;
        let mut orphans = Vec::new();
        for run in self.mapped_runs(&file, file.size() >> self.shape.block_bits)? {
            let Some(place) = run.data() else { continue };
            for number in place..place + run.length {
                let block = self.block(number)?;
                let end = block.len() - FILE_TAIL;
                if le32(&block, end) != FILE_MAGIC {
                    return Err(corrupt("a block of the orphan file is bad"));
                }
                let entries = (0..end).step_by(4).map(|slot| le32(&block, slot));
                orphans.extend(entries.filter(|orphan| *orphan != 0));
            }
        }
        Ok(orphans)
    }

    /// Makes all blocks of the orphan file empty ones.
    pub(crate) fn empty_orphan_file(&mut self) -> Result<()> {
        let file = self.inode(self.sb.s_orphan_file_inum())?;
        for run in self.mapped_runs(&file, file.size() >> self.shape.block_bits)? {
            let Some(place) = run.data() else { continue };
            for number in place..place + run.length {
                self.write_orphan_block(&file, number)?;
            }
        }
        Ok(())
    }

    fn process_orphan_block(&mut self, file: &Inode, number: u64) -> Result<()> {
        let block = self.block(number)?;
        let end = block.len() - FILE_TAIL;
        if le32(&block, end) != FILE_MAGIC {
            return Err(corrupt("a block of the orphan file is bad"));
        }
        for slot in (0..end).step_by(4) {
            let orphan = le32(&block, slot);
            if orphan == 0 {
                continue;
            }
            let mut inode = self.inode(orphan)?;
            self.finish_orphan(&mut inode)?;
            put32(self.modify(number)?, slot, 0);
            self.seal_orphan_block(file, number)?;
        }
        Ok(())
    }

    /// An empty block of an orphan file.
    pub(crate) fn write_orphan_block(&mut self, file: &Inode, number: u64) -> Result<()> {
        let block = self.fresh(number)?;
        let end = block.len() - FILE_TAIL;
        put32(block, end, FILE_MAGIC);
        self.seal_orphan_block(file, number)
    }

    fn seal_orphan_block(&mut self, file: &Inode, number: u64) -> Result<()> {
        if !self.shape.checksums {
            return Ok(());
        }
        let seed = super::checksum::crc32c(self.inode_seed(file), &number.to_le_bytes());
        let shape = self.shape;
        let block = self.modify(number)?;
        let end = block.len() - FILE_TAIL;
        Self::seal(&shape, seed, block, end, end + 4);
        Ok(())
    }
}
