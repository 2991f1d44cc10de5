//! FAT volumes of another length: clean for fsck.fat, every file as it was.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use common::*;
use disksmith_disk::{Disk, MemoryDisk};
use disksmith_filesystems::fat::{self, Fat, FatKind, FatOptions};
use disksmith_filesystems::{Device, FileKind, Filesystem, NewFile};
use disksmith_testkit::{CrashLimits, Recorder, Rng, crash_states};

const MIB: u64 = 1 << 20;

fn new(kind: FileKind) -> NewFile {
    NewFile { kind, mode: 0o755, uid: 0, gid: 0, device: Device::default() }
}

/// Fills a volume to about `share` of its clusters, leaving gaps.
fn fill(ours: &Fat, seed: u64, share: u64) {
    let mut rng = Rng::new(seed);
    let numbers = ours.statistics().unwrap();
    let wanted = numbers.blocks * share / 100;
    let mut folders = vec![ours.root()];
    let mut number = 0;
    while numbers.blocks - ours.statistics().unwrap().free < wanted {
        number += 1;
        let folder = *rng.pick(&folders);
        if rng.one_in(12) {
            let name = format!("Folder number {number}");
            if let Ok(made) = ours.create(folder, name.as_bytes(), &new(FileKind::Directory)) {
                folders.push(made.inode);
            }
            continue;
        }
        let name = format!("file {number}.data");
        let Ok(made) = ours.create(folder, name.as_bytes(), &new(FileKind::Regular)) else {
            continue;
        };
        let most = numbers.blocks * u64::from(numbers.block_size) / 40;
        let length = rng.below(most) as usize;
        let data = vec![number as u8; length];
        // In two parts, so that chains are not all in one piece.
        ours.write(made.inode, 0, &data[..length / 2]).unwrap();
        if rng.one_in(3) {
            let other = format!("gone {number}");
            if let Ok(gone) = ours.create(folder, other.as_bytes(), &new(FileKind::Regular)) {
                ours.write(gone.inode, 0, &vec![0xAA; 3000]).unwrap();
                ours.write(made.inode, (length / 2) as u64, &data[length / 2..]).unwrap();
                ours.unlink(folder, other.as_bytes()).unwrap();
                continue;
            }
        }
        ours.write(made.inode, (length / 2) as u64, &data[length / 2..]).unwrap();
    }
}

fn tree(ours: &dyn Filesystem) -> BTreeMap<Vec<u8>, (u64, u32)> {
    walk_ours(ours).into_iter().map(|(name, seen)| (name, (seen.size, seen.content))).collect()
}

fn assert_fat_clean(image: &Path, what: &str) {
    let output = try_run("fsck.fat", &["-n", text(image)]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{what}: fsck.fat: {}\n{said}", output.status);
    assert_eq!(said.lines().count(), 2, "{what}: fsck.fat: {said}");
    let report = fat::check(FileDisk::open(image)).unwrap();
    assert!(report.findings.is_empty(), "{what}: {:#?}", report.findings);
}

#[test]
fn files_are_the_same_in_every_length() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("image");
    let cases: &[(FatKind, u32, u64, &[u64])] = &[
        (FatKind::Fat12, 2048, 3 * MIB, &[5 * MIB, 7 * MIB, 0, 4 * MIB]),
        (FatKind::Fat16, 2048, 16 * MIB, &[17 * MIB, 60 * MIB, 100 * MIB, 0, 40 * MIB, 128 * MIB]),
        (FatKind::Fat16, 512, 8 * MIB, &[9 * MIB, 20 * MIB, 0, 25 * MIB]),
        (
            FatKind::Fat32,
            512,
            40 * MIB,
            &[41 * MIB, 80 * MIB, 300 * MIB, 0, 60 * MIB, 150 * MIB, 90 * MIB],
        ),
        (FatKind::Fat32, 4096, 300 * MIB, &[600 * MIB, 1500 * MIB, 2000 * MIB, 0]),
    ];
    for (kind, cluster, size, lengths) in cases {
        let options =
            FatOptions { kind: Some(*kind), cluster_size: Some(*cluster), ..FatOptions::default() };
        fat::make(&*FileDisk::create(&image, *size), &options).unwrap();
        let ours = Fat::open(FileDisk::open(&image), false).unwrap();
        fill(&ours, *size, 60);
        let before = tree(&ours);
        ours.close().unwrap();
        for length in *lengths {
            let what = format!("{kind:?} of {cluster}, {length}");
            let disk = FileDisk::open(&image);
            let length = match length {
                0 => fat::minimum_size(disk.clone()).unwrap(),
                length => *length,
            };
            disk.set_size(disk.size().max(length)).unwrap();
            let done = fat::resize(disk.clone(), length)
                .unwrap_or_else(|e| panic!("{what}: {e} {:?}", e.hint()));
            assert_eq!(done.new_bytes, length / 512 * 512, "{what}");
            disk.set_size(length).unwrap();
            assert_fat_clean(&image, &what);
            let ours = Fat::open(FileDisk::open(&image), true).unwrap();
            assert!(tree(&ours) == before, "{what}");
        }
        // It can still be used.
        let ours = Fat::open(FileDisk::open(&image), false).unwrap();
        ours.create(ours.root(), b"one more", &new(FileKind::Directory)).unwrap();
        ours.close().unwrap();
        assert_fat_clean(&image, "used again");
    }
}

#[test]
fn what_cannot_be_is_refused_and_changes_nothing() {
    let disk = Arc::new(MemoryDisk::new(16 * MIB));
    let options = FatOptions {
        kind: Some(FatKind::Fat16),
        cluster_size: Some(2048),
        ..FatOptions::default()
    };
    fat::make(&*disk, &options).unwrap();
    let ours = Fat::open(disk.clone(), false).unwrap();
    fill(&ours, 1, 50);
    ours.close().unwrap();
    let before = tree(&Fat::open(disk.clone(), true).unwrap());
    let refused = |size: u64| fat::resize(disk.clone(), size).unwrap_err();
    assert!(refused(17 * MIB).to_string().contains("only"));
    // FAT16 is told by its number of clusters.
    assert!(refused(8 * MIB).to_string().contains("less than"));
    disk.set_size(1 << 30).unwrap();
    assert!(refused(1 << 30).to_string().contains("at most"));
    // A cluster that belongs to nothing.
    disk.write_at(&[0xFF, 0xFF], 4 * 512 + 8000 * 2).unwrap();
    let error = refused(20 * MIB);
    assert!(error.to_string().contains("damaged"), "{error}");
    assert!(tree(&Fat::open(disk.clone(), true).unwrap()) == before);
}

/// After a cut at any write, the files are all there in the old volume or in the new one.
#[test]
fn a_cut_leaves_the_old_volume_or_the_new_one() {
    let cases: &[(FatKind, u32, u64, u64)] = &[
        (FatKind::Fat12, 512, MIB, MIB + MIB / 2),
        (FatKind::Fat16, 512, 3 * MIB, 5 * MIB),
        (FatKind::Fat16, 512, 5 * MIB, 3 * MIB),
        (FatKind::Fat32, 512, 2 * MIB, 4 * MIB),
        (FatKind::Fat32, 512, 4 * MIB, 2 * MIB),
    ];
    let limits = CrashLimits { full_up_to: 6, random_subsets: 6, torn: 3, seed: 5 };
    for (kind, cluster, from, to) in cases {
        let content = MemoryDisk::new(*from);
        let start = Arc::new(content);
        let options =
            FatOptions { kind: Some(*kind), cluster_size: Some(*cluster), ..FatOptions::default() };
        fat::make(&*start, &options).unwrap();
        let ours = Fat::open(start.clone(), false).unwrap();
        fill(&ours, *from, 40);
        let before = tree(&ours);
        ours.close().unwrap();
        start.set_size(*from.max(to)).unwrap();
        let recorder = Recorder::new();
        let disk = recorder.disk(0, (*start).clone());
        fat::resize(disk.clone(), *to).unwrap();
        let mut number = 0;
        let log = recorder.log();
        // Of long epochs, not every state: enough of each.
        let visited = crash_states(&[(*start).clone()], &log, limits, &mut |state| {
            number += 1;
            if number % (1 + log.len() / 40) != 0 {
                return true;
            }
            let what = format!("{kind:?} {from} to {to}, state {}", state.name);
            let disk = Arc::new(state.files[0].clone());
            let ours = Fat::open(disk.clone(), true).unwrap_or_else(|e| panic!("{what}: {e}"));
            assert!(tree(&ours) == before, "{what}");
            let report = fat::check(disk).unwrap();
            let harmless = [
                "marked as in use",
                "belong to no file",
                "differs from",
                "FSInfo",
                "leads elsewhere",
            ];
            for finding in &report.findings {
                assert!(harmless.iter().any(|known| finding.contains(known)), "{what}: {finding}");
            }
            true
        });
        assert!(visited > 10, "{visited}");
        assert!(disk.size() >= *from.min(to));
    }
}
