//! Blocks in memory: clean copies that may be dropped, and changed ones that may not.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Unchanged blocks kept in memory for each filesystem, in bytes.
static MOST_BYTES: AtomicUsize = AtomicUsize::new(64 << 20);

/// Sets how many bytes of unchanged metadata every ext filesystem that is opened, checked or
/// resized from now on keeps in memory at most: 64 MiB otherwise. A block or two is kept always.
pub fn limit_cache(bytes: usize) {
    MOST_BYTES.store(bytes, Ordering::Relaxed);
}

pub(crate) fn most_bytes() -> usize {
    MOST_BYTES.load(Ordering::Relaxed)
}

/// A block's bytes, shared.
pub(crate) type Block = Arc<Vec<u8>>;

/// What has to happen to a cached block.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum State {
    /// As on disk.
    Clean,
    /// Changed in the running transaction.
    Dirty,
    /// Part of the transaction that is being written.
    Frozen,
    /// In the journal, not yet in its place.
    Logged,
}

#[derive(Clone, Debug)]
pub(crate) struct Slot {
    pub(crate) data: Block,
    pub(crate) state: State,
    /// File content that takes the way of metadata.
    pub(crate) content: bool,
    used: u64,
}

/// The cache of one filesystem.
#[derive(Debug)]
pub(crate) struct Cache {
    slots: HashMap<u64, Slot>,
    tick: u64,
    clean: usize,
    clean_max: usize,
}

impl Cache {
    /// Keeps at most `clean_max` unchanged blocks.
    pub(crate) fn new(clean_max: usize) -> Self {
        Self { slots: HashMap::new(), tick: 0, clean: 0, clean_max }
    }

    pub(crate) fn get(&mut self, number: u64) -> Option<Block> {
        self.tick += 1;
        let slot = self.slots.get_mut(&number)?;
        slot.used = self.tick;
        Some(slot.data.clone())
    }

    pub(crate) fn peek(&self, number: u64) -> Option<&Slot> {
        self.slots.get(&number)
    }

    /// A clean block just read; one that is there stays.
    pub(crate) fn add_clean(&mut self, number: u64, data: Block) {
        self.tick += 1;
        if self.slots.contains_key(&number) {
            return;
        }
        let slot = Slot { data, state: State::Clean, content: false, used: self.tick };
        self.slots.insert(number, slot);
        self.clean += 1;
        if self.clean > self.clean_max {
            self.shrink();
        }
    }

    /// Drops the clean blocks whose last use is longest ago: half of them.
    fn shrink(&mut self) {
        let mut uses: Vec<u64> =
            self.slots.values().filter(|s| s.state == State::Clean).map(|s| s.used).collect();
        uses.sort_unstable();
        let limit = uses.get(uses.len() / 2).copied().unwrap_or(0);
        self.slots.retain(|_, slot| slot.state != State::Clean || slot.used >= limit);
        self.clean = self.slots.values().filter(|s| s.state == State::Clean).count();
    }

    /// The changed content of a block; `content` when it is file data.
    pub(crate) fn set_dirty(&mut self, number: u64, data: Block, content: bool) -> &mut Vec<u8> {
        self.tick += 1;
        let used = self.tick;
        self.remove(number);
        let slot = Slot { data, state: State::Dirty, content, used };
        Arc::make_mut(&mut self.slots.entry(number).insert_entry(slot).into_mut().data)
    }

    /// The bytes of a block that is dirty already.
    pub(crate) fn dirty_mut(&mut self, number: u64) -> Option<&mut Vec<u8>> {
        let slot = self.slots.get_mut(&number).filter(|slot| slot.state == State::Dirty)?;
        Some(Arc::make_mut(&mut slot.data))
    }

    pub(crate) fn remove(&mut self, number: u64) -> Option<Slot> {
        let slot = self.slots.remove(&number)?;
        if slot.state == State::Clean {
            self.clean = self.clean.saturating_sub(1);
        }
        Some(slot)
    }

    /// Puts a slot back as it was.
    pub(crate) fn restore(&mut self, number: u64, slot: Option<Slot>) {
        self.remove(number);
        if let Some(slot) = slot {
            if slot.state == State::Clean {
                self.clean += 1;
            }
            self.slots.insert(number, slot);
        }
    }

    pub(crate) fn set_state(&mut self, number: u64, state: State) {
        if let Some(slot) = self.slots.get_mut(&number) {
            if (slot.state == State::Clean) != (state == State::Clean) {
                self.clean = if state == State::Clean {
                    self.clean + 1
                } else {
                    self.clean.saturating_sub(1)
                };
            }
            slot.state = state;
        }
    }
}
