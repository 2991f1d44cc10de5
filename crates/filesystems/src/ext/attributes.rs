//! What inodes and the whole filesystem say of themselves, and setting it.

use disksmith_disk::Result;

use super::core::Core;
use super::features::{Incompat, RoCompat};
use super::layout::Inode;
use super::layout::inode::flags;
use crate::{Attributes, Changes, FileKind, Statistics, errors};

/// What an inode says, in the interface's terms.
pub(crate) fn attributes_of(core: &Core, inode: &Inode) -> Result<Attributes> {
    let kind = inode.kind().ok_or_else(|| {
        super::core::corrupt(format!("inode {} is of no known kind", inode.number))
    })?;
    // As the kernel: who copies files must not take inline content for a hole.
    let inline = if kind == FileKind::Regular && inode.has_flag(flags::INLINE_DATA) {
        inode.size().div_ceil(512)
    } else {
        0
    };
    Ok(Attributes {
        inode: inode.number.into(),
        kind,
        mode: inode.i_mode() & 0o7777,
        links: inode.i_links_count().into(),
        uid: inode.uid(),
        gid: inode.gid(),
        size: if kind.is_device() { 0 } else { inode.size() },
        blocks: core.sectors(inode) + inline,
        device: if kind.is_device() { inode.device() } else { crate::Device::default() },
        accessed: inode.accessed(),
        modified: inode.modified(),
        changed: inode.changed(),
        created: inode.created(),
        flags: inode.i_flags(),
        generation: inode.i_generation(),
        project: if inode.reaches(0xA0) { inode.i_projid() } else { 0 },
    })
}

impl Core {
    pub(crate) fn apply_changes(&mut self, inode: &mut Inode, changes: &Changes) -> Result<()> {
        let now = self.now();
        if let Some(mode) = changes.mode {
            inode.set_i_mode(inode.i_mode() & 0o170_000 | mode & 0o7777);
        }
        if let Some(uid) = changes.uid {
            inode.set_uid(uid);
        }
        if let Some(gid) = changes.gid {
            inode.set_gid(gid);
        }
        if let Some(size) = changes.size {
            match inode.kind() {
                Some(FileKind::Regular) => {}
                Some(FileKind::Directory) => return Err(errors::is_a_directory()),
                _ => return Err(errors::invalid()),
            }
            self.check_unsealed(inode, size)?;
            self.resize_content(inode, size)?;
            inode.set_modified(now);
        }
        if let Some(time) = changes.accessed {
            inode.set_accessed(time);
        }
        if let Some(time) = changes.modified {
            inode.set_modified(time);
        }
        if let Some(time) = changes.created {
            inode.set_created(time);
        }
        if let Some(flags) = changes.flags {
            let kept = inode.i_flags() & !flags::USER;
            inode.set_i_flags(kept | flags & flags::USER);
        }
        if let Some(project) = changes.project {
            if !inode.reaches(0xA0) || !self.shape.has_ro(RoCompat::PROJECT) {
                return Err(errors::not_supported());
            }
            inode.set_i_projid(project);
        }
        inode.set_changed(changes.changed.unwrap_or(now));
        Ok(())
    }

    /// Refuses to change the content of files with a Merkle tree, and of immutable ones.
    /// Of those that can only be appended to, what lies before their end stays as it is.
    pub(crate) fn check_unsealed(&self, inode: &Inode, from: u64) -> Result<()> {
        let appended = inode.has_flag(flags::APPEND) && from < inode.size();
        if inode.has_flag(flags::VERITY | flags::IMMUTABLE) || appended {
            return Err(errors::not_permitted());
        }
        Ok(())
    }

    fn overhead(&self) -> u64 {
        // As the kernel: what cannot be is not believed.
        let told = u64::from(self.sb.s_overhead_blocks()) << self.shape.cluster_bits;
        match Some(told).filter(|told| (1..=self.shape.blocks).contains(told)) {
            None => {
                let reserved = self.sb.s_reserved_gdt_blocks().into();
                let tables = self.shape.table_blocks() + 2;
                let base: u64 = (0..self.shape.groups)
                    .map(|group| self.shape.group_base_blocks(group, reserved) + tables)
                    .sum();
                let journal = self
                    .inode(self.sb.s_journal_inum())
                    .map_or(0, |inode| inode.size() >> self.shape.block_bits);
                base + self.shape.first_block + journal
            }
            Some(told) => told,
        }
    }

    pub(crate) fn statistics(&self) -> Statistics {
        let shape = &self.shape;
        let free = self.sb.free_blocks();
        let mut kept = self.sb.reserved_blocks();
        if shape.has_incompat(Incompat::EXTENTS) {
            // The kernel keeps 2 %, at most 4096 clusters, for splitting extents.
            kept +=
                (shape.blocks >> shape.cluster_bits).div_euclid(50).min(4096) << shape.cluster_bits;
        }
        Statistics {
            block_size: shape.block_size as u32,
            blocks: shape.blocks.saturating_sub(self.overhead()),
            free,
            available: free.saturating_sub(kept),
            inodes: shape.inodes.into(),
            free_inodes: self.sb.s_free_inodes_count().into(),
            name_length: 255,
        }
    }
}
