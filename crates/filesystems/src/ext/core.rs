//! An open filesystem: superblock, descriptors, blocks in memory, the running transaction.
//!
//! Everything on disk but file content goes through [`Core::block`] and [`Core::modify`], so that a
//! failing operation can be taken back and a finished one goes to the journal whole.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use disksmith_disk::{Context as _, Disk, Error, Kind, Result};

use super::cache::{self, Block, Cache, State};
use super::checksum::crc32c;
use super::features::Incompat;
pub(crate) use super::groups::group_checksum;
use super::journal::{InFlight, Journal, LogPlace, Overlay};
use super::layout::superblock::SUPERBLOCK_SIZE;
use super::layout::{GroupDescriptor, Superblock};
use super::shape::Shape;
use super::transaction::{Transaction, Undo};
use crate::errors;

/// The root directory.
pub(crate) const ROOT: u32 = 2;
/// The inode that owns the reserved descriptor blocks.
pub(crate) const RESIZE_INODE: u32 = 7;
/// The journal's usual inode.
pub(crate) const JOURNAL_INODE: u32 = 8;

/// The most blocks of a transaction, even if the journal is larger: they wait in memory.
pub(super) const TRANSACTION_MAX: usize = 1 << 14;

/// An open filesystem.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) sb: Superblock,
    pub(crate) shape: Shape,
    pub(crate) groups: Vec<GroupDescriptor>,
    cache: Mutex<Cache>,
    pub(crate) overlay: Overlay,
    pub(crate) transaction: Transaction,
    pub(super) undo: Option<Undo>,
    /// The log; away while a transaction is being written.
    pub(crate) journal: Option<Journal>,
    /// The most blocks a transaction should have.
    pub(crate) transaction_max: usize,
    /// The blocks in the log that are not in their places.
    pub(crate) logged: HashMap<u64, LogPlace>,
    /// The transaction that is being written.
    pub(crate) in_flight: Option<InFlight>,
    /// The log is being emptied.
    pub(crate) checkpointing: bool,
    /// Changes made so far.
    pub(crate) changes: u64,
    /// Why a change could not go on, though it can later.
    pub(crate) obstacle: Option<Obstacle>,
    pub(crate) read_only: bool,
    /// A commit failed: what is in memory is not on disk, nothing may follow.
    pub(crate) failed: bool,
    /// Where the next block is looked for when nothing better is known.
    pub(crate) goal: u64,
    /// Blocks from here on, and inodes in groups that begin there, are not given out.
    pub(crate) limit: u64,
    /// Inodes without names that are held.
    held: Mutex<HashMap<u32, u64>>,
    /// File content in the cache that is not in its place yet.
    pub(crate) content: HashSet<u64>,
    /// A fixed time for all changes, for reproducible results.
    pub(crate) clock: Option<crate::Time>,
    /// Checksums of bitmaps are checked once.
    pub(crate) checked_bitmaps: Mutex<HashSet<u64>>,
}

/// What must be durable before a change can go on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Obstacle {
    /// The transaction that is being written.
    UnderWay,
    /// The running one.
    Running,
}

impl Core {
    /// Reads superblock and descriptors through `overlay`.
    pub(crate) fn load(disk: Arc<dyn Disk>, overlay: Overlay, read_only: bool) -> Result<Self> {
        let sb = read_superblock(&*disk, &overlay, false)?;
        let shape = Shape::new(&sb, disk.size())?;
        Self::with_superblock(disk, overlay, read_only, sb, shape)
    }

    /// With a superblock that was read elsewhere (a backup) or is new.
    pub(crate) fn with_superblock(
        disk: Arc<dyn Disk>,
        overlay: Overlay,
        read_only: bool,
        sb: Superblock,
        shape: Shape,
    ) -> Result<Self> {
        let mut core = Self::bare(disk, overlay, read_only, sb, shape);
        core.load_groups()?;
        Ok(core)
    }

    /// Without descriptors.
    pub(crate) fn bare(
        disk: Arc<dyn Disk>,
        overlay: Overlay,
        read_only: bool,
        sb: Superblock,
        shape: Shape,
    ) -> Self {
        Self {
            disk,
            sb,
            shape,
            groups: Vec::new(),
            cache: Mutex::new(Cache::new(cache::most_bytes() / shape.block_size)),
            overlay,
            transaction: Transaction::default(),
            undo: None,
            journal: None,
            transaction_max: TRANSACTION_MAX,
            logged: HashMap::new(),
            in_flight: None,
            checkpointing: false,
            changes: 0,
            obstacle: None,
            read_only,
            failed: false,
            goal: 0,
            limit: u64::MAX,
            held: Mutex::new(HashMap::new()),
            content: HashSet::new(),
            clock: None,
            checked_bitmaps: Mutex::new(HashSet::new()),
        }
    }

    /// Inodes that somebody uses, with the number of uses.
    pub(crate) fn held(&self) -> std::sync::MutexGuard<'_, HashMap<u32, u64>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn is_held(&self, number: u32) -> bool {
        self.held().contains_key(&number)
    }

    /// The time that changes are given.
    pub(crate) fn now(&self) -> crate::Time {
        self.clock.unwrap_or_else(crate::Time::now)
    }

    // ---- blocks ----------------------------------------------------------------------------

    fn cache(&self) -> std::sync::MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn cache_mut(&mut self) -> &mut Cache {
        self.cache.get_mut().unwrap_or_else(PoisonError::into_inner)
    }

    /// The bytes of a metadata block.
    pub(crate) fn block(&self, number: u64) -> Result<Block> {
        if let Some(block) = self.cache().get(number) {
            return Ok(block);
        }
        if number >= self.shape.blocks {
            return Err(corrupt(format!("block {number} is past the end of the filesystem")));
        }
        let mut data = vec![0; self.shape.block_size];
        self.overlay.read(&*self.disk, &mut data, number, self.shape.block_size)?;
        let data = Arc::new(data);
        self.cache().add_clean(number, data.clone());
        Ok(data)
    }

    /// Reads several blocks at once into the cache.
    pub(crate) fn prefetch(&self, start: u64, count: u64) -> Result<()> {
        let size = self.shape.block_size;
        if !self.overlay.is_empty() || !self.shape.valid_range(start, count) || count < 2 {
            return Ok(());
        }
        let missing = {
            let cache = self.cache();
            (start..start + count).any(|number| cache.peek(number).is_none())
        };
        if missing {
            let mut data = vec![0; size * count as usize];
            self.disk.read_at(&mut data, start << self.shape.block_bits)?;
            let mut cache = self.cache();
            for (number, bytes) in (start..).zip(data.chunks_exact(size)) {
                cache.add_clean(number, Arc::new(bytes.to_vec()));
            }
        }
        Ok(())
    }

    /// The bytes of a metadata block, to be changed in the running transaction.
    pub(crate) fn modify(&mut self, number: u64) -> Result<&mut Vec<u8>> {
        self.modify_as(number, false)
    }

    fn modify_as(&mut self, number: u64, content: bool) -> Result<&mut Vec<u8>> {
        let data = self.block(number)?;
        Ok(self.enter(number, data, content))
    }

    /// A metadata block whose old content does not matter: zeroes to begin with.
    pub(crate) fn fresh(&mut self, number: u64) -> Result<&mut Vec<u8>> {
        if number >= self.shape.blocks {
            return Err(corrupt(format!("block {number} is past the end of the filesystem")));
        }
        let data = Arc::new(vec![0; self.shape.block_size]);
        self.transaction.order.fresh.insert(number);
        let bytes = self.enter(number, data, false);
        bytes.fill(0);
        Ok(bytes)
    }

    /// A block of file content, to be changed with the transaction instead of in place.
    pub(crate) fn modify_content(&mut self, number: u64) -> Result<&mut Vec<u8>> {
        self.content.insert(number);
        self.modify_as(number, true)
    }

    fn enter(&mut self, number: u64, data: Block, content: bool) -> &mut Vec<u8> {
        self.transaction.dirty.insert(number);
        if self.transaction.revoked.remove(&number) {
            // A revoke holds for what the same transaction logs, too.
            if let Some(undo) = &mut self.undo {
                undo.revoked.entry(number).or_insert(true);
            }
        }
        let cache = self.cache.get_mut().unwrap_or_else(PoisonError::into_inner);
        let known = match &mut self.undo {
            Some(undo) => {
                let known = undo.blocks.contains_key(&number);
                undo.blocks.entry(number).or_insert_with(|| cache.peek(number).cloned());
                known
            }
            None => cache.peek(number).is_some_and(|slot| slot.state == State::Dirty),
        };
        if known && cache.dirty_mut(number).is_some() {
            drop(data);
            return cache.dirty_mut(number).unwrap_or_else(|| unreachable!("just seen"));
        }
        cache.set_dirty(number, data, content)
    }

    /// A metadata block (or journaled content) that was freed: its content is of no interest.
    pub(crate) fn forget(&mut self, number: u64) {
        self.content.remove(&number);
        let cache = self.cache.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(undo) = &mut self.undo {
            undo.blocks.entry(number).or_insert_with(|| cache.peek(number).cloned());
        }
        cache.remove(number);
        self.transaction.dirty.remove(&number);
        let logged = self.log_holds(number);
        if logged
            && self.transaction.revoked.insert(number)
            && let Some(undo) = &mut self.undo
        {
            undo.revoked.entry(number).or_insert(false);
        }
    }

    /// Blocks are about to be written in place: what the log holds of them must stay there.
    pub(crate) fn note_overwritten(&mut self, start: u64, count: u64) -> Result<()> {
        let Transaction { revoked, overwritten, .. } = &mut self.transaction;
        if revoked.is_empty() {
            return Ok(());
        }
        let mut touched =
            (start..start + count).filter(|number| revoked.contains(number)).peekable();
        if self.checkpointing && touched.peek().is_some() {
            // The older content is on its way to the same place.
            self.obstacle = Some(Obstacle::UnderWay);
            return Err(errors::busy());
        }
        overwritten.extend(touched);
        Ok(())
    }

    /// True when the block waits in memory as file content.
    pub(crate) fn is_content(&self, number: u64) -> bool {
        !self.content.is_empty() && self.content.contains(&number)
    }

    pub(crate) fn cached(&self, number: u64) -> Option<Block> {
        self.cache().get(number)
    }

    /// Replaces the clean copy of a block that was just written in place.
    pub(crate) fn replace_clean(&mut self, number: u64, data: Block) {
        let cache = self.cache_mut();
        cache.remove(number);
        cache.add_clean(number, data);
    }

    /// The block if it is in memory in just this state.
    pub(crate) fn cached_in(&self, number: u64, state: State) -> Option<Block> {
        self.cache().peek(number).filter(|slot| slot.state == state).map(|slot| slot.data.clone())
    }

    pub(crate) fn set_block_state(&mut self, number: u64, state: State) {
        self.cache_mut().set_state(number, state);
    }

    pub(crate) fn block_state(&self, number: u64) -> Option<State> {
        self.cache().peek(number).map(|slot| slot.state)
    }

    /// The block is in its place now, unless it left `state` meanwhile. File content leaves the
    /// memory: it is written in place later on, which a copy kept here would not notice.
    pub(crate) fn settle(&mut self, number: u64, state: State) {
        if self.block_state(number) != Some(state) {
            return;
        }
        if self.content.remove(&number) {
            self.cache_mut().remove(number);
        } else {
            self.cache_mut().set_state(number, State::Clean);
        }
    }
}

/// The primary superblock, through the overlay. Unless `strict`, a wrong checksum is let pass when
/// the journal may hold the right content.
pub(crate) fn read_superblock(
    disk: &dyn Disk,
    overlay: &Overlay,
    strict: bool,
) -> Result<Superblock> {
    let mut sb = Superblock::empty();
    if disk.size() < 2048 {
        return Err(Error::new(Kind::NotFound, "There is no ext filesystem (disk too small)"));
    }
    disk.read_at(&mut sb.raw, 1024).context("Could not read the superblock")?;
    if let Some((number, size)) = overlay.block_size().map(|size| (1024 / size as u64, size)) {
        let mut block = vec![0; size];
        overlay.read(disk, &mut block, number, size)?;
        let at = 1024 % size;
        if let Some(raw) = block.get(at..at + SUPERBLOCK_SIZE) {
            sb.raw.copy_from_slice(raw);
        }
    }
    if superblock_is_right(&sb) {
        return Ok(sb);
    }
    // The superblock covers two sectors: a cut may have left one of them old. Either only the flag
    // changed that says whether the journal holds anything, or the journal holds the whole.
    let mut flipped = sb.clone();
    flipped.set_incompat(Incompat::RECOVER, !sb.has_incompat(Incompat::RECOVER));
    if superblock_is_right(&flipped) {
        sb.set_incompat(Incompat::RECOVER, true);
        return Ok(sb);
    }
    if overlay.is_empty() && sb.has_incompat(Incompat::RECOVER) && !strict {
        return Ok(sb);
    }
    Err(corrupt("the superblock has a wrong checksum")
        .with_hint("a backup may be whole: 'disksmith fsck' looks for one"))
}

/// True unless a checksum says otherwise.
pub(crate) fn superblock_is_right(sb: &Superblock) -> bool {
    sb.s_rev_level() == 0
        || !sb.has_ro(super::features::RoCompat::METADATA_CSUM)
        || sb.s_magic() != super::layout::superblock::MAGIC
        || sb.s_checksum() == crc32c(!0, &sb.raw[..SUPERBLOCK_SIZE - 4])
}

/// An error of kind corrupt.
pub(crate) fn corrupt(what: impl Into<String>) -> Error {
    Error::new(Kind::Corrupt, format!("The ext filesystem is corrupt: {}", what.into()))
}
