//! Extent trees.
//!
//! For changes, the tree is seen as a list of leaves: only the leaves touched are read and
//! written; the index levels above are laid out anew from the list (one index block stands for
//! 340 leaves, so that this costs little) and written only where they differ.

use disksmith_disk::Result;

use super::core::{Core, corrupt};
use super::layout::{Inode, high, le16, le32, low, put16, put32};
use super::mapping::Run;

const MAGIC: u16 = 0xF30A;
/// Levels below the root.
const DEPTH_MAX: u16 = 5;
/// Entries in the inode.
const ROOT_ENTRIES: usize = 4;
/// The longest written extent; unwritten ones are one shorter.
const LENGTH_MAX: u32 = 32768;
/// Leaves of one tree: 2^32 blocks in 340 entries each.
const LEAVES_MAX: usize = 1 << 24;

/// One extent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Extent {
    pub(crate) start: u32,
    pub(crate) length: u32,
    pub(crate) place: u64,
    pub(crate) unwritten: bool,
}

impl Extent {
    pub(crate) fn end(&self) -> u64 {
        u64::from(self.start) + u64::from(self.length)
    }

    /// The part within `from..to`.
    fn cut(&self, from: u64, to: u64) -> Option<Self> {
        let start = from.max(self.start.into());
        let end = to.min(self.end());
        (start < end).then(|| Self {
            start: start as u32,
            length: (end - start) as u32,
            place: self.place + (start - u64::from(self.start)),
            unwritten: self.unwritten,
        })
    }
}

/// A node's header, checked against the room it lies in.
pub(crate) struct Header {
    pub(crate) entries: usize,
    pub(crate) depth: u16,
}

pub(crate) fn header(node: &[u8]) -> Result<Header> {
    let (entries, most) = (usize::from(le16(node, 2)), usize::from(le16(node, 4)));
    let depth = le16(node, 6);
    if le16(node, 0) != MAGIC || entries > most || 12 + most * 12 > node.len() || depth > DEPTH_MAX
    {
        return Err(corrupt("an extent tree node has a bad header"));
    }
    Ok(Header { entries, depth })
}

pub(crate) fn leaf_entry(node: &[u8], index: usize) -> Extent {
    let at = 12 + index * 12;
    let length = u32::from(le16(node, at + 4));
    let unwritten = length > LENGTH_MAX;
    Extent {
        start: le32(node, at),
        length: if unwritten { length - LENGTH_MAX } else { length },
        place: u64::from(le16(node, at + 6)) << 32 | u64::from(le32(node, at + 8)),
        unwritten,
    }
}

pub(crate) fn index_entry(node: &[u8], index: usize) -> (u32, u64) {
    let at = 12 + index * 12;
    (le32(node, at), u64::from(le16(node, at + 8)) << 32 | u64::from(le32(node, at + 4)))
}

/// Encodes a node: header and entries, the rest zero.
fn encode(size: usize, depth: u16, entries: &[[u8; 12]]) -> Vec<u8> {
    let mut node = vec![0; size];
    put16(&mut node, 0, MAGIC);
    put16(&mut node, 2, entries.len() as u16);
    put16(&mut node, 4, ((size - 12) / 12) as u16);
    put16(&mut node, 6, depth);
    for (place, entry) in node[12..].chunks_exact_mut(12).zip(entries) {
        place.copy_from_slice(entry);
    }
    node
}

fn encode_leaf(extent: &Extent) -> [u8; 12] {
    let mut entry = [0; 12];
    let length = extent.length + if extent.unwritten { LENGTH_MAX } else { 0 };
    put32(&mut entry, 0, extent.start);
    put16(&mut entry, 4, length as u16);
    put16(&mut entry, 6, (high(extent.place) & 0xffff) as u16);
    put32(&mut entry, 8, low(extent.place));
    entry
}

fn encode_index((start, block): (u32, u64)) -> [u8; 12] {
    let mut entry = [0; 12];
    put32(&mut entry, 0, start);
    put32(&mut entry, 4, low(block));
    put16(&mut entry, 8, (high(block) & 0xffff) as u16);
    entry
}

/// An empty tree for a new inode.
pub(crate) fn empty_root() -> Vec<u8> {
    encode(60, 0, &[])
}

/// A tree's leaves and the index blocks over them.
#[derive(Default)]
struct Tree {
    leaves: Vec<(u32, u64)>,
    index_blocks: Vec<u64>,
}

impl Core {
    /// What lies at `logical`: a run of at most `most` blocks.
    pub(crate) fn map_extent(&self, inode: &Inode, logical: u64, most: u64) -> Result<Run> {
        // The first block that is not covered by the node looked at; trees know no blocks from
        // here on, whatever the length of the file says.
        let mut limit = 1_u64 << 32;
        if logical >= limit {
            return Ok(Run::hole(logical, most));
        }
        let mut node = std::sync::Arc::new(inode.block_area().to_vec());
        let mut depth = None;
        loop {
            let head = header(&node)?;
            if depth.is_some_and(|above: u16| above != head.depth + 1) {
                return Err(corrupt(format!("the extent tree of inode {} is bent", inode.number)));
            }
            if head.depth == 0 {
                return Ok(search_leaf(&node, head.entries, logical, limit, most));
            }
            let after =
                partition(head.entries, |index| u64::from(index_entry(&node, index).0) <= logical);
            if after < head.entries {
                limit = limit.min(index_entry(&node, after).0.into());
            }
            let Some(at) = after.checked_sub(1) else {
                return Ok(Run::hole(logical, limit.saturating_sub(logical).min(most)));
            };
            let (_, block) = index_entry(&node, at);
            depth = Some(head.depth);
            node = self.extent_block(inode, block)?;
        }
    }

    /// Reads a node's block; checks its checksum.
    fn extent_block(&self, inode: &Inode, block: u64) -> Result<super::cache::Block> {
        if !self.shape.valid_range(block, 1) {
            return Err(corrupt(format!(
                "the extent tree of inode {} leads outside",
                inode.number
            )));
        }
        let node = self.block(block)?;
        let tail = 12 + usize::from(le16(&node, 4)) * 12;
        if !self.tail_is_right(inode, &node, tail) {
            return Err(corrupt(format!("extent block {block} has a wrong checksum")));
        }
        Ok(node)
    }

    fn load_tree(&self, inode: &Inode) -> Result<Tree> {
        let root = inode.block_area();
        let head = header(root)?;
        let mut tree = Tree::default();
        let mut level: Vec<(u32, u64)> = if head.depth == 0 {
            Vec::new()
        } else {
            (0..head.entries).map(|i| index_entry(root, i)).collect()
        };
        for depth in (1..head.depth).rev() {
            let mut below = Vec::new();
            for (_, block) in level {
                let node = self.extent_block(inode, block)?;
                let inner = header(&node)?;
                if inner.depth != depth || below.len() + inner.entries > LEAVES_MAX {
                    return Err(corrupt(format!(
                        "the extent tree of inode {} is bent",
                        inode.number
                    )));
                }
                below.extend((0..inner.entries).map(|i| index_entry(&node, i)));
                tree.index_blocks.push(block);
            }
            level = below;
        }
        tree.leaves = level;
        Ok(tree)
    }

    fn load_leaf(&self, inode: &Inode, block: u64) -> Result<Vec<Extent>> {
        let node = self.extent_block(inode, block)?;
        let head = header(&node)?;
        if head.depth != 0 {
            return Err(corrupt(format!("the extent tree of inode {} is bent", inode.number)));
        }
        Ok((0..head.entries).map(|index| leaf_entry(&node, index)).collect())
    }

    /// All extents, in order.
    pub(crate) fn all_extents(&self, inode: &Inode) -> Result<Vec<Extent>> {
        let root = inode.block_area();
        let head = header(root)?;
        if head.depth == 0 {
            return Ok((0..head.entries).map(|index| leaf_entry(root, index)).collect());
        }
        let mut extents = Vec::new();
        for (_, block) in self.load_tree(inode)?.leaves {
            extents.extend(self.load_leaf(inode, block)?);
        }
        Ok(extents)
    }

    /// Replaces what is mapped in `from..to` by `new` (ascending, inside the range). Answers what
    /// was mapped there; its blocks are not freed.
    pub(crate) fn replace_extents(
        &mut self,
        inode: &mut Inode,
        from: u64,
        to: u64,
        new: &[Extent],
    ) -> Result<Vec<Extent>> {
        let head = header(inode.block_area())?;
        let mut tree = self.load_tree(inode)?;
        let in_inode = head.depth == 0;
        // The leaves that may hold something in the range, and neighbours to merge with.
        let first = tree.leaves.partition_point(|leaf| u64::from(leaf.0) < from).saturating_sub(1);
        let last = tree.leaves.partition_point(|leaf| u64::from(leaf.0) <= to).max(first + 1);
        let last = last.min(tree.leaves.len());
        let mut old = Vec::new();
        if in_inode {
            old = self.all_extents(inode)?;
        } else {
            for (_, block) in tree.leaves.get(first..last).unwrap_or(&[]) {
                old.extend(self.load_leaf(inode, *block)?);
            }
        }
        let (kept, removed) = splice(&old, from, to, new);
        if in_inode && kept.len() <= ROOT_ENTRIES {
            set_root(inode, 0, &kept.iter().map(encode_leaf).collect::<Vec<_>>());
            return Ok(removed);
        }
        let whole = in_inode || first == 0 && last == tree.leaves.len();
        if whole && kept.len() <= ROOT_ENTRIES {
            for (_, block) in std::mem::take(&mut tree.leaves) {
                self.free_tree_block(inode, block)?;
            }
            for block in std::mem::take(&mut tree.index_blocks) {
                self.free_tree_block(inode, block)?;
            }
            set_root(inode, 0, &kept.iter().map(encode_leaf).collect::<Vec<_>>());
            return Ok(removed);
        }
        let appended = last == tree.leaves.len()
            && new.last().is_some_and(|n| kept.last().is_some_and(|k| k.end() == n.end()));
        let range = if in_inode { 0..0 } else { first..last };
        self.store_leaves(inode, &mut tree, range, &kept, appended)?;
        self.store_indexes(inode, tree)?;
        Ok(removed)
    }

    /// Lays `extents` out in the leaves of `range`, with more or fewer of them as needed.
    fn store_leaves(
        &mut self,
        inode: &mut Inode,
        tree: &mut Tree,
        range: std::ops::Range<usize>,
        extents: &[Extent],
        appended: bool,
    ) -> Result<()> {
        let size = self.shape.block_size;
        let capacity = (size - 12) / 12;
        let blocks: Vec<u64> =
            tree.leaves.get(range.clone()).unwrap_or(&[]).iter().map(|l| l.1).collect();
        let count = extents.len().div_ceil(capacity);
        // Appended files fill their leaves; elsewhere room is left on both sides of a split.
        let per_leaf = if appended { capacity } else { extents.len().div_ceil(count.max(1)) };
        let mut reuse = blocks.into_iter();
        let mut leaves = Vec::with_capacity(count);
        for chunk in extents.chunks(per_leaf.max(1)) {
            let block = match reuse.next() {
                Some(block) => block,
                None => self.new_tree_block(inode)?,
            };
            let entries: Vec<[u8; 12]> = chunk.iter().map(encode_leaf).collect();
            self.store_node(inode, block, &encode(size, 0, &entries))?;
            leaves.push((chunk[0].start, block));
        }
        for block in reuse {
            self.free_tree_block(inode, block)?;
        }
        tree.leaves.splice(range, leaves);
        Ok(())
    }

    fn store_indexes(&mut self, inode: &mut Inode, tree: Tree) -> Result<()> {
        let size = self.shape.block_size;
        let capacity = (size - 12) / 12;
        let mut reuse = tree.index_blocks.into_iter();
        let mut level = tree.leaves;
        let mut depth = 1;
        while level.len() > ROOT_ENTRIES {
            let mut above = Vec::new();
            for chunk in level.chunks(capacity) {
                let block = match reuse.next() {
                    Some(block) => block,
                    None => self.new_tree_block(inode)?,
                };
                let entries: Vec<[u8; 12]> = chunk.iter().copied().map(encode_index).collect();
                self.store_node(inode, block, &encode(size, depth, &entries))?;
                above.push((chunk[0].0, block));
            }
            level = above;
            depth += 1;
        }
        let entries: Vec<[u8; 12]> = level.into_iter().map(encode_index).collect();
        let depth = if entries.is_empty() { 0 } else { depth };
        set_root(inode, depth, &entries);
        for block in reuse.collect::<Vec<_>>() {
            self.free_tree_block(inode, block)?;
        }
        Ok(())
    }

    fn store_node(&mut self, inode: &Inode, block: u64, node: &[u8]) -> Result<()> {
        let tail = 12 + usize::from(le16(node, 4)) * 12;
        let mut node = node.to_vec();
        Self::seal(&self.shape, self.inode_seed(inode), &mut node, tail, tail);
        if self.block(block)?.as_slice() != node.as_slice() {
            if inode.is_directory() {
                // Its tree only grows.
                self.note_pointing(block);
            }
            self.modify(block)?.copy_from_slice(&node);
        }
        Ok(())
    }

    /// Writes a tree for `extents` anew, into blocks taken off the end of `spare`; when these do not
    /// suffice, into new ones.
    pub(crate) fn rebuild_tree(
        &mut self,
        inode: &mut Inode,
        extents: &[Extent],
        spare: &mut Vec<u64>,
    ) -> Result<()> {
        if extents.len() <= ROOT_ENTRIES {
            set_root(inode, 0, &extents.iter().map(encode_leaf).collect::<Vec<_>>());
            return Ok(());
        }
        let size = self.shape.block_size;
        let per_node = (size - 12) / 12;
        let mut nodes: Vec<(u32, Vec<[u8; 12]>)> = extents
            .chunks(per_node)
            .map(|chunk| (chunk[0].start, chunk.iter().map(encode_leaf).collect()))
            .collect();
        let mut depth = 0;
        loop {
            let mut above = Vec::with_capacity(nodes.len());
            for (start, entries) in &nodes {
                let block = match spare.pop() {
                    Some(block) => block,
                    None => self.new_tree_block(inode)?,
                };
                self.store_node(inode, block, &encode(size, depth, entries))?;
                above.push((*start, block));
            }
            depth += 1;
            if above.len() <= ROOT_ENTRIES {
                let entries: Vec<_> = above.into_iter().map(encode_index).collect();
                set_root(inode, depth, &entries);
                return Ok(());
            }
            nodes = above
                .chunks(per_node)
                .map(|chunk| (chunk[0].0, chunk.iter().map(|e| encode_index(*e)).collect()))
                .collect();
        }
    }

    fn new_tree_block(&mut self, inode: &mut Inode) -> Result<u64> {
        let goal = self.inode_goal(inode);
        let block = self.allocate_metadata(goal)?;
        self.fresh(block)?;
        self.add_sectors(inode, 1 << self.shape.cluster_bits, true)?;
        Ok(block)
    }

    fn free_tree_block(&mut self, inode: &mut Inode, block: u64) -> Result<()> {
        self.free_metadata(block)?;
        self.add_sectors(inode, 1 << self.shape.cluster_bits, false)
    }
}

fn set_root(inode: &mut Inode, depth: u16, entries: &[[u8; 12]]) {
    inode.set_block_area(&encode(60, depth, entries));
}

/// The first index for which `below` is false.
fn partition(count: usize, below: impl Fn(usize) -> bool) -> usize {
    let (mut low, mut high) = (0, count);
    while low < high {
        let middle = usize::midpoint(low, high);
        if below(middle) { low = middle + 1 } else { high = middle }
    }
    low
}

fn search_leaf(node: &[u8], entries: usize, logical: u64, limit: u64, most: u64) -> Run {
    let after = partition(entries, |index| u64::from(leaf_entry(node, index).start) <= logical);
    if let Some(at) = after.checked_sub(1) {
        let extent = leaf_entry(node, at);
        if logical < extent.end() {
            let skipped = logical - u64::from(extent.start);
            return Run {
                start: logical,
                length: (extent.end() - logical).min(most),
                place: Some(extent.place + skipped),
                unwritten: extent.unwritten,
            };
        }
    }
    let limit = if after < entries { leaf_entry(node, after).start.into() } else { limit };
    Run::hole(logical, limit.saturating_sub(logical).min(most).max(1))
}

/// `old` with `from..to` replaced by `new`, neighbours merged; and what was replaced.
fn splice(old: &[Extent], from: u64, to: u64, new: &[Extent]) -> (Vec<Extent>, Vec<Extent>) {
    let mut kept = Vec::with_capacity(old.len() + new.len() + 1);
    let mut removed = Vec::new();
    let mut inserted = false;
    for extent in old {
        if !inserted && u64::from(extent.start) >= to {
            new.iter().for_each(|extent| push_merged(&mut kept, *extent));
            inserted = true;
        }
        if let Some(left) = extent.cut(0, from) {
            push_merged(&mut kept, left);
        }
        removed.extend(extent.cut(from, to));
        if let Some(right) = extent.cut(to, u64::MAX) {
            if !inserted {
                new.iter().for_each(|extent| push_merged(&mut kept, *extent));
                inserted = true;
            }
            push_merged(&mut kept, right);
        }
    }
    if !inserted {
        new.iter().for_each(|extent| push_merged(&mut kept, *extent));
    }
    (kept, removed)
}

fn push_merged(list: &mut Vec<Extent>, extent: Extent) {
    if let Some(last) = list.last_mut() {
        let most = if extent.unwritten { LENGTH_MAX - 1 } else { LENGTH_MAX };
        if last.unwritten == extent.unwritten
            && last.end() == u64::from(extent.start)
            && last.place + u64::from(last.length) == extent.place
            && last.length + extent.length <= most
        {
            last.length += extent.length;
            return;
        }
    }
    list.push(extent);
}
