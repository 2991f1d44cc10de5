//! Everything an L1 table refers to: counting it up or down, and the COPIED bits.

use disksmith_disk::bytes::be64;
use disksmith_disk::{Error, Kind, Result};

use super::super::layout::{L1Entry, L2Entry};
use super::super::open::{L1_MOST, read_table};
use super::super::roots::Cluster;
use super::super::util::read_padded;
use super::Editor;

/// What an L2 table's entries point to, as (offset, length) of storage.
fn targets<'t>(
    roots: &'t super::super::roots::Roots,
    table: &'t [u8],
) -> impl Iterator<Item = (u64, u64)> + 't {
    let cluster_size = roots.shape.cluster_size();
    let entries = table.chunks_exact(roots.shape.entry_size() as usize);
    entries.filter_map(move |slot| {
        let raw = be64(slot, 0).filter(|raw| *raw != 0)?;
        match roots.cluster(raw) {
            Cluster::Compressed => {
                let range = L2Entry { raw, bitmap: 0 }.compressed_range(&roots.shape);
                Some((range.offset, range.length))
            }
            Cluster::Data | Cluster::ZeroKept if !roots.has_data_file() => {
                Some((raw & L2Entry::OFFSET, cluster_size))
            }
            _ => None,
        }
    })
}

impl Editor<'_> {
    /// Reads an L1 table of a snapshot, or refuses it in qemu-img's words.
    pub(in super::super) fn read_l1(&self, offset: u64, entries: u32) -> Result<Vec<u64>> {
        let bytes = u64::from(entries) * 8;
        if bytes > L1_MOST {
            return Err(Error::new(Kind::LimitExceeded, "Snapshot L1 table too large"));
        }
        let end = offset.checked_add(bytes).filter(|end| i64::try_from(*end).is_ok());
        if end.is_none() || !self.roots.shape.aligned(offset) {
            return Err(Error::new(Kind::Corrupt, "Snapshot L1 table offset invalid"));
        }
        read_table(self.storage, offset, entries.into())
    }

    /// Reads the active L1 table.
    pub(in super::super) fn read_active_l1(&self) -> Result<Vec<u64>> {
        let header = &self.roots.header;
        read_table(self.storage, header.l1_table_offset, header.l1_size.into())
    }

    /// Writes an L1 table.
    pub(in super::super) fn write_l1(&self, offset: u64, l1: &[u64]) -> Result<()> {
        let bytes: Vec<u8> = l1.iter().flat_map(|entry| entry.to_be_bytes()).collect();
        self.storage.announce("l1_update");
        if bytes.is_empty() { Ok(()) } else { self.storage.write_at(&bytes, offset) }
    }

    /// Reads an L2 table.
    pub(in super::super) fn read_l2(&self, offset: u64) -> Result<Vec<u8>> {
        if !self.roots.shape.aligned(offset) {
            let text = format!("L2 table offset {offset:#x} unaligned");
            return Err(Error::new(Kind::Corrupt, text));
        }
        if offset >= self.storage.size() {
            let text = format!("L2 table offset {offset:#x} is beyond the end of the image");
            return Err(Error::new(Kind::Corrupt, text));
        }
        let mut table = vec![0; self.roots.shape.cluster_size() as usize];
        read_padded(self.storage, &mut table, offset)?;
        Ok(table)
    }

    /// Adds `delta` to the refcount of each L2 table in `l1` and of all that they refer to: all
    /// of it or, when a count cannot be changed, nothing.
    pub(in super::super) fn change_references(&mut self, l1: &[u64], delta: i64) -> Result<()> {
        for (done, entry) in l1.iter().enumerate() {
            if let Err(error) = self.change_table(L1Entry(*entry).offset(), delta) {
                for entry in l1.iter().take(done) {
                    self.change_table(L1Entry(*entry).offset(), -delta)?;
                }
                return Err(error);
            }
        }
        Ok(())
    }

    fn change_table(&mut self, offset: u64, delta: i64) -> Result<()> {
        if offset == 0 {
            return Ok(());
        }
        let table = self.read_l2(offset)?;
        let roots = self.roots.clone();
        let cluster_size = roots.shape.cluster_size();
        self.change_range(offset, cluster_size, delta)?;
        for (done, (place, length)) in targets(&roots, &table).enumerate() {
            if let Err(error) = self.change_range(place, length, delta) {
                for (place, length) in targets(&roots, &table).take(done) {
                    self.change_range(place, length, -delta)?;
                }
                self.change_range(offset, cluster_size, -delta)?;
                return Err(error);
            }
        }
        Ok(())
    }

    /// Takes the COPIED bits out of all L2 tables that `l1` refers to, in place, and out of
    /// `l1` in memory: without the bit a cluster is copied before it is written.
    pub(in super::super) fn clear_copied(&self, l1: &mut [u64]) -> Result<()> {
        let size = self.roots.shape.entry_size() as usize;
        for entry in l1.iter_mut() {
            *entry &= !L1Entry::COPIED;
            let offset = L1Entry(*entry).offset();
            if offset == 0 {
                continue;
            }
            let mut table = self.read_l2(offset)?;
            let mut changed = false;
            for first in table.iter_mut().step_by(size) {
                // The bit is the first one of the entry.
                changed |= *first & 0x80 != 0;
                *first &= 0x7f;
            }
            if changed {
                self.storage.write_at(&table, offset)?;
            }
        }
        Ok(())
    }

    /// Sets the COPIED bits of the active tables where a refcount has become one. The counts
    /// are durable.
    pub(in super::super) fn set_copied(&mut self) -> Result<()> {
        let mut l1 = self.read_active_l1()?;
        let mut changed = false;
        for entry in &mut l1 {
            let offset = L1Entry(*entry).offset();
            // What a shared table refers to is shared too.
            if offset == 0 || self.refcount(self.roots.shape.cluster(offset))? != 1 {
                continue;
            }
            changed |= !L1Entry(*entry).copied();
            *entry |= L1Entry::COPIED;
            self.set_copied_in(offset)?;
        }
        if changed {
            self.write_l1(self.roots.header.l1_table_offset, &l1)?;
        }
        Ok(())
    }

    fn set_copied_in(&mut self, offset: u64) -> Result<()> {
        let mut table = self.read_l2(offset)?;
        let mut changed = false;
        for slot in table.chunks_exact_mut(self.roots.shape.entry_size() as usize) {
            let raw = be64(slot, 0).unwrap_or(0);
            let own = raw != 0
                && raw & L2Entry::COPIED == 0
                && matches!(self.roots.cluster(raw), Cluster::Data | Cluster::ZeroKept)
                && self.refcount(self.roots.shape.cluster(raw & L2Entry::OFFSET))? == 1;
            if own && let Some(first) = slot.first_mut() {
                *first |= 0x80;
                changed = true;
            }
        }
        if changed { self.storage.write_at(&table, offset) } else { Ok(()) }
    }
}
