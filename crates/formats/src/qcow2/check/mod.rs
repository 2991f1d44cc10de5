//! Check: every reference in the image is counted and compared with the refcounts (digest
//! section 12), in the order and words of qemu-img.
//!
//! Works on the raw storage with its own pass over header, tables and refcounts. Memory: a
//! counter of as many bits per cluster of the file as the image's refcounts have, the refcount
//! table, and fixed buffers; nothing follows from the virtual size.

mod bitmaps;
mod clusters;
mod compare;
mod copied;
mod counter;
mod protect;
mod rebuild;
mod snapshots;
mod stored;

use std::collections::BTreeSet;

use disksmith_disk::{Disk, Error, Kind, Result};

use super::layout::{self, SnapshotEntry};
use super::open::L1_MOST;
use super::roots::Roots;
use crate::{CheckFinding, CheckReport, Repair};
use counter::Counter;
pub(super) use counter::{get as refcount_get, set as refcount_set};
use stored::{Stored, Unknown};

/// Findings beyond this many are counted but not told: a hostile image must not fill a disk
/// with messages.
const FINDINGS_MOST: u64 = 1 << 20;
/// L2 tables that are visited per L1 table beyond one for each cluster of the file. In a sound
/// image no L1 refers to a table twice.
const VISITS_EXTRA: u64 = 4096;
/// How often references are counted at most while a repair makes the file longer.
const COUNTS_MOST: u32 = 3;
const EIO: i32 = 5;

/// Checks the image on `storage` and mends what `repair` allows. Errors that kept the check
/// from being carried out carry the text that qemu-img prints after `Check failed: `.
pub(super) fn check(
    storage: &dyn Disk,
    repair: Repair,
    tell: &mut dyn FnMut(CheckFinding),
) -> Result<CheckReport> {
    let mut checker = Checker::new(storage, repair, tell)?;
    let snapshot_corruptions = checker.read_snapshots()?;
    checker.check_refcounts()?;
    checker.mend_snapshots(snapshot_corruptions)?;
    checker.finish()?;
    Ok(checker.report)
}

struct Checker<'a> {
    storage: &'a dyn Disk,
    roots: Roots,
    repair: Repair,
    tell: &'a mut dyn FnMut(CheckFinding),
    told: u64,
    report: CheckReport,
    counter: Counter,
    /// Clusters that are looked at: those of the file, and one more where the last cluster in
    /// use is not whole.
    clusters: u64,
    /// The refcount structures themselves are broken and cannot be mended in place.
    rebuild: bool,
    snapshots: Vec<SnapshotEntry>,
    /// Bytes of the snapshot table as it lies on disk.
    snapshots_bytes: u64,
    /// Offsets of the refcount blocks, known only for a repair.
    blocks: BTreeSet<u64>,
    buffer: Vec<u8>,
    /// The refcounts on disk are equal to the references counted.
    counts_agree: bool,
    /// References that lie behind the end of the file were not counted.
    uncounted: bool,
}

impl<'a> Checker<'a> {
    fn new(
        storage: &'a dyn Disk,
        repair: Repair,
        tell: &'a mut dyn FnMut(CheckFinding),
    ) -> Result<Self> {
        let roots = Roots::read(storage)?;
        let counter = Counter::new(&roots.shape);
        let clusters = roots.shape.clusters(storage.size());
        let report = CheckReport {
            total_clusters: roots.shape.clusters(roots.header.size),
            ..CheckReport::default()
        };
        Ok(Self {
            storage,
            roots,
            repair,
            tell,
            told: 0,
            report,
            counter,
            clusters,
            rebuild: false,
            snapshots: Vec::new(),
            snapshots_bytes: 0,
            blocks: BTreeSet::new(),
            buffer: Vec::new(),
            counts_agree: false,
            uncounted: false,
        })
    }

    /// Tells a finding.
    fn say(&mut self, text: impl Into<String>) {
        self.told += 1;
        match self.told {
            0..FINDINGS_MOST => (self.tell)(CheckFinding { text: text.into() }),
            FINDINGS_MOST => {
                let what = match text.into().starts_with("Leaked cluster") {
                    true => "Leaked clusters from here on",
                    false => "Further findings",
                };
                (self.tell)(CheckFinding { text: format!("{what} are counted, not listed") });
            }
            _ => {}
        }
    }

    /// Tells and counts a corruption.
    fn corrupt(&mut self, text: impl Into<String>) {
        self.report.corruptions += 1;
        self.say(text);
    }

    /// Tells what kept the check from looking, and gives up.
    fn give_up<T>(&mut self, text: impl Into<String>, error: Error) -> Result<T> {
        self.report.check_errors += 1;
        self.say(text);
        Err(error)
    }

    fn mends_errors(&self) -> bool {
        self.repair == Repair::All
    }

    fn check_refcounts(&mut self) -> Result<()> {
        self.count_to_the_end()?;
        let before = self.report;
        let mut stored = Stored::new(self.storage, &self.roots)?;
        let mut highest = self.compare(&mut stored, Repair::None)?;
        let unread = self.report.check_errors > before.check_errors;
        if self.rebuild && self.mends_errors() {
            highest = self.rebuild_refcounts()?;
            stored = Stored::new(self.storage, &self.roots)?;
        } else if self.repair != Repair::None {
            if self.rebuild {
                self.say("ERROR need to rebuild refcount structures");
                return Err(Error::new(Kind::Corrupt, "Input/output error"));
            }
            if unread {
                // Counts that could not be read may tell that they must not be mended in place:
                // where they lie may be data.
                return Err(Error::from_errno(EIO));
            }
            if self.report.leaks > 0 || self.report.corruptions > 0 {
                self.report = before;
                highest = self.compare(&mut stored, self.repair)?;
                self.storage.flush()?;
            }
        }
        self.check_copied(&mut stored)?;
        self.report.image_end_offset = Some((highest + 1) << self.roots.shape.cluster_bits);
        Ok(())
    }

    /// Counts every reference, and all of them once more where a repair made the file longer:
    /// what was behind its end before may lie in it now. Not where parts cannot be mended: the
    /// image stays broken then.
    fn count_to_the_end(&mut self) -> Result<()> {
        let before = self.report;
        for _ in 1..COUNTS_MOST {
            let size = self.storage.size();
            self.count_all()?;
            let hopeless = self.report.check_errors > before.check_errors;
            if !self.uncounted || self.storage.size() == size || hopeless {
                return Ok(());
            }
            let corruptions_fixed = self.report.corruptions_fixed;
            self.report = CheckReport { corruptions_fixed, ..before };
            self.rebuild = false;
            self.uncounted = false;
            self.counter = Counter::new(&self.roots.shape);
        }
        self.count_all()
    }

    /// Counts every reference in the image.
    fn count_all(&mut self) -> Result<()> {
        let shape = self.roots.shape;
        self.report.allocated_clusters = 0;
        self.report.fragmented_clusters = 0;
        self.report.compressed_clusters = 0;
        self.count(0, shape.cluster_size());
        let (l1, entries) = (self.roots.header.l1_table_offset, self.roots.header.l1_size);
        self.count_l1(l1, entries.into(), true)?;
        if self.roots.has_data_file() && !self.snapshots.is_empty() {
            let number = self.snapshots.len();
            self.corrupt(format!("ERROR {number} snapshots in image with data file"));
        }
        for index in 0..self.snapshots.len() {
            self.count_snapshot(index)?;
        }
        self.count(self.roots.header.snapshots_offset, self.snapshots_bytes);
        self.count(self.roots.header.refcount_table_offset, self.roots.refcount_table_bytes());
        if let Some(luks) = self.roots.extensions.crypto_header {
            self.count(luks.offset, luks.length);
        }
        self.count_bitmaps()?;
        self.count_refcount_blocks()
    }

    fn count_snapshot(&mut self, index: usize) -> Result<()> {
        let Some(snapshot) = self.snapshots.get(index) else { return Ok(()) };
        let (offset, entries) = (snapshot.l1_table_offset, snapshot.l1_size);
        let name = format!("snapshot {} ({})", shown(&snapshot.id), shown(&snapshot.name));
        if !self.roots.shape.aligned(offset) {
            self.corrupt(format!(
                "ERROR {name} l1_offset={offset:#x}: L1 table is not cluster aligned; snapshot table entry corrupted"
            ));
            return Ok(());
        }
        if u64::from(entries) > L1_MOST / 8 {
            self.corrupt(format!(
                "ERROR {name} l1_size={entries:#x}: L1 table is too large; snapshot table entry corrupted"
            ));
            return Ok(());
        }
        self.count_l1(offset, entries.into(), false)
    }

    /// Counts a reference to each cluster that the range touches.
    fn count(&mut self, offset: u64, size: u64) {
        if size == 0 {
            return;
        }
        let shape = self.roots.shape;
        if self.past_end(offset, size) && !self.lengthen(offset, size).unwrap_or(false) {
            self.uncounted = true;
            self.corrupt(format!(
                "ERROR: counting reference for region exceeding the end of the file by one cluster or more: offset {offset:#x} size {size:#x}"
            ));
            return;
        }
        let last = shape.cluster(offset + (size - 1));
        self.clusters = self.clusters.max(last + 1);
        for cluster in shape.cluster(offset)..=last {
            if self.counter.increment(cluster).is_err() {
                let place = cluster << shape.cluster_bits;
                self.corrupt(format!("ERROR: overflow cluster offset={place:#x}"));
                self.say("Use qemu-img amend to increase the refcount entry width or qemu-img convert to create a clean copy if the image cannot be opened for writing");
            }
        }
    }

    /// Whether the range ends a cluster or more behind the end of the file: the last cluster
    /// need not be whole.
    fn past_end(&self, offset: u64, size: u64) -> bool {
        let end = u128::from(offset) + u128::from(size);
        end >= u128::from(self.storage.size()) + u128::from(self.roots.shape.cluster_size())
    }

    /// A range that refcounts call used lay in the file before it was cut. It reads as zero
    /// already; making the file longer again makes it valid. Whether that was done.
    fn lengthen(&mut self, offset: u64, size: u64) -> Result<bool> {
        let end = offset.saturating_add(size);
        if !self.mends_errors() || i64::try_from(end).is_err() {
            return Ok(false);
        }
        let last = self.roots.shape.cluster(end - 1);
        let used = match Stored::new(self.storage, &self.roots)?.get(last) {
            Ok(count) => count > 0,
            Err(Unknown::Unaligned(_)) => false,
            Err(Unknown::Io(error)) => return Err(error),
        };
        if !used || self.storage.set_size((last + 1) << self.roots.shape.cluster_bits).is_err() {
            return Ok(false);
        }
        self.clusters = self.clusters.max(last + 1);
        self.report.corruptions_fixed += 1;
        self.say(format!(
            "Repairing end of file: offset {offset:#x} size {size:#x} lies behind it"
        ));
        Ok(true)
    }

    /// After a repair that left nothing broken the image is no longer marked.
    fn finish(&mut self) -> Result<()> {
        if self.repair == Repair::None {
            return Ok(());
        }
        if self.roots.extensions.void_bitmaps {
            self.drop_void_bitmaps()?;
        }
        self.storage.flush()?;
        let marks = layout::INCOMPATIBLE_DIRTY | layout::INCOMPATIBLE_CORRUPT;
        let sound = self.report.corruptions == 0 && self.report.check_errors == 0;
        if sound && self.roots.header.has(marks) {
            self.roots.header.incompatible_features &= !marks;
            let features = self.roots.header.incompatible_features.to_be_bytes();
            self.storage.write_at(&features, 72)?;
            self.storage.flush()?;
        }
        Ok(())
    }
}

/// A name for people, as C programs show it.
fn shown(name: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(name.split(|byte| *byte == 0).next().unwrap_or_default())
}
