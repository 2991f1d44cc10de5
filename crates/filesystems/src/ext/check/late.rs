//! What needs space: copies of blocks that two claim, directories built anew, `lost+found`.
//!
//! The bitmaps are right by now, but for blocks of what is replaced here: these are found to be free
//! in the next round.

use std::collections::{HashMap, HashSet};

use disksmith_disk::{Error, Kind, Result};

use super::mapping::{edit_pointers, read};
use super::state::{Fsck, Waiting};
use crate::ext::bitmap;
use crate::ext::core::{Core, JOURNAL_INODE, ROOT};
use crate::ext::dirent;
use crate::ext::features::Compat;
use crate::ext::htree::NewEntry;
use crate::ext::layout::inode::flags;
use crate::ext::layout::{Inode, put32};
use crate::ext::mkfs::{add_journal, default_journal_blocks, make_resize_inode};
use crate::{FileKind, NewFile};

/// Where what has no name is put.
const LOST: &[u8] = b"lost+found";
/// The longest name.
const NAME_MAX: usize = 255;

impl Fsck {
    pub(super) fn late(&mut self) -> Result<()> {
        if !self.repairing() {
            return Ok(());
        }
        let waiting = std::mem::take(&mut self.waiting);
        if waiting.resize_inode {
            self.attempt("the resize inode", make_resize_inode);
        }
        if waiting.journal {
            self.attempt("the journal", new_journal);
        }
        if waiting.root {
            self.attempt("the root directory", new_root);
            return Ok(());
        }
        self.copies(&waiting)?;
        for (number, parent) in &waiting.parents {
            self.attempt(&format!("directory {number}"), |core| set_parent(core, *number, *parent));
        }
        for number in &waiting.rebuild {
            let parent = self.folders.get(number).map_or(ROOT, |folder| folder.dotdot);
            let parent = if self.folders.contains_key(&parent) { parent } else { ROOT };
            let entries = self.collect(*number);
            self.attempt(&format!("directory {number}"), |core| {
                build(core, *number, parent, &entries)
            });
        }
        for number in &waiting.connect {
            let Some(kind) = self.known.kind(*number) else { continue };
            self.attempt(&format!("inode {number}"), |core| connect(core, *number, kind));
        }
        Ok(())
    }

    /// Does one thing whole or not at all.
    fn attempt(&mut self, what: &str, act: impl FnOnce(&mut Core) -> Result<()>) {
        self.core.begin();
        match act(&mut self.core) {
            Ok(()) => self.core.finish(),
            Err(why) => {
                self.core.rollback();
                self.found(format!("Could not mend {what}: {why}"));
            }
        }
    }

    // ---- blocks claimed twice --------------------------------------------------------------

    fn copies(&mut self, waiting: &Waiting) -> Result<()> {
        if waiting.copies.is_empty() || self.core.shape.cluster_bits > 0 {
            return Ok(());
        }
        let owners = self.owners();
        let first = self.core.shape.first_block;
        let shared: HashSet<u64> = self.twice.iter().map(|bit| bit + first).collect();
        for number in &waiting.copies {
            self.attempt(&format!("inode {number}"), |core| {
                copy_shared(core, *number, &shared, &owners)
            });
            self.save_if_much()?;
        }
        Ok(())
    }

    /// Who keeps each block that is claimed twice: who claimed it first; 0 for the groups' own.
    fn owners(&self) -> HashMap<u64, u32> {
        let mut owners = HashMap::new();
        let (core, shape) = (&self.core, self.core.shape);
        let mut note = |owner: u32, start: u64, count: u64| {
            let from = self.cluster(start);
            for bit in self.twice.range(from..from + count) {
                owners.entry(bit + shape.first_block).or_insert(owner);
            }
        };
        let reserved = u64::from(core.sb.s_reserved_gdt_blocks());
        for (group, descriptor) in (0..).zip(&core.groups) {
            note(0, shape.group_first_block(group), shape.group_base_blocks(group, reserved));
            note(0, descriptor.block_bitmap(), 1);
            note(0, descriptor.inode_bitmap(), 1);
            note(0, descriptor.inode_table(), shape.table_blocks());
        }
        for number in (1..=shape.inodes).filter(|n| bitmap::get(&self.inodes, u64::from(n - 1))) {
            let Ok(inode) = core.inode_unchecked(number) else { continue };
            if inode.file_acl() != 0 {
                note(number, inode.file_acl(), 1);
            }
            if core.has_mapping(&inode) {
                let mapped = read(core, &inode);
                mapped.tree.iter().for_each(|block| note(number, *block, 1));
                mapped.pieces.iter().for_each(|piece| note(number, piece.place, piece.length));
            }
        }
        owners
    }

    // ---- directories -----------------------------------------------------------------------

    /// What can be read of a directory; names that are there twice are told apart.
    fn collect(&self, number: u32) -> Vec<NewEntry> {
        let mut entries = Vec::new();
        let Ok(directory) = self.core.inode_unchecked(number) else { return entries };
        let mut raw: Vec<(u32, Vec<u8>)> = Vec::new();
        if directory.has_flag(flags::INLINE_DATA) {
            // An error ends the list; what came before it is kept.
            let _ = self.core.list(&directory, 0, &mut |inode, _, name, _| {
                raw.push((inode, name.to_vec()));
                true
            });
        } else {
            let size = self.core.shape.block_size;
            for logical in 0..self.core.directory_blocks(&directory) {
                let Some(place) = self.core.map(&directory, logical, 1).ok().and_then(|r| r.data())
                else {
                    continue;
                };
                let Ok(block) = self.core.block(place) else { continue };
                let sound = dirent::entries(&block, size).map_while(Result::ok);
                raw.extend(sound.map(|entry| (entry.inode, entry.name.to_vec())));
            }
        }
        let mut names = HashSet::new();
        for (inode, name) in raw {
            let dots = name.is_empty() || name == b"." || name == b"..";
            let Some(kind) = self.known.kind(inode).filter(|_| !dots) else { continue };
            let name = unused_name(&name, |name| names.contains(name));
            names.insert(name.clone());
            entries.push(NewEntry { inode, kind, name });
        }
        entries
    }
}

/// Changes the second entry of a directory, which is `..`, also of an encrypted one.
fn set_parent(core: &mut Core, number: u32, parent: u32) -> Result<()> {
    let mut directory = core.inode(number)?;
    if directory.has_flag(flags::INLINE_DATA) {
        directory.set_block_pointer(0, parent);
        return core.put_inode(&directory);
    }
    let gone = || crate::ext::core::corrupt(format!("directory {number} has no '..'"));
    let place = core.map(&directory, 0, 1)?.data().ok_or_else(gone)?;
    let block = core.block(place)?;
    let second = dirent::entries(&block, core.shape.block_size).nth(1).ok_or_else(gone)??;
    if second.name != b".." {
        return Err(gone());
    }
    let at = second.at;
    drop(block);
    put32(core.modify(place)?, at, parent);
    core.seal_any_directory_block(&directory, place)
}

/// `name`, or something like it that is not taken.
fn unused_name(name: &[u8], taken: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    let plain: Vec<u8> =
        name.iter().map(|b| if matches!(b, 0 | b'/') { b'.' } else { *b }).collect();
    if !taken(&plain) {
        return plain;
    }
    (0_u64..)
        .map(|number| {
            let suffix = format!("~{number}");
            let keep = plain.len().min(NAME_MAX - suffix.len());
            [&plain[..keep], suffix.as_bytes()].concat()
        })
        .find(|name| !taken(name))
        .unwrap_or(plain)
}

/// Writes a directory anew, with an index where it has more than one block.
fn build(core: &mut Core, number: u32, parent: u32, entries: &[NewEntry]) -> Result<()> {
    let mut directory = core.inode_unchecked(number)?;
    if directory.has_flag(flags::INLINE_DATA) {
        core.drop_inline(&mut directory)?;
    } else {
        let end = core.mapped_end(&directory)?;
        core.unmap(&mut directory, 0, end)?;
    }
    directory.set_size(0);
    directory.set_flag(flags::INDEX, false);
    core.put_inode(&directory)?;
    core.build_directory(&mut directory, parent, entries, 1)?;
    core.put_inode(&directory)
}

/// Gives an inode a name in `lost+found`.
fn connect(core: &mut Core, number: u32, kind: FileKind) -> Result<()> {
    let lost = lost_and_found(core)?;
    let mut directory = core.inode(lost)?;
    for suffix in std::iter::once(String::new()).chain((0..1000).map(|n| format!("~{n}"))) {
        let name = format!("#{number}{suffix}");
        if core.find(&directory, name.as_bytes())?.is_none() {
            core.add_entry(&mut directory, name.as_bytes(), number, kind)?;
            return core.put_inode(&directory);
        }
    }
    Err(Error::new(Kind::AlreadyExists, "lost+found has all its names already"))
}

fn lost_and_found(core: &mut Core) -> Result<u32> {
    let root = core.inode(ROOT)?;
    let mut name = LOST.to_vec();
    loop {
        let Some(found) = core.find(&root, &name)? else { break };
        let inode = core.inode(found.inode)?;
        if inode.is_directory() && !inode.has_flag(flags::ENCRYPT) {
            return Ok(found.inode);
        }
        name.push(b'~');
    }
    let file = NewFile {
        kind: FileKind::Directory,
        mode: 0o700,
        uid: 0,
        gid: 0,
        device: crate::Device::default(),
    };
    Ok(core.create(ROOT.into(), &name, &file)?.number)
}

fn new_root(core: &mut Core) -> Result<()> {
    let mut root = core.blank_inode(ROOT, 0o040_755);
    root.set_i_links_count(2);
    core.put_inode(&root)?;
    core.start_directory(&mut root, ROOT)?;
    core.put_inode(&root)
}

/// Replaces a journal that is none.
fn new_journal(core: &mut Core) -> Result<()> {
    core.put_inode(&Inode::empty(JOURNAL_INODE, core.shape.inode_size))?;
    let wanted = u64::from(default_journal_blocks(core.shape.blocks));
    let blocks = wanted.min(core.sb.free_blocks() / 2) as u32;
    let sb = core.super_mut();
    sb.set_compat(Compat::HAS_JOURNAL, false);
    sb.set_s_journal_inum(0);
    sb.set_s_journal_dev(0);
    sb.clear_journal_backup();
    if blocks >= 1024 {
        add_journal(core, blocks)?;
        core.super_mut().set_compat(Compat::HAS_JOURNAL, true);
    }
    Ok(())
}

/// Gives an inode blocks of its own instead of those that others keep.
fn copy_shared(
    core: &mut Core,
    number: u32,
    shared: &HashSet<u64>,
    owners: &HashMap<u64, u32>,
) -> Result<()> {
    let mut inode = core.inode_unchecked(number)?;
    let mut kept = HashSet::new();
    let mut foreign = |block: u64| {
        shared.contains(&block) && (owners.get(&block) != Some(&number) || !kept.insert(block))
    };
    if core.has_mapping(&inode) {
        if inode.has_flag(flags::EXTENTS) {
            copy_extents(core, &mut inode, &mut foreign)?;
        } else {
            let mut failed = None;
            edit_pointers(core, &mut inode, &mut |core, _, _, _, pointer| {
                if !core.shape.valid_range(pointer.into(), 1) {
                    return 0;
                }
                if !foreign(pointer.into()) {
                    return pointer;
                }
                copy_block(core, pointer.into()).map_or_else(
                    |why| {
                        failed = Some(why);
                        pointer
                    },
                    |new| new as u32,
                )
            })?;
            if let Some(why) = failed {
                return Err(why);
            }
        }
    }
    let block = inode.file_acl();
    if block != 0 && foreign(block) {
        let new = copy_block(core, block)?;
        put32(core.modify(new)?, 4, 1);
        core.seal_attributes(new)?;
        inode.set_file_acl(new);
    }
    core.put_inode(&inode)
}

fn copy_extents(
    core: &mut Core,
    inode: &mut Inode,
    foreign: &mut dyn FnMut(u64) -> bool,
) -> Result<()> {
    let mapped = read(core, inode);
    let mut spare: Vec<u64> =
        mapped.tree.iter().copied().filter(|block| !foreign(*block)).collect();
    spare.reverse();
    let mut extents: Vec<crate::ext::extents::Extent> = Vec::new();
    for whole in mapped.extents() {
        for step in 0..whole.length {
            let mut place = whole.place + u64::from(step);
            if foreign(place) {
                place = copy_block(core, place)?;
            }
            match extents.last_mut() {
                Some(last)
                    if last.end() == u64::from(whole.start + step)
                        && last.place + u64::from(last.length) == place
                        && last.unwritten == whole.unwritten
                        && last.length < 32767 =>
                {
                    last.length += 1;
                }
                _ => extents.push(crate::ext::extents::Extent {
                    start: whole.start + step,
                    length: 1,
                    place,
                    unwritten: whole.unwritten,
                }),
            }
        }
    }
    core.rebuild_tree(inode, &extents, &mut spare)
}

fn copy_block(core: &mut Core, block: u64) -> Result<u64> {
    let data = core.block(block)?;
    let new = core.allocate_metadata(0)?;
    core.fresh(new)?.copy_from_slice(&data);
    Ok(new)
}
