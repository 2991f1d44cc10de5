//! Changes to exFAT volumes, held against a model in memory and fsck.exfat.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use common::changes::{Work, new, walk};
use common::*;
use disksmith_disk::MemoryDisk;
use disksmith_filesystems::fat::exfat::{self, Exfat, ExfatOptions};
use disksmith_filesystems::{Changes, Fallocate, FileKind, Filesystem, Rename, Time, errno};
use disksmith_testkit::Rng;

/// `fsck.exfat -n` finds nothing at all.
fn assert_clean_exfat(image: &Path, what: &str) {
    let output = try_run("fsck.exfat", &["-n", text(image)]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{what}: fsck.exfat: {}\n{said}", output.status);
    let last = said.lines().find(|line| line.starts_with(text(image))).unwrap_or("");
    assert!(last.contains(": clean"), "{what}: fsck.exfat: {said}");
    let report = exfat::check(FileDisk::open(image)).unwrap();
    assert!(report.findings.is_empty(), "{what}: our check: {:#?}", report.findings);
    for word in ["ERROR", "WARN", "rror:", "orrupt"] {
        assert!(!said.contains(word), "{what}: fsck.exfat: {said}");
    }
}

fn make(image: &Path, size: u64, sector: u32, cluster: u32) {
    let options = ExfatOptions {
        sector_size: Some(sector),
        cluster_size: Some(cluster),
        ..ExfatOptions::default()
    };
    exfat::make(&*FileDisk::create(image, size), &options).unwrap();
}

#[test]
fn random_changes_do_what_a_model_does() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("image");
    let rounds = if long() { 60 } else { 10 };
    let shapes = [
        (6 << 20, 512, 512),
        (20 << 20, 512, 4096),
        (40 << 20, 4096, 4096),
        (20 << 20, 512, 1024),
        (40 << 20, 512, 32_768),
    ];
    for round in 0..rounds {
        let (size, sector, cluster) = shapes[round % shapes.len()];
        make(&image, size, sector, cluster);
        let mut model = BTreeMap::new();
        for session in 0..2 {
            let ours = Exfat::open(FileDisk::open(&image), false).unwrap();
            let seed = (round * 10 + session) as u64;
            let mut work = Work { ours: &ours, rng: Rng::new(seed), model };
            for _ in 0..500 {
                work.step();
            }
            let what = format!("round {round}.{session} ({sector}, {cluster})");
            assert_eq!(
                walk(&ours).keys().collect::<Vec<_>>(),
                work.tree().keys().collect::<Vec<_>>(),
                "{what}"
            );
            assert!(walk(&ours) == work.tree(), "{what}: content");
            ours.close().unwrap();
            model = work.model;
            assert_clean_exfat(&image, &what);
            let again = Exfat::open(FileDisk::open(&image), true).unwrap();
            assert!(!again.is_dirty(), "{what}");
            let tree: BTreeMap<_, _> = model.values().cloned().collect();
            assert!(walk(&again) == tree, "{what}: read again");
        }
    }
}

#[test]
fn what_mkfs_exfat_made_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("image");
    for (size, arguments) in [
        (8 << 20, vec!["-L", "theirs"]),
        (64 << 20, vec!["-c", "64K"]),
        (300 << 20, vec!["--pack-bitmap"]),
    ] {
        FileDisk::create(&image, size);
        let mut all = arguments.clone();
        all.push(text(&image));
        run("mkfs.exfat", &all);
        let ours = Exfat::open(FileDisk::open(&image), false).unwrap();
        let mut work = Work { ours: &ours, rng: Rng::new(size), model: BTreeMap::new() };
        for _ in 0..300 {
            work.step();
        }
        ours.close().unwrap();
        let tree = work.tree();
        assert_clean_exfat(&image, &format!("{arguments:?}"));
        let again = Exfat::open(FileDisk::open(&image), true).unwrap();
        assert!(walk(&again) == tree, "{arguments:?}");
    }
}

#[test]
fn what_exfat_has_not_is_refused_by_name() {
    let disk = Arc::new(MemoryDisk::new(8 << 20));
    exfat::make(&*disk, &ExfatOptions::default()).unwrap();
    let ours = Exfat::open(disk.clone(), false).unwrap();
    let root = ours.root();
    let said = |result: disksmith_disk::Result<_>| result.map(drop).unwrap_err().to_string();
    assert!(said(ours.symlink(root, b"l", b"x", 0, 0)).contains("symbolic links"));
    for kind in [FileKind::BlockDevice, FileKind::CharDevice] {
        assert!(said(ours.create(root, b"l", &new(kind))).contains("device"));
    }
    assert!(said(ours.create(root, b"l", &new(FileKind::Fifo))).contains("pipes"));
    let file = ours.create(root, b"f", &new(FileKind::Regular)).unwrap();
    assert!(said(ours.link(file.inode, root, b"g")).contains("hard links"));
    let xattr = ours.set_xattr(file.inode, b"user.x", b"y", None).unwrap_err();
    assert!(xattr.to_string().contains("extended"));
    let owner = Changes { uid: Some(1000), ..Changes::default() };
    assert!(said(ours.set_attributes(file.inode, &owner)).contains("owners"));
    for name in ["a:b", "a?", "a.", "a\n"] {
        assert!(said(ours.create(root, name.as_bytes(), &new(FileKind::Regular))).contains("name"));
    }
    let read_only = Changes { mode: Some(0o444), ..Changes::default() };
    assert_eq!(ours.set_attributes(file.inode, &read_only).unwrap().mode, 0o555);
    assert_eq!(ours.dos_attributes(file.inode).unwrap(), 0x21);
    ours.set_dos_attributes(file.inode, 0x06).unwrap();
    assert_eq!(ours.dos_attributes(file.inode).unwrap(), 0x06);
}

#[test]
fn a_full_volume_says_so_and_is_whole_afterwards() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("image");
    make(&image, 8 << 20, 512, 4096);
    let ours = Exfat::open(FileDisk::open(&image), false).unwrap();
    let root = ours.root();
    let file = ours.create(root, b"f", &new(FileKind::Regular)).unwrap();
    let error = ours.write(file.inode, 0, &vec![1; 9 << 20]).unwrap_err();
    assert_eq!(errno(&error), 28);
    assert_eq!(ours.attributes(file.inode).unwrap().size, 0);
    let free = ours.statistics().unwrap().free;
    let size = ours.statistics().unwrap().block_size as usize * free as usize;
    ours.write(file.inode, 0, &vec![1; size]).unwrap();
    assert_eq!(ours.statistics().unwrap().free, 0);
    ours.sync().unwrap();
    assert_clean_exfat(&image, "full");
    let percent = || std::fs::read(&image).unwrap()[112];
    assert_eq!(percent(), 100, "PercentInUse");
    ours.unlink(root, b"F").unwrap();
    // What the transaction frees can be used.
    let file = ours.create(root, b"g", &new(FileKind::Regular)).unwrap();
    ours.write(file.inode, 0, &vec![2; size]).unwrap();
    // An open file lives on without its name.
    ours.hold(file.inode);
    ours.unlink(root, b"g").unwrap();
    let mut byte = [0];
    ours.read(file.inode, 5, &mut byte).unwrap();
    assert_eq!(byte, [2]);
    ours.sync().unwrap();
    assert!(ours.is_dirty(), "with clusters that a cut would lose");
    ours.release(file.inode, 1).unwrap();
    ours.close().unwrap();
    assert!(!ours.is_dirty());
    let again = Exfat::open(FileDisk::open(&image), true).unwrap();
    assert_eq!(again.statistics().unwrap().free, free);
    assert_clean_exfat(&image, "emptied");
    assert!(percent() < 5, "PercentInUse: {}", percent());
}

#[test]
fn what_was_never_written_reads_as_zero_and_is_not_stored() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("image");
    make(&image, 8 << 20, 512, 4096);
    let ours = Exfat::open(FileDisk::open(&image), false).unwrap();
    let root = ours.root();
    let file = ours.create(root, b"sparse", &new(FileKind::Regular)).unwrap().inode;
    // What the clusters had before must not show.
    let old = ours.create(root, b"old", &new(FileKind::Regular)).unwrap().inode;
    ours.write(old, 0, &vec![0xAA; 2 << 20]).unwrap();
    ours.unlink(root, b"old").unwrap();
    ours.sync().unwrap();
    let lengths = |ours: &Exfat| {
        ours.sync().unwrap();
        let bytes = std::fs::read(&image).unwrap();
        let set = bytes.windows(2).step_by(32).rposition(|two| two == [0x85, 2]).unwrap() * 32;
        let le = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
        (le(set + 40), le(set + 56))
    };
    ours.write(file, 0, b"begin").unwrap();
    let longer = Changes { size: Some(1 << 20), ..Changes::default() };
    ours.set_attributes(file, &longer).unwrap();
    assert_eq!(lengths(&ours), (5, 1 << 20));
    let mut bytes = vec![1; 1 << 20];
    assert_eq!(ours.read(file, 0, &mut bytes).unwrap(), 1 << 20);
    assert!(bytes.starts_with(b"begin") && bytes[5..].iter().all(|byte| *byte == 0));
    ours.write(file, 500_000, b"middle").unwrap();
    assert_eq!(lengths(&ours), (500_006, 1 << 20));
    ours.read(file, 0, &mut bytes).unwrap();
    assert!(bytes[5..500_000].iter().all(|byte| *byte == 0));
    assert!(bytes[500_006..].iter().all(|byte| *byte == 0));
    let zero = Fallocate::ZeroRange { keep_size: true };
    ours.fallocate(file, 2, 2, zero).unwrap();
    ours.read(file, 0, &mut bytes[..5]).unwrap();
    assert_eq!(&bytes[..5], b"be\0\0n");
    ours.close().unwrap();
    assert_clean_exfat(&image, "sparse");
}

#[test]
fn names_times_and_moves() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("image");
    make(&image, 8 << 20, 512, 4096);
    let ours = Exfat::open(FileDisk::open(&image), false).unwrap();
    let root = ours.root();
    let longest = "ż".repeat(254) + "x";
    let outside = "👍".repeat(127);
    for name in [&longest[..], &outside, "..a", "Straße", "ÅÄÖ", "日本語", "a b.c d"] {
        ours.create(root, name.as_bytes(), &new(FileKind::Regular)).unwrap();
    }
    let error = ours.create(root, "y".repeat(256).as_bytes(), &new(FileKind::Regular));
    assert_eq!(errno(&error.unwrap_err()), 36);
    let error = ours.create(root, "åäö".as_bytes(), &new(FileKind::Regular));
    assert_eq!(errno(&error.unwrap_err()), 17);
    ours.rename(root, "ÅÄÖ".as_bytes(), root, "Åäö".as_bytes(), Rename::Replace).unwrap();
    let upper = longest.to_uppercase();
    ours.rename(root, longest.as_bytes(), root, upper.as_bytes(), Rename::NoReplace).unwrap();
    let inner = ours.create(root, b"outer", &new(FileKind::Directory)).unwrap().inode;
    let inner = ours.create(inner, b"inner", &new(FileKind::Directory)).unwrap().inode;
    let error = ours.rename(root, b"outer", inner, b"x", Rename::Replace).unwrap_err();
    assert_eq!(errno(&error), 22);
    let time = Time { seconds: 1_600_000_001, nanoseconds: 230_000_000 };
    let times = Changes {
        created: Some(time),
        modified: Some(time),
        accessed: Some(time),
        ..Changes::default()
    };
    ours.set_attributes(inner, &times).unwrap();
    ours.close().unwrap();
    assert_clean_exfat(&image, "names");
    let again = Exfat::open(FileDisk::open(&image), true).unwrap();
    let names: Vec<String> = walk(&again).into_keys().collect();
    for name in [&upper[..], "Åäö", "Straße", "outer/inner/", &outside] {
        assert!(names.iter().any(|there| there == name), "{name}: {names:?}");
    }
    let outer = again.lookup(root, b"OUTER").unwrap().inode;
    let at = again.lookup(outer, b"inner").unwrap();
    assert_eq!((at.created, at.modified), (Some(time), time));
    // That of an access has steps of two seconds only.
    assert_eq!(at.accessed, Time::from_seconds(1_600_000_000));
}

#[test]
fn large_directories_take_linear_time() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("image");
    make(&image, 64 << 20, 512, 4096);
    let ours = Exfat::open(FileDisk::open(&image), false).unwrap();
    let inside = ours.create(ours.root(), b"folder", &new(FileKind::Directory)).unwrap().inode;
    let name = |number: u32| format!("some long name of the file {number}");
    for number in 0..15_000 {
        ours.create(inside, name(number).as_bytes(), &new(FileKind::Regular)).unwrap();
    }
    for number in (0..15_000).rev() {
        ours.lookup(inside, name(number).to_uppercase().as_bytes()).unwrap();
    }
    for number in (0..15_000).step_by(3) {
        ours.unlink(inside, name(number).as_bytes()).unwrap();
    }
    ours.close().unwrap();
    assert_clean_exfat(&image, "a large directory");
    let again = Exfat::open(FileDisk::open(&image), true).unwrap();
    assert_eq!(walk(&again).len(), 10_001);
}

#[test]
fn many_threads_use_one_volume() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("image");
    make(&image, 40 << 20, 512, 4096);
    let ours = Exfat::open(FileDisk::open(&image), false).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4_u64 {
            let ours = &ours;
            scope.spawn(move || {
                let own = format!("thread {thread}");
                let root = ours.root();
                let inside =
                    ours.create(root, own.as_bytes(), &new(FileKind::Directory)).unwrap().inode;
                for number in 0..60 {
                    let name = format!("file {number}");
                    let file =
                        ours.create(inside, name.as_bytes(), &new(FileKind::Regular)).unwrap();
                    let data = Rng::new(thread * 100 + number).bytes(9000);
                    ours.write(file.inode, 0, &data).unwrap();
                    let mut seen = vec![0; 9000];
                    ours.read(file.inode, 0, &mut seen).unwrap();
                    assert!(seen == data);
                    if number % 7 == 0 {
                        ours.unlink(inside, name.as_bytes()).unwrap();
                    }
                    if number % 20 == 0 {
                        ours.fsync(file.inode).unwrap();
                    }
                }
            });
        }
    });
    ours.close().unwrap();
    assert_clean_exfat(&image, "threads");
    let again = Exfat::open(FileDisk::open(&image), true).unwrap();
    assert_eq!(walk(&again).len(), 4 + 4 * 51);
}
