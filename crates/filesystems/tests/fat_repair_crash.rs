//! Power cuts while damaged FAT and exFAT volumes are mended: at every state the files that the
//! damage did not touch are whole, and the next repair ends as well as one that was not cut.
//!
//! `DISKSMITH_LONG=1` looks at all states, `DISKSMITH_CRASH_SCRIPT=NAME` at those of one script.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use common::cuts::{Tree, any_script, each_cut, is_wanted, readable};
use common::{exfat_damage, fat_damage};
use disksmith_disk::{Disk, MemoryDisk, Result};
use disksmith_filesystems::Filesystem;
use disksmith_filesystems::fat::exfat::{self, Exfat};
use disksmith_filesystems::fat::{self, Fat, FatKind, Lost, Mend, RepairReport};
use disksmith_testkit::{Recorder, Rng};

/// States of each script that are looked at in every test run.
const FEW: u64 = 9;
/// Every so many states the others' checker looks too.
const THEIRS: u64 = 10;

type Open = fn(Arc<dyn Disk>) -> Result<Box<dyn Filesystem>>;

/// Mixtures of damages, in every test run and in all.
const SEEDS: (u64, u64) = (5, 300);

/// FAT or exFAT.
struct Family {
    open: Open,
    repair: fn(Arc<dyn Disk>, Mend) -> Result<RepairReport>,
    theirs: fn(&Path) -> (bool, String),
}

const FAT: Family = Family {
    open: |disk| Ok(Box::new(Fat::open(disk, true)?)),
    repair: fat::repair,
    theirs: fat_damage::theirs,
};

const EXFAT: Family = Family {
    open: |disk| Ok(Box::new(Exfat::open(disk, true)?)),
    repair: exfat::repair,
    theirs: exfat_damage::theirs,
};

/// One repair.
struct Script<'a> {
    name: String,
    family: &'a Family,
    sound: &'a Tree,
    damaged: MemoryDisk,
    lost: Lost,
}

/// What must be there whatever happens.
struct Expected {
    /// Files that can be read at any time; `None` where the damaged volume cannot be opened.
    always: Option<Tree>,
    /// Files that are there after a repair.
    mended: Tree,
    /// Content that has some name after a repair.
    content: BTreeSet<Vec<u8>>,
}

impl Script<'_> {
    fn read(&self, disk: &MemoryDisk) -> Result<Tree> {
        Ok(readable(&*(self.family.open)(Arc::new(disk.clone()))?))
    }

    fn mend(&self, disk: Arc<dyn Disk>, what: &str) {
        let report = (self.family.repair)(disk, Mend::All(self.lost));
        let report = report.unwrap_or_else(|e| panic!("{what}: {e}"));
        assert_eq!(report.last.findings, [""; 0], "{what}: after {:#?}", report.found);
    }

    /// What a repair that is not cut leaves of the sound files.
    fn expected(&self, mended: &MemoryDisk) -> Expected {
        let after = self.read(mended).unwrap();
        let whole = |tree: &Tree, path: &[u8]| tree.get(path) == self.sound.get(path);
        let mended: Tree =
            self.sound.clone().into_iter().filter(|file| whole(&after, &file.0)).collect();
        let always = self.read(&self.damaged).ok().map(|before| {
            mended.clone().into_iter().filter(|file| whole(&before, &file.0)).collect()
        });
        let content: BTreeSet<_> = after.into_values().collect();
        let content = self.sound.values().filter(|bytes| content.contains(*bytes));
        Expected { always, content: content.cloned().collect(), mended }
    }

    /// Cuts the repair everywhere; answers at how many states it looked.
    fn cut(&self, image: &Path) -> u64 {
        let recorder = Recorder::new();
        let disk = recorder.disk(0, self.damaged.clone());
        self.mend(disk.clone(), &self.name);
        let expected = self.expected(&disk.content());
        assert!(!expected.mended.is_empty(), "{}: everything is damaged", self.name);
        each_cut(&self.name, &self.damaged, &recorder.log(), FEW, &mut |state, number, what| {
            let mended = self.judge(state, &expected, what);
            if number.is_multiple_of(THEIRS) {
                self.ask(&mended, image, what);
            }
        })
    }

    /// Judges a state; answers it mended.
    fn judge(&self, state: &MemoryDisk, expected: &Expected, what: &str) -> Arc<MemoryDisk> {
        if let Some(always) = &expected.always {
            let now = self.read(state).unwrap_or_else(|e| panic!("{what}: {e}"));
            assert_there(always, &now, &format!("{what}, before it is mended"));
        }
        let disk = Arc::new(state.clone());
        self.mend(disk.clone(), what);
        let now = self.read(&disk).unwrap();
        assert_there(&expected.mended, &now, what);
        let content: BTreeSet<_> = now.into_values().collect();
        let gone = expected.content.difference(&content).count();
        assert_eq!(gone, 0, "{what}: the content of {gone} files is gone");
        disk
    }

    fn ask(&self, disk: &MemoryDisk, image: &Path, what: &str) {
        fs::write(image, disk.to_bytes()).unwrap();
        let (clean, said) = (self.family.theirs)(image);
        assert!(clean, "{what}: {said}");
    }
}

fn assert_there(expected: &Tree, now: &Tree, what: &str) {
    for (path, bytes) in expected {
        let shown = String::from_utf8_lossy(path);
        assert!(now.get(path) == Some(bytes), "{what}: {shown} is gone or different");
    }
}

/// One way to damage the bytes of a volume, and its name.
type Harm<'a> = (&'a str, &'a dyn Fn(&mut [u8]));

/// A volume, and how it can be damaged.
struct Ground<'a> {
    family: &'a Family,
    kind: String,
    sound: Vec<u8>,
    harms: Vec<Harm<'a>>,
    /// What is mended from the backup of the boot sectors, and done alone: that may be damaged too.
    boot: &'a [Harm<'a>],
}

impl Ground<'_> {
    /// Each damage alone, then several at once.
    fn cut_all(&self) {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("image");
        let disk = Arc::new(MemoryDisk::from_bytes(&self.sound));
        let tree = readable(&*(self.family.open)(disk).unwrap());
        let seeds = if any_script() { SEEDS.1 } else { SEEDS.0 };
        let mut looked = 0;
        for (name, harm) in self.harms.iter().chain(self.boot) {
            looked += self.cut(name, &tree, &image, &|| {
                let mut bytes = self.sound.clone();
                harm(&mut bytes);
                bytes
            });
        }
        for seed in 1..=seeds {
            let damaged = || self.damaged_by(&mut Rng::new(seed));
            looked += self.cut(&format!("seed {seed}"), &tree, &image, &damaged);
        }
        println!("{}: {looked} states of repairs", self.kind);
    }

    fn cut(&self, name: &str, sound: &Tree, image: &Path, damaged: &dyn Fn() -> Vec<u8>) -> u64 {
        let mut looked = 0;
        for (how, lost) in [("keep", Lost::Keep), ("free", Lost::Free)] {
            let name = format!("{}, {name}, {how}", self.kind);
            if is_wanted(&name) {
                let (family, damaged) = (self.family, MemoryDisk::from_bytes(&damaged()));
                looked += Script { name, family, sound, damaged, lost }.cut(image);
            }
        }
        looked
    }

    /// Several damages at once.
    fn damaged_by(&self, rng: &mut Rng) -> Vec<u8> {
        let mut bytes = self.sound.clone();
        for _ in 0..2 + rng.below(3) {
            // One damage may hide what another one looks for.
            let mut next = bytes.clone();
            let harm = rng.pick(&self.harms).1;
            let tried = catch_unwind(AssertUnwindSafe(|| harm(&mut next)));
            if tried.is_ok() {
                bytes = next;
            }
        }
        bytes
    }
}

fn cut_fat(kind: FatKind) {
    let sound = fat_damage::filled(kind, 3 << 20, if kind == FatKind::Fat12 { 1024 } else { 512 });
    let harms: Vec<_> = fat_damage::HARMS
        .iter()
        .filter(|(_, scope, _)| scope.has(kind))
        .map(|(name, _, harm)| {
            (*name, move |bytes: &mut [u8]| harm(&mut fat_damage::Damage { bytes, kind }))
        })
        .collect();
    let harms = harms.iter().map(|(name, harm)| (*name, harm as _)).collect();
    let boot: &[Harm<'_>] = match kind {
        FatKind::Fat32 => &[("no boot sector", &|bytes| bytes[..512].fill(0))],
        _ => &[],
    };
    Ground { family: &FAT, kind: format!("{kind:?}"), sound, harms, boot }.cut_all();
}

#[test]
fn repairs_of_fat12() {
    cut_fat(FatKind::Fat12);
}

#[test]
fn repairs_of_fat16() {
    cut_fat(FatKind::Fat16);
}

#[test]
fn repairs_of_fat32() {
    cut_fat(FatKind::Fat32);
}

#[test]
fn repairs_of_exfat() {
    let sound = exfat_damage::filled();
    let harms: Vec<_> = exfat_damage::DAMAGES
        .iter()
        .map(|(name, _, harm)| (*name, |bytes: &mut [u8]| harm(&mut exfat_damage::Damage(bytes))))
        .collect();
    let harms = harms.iter().map(|(name, harm)| (*name, harm as _)).collect();
    let boot: &[Harm<'_>] = &[
        ("no boot sectors", &|bytes| bytes[..512 * 12].fill(0)),
        ("other checksums of both boot regions", &|bytes| {
            bytes[512 * 11] ^= 1;
            bytes[512 * 23] ^= 1;
        }),
    ];
    Ground { family: &EXFAT, kind: "exFAT".into(), sound, harms, boot }.cut_all();
}
