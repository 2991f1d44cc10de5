//! Reference counts: looking up, changing, and room for more of them.

use std::sync::Arc;

use disksmith_disk::{Disk, Error, Kind, Result};

use super::allocate::TableKind;
use super::layout::put;
use super::meta::{Meta, Stop};
use super::open::REFCOUNT_TABLE_MOST;

/// Bits of a refcount table entry that hold no offset.
const TABLE_RESERVED: u64 = 0x1ff;

/// Slices of refcount blocks that are looked through for empty blocks.
const BLOCK_SLICES_MOST: u64 = 1 << 20;

impl Meta {
    /// Where the refcount block for `cluster` lies; `None` if there is none.
    pub(super) fn block_place(&mut self, cluster: u64) -> Result<Option<u64>> {
        let index = cluster >> self.shape.block_bits();
        let offset = self.table.get(index as usize).copied().unwrap_or(0) & !TABLE_RESERVED;
        if offset == 0 {
            return Ok(None);
        }
        if !self.shape.aligned(offset) {
            let text =
                format!("Refblock offset {offset:#x} unaligned (reftable index: {index:#x})");
            return Err(self.damaged(&text));
        }
        Ok(Some(offset))
    }

    /// The refcount of `cluster`.
    pub(super) fn refcount(&mut self, cluster: u64) -> Result<u64> {
        let Some(block) = self.block_place(cluster)? else { return Ok(0) };
        let index = cluster & (self.shape.block_entries() - 1);
        let (byte, shift) = position(index, self.shape.refcount_order);
        let bytes = self.blocks.read(&*self.storage, block + byte)?;
        Ok(decode(bytes, self.shape.refcount_order, shift))
    }

    /// From `cluster` on: whether it is free, and how many clusters (at most `most`) are alike.
    /// `None` where there is no refcount block.
    pub(super) fn scan(&mut self, cluster: u64, most: u64) -> Result<Option<(bool, u64)>> {
        let Some(block) = self.block_place(cluster)? else { return Ok(None) };
        let order = self.shape.refcount_order;
        let index = cluster & (self.shape.block_entries() - 1);
        let (byte, shift) = position(index, order);
        let bytes = self.blocks.read(&*self.storage, block + byte)?;
        let first_free = decode(bytes, order, shift) == 0;
        let left = ((bytes.len() as u64 * 8) >> order) - (u64::from(shift) >> order);
        let mut run = 1;
        while run < left.min(most) {
            let bit = (run << order) + u64::from(shift);
            let entry = bytes.get((bit >> 3) as usize..).unwrap_or_default();
            let within = if order < 3 { (bit & 7) as u32 } else { 0 };
            if (decode(entry, order, within) == 0) != first_free {
                break;
            }
            run += 1;
        }
        Ok(Some((first_free, run)))
    }

    /// Sets the refcount of a cluster that has a block.
    pub(super) fn set_refcount(&mut self, cluster: u64, value: u64) -> Result<()> {
        let Some(block) = self.block_place(cluster)? else {
            return Err(Error::new(
                Kind::Corrupt,
                format!("cluster {cluster} has no refcount block"),
            ));
        };
        self.check_table_place(block, TableKind::RefcountBlock)?;
        let order = self.shape.refcount_order;
        let index = cluster & (self.shape.block_entries() - 1);
        let (byte, shift) = position(index, order);
        let place = block + byte;
        if order >= 3 {
            let width = 1usize << (order - 3);
            let all = value.to_be_bytes();
            let bytes = all.get(all.len() - width..).unwrap_or_default();
            return self.blocks.write(&*self.storage, place, bytes);
        }
        let old = self.blocks.read(&*self.storage, place)?.first().copied().unwrap_or(0);
        let mask = (self.shape.refcount_max() as u8) << shift;
        let new = old & !mask | (value as u8) << shift & mask;
        self.blocks.write(&*self.storage, place, &[new])
    }

    /// One more reference to each of `count` clusters that have blocks.
    pub(super) fn reference(&mut self, first: u64, count: u64) -> Result<()> {
        for cluster in first..first + count {
            let old = self.refcount(cluster)?;
            if old >= self.shape.refcount_max() {
                return Err(Error::new(
                    Kind::InvalidInput,
                    format!("the refcount of cluster {cluster} cannot exceed {old}"),
                ));
            }
            self.set_refcount(cluster, old + 1)?;
        }
        Ok(())
    }

    /// One reference less to each of `count` clusters, at once. Only for clusters that nothing
    /// in the file refers to any more.
    pub(super) fn release(&mut self, first: u64, count: u64) -> Result<()> {
        self.storage.announce("cluster_free");
        let mut gone: Option<(u64, u64)> = None;
        for cluster in first..first + count {
            let old = self.refcount(cluster)?;
            let Some(new) = old.checked_sub(1) else {
                return Err(Error::new(
                    Kind::Corrupt,
                    format!("the refcount of cluster {cluster} would fall below zero"),
                ));
            };
            self.set_refcount(cluster, new)?;
            if new == 0 {
                self.forget_cluster(cluster);
                gone = match gone {
                    Some((start, length)) if start + length == cluster => Some((start, length + 1)),
                    other => {
                        self.discard_run(other)?;
                        Some((cluster, 1))
                    }
                };
            }
        }
        self.discard_run(gone)
    }

    fn forget_cluster(&mut self, cluster: u64) {
        let size = self.shape.cluster_size();
        let offset = cluster * size;
        self.hint = self.hint.min(cluster);
        self.l2.forget(offset, size);
        self.unlinked.remove(&offset);
        self.verified.remove(&(cluster, TableKind::L2));
        self.verified.remove(&(cluster, TableKind::RefcountBlock));
        if let Some(guarded) = &mut self.guarded {
            guarded.remove(&cluster);
        }
        // The next compressed cluster must not be put into space that is no longer ours.
        if self.packed_end.is_some_and(|end| self.shape.cluster(end) == cluster) {
            self.packed_end = None;
        }
    }

    fn discard_run(&self, run: Option<(u64, u64)>) -> Result<()> {
        let Some((first, count)) = run else { return Ok(()) };
        let size = self.shape.cluster_size();
        self.storage.discard(first * size, count * size)
    }

    /// Frees clusters whose unmapping is durable.
    pub(super) fn release_ripe(&mut self) -> Result<()> {
        let mut result = Ok(());
        while let Some(batch) = self.quarantine.take_ripe() {
            for (first, count) in batch {
                // One wrong count must not keep the others from being given back.
                result = result.and(self.release(first, count));
            }
        }
        result
    }

    /// One reference to `count` clusters from host `offset` on is gone in memory. They are free
    /// once that is durable.
    pub(super) fn free_clusters(&mut self, offset: u64, count: u64) {
        self.quarantine.add(self.shape.cluster(offset), count);
    }

    /// One reference to every cluster that holds a part of `length` bytes at `offset` is gone.
    pub(super) fn free_bytes(&mut self, offset: u64, length: u64) {
        let first = self.shape.cluster(offset);
        let last = self.shape.cluster(offset + length.max(1) - 1);
        self.quarantine.add(first, last - first + 1);
    }

    /// Makes a refcount block for `cluster`, which has none, in the free cluster `place`.
    /// The caller must look for free clusters anew: the refcount table may have moved.
    pub(super) fn new_block(&mut self, cluster: u64, place: u64) -> Result<()> {
        let index = cluster >> self.shape.block_bits();
        if index >= self.table.len() as u64 {
            return self.grow_table(index);
        }
        let size = self.shape.cluster_size();
        self.check_allocation(place, 1, "refcount block")?;
        self.blocks.insert_zeroes(place * size, size);
        if let Some(entry) = self.table.get_mut(index as usize) {
            *entry = place * size;
        }
        self.table_dirty.insert(index);
        if let Err(error) = self.set_refcount(place, 1) {
            // Named but not counted, the block would be overwritten by what comes next.
            if let Some(entry) = self.table.get_mut(index as usize) {
                *entry = 0;
            }
            self.blocks.forget(place * size, size);
            return Err(error);
        }
        self.guard(place * size, 1);
        self.used_up_to((place + 1) * size);
        Ok(())
    }

    /// Gives back refcount blocks that count nothing any more but perhaps themselves, as after
    /// shrinking. Everything was written back before. Looks at a bounded number of slices only.
    pub(super) fn drop_empty_blocks(&mut self) -> Result<()> {
        let mut budget = BLOCK_SLICES_MOST;
        loop {
            let mut dropped = Vec::new();
            for index in 0..self.table.len() as u64 {
                let Some(place) = self.block_place(index << self.shape.block_bits())? else {
                    continue;
                };
                let cluster = self.shape.cluster(place);
                let itself = cluster >> self.shape.block_bits() == index;
                if !self.counts_nothing(place, itself.then_some(cluster), &mut budget)? {
                    continue;
                }
                if let Some(entry) = self.table.get_mut(index as usize) {
                    *entry = 0;
                }
                self.table_dirty.insert(index);
                dropped.push((cluster, itself));
            }
            if dropped.is_empty() {
                return Ok(());
            }
            // Nothing refers to the blocks any more before they are free.
            self.write_back()?;
            self.storage.flush()?;
            let size = self.shape.cluster_size();
            for (cluster, itself) in dropped {
                self.blocks.forget(cluster * size, size);
                match itself {
                    true => self.forget_cluster(cluster),
                    false => self.release(cluster, 1)?,
                }
            }
            self.write_back()?;
        }
    }

    /// Whether the block at `place` has no count other than that of the cluster `own`.
    fn counts_nothing(&mut self, place: u64, own: Option<u64>, budget: &mut u64) -> Result<bool> {
        let order = self.shape.refcount_order;
        let slice = self.blocks.slice_size();
        let own = own.map(|cluster| position(cluster & (self.shape.block_entries() - 1), order));
        for start in (0..self.shape.cluster_size()).step_by(slice as usize) {
            let Some(left) = budget.checked_sub(1) else { return Ok(false) };
            *budget = left;
            let mut bytes = self.blocks.read(&*self.storage, place + start)?.to_vec();
            if let Some((byte, shift)) =
                own.filter(|(byte, _)| (start..start + slice).contains(byte))
            {
                let at = (byte - start) as usize;
                let width = if order >= 3 { 1 << (order - 3) } else { 1 };
                let mask =
                    if order >= 3 { 0xff } else { (self.shape.refcount_max() as u8) << shift };
                bytes.iter_mut().skip(at).take(width).for_each(|byte| *byte &= !mask);
            }
            if !disksmith_disk::is_zero(&bytes) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Moves the refcount table to a larger place, right behind what it can describe now.
    fn grow_table(&mut self, index: u64) -> Result<()> {
        // What the present table describes must be in the file before it is copied.
        self.write_back()?;
        let size = self.shape.cluster_size();
        let per_block = self.shape.block_entries();
        let old_clusters = u64::from(self.header.refcount_table_clusters);
        let start = (self.table.len() as u64) << self.shape.block_bits();
        let mut clusters =
            self.shape.clusters((index + 1) * 8).max(old_clusters + old_clusters / 2 + 1);
        let mut blocks = 1;
        loop {
            let area = blocks + clusters;
            if blocks * per_block < area {
                blocks = area.div_ceil(per_block);
            } else if clusters * size / 8 < self.table.len() as u64 + blocks {
                clusters += 1;
            } else {
                break;
            }
        }
        if clusters * size > REFCOUNT_TABLE_MOST {
            return Err(Error::new(
                Kind::LimitExceeded,
                "This operation would make the refcount table grow beyond the maximum size supported by QEMU, aborting",
            ));
        }
        self.check_allocation(start, blocks + clusters, "refcount table")?;
        let first_index = self.table.len();
        let mut table = self.table.clone();
        table.resize((clusters * size / 8) as usize, 0);
        for (entry, block) in table.iter_mut().skip(first_index).zip(0..blocks) {
            *entry = (start + block) * size;
        }
        self.write_new_table(start, blocks, &table)?;
        let place = (start + blocks) * size;
        if let Err(error) = self.switch_table(place, clusters as u32) {
            // Which of the two tables counts is known only to the file.
            self.stopped = Some(Stop::HalfDone);
            return Err(error);
        }
        let old_place = std::mem::replace(&mut self.header.refcount_table_offset, place);
        self.header.refcount_table_clusters = clusters as u32;
        self.table = table;
        self.guard(start * size, blocks + clusters);
        self.used_up_to((start + blocks + clusters) * size);
        self.free_clusters(old_place, old_clusters);
        Ok(())
    }

    /// Writes blocks that describe themselves and the table behind them, durably.
    fn write_new_table(&mut self, start: u64, blocks: u64, table: &[u64]) -> Result<()> {
        let storage = Arc::clone(&self.storage);
        let size = self.shape.cluster_size();
        let order = self.shape.refcount_order;
        let used = blocks + (table.len() as u64 * 8).div_ceil(size);
        let mut bytes = vec![0; (blocks * size) as usize];
        for index in 0..used {
            let (byte, shift) = position(index, order);
            let at = byte as usize;
            if order >= 3 {
                put(&mut bytes, at + (1 << (order - 3)) - 1, &[1]);
            } else {
                let old = bytes.get(at).copied().unwrap_or(0);
                put(&mut bytes, at, &[old | 1 << shift]);
            }
        }
        storage.write_at(&bytes, start * size)?;
        let bytes: Vec<u8> = table.iter().flat_map(|entry| entry.to_be_bytes()).collect();
        storage.write_at(&bytes, (start + blocks) * size)?;
        storage.flush()
    }

    /// Points the header to another refcount table, durably.
    pub(super) fn switch_table(&mut self, place: u64, clusters: u32) -> Result<()> {
        let mut bytes = [0; 12];
        put(&mut bytes, 0, &place.to_be_bytes());
        put(&mut bytes, 8, &clusters.to_be_bytes());
        self.storage.write_at(&bytes, 48)?;
        self.storage.flush()
    }
}

/// Byte and shift within it of entry number `index` of a block.
pub(super) fn position(index: u64, order: u32) -> (u64, u32) {
    let bit = index << order;
    (bit >> 3, if order < 3 { (bit & 7) as u32 } else { 0 })
}

/// The refcount at the front of `bytes`.
pub(super) fn decode(bytes: &[u8], order: u32, shift: u32) -> u64 {
    use disksmith_disk::bytes::{be16, be32, be64};
    let first = bytes.first().copied().unwrap_or(0);
    match order {
        0..=2 => u64::from(first >> shift) & (u64::MAX >> (64 - (1 << order))),
        3 => first.into(),
        4 => be16(bytes, 0).unwrap_or(0).into(),
        5 => be32(bytes, 0).unwrap_or(0).into(),
        _ => be64(bytes, 0).unwrap_or(0),
    }
}
