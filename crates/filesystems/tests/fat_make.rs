//! Volumes made by us, beside those of mkfs.fat: the same geometry, and clean for fsck.fat.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::fs;
use std::path::Path;
use std::sync::Arc;

use common::*;
use disksmith_disk::MemoryDisk;
use disksmith_filesystems::fat::{self, Fat, FatKind, FatOptions};
use disksmith_filesystems::{Filesystem, Time};

/// The options of mkfs.fat, and ours.
type Case = (&'static str, u64, fn(&mut FatOptions));

fn make(path: &Path, size: u64, change: fn(&mut FatOptions)) {
    let mut options = FatOptions {
        serial: Some(0x1234_ABCD),
        time: Some(Time::from_seconds(1_700_000_000)),
        ..FatOptions::default()
    };
    change(&mut options);
    fat::make(&*FileDisk::create(path, size), &options).unwrap();
}

/// All structures of an empty volume lie there.
fn beginning(image: &Path) -> Vec<u8> {
    use std::io::Read;
    let mut bytes = Vec::new();
    fs::File::open(image).unwrap().take(6 << 20).read_to_end(&mut bytes).unwrap();
    bytes
}

/// Everything that matters of two images, but for the program that boots.
fn assert_same(ours: &Path, theirs: &Path, what: &str) {
    assert_eq!(fs::metadata(ours).unwrap().len(), fs::metadata(theirs).unwrap().len());
    let (mut ours, mut theirs) = (beginning(ours), beginning(theirs));
    let sector = usize::from(u16::from_le_bytes([theirs[11], theirs[12]]));
    let fat32 = theirs[22..24] == [0, 0];
    let boots = if fat32 { vec![0, 6 * sector] } else { vec![0] };
    for boot in boots {
        let code = boot + if fat32 { 90 } else { 62 };
        assert!(
            ours[boot + 3..boot + 62] == theirs[boot + 3..boot + 62],
            "{what}: boot sector\n{:x?}\n{:x?}",
            &ours[boot..code],
            &theirs[boot..code]
        );
        for image in [&mut ours, &mut theirs] {
            image[code..boot + 510].fill(0);
        }
    }
    // mkfs.fat gives the label the time of the clock.
    for image in [&mut ours, &mut theirs] {
        if let Some(at) = image.windows(12).position(|bytes| bytes == b"LABEL      \x08") {
            image[at + 13..at + 26].fill(0);
        }
    }
    let differs = disksmith_disk::first_difference(&ours, &theirs);
    assert_eq!(differs, None, "{what}: the images differ");
}

#[test]
fn the_geometry_is_that_of_mkfs_fat() {
    const KIB: u64 = 1 << 10;
    const MIB: u64 = 1 << 20;
    let cases: &[Case] = &[
        ("", 64 * KIB, |_| {}),
        ("", 360 * KIB, |_| {}),
        ("", 720 * KIB, |_| {}),
        ("", 1200 * KIB, |_| {}),
        ("", 1440 * KIB, |_| {}),
        ("", 2880 * KIB, |_| {}),
        ("", MIB, |_| {}),
        ("", 2500 * KIB, |_| {}),
        ("", 4 * MIB, |_| {}),
        ("", 5 * MIB, |_| {}),
        ("", 8 * MIB, |_| {}),
        ("", 9 * MIB, |_| {}),
        ("", 33 * MIB, |_| {}),
        ("", 100 * MIB, |_| {}),
        ("", 129 * MIB, |_| {}),
        ("", 300 * MIB, |_| {}),
        ("", 511 * MIB, |_| {}),
        ("", 512 * MIB, |_| {}),
        ("-n LABEL", 64 * MIB, |o| o.label = b"LABEL".to_vec()),
        ("-n LABEL", 600 * MIB, |o| o.label = b"LABEL".to_vec()),
        ("-F12", 20 * MIB, |o| o.kind = Some(FatKind::Fat12)),
        ("-F12", 64 * MIB, |o| o.kind = Some(FatKind::Fat12)),
        ("-F16", 100 * MIB, |o| o.kind = Some(FatKind::Fat16)),
        ("-F16", 1024 * MIB, |o| o.kind = Some(FatKind::Fat16)),
        ("-F32", MIB, |o| o.kind = Some(FatKind::Fat32)),
        ("-F32", 34 * MIB, |o| o.kind = Some(FatKind::Fat32)),
        ("-F32", 64 * MIB, |o| o.kind = Some(FatKind::Fat32)),
        ("-F32", 261 * MIB, |o| o.kind = Some(FatKind::Fat32)),
        ("-S1024", 64 * MIB, |o| o.sector_size = Some(1024)),
        ("-S2048", 3 * MIB, |o| o.sector_size = Some(2048)),
        ("-S4096", 100 * MIB, |o| o.sector_size = Some(4096)),
        ("-s8", 100 * MIB, |o| o.cluster_size = Some(4096)),
        ("-f1", 64 * MIB, |o| o.fats = 1),
        ("-r112", 64 * MIB, |o| o.root_entries = Some(112)),
        ("-R3", 64 * MIB, |o| o.reserved_sectors = Some(3)),
        ("-R100", 600 * MIB, |o| o.reserved_sectors = Some(100)),
        ("-a", 64 * MIB, |o| o.align = false),
        ("-a", 600 * MIB, |o| o.align = false),
        ("-h2048", 64 * MIB, |o| o.hidden_sectors = 2048),
    ];
    let folder = tempfile::tempdir().unwrap();
    let (ours, theirs) = (folder.path().join("ours"), folder.path().join("theirs"));
    for (arguments, size, change) in cases {
        let what = format!("mkfs.fat {arguments}, {size} bytes");
        make(&ours, *size, *change);
        let _ = fs::remove_file(&theirs);
        fs::File::create(&theirs).unwrap().set_len(*size).unwrap();
        let arguments: Vec<&str> =
            arguments.split_whitespace().chain(["-i", "1234abcd", text(&theirs)]).collect();
        run("env", &[&["SOURCE_DATE_EPOCH=1700000000", "mkfs.fat"], &arguments[..]].concat());
        assert_same(&ours, &theirs, &what);
        run("fsck.fat", &["-n", text(&ours)]);
    }
}

#[test]
fn every_kind_and_size_is_clean() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("image");
    let mut made = 0;
    for kind in [None, Some(FatKind::Fat12), Some(FatKind::Fat16), Some(FatKind::Fat32)] {
        for sector_size in [512, 1024, 2048, 4096] {
            for cluster in [None, Some(1), Some(8), Some(128)] {
                for size in [300 << 10, (3 << 20) + 1536, 40 << 20, 700 << 20] {
                    let options = FatOptions {
                        kind,
                        sector_size: Some(sector_size),
                        cluster_size: cluster.map(|sectors| sectors * sector_size),
                        label: b"TEST 1".to_vec(),
                        ..FatOptions::default()
                    };
                    if fat::make(&*FileDisk::create(&image, size), &options).is_err() {
                        continue;
                    }
                    made += 1;
                    run("fsck.fat", &["-n", text(&image)]);
                    let ours = Fat::open(FileDisk::open(&image), true).unwrap();
                    assert_eq!(ours.label(), b"TEST 1");
                    assert_eq!(ours.uuid().len(), 9);
                    let numbers = ours.statistics().unwrap();
                    assert!(numbers.free == numbers.blocks || numbers.free + 1 == numbers.blocks);
                    let ranges = fat::used_ranges(FileDisk::open(&image)).unwrap();
                    assert_eq!(ranges.len(), 1, "{ranges:?}");
                }
            }
        }
    }
    assert!(made > 100, "only {made}");
}

#[test]
fn the_same_twice_under_a_given_time() {
    let images: Vec<Vec<u8>> = (0..2)
        .map(|_| {
            let disk = Arc::new(MemoryDisk::new(40 << 20));
            let options = FatOptions {
                time: Some(Time::from_seconds(1_700_000_000)),
                label: b"SAME".to_vec(),
                ..FatOptions::default()
            };
            fat::make(&*disk, &options).unwrap();
            disk.to_bytes()
        })
        .collect();
    assert!(images[0] == images[1]);
}

#[test]
fn what_is_impossible_is_refused() {
    let refused = |size: u64, change: fn(&mut FatOptions)| {
        let mut options = FatOptions::default();
        change(&mut options);
        fat::make(&MemoryDisk::new(size), &options).unwrap_err().to_string()
    };
    let large = 1 << 30;
    assert!(refused(large, |o| o.sector_size = Some(300)).contains("300"));
    assert!(refused(large, |o| o.cluster_size = Some(3000)).contains("3000"));
    assert!(refused(large, |o| o.fats = 7).contains('7'));
    assert!(refused(large, |o| o.label = b"much too long".to_vec()).contains("11"));
    assert!(refused(large, |o| o.label = b"a:b".to_vec()).contains("a:b"));
    assert!(refused(100, |_| {}).contains("100") || refused(100, |_| {}).contains("0 bytes"));
    assert!(refused(1 << 20, |o| o.kind = Some(FatKind::Fat16)).contains("FAT16"));
    assert!(refused(1 << 44, |_| {}).contains("sectors"));
    let disk = MemoryDisk::new(large);
    assert!(disk.allocated() == 0);
}

#[test]
fn label_and_serial_number_are_changed_everywhere() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("image");
    for size in [1440 << 10, 20 << 20, 600 << 20] {
        fat::make(&*FileDisk::create(&image, size), &FatOptions::default()).unwrap();
        for label in ["FIRST", "SECOND ONE", ""] {
            let changes = fat::Tune {
                label: Some(label.into()),
                serial: Some(0xABCD_0123),
                ..fat::Tune::default()
            };
            fat::tune(FileDisk::open(&image), &changes).unwrap();
            let said = run("fsck.fat", &["-n", text(&image)]);
            assert_eq!(said.lines().count(), 2, "{said}");
            let shown = run("fatlabel", &[text(&image)]);
            assert_eq!(shown.trim(), label);
            assert!(run("fatlabel", &["-i", text(&image)]).contains("abcd0123"));
            let ours = Fat::open(FileDisk::open(&image), true).unwrap();
            assert_eq!((ours.label(), ours.uuid()), (label.into(), "ABCD-0123".to_string()));
        }
    }
    let long = fat::Tune { label: Some(b"twelve bytes".to_vec()), ..fat::Tune::default() };
    assert!(fat::tune(FileDisk::open(&image), &long).is_err());
}
