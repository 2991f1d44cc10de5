//! Another width of refcounts: new blocks and a new table beside the old ones, then one write
//! of the header (digest section 13).

use std::collections::BTreeMap;

use disksmith_disk::{Error, Kind, Result};

use super::super::check::{refcount_get, refcount_set};
use super::super::layout::Shape;
use super::super::open::REFCOUNT_TABLE_MOST;
use super::Editor;

/// From the refcount table's pointer to the refcount width.
const POINTER_AND_WIDTH: std::ops::Range<usize> = 48..100;

impl Editor<'_> {
    /// Changes the width to 2^`order` bits. `tell(done, total)` blocks.
    pub(in super::super) fn change_width(
        &mut self,
        order: u32,
        tell: &mut dyn FnMut(u64, u64),
    ) -> Result<()> {
        let new = Shape { refcount_order: order, ..self.roots.shape };
        self.check_fits(&new)?;
        let mut blocks: BTreeMap<u64, u64> = BTreeMap::new();
        let mut table: Option<(u64, u64)> = None;
        let (table, clusters) = loop {
            // What is allocated for the new structures must be counted in them too.
            let missing: Vec<u64> =
                self.new_blocks(&new)?.into_iter().filter(|i| !blocks.contains_key(i)).collect();
            for index in &missing {
                blocks.insert(*index, self.allocate(new.cluster_size())?);
            }
            if !missing.is_empty() {
                continue;
            }
            let entries = blocks.last_key_value().map_or(1, |(last, _)| last + 1);
            let needed = new.clusters(entries.saturating_mul(8));
            if needed * new.cluster_size() > REFCOUNT_TABLE_MOST.max(new.cluster_size()) {
                return Err(Error::new(Kind::LimitExceeded, "File too large"));
            }
            match table {
                Some(table) if table.1 >= needed => break table,
                Some((offset, clusters)) => self.release(offset, clusters * new.cluster_size())?,
                None => {}
            }
            table = Some((self.allocate(needed * new.cluster_size())?, needed));
        };
        self.write_new(&new, &blocks, (table, clusters), tell)?;
        self.switch_width(order, table, clusters)
    }

    /// Refuses counts that the new width cannot hold.
    fn check_fits(&mut self, new: &Shape) -> Result<()> {
        let old = self.roots.shape;
        if new.refcount_order >= old.refcount_order {
            return Ok(());
        }
        for index in 0..self.table.len() as u64 {
            let Some(block) = self.block(index)? else { continue };
            for slot in 0..old.block_entries() {
                let count = refcount_get(&block.bytes, old.refcount_order, slot as usize);
                if count > new.refcount_max() {
                    let offset = (index * old.block_entries() + slot) << old.cluster_bits;
                    return Err(Error::new(
                        Kind::InvalidInput,
                        format!(
                            "Cannot decrease refcount entry width to {} bits: Cluster at offset {offset:#x} has a refcount of {count}",
                            new.refcount_bits()
                        ),
                    ));
                }
            }
        }
        Ok(())
    }

    /// The blocks of the new width that have a count, ascending.
    fn new_blocks(&mut self, new: &Shape) -> Result<Vec<u64>> {
        let old = self.roots.shape;
        let mut wanted = Vec::new();
        for index in 0..self.table.len() as u64 {
            let Some(block) = self.block(index)? else { continue };
            for slot in 0..old.block_entries() {
                if refcount_get(&block.bytes, old.refcount_order, slot as usize) == 0 {
                    continue;
                }
                let number = (index * old.block_entries() + slot) / new.block_entries();
                if wanted.last() != Some(&number) {
                    wanted.push(number);
                }
            }
        }
        Ok(wanted)
    }

    fn write_new(
        &mut self,
        new: &Shape,
        blocks: &BTreeMap<u64, u64>,
        (table, clusters): (u64, u64),
        tell: &mut dyn FnMut(u64, u64),
    ) -> Result<()> {
        let mut entries = vec![0; (clusters * new.cluster_size()) as usize];
        for (done, (index, offset)) in blocks.iter().enumerate() {
            let mut bytes = vec![0; new.cluster_size() as usize];
            for slot in 0..new.block_entries() {
                let count = self.refcount(index * new.block_entries() + slot)?;
                if count != 0 {
                    refcount_set(&mut bytes, new.refcount_order, slot as usize, count);
                }
            }
            self.storage.write_at(&bytes, *offset)?;
            let place = *index as usize * 8;
            if let Some(entry) = entries.get_mut(place..place + 8) {
                entry.copy_from_slice(&offset.to_be_bytes());
            }
            tell(done as u64 + 1, blocks.len() as u64);
        }
        self.storage.write_at(&entries, table)?;
        self.sync()
    }

    fn switch_width(&mut self, order: u32, table: u64, clusters: u64) -> Result<()> {
        let old_table =
            (self.roots.header.refcount_table_offset, self.roots.refcount_table_bytes());
        let old_blocks: Vec<u64> = self.table.iter().copied().filter(|o| *o != 0).collect();
        let header = &mut self.roots.header;
        header.refcount_order = order;
        header.refcount_table_offset = table;
        header.refcount_table_clusters = clusters as u32;
        let bytes = header.encode();
        self.storage.write_at(
            bytes.get(POINTER_AND_WIDTH).unwrap_or_default(),
            POINTER_AND_WIDTH.start as u64,
        )?;
        self.storage.flush()?;
        *self = Self::load(self.storage)?;
        self.release(old_table.0, old_table.1)?;
        for block in old_blocks {
            self.release(block, self.roots.shape.cluster_size())?;
        }
        self.sync()
    }
}
