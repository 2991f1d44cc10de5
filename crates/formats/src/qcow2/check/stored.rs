//! The refcounts that the image claims.

use std::collections::HashMap;

use disksmith_disk::{Disk, Error, Kind, Result};

use super::super::layout::Shape;
use super::super::open::read_table;
use super::super::roots::Roots;
use super::super::util::read_padded;
use super::counter;

/// Refcount blocks are kept up to this many bytes, but at least two.
const CACHE_BYTES: u64 = 8 << 20;
/// Bits 9 to 63 of a refcount table entry.
const OFFSET: u64 = !0x1ff;
/// Bits of a refcount table entry that must be zero.
pub(super) const RESERVED: u64 = 0x1ff;

/// The refcount table and a window on the blocks.
#[derive(Debug)]
pub(super) struct Stored<'a> {
    storage: &'a dyn Disk,
    shape: Shape,
    pub table: Vec<u64>,
    cache: HashMap<u64, Vec<u8>>,
    cache_most: usize,
}

/// Why a refcount cannot be known.
#[derive(Debug)]
pub(super) enum Unknown {
    /// The block lies at this unaligned offset.
    Unaligned(u64),
    Io(disksmith_disk::Error),
}

impl<'a> Stored<'a> {
    pub(super) fn new(storage: &'a dyn Disk, roots: &Roots) -> Result<Self> {
        let shape = roots.shape;
        let table = read_table(
            storage,
            roots.header.refcount_table_offset,
            roots.refcount_table_bytes() / 8,
        )?;
        let cache_most = (CACHE_BYTES / shape.cluster_size()).max(2) as usize;
        Ok(Self { storage, shape, table, cache: HashMap::new(), cache_most })
    }

    /// Where block `index` lies; 0 = there is none.
    pub(super) fn block_offset(&self, index: u64) -> u64 {
        let entry = usize::try_from(index).ok().and_then(|i| self.table.get(i));
        entry.map_or(0, |entry| entry & OFFSET)
    }

    /// The counts of block `index`; `None` = all zero.
    pub(super) fn block(&mut self, index: u64) -> Result<Option<&mut Vec<u8>>, Unknown> {
        let offset = self.block_offset(index);
        if offset == 0 {
            return Ok(None);
        }
        if !self.shape.aligned(offset) {
            return Err(Unknown::Unaligned(offset));
        }
        if offset > i64::MAX as u64 {
            return Err(Unknown::Io(Error::new(Kind::Io, "Input/output error")));
        }
        if !self.cache.contains_key(&index) {
            if self.cache.len() >= self.cache_most {
                self.cache.clear();
            }
            let size = self.shape.cluster_size() as usize;
            let mut block = disksmith_disk::bytes::zeroed(size).map_err(Unknown::Io)?;
            read_padded(self.storage, &mut block, offset).map_err(Unknown::Io)?;
            self.cache.insert(index, block);
        }
        Ok(self.cache.get_mut(&index))
    }

    pub(super) fn get(&mut self, cluster: u64) -> Result<u64, Unknown> {
        let (order, entries) = (self.shape.refcount_order, self.shape.block_entries());
        let slot = (cluster % entries) as usize;
        Ok(self.block(cluster / entries)?.map_or(0, |block| counter::get(block, order, slot)))
    }
}
