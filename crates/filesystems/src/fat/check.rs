//! Looking for damage, and mending it: the whole tree is walked, every cluster accounted for.

use std::collections::HashSet;
use std::sync::Arc;

use disksmith_disk::{Disk, Error, Kind, Result, first_difference};

use super::chain::FILE_MAX;
use super::core::Core;
use super::directory::SLOTS_MAX;
use super::layout::{BOOT_BYTES, BootSector, DirEntry, ENTRY, FREE, Info, attribute};
use super::name::{self, Assembler, fold, short_text};
use super::shape::Shape;
use crate::raw::put;

/// Findings told one by one; of more only the number is kept.
const FINDINGS_MAX: usize = 10_000;
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
    fix: Option<Mend>,
    report: CheckReport,
    mended: u64,
    /// A bit for each cluster that belongs to a file.
    claimed: Vec<u64>,
    /// First clusters of files and directories.
    starts: HashSet<u32>,
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
        let words = (core.shape.clusters as usize + 2).div_ceil(64);
        Self {
            core,
            fix,
            report: CheckReport::default(),
            mended: 0,
            claimed: vec![0; words],
            starts: HashSet::new(),
            label: None,
        }
    }

    fn begin(&mut self) -> Result<()> {
        // Before the marks are set, which is what `begin` does.
        self.marks()?;
        self.copies()?;
        self.core.begin()
    }

    /// Answers what was found, and how much of it was mended.
    fn run(mut self) -> Result<(CheckReport, u64)> {
        if self.fix.is_none() {
            self.marks()?;
            self.copies()?;
        }
        self.reserved()?;
        self.tree()?;
        self.lost()?;
        self.boot()?;
        if self.fix.is_some() {
            self.core.finish_repair(self.mended == self.report.count)?;
        }
        Ok((self.report, self.mended))
    }

    /// Something that can be mended at a risk, if at all.
    fn found(&mut self, text: impl Into<String>, mended: bool) {
        let mended = mended && self.mends_all();
        self.tell(text, mended);
    }

    /// Something that can be mended without a doubt.
    fn found_safe(&mut self, text: impl Into<String>) {
        self.tell(text, self.fix.is_some());
    }

    fn tell(&mut self, text: impl Into<String>, mended: bool) {
        self.report.count += 1;
        self.mended += u64::from(mended);
        if self.report.findings.len() < FINDINGS_MAX {
            self.report.findings.push(text.into());
        }
    }

    fn mends_all(&self) -> bool {
        matches!(self.fix, Some(Mend::All(_)))
    }

    fn set(&mut self, cluster: u32, value: u32) -> Result<()> {
        if self.mends_all() {
            self.core.table.set(&*self.core.disk, &self.core.shape, cluster, value)?;
        }
        Ok(())
    }

    fn store(&mut self, at: u64, bytes: &[u8]) -> Result<()> {
        if self.mends_all() {
            let chunk = self.core.chunks.store(&*self.core.disk, &self.core.shape, at, bytes)?;
            self.core.transaction.chunks.insert(chunk);
        }
        Ok(())
    }

    // ---- boot sector, FATs -----------------------------------------------------------------

    fn marks(&mut self) -> Result<()> {
        if self.core.boot.is_dirty() || self.core.table_is_dirty()? {
            self.found_safe("The volume is marked as in use: it was not properly unmounted");
        }
        if self.core.shape.size() > self.core.disk.size() {
            self.found("The volume is larger than its disk: the end is missing", false);
        }
        if self.core.shape.info_sector != 0 && self.core.info()?.is_none() {
            self.found_safe("The FSInfo sector lacks its signatures");
        }
        let known = self.core.info()?.map(|info| info.free).filter(|free| *free != Info::UNKNOWN);
        let counted = self.core.recount_free()?;
        if let Some(known) = known.filter(|known| *known != counted) {
            self.found_safe(format!("FSInfo counts {known} free clusters; there are {counted}"));
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
                self.found_safe("The backup of the boot sector differs from it");
                if self.fix.is_some() {
                    self.core.disk.write_at(&boot.raw, shape.byte(shape.backup_boot))?;
                }
            }
        }
        let stored = self.core.boot.label().filter(|label| label != super::layout::NO_NAME);
        if stored.is_some() && stored != self.label {
            self.found_safe("The label in the boot sector is not that of the root directory");
            if self.fix.is_some() {
                let label = self.label.unwrap_or(*super::layout::NO_NAME);
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
                    if self.fix.is_some() {
                        self.core.disk.write_at(first, copy + at)?;
                    }
                }
                at += step as u64;
            }
            if differs {
                self.found_safe(format!("FAT {} differs from the first one", fat + 1));
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
            self.found(
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

    // ---- the tree --------------------------------------------------------------------------

    fn tree(&mut self) -> Result<()> {
        let root = self.core.shape.root_cluster;
        if root != 0 {
            let walked = self.walk(root, u32::MAX)?;
            self.starts.insert(root);
            if let Some(fault) = walked.fault {
                self.found(format!("The root directory's chain {fault}"), walked.last.is_some());
                if let Some(last) = walked.last {
                    self.set(last, self.core.shape.kind.end())?;
                }
            }
        }
        let mut todo = vec![Folder { start: root, parent: 0, path: String::new(), depth: 0 }];
        while let Some(folder) = todo.pop() {
            self.folder(&folder, &mut todo)?;
        }
        Ok(())
    }

    fn is_claimed(&self, cluster: u32) -> bool {
        let word = self.claimed.get(cluster as usize / 64).copied().unwrap_or(0);
        word >> (cluster % 64) & 1 != 0
    }

    fn claim(&mut self, cluster: u32) {
        if let Some(word) = self.claimed.get_mut(cluster as usize / 64) {
            *word |= 1 << (cluster % 64);
            self.report.clusters += 1;
        }
    }

    /// Follows a chain, claims its clusters, stops at the first fault or after `most`.
    fn walk(&mut self, start: u32, most: u32) -> Result<Walked> {
        let mut walked = Walked { clusters: 0, last: None, fault: None };
        let mut cluster = start;
        while walked.clusters < most {
            if !self.core.shape.is_cluster(cluster) {
                walked.fault = Some(format!("leads to cluster {cluster}, which is not there"));
                return Ok(walked);
            }
            if self.is_claimed(cluster) {
                walked.fault = Some(format!("comes to cluster {cluster}, which is in use already"));
                return Ok(walked);
            }
            let next = self.core.table.get(&*self.core.disk, &self.core.shape, cluster)?;
            let bad = self.core.shape.kind.bad();
            if next == 0 || next == 1 || next == bad {
                let what = if next == bad { "a bad" } else { "a free" };
                walked.fault = Some(format!("comes to cluster {cluster}, {what} one"));
                return Ok(walked);
            }
            self.claim(cluster);
            walked.clusters += 1;
            walked.last = Some(cluster);
            if next > bad {
                return Ok(walked);
            }
            cluster = next;
        }
        walked.fault = Some("is longer than the file".to_string());
        Ok(walked)
    }

    fn folder(&mut self, folder: &Folder, todo: &mut Vec<Folder>) -> Result<()> {
        let chunks = match self.core.directory_chunks(folder.start) {
            Ok(chunks) => chunks,
            // Without a repair, a root directory with a broken chain is not followed further.
            Err(error) if error.kind() == Kind::Corrupt => return Ok(()),
            Err(error) => return Err(error),
        };
        let mut names: HashSet<Vec<u16>> = HashSet::new();
        let mut assembler = Assembler::default();
        // Long entries that wait for their short one.
        let mut waiting: Vec<u64> = Vec::new();
        let mut slot = 0;
        'all: for at in chunks {
            let chunk = self.core.chunks.get(&*self.core.disk, &self.core.shape, at)?;
            for index in 0..chunk.bytes.len() / ENTRY {
                let Some(entry) = chunk.entry(index) else { break };
                let place = at + (index * ENTRY) as u64;
                slot += 1;
                if entry.is_end() || slot > SLOTS_MAX {
                    break 'all;
                }
                if entry.is_free() {
                    self.orphans(folder, &mut waiting)?;
                    assembler.clear();
                } else if entry.is_long_part() {
                    if entry.raw[0] & super::layout::LAST_LONG_ENTRY != 0 {
                        self.orphans(folder, &mut waiting)?;
                    }
                    waiting.push(place);
                    assembler.add(&entry.raw, slot);
                } else {
                    let long = assembler.take(&entry.name()).map(|long| long.0);
                    if long.is_none() {
                        self.orphans(folder, &mut waiting)?;
                    }
                    let kept = self.entry(folder, entry, place, long, &mut names, todo)?;
                    for place in waiting.drain(..).filter(|_| !kept) {
                        self.store(place, &[FREE])?;
                    }
                }
            }
        }
        self.orphans(folder, &mut waiting)
    }

    /// Parts of long names without the entry that they belong to.
    fn orphans(&mut self, folder: &Folder, waiting: &mut Vec<u64>) -> Result<()> {
        if waiting.is_empty() {
            return Ok(());
        }
        self.found(format!("{}/: parts of a long name belong to no file", folder.path), true);
        for place in waiting.drain(..) {
            self.store(place, &[FREE])?;
        }
        Ok(())
    }

    /// Answers whether the long name stays.
    fn entry(
        &mut self,
        folder: &Folder,
        mut entry: DirEntry,
        place: u64,
        long: Option<Vec<u16>>,
        names: &mut HashSet<Vec<u16>>,
        todo: &mut Vec<Folder>,
    ) -> Result<bool> {
        if entry.is_volume_id() && !entry.is_directory() {
            let blank = entry.name() == [b' '; 11];
            if folder.depth == 0 && self.label.is_none() && !blank {
                self.label = Some(entry.name());
            } else {
                self.found(
                    format!("{}/: a label that is empty or where none belongs", folder.path),
                    true,
                );
                self.store(place, &[FREE])?;
            }
            return Ok(true);
        }
        if entry.is_dot() && folder.depth > 0 {
            let first = self.core.shape.place(folder.start);
            let own = if &entry.name() == b".          " { first } else { first + ENTRY as u64 };
            if place != own {
                self.found(format!("{}/: . or .. where they do not belong", folder.path), true);
                self.store(place, &[FREE])?;
                return Ok(false);
            }
            self.dots(folder, entry, place)?;
            return Ok(true);
        }
        let before = entry;
        let units = long.unwrap_or_else(|| short_text(&entry.name(), entry.case()));
        let path = format!("{}/{}", folder.path, String::from_utf8_lossy(&name::to_bytes(&units)));
        self.report.files += 1;
        self.check_name(&path, &mut entry, &units, names)?;
        let start = entry.start(self.core.is_fat32());
        if start != 0 && !self.starts.insert(start) && self.core.shape.is_cluster(start) {
            // Most likely a file that was being moved when the power failed.
            self.found(format!("{path} has the clusters of another name"), true);
            self.store(place, &[FREE])?;
            return Ok(false);
        }
        if entry.is_directory() {
            self.check_folder(folder, &path, &mut entry, place, start, todo)?;
        } else {
            self.check_file(&path, &mut entry, start)?;
        }
        if entry != before && !entry.is_free() {
            self.store(place, &entry.raw)?;
        }
        // Long parts belong to the short name that they were made for.
        Ok(!entry.is_free() && entry.name() == before.name())
    }

    fn check_name(
        &mut self,
        path: &str,
        entry: &mut DirEntry,
        units: &[u16],
        names: &mut HashSet<Vec<u16>>,
    ) -> Result<()> {
        let short = entry.name();
        let bad = short[0] == b' '
            || short.iter().any(|byte| {
                *byte < 0x20 && *byte != super::layout::KANJI_E5
                    || byte.is_ascii_lowercase()
                    || b"\"*+,./:;<=>?[\\]|".contains(byte)
            });
        let taken = !names.insert(fold(units));
        let short_units = fold(&short_text(&short, 0));
        let short_taken = fold(units) != short_units && !names.insert(short_units);
        if !bad && !taken && !short_taken && (units.is_empty() || name::fault(units).is_none()) {
            return Ok(());
        }
        let what = if taken || short_taken { "is there twice" } else { "is no proper name" };
        self.found(format!("{path} {what}"), true);
        for number in 0..u32::MAX {
            let mut fresh = *b"FSCK0000   ";
            put(&mut fresh, 4, format!("{:04}", number % 10_000).as_bytes());
            put(&mut fresh, 8, format!("{:03}", number / 10_000 % 1000).as_bytes());
            if names.insert(fold(&short_text(&fresh, 0))) {
                entry.set_name(&fresh, 0);
                break;
            }
        }
        Ok(())
    }

    fn check_file(&mut self, path: &str, entry: &mut DirEntry, start: u32) -> Result<()> {
        let size = u64::from(entry.size());
        let cluster = self.core.shape.cluster_size();
        if entry.attributes() & attribute::VOLUME_ID != 0 {
            return Ok(());
        }
        if start == 0 {
            if size > 0 {
                self.found(format!("{path} has {size} bytes, but no clusters"), true);
                entry.set_size(0);
            }
            return Ok(());
        }
        let wanted = size.div_ceil(cluster).min(FILE_MAX / cluster + 1) as u32;
        let walked = self.walk(start, wanted)?;
        let end = self.core.shape.kind.end();
        if walked.clusters == wanted && walked.fault.is_some() {
            // What is behind belongs to nobody: it is found as lost.
            self.found(format!("{path} has more clusters than its {size} bytes need"), true);
            match walked.last {
                Some(last) => self.set(last, end)?,
                None => entry.set_start(0),
            }
            return Ok(());
        }
        if let Some(fault) = walked.fault {
            self.found(format!("{path}: its chain {fault}"), true);
            match walked.last {
                Some(last) => self.set(last, end)?,
                None => entry.set_start(0),
            }
            entry.set_size((u64::from(walked.clusters) * cluster).min(size) as u32);
        } else if walked.clusters < wanted {
            let there = u64::from(walked.clusters) * cluster;
            self.found(format!("{path} has {size} bytes, but clusters for {there} only"), true);
            entry.set_size(there as u32);
        }
        Ok(())
    }

    fn check_folder(
        &mut self,
        folder: &Folder,
        path: &str,
        entry: &mut DirEntry,
        place: u64,
        start: u32,
        todo: &mut Vec<Folder>,
    ) -> Result<()> {
        if entry.size() != 0 {
            self.found(format!("{path} is a directory, but has a length"), true);
            entry.set_size(0);
        }
        if start == 0 {
            self.found(format!("{path} is a directory without clusters"), true);
            entry.raw[0] = FREE;
            return self.store(place, &[FREE]);
        }
        let most = (u64::from(SLOTS_MAX) * ENTRY as u64).div_ceil(self.core.shape.cluster_size());
        let walked = self.walk(start, most.max(1) as u32)?;
        if let Some(fault) = walked.fault {
            self.found(format!("{path}: its chain {fault}"), true);
            match walked.last {
                Some(last) => self.set(last, self.core.shape.kind.end())?,
                None => {
                    entry.raw[0] = FREE;
                    return self.store(place, &[FREE]);
                }
            }
        }
        if folder.depth >= DEPTH_MAX {
            self.found(format!("{path} is nested too deeply to be looked into"), false);
            return Ok(());
        }
        self.check_dots_are_there(path, start, folder.start)?;
        todo.push(Folder {
            start,
            parent: folder.start,
            path: path.to_string(),
            depth: folder.depth + 1,
        });
        Ok(())
    }

    /// The first two entries of a directory are `.` and `..`.
    fn check_dots_are_there(&mut self, path: &str, start: u32, parent: u32) -> Result<()> {
        let place = self.core.shape.place(start);
        let chunk = self.core.chunks.get(&*self.core.disk, &self.core.shape, place)?;
        let expected = [(b".          ", start), (b"..         ", self.core.dotdot(parent))];
        for (index, (name, to)) in expected.into_iter().enumerate() {
            let Some(there) = chunk.entry(index) else { break };
            if there.name() == *name && there.is_directory() {
                continue;
            }
            // What is in the way moves to a free slot, if there is one near.
            let in_the_way = !there.is_free() && !there.is_dot();
            let slots = 2..chunk.bytes.len() / ENTRY;
            let mut free = slots.filter(|slot| chunk.entry(*slot).is_some_and(|e| e.is_free()));
            let room = free.nth(index);
            self.found(
                format!("{path} does not begin with . and .."),
                !in_the_way || room.is_some(),
            );
            if let (true, Some(room)) = (in_the_way, room) {
                self.store(place + (room * ENTRY) as u64, &there.raw)?;
            }
            if !in_the_way || room.is_some() {
                let mut entry = DirEntry::new(name, attribute::DIRECTORY);
                entry.set_start(to);
                self.store(place + (index * ENTRY) as u64, &entry.raw)?;
            }
        }
        Ok(())
    }

    /// `.` leads to the directory itself, `..` to its parent.
    fn dots(&mut self, folder: &Folder, mut entry: DirEntry, place: u64) -> Result<()> {
        let up = &entry.name() == b"..         ";
        let right = if up { self.core.dotdot(folder.parent) } else { folder.start };
        let fault = if !entry.is_directory() {
            "is no directory"
        } else if entry.start(self.core.is_fat32()) != right {
            "leads elsewhere"
        } else if entry.size() != 0 {
            "has a length"
        } else {
            return Ok(());
        };
        let name = if up { ".." } else { "." };
        self.found(format!("{}/{name} {fault}", folder.path), true);
        entry.set_attributes(entry.attributes() | attribute::DIRECTORY);
        entry.set_start(right);
        entry.set_size(0);
        self.store(place, &entry.raw)
    }

    // ---- lost clusters ---------------------------------------------------------------------

    /// Clusters in use that belong to no file.
    fn lost(&mut self) -> Result<()> {
        let end = self.core.shape.clusters + 2;
        let bad = self.core.shape.kind.bad();
        let mut led_to = vec![0_u64; self.claimed.len()];
        let (mut clusters, mut lost) = (0_u64, Vec::new());
        let claimed = |cluster: u32| {
            let word = self.claimed.get(cluster as usize / 64).copied().unwrap_or(0);
            word >> (cluster % 64) & 1 != 0
        };
        let mut reader = self.core.table.reader(&*self.core.disk, &self.core.shape);
        let mut at = 2;
        while let Some(cluster) = reader.find(at, end, false)? {
            at = cluster + 1;
            let next = reader.get(cluster)?;
            if next == bad || claimed(cluster) {
                continue;
            }
            clusters += 1;
            if lost.len() < 1 << 22 {
                lost.push(cluster);
            }
            if self.core.shape.is_cluster(next)
                && next != cluster
                && let Some(word) = led_to.get_mut(next as usize / 64)
            {
                *word |= 1 << (next % 64);
            }
        }
        if clusters == 0 {
            return Ok(());
        }
        let bytes = clusters * self.core.shape.cluster_size();
        self.found(format!("{clusters} clusters ({bytes} bytes) belong to no file"), true);
        let Some(Mend::All(how)) = self.fix else { return Ok(()) };
        let heads = lost.iter().filter(|c| {
            led_to.get(**c as usize / 64).is_none_or(|word| word >> (**c % 64) & 1 == 0)
        });
        let heads: Vec<u32> = heads.copied().collect();
        let mut number = 0;
        if how == Lost::Keep {
            for head in heads {
                if self.is_claimed(head) || number >= RESCUED_MAX {
                    continue;
                }
                self.rescue(head, &mut number)?;
            }
        }
        // What could not be kept, and what goes in circles.
        for cluster in lost {
            if !self.is_claimed(cluster) {
                self.set(cluster, 0)?;
            }
        }
        Ok(())
    }

    /// Gives a chain a name in the root directory.
    fn rescue(&mut self, head: u32, number: &mut u32) -> Result<()> {
        let most = (FILE_MAX / self.core.shape.cluster_size()) as u32;
        let walked = self.walk(head, most)?;
        let Some(last) = walked.last else { return Ok(()) };
        if walked.fault.is_some() {
            self.set(last, self.core.shape.kind.end())?;
        }
        let root = self.core.shape.root_cluster;
        let directory = self.core.directory(root)?;
        let mut name = *b"FSCK0000REC";
        while *number < RESCUED_MAX {
            put(&mut name, 4, format!("{number:04}").as_bytes());
            *number += 1;
            if self.core.short_owner(&directory, &name).is_none() {
                break;
            }
        }
        let mut entry = DirEntry::new(&name, attribute::ARCHIVE);
        entry.set_start(head);
        let size = u64::from(walked.clusters) * self.core.shape.cluster_size();
        entry.set_size(size.min(FILE_MAX) as u32);
        let now = self.core.now();
        entry.set_created(now);
        entry.set_modified(now);
        entry.set_accessed(now);
        let hash = self.core.name_hash(&short_text(&name, 0));
        match self.core.add_entries(root, &[entry.raw], &[hash]) {
            Ok(_) => Ok(()),
            // No room for the name: free it after all.
            Err(error) if error.kind() == Kind::OutOfSpace => {
                let mut cluster = head;
                for _ in 0..walked.clusters {
                    let next = self.core.table.get(&*self.core.disk, &self.core.shape, cluster)?;
                    self.set(cluster, 0)?;
                    cluster = next;
                }
                Ok(())
            }
            Err(error) => Err(error),
        }
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
