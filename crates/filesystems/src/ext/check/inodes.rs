//! Every inode: what it says of itself, and what it maps.

use disksmith_disk::{Result, is_zero};

use super::mapping::{Mapped, Piece};
use super::state::{Folder, Fsck};
use crate::FileKind;
use crate::ext::bitmap;
use crate::ext::core::{RESIZE_INODE, ROOT};
use crate::ext::dirent;
use crate::ext::extents::header;
use crate::ext::features::{Compat, Incompat, RoCompat};
use crate::ext::layout::group::INODE_UNINIT;
use crate::ext::layout::inode::flags;
use crate::ext::layout::{Inode, le16, le32, put32};

/// The inode that owns bad blocks.
const BAD_BLOCKS: u32 = 1;
/// The inodes that are kept for the quota of users and groups.
const QUOTA_FILES: [u32; 2] = [3, 4];
/// Bytes of a target that `i_block` holds.
const FAST_LINK_MAX: usize = 60;
/// A file over this many bytes needs the feature large_file.
const LARGE_FILE: u64 = 0x7FFF_FFFF;
/// `i_faddr`, of no use since ever.
const FADDR_AT: usize = 0x70;

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

    fn orphan_list(&mut self) {
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
    fn end_orphans(&mut self) -> Result<()> {
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

    fn clear(&mut self, inode: &mut Inode) {
        inode.raw.fill(0);
        if inode.number >= self.core.shape.first_inode || inode.number == ROOT {
            bitmap::set(&mut self.inodes, u64::from(inode.number - 1), false);
        }
        self.kinds.remove(&inode.number);
        self.links.remove(&inode.number);
        self.folders.remove(&inode.number);
    }

    fn inode(&mut self, inode: &mut Inode) -> Result<()> {
        let shape = self.core.shape;
        let number = inode.number;
        let reserved = number < shape.first_inode && number != ROOT;
        if reserved {
            bitmap::set(&mut self.inodes, u64::from(number - 1), true);
        }
        let blank = is_zero(&inode.raw);
        if shape.checksums && !blank && inode.checksum() != self.core.inode_checksum(inode) {
            let in_use = inode.i_links_count() > 0 || reserved;
            if self.problem(format!("Inode {number} has a wrong checksum")) {
                if in_use {
                    // Stored with the right one.
                    inode.set_checksum(!inode.checksum());
                } else {
                    inode.raw.fill(0);
                }
            }
            if !in_use {
                return Ok(());
            }
        }
        if reserved && blank {
            return Ok(());
        }
        if number == BAD_BLOCKS {
            self.extra_size(inode);
            return self.bad_blocks(inode);
        }
        if self.repairing() && self.orphans.contains(&number) && !reserved {
            self.finish_orphan(inode)?;
        }
        if self.low_dtime(inode) {
            let now = (self.core.now().seconds & 0xffff_ffff) as u32;
            inode.set_i_dtime(if inode.i_links_count() > 0 { 0 } else { now });
        }
        if inode.i_links_count() == 0 && !reserved && !self.orphans.contains(&number)
            || is_zero(&inode.raw)
        {
            self.unused(inode);
            return Ok(());
        }
        if !reserved
            && inode.i_links_count() > 0
            && inode.i_dtime() != 0
            && !self.orphans.contains(&number)
            && self.slip(format!("Inode {number} is in use but has a time of deletion"))
        {
            inode.set_i_dtime(0);
        }
        bitmap::set(&mut self.inodes, u64::from(number - 1), true);
        self.report.files += u64::from(!reserved);
        self.links.insert(number, inode.i_links_count());
        self.extra_size(inode);
        let in_use =
            inode.i_links_count() > 0 || inode.blocks_raw() > 0 || inode.block_pointer(0) > 0;
        if QUOTA_FILES.contains(&number)
            && in_use
            && !shape.has_ro(RoCompat::QUOTA)
            && self.problem(format!("Inode {number} is a quota file, the filesystem has no quota"))
        {
            inode.raw.fill(0);
            return Ok(());
        }
        if number == RESIZE_INODE {
            return self.resize_inode(inode);
        }
        let Some(kind) = inode.kind() else {
            let text = format!("Inode {number} is of no known kind");
            if (!reserved || inode.i_mode() != 0) && self.problem(text) {
                self.clear(inode);
                return Ok(());
            }
            if !self.flags(inode, FileKind::Regular) {
                return Ok(());
            }
            return self.content(inode, FileKind::Regular);
        };
        let kind = self.really_directory(inode, kind);
        self.kinds.insert(number, kind);
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
            FileKind::Symlink => {}
            FileKind::CharDevice | FileKind::BlockDevice | FileKind::Fifo | FileKind::Socket => {
                if inode.size() != 0
                    && self.problem(format!("Inode {number} is a special file with a length"))
                {
                    inode.set_size(0);
                }
            }
            FileKind::Regular => {}
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

    /// A time of deletion that is the number of an inode: a piece of a broken orphan list.
    fn low_dtime(&mut self, inode: &Inode) -> bool {
        let sb = &self.core.sb;
        let inodes = self.core.shape.inodes;
        let odd_clock = sb.s_mtime() < inodes && sb.s_wtime() < inodes && sb.s_mkfs_time() < inodes;
        let low = inode.i_dtime() != 0 && inode.i_dtime() < inodes && !odd_clock;
        low && !self.orphans.contains(&inode.number)
            && self.slip(format!("Inode {} was part of a broken orphan list", inode.number))
    }

    /// What a crash left to do: deleting or cutting.
    fn finish_orphan(&mut self, inode: &mut Inode) -> Result<()> {
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

    /// Flags that do not fit; false when the inode was cleared.
    fn flags(&mut self, inode: &mut Inode, kind: FileKind) -> bool {
        let shape = self.core.shape;
        let number = inode.number;
        let tree = header(inode.block_area()).is_ok();
        let both = flags::EXTENTS | flags::INLINE_DATA;
        if inode.i_flags() & both == both
            && self.problem(format!("Inode {number} has both extents and inline data"))
        {
            inode.set_flag(if tree { flags::INLINE_DATA } else { flags::EXTENTS }, false);
        }
        if !inode.has_flag(flags::EXTENTS)
            && tree
            && matches!(kind, FileKind::Regular | FileKind::Directory)
            && self.core.sb.has_incompat(Incompat::EXTENTS)
            && !(inode.has_flag(flags::INLINE_DATA) && self.core.has_inline_attribute(inode))
            && self.problem(format!("Inode {number} has extents but does not say so"))
        {
            inode.set_flag(flags::INLINE_DATA, false);
            inode.set_flag(flags::EXTENTS, true);
        }
        if inode.has_flag(flags::EXTENTS)
            && !self.core.sb.has_incompat(Incompat::EXTENTS)
            && self.problem(format!("Inode {number} has extents, the filesystem has not"))
        {
            if !tree {
                self.clear(inode);
                return false;
            }
            self.core.super_mut().set_incompat(Incompat::EXTENTS, true);
        }
        if inode.has_flag(flags::INLINE_DATA) && !self.core.sb.has_incompat(Incompat::INLINE_DATA) {
            let stored = self.core.has_inline_attribute(inode);
            if self.problem(format!("Inode {number} has inline data, the filesystem has not")) {
                if !stored {
                    self.clear(inode);
                    return false;
                }
                self.core.super_mut().set_incompat(Incompat::INLINE_DATA, true);
            }
        }
        let special = !matches!(kind, FileKind::Regular | FileKind::Directory | FileKind::Symlink);
        let folds = shape.has_incompat(Incompat::CASEFOLD);
        let link = kind == FileKind::Symlink;
        let compression = self.core.sb.has_incompat(Incompat::COMPRESSION);
        let misfits = [
            (flags::IMAGIC, !shape.has_compat(Compat::IMAGIC_INODES), "the flag imagic"),
            (flags::INDEX, kind != FileKind::Directory, "an index but is no directory"),
            (
                flags::INDEX,
                !shape.has_compat(Compat::DIR_INDEX),
                "an index, the filesystem has not",
            ),
            (flags::CASEFOLD, !folds || kind != FileKind::Directory, "the flag casefold"),
            (flags::COMPRESSED, !compression, "the flag of compressed files"),
            (flags::EXTENTS, special, "extents but is a special file"),
            (flags::INLINE_DATA, special, "inline data but is a special file"),
            (flags::IMMUTABLE | flags::APPEND, special || link, "flags that it cannot have"),
        ];
        for (flag, wrong, what) in misfits {
            if wrong && inode.has_flag(flag) && self.problem(format!("Inode {number} has {what}")) {
                inode.set_flag(flag, false);
            }
        }
        true
    }

    /// The length of the fields that not every inode has.
    fn extra_size(&mut self, inode: &mut Inode) {
        let size = self.core.shape.inode_size;
        let extra = usize::from(inode.i_extra_isize());
        let bad = size > 128 && (extra % 4 != 0 || 128 + extra > size || (1..4).contains(&extra));
        if bad && self.problem(format!("Inode {} has a bad i_extra_isize", inode.number)) {
            inode.set_i_extra_isize(32.min(size - 128) as u16);
        }
    }

    /// Fields that have to be zero, or in bounds.
    fn fields(&mut self, inode: &mut Inode, kind: FileKind) {
        let shape = self.core.shape;
        let number = inode.number;
        if self.is_foreign() {
            return;
        }
        if le32(&inode.raw, FADDR_AT) != 0
            && self.slip(format!("Inode {number} has an i_faddr that is not zero"))
        {
            put32(&mut inode.raw, FADDR_AT, 0);
        }
        if inode.i_blocks_high() != 0
            && !shape.has_ro(RoCompat::HUGE_FILE)
            && self.slip(format!("Inode {number} has an i_blocks_high that is not zero"))
        {
            inode.set_i_blocks_high(0);
        }
        if inode.i_file_acl_high() != 0
            && !shape.wide()
            && self.slip(format!("Inode {number} has an i_file_acl_high that is not zero"))
        {
            inode.set_i_file_acl_high(0);
        }
        if kind == FileKind::Directory
            && inode.i_size_high() != 0
            && !shape.has_incompat(Incompat::LARGEDIR)
            && self.slip(format!("Directory {number} has an i_size_high that is not zero"))
        {
            inode.set_i_size_high(0);
        }
    }

    fn symlink(&mut self, inode: &mut Inode) -> bool {
        let text = match self.core.link_target(inode) {
            _ if self.link_is_bad(inode) => format!("Symlink {} is bad", inode.number),
            Err(error) if error.errno() == Some(126) => return true,
            Err(error) => format!("Symlink {} is bad: {error}", inode.number),
            Ok(target) if target.is_empty() || target.contains(&0) => {
                format!("Symlink {} is bad", inode.number)
            }
            Ok(_) => return true,
        };
        if self.problem(text) {
            self.clear(inode);
            return false;
        }
        true
    }

    /// A target that ends elsewhere than the length says.
    fn link_is_bad(&self, inode: &Inode) -> bool {
        if inode.size() == 0 {
            return true;
        }
        if inode.has_flag(flags::INLINE_DATA) {
            return self.core.inline_room(inode) != Some(inode.size());
        }
        if !self.core.is_fast_link(inode) {
            // The byte behind a target in clear is a zero.
            let place = self.core.map(inode, 0, 1).ok().and_then(|run| run.data());
            let block = place.and_then(|place| self.core.block(place).ok());
            return !block.is_some_and(|block| {
                if inode.has_flag(flags::ENCRYPT) {
                    return is_whole_secret(&block, inode.size());
                }
                block.get(inode.size() as usize) == Some(&0)
            });
        }
        let area = inode.block_area();
        if inode.has_flag(flags::ENCRYPT) {
            return !is_whole_secret(area, inode.size());
        }
        let end = area.iter().position(|byte| *byte == 0).unwrap_or(FAST_LINK_MAX);
        end as u64 != inode.size() || end == FAST_LINK_MAX
    }

    /// The list of bad blocks: pointers and nothing else. A list that claims what is in use is given
    /// up: disks keep such lists themselves.
    fn bad_blocks(&mut self, inode: &mut Inode) -> Result<()> {
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

    /// Accounts for everything that an inode has.
    fn content(&mut self, inode: &mut Inode, kind: FileKind) -> Result<()> {
        let shape = self.core.shape;
        let number = inode.number;
        let who = move || format!("inode {number}");
        let mut clusters: u64 = 0;
        let per_cluster = 1_u64 << shape.cluster_bits;
        // Attributes first: a bad symlink or inline file is judged by them.
        let Some(attributes) = self.attributes(inode)? else {
            self.clear(inode);
            return Ok(());
        };
        if kind == FileKind::Symlink && !self.symlink(inode) {
            return Ok(());
        }
        if inode.has_flag(flags::INLINE_DATA) && !self.inline(inode, kind) {
            return Ok(());
        }
        if self.core.has_mapping(inode) {
            let mapped = self.mapping(inode)?;
            if kind == FileKind::Directory
                && mapped.pieces.is_empty()
                && number != ROOT
                && self.problem(format!("Directory {number} has no blocks"))
            {
                self.clear(inode);
                return Ok(());
            }
            let mut fine = true;
            for block in &mapped.tree {
                fine &= self.claim(*block, 1, &who);
            }
            clusters += mapped.tree.len() as u64;
            self.cluster_rules(inode, &mapped);
            let mut last = None;
            for piece in &mapped.pieces {
                let from = self.cluster(piece.place);
                let to = self.cluster(piece.place + piece.length - 1);
                // Neighbours share a cluster.
                let shared = u64::from(shape.cluster_bits > 0 && last == Some(from));
                let within = piece.place.saturating_sub(shape.first_block) % per_cluster;
                let skip = shared * (per_cluster - within).min(piece.length);
                if piece.length > skip {
                    fine &= self.claim(piece.place + skip, piece.length - skip, &who);
                }
                clusters += to - from + 1 - shared;
                last = Some(to);
            }
            if !fine {
                self.mended += u64::from(self.repairing());
                self.waiting.copies.insert(number);
            }
            self.length(inode, kind, &mapped);
        }
        clusters += attributes;
        let expected = clusters * per_cluster * (shape.block_size as u64 / 512);
        let counted = self.core.sectors(inode);
        if counted != expected
            && self.slip(format!(
                "Inode {number} counts {counted} blocks of 512 bytes, it has {expected}"
            ))
        {
            inode.set_blocks_raw(0);
            inode.set_flag(flags::HUGE_FILE, expected >> 48 != 0);
            self.core.add_sectors(inode, clusters * per_cluster, true)?;
        }
        Ok(())
    }

    /// A file or directory inside its inode; false when it was cleared.
    fn inline(&mut self, inode: &mut Inode, kind: FileKind) -> bool {
        let number = inode.number;
        let text = match self.core.inline_content(inode) {
            Err(why) => format!("Inode {number} has bad inline data: {why}"),
            Ok(_) if !self.core.has_inline_attribute(inode) => {
                format!("Inode {number} has inline data but no attribute for it")
            }
            Ok(content) if kind != FileKind::Directory && inode.size() > content.len() as u64 => {
                format!("Inode {number} has {} bytes, inline are {}", inode.size(), content.len())
            }
            Ok(_) => return true,
        };
        if !self.problem(text) {
            return true;
        }
        if kind == FileKind::Directory {
            self.clear(inode);
            return false;
        }
        if inode.extra_size() > 0 {
            // What is in the inode itself stays.
            inode.set_size(inode.size().min(60));
            self.core.restart_inline(inode);
            return true;
        }
        inode.set_flag(flags::INLINE_DATA, false);
        inode.set_size(0);
        inode.set_block_area(&[]);
        if kind == FileKind::Symlink {
            self.clear(inode);
            return false;
        }
        true
    }

    fn length(&mut self, inode: &mut Inode, kind: FileKind, mapped: &Mapped) {
        let size = self.core.shape.block_size as u64;
        let number = inode.number;
        let end = mapped.end();
        if kind == FileKind::Directory {
            let wrong = !inode.size().is_multiple_of(size) || inode.size() / size != end;
            if wrong
                && self.problem(format!(
                    "Directory {number} has {} bytes in {end} blocks",
                    inode.size()
                ))
            {
                inode.set_size(end * size);
            }
            return;
        }
        if inode.size() > self.size_limit(inode)
            && self.problem(format!("Inode {number} has {} bytes", inode.size()))
        {
            inode.set_size(end * size);
        }
        self.large_files |= inode.size() > LARGE_FILE && kind == FileKind::Regular;
        let blocks = inode.size().div_ceil(size);
        // Within a cluster, blocks behind the end are no harm.
        let mask = (1_u64 << self.core.shape.cluster_bits) - 1;
        let most = (blocks + mask) & !mask;
        let written = mapped.written_end();
        // e2fsck lets the last block lie right behind the end; so does the kernel.
        if written > most
            && (written - 1).saturating_mul(size) > inode.size()
            && !inode.has_flag(flags::VERITY)
            && self
                .problem(format!("Inode {number} has {} bytes but {written} blocks", inode.size()))
        {
            inode.set_size(written * size);
        }
    }

    /// The most bytes that a file can have.
    fn size_limit(&self, inode: &Inode) -> u64 {
        let size = self.core.shape.block_size as u64;
        let pointers = size / 4;
        let blocks = match inode.has_flag(flags::EXTENTS) {
            true => (1 << 32) - 1,
            false => 12 + pointers + pointers.pow(2) + pointers.pow(3),
        };
        blocks.saturating_mul(size)
    }

    /// With bigalloc a block lies in its cluster where it lies in the file's.
    fn cluster_rules(&mut self, inode: &Inode, mapped: &Mapped) {
        let shape = self.core.shape;
        if shape.cluster_bits == 0 || inode.number < shape.first_inode {
            return;
        }
        let mask = (1_u64 << shape.cluster_bits) - 1;
        let number = inode.number;
        if !inode.has_flag(flags::EXTENTS) && !mapped.pieces.is_empty() {
            self.found(format!("Inode {number} is mapped by pointers in spite of bigalloc"));
        }
        let astray =
            |piece: &&Piece| (piece.place - shape.first_block) & mask != piece.start & mask;
        if let Some(piece) = mapped.pieces.iter().find(astray) {
            let place = piece.place;
            self.found(format!("Block {place} of inode {number} breaks the rules of clusters"));
        }
    }

    /// Its double indirect block; what that points to lies in the groups' reserved blocks.
    fn resize_inode(&mut self, inode: &mut Inode) -> Result<()> {
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

/// An encrypted target is two bytes of length and that much ciphertext (the kernel's
/// `fscrypt_symlink_data`), together as long as the inode says, in a room that holds a zero more.
fn is_whole_secret(room: &[u8], size: u64) -> bool {
    size > 2 && size < room.len() as u64 && u64::from(le16(room, 0)) + 2 == size
}
