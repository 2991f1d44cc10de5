//! Looking for damage, and mending it.
//!
//! Every structure is read, every block and every inode is accounted for, in the passes that users
//! of e2fsck know: superblock and groups ([`start`]), inodes and what they map ([`inodes`],
//! [`mapping`], [`attributes`]), directories ([`directories`]), the tree and link counts
//! ([`tree`]), bitmaps and counts ([`summaries`]). A pass that may mend changes what is wrong in
//! place; what needs space (copies of blocks that two files claim, directories built anew,
//! `lost+found`) waits until bitmaps are right ([`late`]). Then everything is looked at again, until
//! nothing is found any more: what a repair calls clean has passed the same check.
//!
//! While a repair is at work the superblock says that the filesystem has errors; a cut leaves a
//! filesystem that asks to be checked again.

mod attributes;
mod directories;
mod inodes;
mod known;
mod late;
pub(crate) mod mapping;
mod quota;
mod start;
mod state;
mod summaries;
mod tree;

use std::sync::Arc;

use disksmith_disk::{Disk, Result};

use state::Fsck;

use crate::watched::Watched;

/// Findings told one by one; of more only the number is kept.
const FINDINGS_MAX: usize = 10_000;
/// The most blocks that are accounted for: a bit each.
const BLOCKS_MAX: u64 = 1 << 36;
/// Times that a repair looks at everything again.
const ROUNDS_MAX: u32 = 8;

/// What a check found.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct CheckReport {
    /// One line each.
    pub findings: Vec<String>,
    /// All findings, also those that are not told.
    pub count: u64,
    /// Inodes in use.
    pub files: u64,
    /// Blocks in use.
    pub blocks: u64,
    /// The journal held changes; they were taken into account.
    pub journal: bool,
}

/// What a repair may change.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Repair {
    /// What can be set right without a doubt: counts, bitmaps, checksums, orphans (`-p`).
    Safe,
    /// Everything (`-y`).
    All,
}

/// What a repair did.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct RepairReport {
    /// What was found, in all rounds, one line each.
    pub found: Vec<String>,
    /// The journal held changes, which were brought to their places.
    pub journal: bool,
    /// What the last look at it found.
    pub last: CheckReport,
}

impl RepairReport {
    /// True when nothing is left.
    pub fn clean(&self) -> bool {
        self.last.count == 0
    }

    /// True when something was changed.
    pub fn changed(&self) -> bool {
        self.journal || !self.found.is_empty()
    }
}

/// Checks the filesystem on `disk`; nothing is written, a journal that holds changes is followed in
/// memory. An error means that the check could not even be begun, or that the storage failed.
pub fn check(disk: Arc<dyn Disk>) -> Result<CheckReport> {
    let watched = Watched::new(disk);
    let (core, findings) = start::open_to_look(watched.clone())?;
    let known = core.shape.features.check_repairable();
    let mut fsck = Fsck::new(core, None)?;
    if let Err(why) = known {
        fsck.found(why.to_string());
    }
    for finding in findings {
        fsck.found(finding);
    }
    fsck.passes()?;
    watched.verdict()?;
    Ok(fsck.report)
}

/// Checks the filesystem on `disk` and mends it. An error means that this was not possible at all,
/// or that the storage failed: what cannot be read is not mended. What else could not be mended is
/// in the report.
pub fn repair(disk: Arc<dyn Disk>, what: Repair) -> Result<RepairReport> {
    let watched = Watched::new(disk);
    let disk: Arc<dyn Disk> = watched.clone();
    let mut report = RepairReport::default();
    let mut findings = start::prepare(&disk, what, &mut report.journal)?;
    for round in 0..ROUNDS_MAX {
        let mut fsck = Fsck::new(start::open_to_mend(disk.clone())?, Some(what))?;
        for finding in std::mem::take(&mut findings) {
            fsck.found(finding);
            fsck.mended += 1;
        }
        fsck.passes()?;
        watched.verdict()?;
        let count = fsck.report.count;
        let again = count > 0 && round + 1 < ROUNDS_MAX && fsck.mended > 0;
        if count > 0 {
            fsck.save()?;
            fsck.late()?;
            watched.verdict()?;
            fsck.save()?;
        }
        let room = FINDINGS_MAX.saturating_sub(report.found.len());
        report.found.extend(fsck.report.findings.iter().take(room).cloned());
        report.last = std::mem::take(&mut fsck.report);
        drop(fsck);
        if !again {
            break;
        }
    }
    start::conclude(disk, report.clean(), report.changed())?;
    Ok(report)
}
