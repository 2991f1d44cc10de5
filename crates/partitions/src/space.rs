//! Sectors that no partition has.

use crate::{Label, Role, Table};

/// A run of free sectors.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Region {
    /// The first sector.
    pub start: u64,
    /// How many, at least 1.
    pub sectors: u64,
    /// True within an extended partition: room for logical partitions only.
    pub logical: bool,
}

impl Region {
    /// The last sector.
    pub fn end(&self) -> u64 {
        self.start.saturating_add(self.sectors).saturating_sub(1)
    }

    pub(crate) fn after(&self) -> u64 {
        self.start.saturating_add(self.sectors)
    }
}

/// All free regions, ascending by start. A disk without a table has none: it has no partitions
/// to be between.
pub fn free_space(table: &Table) -> Vec<Region> {
    if table.label == Label::None {
        return Vec::new();
    }
    let top = table.partitions.iter().filter(|p| !p.is_logical()).map(|p| (p.start, p.after()));
    let limit = table.last_usable.saturating_add(1).min(table.disk_sectors);
    let mut regions = gaps(top.collect(), table.first_usable, limit, false);
    if let Some(extended) = table.extended() {
        let data = table.partitions.iter().filter(|p| p.is_logical()).map(|p| (p.start, p.after()));
        let records = records(table).into_iter().map(|at| (at, at.saturating_add(1)));
        let limit = extended.after().min(table.disk_sectors);
        regions.extend(gaps(data.chain(records).collect(), extended.start, limit, true));
    }
    regions.sort_by_key(|region| region.start);
    regions
}

/// The sectors of the extended boot records: the one at the start of the extended partition is
/// there even when it lists nothing.
pub(crate) fn records(table: &Table) -> Vec<u64> {
    let own = table.partitions.iter().filter_map(|p| match p.role {
        Role::Logical { record } => Some(record),
        _ => None,
    });
    own.chain(table.extended().map(|p| p.start)).collect()
}

fn gaps(mut used: Vec<(u64, u64)>, from: u64, limit: u64, logical: bool) -> Vec<Region> {
    used.sort_unstable();
    let mut regions = Vec::new();
    let mut at = from;
    let mut gap = |at: u64, until: u64| {
        if until > at {
            regions.push(Region { start: at, sectors: until - at, logical });
        }
    };
    for (start, after) in used {
        gap(at, start.min(limit));
        at = at.max(after);
    }
    gap(at, limit);
    regions
}
