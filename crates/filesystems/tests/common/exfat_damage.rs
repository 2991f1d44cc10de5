//! A filled exFAT volume, the ways to damage it, and what fsck.exfat says.

use std::path::Path;
use std::sync::Arc;

use disksmith_disk::MemoryDisk;
use disksmith_filesystems::fat::exfat::{self, Exfat, ExfatOptions};
use disksmith_filesystems::{FileKind, Filesystem};
use disksmith_testkit::Rng;

use super::changes::new;
use super::{text, try_run};

pub(crate) const CLUSTER: usize = 1024;

/// A volume with files in a few directories, some in one piece and some not.
pub(crate) fn filled() -> Vec<u8> {
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

/// Whether fsck.exfat is content, and what it says.
pub(crate) fn theirs(image: &Path) -> (bool, String) {
    let output = try_run("fsck.exfat", &["-n", text(image)]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    let clean = output.status.success() && said.contains(": clean") && !said.contains("ERROR");
    (clean, said)
}

pub(crate) struct Damage<'a>(pub(crate) &'a mut [u8]);

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

    pub(crate) fn start(&self, name: &str) -> usize {
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
    pub(crate) fn stream(&mut self, name: &str, at: usize, value: u64, length: usize) {
        let set = self.set(name);
        self.put(set + 32 + at, value, length);
        self.seal(set);
    }
}

pub(crate) type Breaker = fn(&mut Damage<'_>);

/// What it is, whether fsck.exfat 1.2.0 finds it too, and how it is done.
pub(crate) const DAMAGES: &[(&str, bool, Breaker)] = &[
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
    ("bitmap of another length", false, |d| {
        let bitmap = d.cluster(d.le(96, 4)) + 32;
        let size = d.le(bitmap + 24, 8) as u64;
        d.put(bitmap + 24, size + 8, 8);
    }),
    ("bitmap with a cluster too many", false, |d| {
        let start = d.le(d.cluster(d.le(96, 4)) + 32 + 20, 4);
        let (at, free) = (d.fat(start), d.fat(1500));
        d.put(at, 1500, 4);
        d.put(free, 0xFFFF_FFFF, 4);
    }),
    ("empty file with a cluster", false, |d| d.stream("Some file 0.3.txt", 20, 1500, 4)),
    ("directory outside", false, |d| d.stream("Folder 2", 20, 0x00FF_FFFF, 4)),
    ("chain of a bad cluster", false, |d| {
        let at = d.fat(d.start("Some file 1.0.txt"));
        d.put(at, 0xFFFF_FFF7, 4);
    }),
    ("chain to a free cluster", false, |d| {
        let at = d.fat(d.start("Some file 1.0.txt"));
        d.put(at, 1500, 4);
    }),
    ("name with a bad character", false, |d| {
        let set = d.set("Some file 2.1.txt");
        d.0[set + 64 + 2] = b'*';
        d.seal(set);
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
