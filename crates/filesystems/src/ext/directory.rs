//! Directories: listing, finding, adding and removing names.

use disksmith_disk::{Error, Kind, Result};

use super::core::{Core, corrupt};
use super::dirent::{self, TAIL};
use super::features::{Compat, Incompat};
use super::layout::inode::flags;
use super::layout::{Inode, le32, put32};
use crate::{FileKind, errors};

/// The longest name.
pub(crate) const NAME_MAX: usize = 255;

/// Is told an inode, its kind, its name and the cookie after it; answers whether to go on.
type Visit<'a> = dyn FnMut(u32, u8, &[u8], u64) -> bool + 'a;

/// Where a name was found.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found {
    pub(crate) inode: u32,
    /// The block of the filesystem; 0 in an inline directory.
    pub(crate) block: u64,
    at: usize,
}

/// Refuses what cannot be a name.
pub(crate) fn check_name(name: &[u8]) -> Result<()> {
    if name.is_empty() || name == b"." || name == b".." {
        return Err(errors::invalid());
    }
    if name.len() > NAME_MAX {
        return Err(errors::name_too_long());
    }
    if name.contains(&b'/') || name.contains(&0) {
        return Err(errors::invalid());
    }
    Ok(())
}

impl Core {
    /// Blocks of a directory.
    pub(crate) fn directory_blocks(&self, directory: &Inode) -> u64 {
        // Directories have no holes: a length beyond the filesystem's is nonsense.
        (directory.size() >> self.shape.block_bits).min(u32::MAX.into()).min(self.shape.blocks)
    }

    /// A directory's block by its number in the directory; `None` for a hole.
    pub(crate) fn directory_block(
        &self,
        directory: &Inode,
        logical: u64,
    ) -> Result<Option<(u64, super::cache::Block)>> {
        let run = self.map(directory, logical, 1)?;
        let Some(place) = run.data() else { return Ok(None) };
        let block = self.block(place)?;
        let end = block.len() - TAIL;
        // The end of an index block may look like a tail that was there before.
        let index = directory.has_flag(flags::INDEX)
            && (logical == 0 || dirent::fills_block(&block, self.shape.block_size));
        if !index
            && dirent::has_tail(&block)
            && !self.tail_is_right_at(directory, &block, end, end + 8)
        {
            return Err(corrupt(format!(
                "block {logical} of directory {} has a wrong checksum",
                directory.number
            )));
        }
        Ok(Some((place, block)))
    }

    pub(crate) fn tail_is_right_at(
        &self,
        inode: &Inode,
        block: &[u8],
        covered: usize,
        at: usize,
    ) -> bool {
        !self.shape.checksums
            || block.get(..covered).is_some_and(|body| {
                super::checksum::crc32c(self.inode_seed(inode), body) == le32(block, at)
            })
    }

    /// Stores the checksum of a leaf block that was just changed.
    pub(crate) fn seal_directory_block(&mut self, directory: &Inode, place: u64) -> Result<()> {
        if self.shape.checksums {
            let (shape, seed) = (self.shape, self.inode_seed(directory));
            let block = self.modify(place)?;
            if dirent::has_tail(block) && !dirent::fills_block(block, shape.block_size) {
                let end = block.len() - TAIL;
                Self::seal(&shape, seed, block, end, end + 8);
            }
        }
        Ok(())
    }

    /// Stores the checksum of any block of a directory that was just changed.
    pub(crate) fn seal_any_directory_block(&mut self, directory: &Inode, place: u64) -> Result<()> {
        let root =
            directory.has_flag(flags::INDEX) && self.map(directory, 0, 1)?.place == Some(place);
        if root {
            return self.seal_index_root(directory, place);
        }
        self.seal_directory_block(directory, place)
    }

    /// Stores the checksum of a directory's block, be it a leaf or a part of the index.
    pub(crate) fn seal_directory_part(&mut self, directory: &Inode, place: u64) -> Result<()> {
        let block = self.block(place)?;
        let index =
            directory.has_flag(flags::INDEX) && dirent::fills_block(&block, self.shape.block_size);
        drop(block);
        if index {
            return self.seal_index_node(directory, place);
        }
        self.seal_any_directory_block(directory, place)
    }

    /// Refuses what is no directory or cannot be read.
    pub(crate) fn check_directory(&self, inode: &Inode) -> Result<()> {
        if !inode.is_directory() {
            return Err(errors::not_a_directory());
        }
        if inode.has_flag(flags::ENCRYPT) {
            return Err(Error::from_errno(126)
                .with_kind(Kind::Unsupported)
                .context(format!("Directory inode {} is encrypted", inode.number)));
        }
        Ok(())
    }

    /// Calls `visit(inode, kind, name, cookie after it)` for every entry after `cookie`.
    pub(crate) fn list(&self, directory: &Inode, cookie: u64, visit: &mut Visit<'_>) -> Result<()> {
        self.check_directory(directory)?;
        if directory.has_flag(flags::INLINE_DATA) {
            return self.list_inline(directory, cookie, visit);
        }
        let size = self.shape.block_size;
        let mut logical = cookie >> self.shape.block_bits;
        let blocks = self.directory_blocks(directory);
        let mut ahead = 0;
        while logical < blocks {
            if logical >= ahead {
                let run = self.map(directory, logical, 32)?;
                if let Some(place) = run.data() {
                    self.prefetch(place, run.length)?;
                }
                ahead = logical + run.length;
            }
            let base = logical << self.shape.block_bits;
            if let Some((_, block)) = self.directory_block(directory, logical)? {
                for entry in dirent::entries(&block, size) {
                    let entry = entry?;
                    let after = base + (entry.at + entry.length) as u64;
                    if entry.inode == 0 || cookie > base + entry.at as u64 {
                        continue;
                    }
                    if !visit(entry.inode, self.entry_kind(entry.kind), entry.name, after) {
                        return Ok(());
                    }
                }
            }
            logical += 1;
        }
        Ok(())
    }

    fn entry_kind(&self, kind: u8) -> u8 {
        if self.shape.has_incompat(Incompat::FILETYPE) { kind } else { 0 }
    }

    /// The `file_type` to store for a kind.
    pub(crate) fn kind_code(&self, kind: FileKind) -> u8 {
        if self.shape.has_incompat(Incompat::FILETYPE) { dirent::kind_code(kind) } else { 0 }
    }

    /// An inline directory: the parent's number and 56 bytes of entries in `i_block`, the rest in
    /// the attribute `system.data`. Cookies count as if it began with `.` and `..` of 12 bytes.
    fn list_inline(&self, directory: &Inode, cookie: u64, visit: &mut Visit<'_>) -> Result<()> {
        let content = self.inline_content(directory)?;
        let parent = le32(&content, 0);
        let dots: [(u32, &[u8], u64); 2] = [(directory.number, b".", 12), (parent, b"..", 24)];
        for (inode, name, after) in dots {
            if cookie < after && !visit(inode, self.entry_kind(2), name, after) {
                return Ok(());
            }
        }
        for (start, end) in [(4, 60.min(content.len())), (60, content.len())] {
            let Some(part) = content.get(start..end) else { continue };
            for entry in dirent::entries(part, part.len()) {
                let entry = entry?;
                let after = (24 + start + entry.at + entry.length) as u64;
                if entry.inode == 0 || after <= cookie {
                    continue;
                }
                if !visit(entry.inode, self.entry_kind(entry.kind), entry.name, after) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Finds a name.
    pub(crate) fn find(&self, directory: &Inode, name: &[u8]) -> Result<Option<Found>> {
        self.check_directory(directory)?;
        if name.len() > NAME_MAX {
            return Err(errors::name_too_long());
        }
        if directory.has_flag(flags::INLINE_DATA) {
            let mut found = None;
            self.list_inline(directory, 0, &mut |inode, _, other, _| {
                if other == name {
                    found = Some(Found { inode, block: 0, at: 0 });
                }
                found.is_none()
            })?;
            return Ok(found);
        }
        if self.is_indexed(directory)
            && name != b"."
            && name != b".."
            && let Some(leaves) = self.index_leaves(directory, name)?
        {
            for logical in leaves {
                let found = self.find_in_block(directory, logical, name)?;
                if found.is_some() {
                    return Ok(found);
                }
            }
            return Ok(None);
        }
        for logical in 0..self.directory_blocks(directory) {
            let found = self.find_in_block(directory, logical, name)?;
            if found.is_some() {
                return Ok(found);
            }
        }
        if directory.has_flag(flags::CASEFOLD) {
            return self.find_folded(directory, name);
        }
        Ok(None)
    }

    /// Names in a directory that ignores case, compared as simple lower case.
    fn find_folded(&self, directory: &Inode, name: &[u8]) -> Result<Option<Found>> {
        let fold = |bytes: &[u8]| std::str::from_utf8(bytes).map(str::to_lowercase).ok();
        let Some(wanted) = fold(name) else { return Ok(None) };
        for logical in 0..self.directory_blocks(directory) {
            let Some((block, bytes)) = self.directory_block(directory, logical)? else { continue };
            for entry in dirent::entries(&bytes, self.shape.block_size) {
                let entry = entry?;
                if entry.inode != 0 && fold(entry.name).as_ref() == Some(&wanted) {
                    let (inode, at) = (entry.inode, entry.at);
                    return Ok(Some(Found { inode, block, at }));
                }
            }
        }
        Ok(None)
    }

    fn find_in_block(&self, directory: &Inode, logical: u64, name: &[u8]) -> Result<Option<Found>> {
        let Some((block, bytes)) = self.directory_block(directory, logical)? else {
            return Ok(None);
        };
        for entry in dirent::entries(&bytes, self.shape.block_size) {
            let entry = entry?;
            if entry.inode != 0 && entry.name == name {
                let (inode, at) = (entry.inode, entry.at);
                return Ok(Some(Found { inode, block, at }));
            }
        }
        Ok(None)
    }

    /// True for a hashed directory whose index we use.
    pub(crate) fn is_indexed(&self, directory: &Inode) -> bool {
        directory.has_flag(flags::INDEX)
            && self.shape.has_compat(Compat::DIR_INDEX)
            && !directory.has_flag(flags::CASEFOLD)
    }

    /// True when nothing but `.` and `..` is in it.
    pub(crate) fn is_empty_directory(&self, directory: &Inode) -> Result<bool> {
        let mut empty = true;
        self.list(directory, 0, &mut |_, _, name, _| {
            empty = name == b"." || name == b"..";
            empty
        })?;
        Ok(empty)
    }

    // ---- changes ---------------------------------------------------------------------------

    /// Where entries of a block end.
    pub(crate) fn entries_end(&self) -> usize {
        self.shape.block_size - if self.shape.checksums { TAIL } else { 0 }
    }

    /// Adds a name that is not there. The directory's inode is changed but not stored.
    pub(crate) fn add_entry(
        &mut self,
        directory: &mut Inode,
        name: &[u8],
        inode: u32,
        kind: FileKind,
    ) -> Result<()> {
        check_name(name)?;
        let code = self.kind_code(kind);
        if directory.has_flag(flags::CASEFOLD) {
            return Err(Error::new(
                Kind::Unsupported,
                "Names cannot be added to a directory that ignores case",
            ));
        }
        if directory.has_flag(flags::INLINE_DATA) {
            self.directory_to_blocks(directory)?;
        }
        if self.is_indexed(directory) {
            return self.add_indexed(directory, name, inode, code);
        }
        // What the index does not describe any more must not be taken for one.
        directory.set_flag(flags::INDEX, false);
        let blocks = self.directory_blocks(directory);
        for logical in 0..blocks {
            if self.add_to_block(directory, logical, name, inode, code)? {
                return Ok(());
            }
        }
        if blocks == 1 && self.shape.has_compat(Compat::DIR_INDEX) {
            self.make_indexed(directory)?;
            return self.add_indexed(directory, name, inode, code);
        }
        let (place, _) = self.append_directory_block(directory)?;
        let (end, size) = (self.entries_end(), self.shape.block_size);
        dirent::insert(self.modify(place)?, end, size, inode, code, name)?;
        self.seal_directory_block(directory, place)
    }

    /// Adds to one block of the directory; false when it is full.
    pub(crate) fn add_to_block(
        &mut self,
        directory: &Inode,
        logical: u64,
        name: &[u8],
        inode: u32,
        code: u8,
    ) -> Result<bool> {
        let Some((place, block)) = self.directory_block(directory, logical)? else {
            return Ok(false);
        };
        let (end, size) = (self.entries_end(), self.shape.block_size);
        if self.shape.checksums && !dirent::has_tail(&block) {
            return Err(corrupt(format!("directory {} has no checksums", directory.number)));
        }
        if !has_room(&block, end, size, name.len())? {
            return Ok(false);
        }
        drop(block);
        dirent::insert(self.modify(place)?, end, size, inode, code, name)?;
        self.seal_directory_block(directory, place)?;
        Ok(true)
    }

    /// A further, empty block: its place and its number in the directory.
    pub(crate) fn append_directory_block(&mut self, directory: &mut Inode) -> Result<(u64, u64)> {
        let logical = self.directory_blocks(directory);
        if logical >= 1 << 31 >> self.shape.block_bits
            && !self.shape.has_incompat(Incompat::LARGEDIR)
        {
            return Err(errors::no_space());
        }
        let run = self.allocate_mapped(directory, logical, 1, false)?;
        let place = run.place.ok_or_else(errors::no_space)?;
        directory.set_size((logical + 1) << self.shape.block_bits);
        let (end, checksums) = (self.entries_end(), self.shape.checksums);
        let block = self.fresh(place)?;
        dirent::write(block, 0, end, 0, 0, b"");
        if checksums {
            dirent::write_tail(block);
        }
        self.seal_directory_block(directory, place)?;
        Ok((place, logical))
    }

    /// Removes a name that was found.
    pub(crate) fn remove_entry(
        &mut self,
        directory: &mut Inode,
        found: Found,
        name: &[u8],
    ) -> Result<()> {
        let found = if found.block == 0 {
            self.directory_to_blocks(directory)?;
            self.find(directory, name)?.ok_or_else(errors::not_found)?
        } else {
            found
        };
        let size = self.shape.block_size;
        let block = self.modify(found.block)?;
        let mut before = None;
        let mut at = 0;
        while at < found.at {
            before = Some(at);
            at += dirent::parse(block, at, size)?.length;
        }
        let length = dirent::parse(block, found.at, size)?.length;
        match before {
            Some(before) => {
                let joined = dirent::parse(block, before, size)?.length + length;
                dirent::set_length(block, before, joined);
            }
            None => put32(block, found.at, 0),
        }
        self.seal_directory_block(directory, found.block)
    }

    /// Lets a name that was found name another inode.
    pub(crate) fn change_entry(
        &mut self,
        directory: &mut Inode,
        found: Found,
        name: &[u8],
        inode: u32,
        kind: FileKind,
    ) -> Result<()> {
        let found = if found.block == 0 {
            self.directory_to_blocks(directory)?;
            self.find(directory, name)?.ok_or_else(errors::not_found)?
        } else {
            found
        };
        let code = self.kind_code(kind);
        let block = self.modify(found.block)?;
        put32(block, found.at, inode);
        if let Some(place) = block.get_mut(found.at + 7) {
            *place = code;
        }
        if name == b".." && found.at == 12 && directory.has_flag(flags::INDEX) {
            return self.seal_index_root(directory, found.block);
        }
        self.seal_directory_block(directory, found.block)
    }

    /// The first block of a new directory.
    pub(crate) fn start_directory(&mut self, directory: &mut Inode, parent: u32) -> Result<()> {
        let (place, _) = self.append_directory_block(directory)?;
        let (end, code) = (self.entries_end(), self.kind_code(FileKind::Directory));
        let number = directory.number;
        let block = self.modify(place)?;
        dirent::write(block, 0, 12, number, code, b".");
        dirent::write(block, 12, end - 12, parent, code, b"..");
        self.seal_directory_block(directory, place)
    }

    /// Gives an inline directory a block.
    fn directory_to_blocks(&mut self, directory: &mut Inode) -> Result<()> {
        let mut entries = Vec::new();
        self.list_inline(directory, 0, &mut |inode, kind, name, _| {
            entries.push((inode, kind, name.to_vec()));
            true
        })?;
        let parent = entries.get(1).map_or(super::core::ROOT, |entry| entry.0);
        self.drop_inline(directory)?;
        directory.set_size(0);
        self.start_directory(directory, parent)?;
        for (inode, code, name) in entries.into_iter().skip(2) {
            if !self.add_to_block(directory, 0, &name, inode, code)? {
                return Err(corrupt("an inline directory is larger than a block"));
            }
        }
        Ok(())
    }
}

/// True when a name of `length` bytes fits into the block.
fn has_room(block: &[u8], end: usize, size: usize, length: usize) -> Result<bool> {
    for entry in dirent::entries(block.get(..end).unwrap_or(block), size) {
        let entry = entry?;
        let used = if entry.inode == 0 { 0 } else { dirent::needed(entry.name.len()) };
        if entry.length >= used + dirent::needed(length) {
            return Ok(true);
        }
    }
    Ok(false)
}
