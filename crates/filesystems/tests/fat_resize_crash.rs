//! Power cuts while FAT volumes change their length: at every state the files are whole in a
//! volume of the old length or of the new one, and the next run goes through, if need be after a
//! repair that it asks for.
//!
//! `DISKSMITH_LONG=1` looks at all states, `DISKSMITH_CRASH_SCRIPT=NAME` at those of one script.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use common::changes::{fill, new};
use common::cuts::{Tree, each_cut, is_wanted, tree};
use common::fat_damage::theirs;
use disksmith_disk::{Disk, MemoryDisk};
use disksmith_filesystems::fat::{self, Fat, FatKind, FatOptions, Lost, Mend};
use disksmith_filesystems::{FileKind, Filesystem};
use disksmith_testkit::Recorder;

const KIB: u64 = 1 << 10;
/// States of each script that are looked at in every test run.
const FEW: u64 = 40;
/// Every so many states fsck.fat looks too.
const THEIRS: u64 = 8;

/// A volume of clusters of 512 bytes, and the lengths that it has one after the other, in KiB. The
/// last change is the one that is cut.
struct Script {
    name: &'static str,
    kind: FatKind,
    lengths: &'static [u64],
    fill: fn(&dyn Filesystem),
}

impl Script {
    /// The volume before the last change.
    fn made(&self) -> MemoryDisk {
        let disk = Arc::new(MemoryDisk::new(self.lengths[0] * KIB));
        let options =
            FatOptions { kind: Some(self.kind), cluster_size: Some(512), ..FatOptions::default() };
        fat::make(&*disk, &options).unwrap();
        let ours = Fat::open(disk.clone(), false).unwrap();
        (self.fill)(&ours);
        ours.close().unwrap();
        let (_, before) = self.lengths.split_last().unwrap();
        for length in &before[1..] {
            disk.set_size(disk.size().max(length * KIB)).unwrap();
            fat::resize(disk.clone(), length * KIB).unwrap();
        }
        disk.set_size(disk.size().max(self.to())).unwrap();
        (*disk).clone()
    }

    fn to(&self) -> u64 {
        self.lengths.last().unwrap() * KIB
    }

    fn cut(&self, image: &Path) -> u64 {
        let initial = self.made();
        let files = files(&initial, self.name);
        let recorder = Recorder::new();
        let disk = recorder.disk(0, initial.clone());
        fat::resize(disk.clone(), self.to()).unwrap();
        let mut lengths = BTreeSet::new();
        let log = recorder.log();
        let looked = each_cut(self.name, &initial, &log, FEW, &mut |state, number, what| {
            lengths.insert(length(state));
            assert!(self::files(state, what) == files, "{what}: files are gone or different");
            let asked = number.is_multiple_of(THEIRS).then_some(image);
            self.again(state, &files, what, asked);
        });
        let ends = BTreeSet::from([length(&initial), length(&disk.content())]);
        assert!(lengths.is_superset(&ends), "{}: {lengths:?}", self.name);
        println!("{}: {looked} states, lengths {lengths:?}", self.name);
        looked
    }

    /// The next run, if need be after a repair.
    fn again(&self, state: &MemoryDisk, files: &Tree, what: &str, image: Option<&Path>) {
        let disk = Arc::new(state.clone());
        if let Err(error) = fat::resize(disk.clone(), self.to()) {
            assert!(error.hint().unwrap_or_default().contains("fsck"), "{what}: {error}");
            assert!(self::files(&disk, what) == *files, "{what}: refused, and files are gone");
            let report = fat::repair(disk.clone(), Mend::All(Lost::Free)).unwrap();
            assert_eq!(report.last.findings, [""; 0], "{what}: after {:#?}", report.found);
            assert!(self::files(&disk, what) == *files, "{what}: mended, and files are gone");
            assert_fsck(image, &disk, &format!("{what}, mended"));
            let done = fat::resize(disk.clone(), self.to());
            done.unwrap_or_else(|e| panic!("{what}: again: {e}"));
        }
        assert_eq!(length(&disk), self.to(), "{what}");
        assert!(self::files(&disk, what) == *files, "{what}: done again, and files are gone");
        let report = fat::check(disk.clone()).unwrap();
        assert_eq!(report.findings, [""; 0], "{what}");
        assert_fsck(image, &disk, &format!("{what}, done again"));
    }
}

fn assert_fsck(image: Option<&Path>, disk: &MemoryDisk, what: &str) {
    let Some(image) = image else { return };
    fs::write(image, disk.to_bytes()).unwrap();
    let (clean, said) = theirs(image);
    assert!(clean, "{what}: fsck.fat: {said}");
}

fn files(disk: &MemoryDisk, what: &str) -> Tree {
    let ours = Fat::open(Arc::new(disk.clone()), true);
    tree(&ours.unwrap_or_else(|e| panic!("{what}: {e}")), what)
}

/// What the boot sector says.
fn length(disk: &MemoryDisk) -> u64 {
    let mut boot = [0; 512];
    disk.read_at(&mut boot, 0).unwrap();
    let short = u64::from(u16::from_le_bytes([boot[19], boot[20]]));
    let long = u64::from(u32::from_le_bytes(boot[32..36].try_into().unwrap()));
    512 * if short == 0 { long } else { short }
}

/// Files in some directories, with gaps between them.
fn some(ours: &dyn Filesystem) {
    fill(ours, 7, 40);
}

/// Files and directories up to near the end, most of which are gone again. The last one is zeroes.
fn thinned(ours: &dyn Filesystem) {
    fill(ours, 7, 85);
    let zeroes = ours.create(ours.root(), b"zeroes", &new(FileKind::Regular)).unwrap();
    ours.write(zeroes.inode, 0, &[0; 6000]).unwrap();
    let mut files = Vec::new();
    let mut todo = vec![ours.root()];
    while let Some(folder) = todo.pop() {
        ours.read_directory(folder, 0, &mut |entry| {
            let at = ours.attributes(entry.inode).unwrap();
            match at.kind {
                _ if entry.name.starts_with(b".") || entry.name == b"zeroes" => {}
                FileKind::Directory => todo.push(at.inode),
                _ => files.push((folder, entry.name)),
            }
            true
        })
        .unwrap();
    }
    for (folder, name) in files.iter().enumerate().filter(|(n, _)| n % 3 != 0).map(|(_, f)| f) {
        ours.unlink(*folder, name).unwrap();
    }
}

/// What lies in the clusters whose entries of FAT12 are in two sectors, which are used last: one
/// file in all of them, another one before.
fn split(ours: &dyn Filesystem) {
    split_beside(ours, 20_000);
}

/// The same with so many bytes in the other one.
fn split_beside(ours: &dyn Filesystem, other: u64) {
    let put = |name: &str, length: u64| {
        let file = ours.create(ours.root(), name.as_bytes(), &new(FileKind::Regular)).unwrap();
        let bytes: Vec<u8> = (0..length).map(|at| (at / 512 % 251) as u8 + 1).collect();
        ours.write(file.inode, 0, &bytes).unwrap();
        ours.sync().unwrap();
    };
    let free = |ours: &dyn Filesystem| ours.statistics().unwrap().free;
    put("small", 3000);
    put("all but the last few", (free(ours) - SPLIT) * 512);
    put("split", free(ours) * 512);
    ours.unlink(ours.root(), b"all but the last few").unwrap();
    put("another one", other);
}

/// How many such clusters there are in the volume of this test.
const SPLIT: u64 = 6;

fn run(scripts: &[Script]) {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("image");
    for script in scripts.iter().filter(|script| is_wanted(script.name)) {
        script.cut(&image);
    }
}

#[test]
fn fat12() {
    let kind = FatKind::Fat12;
    run(&[
        Script { name: "FAT12: the FAT grows", kind, lengths: &[1000, 1500], fill: thinned },
        Script { name: "FAT12: shrinks", kind, lengths: &[1500, 1000], fill: thinned },
        Script { name: "FAT12: grows back", kind, lengths: &[1500, 1000, 1400], fill: some },
        Script { name: "FAT12: split entries move", kind, lengths: &[1500, 600], fill: split },
        Script {
            name: "FAT12: split entries, the FAT grows",
            kind,
            lengths: &[600, 1500],
            fill: split,
        },
    ]);
}

#[test]
fn fat16() {
    let kind = FatKind::Fat16;
    run(&[
        Script { name: "FAT16: the FAT grows", kind, lengths: &[3000, 5000], fill: thinned },
        Script { name: "FAT16: shrinks", kind, lengths: &[5000, 3000], fill: thinned },
        Script { name: "FAT16: grows back", kind, lengths: &[4000, 3000, 3900], fill: some },
    ]);
}

#[test]
fn fat32() {
    let kind = FatKind::Fat32;
    run(&[
        Script { name: "FAT32: the FAT grows", kind, lengths: &[2000, 4000], fill: thinned },
        Script {
            name: "FAT32: the FAT grows to where it was",
            kind,
            lengths: &[2000, 3000, 3200, 3400],
            fill: some,
        },
        Script { name: "FAT32: shrinks", kind, lengths: &[4000, 2000], fill: thinned },
        Script { name: "FAT32: grows back", kind, lengths: &[3000, 2000, 2900], fill: some },
    ]);
}

/// Where no cluster is left over, an entry in two sectors is changed after all.
#[test]
fn a_volume_of_fat12_shrinks_to_what_is_in_use() {
    let script = Script {
        name: "to the minimum",
        kind: FatKind::Fat12,
        lengths: &[1500, 1500],
        // More than the 341 clusters before the first such entry.
        fill: |ours| split_beside(ours, 200_000),
    };
    let folder = tempfile::tempdir().unwrap();
    let disk = Arc::new(script.made());
    let before = files(&disk, script.name);
    let least = fat::minimum_size(disk.clone()).unwrap();
    assert!(least > 400 * 512, "{least}");
    fat::resize(disk.clone(), least).unwrap();
    assert_eq!(length(&disk), least);
    assert!(files(&disk, script.name) == before);
    assert_fsck(Some(&folder.path().join("image")), &disk, script.name);
}
