//! Indexed directories: block 0 is the root of a tree over name hashes, leaves are ordinary
//! directory blocks.

use disksmith_disk::Result;

use super::core::{Core, corrupt};
use super::dirent;
use super::features::Incompat;
use super::hash::{self, NameHash, name_hash};
use super::layout::inode::flags;
use super::layout::superblock::FLAG_UNSIGNED_HASH;
use super::layout::{Inode, le16, le32, put, put16, put32};
use crate::{FileKind, errors};

/// Where `limit` and `count` lie in the root, and in other index blocks.
pub(crate) const ROOT_AT: usize = 0x20;
const NODE_AT: usize = 8;

/// An index block on the way to a leaf.
#[derive(Clone, Debug)]
struct Frame {
    place: u64,
    /// Where limit and count lie.
    at: usize,
    count: usize,
    limit: usize,
    /// The entry followed.
    position: usize,
}

/// A name to be put into a directory.
#[derive(Clone, Debug)]
pub(crate) struct NewEntry {
    pub(crate) name: Vec<u8>,
    pub(crate) inode: u32,
    pub(crate) kind: FileKind,
}

fn entry(block: &[u8], at: usize, index: usize) -> (u32, u32) {
    (le32(block, at + index * 8), le32(block, at + index * 8 + 4))
}

impl Core {
    /// The hash version for new indexes, with the sign of bytes.
    pub(crate) fn hash_version(&self, stored: u8) -> u8 {
        let unsigned = self.sb.s_flags() & FLAG_UNSIGNED_HASH != 0;
        if stored <= hash::TEA && unsigned { stored + hash::UNSIGNED } else { stored }
    }

    fn root_version(&self, root: &[u8]) -> u8 {
        self.hash_version(root.get(0x1C).copied().unwrap_or(0))
    }

    fn levels_max(&self) -> u8 {
        if self.shape.has_incompat(Incompat::LARGEDIR) { 3 } else { 2 }
    }

    /// Entries that an index block holds from byte `at` on.
    pub(crate) fn index_limit(&self, at: usize) -> usize {
        let tail = if self.shape.checksums { 8 } else { 0 };
        (self.shape.block_size - at - tail) / 8
    }

    /// Reads an index block and finds the entry for `hash`.
    fn frame(&self, directory: &Inode, logical: u32, at: usize, hash: u32) -> Result<Frame> {
        let run = self.map(directory, logical.into(), 1)?;
        let bad = || corrupt(format!("the index of directory {} is bad", directory.number));
        let place = run.data().ok_or_else(bad)?;
        let block = self.block(place)?;
        let (limit, count) = (usize::from(le16(&block, at)), usize::from(le16(&block, at + 2)));
        if count == 0 || count > limit || limit > self.index_limit(at) + 1 {
            return Err(bad());
        }
        if self.shape.checksums {
            let tail = at + limit * 8;
            let sum = self.index_sum(directory, &block, at, count, tail);
            if tail + 8 > block.len() || le32(&block, tail + 4) != sum {
                return Err(corrupt(format!(
                    "the index of directory {} has a wrong checksum",
                    directory.number
                )));
            }
        }
        let mut position = 0;
        let (mut low, mut high) = (1, count);
        while low < high {
            let middle = usize::midpoint(low, high);
            if entry(&block, at, middle).0 <= hash {
                position = middle;
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(Frame { place, at, count, limit, position })
    }

    fn index_sum(
        &self,
        directory: &Inode,
        block: &[u8],
        at: usize,
        count: usize,
        tail: usize,
    ) -> u32 {
        let seed = self.inode_seed(directory);
        let sum = super::checksum::crc32c(seed, block.get(..at + count * 8).unwrap_or(&[]));
        let sum = super::checksum::crc32c(sum, block.get(tail..tail + 4).unwrap_or(&[]));
        super::checksum::crc32c(sum, &[0; 4])
    }

    fn seal_index(&mut self, directory: &Inode, place: u64, at: usize) -> Result<()> {
        if self.shape.checksums {
            let block = self.block(place)?;
            let (limit, count) = (usize::from(le16(&block, at)), usize::from(le16(&block, at + 2)));
            let tail = at + limit * 8;
            let sum = self.index_sum(directory, &block, at, count, tail);
            drop(block);
            put32(self.modify(place)?, tail + 4, sum);
        }
        Ok(())
    }

    /// Stores the checksum of the root after its `..` changed.
    pub(crate) fn seal_index_root(&mut self, directory: &Inode, place: u64) -> Result<()> {
        self.seal_index(directory, place, ROOT_AT)
    }

    /// Stores the checksum of an index block that is not the root.
    pub(crate) fn seal_index_node(&mut self, directory: &Inode, place: u64) -> Result<()> {
        self.seal_index(directory, place, NODE_AT)
    }

    /// The index blocks on the way to the leaf for `hash`.
    fn descend(&self, directory: &Inode, hash: u32, levels: u8) -> Result<Vec<Frame>> {
        let mut frames = vec![self.frame(directory, 0, ROOT_AT, hash)?];
        for _ in 0..levels {
            let next = match frames.last() {
                Some(frame) => entry(&self.block(frame.place)?, frame.at, frame.position).1,
                None => break,
            };
            frames.push(self.frame(directory, next & 0x0fff_ffff, NODE_AT, hash)?);
        }
        Ok(frames)
    }

    fn root_levels(&self, root: &[u8]) -> Option<u8> {
        let levels = root.get(0x1E).copied()?;
        let sound = le32(root, 0x18) == 0 && root.get(0x1D) == Some(&8);
        (sound && levels <= self.levels_max()).then_some(levels)
    }

    /// The leaves that can hold `name`; `None` when the index cannot be used.
    pub(crate) fn index_leaves(&self, directory: &Inode, name: &[u8]) -> Result<Option<Vec<u64>>> {
        let Some((_, root)) = self.directory_block(directory, 0)? else { return Ok(None) };
        let Some(levels) = self.root_levels(&root) else { return Ok(None) };
        let Ok(hash) = name_hash(name, self.root_version(&root), self.shape.hash_seed) else {
            return Ok(None);
        };
        let Ok(mut frames) = self.descend(directory, hash.major, levels) else { return Ok(None) };
        let mut leaves = Vec::new();
        loop {
            let Some(last) = frames.last() else { return Ok(None) };
            let block = self.block(last.place)?;
            leaves.push(u64::from(entry(&block, last.at, last.position).1 & 0x0fff_ffff));
            // The hash may go on in the next leaf: its entry's lowest bit says so.
            let Some(next) = self.next_leaf_hash(directory, &mut frames)? else { break };
            if next & 1 == 0 || next & !1 != hash.major || leaves.len() > 4096 {
                break;
            }
        }
        Ok(Some(leaves))
    }

    /// Moves to the next leaf; answers the hash it begins with.
    fn next_leaf_hash(&self, directory: &Inode, frames: &mut [Frame]) -> Result<Option<u32>> {
        let Some(level) = frames.iter().rposition(|frame| frame.position + 1 < frame.count) else {
            return Ok(None);
        };
        frames[level].position += 1;
        let start =
            entry(&self.block(frames[level].place)?, frames[level].at, frames[level].position).0;
        for below in level + 1..frames.len() {
            let parent = &frames[below - 1];
            let next = entry(&self.block(parent.place)?, parent.at, parent.position).1;
            frames[below] = self.frame(directory, next & 0x0fff_ffff, NODE_AT, 0)?;
            frames[below].position = 0;
        }
        Ok(Some(start))
    }

    // ---- changes ---------------------------------------------------------------------------

    /// Turns a directory of one block into an indexed one with one leaf.
    pub(crate) fn make_indexed(&mut self, directory: &mut Inode) -> Result<()> {
        let (root_place, old) =
            self.directory_block(directory, 0)?.ok_or_else(|| corrupt("a directory has a hole"))?;
        let (leaf_place, leaf) = self.append_directory_block(directory)?;
        let (size, end) = (self.shape.block_size, self.entries_end());
        let mut parent = directory.number;
        let mut packer = Packer::new(size, end);
        for entry in dirent::entries(&old, size) {
            let entry = entry?;
            match entry.name {
                b"." => {}
                b".." => parent = entry.inode,
                name if entry.inode != 0 => {
                    packer.push(entry.inode, entry.kind, name);
                }
                _ => {}
            }
        }
        packer.finish(self.modify(leaf_place)?);
        self.note_arrival(leaf_place);
        self.seal_directory_block(directory, leaf_place)?;
        self.write_index_root(directory, root_place, parent, 0, &[(0, leaf as u32)])?;
        directory.set_flag(flags::INDEX, true);
        Ok(())
    }

    fn write_index_root(
        &mut self,
        directory: &Inode,
        place: u64,
        parent: u32,
        levels: u8,
        entries: &[(u32, u32)],
    ) -> Result<()> {
        let size = self.shape.block_size;
        let code = self.kind_code(FileKind::Directory);
        let version = self.sb.s_def_hash_version();
        let limit = self.index_limit(ROOT_AT);
        let block = self.modify(place)?;
        block.fill(0);
        dirent::write(block, 0, 12, directory.number, code, b".");
        dirent::write(block, 12, size - 12, parent, code, b"..");
        put(block, 0x1C, &[version, 8, levels, 0]);
        write_index_entries(block, ROOT_AT, limit, entries);
        self.seal_index(directory, place, ROOT_AT)
    }

    /// A further index block with these entries: its number in the directory.
    fn new_index_node(&mut self, directory: &mut Inode, entries: &[(u32, u32)]) -> Result<u32> {
        let (place, logical) = self.append_directory_block(directory)?;
        let size = self.shape.block_size;
        let limit = self.index_limit(NODE_AT);
        let block = self.modify(place)?;
        block.fill(0);
        dirent::set_length(block, 0, size);
        write_index_entries(block, NODE_AT, limit, entries);
        self.seal_index(directory, place, NODE_AT)?;
        Ok(logical as u32)
    }

    fn insert_index_entry(
        &mut self,
        directory: &Inode,
        frame: &Frame,
        hash: u32,
        logical: u32,
    ) -> Result<()> {
        let at = frame.at;
        let block = self.modify(frame.place)?;
        let from = at + (frame.position + 1) * 8;
        let to = at + frame.count * 8;
        if to + 8 > block.len() || from > to {
            return Err(corrupt("a directory index overflows"));
        }
        block.copy_within(from..to, from + 8);
        put32(block, from, hash);
        put32(block, from + 4, logical);
        put16(block, at + 2, (frame.count + 1) as u16);
        self.seal_index(directory, frame.place, at)
    }

    /// Adds a name to an indexed directory.
    pub(crate) fn add_indexed(
        &mut self,
        directory: &mut Inode,
        name: &[u8],
        inode: u32,
        code: u8,
    ) -> Result<()> {
        let (_, root) =
            self.directory_block(directory, 0)?.ok_or_else(|| corrupt("a directory has a hole"))?;
        let bad = || corrupt(format!("the index of directory {} is bad", directory.number));
        let version = self.root_version(&root);
        let hash = name_hash(name, version, self.shape.hash_seed)?;
        let levels = self.root_levels(&root).ok_or_else(bad)?;
        drop(root);
        let frames = self.descend(directory, hash.major, levels)?;
        let last = frames.last().ok_or_else(bad)?;
        let leaf = entry(&self.block(last.place)?, last.at, last.position).1 & 0x0fff_ffff;
        if self.add_to_block(directory, leaf.into(), name, inode, code)? {
            return Ok(());
        }
        let frames = self.make_room(directory, hash.major, frames)?;
        let last = frames.last().ok_or_else(bad_index)?;
        let leaf = entry(&self.block(last.place)?, last.at, last.position).1 & 0x0fff_ffff;
        let (middle, upper) = self.split_leaf(directory, leaf, version)?;
        self.insert_index_entry(directory, last, middle, upper)?;
        let target =
            if hash.major >= middle & !1 && hash.major | 1 >= middle { upper } else { leaf };
        if self.add_to_block(directory, target.into(), name, inode, code)? {
            return Ok(());
        }
        // Both halves are full of long names: the other one, or split again.
        self.add_indexed(directory, name, inode, code)
    }

    /// Splits index blocks until the one above the leaf has room for one more entry.
    fn make_room(
        &mut self,
        directory: &mut Inode,
        hash: u32,
        mut frames: Vec<Frame>,
    ) -> Result<Vec<Frame>> {
        for _ in 0..8 {
            let full = frames.iter().rev().take_while(|frame| frame.count >= frame.limit).count();
            if full == 0 {
                return Ok(frames);
            }
            let level = frames.len() - full;
            if level == 0 {
                self.grow_index(directory, &frames)?;
            } else {
                self.split_node(directory, &frames[level - 1], &frames[level])?;
            }
            let root = self.directory_block(directory, 0)?.ok_or_else(bad_index)?.1;
            let levels = self.root_levels(&root).ok_or_else(bad_index)?;
            drop(root);
            frames = self.descend(directory, hash, levels)?;
        }
        Err(bad_index())
    }

    /// Puts a level between the root and what it points to.
    fn grow_index(&mut self, directory: &mut Inode, frames: &[Frame]) -> Result<()> {
        let root = frames.first().ok_or_else(bad_index)?.clone();
        if frames.len() >= usize::from(self.levels_max()) {
            return Err(errors::no_space());
        }
        let block = self.block(root.place)?;
        let entries: Vec<(u32, u32)> = (0..root.count)
            .map(|index| entry(&block, ROOT_AT, index))
            .enumerate()
            .map(|(index, (hash, to))| (if index == 0 { 0 } else { hash }, to))
            .collect();
        drop(block);
        let node = self.new_index_node(directory, &entries)?;
        let limit = root.limit;
        let levels = frames.len() as u8;
        let block = self.modify(root.place)?;
        put(block, 0x1E, &[levels]);
        let tail = ROOT_AT + limit * 8;
        if let Some(area) = block.get_mut(ROOT_AT..tail) {
            area.fill(0);
        }
        write_index_entries(block, ROOT_AT, limit, &[(0, node)]);
        self.seal_index(directory, root.place, ROOT_AT)
    }

    /// Moves the upper half of an index block to a new one.
    fn split_node(&mut self, directory: &mut Inode, parent: &Frame, node: &Frame) -> Result<()> {
        let block = self.block(node.place)?;
        let middle = node.count / 2;
        let upper: Vec<(u32, u32)> =
            (middle..node.count).map(|index| entry(&block, node.at, index)).collect();
        drop(block);
        let hash = upper.first().map_or(0, |entry| entry.0);
        let new = self.new_index_node(directory, &upper)?;
        let block = self.modify(node.place)?;
        put16(block, node.at + 2, middle as u16);
        if let Some(area) = block.get_mut(node.at + middle * 8..node.at + node.limit * 8) {
            area.fill(0);
        }
        self.seal_index(directory, node.place, node.at)?;
        self.insert_index_entry(directory, parent, hash, new)
    }

    /// Moves the upper half of a leaf to a new one: the hash from which on, and its number.
    fn split_leaf(&mut self, directory: &mut Inode, leaf: u32, version: u8) -> Result<(u32, u32)> {
        let (place, old) = self.directory_block(directory, leaf.into())?.ok_or_else(bad_index)?;
        let (size, end) = (self.shape.block_size, self.entries_end());
        let mut entries: Vec<(NameHash, u32, u8, Vec<u8>)> = Vec::new();
        for entry in dirent::entries(&old, size) {
            let entry = entry?;
            if entry.inode != 0 {
                let hash = name_hash(entry.name, version, self.shape.hash_seed)?;
                entries.push((hash, entry.inode, entry.kind, entry.name.to_vec()));
            }
        }
        drop(old);
        entries.sort_by(|a, b| (a.0, &a.3).cmp(&(b.0, &b.3)));
        let total: usize = entries.iter().map(|entry| dirent::needed(entry.3.len())).sum();
        let mut taken = 0;
        let middle = entries
            .iter()
            .position(|entry| {
                taken += dirent::needed(entry.3.len());
                taken > total / 2
            })
            .unwrap_or(0)
            .clamp(1, entries.len().saturating_sub(1).max(1));
        if entries.len() < 2 {
            return Err(bad_index());
        }
        let (lower, upper) = entries.split_at(middle);
        let start = upper[0].0.major;
        let continued = u32::from(lower.last().is_some_and(|last| last.0.major == start));
        let (new_place, new) = self.append_directory_block(directory)?;
        self.note_arrival(new_place);
        for (place, half) in [(place, lower), (new_place, upper)] {
            let mut packer = Packer::new(size, end);
            for (_, inode, kind, name) in half {
                packer.push(*inode, *kind, name);
            }
            packer.finish(self.modify(place)?);
            self.seal_directory_block(directory, place)?;
        }
        Ok((start + continued, new as u32))
    }

    /// Writes a whole new directory at once: indexed when it has more than one block.
    pub(crate) fn build_directory(
        &mut self,
        directory: &mut Inode,
        parent: u32,
        entries: &[NewEntry],
        least_blocks: u64,
    ) -> Result<()> {
        let (size, end) = (self.shape.block_size, self.entries_end());
        let bytes: usize = entries.iter().map(|entry| dirent::needed(entry.name.len())).sum();
        if 24 + bytes <= end || !self.shape.has_compat(super::features::Compat::DIR_INDEX) {
            return self.build_linear(directory, parent, entries, least_blocks);
        }
        let version = self.hash_version(self.sb.s_def_hash_version());
        let mut hashed = Vec::with_capacity(entries.len());
        for entry in entries {
            hashed.push((name_hash(&entry.name, version, self.shape.hash_seed)?, entry));
        }
        hashed.sort_by(|a, b| (a.0, &a.1.name).cmp(&(b.0, &b.1.name)));
        // An eighth is left free, so that the first names added later split nothing.
        let fill = end - end / 8;
        let mut leaves: Vec<(u32, Vec<&(NameHash, &NewEntry)>)> = Vec::new();
        let mut used = usize::MAX;
        let mut before = None;
        for item in &hashed {
            let need = dirent::needed(item.1.name.len());
            if used.saturating_add(need) > fill {
                let continued = u32::from(before == Some(item.0.major));
                let start = if leaves.is_empty() { 0 } else { item.0.major + continued };
                leaves.push((start, Vec::new()));
                used = 0;
            }
            used += need;
            before = Some(item.0.major);
            if let Some((_, leaf)) = leaves.last_mut() {
                leaf.push(item);
            }
        }
        let (root_place, _) = self.append_directory_block(directory)?;
        let mut level = Vec::with_capacity(leaves.len());
        for (start, leaf) in &leaves {
            let (place, logical) = self.append_directory_block(directory)?;
            let mut packer = Packer::new(size, end);
            for (_, entry) in leaf {
                packer.push(entry.inode, self.kind_code(entry.kind), &entry.name);
            }
            packer.finish(self.modify(place)?);
            self.seal_directory_block(directory, place)?;
            level.push((*start, logical as u32));
        }
        let mut levels = 0;
        while level.len() > self.index_limit(ROOT_AT) {
            if levels + 1 >= self.levels_max() {
                return Err(errors::no_space());
            }
            let mut above = Vec::new();
            for chunk in level.chunks(self.index_limit(NODE_AT)) {
                above.push((chunk[0].0, self.new_index_node(directory, chunk)?));
            }
            level = above;
            levels += 1;
        }
        self.write_index_root(directory, root_place, parent, levels, &level)?;
        directory.set_flag(flags::INDEX, true);
        Ok(())
    }

    fn build_linear(
        &mut self,
        directory: &mut Inode,
        parent: u32,
        entries: &[NewEntry],
        least_blocks: u64,
    ) -> Result<()> {
        let (size, end) = (self.shape.block_size, self.entries_end());
        let code = self.kind_code(FileKind::Directory);
        let mut packer = Packer::new(size, end);
        packer.push(directory.number, code, b".");
        packer.push(parent, code, b"..");
        let mut rest = entries.iter().peekable();
        loop {
            while let Some(entry) = rest.peek() {
                if !packer.fits(entry.name.len()) {
                    break;
                }
                packer.push(entry.inode, self.kind_code(entry.kind), &entry.name);
                rest.next();
            }
            let (place, _) = self.append_directory_block(directory)?;
            packer.finish(self.modify(place)?);
            self.seal_directory_block(directory, place)?;
            if rest.peek().is_none() {
                break;
            }
            packer = Packer::new(size, end);
        }
        while self.directory_blocks(directory) < least_blocks {
            self.append_directory_block(directory)?;
        }
        Ok(())
    }
}

fn bad_index() -> disksmith_disk::Error {
    corrupt("a directory index is bad")
}

fn write_index_entries(block: &mut [u8], at: usize, limit: usize, entries: &[(u32, u32)]) {
    for (index, (hash, logical)) in entries.iter().enumerate() {
        put32(block, at + index * 8, *hash);
        put32(block, at + index * 8 + 4, *logical);
    }
    put16(block, at, limit as u16);
    put16(block, at + 2, entries.len() as u16);
}

/// Lays entries out in a block one after the other.
struct Packer {
    /// One block.
    bytes: Vec<u8>,
    end: usize,
    at: usize,
    last: Option<usize>,
}

impl Packer {
    fn new(size: usize, end: usize) -> Self {
        Self { bytes: vec![0; size], end, at: 0, last: None }
    }

    fn fits(&self, name_length: usize) -> bool {
        self.at + dirent::needed(name_length) <= self.end
    }

    fn push(&mut self, inode: u32, kind: u8, name: &[u8]) {
        let need = dirent::needed(name.len());
        dirent::write(&mut self.bytes, self.at, need, inode, kind, name);
        self.last = Some(self.at);
        self.at += need;
    }

    fn finish(mut self, block: &mut [u8]) {
        match self.last {
            Some(last) => dirent::set_length(&mut self.bytes, last, self.end - last),
            None => dirent::write(&mut self.bytes, 0, self.end, 0, 0, b""),
        }
        if self.end < self.bytes.len() {
            dirent::write_tail(&mut self.bytes);
        }
        block.copy_from_slice(&self.bytes);
    }
}
