//! Looking for damage on exFAT, and mending it: the whole tree is walked, every cluster accounted
//! for, every checksum computed.

mod file;
mod lost;
mod system;
mod tree;

use std::collections::BTreeMap;
use std::sync::Arc;

use disksmith_disk::{Disk, Kind, Result};

use super::super::check::{CheckReport, Ledger, Mend, RepairReport};
use super::boot::{self, BootRegion};
use super::layout::{CHAIN_BAD, CHAIN_END, VOLUME_DIRTY};
use super::pages::Stage;
use super::set::Stream;
use super::volume::Volume;

/// Directories nested deeper are not looked into.
const DEPTH_MAX: usize = 1000;
/// Rounds of a repair: mending one thing can bring another one to light.
const ROUNDS_MAX: usize = 5;

/// Checks the volume on `disk`; nothing is written. An error means that it could not be begun.
pub fn check(disk: Arc<dyn Disk>) -> Result<CheckReport> {
    Ok(Checker::new(Volume::open(disk, true)?, None).run()?.0)
}

/// Checks the volume and mends it. A main boot region that is damaged is restored from its backup
/// first. What could not be mended is in the report.
pub fn repair(disk: Arc<dyn Disk>, what: Mend) -> Result<RepairReport> {
    let mut report = RepairReport::default();
    if !disk.read_only() && what != Mend::Safe && boot::restore(&disk)? {
        report.found.push("The boot sectors were damaged: their backup was put there".to_string());
        report.mended += 1;
    }
    if !disk.read_only() && what != Mend::Safe && system::mend_root(&disk)? {
        report
            .found
            .push("The root directory's chain was damaged: it ends before that".to_string());
        report.mended += 1;
    }
    let rounds = if what == Mend::Safe { 1 } else { ROUNDS_MAX };
    for _ in 0..rounds {
        report.last = check(disk.clone())?;
        if report.last.count == 0 {
            break;
        }
        let checker = Checker::new(Volume::open(disk.clone(), false)?, Some(what));
        let (round, mended) = checker.run()?;
        report.found.extend(round.findings);
        report.mended += mended;
        if mended == 0 {
            break;
        }
    }
    report.last = check(disk)?;
    Ok(report)
}

struct Checker {
    volume: Volume,
    ledger: Ledger,
    /// Entries of the FAT that a repair changes at last.
    cuts: BTreeMap<u32, u32>,
}

/// A directory still to be looked into.
struct Folder {
    stream: Stream,
    path: String,
    depth: usize,
}

/// How far a stream could be followed.
struct Walked {
    clusters: u32,
    /// The last good cluster; `None` if there is none.
    last: Option<u32>,
    fault: Option<String>,
    /// The FAT goes on behind the last cluster that is needed.
    longer: bool,
}

impl Checker {
    fn new(volume: Volume, fix: Option<Mend>) -> Self {
        let clusters = volume.geometry.clusters;
        Self { volume, ledger: Ledger::new(clusters, fix), cuts: BTreeMap::new() }
    }

    /// Answers what was found, and how much of it was mended.
    fn run(mut self) -> Result<(CheckReport, u64)> {
        // Before the mark is set, which is what `begin` does.
        self.marks();
        if self.ledger.fix.is_some() {
            self.volume.begin()?;
        }
        self.boot()?;
        self.system()?;
        self.tree()?;
        self.lost()?;
        if self.ledger.fix.is_some() {
            self.finish()?;
        }
        Ok((self.ledger.report, self.ledger.mended))
    }

    /// Everything written, and if all is well the mark gone.
    fn finish(&mut self) -> Result<()> {
        for (cluster, next) in std::mem::take(&mut self.cuts) {
            self.volume.set_fat(Stage::Cut, cluster, next)?;
        }
        self.volume.commit()?;
        if self.ledger.all_mended() {
            self.volume.forget_dirt();
        }
        self.volume.settle()
    }

    fn store(&mut self, stage: Stage, at: u64, bytes: &[u8]) -> Result<()> {
        match self.ledger.mends_all() {
            true => self.volume.pages.store(stage, at, bytes),
            false => Ok(()),
        }
    }

    /// True if the disk ends before the volume does.
    fn is_cut_short(&self) -> bool {
        let geometry = &self.volume.geometry;
        let size = geometry.volume_length.saturating_mul(geometry.sector);
        size > self.volume.pages.disk().size()
    }

    fn marks(&mut self) {
        if self.volume.geometry.flags & VOLUME_DIRTY != 0 {
            self.ledger.found_safe("The volume is marked as in use: it was not properly unmounted");
        }
        if self.is_cut_short() {
            self.ledger.found("The volume is larger than its disk: the end is missing", false);
        }
    }

    fn boot(&mut self) -> Result<()> {
        let sector = self.volume.geometry.sector;
        let mut main = BootRegion::read(&self.volume.pages, sector, 0)?;
        let backup = BootRegion::read(&self.volume.pages, sector, 1)?;
        let sound = main.is_sound();
        let mut agree = backup.is_sound() && main.agrees(&backup);
        if !sound {
            self.ledger.found("The checksum of the boot sectors is wrong", true);
            if self.ledger.mends_all() {
                main.seal();
                main.store(&mut self.volume.pages, Stage::Entry, 0)?;
                agree = false;
            }
        }
        if !agree {
            // What is wrong is not copied.
            let mend = self.ledger.fix.is_some() && sound || self.ledger.mends_all();
            self.ledger
                .tell("The backup of the boot sectors differs from them or is damaged", mend);
            if mend {
                main.store(&mut self.volume.pages, Stage::Allocate, 1)?;
            }
        }
        Ok(())
    }

    // ---- clusters --------------------------------------------------------------------------

    /// Follows a stream over `wanted` clusters and claims them; stops at the first fault.
    fn walk(&mut self, stream: Stream, wanted: u32) -> Result<Walked> {
        let mut walked = Walked { clusters: 0, last: None, fault: None, longer: false };
        let mut cluster = stream.start;
        while walked.clusters < wanted {
            if !self.volume.geometry.is_cluster(cluster) {
                walked.fault = Some(format!("leads to cluster {cluster}, which is not there"));
                return Ok(walked);
            }
            if self.ledger.is_claimed(cluster) {
                walked.fault = Some(format!("comes to cluster {cluster}, which is in use already"));
                return Ok(walked);
            }
            let next = match stream.contiguous {
                true => cluster + 1,
                false => self.volume.fat_entry(cluster)?,
            };
            if next == CHAIN_BAD && !stream.contiguous {
                walked.fault = Some(format!("comes to cluster {cluster}, a bad one"));
                return Ok(walked);
            }
            self.ledger.claim(cluster);
            walked.clusters += 1;
            walked.last = Some(cluster);
            if next == CHAIN_END && !stream.contiguous {
                return Ok(walked);
            }
            cluster = next;
        }
        walked.longer = !stream.contiguous && walked.clusters > 0;
        Ok(walked)
    }

    /// Lets a chain end at this cluster.
    fn cut(&mut self, stream: Stream, last: Option<u32>) {
        if let Some(last) = last.filter(|_| self.ledger.mends_all() && !stream.contiguous) {
            self.cuts.insert(last, CHAIN_END);
        }
    }
}

/// True for errors that a check goes on after.
fn is_damage(error: &disksmith_disk::Error) -> bool {
    error.kind() == Kind::Corrupt
}
