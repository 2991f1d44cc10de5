//! The COPIED bits of the active tables: set exactly where the refcount is one.

use disksmith_disk::Result;
use disksmith_disk::bytes::be64;

use super::super::layout::{L1Entry, L2Entry};
use super::super::open::read_table;
use super::super::roots::Cluster;
use super::super::util::read_padded;
use super::Checker;
use super::stored::Stored;
use crate::Repair;

impl Checker<'_> {
    /// Checks and mends the COPIED bits. Refcounts have been mended before, if they shall be.
    pub(super) fn check_copied(&mut self, stored: &mut Stored<'_>) -> Result<()> {
        let report = &self.report;
        let fix = match self.repair {
            Repair::None => false,
            // Only if the refcounts can be relied on.
            Repair::Leaks => {
                report.check_errors == 0 && report.corruptions == 0 && report.leaks == 0
            }
            Repair::All => true,
        };
        let header = &self.roots.header;
        let (place, entries) = (header.l1_table_offset, header.l1_size.into());
        let entries = std::cmp::min(entries, self.storage.size().saturating_sub(place).div_ceil(8));
        let l1 = read_table(self.storage, place, entries)?;
        let mut table = disksmith_disk::bytes::zeroed(self.roots.shape.cluster_size() as usize)?;
        for (index, entry) in l1.into_iter().enumerate() {
            let offset = L1Entry(entry).offset();
            if offset == 0 {
                continue;
            }
            let Some(refcount) = self.refcount(stored, offset) else { continue };
            if (refcount == 1) != L1Entry(entry).copied() {
                self.l1_copied(index, entry, refcount, fix)?;
            }
            if offset >= self.storage.size() {
                continue;
            }
            if let Err(error) = read_padded(self.storage, &mut table, offset) {
                let text = format!("ERROR: I/O error in check_oflag_copied: {}", error.message());
                return self.give_up(text, error);
            }
            let mended = self.l2_copied(stored, &mut table, fix);
            if mended > 0 && !self.write_l2(offset, &table, mended)? {
                return Ok(());
            }
        }
        if fix { self.storage.flush() } else { Ok(()) }
    }

    /// The refcount of the cluster at `offset`, if it can be known.
    fn refcount(&self, stored: &mut Stored<'_>, offset: u64) -> Option<u64> {
        let cluster = self.roots.shape.cluster(offset);
        // Both are at hand for what was compared; the counter is faster.
        if self.counts_agree && cluster < self.clusters {
            return Some(self.counter.get(cluster));
        }
        stored.get(cluster).ok()
    }

    fn l1_copied(&mut self, index: usize, entry: u64, refcount: u64, fix: bool) -> Result<()> {
        let text = format!(
            "OFLAG_COPIED L2 cluster: l1_index={index} l1_entry={entry:x} refcount={refcount}"
        );
        if !fix {
            self.corrupt(format!("ERROR {text}"));
            return Ok(());
        }
        let place = self.roots.header.l1_table_offset + index as u64 * 8;
        self.storage.write_at(&(entry ^ L1Entry::COPIED).to_be_bytes(), place)?;
        self.mend(format!("Repairing {text}"));
        Ok(())
    }

    /// Looks through an L2 table, changes it in memory if `fix` says so, and answers how many
    /// entries were changed.
    fn l2_copied(&mut self, stored: &mut Stored<'_>, table: &mut [u8], fix: bool) -> u64 {
        let size = self.roots.shape.entry_size() as usize;
        let data_file = self.roots.has_data_file();
        let mut mended = 0;
        for slot in table.chunks_exact_mut(size) {
            let entry = be64(slot, 0).unwrap_or(0);
            if entry == 0 || !matches!(self.roots.cluster(entry), Cluster::Data | Cluster::ZeroKept)
            {
                continue;
            }
            let refcount = match data_file {
                true => Some(1),
                false => self.refcount(stored, entry & L2Entry::OFFSET),
            };
            let Some(refcount) = refcount else { continue };
            if (refcount == 1) == (entry & L2Entry::COPIED != 0) {
                continue;
            }
            let text = format!("OFLAG_COPIED data cluster: l2_entry={entry:x} refcount={refcount}");
            if !fix {
                self.corrupt(format!("ERROR {text}"));
                continue;
            }
            self.mend(format!("Repairing {text}"));
            mended += 1;
            if let Some(raw) = slot.get_mut(..8) {
                raw.copy_from_slice(&(entry ^ L2Entry::COPIED).to_be_bytes());
            }
        }
        mended
    }

    /// Writes a mended table. `false`: it lies on other metadata, the pass must end.
    fn write_l2(&mut self, offset: u64, table: &[u8], mended: u64) -> Result<bool> {
        if self.protected_from_l2(offset, table.len() as u64) {
            self.report.corruptions_fixed -= mended;
            self.report.corruptions += mended;
            self.report.check_errors += 1;
            self.say("ERROR: Could not write L2 table; metadata overlap check failed: Input/output error");
            return Ok(false);
        }
        self.storage.write_at(table, offset)?;
        Ok(true)
    }
}
