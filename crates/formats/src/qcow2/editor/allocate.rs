//! Finding and giving back clusters.

use disksmith_disk::{Error, Kind, Result};

use super::super::open::REFCOUNT_TABLE_MOST;
use super::Editor;
use super::refcounts::Block;

/// Clusters looked at for a free one; then the end of the file is taken. 16 Mi clusters of 64 KiB
/// are a tebibyte.
const SEARCH_MOST: u64 = 1 << 24;
/// Host offsets have 56 bits.
const HOST_MOST: u64 = 1 << 56;

impl Editor<'_> {
    /// The offset of `bytes` in fresh clusters in a row, each counted once.
    pub(in super::super) fn allocate(&mut self, bytes: u64) -> Result<u64> {
        self.storage.announce("cluster_alloc");
        let shape = self.roots.shape;
        if self.occupied.is_none() {
            self.check_table()?;
        }
        let clusters = shape.clusters(bytes.max(1));
        // Each round but the last makes a block; so many blocks describe the clusters (and so many
        // those), and more are needed only where the counts make no sense.
        let mut rounds = 2 * (clusters / shape.block_entries()) + 8;
        let start = loop {
            let start = self.free_run(clusters)?;
            rounds = rounds.checked_sub(1).ok_or_else(|| {
                Error::new(Kind::Corrupt, "no free clusters are found: the refcounts make no sense")
            })?;
            if (start + clusters) << shape.cluster_bits > HOST_MOST {
                return Err(Error::new(Kind::OutOfSpace, "File too large"));
            }
            // A new block takes a cluster, perhaps one of these: look again after it.
            let entries = shape.block_entries();
            let blocks = start / entries..=(start + clusters - 1) / entries;
            match blocks.into_iter().find(|index| !self.has_block(*index)) {
                None => {
                    self.guard(start << shape.cluster_bits, clusters << shape.cluster_bits)?;
                    break start;
                }
                Some(index) => self.add_block(index)?,
            }
        };
        for cluster in start..start + clusters {
            self.change(cluster, 1)?;
        }
        if start == self.first_free {
            self.first_free = start + clusters;
        }
        Ok(start << shape.cluster_bits)
    }

    /// Gives back what [`allocate`](Self::allocate) gave, or lowers the count of shared clusters.
    pub(in super::super) fn release(&mut self, offset: u64, bytes: u64) -> Result<()> {
        self.storage.announce("cluster_free");
        self.change_range(offset, bytes, -1)
    }

    /// As [`release`](Self::release), but leaves alone what is counted as free: for ranges that
    /// a damaged image claimed.
    pub(in super::super) fn release_counted(&mut self, offset: u64, bytes: u64) -> Result<()> {
        let bytes = bytes.min(self.storage.size().saturating_sub(offset));
        if bytes == 0 {
            return Ok(());
        }
        let shape = self.roots.shape;
        for cluster in shape.cluster(offset)..=shape.cluster(offset + (bytes - 1)) {
            if self.refcount(cluster)? > 0 {
                self.change(cluster, -1)?;
            }
        }
        Ok(())
    }

    fn free_run(&mut self, clusters: u64) -> Result<u64> {
        let mut start = self.first_free;
        let mut cluster = start;
        let mut nothing_free = true;
        let searched_from = start;
        let end = self.roots.shape.clusters(self.storage.size());
        while cluster < start + clusters {
            let used = self.refcount(cluster)? != 0;
            // Counts beyond the end of the file make no sense; a damaged table that points at
            // one block again and again has billions of them.
            if used && cluster > end {
                return Err(Error::new(
                    Kind::Corrupt,
                    "clusters beyond the end of the image are in use",
                ));
            }
            cluster += 1;
            if used {
                start = cluster;
            }
            nothing_free &= used;
            if nothing_free {
                self.first_free = cluster;
            }
            if cluster - searched_from == SEARCH_MOST && cluster < end {
                (start, cluster, nothing_free) = (end, end, false);
            }
        }
        Ok(start)
    }

    fn has_block(&self, index: u64) -> bool {
        usize::try_from(index).ok().and_then(|i| self.table.get(i)).is_some_and(|o| *o != 0)
    }

    /// Makes the block of that index: in a cluster that another block counts, or else in the first
    /// one that it describes itself, which ends runs of free clusters there.
    fn add_block(&mut self, index: u64) -> Result<()> {
        if index >= self.table.len() as u64 {
            return self.grow_table(index);
        }
        let shape = self.roots.shape;
        let free = self.free_run(1)?;
        let counted = self.has_block(free / shape.block_entries());
        let cluster = if counted { free } else { index * shape.block_entries() };
        let offset = cluster << shape.cluster_bits;
        self.guard(offset, shape.cluster_size())?;
        let mut bytes = vec![0; shape.cluster_size() as usize];
        if counted {
            self.change(cluster, 1)?;
        } else {
            // As there was no block, all that it describes is free.
            super::super::check::refcount_set(&mut bytes, shape.refcount_order, 0, 1);
        }
        self.storage.write_at(&bytes, offset)?;
        self.sync()?;
        let place = self.roots.header.refcount_table_offset + index * 8;
        self.storage.write_at(&offset.to_be_bytes(), place)?;
        self.storage.flush()?;
        if let Some(entry) = self.table.get_mut(index as usize) {
            *entry = offset;
        }
        self.blocks.insert(index, Block { bytes, dirty: false });
        Ok(())
    }

    /// Makes the refcount table long enough for block `index`: a new one, behind everything
    /// that the old one speaks of, with blocks that describe it and themselves.
    fn grow_table(&mut self, index: u64) -> Result<()> {
        let shape = self.roots.shape;
        let entries = shape.block_entries();
        let base_index = self.table.len() as u64;
        let base = base_index * entries;
        let wanted = (index + 1).max(base_index + base_index / 2);
        let (mut clusters, mut blocks) = (1, 1);
        loop {
            let last_index = (base + clusters + blocks - 1) / entries;
            let needs = (last_index + 1).max(wanted);
            let next = (shape.clusters(needs * 8), last_index + 1 - base_index);
            if next == (clusters, blocks) {
                break;
            }
            (clusters, blocks) = (clusters.max(next.0), blocks.max(next.1));
        }
        if clusters << shape.cluster_bits > REFCOUNT_TABLE_MOST.max(shape.cluster_size()) {
            return Err(Error::new(Kind::OutOfSpace, "File too large"));
        }
        self.guard(base << shape.cluster_bits, (blocks + clusters) << shape.cluster_bits)?;
        let mut table = self.table.clone();
        table.resize((clusters << shape.cluster_bits) as usize / 8, 0);
        for number in 0..blocks {
            let mut bytes = vec![0; shape.cluster_size() as usize];
            for slot in 0..(blocks + clusters).saturating_sub(number * entries).min(entries) {
                super::super::check::refcount_set(
                    &mut bytes,
                    shape.refcount_order,
                    slot as usize,
                    1,
                );
            }
            let offset = (base + number) << shape.cluster_bits;
            self.storage.write_at(&bytes, offset)?;
            if let Some(entry) = table.get_mut((base_index + number) as usize) {
                *entry = offset;
            }
        }
        let offset = (base + blocks) << shape.cluster_bits;
        let bytes: Vec<u8> = table.iter().flat_map(|entry| entry.to_be_bytes()).collect();
        self.storage.write_at(&bytes, offset)?;
        self.sync()?;
        let old = (self.roots.header.refcount_table_offset, self.roots.refcount_table_bytes());
        self.set_refcount_table(offset, clusters as u32)?;
        self.table = table;
        // The old table's place is free to be used, the new one's is not.
        self.occupied = None;
        self.release(old.0, old.1)
    }
}
