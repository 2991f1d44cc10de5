//! Refcounts: read, change, write back.

use disksmith_disk::{Error, Kind, Result};

use super::super::check::{refcount_get, refcount_set};
use super::super::open::REFCOUNT_TABLE_MOST;
use super::super::util::read_padded;
use super::Editor;

/// Refcount blocks are kept up to this many bytes, but at least a few.
const CACHE_BYTES: u64 = 8 << 20;
const CACHE_LEAST: u64 = 4;

/// A refcount block in memory.
#[derive(Debug)]
pub(super) struct Block {
    pub bytes: Vec<u8>,
    pub dirty: bool,
}

impl Editor<'_> {
    pub(in super::super) fn refcount(&mut self, cluster: u64) -> Result<u64> {
        let shape = self.roots.shape;
        let slot = (cluster % shape.block_entries()) as usize;
        let block = self.block(cluster / shape.block_entries())?;
        Ok(block.map_or(0, |block| refcount_get(&block.bytes, shape.refcount_order, slot)))
    }

    /// Adds `delta` to a refcount and answers the new one.
    pub(in super::super) fn change(&mut self, cluster: u64, delta: i64) -> Result<u64> {
        let shape = self.roots.shape;
        let count = self.refcount(cluster)?;
        let changed = count.checked_add_signed(delta).filter(|c| *c <= shape.refcount_max());
        let changed = changed.ok_or_else(|| Error::new(Kind::InvalidInput, "Invalid argument"))?;
        let slot = (cluster % shape.block_entries()) as usize;
        let block = self.block(cluster / shape.block_entries())?;
        // Without a block the count is zero, and cannot become anything else here.
        let block = block.ok_or_else(|| {
            let beyond = cluster / shape.block_entries() >= REFCOUNT_TABLE_MOST / 8;
            let text = if beyond { "File too large" } else { "Resource temporarily unavailable" };
            Error::new(Kind::Corrupt, text)
        })?;
        refcount_set(&mut block.bytes, shape.refcount_order, slot, changed);
        block.dirty = true;
        if changed == 0 {
            self.first_free = self.first_free.min(cluster);
        }
        Ok(changed)
    }

    /// Adds `delta` to the refcounts of all clusters that the range touches. Undoes what it did
    /// when one cannot be changed.
    pub(in super::super) fn change_range(
        &mut self,
        offset: u64,
        length: u64,
        delta: i64,
    ) -> Result<()> {
        if length == 0 {
            return Ok(());
        }
        let shape = self.roots.shape;
        let first = shape.cluster(offset);
        for cluster in first..=shape.cluster(offset.saturating_add(length - 1)) {
            if let Err(error) = self.change(cluster, delta) {
                for done in first..cluster {
                    self.change(done, -delta)?;
                }
                return Err(error);
            }
        }
        Ok(())
    }

    /// The block of that index; `None` = there is none, all its counts are zero.
    pub(super) fn block(&mut self, index: u64) -> Result<Option<&mut Block>> {
        let offset = usize::try_from(index).ok().and_then(|i| self.table.get(i).copied());
        let Some(offset) = offset.filter(|offset| *offset != 0) else { return Ok(None) };
        let shape = self.roots.shape;
        if !shape.aligned(offset) || offset >= self.storage.size() {
            return Err(Error::new(Kind::Corrupt, "Input/output error"));
        }
        if !self.blocks.contains_key(&index) {
            self.make_room()?;
            let mut bytes = vec![0; shape.cluster_size() as usize];
            read_padded(self.storage, &mut bytes, offset)?;
            self.blocks.insert(index, Block { bytes, dirty: false });
        }
        Ok(self.blocks.get_mut(&index))
    }

    fn make_room(&mut self) -> Result<()> {
        let most = (CACHE_BYTES / self.roots.shape.cluster_size()).max(CACHE_LEAST);
        if (self.blocks.len() as u64) < most {
            return Ok(());
        }
        self.write_blocks()?;
        self.blocks.clear();
        Ok(())
    }

    /// Writes changed blocks. Counts may be raised at any time, and are lowered by callers only
    /// when no reference is left on disk: so no order is needed here.
    pub(super) fn write_blocks(&mut self) -> Result<()> {
        for (index, block) in self.blocks.iter_mut().filter(|(_, block)| block.dirty) {
            let offset = self.table.get(*index as usize).copied().unwrap_or(0);
            self.storage.write_at(&block.bytes, offset)?;
            block.dirty = false;
        }
        Ok(())
    }
}
