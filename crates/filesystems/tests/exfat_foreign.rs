//! exFAT volumes with what others write and we do not: sets over two sectors or two clusters that
//! lie apart, entries of vendors, two FATs.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::sync::Arc;

use common::changes::{new, walk};
use common::cuts::tree;
use disksmith_disk::{Disk, Kind, MemoryDisk};
use disksmith_filesystems::fat::exfat::{self, Exfat, ExfatOptions};
use disksmith_filesystems::{FileKind, Filesystem, Rename};
use disksmith_testkit::{CrashLimits, Recorder, crash_states};

fn le(bytes: &[u8], at: usize) -> usize {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize
}

/// With clusters of 512 bytes, a directory has 16 slots in each.
fn empty(cluster: u32) -> Arc<MemoryDisk> {
    let disk = Arc::new(MemoryDisk::new(2 << 20));
    let options = ExfatOptions { cluster_size: Some(cluster), ..ExfatOptions::default() };
    exfat::make(&*disk, &options).unwrap();
    disk
}

fn place(bytes: &[u8], cluster: usize) -> usize {
    le(bytes, 88) * 512 + (cluster - 2) * 512
}

/// The place of the set whose name begins so, and its length.
fn set_of(bytes: &[u8], name: &str) -> (usize, usize) {
    let units: Vec<u8> = name.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let heap = le(bytes, 88) * 512;
    let found = bytes[heap..]
        .chunks_exact(32)
        .position(|entry| entry[0] == 0xC1 && entry[2..].starts_with(&units))
        .unwrap();
    let at = heap + (found - 2) * 32;
    (at, (usize::from(bytes[at + 1]) + 1) * 32)
}

fn seal(set: &mut [u8]) {
    let sum = set
        .iter()
        .enumerate()
        .filter(|(at, _)| *at != 2 && *at != 3)
        .fold(0_u16, |sum, (_, byte)| sum.rotate_right(1).wrapping_add((*byte).into()));
    set[2..4].copy_from_slice(&sum.to_le_bytes());
}

/// A directory of two clusters that lie apart, with one file in it whose set begins in the last
/// slot of the first one.
fn divided() -> Vec<u8> {
    let disk = empty(512);
    let ours = Exfat::open(disk.clone(), false).unwrap();
    let root = ours.root();
    let folder = ours.create(root, b"folder", &new(FileKind::Directory)).unwrap().inode;
    let file = ours.create(folder, b"file", &new(FileKind::Regular)).unwrap().inode;
    ours.write(file, 0, &[7; 700]).unwrap();
    // Five sets fill a cluster, but for one slot; the sixth one needs another cluster.
    for number in 0..6 {
        let name = format!("more {number}");
        ours.create(folder, name.as_bytes(), &new(FileKind::Regular)).unwrap();
    }
    for number in 0..6 {
        ours.unlink(folder, format!("more {number}").as_bytes()).unwrap();
    }
    ours.close().unwrap();
    let mut bytes = disk.to_bytes();
    let (at, length) = set_of(&bytes, "file");
    let set = bytes[at..at + length].to_vec();
    let first = le(&bytes, set_of(&bytes, "folder").0 + 52);
    let second = le(&bytes, le(&bytes, 80) * 512 + first * 4);
    assert!(second != first + 1 && second > first, "{first} {second}");
    let (one, two) = (place(&bytes, first), place(&bytes, second));
    for slot in 0..15 {
        bytes[one + slot * 32] = 0x05;
    }
    bytes[one + 15 * 32..one + 512].copy_from_slice(&set[..32]);
    bytes[two..two + length - 32].copy_from_slice(&set[32..]);
    assert_eq!(exfat::check(Arc::new(MemoryDisk::from_bytes(&bytes))).unwrap().findings, [""; 0]);
    bytes
}

#[test]
fn a_set_over_two_clusters_is_read_changed_and_never_gone() {
    let initial = MemoryDisk::from_bytes(&divided());
    let recorder = Recorder::new();
    let ours = Exfat::open(recorder.disk(0, initial.clone()), false).unwrap();
    let folder = ours.lookup(ours.root(), b"folder").unwrap().inode;
    let file = ours.lookup(folder, b"FILE").unwrap().inode;
    ours.write(file, 0, b"changed").unwrap();
    ours.sync().unwrap();
    assert_eq!(ours.attributes(file).unwrap().size, 700, "the number stays");
    ours.write(file, 700, &[8; 700]).unwrap();
    ours.rename(folder, b"file", ours.root(), b"moved", Rename::Replace).unwrap();
    ours.close().unwrap();
    let limits = CrashLimits { full_up_to: 8, random_subsets: 20, torn: 4, seed: 1 };
    let states = crash_states(&[initial], &recorder.log(), limits, &mut |state| {
        let disk: Arc<dyn Disk> = Arc::new(state.files[0].clone());
        let tree = tree(&Exfat::open(disk, true).unwrap(), &state.name);
        let there = tree.iter().any(|(name, bytes)| {
            (name.ends_with(b"file") || name == b"/moved") && bytes.len() >= 700
        });
        assert!(there, "{}: {:?}", state.name, tree.keys());
        true
    });
    assert!(states > 20, "{states}");
}

#[test]
fn a_set_over_two_clusters_is_removed_and_replaced() {
    let disk = Arc::new(MemoryDisk::from_bytes(&divided()));
    let ours = Exfat::open(disk.clone(), false).unwrap();
    let folder = ours.lookup(ours.root(), b"folder").unwrap().inode;
    let other = ours.create(folder, b"other", &new(FileKind::Regular)).unwrap();
    ours.write(other.inode, 0, b"other content").unwrap();
    ours.rename(folder, b"other", folder, b"FILE", Rename::Replace).unwrap();
    ours.sync().unwrap();
    let there = walk(&ours);
    assert_eq!(there.get("folder/file").map(Vec::as_slice), Some(&b"other content"[..]));
    ours.unlink(folder, b"file").unwrap();
    ours.remove_directory(ours.root(), b"folder").unwrap();
    ours.close().unwrap();
    assert_eq!(exfat::check(disk.clone()).unwrap().findings, [""; 0]);
    let free = Exfat::open(disk, true).unwrap().statistics().unwrap().free;
    let fresh = Exfat::open(empty(512), true).unwrap().statistics().unwrap().free;
    // The root has grown by nothing.
    assert_eq!(free, fresh);
}

#[test]
fn entries_of_vendors_are_kept_and_their_clusters_freed() {
    let disk = empty(4096);
    let ours = Exfat::open(disk.clone(), false).unwrap();
    let free = ours.statistics().unwrap().free;
    let file = ours.create(ours.root(), b"file", &new(FileKind::Regular)).unwrap();
    ours.write(file.inode, 0, &[7; 700]).unwrap();
    let vendor = ours.create(ours.root(), b"v", &new(FileKind::Regular)).unwrap();
    ours.write(vendor.inode, 0, &[9; 500]).unwrap();
    ours.close().unwrap();
    // The second file becomes a Vendor Allocation of the first one; a Vendor Extension follows.
    let mut bytes = disk.to_bytes();
    let (other, length) = set_of(&bytes, "v");
    let start = le(&bytes, other + 52);
    let (at, _) = set_of(&bytes, "file");
    assert_eq!((other, length), (at + 96, 96));
    bytes[other..other + 96].fill(0);
    let vendor = &mut bytes[other..other + 32];
    vendor[0] = 0xE1;
    vendor[1] = 3;
    vendor[2..18].fill(0x11);
    vendor[20..24].copy_from_slice(&(start as u32).to_le_bytes());
    vendor[24..32].copy_from_slice(&500_u64.to_le_bytes());
    bytes[other + 32] = 0xE0;
    bytes[other + 34..other + 64].fill(0x22);
    bytes[at + 1] = 4;
    seal(&mut bytes[at..at + 160]);
    let disk = Arc::new(MemoryDisk::from_bytes(&bytes));
    assert_eq!(exfat::check(disk.clone()).unwrap().findings, [""; 0]);
    let ours = Exfat::open(disk.clone(), false).unwrap();
    let root = ours.root();
    let long = b"a name of more than fifteen units, which moves the set";
    ours.rename(root, b"file", root, long, Rename::Replace).unwrap();
    let victim = ours.create(root, b"victim", &new(FileKind::Regular)).unwrap();
    ours.write(victim.inode, 0, b"victim").unwrap();
    ours.rename(root, long, root, b"victim", Rename::Replace).unwrap();
    ours.sync().unwrap();
    let now = disk.to_bytes();
    let (at, length) = set_of(&now, "victim");
    assert_eq!((length, now[at + 96], now[at + 128]), (160, 0xE1, 0xE0));
    assert_eq!(exfat::check(disk.clone()).unwrap().findings, [""; 0]);
    assert_eq!(walk(&ours)["victim"], [7; 700]);
    ours.unlink(root, b"victim").unwrap();
    ours.close().unwrap();
    assert_eq!(exfat::check(disk.clone()).unwrap().findings, [""; 0]);
    assert_eq!(Exfat::open(disk, true).unwrap().statistics().unwrap().free, free);
}

#[test]
fn two_fats_are_read_only() {
    let disk = Arc::new(MemoryDisk::new(128 << 20));
    exfat::make(&*disk, &ExfatOptions::default()).unwrap();
    disk.write_at(&[2], 110).unwrap();
    assert!(Exfat::open(disk.clone(), true).unwrap().statistics().is_ok());
    let error = Exfat::open(disk, false).unwrap_err();
    assert_eq!(error.kind(), Kind::Unsupported);
    assert!(error.to_string().contains("TexFAT"), "{error}");
}
