//! Damaged exFAT volumes: found where fsck.exfat finds something, and mended so that it is content.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::fs;
use std::path::Path;
use std::sync::Arc;

use common::changes::new;
use common::exfat_damage::{DAMAGES, Damage, filled, theirs};
use common::*;
use disksmith_disk::{Disk, MemoryDisk};
use disksmith_filesystems::fat::exfat::{self, Exfat};
use disksmith_filesystems::fat::{Lost, Mend, Tune};
use disksmith_filesystems::{Changes, FileKind, Filesystem, Rename};
use disksmith_testkit::Rng;

fn ours(image: &Path) -> Vec<String> {
    match exfat::check(FileDisk::open(image)) {
        Ok(report) => report.findings,
        Err(error) => vec![error.to_string()],
    }
}

#[test]
fn each_damage_is_found_and_mended() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("image");
    let sound = filled();
    fs::write(&image, &sound).unwrap();
    assert_eq!(ours(&image), [""; 0]);
    assert!(theirs(&image).0, "{}", theirs(&image).1);
    for (what, known, damage) in DAMAGES {
        let mut bytes = sound.clone();
        damage(&mut Damage(&mut bytes));
        assert!(bytes != sound, "{what}: nothing was damaged");
        fs::write(&image, &bytes).unwrap();
        let (clean, said) = theirs(&image);
        assert!(!known || !clean, "{what}: fsck.exfat finds nothing: {said}");
        assert!(!ours(&image).is_empty(), "{what}: we find nothing; fsck.exfat: {said}");
        let report = exfat::repair(FileDisk::open(&image), Mend::All(Lost::Keep)).unwrap();
        assert!(report.changed(), "{what}");
        let again = ours(&image);
        assert!(again.is_empty(), "{what}: we still find {again:#?}, after {report:#?}");
        let (clean, said) = theirs(&image);
        assert!(clean, "{what}: fsck.exfat: {said}\nafter {:#?}", report.found);
    }
}

#[test]
fn several_damages_at_once_are_mended() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("image");
    let sound = filled();
    let mut rng = Rng::new(11);
    for round in 0..if long() { 400 } else { 40 } {
        let mut bytes = sound.clone();
        let mut done = Vec::new();
        for _ in 0..2 + rng.below(3) {
            let (what, _, damage) = rng.pick(DAMAGES);
            // One damage may hide what another one looks for.
            let mut next = bytes.clone();
            let tried = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                damage(&mut Damage(&mut next));
            }));
            if tried.is_ok() {
                bytes = next;
                done.push(*what);
            }
        }
        fs::write(&image, &bytes).unwrap();
        let report = exfat::repair(FileDisk::open(&image), Mend::All(Lost::Free)).unwrap();
        let again = ours(&image);
        assert!(again.is_empty(), "{round} {done:?}: {again:#?}, after {report:#?}");
        let (clean, said) = theirs(&image);
        assert!(clean, "{round} {done:?}: fsck.exfat: {said}\nafter {:#?}", report.found);
    }
}

#[test]
fn a_boot_region_comes_back_from_its_backup() {
    let sound = filled();
    let disk = Arc::new(MemoryDisk::from_bytes(&sound));
    disk.write_at(&[0; 512 * 12], 0).unwrap();
    assert!(Exfat::open(disk.clone(), true).is_err());
    let report = exfat::repair(disk.clone(), Mend::All(Lost::Keep)).unwrap();
    assert!(report.found[0].contains("backup"), "{report:?}");
    assert!(exfat::check(disk.clone()).unwrap().findings.is_empty());
    let again = disk.to_bytes();
    assert!(again[..106] == sound[..106] && again[120..] == sound[120..]);
}

/// As a power cut leaves a file that grew and was moved, under both names.
#[test]
fn another_name_of_less_length_leaves_a_file_whole() {
    let read = |bytes: &[u8], names: &[&str]| -> Vec<Vec<u8>> {
        let ours = Exfat::open(Arc::new(MemoryDisk::from_bytes(bytes)), true).unwrap();
        let content = |name: &&str| {
            let found = ours.lookup(ours.root(), name.as_bytes()).unwrap();
            let mut bytes = vec![0; found.size as usize];
            assert_eq!(ours.read(found.inode, 0, &mut bytes).unwrap(), bytes.len(), "{name}");
            bytes
        };
        names.iter().map(content).collect()
    };
    let sound = filled();
    let mut bytes = sound.clone();
    let mut damage = Damage(&mut bytes);
    let (file, other) = ("Some file 0.0.txt", "Some file 0.3.txt");
    let start = damage.start(file) as u64;
    for (at, value, length) in [(1, 1, 1), (8, 700, 8), (20, start, 4), (24, 700, 8)] {
        damage.stream(other, at, value, length);
    }
    let [less, whole] = &read(&bytes, &[other, file])[..] else { panic!() };
    assert_eq!(*whole, read(&sound, &[file])[0]);
    assert_eq!(*less, whole[..700]);
}

#[test]
fn safe_repairs_touch_marks_and_copies_only() {
    let sound = filled();
    let mut bytes = sound.clone();
    bytes[106] |= 2;
    bytes[12 * 512 + 130] ^= 0xFF;
    let disk = Arc::new(MemoryDisk::from_bytes(&bytes));
    let report = exfat::repair(disk.clone(), Mend::Safe).unwrap();
    assert_eq!((report.mended, report.last.count), (2, 0), "{report:?}");
    assert!(disk.to_bytes() == sound);
    // A wrong checksum is a matter of doubt, and the backup must not become as wrong.
    bytes = sound.clone();
    bytes[130] ^= 0xFF;
    let disk = Arc::new(MemoryDisk::from_bytes(&bytes));
    let report = exfat::repair(disk.clone(), Mend::Safe).unwrap();
    assert!(report.last.count > 0);
    assert!(disk.to_bytes()[12 * 512..24 * 512] == sound[12 * 512..24 * 512]);
}

fn use_all(disk: &Arc<MemoryDisk>) {
    if let Ok(ours) = Exfat::open(disk.clone(), false) {
        let root = ours.root();
        let mut inside = vec![root];
        let _ = ours.read_directory(root, 0, &mut |entry| {
            inside.push(entry.inode);
            inside.len() < 300
        });
        for inode in inside {
            let mut bytes = [0; 3000];
            let _ = ours.read(inode, 0, &mut bytes);
            let _ = ours.write(inode, 2000, &bytes);
            let _ = ours.read_directory(inode, 0, &mut |_| true);
            let _ = ours.create(inode, b"a new one", &new(FileKind::Regular));
            let changes = Changes { size: Some(3), ..Changes::default() };
            let _ = ours.set_attributes(inode, &changes);
        }
        let _ = ours.rename(root, b"Some file 0.0.txt", root, b"x", Rename::Replace);
        let _ = ours.unlink(root, b"Some file 0.1.txt");
        let _ = ours.sync();
        let _ = ours.remove_directory(root, b"Folder 0");
        let _ = ours.statistics();
        let _ = ours.close();
    }
    let _ = exfat::check(disk.clone());
    let _ = exfat::repair(disk.clone(), Mend::All(Lost::Keep));
    let tune = Tune { label: Some(b"x".to_vec()), serial: Some(1), time: None };
    let _ = exfat::tune(disk.clone(), &tune);
    let _ = exfat::used_ranges(disk.clone());
}

#[test]
fn changed_bytes_do_no_harm_to_us() {
    let rounds = if long() { 10_000 } else { 150 };
    let sound = filled();
    let heap = u64::from(u32::from_le_bytes(sound[88..92].try_into().unwrap())) * 512;
    let fat = u64::from(u32::from_le_bytes(sound[80..84].try_into().unwrap())) * 512;
    let mut rng = Rng::new(23);
    for _ in 0..rounds {
        let disk = Arc::new(MemoryDisk::from_bytes(&sound));
        for _ in 0..1 + rng.below(12) {
            let places = [
                64 + rng.below(60),
                fat + rng.below(400),
                heap + rng.below(400),
                heap + rng.below(60_000),
            ];
            let at = *rng.pick(&places);
            let any = rng.below(256) as u8;
            let byte = *rng.pick(&[0, 1, 0xFF, 0x85, 0xC0, 0xC1, 0xE0, any]);
            disk.write_at(&[byte], at).unwrap();
        }
        use_all(&disk);
    }
}
