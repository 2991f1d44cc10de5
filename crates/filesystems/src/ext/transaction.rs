//! The running transaction, and taking back an operation that failed.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Instant;

use super::cache::{Slot, State};
use super::core::Core;
use super::layout::{GroupDescriptor, Superblock};
use super::order::{Note, Order};

/// What one operation changed, to take it back.
#[derive(Debug, Default)]
pub(super) struct Undo {
    pub(super) blocks: HashMap<u64, Option<Slot>>,
    pub(super) groups: HashMap<u32, GroupDescriptor>,
    superblock: Option<Box<Superblock>>,
    freed: Vec<(u64, u64)>,
    /// Whether the block was revoked before.
    pub(super) revoked: HashMap<u64, bool>,
    truncated: Vec<u32>,
    pub(super) notes: Vec<Note>,
}

/// What the running transaction holds.
#[derive(Debug, Default)]
pub(crate) struct Transaction {
    /// When it began.
    pub(crate) since: Option<Instant>,
    pub(crate) dirty: BTreeSet<u64>,
    pub(crate) dirty_groups: BTreeSet<u32>,
    pub(crate) superblock: bool,
    /// Bits of clusters freed here, by group: not to be given out before the commit.
    pub(crate) freed: HashMap<u32, Vec<u8>>,
    /// Blocks in the log that must not be replayed any more.
    pub(crate) revoked: HashSet<u64>,
    /// Of those, the ones whose place holds newer content already.
    pub(crate) overwritten: HashSet<u64>,
    /// Files cut in the middle of a block.
    pub(crate) truncated: HashSet<u32>,
    /// What is to be written before what, without a journal.
    pub(crate) order: Order,
}

impl Transaction {
    pub(crate) fn is_empty(&self) -> bool {
        self.dirty.is_empty()
            && self.dirty_groups.is_empty()
            && !self.superblock
            && self.revoked.is_empty()
    }
}

impl Core {
    /// Starts recording, so that [`rollback`](Self::rollback) can undo what follows.
    pub(crate) fn begin(&mut self) {
        self.undo = Some(Undo { superblock: Some(Box::new(self.sb.clone())), ..Undo::default() });
    }

    /// Keeps what was done.
    pub(crate) fn finish(&mut self) {
        self.undo = None;
        self.changes += 1;
    }

    /// Takes back everything since [`begin`](Self::begin).
    pub(crate) fn rollback(&mut self) {
        let Some(undo) = self.undo.take() else { return };
        for (number, slot) in undo.blocks {
            let dirty = slot.as_ref().is_some_and(|slot| slot.state == State::Dirty);
            let content =
                slot.as_ref().is_some_and(|slot| slot.content && slot.state != State::Clean);
            if dirty {
                self.transaction.dirty.insert(number);
            } else {
                self.transaction.dirty.remove(&number);
            }
            if content {
                self.content.insert(number);
            } else {
                self.content.remove(&number);
            }
            self.cache_mut().restore(number, slot);
        }
        for (group, descriptor) in undo.groups {
            if let Some(place) = self.groups.get_mut(group as usize) {
                *place = descriptor;
            }
        }
        if let Some(sb) = undo.superblock {
            self.sb = *sb;
        }
        for (start, count) in undo.freed {
            self.mark_freed(start, count, false);
        }
        for (number, before) in undo.revoked {
            match before {
                true => self.transaction.revoked.insert(number),
                false => self.transaction.revoked.remove(&number),
            };
        }
        for inode in undo.truncated {
            self.transaction.truncated.remove(&inode);
        }
        for note in undo.notes.into_iter().rev() {
            self.transaction.order.take_back(note);
        }
    }

    /// Remembers that a file was cut in the middle of a block.
    pub(crate) fn note_truncated(&mut self, inode: u32) {
        if self.transaction.truncated.insert(inode)
            && let Some(undo) = &mut self.undo
        {
            undo.truncated.push(inode);
        }
    }

    /// True as long as a cut in the middle of a block of the file is not durable.
    pub(crate) fn is_truncated(&self, inode: u32) -> bool {
        self.transaction.truncated.contains(&inode)
            || self.in_flight.as_ref().is_some_and(|flight| flight.truncated.contains(&inode))
    }

    /// Keeps clusters from being given out again before the commit.
    pub(crate) fn note_freed(&mut self, start: u64, count: u64) {
        self.mark_freed(start, count, true);
        if let Some(undo) = &mut self.undo {
            undo.freed.push((start, count));
        }
    }

    fn mark_freed(&mut self, start: u64, count: u64, on: bool) {
        let shape = self.shape;
        for block in (start..start + count).step_by(1 << shape.cluster_bits) {
            let (group, bit) = (shape.group_of(block), shape.bit_of(block));
            let bits =
                self.transaction.freed.entry(group).or_insert_with(|| vec![0; shape.block_size]);
            super::bitmap::set(bits, bit, on);
        }
    }
}
