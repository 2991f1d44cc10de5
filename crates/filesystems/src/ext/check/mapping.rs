//! What an inode maps, read with distrust: whatever is bad is left out, and noted.

use std::collections::HashSet;

use disksmith_disk::{Error, Result};

use super::state::Fsck;
use crate::ext::bitmap;
use crate::ext::core::{Core, corrupt};
use crate::ext::extents::{Extent, header, index_entry, leaf_entry};
use crate::ext::layout::inode::flags;
use crate::ext::layout::{Inode, le32, put32};

/// What an inode maps.
#[derive(Debug, Default)]
pub(crate) struct Mapped {
    /// Blocks of the mapping itself.
    pub(crate) tree: Vec<u64>,
    /// In order of the file; long pieces of pointers may exceed an extent's length.
    pub(crate) pieces: Vec<Piece>,
    /// What is wrong with it.
    pub(crate) bad: Vec<String>,
    /// Why the first of its blocks that could not be read could not.
    failed: Option<Error>,
    /// Depth that the inode claims for its extents.
    seen: HashSet<u64>,
    next: u64,
}

/// A run of blocks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Piece {
    pub(crate) start: u64,
    pub(crate) place: u64,
    pub(crate) length: u64,
    pub(crate) unwritten: bool,
}

impl Mapped {
    /// The first block behind everything.
    pub(super) fn end(&self) -> u64 {
        self.pieces.last().map_or(0, |piece| piece.start + piece.length)
    }

    /// The first block behind everything that was written.
    pub(super) fn written_end(&self) -> u64 {
        let last = self.pieces.iter().rev().find(|piece| !piece.unwritten);
        last.map_or(0, |piece| piece.start + piece.length)
    }

    fn push(&mut self, start: u64, place: u64) {
        if let Some(last) = self.pieces.last_mut()
            && last.start + last.length == start
            && last.place + last.length == place
        {
            last.length += 1;
            return;
        }
        self.pieces.push(Piece { start, place, length: 1, unwritten: false });
    }

    pub(crate) fn extents(&self) -> Vec<Extent> {
        self.pieces
            .iter()
            .map(|piece| Extent {
                start: piece.start as u32,
                length: piece.length as u32,
                place: piece.place,
                unwritten: piece.unwritten,
            })
            .collect()
    }
}

impl Fsck {
    /// Reads an inode's mapping; mends what is bad of it when it may.
    pub(super) fn mapping(&mut self, inode: &mut Inode) -> Result<Mapped> {
        let extents = inode.has_flag(flags::EXTENTS);
        let mut mapped = read(&self.core, inode);
        if mapped.bad.is_empty() {
            return Ok(mapped);
        }
        let mut mend = false;
        for text in std::mem::take(&mut mapped.bad) {
            mend |= self.problem(format!("The mapping of inode {} is bad: {text}", inode.number));
        }
        if !mend {
            return Ok(mapped);
        }
        let shape = self.core.shape;
        let taken = |block: &u64| bitmap::get(&self.used, self.cluster(*block));
        if mapped.tree.iter().any(taken) && shape.cluster_bits == 0 {
            // Another's blocks must not be changed: this inode gets copies later.
            self.waiting.copies.insert(inode.number);
            return Ok(mapped);
        }
        if extents {
            let mut spare = mapped.tree.clone();
            spare.reverse();
            self.core.rebuild_tree(inode, &mapped.extents(), &mut spare)?;
        } else {
            clear_bad(&mut self.core, inode)?;
        }
        Ok(read(&self.core, inode))
    }

    /// Takes away what is mapped from `blocks` on.
    pub(super) fn cut_mapping(&mut self, inode: &mut Inode, blocks: u64) -> Result<()> {
        let mut mapped = read(&self.core, inode);
        if inode.has_flag(flags::EXTENTS) {
            mapped.pieces.retain_mut(|piece| {
                piece.length = piece.length.min(blocks.saturating_sub(piece.start));
                piece.length > 0
            });
            let mut spare = mapped.tree.clone();
            spare.reverse();
            self.core.rebuild_tree(inode, &mapped.extents(), &mut spare)?;
            return Ok(());
        }
        edit_pointers(&mut self.core, inode, &mut |_, logical, _, level, pointer| {
            if level == 0 && logical >= blocks { 0 } else { pointer }
        })
    }
}

/// Reads a mapping without changing anything.
pub(crate) fn read(core: &Core, inode: &Inode) -> Mapped {
    let mut mapped = Mapped::default();
    if inode.has_flag(flags::EXTENTS) {
        extent_node(core, inode, inode.block_area(), None, &mut mapped);
    } else {
        pointers(core, inode, &mut mapped);
    }
    mapped
}

/// The same for those who must know all of it.
pub(crate) fn read_whole(core: &Core, inode: &Inode) -> Result<Mapped> {
    let mapped = read(core, inode);
    let bad = || format!("The mapping of inode {} is bad", inode.number);
    match (mapped.failed, mapped.bad.first()) {
        (Some(error), _) => Err(error.context(bad())),
        (None, Some(text)) => Err(corrupt(format!("{}: {text}", bad()))),
        (None, None) => Ok(Mapped { failed: None, ..mapped }),
    }
}

fn extent_node(core: &Core, inode: &Inode, node: &[u8], depth: Option<u16>, mapped: &mut Mapped) {
    let Ok(head) = header(node) else {
        return mapped.bad.push("an extent node has a bad header".into());
    };
    if depth.is_some_and(|depth| depth != head.depth) {
        return mapped.bad.push("an extent node is on the wrong level".into());
    }
    if head.depth == 0 {
        for extent in (0..head.entries).map(|index| leaf_entry(node, index)) {
            leaf(core, extent, mapped);
        }
        return;
    }
    for (start, block) in (0..head.entries).map(|index| index_entry(node, index)) {
        if !core.shape.valid_range(block, 1) || !mapped.seen.insert(block) {
            mapped.bad.push(format!("its tree leads to block {block}"));
            continue;
        }
        let child = match core.block(block) {
            Ok(child) => child,
            Err(error) => {
                mapped.bad.push(format!("block {block} of its tree cannot be read"));
                mapped.failed.get_or_insert(error);
                continue;
            }
        };
        let Ok(inner) = header(&child) else {
            mapped.bad.push(format!("block {block} of its tree has a bad header"));
            continue;
        };
        let tail = 12 + usize::from(crate::ext::layout::le16(&child, 4)) * 12;
        if !core.tail_is_right(inode, &child, tail) {
            mapped.bad.push(format!("block {block} of its tree has a wrong checksum"));
        }
        if inner.entries > 0 && le32(&child, 12) != start {
            mapped
                .bad
                .push(format!("block {block} of its tree begins elsewhere than its index says"));
        }
        mapped.tree.push(block);
        extent_node(core, inode, &child, Some(head.depth - 1), mapped);
    }
}

fn leaf(core: &Core, extent: Extent, mapped: &mut Mapped) {
    let (start, length) = (u64::from(extent.start), u64::from(extent.length));
    let text = match () {
        () if length == 0 => "an extent is empty".into(),
        () if !core.shape.valid_range(extent.place, length) => {
            format!("an extent lies at block {}", extent.place)
        }
        () if start < mapped.next || start + length >= 1 << 32 => "extents are out of order".into(),
        () => {
            mapped.next = start + length;
            let unwritten = extent.unwritten;
            return mapped.pieces.push(Piece { start, place: extent.place, length, unwritten });
        }
    };
    mapped.bad.push(text);
}

fn pointers(core: &Core, inode: &Inode, mapped: &mut Mapped) {
    let per = core.shape.block_size as u64 / 4;
    let mut base = 0;
    for slot in 0..15 {
        let level = (slot as u32).saturating_sub(11);
        pointer(core, inode.block_pointer(slot).into(), level, base, mapped);
        base += per.pow(level);
    }
}

fn pointer(core: &Core, block: u64, level: u32, base: u64, mapped: &mut Mapped) {
    if block == 0 {
        return;
    }
    if !core.shape.valid_range(block, 1) || level > 0 && !mapped.seen.insert(block) {
        return mapped.bad.push(format!("it points to block {block}"));
    }
    if level == 0 {
        return mapped.push(base, block);
    }
    mapped.tree.push(block);
    let node = match core.block(block) {
        Ok(node) => node,
        Err(error) => {
            mapped.failed.get_or_insert(error);
            return mapped.bad.push(format!("its block {block} of pointers cannot be read"));
        }
    };
    let step = (core.shape.block_size as u64 / 4).pow(level - 1);
    for (index, bytes) in node.chunks_exact(4).enumerate() {
        pointer(core, le32(bytes, 0).into(), level - 1, base + index as u64 * step, mapped);
    }
}

/// Zeroes pointers that lead nowhere, or to a block of pointers once more.
fn clear_bad(core: &mut Core, inode: &mut Inode) -> Result<()> {
    let mut seen = HashSet::new();
    let shape = core.shape;
    edit_pointers(core, inode, &mut |core, _, _, level, pointer| {
        let sound = shape.valid_range(pointer.into(), 1)
            && (level == 0 || seen.insert(pointer) && core.block(pointer.into()).is_ok());
        if sound { pointer } else { 0 }
    })
}

/// Core, logical block, whether it is the inode's own pointer, level, pointer: the new pointer.
pub(crate) type Edit<'a> = dyn FnMut(&mut Core, u64, bool, u32, u32) -> u32 + 'a;

/// Calls `edit` for each pointer that is not 0, outer ones first, and stores what it answers.
pub(crate) fn edit_pointers(core: &mut Core, inode: &mut Inode, edit: &mut Edit<'_>) -> Result<()> {
    let per = core.shape.block_size as u64 / 4;
    let mut base = 0;
    for slot in 0..15 {
        let level = (slot as u32).saturating_sub(11);
        let old = inode.block_pointer(slot);
        if old != 0 {
            let new = edit(core, base, true, level, old);
            inode.set_block_pointer(slot, new);
            if level > 0 && new != 0 {
                edit_node(core, new.into(), level, base, edit)?;
            }
        }
        base += per.pow(level);
    }
    Ok(())
}

fn edit_node(
    core: &mut Core,
    block: u64,
    level: u32,
    base: u64,
    edit: &mut Edit<'_>,
) -> Result<()> {
    let node = core.block(block)?;
    let step = (core.shape.block_size as u64 / 4).pow(level - 1);
    for (index, bytes) in node.chunks_exact(4).enumerate() {
        let old = le32(bytes, 0);
        if old == 0 {
            continue;
        }
        let at = base + index as u64 * step;
        let new = edit(core, at, false, level - 1, old);
        if new != old {
            put32(core.modify(block)?, index * 4, new);
        }
        if level > 1 && new != 0 {
            edit_node(core, new.into(), level - 1, at, edit)?;
        }
    }
    Ok(())
}
