//! Every directory: its blocks, its entries, its index.

use std::collections::HashSet;

use disksmith_disk::Result;

use super::state::Fsck;
use crate::FileKind;
use crate::ext::bitmap;
use crate::ext::core::ROOT;
use crate::ext::dirent;
use crate::ext::features::Incompat;
use crate::ext::htree::ROOT_AT;
use crate::ext::layout::group::INODE_UNINIT;
use crate::ext::layout::inode::flags;
use crate::ext::layout::{Inode, le16, put, put32};

/// Byte of the superblock's `s_encoding_flags`; bit 0: names must be valid in the encoding.
const ENCODING_FLAGS_AT: usize = 0x27E;

/// The last version of name hashes.
const HASH_VERSION_MAX: u8 = 6;
/// An encrypted name has at least one block of the cipher.
const ENCRYPTED_NAME_LEAST: usize = 16;

/// An entry as it lies on disk.
struct Named {
    inode: u32,
    kind: u8,
    name: Vec<u8>,
    /// Its block; 0 in an inline directory.
    place: u64,
    at: usize,
}

/// What to do about an entry.
enum Verdict {
    Fine,
    /// It goes.
    Drop,
    /// It gets this file type.
    Kind(u8),
    /// It gets this name, as long as the old one.
    Name(Vec<u8>),
    /// It gets this inode.
    Inode(u32),
    /// The directory is built anew.
    Rebuild,
}

impl Fsck {
    pub(super) fn directories(&mut self) -> Result<()> {
        let numbers: Vec<u32> = self.folders.keys().copied().collect();
        for number in numbers {
            let Ok(mut directory) = self.core.inode_unchecked(number) else { continue };
            let before = directory.raw.clone();
            self.directory(&mut directory)?;
            self.store(&directory, &before)?;
            self.save_if_much()?;
        }
        Ok(())
    }

    fn rebuild(&mut self, number: u32, text: String) {
        if self.problem(text) {
            self.waiting.rebuild.insert(number);
        }
    }

    fn directory(&mut self, directory: &mut Inode) -> Result<()> {
        let mut names = HashSet::new();
        let mut position = 0;
        let number = directory.number;
        if directory.has_flag(flags::INLINE_DATA) {
            return self.inline_directory(directory);
        }
        let size = self.core.shape.block_size;
        for logical in 0..self.core.directory_blocks(directory) {
            let place = match self.core.map(directory, logical, 1) {
                Ok(run) => run.data(),
                Err(_) => None,
            };
            let Some(place) = place else {
                self.rebuild(number, format!("Directory {number} has a hole at block {logical}"));
                continue;
            };
            let Ok(block) = self.core.block(place) else {
                self.rebuild(number, format!("Directory {number} cannot be read at {logical}"));
                continue;
            };
            if logical == 0 && directory.has_flag(flags::INDEX) {
                self.index_root(number, &block);
            }
            let indexed = directory.has_flag(flags::INDEX)
                && (logical == 0 || dirent::fills_block(&block, size));
            if self.core.shape.checksums && !indexed {
                self.leaf_checksum(directory, logical, place, &block)?;
            }
            let mut inside = Vec::new();
            for entry in dirent::entries(&block, size) {
                match entry {
                    Ok(entry) => inside.push(Named {
                        inode: entry.inode,
                        kind: entry.kind,
                        name: entry.name.to_vec(),
                        place,
                        at: entry.at,
                    }),
                    Err(error) => self
                        .rebuild(number, format!("Directory {number}, block {logical}: {error}")),
                }
            }
            drop(block);
            for entry in inside {
                if entry.inode != 0 || position < 2 {
                    let known = self.waiting.rebuild.contains(&number);
                    self.entry(directory, &entry, position, &mut names)?;
                    if position >= 2 && !known {
                        self.index_leads_to(directory, &entry.name, logical);
                    }
                    position += 1;
                }
            }
        }
        if position < 2 {
            self.rebuild(number, format!("Directory {number} lacks '.' or '..'"));
        }
        Ok(())
    }

    /// The index's own header, behind the entries `.` and `..`.
    fn index_root(&mut self, number: u32, block: &[u8]) {
        let byte = |at: usize| block.get(at).copied().unwrap_or(0);
        let sound = crate::ext::layout::le32(block, 0x18) == 0
            && byte(0x1C) <= HASH_VERSION_MAX
            && byte(0x1D) == 8
            && byte(0x1F) & 1 == 0;
        if !sound {
            self.rebuild(number, format!("The index of directory {number} has a bad root"));
        }
        // How many entries it has room for depends on whether it has a checksum.
        let limit = usize::from(le16(block, ROOT_AT));
        if limit != self.core.index_limit(ROOT_AT) {
            let text = format!("The index of directory {number} has a root for {limit} entries");
            self.rebuild(number, text);
        }
    }

    fn leaf_checksum(
        &mut self,
        directory: &Inode,
        logical: u64,
        place: u64,
        block: &[u8],
    ) -> Result<()> {
        let number = directory.number;
        let end = block.len() - dirent::TAIL;
        // The tail counts only where the entries lead to it.
        let reached = dirent::entries(block, block.len())
            .map_while(std::result::Result::ok)
            .any(|entry| entry.at == end);
        if !dirent::has_tail(block) || !reached {
            let text = format!("Block {logical} of directory {number} has no checksum");
            self.rebuild(number, text);
            return Ok(());
        }
        if !self.core.tail_is_right_at(directory, block, end, end + 8)
            && self.problem(format!("Block {logical} of directory {number} has a wrong checksum"))
        {
            self.core.seal_directory_block(directory, place)?;
        }
        Ok(())
    }

    fn index_leads_to(&mut self, directory: &Inode, name: &[u8], logical: u64) {
        if !self.core.is_indexed(directory) {
            return;
        }
        let leaves = self.core.index_leaves(directory, name);
        if !matches!(leaves, Ok(Some(leaves)) if leaves.contains(&logical)) {
            let number = directory.number;
            self.rebuild(
                number,
                format!("The index of directory {number} does not lead to a name"),
            );
        }
    }

    fn inline_directory(&mut self, directory: &mut Inode) -> Result<()> {
        let number = directory.number;
        let mut names = HashSet::new();
        let mut entries = Vec::new();
        let listed = self.core.list(directory, 0, &mut |inode, kind, name, _| {
            entries.push(Named { inode, kind, name: name.to_vec(), place: 0, at: 0 });
            true
        });
        if let Err(error) = listed {
            self.rebuild(number, format!("Directory {number} is bad: {error}"));
        }
        for (position, entry) in entries.iter().enumerate() {
            self.entry(directory, entry, position, &mut names)?;
        }
        Ok(())
    }

    /// Judges an entry and does what follows.
    fn entry(
        &mut self,
        directory: &mut Inode,
        entry: &Named,
        position: usize,
        names: &mut HashSet<Vec<u8>>,
    ) -> Result<()> {
        let verdict = self.judge(directory, entry, position, names);
        let number = directory.number;
        self.terminate_dots(directory, entry, position)?;
        if matches!(verdict, Verdict::Fine) {
            return Ok(());
        }
        if entry.place == 0 || matches!(verdict, Verdict::Rebuild) {
            self.waiting.rebuild.insert(number);
            return Ok(());
        }
        let block = self.core.modify(entry.place)?;
        match verdict {
            Verdict::Drop => put32(block, entry.at, 0),
            Verdict::Kind(kind) => put(block, entry.at + 7, &[kind]),
            Verdict::Name(name) => put(block, entry.at + 8, &name),
            Verdict::Inode(inode) => put32(block, entry.at, inode),
            Verdict::Fine | Verdict::Rebuild => {}
        }
        self.core.seal_any_directory_block(directory, entry.place)
    }

    /// What follows the names `.` and `..` is a zero.
    fn terminate_dots(&mut self, directory: &Inode, entry: &Named, position: usize) -> Result<()> {
        let dots = entry.name == b"." || entry.name == b"..";
        if position > 1 || !dots || entry.place == 0 {
            return Ok(());
        }
        let at = entry.at + 8 + entry.name.len();
        let ended = self.core.block(entry.place)?.get(at) == Some(&0);
        let shown = if position == 0 { "." } else { ".." };
        let text = format!("'{shown}' of directory {} does not end with a zero", directory.number);
        if !ended && self.slip(text) {
            put(self.core.modify(entry.place)?, at, &[0]);
            self.core.seal_any_directory_block(directory, entry.place)?;
        }
        Ok(())
    }

    fn judge(
        &mut self,
        directory: &Inode,
        entry: &Named,
        position: usize,
        names: &mut HashSet<Vec<u8>>,
    ) -> Verdict {
        let number = directory.number;
        let name = &entry.name[..];
        match position {
            0 if name != b"." => {
                return self.or_fine(
                    format!("Directory {number} does not begin with '.'"),
                    Verdict::Rebuild,
                );
            }
            0 if entry.inode != number => {
                let text = format!("'.' of directory {number} is {}", entry.inode);
                return self.or_fine(text, Verdict::Inode(number));
            }
            0 => return Verdict::Fine,
            1 if name != b".." => {
                return self.or_fine(format!("Directory {number} has no '..'"), Verdict::Rebuild);
            }
            1 => {
                self.folders.entry(number).or_default().dotdot = entry.inode;
                if entry.inode == 0 || entry.inode > self.core.shape.inodes {
                    let text = format!("'..' of directory {number} is {}", entry.inode);
                    return self.or_fine(text, Verdict::Inode(ROOT));
                }
                return Verdict::Fine;
            }
            _ => {}
        }
        let shown = String::from_utf8_lossy(name);
        let text = || format!("Directory {number} has the name '{shown}'");
        if name.is_empty() || name == b"." || name == b".." {
            return self.or_fine(text(), Verdict::Drop);
        }
        if let Some(better) = self.better_name(directory, name) {
            let verdict = self.or_fine(text(), Verdict::Name(better));
            self.waiting.rebuild.extend(self.repairing().then_some(number));
            self.known.count_name(entry.inode);
            return verdict;
        }
        if let Some(verdict) = self.target(number, entry, &shown) {
            return verdict;
        }
        if let Some(verdict) = self.encrypted_entry(directory, entry) {
            return verdict;
        }
        self.known.count_name(entry.inode);
        if !names.insert(name.to_vec()) {
            let text = format!("Directory {number} has the name '{shown}' twice");
            // Building it anew gives the second another name.
            return self.or_fine(text, Verdict::Rebuild);
        }
        let Some(actual) = self.known.kind(entry.inode) else { return Verdict::Fine };
        if actual == FileKind::Directory {
            let folder = self.folders.entry(entry.inode).or_default();
            if folder.named_in != 0 || entry.inode == ROOT {
                let text = format!("Directory {} has two names", entry.inode);
                return self.or_fine(text, Verdict::Drop);
            }
            folder.named_in = number;
            self.folders.entry(number).or_default().subfolders += 1;
        }
        let code = dirent::kind_code(actual);
        if self.core.shape.has_incompat(Incompat::FILETYPE)
            && entry.kind != code
            && !self.is_foreign()
        {
            let text = format!("'{shown}' in directory {number} is given a wrong file type");
            return match self.slip(text) {
                true => Verdict::Kind(code),
                false => Verdict::Fine,
            };
        }
        Verdict::Fine
    }

    /// Judges an entry of an encrypted directory; `None` when it may be there.
    fn encrypted_entry(&mut self, directory: &Inode, entry: &Named) -> Option<Verdict> {
        let policy = self.policies.get(&directory.number)?.clone();
        let (number, inode) = (directory.number, entry.inode);
        let what = if entry.name.len() < ENCRYPTED_NAME_LEAST {
            "a name that is too short"
        } else {
            let kind = self.known.kind(inode)?;
            match (kind, self.policies.get(&inode)) {
                (FileKind::Regular | FileKind::Directory | FileKind::Symlink, None) => {
                    "a file that is not encrypted"
                }
                (_, Some(other)) if *other != policy => "a file that is encrypted otherwise",
                _ => return None,
            }
        };
        let text = format!("Encrypted directory {number} has {what} (inode {inode})");
        Some(self.or_fine(text, Verdict::Drop))
    }

    fn or_fine(&mut self, text: String, verdict: Verdict) -> Verdict {
        if self.problem(text) { verdict } else { Verdict::Fine }
    }

    /// What a name should be instead, if it cannot be a name.
    fn better_name(&self, directory: &Inode, name: &[u8]) -> Option<Vec<u8>> {
        if directory.has_flag(flags::ENCRYPT) {
            return None;
        }
        let forbidden = |byte: &u8| matches!(byte, 0 | b'/');
        if name.iter().any(forbidden) {
            return Some(name.iter().map(|b| if forbidden(b) { b'.' } else { *b }).collect());
        }
        let strict = self.core.sb.raw.get(ENCODING_FLAGS_AT).is_some_and(|flags| flags & 1 != 0);
        let folded = directory.has_flag(flags::CASEFOLD) && strict;
        (folded && std::str::from_utf8(name).is_err())
            .then(|| name.iter().map(|b| if b.is_ascii() { *b } else { b'.' }).collect())
    }

    /// Judges the inode that an entry names; `None` when it is in use.
    fn target(&mut self, number: u32, entry: &Named, shown: &str) -> Option<Verdict> {
        let (shape, inode) = (self.core.shape, entry.inode);
        let listed = self.is_used(inode) && (inode >= shape.first_inode || inode == ROOT);
        if listed {
            return None;
        }
        let text =
            format!("'{shown}' in directory {number} names inode {inode}, which is not in use");
        if !self.problem(text) {
            return Some(Verdict::Fine);
        }
        if self.wake(inode) {
            // It lies where the group says that no inode is: looked at in the next round.
            self.known.count_name(inode);
            return Some(Verdict::Fine);
        }
        Some(Verdict::Drop)
    }

    /// Makes the part of an inode table count that holds `inode`, if that looks in use.
    fn wake(&mut self, inode: u32) -> bool {
        let shape = self.core.shape;
        if !shape.lazy_groups || inode < shape.first_inode || inode > shape.inodes {
            return false;
        }
        let (group, index) = shape.inode_place(inode);
        let Ok(descriptor) = self.core.group(group).copied() else { return false };
        let used = match descriptor.has_flag(INODE_UNINIT) {
            true => 0,
            false => shape.inodes_per_group.saturating_sub(descriptor.itable_unused()),
        };
        let there = self.core.inode_unchecked(inode).is_ok_and(|found| {
            found.i_links_count() > 0 && found.kind().is_some() && found.i_dtime() == 0
        });
        if index < used || !there {
            return false;
        }
        let Ok(descriptor) = self.core.group_mut(group) else { return false };
        descriptor.set_flag(INODE_UNINIT, false);
        descriptor.set_itable_unused(0);
        bitmap::set(&mut self.inodes, u64::from(inode - 1), true);
        true
    }
}
