//! A filled FAT volume, the ways to damage it, and what fsck.fat says.

use std::path::Path;
use std::sync::Arc;

use disksmith_disk::MemoryDisk;
use disksmith_filesystems::fat::{self, Fat, FatKind, FatOptions};
use disksmith_filesystems::{FileKind, Filesystem};
use disksmith_testkit::Rng;

use super::changes::new;
use super::{text, try_run};

pub(crate) const KINDS: [FatKind; 3] = [FatKind::Fat12, FatKind::Fat16, FatKind::Fat32];

/// A volume with a few files in a few directories.
pub(crate) fn filled(kind: FatKind, size: u64, cluster: u32) -> Vec<u8> {
    let disk = Arc::new(MemoryDisk::new(size));
    let options = FatOptions {
        kind: Some(kind),
        cluster_size: Some(cluster),
        label: b"DAMAGED".to_vec(),
        ..FatOptions::default()
    };
    fat::make(&*disk, &options).unwrap();
    let ours = Fat::open(disk.clone(), false).unwrap();
    let mut folder = ours.root();
    for level in 0..3 {
        let put = |name: &str, seed: u64, length: u64| {
            let file = ours.create(folder, name.as_bytes(), &new(FileKind::Regular)).unwrap();
            ours.write(file.inode, 0, &Rng::new(seed).bytes(length as usize)).unwrap();
        };
        for number in 0..4 {
            let name = format!("Some file {number}.txt");
            put(&name, 10 * level + number, 5000 * (number + level));
        }
        // With it, each directory has entries in two sectors.
        let name = if level == 0 { "Another one.bin" } else { "Another.bin" };
        put(name, 10 * level + 9, 700);
        let name = format!("FOLDER{level}");
        folder = ours.create(folder, name.as_bytes(), &new(FileKind::Directory)).unwrap().inode;
    }
    ours.close().unwrap();
    disk.to_bytes()
}

/// Whether fsck.fat finds nothing at all, and what it says.
pub(crate) fn theirs(image: &Path) -> (bool, String) {
    let output = try_run("fsck.fat", &["-n", text(image)]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    (output.status.success() && said.lines().count() == 2, said)
}

pub(crate) struct Damage<'a> {
    pub(crate) bytes: &'a mut [u8],
    pub(crate) kind: FatKind,
}

impl Damage<'_> {
    pub(crate) fn le(&self, at: usize, length: usize) -> usize {
        self.bytes[at..at + length].iter().rev().fold(0, |all, byte| all << 8 | usize::from(*byte))
    }

    fn fat(&self) -> usize {
        self.le(14, 2) * 512
    }

    fn fat_length(&self) -> usize {
        (if self.kind == FatKind::Fat32 { self.le(36, 4) } else { self.le(22, 2) }) * 512
    }

    fn data(&self) -> usize {
        self.fat() + 2 * self.fat_length() + self.le(17, 2) * 32
    }

    fn cluster(&self, number: usize) -> usize {
        self.data() + (number - 2) * self.le(13, 1) * 512
    }

    /// The entry of a file: its place.
    pub(crate) fn entry(&self, name: &[u8; 11]) -> usize {
        let data = self.fat() + 2 * self.fat_length();
        data + self.bytes[data..].windows(11).step_by(32).position(|at| at == name).unwrap() * 32
    }

    /// The entry of a file in the first cluster of a directory: its place.
    fn inside(&self, folder: usize, name: &[u8; 11]) -> usize {
        let at = self.cluster(self.start(folder));
        at + self.bytes[at..].windows(11).step_by(32).position(|at| at == name).unwrap() * 32
    }

    fn start(&self, entry: usize) -> usize {
        self.le(entry + 26, 2)
    }

    /// A number that is none of a cluster.
    fn nowhere(&self) -> usize {
        if self.kind == FatKind::Fat12 { 0xEEE } else { 0xEEEE }
    }

    /// Puts an entry into the directory that has no other yet.
    fn put_entry(&mut self, name: &[u8; 11], attributes: u8) {
        let at = self.cluster(self.start(self.entry(FOLDER2))) + 64;
        self.bytes[at..at + 32].fill(0);
        self.bytes[at..at + 11].copy_from_slice(name);
        self.bytes[at + 11] = attributes;
    }

    /// Lets an entry lie in the place of another one.
    fn move_entry(&mut self, from: usize, to: usize, left: u8) {
        self.bytes.copy_within(from..from + 32, to);
        self.bytes[from..from + 32].fill(0);
        self.bytes[from] = left;
    }

    /// Sets the entry of a cluster, in both FATs.
    fn link(&mut self, cluster: usize, value: usize) {
        for copy in 0..2 {
            let fat = self.fat() + copy * self.fat_length();
            match self.kind {
                FatKind::Fat12 => {
                    let at = fat + cluster * 3 / 2;
                    let old = self.le(at, 2);
                    let new = if cluster.is_multiple_of(2) {
                        old & 0xF000 | value & 0xFFF
                    } else {
                        old & 0xF | (value & 0xFFF) << 4
                    };
                    self.bytes[at..at + 2].copy_from_slice(&(new as u16).to_le_bytes());
                }
                FatKind::Fat16 => self.bytes[fat + cluster * 2..][..2]
                    .copy_from_slice(&(value as u16).to_le_bytes()),
                FatKind::Fat32 => self.bytes[fat + cluster * 4..][..4]
                    .copy_from_slice(&(value as u32).to_le_bytes()),
            }
        }
    }
}

const FILE1: &[u8; 11] = b"SOMEFI~1TXT";
const FILE3: &[u8; 11] = b"SOMEFI~3TXT";
pub(crate) const FILE4: &[u8; 11] = b"SOMEFI~4TXT";
const FOLDER: &[u8; 11] = b"FOLDER0    ";
const FOLDER1: &[u8; 11] = b"FOLDER1    ";
const FOLDER2: &[u8; 11] = b"FOLDER2    ";

/// Where a damage can be done, and who finds it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Scope {
    Any,
    /// There is nothing to be damaged in the others.
    Fat12,
    Fat32,
    /// fsck.fat 4.2 does not look there.
    Unseen,
}

impl Scope {
    pub(crate) fn has(self, kind: FatKind) -> bool {
        match self {
            Self::Fat12 => kind == FatKind::Fat12,
            Self::Fat32 => kind == FatKind::Fat32,
            Self::Any | Self::Unseen => true,
        }
    }
}

pub(crate) type Harm = (&'static str, Scope, fn(&mut Damage<'_>));

pub(crate) const HARMS: &[Harm] = &[
    ("the FATs differ", Scope::Any, |d| {
        let at = d.fat() + d.fat_length() + 100;
        d.bytes[at] ^= 0x55;
    }),
    ("lost clusters", Scope::Any, |d| {
        for (cluster, next) in
            [(1000, 1001), (1001, 1002), (1002, 0x0FFF_FFFF), (1100, 0x0FFF_FFFF)]
        {
            d.link(cluster, next);
        }
    }),
    ("a lost circle", Scope::Any, |d| {
        d.link(1000, 1001);
        d.link(1001, 1000);
    }),
    ("a chain in a circle", Scope::Any, |d| {
        let start = d.start(d.entry(FILE4));
        d.link(start + 1, start);
    }),
    ("two files with one cluster", Scope::Any, |d| {
        let (a, b) = (d.start(d.entry(FILE3)), d.start(d.entry(FILE4)));
        d.link(a, b + 1);
    }),
    ("two names with one chain", Scope::Any, |d| {
        let (a, b) = (d.entry(FILE3), d.entry(FILE4));
        let start: [u8; 2] = d.bytes[a + 26..a + 28].try_into().unwrap();
        d.bytes[b + 26..b + 28].copy_from_slice(&start);
    }),
    ("a chain through a free cluster", Scope::Any, |d| {
        let start = d.start(d.entry(FILE4));
        d.link(start, 1500);
    }),
    ("a chain to be cut at an entry in two sectors", Scope::Fat12, |d| {
        // 341 + 341 / 2 = 511. With one of its sectors only, the end that a repair writes there is
        // a number whose last four bits are set: of a file that is looked at later.
        let start = d.start(d.inside(d.entry(FOLDER), FILE4));
        let free = (start + 19) & !15;
        d.link(start, 341);
        d.link(341, free);
        d.link(free, 0);
    }),
    ("a chain out of the volume", Scope::Any, |d| {
        let start = d.start(d.entry(FILE4));
        d.link(start, d.nowhere());
    }),
    ("a size too large", Scope::Any, |d| {
        let at = d.entry(FILE3);
        d.bytes[at + 30] = 0x10;
    }),
    ("a size too small", Scope::Any, |d| {
        let at = d.entry(FILE4);
        d.bytes[at + 29] = 0;
        d.bytes[at + 28] = 7;
    }),
    ("a size without clusters", Scope::Any, |d| {
        let at = d.entry(FILE1);
        d.bytes[at + 26..at + 28].fill(0);
        d.bytes[at + 28] = 7;
    }),
    ("a start out of the volume", Scope::Any, |d| {
        let at = d.entry(FILE4);
        d.bytes[at + 26..at + 28].copy_from_slice(&[0xF0, 0xF1]);
    }),
    ("a bad name", Scope::Any, |d| {
        let at = d.entry(FOLDER);
        d.bytes[at + 2] = b'*';
    }),
    ("two equal names", Scope::Any, |d| {
        let at = d.entry(FOLDER);
        d.bytes[at..at + 11].copy_from_slice(FILE3);
    }),
    ("a wrong .", Scope::Any, |d| {
        let at = d.cluster(d.start(d.entry(FOLDER)));
        d.bytes[at + 26] ^= 1;
    }),
    ("a wrong ..", Scope::Any, |d| {
        let at = d.cluster(d.start(d.entry(FOLDER1)));
        d.bytes[at + 32 + 26] ^= 1;
    }),
    ("a directory with a length", Scope::Any, |d| {
        let at = d.entry(FOLDER);
        d.bytes[at + 29] = 7;
    }),
    ("a directory in a circle", Scope::Any, |d| {
        let (upper, lower) = (d.start(d.entry(FOLDER)), d.entry(FOLDER1));
        d.bytes[lower + 26..lower + 28].copy_from_slice(&(upper as u16).to_le_bytes());
    }),
    ("the mark of use", Scope::Any, |d| {
        let at = if d.kind == FatKind::Fat32 { 65 } else { 37 };
        d.bytes[at] |= 1;
    }),
    ("a wrong count in FSInfo", Scope::Fat32, |d| d.bytes[512 + 488] ^= 0x3),
    ("FSInfo without its signature", Scope::Fat32, |d| d.bytes[512] = 0),
    ("another backup of the boot sector", Scope::Fat32, |d| d.bytes[6 * 512 + 3] ^= 0x20),
    ("another label in the boot sector", Scope::Any, |d| {
        let at = if d.kind == FatKind::Fat32 { 71 } else { 43 };
        d.bytes[at] = b'X';
    }),
    ("another medium in the FATs", Scope::Unseen, |d| {
        for copy in 0..2 {
            let at = d.fat() + copy * d.fat_length();
            d.bytes[at] = 0xF0;
        }
    }),
    ("the root directory to nowhere", Scope::Fat32, |d| d.link(d.le(44, 4), d.nowhere())),
    ("the root directory in a circle", Scope::Fat32, |d| d.link(d.le(44, 4), d.le(44, 4))),
    ("a directory without clusters", Scope::Any, |d| {
        let at = d.entry(FOLDER2);
        d.bytes[at + 26..at + 28].fill(0);
    }),
    ("a directory that begins nowhere", Scope::Any, |d| {
        let at = d.entry(FOLDER2);
        d.bytes[at + 26..at + 28].copy_from_slice(&[0xF0, 0xF1]);
    }),
    ("a directory to nowhere", Scope::Any, |d| {
        d.link(d.start(d.entry(FOLDER)), d.nowhere());
    }),
    ("a long name with another sum", Scope::Any, |d| {
        let at = d.entry(FILE4);
        d.bytes[at - 32 + 13] ^= 1;
    }),
    ("a second label", Scope::Unseen, |d| d.put_entry(b"ANOTHER    ", 8)),
    ("a . behind others", Scope::Any, |d| d.put_entry(b".          ", 16)),
    ("a . that is no directory", Scope::Any, |d| {
        let at = d.cluster(d.start(d.entry(FOLDER)));
        d.bytes[at + 11] = 0x20;
    }),
    ("a .. with a length", Scope::Unseen, |d| {
        let at = d.cluster(d.start(d.entry(FOLDER)));
        d.bytes[at + 32 + 29] = 7;
    }),
    ("no .", Scope::Any, |d| {
        let at = d.cluster(d.start(d.entry(FOLDER)));
        d.bytes[at] = 0xE5;
    }),
    ("no ..", Scope::Any, |d| {
        let at = d.cluster(d.start(d.entry(FOLDER)));
        d.bytes[at + 32] = 0xE5;
    }),
    ("a file in the place of ..", Scope::Any, |d| {
        let folder = d.entry(FOLDER);
        let at = d.cluster(d.start(folder)) + 32;
        d.move_entry(d.inside(folder, FILE4), at, 0xE5);
    }),
    ("a directory in the place of .", Scope::Any, |d| {
        let at = d.cluster(d.start(d.entry(FOLDER)));
        d.move_entry(d.entry(FOLDER1), at, 0xE5);
    }),
    ("the last entry in the place of ..", Scope::Any, |d| {
        let at = d.cluster(d.start(d.entry(FOLDER))) + 32;
        d.move_entry(d.entry(FOLDER1), at, 0);
    }),
];
