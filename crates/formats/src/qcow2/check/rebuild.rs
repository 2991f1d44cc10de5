//! New refcount structures, for when the old ones are beyond mending in place.

use std::collections::{BTreeMap, BTreeSet};

use disksmith_disk::{Error, Kind, Result};

use super::super::open::REFCOUNT_TABLE_MOST;
use super::Checker;
use super::counter::Counter;
use super::stored::Stored;
use crate::Repair;

/// Twice is enough; a third time for what a second one may bring to light.
const REBUILDS_MOST: u32 = 3;

/// Places that are tried for the new table. Each new block lies in what it counts: a table of more
/// clusters than a block counts finds no place between them, however far it goes.
const PLACES_MOST: u32 = 16;

/// Where new blocks and the new table shall lie, in clusters.
#[derive(Default)]
struct Plan {
    /// Block index to cluster.
    blocks: BTreeMap<u64, u64>,
    table: u64,
    table_clusters: u64,
}

impl Checker<'_> {
    /// Builds refcount structures from the references counted, puts them into clusters that
    /// nothing refers to, and counts all anew. Answers the highest cluster in use.
    ///
    /// The new structures can make the file longer, and what it refers to beyond its former end
    /// then counts: so once more, if the first ones do not cover that.
    pub(super) fn rebuild_refcounts(&mut self) -> Result<u64> {
        let old = self.report;
        let mut highest = 0;
        for _ in 0..REBUILDS_MOST {
            self.say("Rebuilding refcount structure");
            highest = self.rebuild_once()?;
            if !self.rebuild {
                break;
            }
        }
        if self.rebuild {
            self.say("ERROR rebuilt refcount structure is still broken");
            self.report.corruptions = self.report.corruptions.max(1);
        }
        let found = self.report;
        let mended = |old: u64, now: u64| old.saturating_sub(now);
        self.report.corruptions_fixed =
            old.corruptions_fixed + mended(old.corruptions, found.corruptions);
        self.report.leaks_fixed = old.leaks_fixed + mended(old.leaks, found.leaks);
        Ok(highest)
    }

    /// Whether the new structures fit all references is told by `self.rebuild`; the report is of
    /// what is wrong besides.
    fn rebuild_once(&mut self) -> Result<u64> {
        let plan = self.plan()?;
        self.write_plan(&plan)?;
        self.report.corruptions = 0;
        self.report.leaks = 0;
        self.report.check_errors = 0;
        self.rebuild = false;
        self.counter = Counter::new(&self.roots.shape);
        self.clusters = self.roots.shape.clusters(self.storage.size());
        let repair = std::mem::take(&mut self.repair);
        let counted = self.count_all();
        self.repair = repair;
        counted?;
        // Only the old structures are unreferenced now. They are no fault of the image.
        let found = self.report;
        let mut stored = Stored::new(self.storage, &self.roots)?;
        let highest = self.compare(&mut stored, Repair::Leaks)?;
        self.storage.flush()?;
        // Counts that are too low are of references that came to light only now. Where some cannot
        // be known, the new structures lie in what the image takes for something else.
        let known = self.report.check_errors == found.check_errors;
        self.rebuild |= known && self.report.corruptions > found.corruptions;
        self.report = found;
        Ok(highest)
    }

    fn plan(&mut self) -> Result<Plan> {
        let shape = self.roots.shape;
        let per_block = shape.block_entries();
        let mut plan = Plan::default();
        let mut open: BTreeSet<u64> = BTreeSet::new();
        // New structures may lie a little past the end of the file, references must not lie far.
        let most = self.clusters.saturating_add(2 * per_block);
        for page in self.counter.page_numbers() {
            let counted = self.counter.page(page).is_some_and(|p| !disksmith_disk::is_zero(p));
            if counted {
                open.insert(page * self.counter.page_clusters() / per_block);
            }
        }
        for _ in 0..PLACES_MOST {
            while let Some(index) = open.pop_first() {
                if index.saturating_mul(per_block) > most {
                    return Err(Error::new(
                        Kind::Corrupt,
                        "the image refers to clusters far beyond the end of the file",
                    ));
                }
                if let std::collections::btree_map::Entry::Vacant(place) = plan.blocks.entry(index)
                {
                    let cluster = free_run(&self.counter, index * per_block, 1);
                    place.insert(cluster);
                    self.take(cluster, 1)?;
                    open.insert(cluster / per_block);
                }
            }
            let entries = plan.blocks.last_key_value().map_or(1, |(last, _)| last + 1);
            plan.table_clusters = shape.clusters(entries.saturating_mul(8));
            if plan.table_clusters << shape.cluster_bits
                > REFCOUNT_TABLE_MOST.max(shape.cluster_size())
            {
                return Err(Error::new(Kind::LimitExceeded, "File too large"));
            }
            plan.table = free_run(&self.counter, 0, plan.table_clusters);
            let table = plan.table..plan.table + plan.table_clusters;
            let missing = |c: &u64| !plan.blocks.contains_key(&(c / per_block));
            open.extend(table.filter(missing).map(|c| c / per_block));
            if open.is_empty() {
                self.take(plan.table, plan.table_clusters)?;
                return Ok(plan);
            }
        }
        Err(Error::new(Kind::LimitExceeded, "File too large"))
    }

    fn take(&mut self, start: u64, clusters: u64) -> Result<()> {
        for cluster in start..start + clusters {
            let counted = self.counter.increment(cluster);
            counted.map_err(|_| Error::new(Kind::Corrupt, "Invalid argument"))?;
        }
        Ok(())
    }

    /// Blocks and table first, and only when they are durable the header.
    fn write_plan(&mut self, plan: &Plan) -> Result<()> {
        let shape = self.roots.shape;
        let pages = shape.block_entries() / self.counter.page_clusters();
        let mut table = vec![0; (plan.table_clusters << shape.cluster_bits) as usize];
        for (index, cluster) in &plan.blocks {
            let mut block = Vec::with_capacity(shape.cluster_size() as usize);
            for page in index * pages..(index + 1) * pages {
                match self.counter.page(page) {
                    Some(counts) => block.extend_from_slice(counts),
                    None => block.resize(block.len() + self.counter.page_bytes(), 0),
                }
            }
            let offset = cluster << shape.cluster_bits;
            self.storage.write_at(&block, offset)?;
            let slot = *index as usize * 8;
            if let Some(entry) = table.get_mut(slot..slot + 8) {
                entry.copy_from_slice(&offset.to_be_bytes());
            }
        }
        let offset = plan.table << shape.cluster_bits;
        self.storage.write_at(&table, offset)?;
        self.storage.flush()?;
        self.roots.header.refcount_table_offset = offset;
        self.roots.header.refcount_table_clusters = plan.table_clusters as u32;
        let mut pointer = offset.to_be_bytes().to_vec();
        pointer.extend_from_slice(&(plan.table_clusters as u32).to_be_bytes());
        self.storage.write_at(&pointer, 48)?;
        self.storage.flush()
    }
}

/// The first `clusters` clusters in a row, from `from` on, that nothing refers to.
fn free_run(counter: &Counter, from: u64, clusters: u64) -> u64 {
    let mut start = from;
    let mut cluster = from;
    while cluster < start + clusters {
        cluster += 1;
        if counter.get(cluster - 1) != 0 {
            start = cluster;
        }
    }
    start
}
