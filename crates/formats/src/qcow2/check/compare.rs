//! Refcounts against references.

use std::collections::BTreeSet;

use disksmith_disk::Result;

use super::super::open::REFCOUNT_TABLE_MOST;
use super::Checker;
use super::counter;
use super::stored::{RESERVED, Stored, Unknown};
use crate::Repair;

/// Clusters beyond this many whose refcounts cannot be known are counted, not told.
const UNKNOWN_TOLD: u64 = 1 << 16;

/// What is gathered on the way.
struct Pass {
    fix: Repair,
    highest: u64,
    signalled: bool,
    agree: bool,
    unknown: u64,
}

impl Checker<'_> {
    /// Counts the refcount blocks, and judges the refcount table.
    pub(super) fn count_refcount_blocks(&mut self) -> Result<()> {
        let shape = self.roots.shape;
        let table = Stored::new(self.storage, &self.roots)?.table;
        if self.repair != Repair::None {
            self.blocks = table.iter().map(|entry| entry & !RESERVED).filter(|o| *o != 0).collect();
        }
        for (index, entry) in table.iter().enumerate().filter(|(_, entry)| **entry != 0) {
            let offset = entry & !RESERVED;
            if entry & RESERVED != 0 {
                self.corrupt(format!("ERROR refcount table entry {index} has reserved bits set"));
                self.rebuild = true;
            } else if !shape.aligned(offset) {
                self.corrupt(format!(
                    "ERROR refcount block {index} is not cluster aligned; refcount table entry corrupted"
                ));
                self.rebuild = true;
            } else if shape.cluster(offset) >= self.clusters {
                self.block_outside(index, offset)?;
            } else {
                self.count(offset, shape.cluster_size());
                let count = self.counter.get(shape.cluster(offset));
                if count != 1 {
                    self.corrupt(format!("ERROR refcount block {index} refcount={count}"));
                    self.rebuild = true;
                }
            }
        }
        Ok(())
    }

    /// A refcount block beyond the end of the file: the file can be made longer, if the storage
    /// permits, or new refcounts are made.
    fn block_outside(&mut self, index: usize, offset: u64) -> Result<()> {
        if !self.mends_errors() {
            self.corrupt(format!("ERROR refcount block {index} is outside image"));
            return Ok(());
        }
        self.say(format!("Repairing refcount block {index} is outside image"));
        let shape = self.roots.shape;
        let end =
            i64::try_from(offset).ok().and_then(|o| o.checked_add(shape.cluster_size() as i64));
        let covered = REFCOUNT_TABLE_MOST / 8 * shape.block_entries();
        let grown = match end {
            None => Err("Invalid argument".to_string()),
            // No refcount table could speak of a file of that size.
            Some(_) if shape.cluster(offset) >= covered => Err("File too large".to_string()),
            Some(end) => self.storage.set_size(end as u64).map_err(|e| e.message().to_string()),
        };
        match grown {
            Ok(()) => {
                self.clusters = self.clusters.max(shape.clusters(self.storage.size()));
                self.report.corruptions_fixed += 1;
                self.count(offset, shape.cluster_size());
            }
            Err(reason) => {
                self.report.corruptions += 1;
                self.rebuild = true;
                self.say(format!("ERROR could not resize image: {reason}"));
            }
        }
        Ok(())
    }

    /// Compares all refcounts, mends what `fix` allows, and answers the highest cluster in use.
    pub(super) fn compare(&mut self, stored: &mut Stored<'_>, fix: Repair) -> Result<u64> {
        let entries = self.roots.shape.block_entries();
        let last = self.clusters.saturating_sub(1) / entries;
        let mut indices: BTreeSet<u64> =
            (0..stored.table.len() as u64).filter(|i| stored.block_offset(*i) != 0).collect();
        let per_block = entries / self.counter.page_clusters();
        indices.extend(self.counter.page_numbers().iter().map(|page| page / per_block));
        let mut pass = Pass { fix, highest: 0, signalled: false, agree: true, unknown: 0 };
        for index in indices.into_iter().take_while(|index| *index <= last) {
            self.compare_block(stored, index, &mut pass)?;
        }
        self.counts_agree = pass.agree;
        Ok(pass.highest)
    }

    fn compare_block(
        &mut self,
        stored: &mut Stored<'_>,
        index: u64,
        pass: &mut Pass,
    ) -> Result<()> {
        let shape = self.roots.shape;
        let first = index * shape.block_entries();
        let mut blank = Vec::new();
        let block = match stored.block(index) {
            Ok(Some(block)) => block,
            Ok(None) => {
                blank.resize(shape.cluster_size() as usize, 0);
                &mut blank
            }
            Err(unknown) => {
                let end = (first + shape.block_entries()).min(self.clusters);
                self.unknown_counts(index, first..end, &unknown, pass);
                return Ok(());
            }
        };
        let page_clusters = self.counter.page_clusters();
        let page_bytes = self.counter.page_bytes();
        let zeroes = vec![0; page_bytes];
        let mut changed = false;
        for (number, counts) in block.chunks_exact_mut(page_bytes).enumerate() {
            let start = first + number as u64 * page_clusters;
            if start >= self.clusters {
                break;
            }
            let wanted = self.counter.page(start / page_clusters).unwrap_or(&zeroes);
            let equal = &*counts == wanted;
            if equal && disksmith_disk::is_zero(counts) {
                continue;
            }
            let wanted = wanted.to_vec();
            changed |= self.compare_page(start, counts, &wanted, equal, pass);
        }
        if changed {
            let block = block.clone();
            self.storage.write_at(&block, stored.block_offset(index))?;
        }
        Ok(())
    }

    fn compare_page(
        &mut self,
        start: u64,
        counts: &mut [u8],
        wanted: &[u8],
        equal: bool,
        pass: &mut Pass,
    ) -> bool {
        let order = self.roots.shape.refcount_order;
        let here = self.counter.page_clusters().min(self.clusters - start) as usize;
        let used = |slot: &usize| {
            counter::get(counts, order, *slot) > 0 || counter::get(wanted, order, *slot) > 0
        };
        if let Some(slot) = (0..here).rev().find(used) {
            pass.highest = start + slot as u64;
        }
        if equal {
            return false;
        }
        let mut changed = false;
        for slot in 0..here {
            let (refcount, references) =
                (counter::get(counts, order, slot), counter::get(wanted, order, slot));
            if refcount != references
                && self.mismatch(start + slot as u64, refcount, references, pass)
            {
                counter::set(counts, order, slot, references);
                changed = true;
            }
        }
        changed
    }

    /// Tells a mismatch; whether it is mended.
    fn mismatch(&mut self, cluster: u64, refcount: u64, references: u64, pass: &mut Pass) -> bool {
        if refcount == 0 {
            self.rebuild = true;
        }
        let leak = refcount > references;
        let fixed = refcount != 0
            && match pass.fix {
                Repair::None => false,
                Repair::Leaks => leak,
                Repair::All => true,
            };
        let verdict = match (fixed, leak) {
            (true, _) => "Repairing",
            (false, true) => "Leaked",
            (false, false) => "ERROR",
        };
        self.say(format!("{verdict} cluster {cluster} refcount={refcount} reference={references}"));
        pass.agree &= fixed;
        let report = &mut self.report;
        let tally = match (fixed, leak) {
            (true, true) => &mut report.leaks_fixed,
            (true, false) => &mut report.corruptions_fixed,
            (false, true) => &mut report.leaks,
            (false, false) => &mut report.corruptions,
        };
        *tally += 1;
        fixed
    }

    fn unknown_counts(
        &mut self,
        index: u64,
        clusters: std::ops::Range<u64>,
        unknown: &Unknown,
        pass: &mut Pass,
    ) {
        pass.agree = false;
        let reason = match unknown {
            Unknown::Unaligned(offset) => {
                if !std::mem::replace(&mut pass.signalled, true) {
                    let index = if index == 0 { "0".into() } else { format!("{index:#x}") };
                    self.say(format!(
                        "qcow2: Image is corrupt: Refblock offset {offset:#x} unaligned (reftable index: {index}); further non-fatal corruption events will be suppressed"
                    ));
                }
                "Input/output error".to_string()
            }
            Unknown::Io(error) => error.message().to_string(),
        };
        self.report.check_errors += clusters.end.saturating_sub(clusters.start);
        for cluster in clusters {
            pass.unknown += 1;
            if pass.unknown > UNKNOWN_TOLD {
                break;
            }
            self.say(format!("Can't get refcount for cluster {cluster}: {reason}"));
        }
    }
}
