//! Files that a crash left to be deleted or cut.

use disksmith_disk::Result;

use crate::FileKind;
use crate::ext::check::state::Fsck;
use crate::ext::features::{Compat, RoCompat};
use crate::ext::layout::Inode;

impl Fsck {
    pub(super) fn orphan_list(&mut self) {
        let mut number = self.core.sb.s_last_orphan();
        while number != 0 {
            if number > self.core.shape.inodes || !self.orphans.insert(number) {
                self.slip("The orphan list is bad");
                return;
            }
            number = match self.core.inode_unchecked(number) {
                Ok(inode) => inode.i_dtime(),
                Err(_) => 0,
            };
        }
        self.orphan_file();
        if !self.orphans.is_empty() && !self.report.journal && !self.repairing() {
            let count = self.orphans.len();
            self.found(format!("{count} files wait to be deleted or cut (orphans)"));
        }
    }

    /// Inodes that the orphan file names.
    fn orphan_file(&mut self) {
        let number = self.core.sb.s_orphan_file_inum();
        if !self.core.sb.has_compat(Compat::ORPHAN_FILE)
            || !self.core.sb.has_ro(RoCompat::ORPHAN_PRESENT)
        {
            return;
        }
        let orphans = self.core.orphans_in_file(number);
        match orphans {
            Ok(orphans) => self.orphans.extend(orphans),
            Err(why) => {
                self.slip(format!("The orphan file is bad: {why}"));
            }
        }
    }

    /// Orphans are dealt with: the list ends.
    pub(super) fn end_orphans(&mut self) -> Result<()> {
        if !self.repairing() {
            return Ok(());
        }
        if self.core.sb.s_last_orphan() != 0 {
            self.core.super_mut().set_s_last_orphan(0);
        }
        if self.core.sb.has_ro(RoCompat::ORPHAN_PRESENT) {
            self.core.empty_orphan_file()?;
            self.core.super_mut().set_ro(RoCompat::ORPHAN_PRESENT, false);
        }
        Ok(())
    }

    /// What a crash left to do: deleting or cutting.
    pub(super) fn finish_orphan(&mut self, inode: &mut Inode) -> Result<()> {
        self.orphans.remove(&inode.number);
        let links = inode.i_links_count();
        let now = (self.core.now().seconds & 0xffff_ffff) as u32;
        if !self.slip(format!(
            "Inode {} waits to be {}",
            inode.number,
            match links {
                0 => "deleted",
                _ => "cut",
            }
        )) {
            return Ok(());
        }
        if links == 0 {
            let (mode, generation) = (inode.i_mode(), inode.i_generation());
            inode.raw.fill(0);
            inode.set_i_mode(mode);
            inode.set_i_generation(generation);
            inode.set_i_dtime(now);
            return Ok(());
        }
        inode.set_i_dtime(0);
        if self.core.has_mapping(inode) && inode.kind() == Some(FileKind::Regular) {
            let blocks = inode.size().div_ceil(self.core.shape.block_size as u64);
            self.cut_mapping(inode, blocks)?;
        }
        Ok(())
    }

    /// A time of deletion that is the number of an inode: a piece of a broken orphan list.
    pub(super) fn low_dtime(&mut self, inode: &Inode) -> bool {
        let sb = &self.core.sb;
        let inodes = self.core.shape.inodes;
        let odd_clock = sb.s_mtime() < inodes && sb.s_wtime() < inodes && sb.s_mkfs_time() < inodes;
        let low = inode.i_dtime() != 0 && inode.i_dtime() < inodes && !odd_clock;
        low && !self.orphans.contains(&inode.number)
            && self.slip(format!("Inode {} was part of a broken orphan list", inode.number))
    }
}
