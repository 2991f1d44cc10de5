//! FAT volumes of another length: clean for fsck.fat, every file as it was.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use common::changes::{fill, new};
use common::*;
use disksmith_disk::{Disk, MemoryDisk};
use disksmith_filesystems::fat::{self, Fat, FatKind, FatOptions};
use disksmith_filesystems::{FileKind, Filesystem};

const MIB: u64 = 1 << 20;

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
