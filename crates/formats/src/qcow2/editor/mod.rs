//! Changes to metadata on the raw storage, while the open image stands still.
//!
//! Snapshots, bitmaps, amendments and repairs are made with this: it allocates and frees
//! clusters, changes refcounts, and switches roots in the header, in an order that keeps every
//! refcount at or above the references on disk at every instant (digest section 8). The open
//! image writes everything back before and reads its state anew after.

mod allocate;
mod bitmaps;
mod guard;
mod header;
mod refcounts;
mod references;
mod tables;
mod version;
mod width;

pub(super) use bitmaps::{Stored, read_bitmap_directory};

use std::collections::BTreeMap;

use disksmith_disk::{Disk, Result};

use super::open::read_table;
use super::places::Place;
use super::roots::Roots;
use refcounts::Block;

/// Metadata of an image that nobody else changes meanwhile.
pub(super) struct Editor<'a> {
    storage: &'a dyn Disk,
    pub roots: Roots,
    /// The refcount table, masked to offsets.
    table: Vec<u64>,
    blocks: BTreeMap<u64, Block>,
    /// No cluster below this one is free.
    first_free: u64,
    /// Where metadata lay before the first allocation.
    occupied: Option<Vec<Place>>,
    /// Between setting the dirty bit and clearing it: counts or marks may be wrong.
    pub half_done: bool,
}

impl<'a> Editor<'a> {
    /// Starts from what the storage holds.
    pub(super) fn load(storage: &'a dyn Disk) -> Result<Self> {
        let roots = Roots::read(storage)?;
        let place = roots.header.refcount_table_offset;
        let table = read_table(storage, place, roots.refcount_table_bytes() / 8)?;
        let table: Vec<u64> = table.into_iter().map(|entry| entry & !0x1ff).collect();
        Ok(Self {
            storage,
            roots,
            table,
            blocks: BTreeMap::new(),
            first_free: 0,
            occupied: None,
            half_done: false,
        })
    }

    /// Makes all refcount changes durable, with everything written before.
    pub(super) fn sync(&mut self) -> Result<()> {
        self.write_blocks()?;
        self.storage.flush()
    }
}
