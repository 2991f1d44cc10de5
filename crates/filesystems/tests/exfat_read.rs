//! exFAT volumes: an image whose files were written here entry by entry, in both ways in which
//! files can lie, checked by fsck.exfat and read by us.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::fs;
use std::sync::Arc;

use common::*;
use disksmith_disk::{Disk, MemoryDisk};
use disksmith_filesystems::fat::exfat::{self, Exfat, ExfatOptions};
use disksmith_filesystems::{FileKind, Filesystem, errno};
use disksmith_testkit::Rng;

const CLUSTER: usize = 4096;

/// Puts files into a fresh volume as the specification says, without our reader's code.
struct Writer {
    bytes: Vec<u8>,
    heap: usize,
    fat: usize,
    root: usize,
    next: u32,
}

fn le32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

impl Writer {
    fn new() -> Self {
        let disk = Arc::new(MemoryDisk::new(8 << 20));
        let options = ExfatOptions {
            cluster_size: Some(CLUSTER as u32),
            label: "Größe".as_bytes().to_vec(),
            ..ExfatOptions::default()
        };
        exfat::make(&*disk, &options).unwrap();
        let bytes = disk.to_bytes();
        let heap = le32(&bytes, 88) as usize * 512;
        let root = le32(&bytes, 96);
        let place = heap + (root as usize - 2) * CLUSTER;
        Self { heap, fat: le32(&bytes, 80) as usize * 512, root: place, next: root + 1, bytes }
    }

    fn place(&self, cluster: u32) -> usize {
        self.heap + (cluster as usize - 2) * CLUSTER
    }

    fn use_cluster(&mut self, cluster: u32) {
        let bit = cluster as usize - 2;
        self.bytes[self.heap + bit / 8] |= 1 << (bit % 8);
    }

    /// Clusters for some bytes: in one piece, or every second one with its chain in the FAT.
    fn content(&mut self, data: &[u8], contiguous: bool) -> u32 {
        let count = data.len().div_ceil(CLUSTER) as u32;
        let step = if contiguous { 1 } else { 2 };
        let start = self.next;
        self.next += count * step;
        for (index, piece) in data.chunks(CLUSTER).enumerate() {
            let cluster = start + index as u32 * step;
            let at = self.place(cluster);
            self.bytes[at..at + piece.len()].copy_from_slice(piece);
            self.use_cluster(cluster);
            if !contiguous {
                let next = if index as u32 + 1 == count { u32::MAX } else { cluster + step };
                let at = self.fat + cluster as usize * 4;
                self.bytes[at..at + 4].copy_from_slice(&next.to_le_bytes());
            }
        }
        start
    }

    /// A set of entries at `at`; answers its length.
    fn set(
        &mut self,
        at: usize,
        name: &str,
        attributes: u8,
        start: u32,
        sizes: (u64, u64),
        contiguous: bool,
    ) -> usize {
        let units: Vec<u16> = name.encode_utf16().collect();
        let names = units.len().div_ceil(15);
        let mut set = vec![0_u8; (2 + names) * 32];
        set[0] = 0x85;
        set[1] = 1 + names as u8;
        set[4] = attributes;
        // 2023-11-14 22:13:20 in a zone two hours east of UTC.
        let stamp =
            (((43_u32 << 9 | 11 << 5 | 14) << 16) | (22 << 11 | 13 << 5 | 10)).to_le_bytes();
        for field in [8, 12, 16] {
            set[field..field + 4].copy_from_slice(&stamp);
        }
        set[22..25].fill(0x80 | 8);
        set[32] = 0xC0;
        set[33] = if start == 0 { 1 } else { 1 | u8::from(contiguous) << 1 };
        set[35] = units.len() as u8;
        let upper: Vec<u16> = name.to_uppercase().encode_utf16().collect();
        let hash = upper
            .iter()
            .flat_map(|unit| unit.to_le_bytes())
            .fold(0_u16, |sum, byte| sum.rotate_right(1).wrapping_add(byte.into()));
        set[36..38].copy_from_slice(&hash.to_le_bytes());
        set[40..48].copy_from_slice(&sizes.1.to_le_bytes());
        set[52..56].copy_from_slice(&start.to_le_bytes());
        set[56..64].copy_from_slice(&sizes.0.to_le_bytes());
        for (index, unit) in units.iter().enumerate() {
            let entry = 64 + index / 15 * 32;
            set[entry] = 0xC1;
            set[entry + 2 + index % 15 * 2..][..2].copy_from_slice(&unit.to_le_bytes());
        }
        let sum = set
            .iter()
            .enumerate()
            .filter(|(at, _)| *at != 2 && *at != 3)
            .fold(0_u16, |sum, (_, byte)| sum.rotate_right(1).wrapping_add((*byte).into()));
        set[2..4].copy_from_slice(&sum.to_le_bytes());
        self.bytes[at..at + set.len()].copy_from_slice(&set);
        set.len()
    }
}

fn written() -> (Vec<u8>, Vec<u8>) {
    let mut writer = Writer::new();
    let data = Rng::new(1).bytes(CLUSTER * 5 + 77);
    let size = data.len() as u64;
    let mut at = writer.root + 96;
    let one = writer.content(&data, true);
    at += writer.set(at, "In one piece.bin", 0x20, one, (size, size), true);
    let two = writer.content(&data, false);
    at += writer.set(
        at,
        "scattered, with a name of more than fifteen units",
        0x21,
        two,
        (size, size),
        false,
    );
    let three = writer.content(&data, true);
    at += writer.set(at, "half written", 0x20, three, (size, 5000), true);
    at += writer.set(at, "empty", 0x20, 0, (0, 0), false);
    let folder = writer.content(&vec![0; CLUSTER], false);
    writer.set(at, "Folder", 0x10, folder, (CLUSTER as u64, CLUSTER as u64), false);
    let inside = writer.place(folder);
    let four = writer.content(b"inside", true);
    writer.set(inside, "ä.txt", 0x20, four, (6, 6), true);
    (writer.bytes, data)
}

#[test]
fn files_are_read_however_they_lie() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("image");
    let (bytes, data) = written();
    fs::write(&image, &bytes).unwrap();
    let said = try_run("fsck.exfat", &["-n", text(&image)]);
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stdout));
    let exfat = Exfat::open(FileDisk::open(&image), true).unwrap();
    assert_eq!(exfat.label(), "Größe".as_bytes());
    let read = |name: &str| {
        let at = exfat.lookup(exfat.root(), name.as_bytes()).unwrap();
        let mut bytes = vec![1; at.size as usize + 10];
        let count = exfat.read(at.inode, 0, &mut bytes).unwrap();
        bytes.truncate(count);
        bytes
    };
    assert!(read("IN ONE PIECE.BIN") == data);
    assert!(read("scattered, with a name of MORE than fifteen units") == data);
    let half = read("half written");
    assert!(half[..5000] == data[..5000] && half[5000..].iter().all(|byte| *byte == 0));
    assert!(read("empty").is_empty());
    let folder = exfat.lookup(exfat.root(), b"folder").unwrap();
    assert_eq!(folder.kind, FileKind::Directory);
    let inside = exfat.lookup(folder.inode, "Ä.TXT".as_bytes()).unwrap();
    assert_eq!((inside.size, inside.modified.seconds), (6, 1_700_000_000 - 7200));
    let up = exfat.lookup(folder.inode, b"..").unwrap();
    assert_eq!(up.inode, exfat.root());
    let mut names = Vec::new();
    exfat
        .read_directory(exfat.root(), 0, &mut |entry| {
            names.push((entry.name, entry.cookie));
            true
        })
        .unwrap();
    assert_eq!(names.len(), 7);
    let mut rest = Vec::new();
    exfat
        .read_directory(exfat.root(), names[3].1, &mut |entry| {
            rest.push((entry.name, entry.cookie));
            true
        })
        .unwrap();
    assert_eq!(rest, names[4..]);
    assert_eq!(errno(&exfat.lookup(exfat.root(), b"none").unwrap_err()), 2);
    let numbers = exfat.statistics().unwrap();
    let ranges = exfat::used_ranges(FileDisk::open(&image)).unwrap();
    let used: u64 = ranges.iter().skip(1).map(|range| range.end - range.start).sum();
    assert!(ranges.len() > 3, "{ranges:?}");
    assert!(used <= (numbers.blocks - numbers.free) * CLUSTER as u64);
}

#[test]
fn changed_bytes_do_no_harm() {
    let (bytes, _) = written();
    let heap = u64::from(le32(&bytes, 88)) * 512;
    let mut rng = Rng::new(3);
    for _ in 0..if long() { 20_000 } else { 800 } {
        let disk = Arc::new(MemoryDisk::from_bytes(&bytes[..1 << 20]));
        for _ in 0..1 + rng.below(6) {
            let at = *rng.pick(&[
                64 + rng.clone().below(60),
                heap + rng.clone().below(60_000),
                u64::from(le32(&bytes, 80)) * 512 + rng.clone().below(80),
            ]);
            let byte = *rng.pick(&[0, 1, 0xFF, 0x85, 0xC0, 0xC1, 7, 0x80]);
            disk.write_at(&[byte], at).unwrap();
            rng.next_u64();
        }
        let Ok(exfat) = Exfat::open(disk.clone(), true) else { continue };
        let _ = exfat.statistics();
        let mut inside = Vec::new();
        let _ = exfat.read_directory(exfat.root(), 0, &mut |entry| {
            inside.push(entry);
            inside.len() < 300
        });
        for entry in inside {
            let _ = exfat.lookup(exfat.root(), &entry.name);
            if let Ok(at) = exfat.attributes(entry.inode) {
                let mut bytes = [0; 3000];
                let _ = exfat.read(at.inode, at.size.saturating_sub(2000), &mut bytes);
                let _ = exfat.read_directory(at.inode, 0, &mut |_| true);
            }
        }
        let _ = exfat::used_ranges(disk);
    }
}
