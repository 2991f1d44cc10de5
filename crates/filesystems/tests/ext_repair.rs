//! Random damage of fields that have names, mended: what our repair calls clean, e2fsck calls clean,
//! and a repair leaves few undone.
//!
//! `DISKSMITH_LONG=1` tries many; `DISKSMITH_MUTANTS` and `DISKSMITH_SEED` set how many and which.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::fs;
use std::path::Path;

use common::*;
use disksmith_filesystems::Filesystem as _;
use disksmith_filesystems::ext::{self, Ext, Repair};
use disksmith_testkit::Rng;

const KINDS: &[&str] = &[
    "-t ext4 -b 1024",
    "-t ext4 -O ^metadata_csum,^64bit -b 1024",
    "-t ext2 -b 1024",
    "-t ext3 -b 2048",
    "-t ext4 -O inline_data -b 4096",
];

/// Fields of structures, by offset and length.
const SUPERBLOCK: &[(usize, usize)] = &[
    (0x08, 4),
    (0x0C, 4),
    (0x10, 4),
    (0x3A, 2),
    (0xCE, 2),
    (0xE8, 4),
    (0x5C, 4),
    (0x64, 4),
    (0x15C, 2),
];
const GROUP: &[(usize, usize)] =
    &[(0x0C, 2), (0x0E, 2), (0x10, 2), (0x12, 2), (0x18, 2), (0x1A, 2), (0x1C, 2), (0x1E, 2)];
const INODE: &[(usize, usize)] = &[
    (0x00, 2),
    (0x04, 4),
    (0x14, 4),
    (0x1A, 2),
    (0x1C, 4),
    (0x20, 4),
    (0x28, 4),
    (0x2C, 4),
    (0x30, 4),
    (0x34, 4),
    (0x38, 4),
    (0x3C, 4),
    (0x58, 4),
    (0x5C, 4),
    (0x60, 4),
    (0x68, 4),
    (0x6C, 4),
    (0x74, 2),
    (0x76, 2),
    (0x7C, 2),
    (0x80, 2),
    (0xA0, 4),
    (0xA4, 4),
];

struct Layout {
    block: u64,
    descriptors: u64,
    descriptor_size: u64,
    groups: u64,
    tables: Vec<u64>,
    inode_size: u64,
    per_group: u64,
    bitmaps: Vec<u64>,
}

fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()))
}

impl Layout {
    fn of(bytes: &[u8]) -> Self {
        let sb = &bytes[1024..2048];
        let block = 1024 << word(sb, 0x18);
        let wide = word(sb, 0x60) & 0x80 != 0;
        let descriptor_size = if wide { word(sb, 0xFC) >> 16 } else { 32 };
        let first = word(sb, 0x14);
        let groups = (word(sb, 4) - first).div_ceil(word(sb, 0x20));
        let descriptors = if block == 1024 { 2048 } else { block };
        let place = |group: u64, at: u64| {
            word(bytes, (descriptors + group * descriptor_size + at) as usize) * block
        };
        Self {
            block,
            descriptors,
            descriptor_size,
            groups,
            tables: (0..groups).map(|group| place(group, 8)).collect(),
            bitmaps: (0..groups).flat_map(|group| [place(group, 0), place(group, 4)]).collect(),
            inode_size: word(sb, 0x58) & 0xffff,
            per_group: word(sb, 0x28),
        }
    }

    /// Where a random damage goes: byte and length.
    fn pick(&self, bytes: &[u8], rng: &mut Rng) -> (usize, usize) {
        let field =
            |rng: &mut Rng, list: &[(usize, usize)]| list[rng.below(list.len() as u64) as usize];
        match rng.below(12) {
            0 => {
                let (at, length) = field(rng, SUPERBLOCK);
                (1024 + at, length)
            }
            1 => {
                let (at, length) = field(rng, GROUP);
                let group = rng.below(self.groups);
                ((self.descriptors + group * self.descriptor_size) as usize + at, length)
            }
            2 => {
                let bitmap = self.bitmaps[rng.below(self.bitmaps.len() as u64) as usize];
                ((bitmap + rng.below(self.block)) as usize, 1)
            }
            3..=7 => {
                let (at, length) = field(rng, INODE);
                let table = self.tables[rng.below(self.groups) as usize];
                let index =
                    if rng.one_in(3) { rng.below(self.per_group) } else { 1 + rng.below(60) };
                ((table + index * self.inode_size) as usize + at, length)
            }
            _ => {
                // Something like a directory, an extent tree or attributes: a block with a mark.
                for _ in 0..200 {
                    let at = (rng.below(bytes.len() as u64 / self.block) * self.block) as usize;
                    let dots = bytes[at + 8..at + 12] == [b'.', 0, 0, 0];
                    let tree = bytes[at..at + 2] == [0x0A, 0xF3];
                    let attributes = bytes[at..at + 4] == [0, 0, 2, 0xEA];
                    if dots || tree || attributes || rng.one_in(60) {
                        let span = if rng.one_in(3) { self.block - 4 } else { 96 };
                        let within = rng.below(span);
                        return (at + within as usize, 1 + rng.below(4) as usize);
                    }
                }
                (4096, 1)
            }
        }
    }
}

fn damage(bytes: &mut [u8], layout: &Layout, rng: &mut Rng) -> String {
    let mut told = String::new();
    for _ in 0..1 + rng.below(4) {
        let (at, length) = layout.pick(bytes, rng);
        let Some(field) = bytes.get_mut(at..at + length) else { continue };
        match rng.below(5) {
            0 => field.fill(0),
            1 => field.fill(0xff),
            2 => field[0] ^= 1 << rng.below(8),
            3 => field[0] = field[0].wrapping_add(1),
            _ => field.iter_mut().for_each(|byte| *byte = rng.below(256) as u8),
        }
        told += &format!("{at:#x}+{length}={field:02x?} ");
    }
    told
}

fn fill(image: &Path) {
    use disksmith_filesystems::{Device, FileKind, NewFile};
    let ours = Ext::open(FileDisk::open(image), false).unwrap();
    let new = |kind| NewFile { kind, mode: 0o644, uid: 1, gid: 2, device: Device::default() };
    let root = ours.root();
    for number in 0..6_u64 {
        let name = format!("folder-{number}");
        let folder = ours.create(root, name.as_bytes(), &new(FileKind::Directory)).unwrap().inode;
        for file in 0..8 + number * 12 {
            let name = format!("file-{file}-{}", "x".repeat((file % 40) as usize));
            let made = ours.create(folder, name.as_bytes(), &new(FileKind::Regular)).unwrap();
            let data = vec![(number * 16 + file) as u8; (file * 777 % 9000) as usize];
            ours.write(made.inode, file % 3 * 30_000, &data).unwrap();
            if file % 4 == 0 {
                ours.set_xattr(
                    made.inode,
                    b"user.x",
                    &vec![7; 20 + (file * 40 % 700) as usize],
                    None,
                )
                .unwrap();
            }
        }
        ours.symlink(folder, b"link", &vec![b'l'; 30 + 20 * number as usize], 1, 2).unwrap();
        ours.create(folder, b"fifo", &new(FileKind::Fifo)).unwrap();
    }
    ours.close().unwrap();
}

#[test]
fn what_is_mended_is_clean() {
    let usual = if long() { 2000 } else { 40 };
    let number = |name: &str, usual: u64| {
        std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
    };
    let (mutants, seed) = (number("DISKSMITH_MUTANTS", usual), number("DISKSMITH_SEED", 1));
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("image");
    let mut faults = Vec::new();
    let (mut mended, mut left) = (0, 0);
    for (which, kind) in KINDS.iter().enumerate() {
        fs::File::create(&image).unwrap().set_len(24 << 20).unwrap();
        let mut words: Vec<&str> = kind.split_whitespace().collect();
        words.extend(["-q", "-F", "-N", "1024", text(&image)]);
        run("mke2fs", &words);
        fill(&image);
        assert_clean(&image, kind);
        let sound = fs::read(&image).unwrap();
        let layout = Layout::of(&sound);
        for mutant in 0..mutants / KINDS.len() as u64 {
            let mut rng = Rng::new(seed << 32 | (which as u64) << 20 | mutant);
            let mut bytes = sound.clone();
            let told = damage(&mut bytes, &layout, &mut rng);
            fs::write(&image, &bytes).unwrap();
            let what = format!("{kind}, mutant {mutant}: {told}");
            let done =
                std::panic::catch_unwind(|| ext::repair(FileDisk::open(&image), Repair::All));
            match done {
                Err(_) => faults.push(format!("{what}: panic")),
                Ok(Ok(report)) if report.clean() => {
                    mended += 1;
                    let output = try_run("e2fsck", &["-fn", text(&image)]);
                    let said = String::from_utf8_lossy(&output.stdout).into_owned();
                    if !output.status.success() {
                        let said: Vec<&str> =
                            said.lines().filter(|l| !l.starts_with("Pass")).collect();
                        let found = &report.found[..report.found.len().min(6)];
                        faults.push(format!(
                            "{what}: {:?}\n    of {found:?}",
                            &said[..said.len().min(6)]
                        ));
                    }
                }
                Ok(_) => left += 1,
            }
        }
    }
    println!("{mended} mended, {left} left in part");
    assert!(faults.is_empty(), "{} faults: {:#?}", faults.len(), &faults[..faults.len().min(20)]);
    assert!(mended > left * 10, "{mended} mended, {left} left");
}
