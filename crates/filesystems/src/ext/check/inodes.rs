//! Every inode: what it says of itself, and what it maps.

mod content;
mod fields;
mod links;
mod orphans;
mod reserved;

use disksmith_disk::{Result, is_zero};

use super::state::{Folder, Fsck};
use crate::FileKind;
use crate::ext::bitmap;
use crate::ext::core::{RESIZE_INODE, ROOT};
use crate::ext::dirent;
use crate::ext::features::RoCompat;
use crate::ext::layout::Inode;
use crate::ext::layout::group::INODE_UNINIT;
use crate::ext::layout::inode::flags;

/// The inode that owns bad blocks.
const BAD_BLOCKS: u32 = 1;
/// The inodes that are kept for the quota of users and groups.
const QUOTA_FILES: [u32; 2] = [3, 4];
/// A file over this many bytes needs the feature large_file.
const LARGE_FILE: u64 = 0x7FFF_FFFF;

impl Fsck {
    pub(super) fn inodes(&mut self) -> Result<()> {
        let shape = self.core.shape;
        self.orphan_list();
        for group in 0..shape.groups {
            let descriptor = *self.core.group(group)?;
            let used = match shape.lazy_groups {
                true if descriptor.has_flag(INODE_UNINIT) => 0,
                true => shape.inodes_per_group.saturating_sub(descriptor.itable_unused()),
                false => shape.inodes_per_group,
            };
            if !shape.valid_range(descriptor.inode_table(), shape.table_blocks()) {
                continue;
            }
            for index in 0..used {
                let number = group * shape.inodes_per_group + index + 1;
                if index % (shape.inodes_per_block() * 16) == 0 {
                    let block =
                        descriptor.inode_table() + u64::from(index / shape.inodes_per_block());
                    let left = descriptor.inode_table() + shape.table_blocks() - block;
                    // A failing read shows again below, by its inode.
                    let _ = self.core.prefetch(block, left.min(16));
                }
                match self.core.inode_unchecked(number) {
                    Ok(mut inode) => {
                        let before = inode.raw.clone();
                        self.inode(&mut inode)?;
                        self.store(&inode, &before)?;
                    }
                    Err(error) => self.found(format!("Inode {number} cannot be read: {error}")),
                }
            }
            self.save_if_much()?;
        }
        self.end_orphans()?;
        self.large_file_feature();
        self.relocate()
    }

    /// Files over 2 GiB need a feature, and that a newer revision.
    fn large_file_feature(&mut self) {
        if self.large_files
            && !self.core.sb.has_ro(RoCompat::LARGE_FILE)
            && self.slip("There are files over 2 GiB, but the filesystem has no large_file")
        {
            let sb = self.core.super_mut();
            if sb.s_rev_level() == 0 {
                sb.set_s_rev_level(1);
                sb.set_s_first_ino(11);
                sb.set_s_inode_size(128);
            }
            sb.set_ro(RoCompat::LARGE_FILE, true);
        }
    }

    fn clear(&mut self, inode: &mut Inode) {
        inode.raw.fill(0);
        if inode.number >= self.core.shape.first_inode || inode.number == ROOT {
            bitmap::set(&mut self.inodes, u64::from(inode.number - 1), false);
        }
        self.known.forget(inode.number);
        self.folders.remove(&inode.number);
    }

    fn inode(&mut self, inode: &mut Inode) -> Result<()> {
        let number = inode.number;
        let reserved = number < self.core.shape.first_inode && number != ROOT;
        if reserved {
            bitmap::set(&mut self.inodes, u64::from(number - 1), true);
        }
        let blank = is_zero(&inode.raw);
        if !blank && !self.checksum(inode, reserved) || reserved && blank {
            return Ok(());
        }
        if number == BAD_BLOCKS {
            self.extra_size(inode);
            return self.bad_blocks(inode);
        }
        if self.repairing() && self.orphans.contains(&number) && !reserved {
            self.finish_orphan(inode)?;
        }
        if !self.is_in_use(inode, reserved) {
            return Ok(());
        }
        bitmap::set(&mut self.inodes, u64::from(number - 1), true);
        self.report.files += u64::from(!reserved);
        self.known.set_links(number, inode.i_links_count());
        self.extra_size(inode);
        if self.stray_quota(inode) {
            inode.raw.fill(0);
            return Ok(());
        }
        if number == RESIZE_INODE {
            return self.resize_inode(inode);
        }
        match inode.kind() {
            Some(kind) => self.file(inode, kind),
            None => self.unknown(inode, reserved),
        }
    }

    /// False when nothing more is to be said of the inode.
    fn checksum(&mut self, inode: &mut Inode, reserved: bool) -> bool {
        if !self.core.shape.checksums || inode.checksum() == self.core.inode_checksum(inode) {
            return true;
        }
        let in_use = inode.i_links_count() > 0 || reserved;
        if self.problem(format!("Inode {} has a wrong checksum", inode.number)) {
            if in_use {
                // Stored with the right one.
                inode.set_checksum(!inode.checksum());
            } else {
                inode.raw.fill(0);
            }
        }
        in_use
    }

    /// Links and time of deletion say whether it is in use; both are mended.
    fn is_in_use(&mut self, inode: &mut Inode, reserved: bool) -> bool {
        let number = inode.number;
        if self.low_dtime(inode) {
            let now = (self.core.now().seconds & 0xffff_ffff) as u32;
            inode.set_i_dtime(if inode.i_links_count() > 0 { 0 } else { now });
        }
        let orphan = self.orphans.contains(&number);
        if inode.i_links_count() == 0 && !reserved && !orphan || is_zero(&inode.raw) {
            self.unused(inode);
            return false;
        }
        if !reserved
            && inode.i_links_count() > 0
            && inode.i_dtime() != 0
            && !orphan
            && self.slip(format!("Inode {number} is in use but has a time of deletion"))
        {
            inode.set_i_dtime(0);
        }
        true
    }

    /// A quota file, though there is no quota, that is to go.
    fn stray_quota(&mut self, inode: &Inode) -> bool {
        let number = inode.number;
        let in_use =
            inode.i_links_count() > 0 || inode.blocks_raw() > 0 || inode.block_pointer(0) > 0;
        QUOTA_FILES.contains(&number)
            && in_use
            && !self.core.shape.has_ro(RoCompat::QUOTA)
            && self.problem(format!("Inode {number} is a quota file, the filesystem has no quota"))
    }

    fn unknown(&mut self, inode: &mut Inode, reserved: bool) -> Result<()> {
        let text = format!("Inode {} is of no known kind", inode.number);
        if (!reserved || inode.i_mode() != 0) && self.problem(text) {
            self.clear(inode);
            return Ok(());
        }
        if !self.flags(inode, FileKind::Regular) {
            return Ok(());
        }
        self.content(inode, FileKind::Regular)
    }

    fn file(&mut self, inode: &mut Inode, kind: FileKind) -> Result<()> {
        let number = inode.number;
        let kind = self.really_directory(inode, kind);
        self.known.set_kind(number, kind);
        if number == ROOT
            && kind != FileKind::Directory
            && self.problem("The root inode is no directory")
        {
            self.clear(inode);
            return Ok(());
        }
        if !self.flags(inode, kind) {
            return Ok(());
        }
        self.fields(inode, kind);
        match kind {
            FileKind::Directory => {
                self.folders.insert(number, Folder::default());
            }
            FileKind::CharDevice | FileKind::BlockDevice | FileKind::Fifo | FileKind::Socket => {
                if inode.size() != 0
                    && self.problem(format!("Inode {number} is a special file with a length"))
                {
                    inode.set_size(0);
                }
            }
            FileKind::Symlink | FileKind::Regular => {}
        }
        self.content(inode, kind)
    }

    fn unused(&mut self, inode: &mut Inode) {
        let number = inode.number;
        if inode.i_dtime() == 0
            && inode.i_mode() != 0
            && self.slip(format!("Inode {number} was deleted but has no time of deletion"))
        {
            inode.set_i_dtime((self.core.now().seconds & 0xffff_ffff) as u32);
        }
    }

    /// A special file whose first block is that of a directory is one.
    fn really_directory(&mut self, inode: &mut Inode, kind: FileKind) -> FileKind {
        let number = inode.number;
        if matches!(kind, FileKind::Directory | FileKind::Regular) || inode.block_pointer(0) == 0 {
            return kind;
        }
        let place = match inode.has_flag(flags::EXTENTS) {
            true => super::mapping::read(&self.core, inode).pieces.first().map(|p| p.place),
            false => Some(inode.block_pointer(0).into()),
        };
        let Some(place) = place.filter(|place| self.core.shape.valid_range(*place, 1)) else {
            return kind;
        };
        let Ok(block) = self.core.block(place) else { return kind };
        let mut entries = dirent::entries(&block, self.core.shape.block_size);
        let mut dot = |name: &[u8], inode: Option<u32>| {
            matches!(entries.next(), Some(Ok(entry))
                if entry.name == name && inode.is_none_or(|inode| inode == entry.inode))
        };
        let is_one = dot(b".", Some(number)) && dot(b"..", None);
        if !is_one || !self.problem(format!("Inode {number} looks like a directory, but is none")) {
            return kind;
        }
        inode.set_i_mode(inode.i_mode() & 0o7777 | 0o040_000);
        FileKind::Directory
    }
}
