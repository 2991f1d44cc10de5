//! An open filesystem: superblock, descriptors, blocks in memory, the running transaction.
//!
//! Everything on disk but file content goes through [`Core::block`] and [`Core::modify`], so that a
//! failing operation can be taken back and a finished one goes to the journal whole.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use disksmith_disk::{Context as _, Disk, Error, Kind, Result};

use super::cache::{Block, Cache, Slot, State};
use super::checksum::{crc16, crc32c};
use super::features::Incompat;
use super::journal::{Journal, Overlay};
use super::layout::group::INODE_UNINIT;
use super::layout::superblock::SUPERBLOCK_SIZE;
use super::layout::{GroupDescriptor, Inode, Superblock, put32};
use super::shape::Shape;
use crate::errors;

/// The root directory.
pub(crate) const ROOT: u32 = 2;
/// The inode that owns the reserved descriptor blocks.
pub(crate) const RESIZE_INODE: u32 = 7;
/// The journal's usual inode.
pub(crate) const JOURNAL_INODE: u32 = 8;

/// Unchanged blocks kept in memory, in bytes.
const CACHE_BYTES: usize = 64 << 20;
/// The most descriptors read: 2^32 blocks in groups of 8192 (1 KiB blocks) and some to spare.
const GROUPS_MAX: u32 = 1 << 24;

/// What one operation changed, to take it back.
#[derive(Debug, Default)]
struct Undo {
    blocks: HashMap<u64, Option<Slot>>,
    groups: HashMap<u32, GroupDescriptor>,
    superblock: Option<Box<Superblock>>,
    freed: Vec<(u64, u64)>,
    /// Whether the block was revoked before.
    revoked: HashMap<u64, bool>,
    truncated: Vec<u32>,
}

/// What the running transaction holds.
#[derive(Debug, Default)]
pub(crate) struct Transaction {
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
    /// Blocks that were new here; without a journal they are written first.
    pub(crate) fresh: HashSet<u64>,
}

impl Transaction {
    pub(crate) fn is_empty(&self) -> bool {
        self.dirty.is_empty()
            && self.dirty_groups.is_empty()
            && !self.superblock
            && self.revoked.is_empty()
    }
}

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
    undo: Option<Undo>,
    pub(crate) journal: Option<Journal>,
    pub(crate) read_only: bool,
    /// A commit failed: what is in memory is not on disk, nothing may follow.
    pub(crate) failed: bool,
    /// Where the next block is looked for when nothing better is known.
    pub(crate) goal: u64,
    /// Inodes without names that are held.
    held: Mutex<HashMap<u32, u64>>,
    /// File content in the cache that is not in its place yet.
    pub(crate) content: HashSet<u64>,
    /// A fixed time for all changes, for reproducible results.
    pub(crate) clock: Option<crate::Time>,
    /// Checksums of bitmaps are checked once.
    pub(crate) checked_bitmaps: Mutex<HashSet<u64>>,
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
            cache: Mutex::new(Cache::new(CACHE_BYTES / shape.block_size)),
            overlay,
            transaction: Transaction::default(),
            undo: None,
            journal: None,
            read_only,
            failed: false,
            goal: 0,
            held: Mutex::new(HashMap::new()),
            content: HashSet::new(),
            clock: None,
            checked_bitmaps: Mutex::new(HashSet::new()),
        }
    }

    fn load_groups(&mut self) -> Result<()> {
        let shape = self.shape;
        if shape.groups > GROUPS_MAX {
            return Err(Error::new(Kind::LimitExceeded, "The filesystem has too many groups"));
        }
        let mut groups = Vec::with_capacity(shape.groups as usize);
        for index in 0..shape.descriptor_blocks() {
            let number = shape.descriptor_block(index);
            let block = self.block(number).context("Could not read the group descriptors")?;
            for bytes in block.chunks_exact(shape.descriptor_size) {
                if groups.len() < shape.groups as usize {
                    let mut group = GroupDescriptor::parse(bytes);
                    group.wide = shape.wide();
                    groups.push(group);
                }
            }
        }
        self.groups = groups;
        Ok(())
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

    fn cache_mut(&mut self) -> &mut Cache {
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
        self.transaction.fresh.insert(number);
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
        let logged = self.journal.as_ref().is_some_and(|journal| journal.holds(number));
        if logged && self.transaction.revoked.insert(number) {
            if let Some(undo) = &mut self.undo {
                undo.revoked.entry(number).or_insert(false);
            }
        }
    }

    /// Blocks are about to be written in place: what the log holds of them must stay there.
    pub(crate) fn note_overwritten(&mut self, start: u64, count: u64) {
        let Transaction { revoked, overwritten, .. } = &mut self.transaction;
        if !revoked.is_empty() {
            overwritten.extend((start..start + count).filter(|number| revoked.contains(number)));
        }
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

    /// The block is in its place now. File content leaves the memory: it is written in place later
    /// on, which a copy kept here would not notice.
    pub(crate) fn settle(&mut self, number: u64) {
        if self.content.remove(&number) {
            self.cache_mut().remove(number);
        } else {
            self.cache_mut().set_state(number, State::Clean);
        }
    }

    pub(crate) fn blocks_in(&self, state: State) -> Vec<u64> {
        self.cache().numbers(state)
    }

    // ---- operations ------------------------------------------------------------------------

    /// Starts recording, so that [`rollback`](Self::rollback) can undo what follows.
    pub(crate) fn begin(&mut self) {
        self.undo = Some(Undo { superblock: Some(Box::new(self.sb.clone())), ..Undo::default() });
    }

    /// Keeps what was done.
    pub(crate) fn finish(&mut self) {
        self.undo = None;
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
    }

    /// Remembers that a file was cut in the middle of a block.
    pub(crate) fn note_truncated(&mut self, inode: u32) {
        if self.transaction.truncated.insert(inode) {
            if let Some(undo) = &mut self.undo {
                undo.truncated.push(inode);
            }
        }
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

    // ---- groups and superblock -------------------------------------------------------------

    pub(crate) fn group(&self, group: u32) -> Result<&GroupDescriptor> {
        self.groups.get(group as usize).ok_or_else(|| corrupt(format!("there is no group {group}")))
    }

    /// A descriptor to be changed.
    pub(crate) fn group_mut(&mut self, group: u32) -> Result<&mut GroupDescriptor> {
        let place = self
            .groups
            .get_mut(group as usize)
            .ok_or_else(|| corrupt(format!("there is no group {group}")))?;
        if let Some(undo) = &mut self.undo {
            undo.groups.entry(group).or_insert(*place);
        }
        self.transaction.dirty_groups.insert(group);
        Ok(place)
    }

    /// The superblock to be changed.
    pub(crate) fn super_mut(&mut self) -> &mut Superblock {
        self.transaction.superblock = true;
        &mut self.sb
    }

    /// A descriptor's checksum, or 0 where there are none.
    pub(crate) fn group_checksum(&self, group: u32, descriptor: &GroupDescriptor) -> u16 {
        group_checksum(&self.shape, &self.sb.uuid(), group, descriptor, None)
    }

    /// Brings changed descriptors, bitmap checksums and the superblock into their blocks.
    pub(crate) fn write_back_groups(&mut self) -> Result<()> {
        let shape = self.shape;
        for group in std::mem::take(&mut self.transaction.dirty_groups) {
            self.refresh_bitmap_checksums(group)?;
            let index = u64::from(group) / shape.descriptors_per_block();
            let within = (u64::from(group) % shape.descriptors_per_block()) as usize;
            let number = shape.descriptor_block(index);
            let at = within * shape.descriptor_size;
            let mut descriptor = *self.group(group)?;
            let used = shape.descriptor_size.min(descriptor.raw.len());
            let uuid = self.sb.uuid();
            let bytes = self.modify(number)?;
            let Some(place) = bytes.get_mut(at..at + shape.descriptor_size) else {
                return Err(corrupt("a group descriptor lies outside of its block"));
            };
            let tail = place.get(used..).map(<[u8]>::to_vec);
            descriptor.set_bg_checksum(group_checksum(
                &shape,
                &uuid,
                group,
                &descriptor,
                tail.as_deref(),
            ));
            place[..used].copy_from_slice(&descriptor.raw[..used]);
            if let Some(kept) = self.groups.get_mut(group as usize) {
                *kept = descriptor;
            }
        }
        if std::mem::take(&mut self.transaction.superblock) {
            self.write_back_superblock()?;
        }
        Ok(())
    }

    fn write_back_superblock(&mut self) -> Result<()> {
        if self.shape.checksums {
            let value = crc32c(!0, &self.sb.raw[..SUPERBLOCK_SIZE - 4]);
            self.sb.set_s_checksum(value);
        }
        let raw = self.sb.raw;
        let number = 1024 >> self.shape.block_bits;
        let at = 1024 & (self.shape.block_size - 1);
        super::layout::put(self.modify(number)?, at, &raw);
        Ok(())
    }

    // ---- inodes ----------------------------------------------------------------------------

    /// Block and byte in it where the inode lies.
    pub(crate) fn inode_place(&self, number: u32) -> Result<(u64, usize)> {
        if number == 0 || number > self.shape.inodes {
            return Err(errors::stale());
        }
        let (group, index) = self.shape.inode_place(number);
        let per_block = self.shape.inodes_per_block();
        let block = self.group(group)?.inode_table() + u64::from(index / per_block);
        Ok((block, (index % per_block) as usize * self.shape.inode_size))
    }

    /// Reads an inode; its checksum is verified.
    pub(crate) fn inode(&self, number: u32) -> Result<Inode> {
        let inode = self.inode_unchecked(number)?;
        if self.shape.checksums && inode.checksum() != self.inode_checksum(&inode) {
            return Err(corrupt(format!("inode {number} has a wrong checksum")));
        }
        Ok(inode)
    }

    pub(crate) fn inode_unchecked(&self, number: u32) -> Result<Inode> {
        let (block, at) = self.inode_place(number)?;
        let bytes = self.block(block)?;
        let raw = bytes.get(at..at + self.shape.inode_size).unwrap_or(&[]).to_vec();
        Ok(Inode { number, raw })
    }

    /// An inode that is in use.
    pub(crate) fn live_inode(&self, number: u64) -> Result<Inode> {
        let number = u32::try_from(number).map_err(|_| errors::stale())?;
        let inode = self.inode(number)?;
        if inode.i_mode() == 0 || inode.i_links_count() == 0 && !self.is_held(number) {
            return Err(errors::stale());
        }
        Ok(inode)
    }

    /// Stores an inode with its checksum.
    pub(crate) fn put_inode(&mut self, inode: &Inode) -> Result<()> {
        let (block, at) = self.inode_place(inode.number)?;
        let mut raw = inode.raw.clone();
        if self.shape.checksums {
            let mut sealed = inode.clone();
            sealed.set_checksum(self.inode_checksum(inode));
            raw = sealed.raw;
        }
        let bytes = if self.table_block_is_fresh(inode.number)? {
            self.fresh(block)?
        } else {
            self.modify(block)?
        };
        super::layout::put(bytes, at, &raw);
        Ok(())
    }

    /// True for a block of the inode table that was never used: what is on disk is no inode.
    fn table_block_is_fresh(&self, number: u32) -> Result<bool> {
        let (group, index) = self.shape.inode_place(number);
        let descriptor = self.group(group)?;
        if !self.shape.lazy_groups {
            return Ok(false);
        }
        let used = if descriptor.has_flag(INODE_UNINIT) {
            0
        } else {
            self.shape.inodes_per_group.saturating_sub(descriptor.itable_unused())
        };
        let per_block = self.shape.inodes_per_block();
        Ok(index / per_block * per_block >= used)
    }

    /// The start value of checksums of everything that belongs to an inode.
    pub(crate) fn inode_seed(&self, inode: &Inode) -> u32 {
        let seed = crc32c(self.shape.seed, &inode.number.to_le_bytes());
        crc32c(seed, &inode.i_generation().to_le_bytes())
    }

    pub(crate) fn inode_checksum(&self, inode: &Inode) -> u32 {
        let mut bytes = inode.raw.clone();
        super::layout::put16(&mut bytes, 0x7C, 0);
        let has_high = inode.reaches(0x84);
        if has_high {
            super::layout::put16(&mut bytes, 0x82, 0);
        }
        let sum = crc32c(self.inode_seed(inode), &bytes);
        if has_high { sum } else { sum & 0xffff }
    }

    /// Checks or makes the checksum over `block[..at]`, stored at `at`, seeded by the inode.
    pub(crate) fn tail_is_right(&self, inode: &Inode, block: &[u8], at: usize) -> bool {
        !self.shape.checksums
            || block.get(..at).is_some_and(|body| {
                crc32c(self.inode_seed(inode), body) == super::layout::le32(block, at)
            })
    }

    /// Stores the checksum of `block[..covered]` at `at`.
    pub(crate) fn seal(shape: &Shape, seed: u32, block: &mut [u8], covered: usize, at: usize) {
        if shape.checksums {
            let sum = block.get(..covered).map_or(0, |body| crc32c(seed, body));
            put32(block, at, sum);
        }
    }
}

/// The checksum of a group descriptor; `tail` are its bytes past the 64 that we keep.
pub(crate) fn group_checksum(
    shape: &Shape,
    uuid: &[u8; 16],
    group: u32,
    descriptor: &GroupDescriptor,
    tail: Option<&[u8]>,
) -> u16 {
    let mut raw = descriptor.raw;
    let size = shape.descriptor_size.min(raw.len());
    if shape.checksums {
        super::layout::put16(&mut raw, 0x1E, 0);
        let sum = crc32c(shape.seed, &group.to_le_bytes());
        let sum = crc32c(sum, &raw[..size]);
        return (crc32c(sum, tail.unwrap_or(&[])) & 0xffff) as u16;
    }
    if !shape.lazy_groups {
        return 0;
    }
    let sum = crc16(crc16(!0, uuid), &group.to_le_bytes());
    let sum = crc16(sum, &raw[..0x1E]);
    let sum = if size > 0x20 { crc16(sum, &raw[0x20..size]) } else { sum };
    crc16(sum, tail.unwrap_or(&[]))
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
