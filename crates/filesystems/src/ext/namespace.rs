//! Making, linking, renaming and removing files.

use disksmith_disk::Result;

use super::checksum::crc32c;
use super::core::{Core, ROOT, corrupt};
use super::directory::check_name;
use super::features::{Incompat, RoCompat};
use super::layout::Inode;
use super::layout::inode::{GOOD_OLD_SIZE, flags};
use crate::{Device, FileKind, NewFile, Rename, errors};

/// The most names of a file, and the most subdirectories plus two of a directory.
const LINKS_MAX: u16 = 65000;
/// Directories deeper than this are taken for a loop.
const DEPTH_MAX: u32 = 100_000;
/// Bytes of the fields after the first 128 that we write.
const EXTRA_SIZE: u16 = 32;

impl Core {
    /// A new inode in memory, with times and the mapping that its kind has.
    pub(crate) fn blank_inode(&self, number: u32, mode: u16) -> Inode {
        let mut inode = Inode::empty(number, self.shape.inode_size);
        inode.set_i_mode(mode);
        if self.shape.inode_size > GOOD_OLD_SIZE {
            let most = (self.shape.inode_size - GOOD_OLD_SIZE) as u16;
            inode.set_i_extra_isize(self.sb.s_want_extra_isize().max(EXTRA_SIZE).min(most) & !3);
        }
        let now = self.now();
        inode.set_accessed(now);
        inode.set_modified(now);
        inode.set_changed(now);
        inode.set_created(now);
        let mapped = matches!(
            inode.kind(),
            Some(FileKind::Regular | FileKind::Directory | FileKind::Symlink)
        );
        if mapped && self.shape.has_incompat(Incompat::EXTENTS) {
            inode.set_flag(flags::EXTENTS, true);
            inode.set_block_area(&super::extents::empty_root());
        }
        inode
    }

    /// Makes an inode for `file` in `directory`; not stored, not named.
    pub(crate) fn new_inode(&mut self, directory: &Inode, file: &NewFile) -> Result<Inode> {
        let is_directory = file.kind == FileKind::Directory;
        let number = self.allocate_inode(directory.number, is_directory)?;
        let mut inode = self.blank_inode(number, file.kind.mode_bits() | file.mode & 0o7777);
        inode.set_uid(file.uid);
        inode.set_gid(file.gid);
        if directory.i_mode() & 0o2000 != 0 {
            inode.set_gid(directory.gid());
            if is_directory {
                inode.set_i_mode(inode.i_mode() | 0o2000);
            }
        }
        if file.kind.is_device() {
            inode.set_device(file.device);
        }
        let mut inherited = directory.i_flags() & flags::INHERITED & !flags::CASEFOLD;
        if !is_directory {
            // Only directories are synchronous as such or pass their project on.
            inherited &= !(0x1_0000 | 0x2_0000 | flags::PROJINHERIT);
        }
        inode.set_i_flags(inode.i_flags() | inherited);
        if directory.has_flag(flags::PROJINHERIT) && inode.reaches(0xA0) && directory.reaches(0xA0)
        {
            inode.set_i_projid(directory.i_projid());
        }
        let now = self.now();
        let seed = crc32c(number, &now.seconds.to_le_bytes());
        inode.set_i_generation(crc32c(seed, &now.nanoseconds.to_le_bytes()));
        Ok(inode)
    }

    /// Makes an empty file.
    pub(crate) fn create(&mut self, parent: u64, name: &[u8], file: &NewFile) -> Result<Inode> {
        let mut directory = self.live_inode(parent)?;
        self.check_free_name(&directory, name)?;
        let mut inode = self.new_inode(&directory, file)?;
        if file.kind == FileKind::Directory {
            self.check_subdirectory(&directory)?;
            inode.set_i_links_count(2);
            self.put_inode(&inode)?;
            self.start_directory(&mut inode, directory.number)?;
            self.add_link(&mut directory);
        } else {
            inode.set_i_links_count(1);
        }
        self.put_inode(&inode)?;
        self.add_entry(&mut directory, name, inode.number, file.kind)?;
        self.touch_directory(&mut directory)?;
        Ok(inode)
    }

    /// Makes a symlink.
    pub(crate) fn create_link(
        &mut self,
        parent: u64,
        name: &[u8],
        target: &[u8],
        owner: (u32, u32),
    ) -> Result<Inode> {
        if target.is_empty() || target.len() >= self.shape.block_size.min(4096) {
            return Err(errors::name_too_long());
        }
        let file = NewFile {
            kind: FileKind::Symlink,
            mode: 0o777,
            uid: owner.0,
            gid: owner.1,
            device: Device::default(),
        };
        let mut inode = self.create(parent, name, &file)?;
        self.set_link_target(&mut inode, target)?;
        self.put_inode(&inode)?;
        Ok(inode)
    }

    /// Gives a new symlink its target.
    pub(crate) fn set_link_target(&mut self, inode: &mut Inode, target: &[u8]) -> Result<()> {
        if target.len() < 60 {
            inode.set_flag(flags::EXTENTS, false);
            inode.set_block_area(target);
            inode.set_size(target.len() as u64);
            return Ok(());
        }
        let block = self.shape.block_size;
        // A whole block, so that the zero byte after the target is there, as the kernel has it.
        let mut padded = target.to_vec();
        padded.resize(target.len().next_multiple_of(block), 0);
        self.write_content(inode, 0, &padded)?;
        inode.set_size(target.len() as u64);
        Ok(())
    }

    fn check_free_name(&self, directory: &Inode, name: &[u8]) -> Result<()> {
        self.check_directory(directory)?;
        if directory.i_links_count() == 0 {
            return Err(errors::not_found());
        }
        if name == b"." || name == b".." {
            return Err(errors::exists());
        }
        check_name(name)?;
        if self.find(directory, name)?.is_some() {
            return Err(errors::exists());
        }
        Ok(())
    }

    fn check_subdirectory(&self, directory: &Inode) -> Result<()> {
        if directory.i_links_count() >= LINKS_MAX - 1 && !self.shape.has_ro(RoCompat::DIR_NLINK) {
            return Err(errors::too_many_links());
        }
        Ok(())
    }

    /// Counts a subdirectory. A count of 1 means "too many to count".
    pub(crate) fn add_link(&self, directory: &mut Inode) {
        let links = directory.i_links_count();
        let next = if links == 1 || links >= LINKS_MAX - 1 { 1 } else { links + 1 };
        directory.set_i_links_count(next);
    }

    fn drop_link(&self, directory: &mut Inode) {
        let links = directory.i_links_count();
        if links > 2 {
            directory.set_i_links_count(links - 1);
        }
    }

    /// The directory's content changed.
    fn touch_directory(&mut self, directory: &mut Inode) -> Result<()> {
        let now = self.now();
        directory.set_modified(now);
        directory.set_changed(now);
        self.put_inode(directory)
    }

    /// Gives a file one more name.
    pub(crate) fn add_name(&mut self, inode: u64, parent: u64, name: &[u8]) -> Result<Inode> {
        let mut inode = self.live_inode(inode)?;
        let mut directory = self.live_inode(parent)?;
        let kind = inode.kind().ok_or_else(errors::invalid)?;
        if kind == FileKind::Directory {
            return Err(errors::not_permitted());
        }
        if inode.i_links_count() == 0 {
            return Err(errors::not_found());
        }
        if inode.i_links_count() >= LINKS_MAX {
            return Err(errors::too_many_links());
        }
        self.check_free_name(&directory, name)?;
        self.add_entry(&mut directory, name, inode.number, kind)?;
        self.note_gain(&inode, &directory, name)?;
        self.touch_directory(&mut directory)?;
        inode.set_i_links_count(inode.i_links_count() + 1);
        inode.set_changed(self.now());
        self.put_inode(&inode)?;
        Ok(inode)
    }

    /// Removes a name. Answers the inode if it has no name left and must be freed by the caller.
    pub(crate) fn remove_name(
        &mut self,
        parent: u64,
        name: &[u8],
        want_directory: bool,
    ) -> Result<Option<u32>> {
        let mut directory = self.live_inode(parent)?;
        self.check_directory(&directory)?;
        if name == b"." {
            return Err(errors::invalid());
        }
        if name == b".." {
            return Err(errors::not_empty());
        }
        let found = self.find(&directory, name)?.ok_or_else(errors::not_found)?;
        let mut inode = self.live_inode(found.inode.into())?;
        match (inode.is_directory(), want_directory) {
            (true, false) => return Err(errors::is_a_directory()),
            (false, true) => return Err(errors::not_a_directory()),
            (true, true) => {
                if !self.is_empty_directory(&inode)? {
                    return Err(errors::not_empty());
                }
                self.drop_link(&mut directory);
            }
            (false, false) => {}
        }
        self.note_loss(inode.number, found.block)?;
        self.remove_entry(&mut directory, found, name)?;
        self.touch_directory(&mut directory)?;
        self.lose_name(&mut inode)
    }

    /// One name fewer (or, of a directory, none left).
    fn lose_name(&mut self, inode: &mut Inode) -> Result<Option<u32>> {
        let links = if inode.is_directory() { 0 } else { inode.i_links_count().saturating_sub(1) };
        inode.set_i_links_count(links);
        inode.set_changed(self.now());
        if links > 0 {
            self.put_inode(inode)?;
            return Ok(None);
        }
        self.note_unnamed(inode.number);
        if inode.is_directory() {
            inode.set_size(inode.size());
        }
        if self.is_held(inode.number) {
            self.add_orphan(inode)?;
            return Ok(None);
        }
        if self.is_small(inode) {
            self.destroy_inode(inode)?;
            return Ok(None);
        }
        self.add_orphan(inode)?;
        Ok(Some(inode.number))
    }

    /// True when freeing everything at once makes no large transaction.
    pub(crate) fn is_small(&self, inode: &Inode) -> bool {
        self.sectors(inode) / (self.shape.block_size as u64 / 512) <= self.step_blocks()
    }

    /// Blocks that may be freed in one transaction.
    pub(crate) fn step_blocks(&self) -> u64 {
        (self.transaction_max as u64 * 32).clamp(1024, 1 << 20)
    }

    /// Frees an inode that has no names, with all it has.
    pub(crate) fn destroy_inode(&mut self, inode: &mut Inode) -> Result<()> {
        let directory = inode.is_directory();
        self.drop_attributes(inode)?;
        if self.has_mapping(inode) {
            self.unmap_all(inode)?;
        }
        inode.set_size(0);
        inode.set_flag(flags::INLINE_DATA | flags::INDEX, false);
        inode.set_i_links_count(0);
        let now = self.now().seconds.clamp(1, u32::MAX.into()) as u32;
        inode.set_i_dtime(now);
        self.put_inode(inode)?;
        self.free_inode(inode, directory)
    }

    fn unmap_all(&mut self, inode: &mut Inode) -> Result<()> {
        if inode.is_directory() {
            // Directory blocks are metadata: they must not be replayed over what comes next.
            for run in self.mapped_runs(inode, self.directory_blocks(inode))? {
                if let Some(place) = run.place {
                    (place..place + run.length).for_each(|block| self.forget(block));
                }
            }
        }
        let end = self.mapped_end(inode)?;
        self.unmap(inode, 0, end)
    }

    /// True when `i_block` maps blocks.
    pub(crate) fn has_mapping(&self, inode: &Inode) -> bool {
        match inode.kind() {
            Some(FileKind::Regular | FileKind::Directory) => !inode.has_flag(flags::INLINE_DATA),
            Some(FileKind::Symlink) => {
                !inode.has_flag(flags::INLINE_DATA) && !self.is_fast_link(inode)
            }
            _ => false,
        }
    }

    /// Moves a name. Answers an inode that lost its last name and must be freed by the caller.
    pub(crate) fn rename(
        &mut self,
        from: u64,
        old: &[u8],
        to: u64,
        new: &[u8],
        how: Rename,
    ) -> Result<Option<u32>> {
        check_dots(old)?;
        check_dots(new)?;
        check_name(new)?;
        let mut source = self.live_inode(from)?;
        let mut target = self.live_inode(to)?;
        self.check_directory(&source)?;
        self.check_directory(&target)?;
        let found = self.find(&source, old)?.ok_or_else(errors::not_found)?;
        let there = self.find(&target, new)?;
        let mut inode = self.live_inode(found.inode.into())?;
        let kind = inode.kind().ok_or_else(errors::invalid)?;
        if target.i_links_count() == 0 {
            return Err(errors::not_found());
        }
        if kind == FileKind::Directory && from != to {
            self.check_no_loop(inode.number, &target)?;
        }
        if let Some(there) = there {
            match how {
                Rename::NoReplace => return Err(errors::exists()),
                Rename::Exchange => {
                    return self.exchange((source, found, old), (target, there, new), from == to);
                }
                _ if there.inode == found.inode => return Ok(None),
                _ => {}
            }
        } else if how == Rename::Exchange {
            return Err(errors::not_found());
        }
        let mut freed = None;
        let mut replaced = match there {
            Some(there) => Some((there, self.live_inode(there.inode.into())?)),
            None => None,
        };
        if let Some((there, victim)) = &mut replaced {
            match (kind == FileKind::Directory, victim.is_directory()) {
                (true, false) => return Err(errors::not_a_directory()),
                (false, true) => return Err(errors::is_a_directory()),
                (true, true) if !self.is_empty_directory(victim)? => {
                    return Err(errors::not_empty());
                }
                _ => {}
            }
            self.note_loss(victim.number, there.block)?;
            self.change_entry(&mut target, *there, new, inode.number, kind)?;
        } else {
            if kind == FileKind::Directory && from != to {
                self.check_subdirectory(&target)?;
            }
            self.add_entry(&mut target, new, inode.number, kind)?;
        }
        self.touch_directory(&mut target)?;
        if from == to {
            source = target.clone();
        }
        let before = found.block;
        // Adding may have moved the old entry, into a block that is new and therefore comes first.
        let found = self.find(&source, old)?.ok_or_else(errors::not_found)?;
        if found.block == before && !self.is_journaled() {
            let place = self.find(&target, new)?.ok_or_else(errors::not_found)?;
            self.note_move(before, place.block)?;
        }
        if how == Rename::Whiteout {
            let file = NewFile {
                kind: FileKind::CharDevice,
                mode: 0,
                uid: inode.uid(),
                gid: inode.gid(),
                device: Device::default(),
            };
            let mut whiteout = self.new_inode(&source, &file)?;
            whiteout.set_i_links_count(1);
            self.put_inode(&whiteout)?;
            self.change_entry(&mut source, found, old, whiteout.number, FileKind::CharDevice)?;
        } else {
            self.remove_entry(&mut source, found, old)?;
        }
        if kind == FileKind::Directory {
            if from != to {
                self.drop_link(&mut source);
                self.set_parent(&mut inode, target.number)?;
                if replaced.is_none() {
                    self.add_link(&mut target);
                }
            } else if replaced.is_some() {
                self.drop_link(&mut source);
            }
        }
        self.touch_directory(&mut source)?;
        if from != to {
            self.touch_directory(&mut target)?;
        }
        inode.set_changed(self.now());
        self.put_inode(&inode)?;
        if let Some((_, mut victim)) = replaced {
            freed = self.lose_name(&mut victim)?;
        }
        Ok(freed)
    }

    fn exchange(
        &mut self,
        (mut source, found, old): (Inode, super::directory::Found, &[u8]),
        (mut target, there, new): (Inode, super::directory::Found, &[u8]),
        same: bool,
    ) -> Result<Option<u32>> {
        let mut first = self.live_inode(found.inode.into())?;
        let mut second = self.live_inode(there.inode.into())?;
        let kinds = (first.kind(), second.kind());
        let (Some(first_kind), Some(second_kind)) = kinds else { return Err(errors::invalid()) };
        if second_kind == FileKind::Directory && !same {
            self.check_no_loop(second.number, &source)?;
        }
        self.change_entry(&mut source, found, old, second.number, second_kind)?;
        if same {
            target = source.clone();
        }
        let there = self.find(&target, new)?.ok_or(errors::not_found())?;
        // Within one directory both names are found anew by their inode: the first one changed.
        self.change_entry(&mut target, there, new, first.number, first_kind)?;
        if !same {
            if first_kind == FileKind::Directory {
                self.set_parent(&mut first, target.number)?;
                self.drop_link(&mut source);
                self.add_link(&mut target);
            }
            if second_kind == FileKind::Directory {
                self.set_parent(&mut second, source.number)?;
                self.drop_link(&mut target);
                self.add_link(&mut source);
            }
            self.touch_directory(&mut source)?;
        }
        self.touch_directory(&mut target)?;
        let now = self.now();
        for inode in [&mut first, &mut second] {
            inode.set_changed(now);
            self.put_inode(inode)?;
        }
        Ok(None)
    }

    /// Lets a directory's `..` name another parent.
    pub(crate) fn set_parent(&mut self, directory: &mut Inode, parent: u32) -> Result<()> {
        if directory.has_flag(flags::INLINE_DATA) {
            directory.set_block_pointer(0, parent);
            return Ok(());
        }
        let found = self
            .find(directory, b"..")?
            .ok_or_else(|| corrupt(format!("directory {} has no '..'", directory.number)))?;
        self.change_entry(directory, found, b"..", parent, FileKind::Directory)
    }

    /// The parent of a directory.
    pub(crate) fn parent_of(&self, directory: &Inode) -> Result<u32> {
        Ok(self.find(directory, b"..")?.ok_or_else(errors::not_found)?.inode)
    }

    /// Refuses to move a directory into itself.
    fn check_no_loop(&self, moved: u32, target: &Inode) -> Result<()> {
        let mut at = target.clone();
        for _ in 0..DEPTH_MAX {
            if at.number == moved {
                return Err(errors::invalid());
            }
            if at.number == ROOT {
                return Ok(());
            }
            at = self.inode(self.parent_of(&at)?)?;
        }
        Err(corrupt("directories form a loop"))
    }
}

fn check_dots(name: &[u8]) -> Result<()> {
    if name == b"." || name == b".." { Err(errors::busy()) } else { Ok(()) }
}
