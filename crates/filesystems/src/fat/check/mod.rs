//! Looking for damage, and mending it: the whole tree is walked, every cluster accounted for.

mod ledger;
mod lost;
mod tree;

use std::sync::Arc;

use disksmith_disk::{Disk, Error, Kind, Result, first_difference};

pub(crate) use self::ledger::Ledger;
use super::core::Core;
use super::layout::{BOOT_BYTES, BootSector, Info, NO_NAME};
use super::shape::Shape;

/// Directories nested deeper are not looked into.
const DEPTH_MAX: usize = 1000;
/// Chains without a name that are given one; the rest is freed.
const RESCUED_MAX: u32 = 10_000;

/// What a check found.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct CheckReport {
    /// One line each.
    pub findings: Vec<String>,
    /// All findings, also those that are not told.
    pub count: u64,
    /// Files and directories, without the root.
    pub files: u64,
    /// Clusters in use.
    pub clusters: u32,
}

/// What to do about chains of clusters that belong to no file.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Lost {
    /// They become files `FSCK0000.REC` … in the root directory.
    #[default]
    Keep,
    /// Their clusters are freed.
    Free,
}

/// What a repair may change.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Mend {
    /// What can be set right without a doubt: marks, counts, copies.
    Safe,
    /// Everything.
    All(Lost),
}

/// What a repair did.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct RepairReport {
    /// What was found, in all rounds, one line each.
    pub found: Vec<String>,
    /// How many of these were mended.
    pub mended: u64,
    /// What the last look at it found.
    pub last: CheckReport,
}

impl RepairReport {
    /// True when something was changed.
    pub fn changed(&self) -> bool {
        self.mended > 0
    }
}

/// Rounds of a repair: mending one thing can bring another one to light.
const ROUNDS_MAX: usize = 5;

/// Checks the volume on `disk`; nothing is written. An error means that it could not be begun.
pub fn check(disk: Arc<dyn Disk>) -> Result<CheckReport> {
    let core = Core::open(disk, true)?;
    Ok(Checker::new(core, None).run()?.0)
}

/// Checks the volume and mends it. A boot sector that makes no sense is restored from its backup
/// first. What could not be mended is in the report.
pub fn repair(disk: Arc<dyn Disk>, what: Mend) -> Result<RepairReport> {
    let mut report = RepairReport::default();
    if let Err(error) = Core::open(disk.clone(), true) {
        if error.kind() != Kind::Corrupt || what == Mend::Safe || !restore_boot(&*disk)? {
            return Err(error);
        }
        report.found.push("The boot sector made no sense: its backup was put there".to_string());
        report.mended += 1;
    }
    let rounds = if what == Mend::Safe { 1 } else { ROUNDS_MAX };
    for _ in 0..rounds {
        report.last = check(disk.clone())?;
        if report.last.count == 0 {
            break;
        }
        let mut checker = Checker::new(Core::open(disk.clone(), false)?, Some(what));
        checker.begin()?;
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

/// Puts the backup of the boot sector in its place, if there is one where FAT32 has it.
fn restore_boot(disk: &dyn Disk) -> Result<bool> {
    for (sector_size, number) in [(512, 6), (1024, 6), (2048, 6), (4096, 6), (512, 12)] {
        let mut boot = BootSector::empty();
        let at = sector_size * number;
        if disk.size() < at + BOOT_BYTES as u64 {
            continue;
        }
        disk.read_at(&mut boot.raw, at)?;
        let Ok(shape) = Shape::parse(&boot) else { continue };
        if u64::from(shape.sector) == sector_size && u64::from(shape.backup_boot) == number {
            disk.write_at(&boot.raw, 0)?;
            disk.flush()?;
            return Ok(true);
        }
    }
    Ok(false)
}

struct Checker {
    core: Core,
    ledger: Ledger,
    label: Option<[u8; 11]>,
}

/// A directory still to be looked into.
struct Folder {
    start: u32,
    parent: u32,
    path: String,
    depth: usize,
}

/// How a chain ends, and how long it is.
struct Walked {
    clusters: u32,
    /// The last good cluster; `None` if there is none.
    last: Option<u32>,
    fault: Option<String>,
}

impl Checker {
    fn new(core: Core, fix: Option<Mend>) -> Self {
        let clusters = core.shape.clusters;
        Self { core, ledger: Ledger::new(clusters, fix), label: None }
    }

    fn begin(&mut self) -> Result<()> {
        // Before the marks are set, which is what `begin` does.
        self.marks()?;
        self.copies()?;
        self.core.begin()
    }

    /// Answers what was found, and how much of it was mended.
    fn run(mut self) -> Result<(CheckReport, u64)> {
        if self.ledger.fix.is_none() {
            self.marks()?;
            self.copies()?;
        }
        self.reserved()?;
        self.tree()?;
        self.lost()?;
        self.boot()?;
        if self.ledger.fix.is_some() {
            self.core.finish_repair(self.ledger.all_mended())?;
        }
        Ok((self.ledger.report, self.ledger.mended))
    }

    /// Lets a chain end here, when the entries are written: until then, what it leads to may lie
    /// within the length of the file.
    fn end_chain(&mut self, last: u32) -> Result<()> {
        match self.ledger.mends_all() {
            true => self.core.cut(last, &[]),
            false => Ok(()),
        }
    }

    fn set(&mut self, cluster: u32, value: u32) -> Result<()> {
        if self.ledger.mends_all() {
            self.core.table.set(&*self.core.disk, &self.core.shape, cluster, value)?;
        }
        Ok(())
    }

    fn store(&mut self, at: u64, bytes: &[u8]) -> Result<()> {
        if self.ledger.mends_all() {
            let chunk = self.core.chunks.store(&*self.core.disk, &self.core.shape, at, bytes)?;
            self.core.transaction.chunks.insert(chunk);
        }
        Ok(())
    }

    // ---- boot sector, FATs -----------------------------------------------------------------

    fn marks(&mut self) -> Result<()> {
        if self.core.boot.is_dirty() || self.core.table_is_dirty()? {
            self.ledger.found_safe("The volume is marked as in use: it was not properly unmounted");
        }
        if self.core.shape.size() > self.core.disk.size() {
            self.ledger.found("The volume is larger than its disk: the end is missing", false);
        }
        if self.core.shape.info_sector != 0 && self.core.info()?.is_none() {
            self.ledger.found_safe("The FSInfo sector lacks its signatures");
        }
        let known = self.core.info()?.map(|info| info.free).filter(|free| *free != Info::UNKNOWN);
        let counted = self.core.recount_free()?;
        if let Some(known) = known.filter(|known| *known != counted) {
            self.ledger
                .found_safe(format!("FSInfo counts {known} free clusters; there are {counted}"));
        }
        Ok(())
    }

    fn boot(&mut self) -> Result<()> {
        let shape = self.core.shape.clone();
        if shape.backup_boot != 0 {
            let mut backup = BootSector::empty();
            self.core.disk.read_at(&mut backup.raw, shape.byte(shape.backup_boot))?;
            let mut boot = self.core.boot.clone();
            // The mark of use is only in the first one.
            boot.set_dirty(false);
            backup.set_dirty(false);
            if first_difference(&boot.raw, &backup.raw).is_some() {
                self.ledger.found_safe("The backup of the boot sector differs from it");
                if self.ledger.fix.is_some() {
                    self.core.disk.write_at(&boot.raw, shape.byte(shape.backup_boot))?;
                }
            }
        }
        let stored = self.core.boot.label().filter(|label| label != NO_NAME);
        if self.core.boot.is_extended() && stored != self.label {
            self.ledger
                .found_safe("The label in the boot sector is not that of the root directory");
            if self.ledger.fix.is_some() {
                let label = self.label.unwrap_or(*NO_NAME);
                self.core.boot.set_label(&label);
                self.core.put_boot(0)?;
                self.core.put_backup()?;
            }
        }
        Ok(())
    }

    /// All copies of the FAT say the same.
    fn copies(&mut self) -> Result<()> {
        const STEP: u64 = 1 << 20;
        let shape = self.core.shape.clone();
        if !shape.mirrored || shape.fats < 2 {
            return Ok(());
        }
        let length = shape.byte(shape.fat_sectors);
        let (mut first, mut other) = (vec![0; STEP as usize], vec![0; STEP as usize]);
        for fat in 1..shape.fats {
            let (mut at, mut differs) = (0, false);
            while at < length {
                let step = STEP.min(length - at) as usize;
                let start = shape.byte(shape.fat_start);
                let copy = shape.byte(shape.fat_start + fat * shape.fat_sectors);
                let (first, other) = (&mut first[..step], &mut other[..step]);
                self.core.disk.read_at(first, start + at)?;
                self.core.disk.read_at(other, copy + at)?;
                if first_difference(first, other).is_some() {
                    differs = true;
                    if self.ledger.fix.is_some() {
                        self.core.disk.write_at(first, copy + at)?;
                    }
                }
                at += step as u64;
            }
            if differs {
                self.ledger.found_safe(format!("FAT {} differs from the first one", fat + 1));
            }
        }
        Ok(())
    }

    /// The entries of clusters 0 and 1.
    fn reserved(&mut self) -> Result<()> {
        let kind = self.core.shape.kind;
        let first = self.core.table.get(&*self.core.disk, &self.core.shape, 0)?;
        let media = u32::from(self.core.boot.bpb_media());
        if first & 0xFF != media {
            self.ledger.found(
                format!(
                    "The FAT begins with 0x{:02x}, not with the medium's 0x{media:02x}",
                    first & 0xFF
                ),
                true,
            );
            self.set(0, kind.end() & !0xFF | media)?;
        }
        Ok(())
    }
}

impl Core {
    /// After a repair: everything written, the counts right, and if all is well the marks gone.
    fn finish_repair(&mut self, all_is_well: bool) -> Result<()> {
        self.commit()?;
        self.recount_free()?;
        if self.shape.info_sector != 0 && self.info()?.is_none() {
            let at = self.shape.byte(self.shape.info_sector);
            let info = Info { free: Info::UNKNOWN, next: 2 }.encode(self.shape.sector as usize);
            self.disk.write_at(&info, at)?;
        }
        if all_is_well {
            self.forget_dirt();
        }
        self.shut_down()
    }
}

/// Refuses a volume on which a check finds something: for changes that rely on all being well.
pub(crate) fn refuse_damaged(disk: Arc<dyn Disk>, what: &str) -> Result<()> {
    let report = check(disk)?;
    match report.findings.first() {
        None => Ok(()),
        Some(first) => {
            Err(Error::new(Kind::Refused, format!("its FAT filesystem is damaged: {first}"))
                .context(what.to_string())
                .with_hint("Repair it first: disksmith fsck."))
        }
    }
}
