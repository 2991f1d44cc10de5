//! Between versions 2 and 3 (digest section 13).

use std::collections::HashSet;

use disksmith_disk::bytes::be64;
use disksmith_disk::{Error, Kind, Result};

use super::super::layout::{self, L1Entry, L2Entry, SnapshotEntry};
use super::super::roots::Cluster;
use super::Editor;

/// Writes a cluster that reads as zero: guest offset, host offset.
pub(in super::super) type WriteZeroes<'z> = &'z dyn Fn(u64, u64) -> Result<()>;

impl Editor<'_> {
    /// Version 3: snapshots get the extra data that it demands, then the header changes.
    pub(in super::super) fn upgrade(
        &mut self,
        snapshots: &[SnapshotEntry],
        table_bytes: u64,
    ) -> Result<()> {
        if snapshots.iter().any(|snapshot| snapshot.extra_data_size < 16) {
            let old = (self.roots.header.snapshots_offset, table_bytes);
            self.write_snapshots(snapshots, old)?;
        }
        let header = &mut self.roots.header;
        header.version = 3;
        header.incompatible_features = 0;
        header.compatible_features = 0;
        header.autoclear_features = 0;
        header.refcount_order = 4;
        self.roots.shape = self.roots.header.shape();
        self.write_header()
    }

    /// Version 2: what only version 3 can say must have been refused or expanded before.
    pub(in super::super) fn downgrade(&mut self) -> Result<()> {
        let header = &mut self.roots.header;
        header.version = 2;
        header.incompatible_features = 0;
        header.compatible_features = 0;
        header.autoclear_features = 0;
        header.compression_type = 0;
        header.unknown_fields.clear();
        header.header_length = 72;
        self.roots.shape = self.roots.header.shape();
        self.write_header()
    }

    /// Refuses a downgrade in qemu-img's words.
    pub(in super::super) fn check_downgrade(&self, snapshots: &[SnapshotEntry]) -> Result<()> {
        let header = &self.roots.header;
        let refuse = |text: String| Err(Error::new(Kind::Unsupported, text));
        if header.refcount_order != 4 {
            return refuse("compat=0.10 requires refcount_bits=16".into());
        }
        if self.roots.has_data_file() {
            return refuse("Cannot downgrade an image with a data file".into());
        }
        let current = |s: &SnapshotEntry| {
            s.vm_state_size == 0 && s.disk_size.is_none_or(|size| size == header.size)
        };
        if !snapshots.iter().all(current) {
            return refuse("Internal snapshots prevent downgrade of image".into());
        }
        let features = header.incompatible_features & !layout::INCOMPATIBLE_DIRTY;
        if features != 0 {
            return refuse(format!(
                "Cannot downgrade an image with incompatible features {features:#x} set"
            ));
        }
        if self.roots.extensions.bitmaps.is_some() {
            return refuse("Cannot downgrade an image with persistent bitmaps".into());
        }
        Ok(())
    }

    /// Turns all clusters that read as zero by a flag into ones that do without: nothing at all
    /// where there is no backing image, else stored zeroes. `tell(done, total)` L1 entries.
    pub(in super::super) fn expand_zeroes(
        &mut self,
        snapshots: &[SnapshotEntry],
        write: WriteZeroes<'_>,
        tell: &mut dyn FnMut(u64, u64),
    ) -> Result<()> {
        let mut tables = vec![(self.read_active_l1()?, true)];
        for snapshot in snapshots {
            tables.push((self.read_l1(snapshot.l1_table_offset, snapshot.l1_size)?, false));
        }
        let total = tables.iter().map(|(l1, _)| l1.len() as u64).sum();
        let mut done = 0;
        let mut seen = HashSet::new();
        for (l1, active) in tables {
            for (index, entry) in l1.into_iter().enumerate() {
                let offset = L1Entry(entry).offset();
                // A table that several L1s share is expanded once.
                if offset != 0 && seen.insert(offset) {
                    let guest = (index as u64) << self.roots.shape.l1_shift();
                    self.expand_table(offset, guest, active, write)
                        .map_err(|error| error.context("Failed to turn zero into data clusters"))?;
                }
                done += 1;
                tell(done, total);
            }
        }
        Ok(())
    }

    fn expand_table(
        &mut self,
        offset: u64,
        guest: u64,
        active: bool,
        write: WriteZeroes<'_>,
    ) -> Result<()> {
        let shape = self.roots.shape;
        let users = self.refcount(shape.cluster(offset))?.max(1);
        let mut table = self.read_l2(offset)?;
        let mut freed = Vec::new();
        let mut changed = false;
        for (index, slot) in table.chunks_exact_mut(8).enumerate() {
            let raw = be64(slot, 0).unwrap_or(0);
            let kind = self.roots.cluster(raw);
            if !matches!(kind, Cluster::Zero | Cluster::ZeroKept) {
                continue;
            }
            let host = raw & L2Entry::OFFSET;
            let new = match (self.roots.backing.is_some(), kind) {
                (false, Cluster::Zero) => 0,
                (false, _) => {
                    freed.push(host);
                    0
                }
                (true, kind) => {
                    let host = match kind {
                        Cluster::Zero => self.allocate_shared(users)?,
                        _ => host,
                    };
                    write(guest + index as u64 * shape.cluster_size(), host)?;
                    let own = active && self.refcount(shape.cluster(host))? == 1;
                    host | if own { L2Entry::COPIED } else { 0 }
                }
            };
            slot.copy_from_slice(&new.to_be_bytes());
            changed = true;
        }
        if !changed {
            return Ok(());
        }
        self.sync()?;
        self.storage.write_at(&table, offset)?;
        self.sync()?;
        for host in freed {
            self.change_range(host, shape.cluster_size(), -(users as i64))?;
        }
        Ok(())
    }

    /// A fresh cluster that `users` L1 tables refer to.
    fn allocate_shared(&mut self, users: u64) -> Result<u64> {
        let size = self.roots.shape.cluster_size();
        let host = self.allocate(size)?;
        self.change_range(host, size, users as i64 - 1)?;
        Ok(host)
    }
}
