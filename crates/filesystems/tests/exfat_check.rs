//! Damaged exFAT volumes: found where fsck.exfat finds something, and mended so that it is content.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::fs;
use std::path::Path;
use std::sync::Arc;

use common::changes::new;
use common::*;
use disksmith_disk::{Disk, MemoryDisk};
use disksmith_filesystems::fat::exfat::{self, Exfat, ExfatOptions};
use disksmith_filesystems::fat::{Lost, Mend, Tune};
use disksmith_filesystems::{Changes, FileKind, Filesystem, Rename};
use disksmith_testkit::Rng;

const CLUSTER: usize = 1024;

/// A volume with files in a few directories, some in one piece and some not.
fn filled() -> Vec<u8> {
    let disk = Arc::new(MemoryDisk::new(2 << 20));
    let options = ExfatOptions {
        cluster_size: Some(CLUSTER as u32),
        label: b"DAMAGED".to_vec(),
        ..ExfatOptions::default()
    };
    exfat::make(&*disk, &options).unwrap();
    let ours = Exfat::open(disk.clone(), false).unwrap();
    let mut folder = ours.root();
    for level in 0..3 {
        let name = |number: u64| format!("Some file {level}.{number}.txt");
        let made: Vec<u64> = (0..4)
            .map(|number| {
                ours.create(folder, name(number).as_bytes(), &new(FileKind::Regular)).unwrap().inode
            })
            .collect();
        // The first two grow in turns: they become chains.
        for step in 0..3 {
            for file in made.iter().take(2) {
                ours.write(*file, step * 1500, &Rng::new(step).bytes(1500)).unwrap();
            }
        }
        ours.write(made[2], 0, &Rng::new(7).bytes(5000)).unwrap();
        let name = format!("Folder {level}");
        folder = ours.create(folder, name.as_bytes(), &new(FileKind::Directory)).unwrap().inode;
    }
    ours.close().unwrap();
    disk.to_bytes()
}

fn theirs(image: &Path) -> (bool, String) {
    let output = try_run("fsck.exfat", &["-n", text(image)]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    let clean = output.status.success() && said.contains(": clean") && !said.contains("ERROR");
    (clean, said)
}

fn ours(image: &Path) -> Vec<String> {
    match exfat::check(FileDisk::open(image)) {
        Ok(report) => report.findings,
        Err(error) => vec![error.to_string()],
    }
}

struct Damage<'a>(&'a mut [u8]);

impl Damage<'_> {
    fn le(&self, at: usize, length: usize) -> usize {
        self.0[at..at + length].iter().rev().fold(0, |all, byte| all << 8 | usize::from(*byte))
    }

    fn put(&mut self, at: usize, value: u64, length: usize) {
        self.0[at..at + length].copy_from_slice(&value.to_le_bytes()[..length]);
    }

    fn heap(&self) -> usize {
        self.le(88, 4) * 512
    }

    fn cluster(&self, number: usize) -> usize {
        self.heap() + (number - 2) * CLUSTER
    }

    /// Where the set of a file begins.
    fn set(&self, name: &str) -> usize {
        let units: Vec<u8> = name.encode_utf16().take(15).flat_map(u16::to_le_bytes).collect();
        let heap = self.heap();
        let found = self.0[heap..]
            .chunks_exact(32)
            .position(|entry| entry[0] == 0xC1 && entry[2..].starts_with(&units));
        heap + (found.unwrap() - 2) * 32
    }

    fn start(&self, name: &str) -> usize {
        self.le(self.set(name) + 32 + 20, 4)
    }

    fn fat(&self, cluster: usize) -> usize {
        self.le(80, 4) * 512 + cluster * 4
    }

    /// Makes the checksum of a set right.
    fn seal(&mut self, set: usize) {
        let length = (usize::from(self.0[set + 1]) + 1) * 32;
        let sum = self.0[set..set + length]
            .iter()
            .enumerate()
            .filter(|(at, _)| *at != 2 && *at != 3)
            .fold(0_u16, |sum, (_, byte)| sum.rotate_right(1).wrapping_add((*byte).into()));
        self.put(set + 2, sum.into(), 2);
    }

    /// Changes a field of a file's stream entry.
    fn stream(&mut self, name: &str, at: usize, value: u64, length: usize) {
        let set = self.set(name);
        self.put(set + 32 + at, value, length);
        self.seal(set);
    }
}

type Breaker = fn(&mut Damage<'_>);

/// What it is, whether fsck.exfat 1.2.0 finds it too, and how it is done.
const DAMAGES: &[(&str, bool, Breaker)] = &[
    ("mark of use", false, |d| d.0[106] |= 2),
    ("boot checksum", true, |d| d.put(512 * 11, 0x1234_5678, 4)),
    ("boot code", true, |d| d.0[130] ^= 0xFF),
    ("backup of the boot sectors", false, |d| d.0[12 * 512 + 130] ^= 0xFF),
    ("lost cluster", false, |d| {
        let heap = d.heap();
        d.0[heap + 100] |= 0x18;
    }),
    ("cluster marked as free", true, |d| {
        let (heap, bit) = (d.heap(), d.start("Some file 0.2.txt") - 2);
        d.0[heap + bit / 8] &= !(1 << (bit % 8));
    }),
    ("checksum of a set", true, |d| {
        let set = d.set("Some file 1.0.txt");
        d.0[set + 2] ^= 0x55;
    }),
    ("name hash", false, |d| d.stream("Some file 1.1.txt", 4, 0x1234, 2)),
    ("start outside", true, |d| d.stream("Some file 0.0.txt", 20, 0x00FF_FFFF, 4)),
    ("valid beyond the size", true, |d| d.stream("Some file 0.0.txt", 8, 9000, 8)),
    ("size beyond the chain", true, |d| {
        d.stream("Some file 0.0.txt", 24, 90_000, 8);
    }),
    ("chain beyond the size", true, |d| {
        d.stream("Some file 0.0.txt", 8, 900, 8);
        d.stream("Some file 0.0.txt", 24, 900, 8);
    }),
    ("circle", true, |d| {
        let start = d.start("Some file 1.0.txt");
        let at = d.fat(start);
        d.put(at, start as u64, 4);
    }),
    ("chain to nowhere", true, |d| {
        let at = d.fat(d.start("Some file 1.0.txt"));
        d.put(at, 0x00FF_0000, 4);
    }),
    ("root directory in a circle", true, |d| {
        let root = d.le(96, 4);
        let at = d.fat(root);
        d.put(at, root as u64, 4);
    }),
    ("root directory to nowhere", true, |d| {
        let at = d.fat(d.le(96, 4));
        d.put(at, 0x00FF_0000, 4);
    }),
    ("crossed files", true, |d| {
        let other = d.fat(d.start("Some file 0.1.txt"));
        let next = d.le(other, 4);
        let at = d.fat(d.start("Some file 0.0.txt"));
        d.put(at, next as u64, 4);
    }),
    ("two names for one file", true, |d| {
        let start = d.start("Some file 0.2.txt");
        d.stream("Some file 0.3.txt", 20, start as u64, 4);
        d.stream("Some file 0.3.txt", 24, 700, 8);
        d.stream("Some file 0.3.txt", 8, 700, 8);
        d.stream("Some file 0.3.txt", 1, 3, 1);
    }),
    ("directory of a strange length", true, |d| {
        let set = d.set("Folder 0");
        d.put(set + 32 + 24, 700, 8);
        d.seal(set);
    }),
    ("set without its name", true, |d| {
        let set = d.set("Some file 2.0.txt");
        d.0[set + 64] = 0x41;
    }),
    ("name without its set", true, |d| {
        let set = d.set("Some file 2.0.txt");
        d.0[set] = 0x05;
    }),
    ("up-case table", true, |d| {
        let root = d.cluster(d.le(96, 4));
        let at = d.cluster(d.le(root + 64 + 20, 4)) + 200;
        d.0[at] ^= 0x20;
    }),
    ("same name twice", false, |d| {
        let (one, two) = (d.set("Some file 0.0.txt"), d.set("Some file 0.1.txt"));
        let names = d.0[one + 64..one + 128].to_vec();
        d.0[two + 64..two + 128].copy_from_slice(&names);
        let hash = d.le(one + 36, 2);
        d.put(two + 36, hash as u64, 2);
        d.seal(two);
    }),
];

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
