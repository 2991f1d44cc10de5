//! Power cuts during a change of length: with a journal the old or the new length is there, the
//! files whole; without one the same, or the next run completes it.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::fs;
use std::path::Path;
use std::sync::Arc;

use common::*;
use disksmith_disk::{Disk, MemoryDisk};
use disksmith_filesystems::ext::{self, Ext, NewSize};
use disksmith_testkit::{CrashLimits, Recorder, crash_states};

fn from_file(path: &Path) -> MemoryDisk {
    let bytes = fs::read(path).unwrap();
    let disk = MemoryDisk::new(bytes.len() as u64);
    disk.write_at(&bytes, 0).unwrap();
    disk
}

fn made(arguments: &str, size: u64, files: u64, image: &Path) {
    fs::File::create(image).unwrap().set_len(size).unwrap();
    let mut words: Vec<&str> = arguments.split_whitespace().collect();
    words.extend(["-q", "-F", text(image)]);
    run("mke2fs", &words);
    let ours = Ext::open(FileDisk::open(image), false).unwrap();
    fill(&ours, files);
    use disksmith_filesystems::Filesystem;
    ours.close().unwrap();
}

fn fill(ours: &Ext, files: u64) {
    use disksmith_filesystems::{Device, FileKind, Filesystem, NewFile};
    let new =
        NewFile { kind: FileKind::Regular, mode: 0o644, uid: 0, gid: 0, device: Device::default() };
    let mut inodes = Vec::new();
    for number in 0..files {
        let name = format!("file-{number}");
        let inode = ours.create(ours.root(), name.as_bytes(), &new).unwrap().inode;
        inodes.push(inode);
    }
    for round in 0..3 {
        for (number, inode) in inodes.iter().enumerate() {
            let data = vec![(number + round) as u8; 7000];
            ours.write(*inode, round as u64 * 7000, &data).unwrap();
        }
    }
    for number in (0..files).step_by(4) {
        ours.unlink(ours.root(), format!("file-{number}").as_bytes()).unwrap();
    }
}

/// Files behind byte `to`, which have to move when the filesystem ends there: something large is in
/// their way while they are written.
fn fill_the_end(image: &Path, to: u64) {
    use disksmith_filesystems::{Device, FileKind, NewFile};
    let ours = Ext::open(FileDisk::open(image), false).unwrap();
    let new = |kind| NewFile { kind, mode: 0o755, uid: 0, gid: 0, device: Device::default() };
    let filler = ours.create(ours.root(), b"filler", &new(FileKind::Regular)).unwrap().inode;
    let piece = vec![7; 1 << 20];
    for offset in (0..to).step_by(piece.len()) {
        ours.write(filler, offset, &piece).unwrap();
    }
    let folder = ours.create(ours.root(), b"end", &new(FileKind::Directory)).unwrap().inode;
    let mut behind = 0;
    for number in 0..30u8 {
        let name = format!("end-{number}");
        let file = ours.create(folder, name.as_bytes(), &new(FileKind::Regular)).unwrap().inode;
        ours.write(file, 0, &vec![number + 1; 20_000]).unwrap();
        behind += ours.places(file).unwrap().iter().filter(|place| place.at >= to).count();
    }
    ours.unlink(ours.root(), b"filler").unwrap();
    ours.close().unwrap();
    assert!(behind >= 20, "only {behind} runs of blocks lie behind");
}

/// So many states of each change are looked at in any case.
const ALL: u64 = 60;

/// The limits, and of how many states one is looked at. `DISKSMITH_LONG=1` looks at all.
fn limits() -> (CrashLimits, u64) {
    match std::env::var_os("DISKSMITH_LONG") {
        Some(_) => (CrashLimits { full_up_to: 6, random_subsets: 24, ..CrashLimits::default() }, 1),
        None => (CrashLimits { full_up_to: 3, random_subsets: 3, torn: 1, seed: 13 }, 7),
    }
}

/// Every state that a cut leaves while `from` bytes become `to`.
fn cut(arguments: &str, from: u64, to: u64) {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("image");
    made(arguments, from.min(to), 60, &image);
    if from > to {
        fs::File::options().write(true).open(&image).unwrap().set_len(from).unwrap();
        ext::resize(&FileDisk::open(&image), NewSize::Disk).unwrap();
        fill_the_end(&image, to);
    }
    fs::File::options().write(true).open(&image).unwrap().set_len(from.max(to)).unwrap();
    let initial = from_file(&image);
    let expected = walk_ours(&Ext::open(Arc::new(initial.clone()), true).unwrap());
    let (old, new) = (length_of(&initial), {
        let copy = copy_of(&initial);
        ext::resize(&(copy.clone() as Arc<dyn Disk>), NewSize::Bytes(to)).unwrap();
        length_of(&*copy)
    });
    let recorder = Recorder::new();
    let disk: Arc<dyn Disk> = recorder.disk(0, copy_of(&initial).as_ref().clone());
    ext::resize(&disk, NewSize::Bytes(to)).unwrap();
    let mut lengths = std::collections::BTreeSet::new();
    let mut number = 0u64;
    let (limits, stride) = limits();
    let mut looked = 0;
    let count = crash_states(&[initial], &recorder.log(), limits, &mut |state| {
        let what = format!("{arguments} {from} to {to}, {}", state.name);
        let disk: Arc<dyn Disk> = Arc::new(state.files[0].clone());
        number += 1;
        lengths.insert(length_of(&state.files[0]));
        if number > ALL && !number.is_multiple_of(stride) {
            return true;
        }
        looked += 1;
        let journaled = !arguments.contains("ext2");
        if journaled {
            let ours = Ext::open(disk.clone(), true).unwrap_or_else(|e| panic!("{what}: {e}"));
            assert_eq!(walk_ours(&ours), expected, "{what}");
            let report = ext::check(disk.clone()).unwrap();
            assert!(report.findings.is_empty(), "{what}: {:#?}", report.findings);
        }
        // Half a superblock leads e2fsck to a copy, which does not know of the journal's content.
        if looked % 40 == 0 && journaled && !state.name.contains('t') {
            fs::write(&image, state.files[0].to_bytes()).unwrap();
            let said = try_run("e2fsck", &["-y", "-E", "journal_only", text(&image)]);
            assert!(said.status.code().unwrap() < 4, "{what}: {said:?}");
            let said = try_run("e2fsck", &["-fn", text(&image)]);
            assert!(said.status.success(), "{what}: {said:?}");
        }
        Ext::open(disk.clone(), false).unwrap_or_else(|e| panic!("{what}: {e}")).close().unwrap();
        // Opening for writing marks it clean: what the next run needs to know is told to it here.
        if !journaled {
            let again: Arc<dyn Disk> = copy_of(&state.files[0]);
            let done = ext::resize(&again, NewSize::Bytes(to));
            let done = done.unwrap_or_else(|e| panic!("{what}: {e}"));
            assert_eq!(done.new_blocks * u64::from(done.block_size), new, "{what}");
            let report = ext::check(again.clone()).unwrap();
            assert!(report.findings.is_empty(), "{what}: {:#?}", report.findings);
            let ours = Ext::open(again, true).unwrap();
            assert_eq!(walk_ours(&ours), expected, "{what}");
        }
        true
    });
    println!("{arguments}, {from} to {to}: {looked} of {count} states");
    assert!(looked > 30, "{looked}");
    assert_eq!(lengths.into_iter().collect::<Vec<_>>(), [old.min(new), old.max(new)]);
}

use disksmith_filesystems::Filesystem as _;

fn copy_of(disk: &MemoryDisk) -> Arc<MemoryDisk> {
    let copy = MemoryDisk::new(disk.size());
    copy.write_at(&disk.to_bytes(), 0).unwrap();
    Arc::new(copy)
}

fn length_of(disk: &dyn Disk) -> u64 {
    let mut raw = [0; 1024];
    disk.read_at(&mut raw, 1024).unwrap();
    let word = |at: usize| u64::from(u32::from_le_bytes(raw[at..at + 4].try_into().unwrap()));
    word(4) * (1024 << word(0x18))
}

#[test]
fn growing_with_a_journal() {
    cut("-t ext4 -b 1024", 9 << 20, 30 << 20);
    cut("-t ext3 -b 1024 -O ^resize_inode -g 512 -J size=1", 9 << 20, 20 << 20);
}

#[test]
fn shrinking_with_a_journal() {
    cut("-t ext4 -b 1024", 30 << 20, 9 << 20);
    cut("-t ext3 -b 1024 -J size=1", 20 << 20, 9 << 20);
}

#[test]
fn growing_without_a_journal() {
    cut("-t ext2 -b 1024", 6 << 20, 20 << 20);
}

/// Without a journal a cut leaves a filesystem that the next run either takes up, or refuses with
/// the word what to do; after that it goes through, and the files are whole.
#[test]
fn shrinking_without_a_journal() {
    let (arguments, from, to) = ("-t ext2 -b 1024", 20 << 20, 9 << 20);
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("image");
    made(arguments, from, 60, &image);
    fill_the_end(&image, to);
    let initial = from_file(&image);
    let expected = walk_ours(&Ext::open(copy_of(&initial), true).unwrap());
    let recorder = Recorder::new();
    let disk: Arc<dyn Disk> = recorder.disk(0, copy_of(&initial).as_ref().clone());
    ext::resize(&disk, NewSize::Bytes(to)).unwrap();
    let (mut number, mut refused, mut looked) = (0u64, 0, 0);
    let (limits, stride) = limits();
    crash_states(&[initial], &recorder.log(), limits, &mut |state| {
        number += 1;
        if number % (10 * stride) != 1 {
            return true;
        }
        looked += 1;
        let what = format!("{arguments} {from} to {to}, {}", state.name);
        let disk: Arc<dyn Disk> = copy_of(&state.files[0]);
        if let Err(error) = ext::resize(&disk, NewSize::Bytes(to)) {
            refused += 1;
            let hint = error.hint().unwrap_or_default();
            assert!(hint.contains("'disksmith fsck -y'"), "{what}: {error}");
            let left = ext::repair(disk.clone(), ext::Repair::All).unwrap();
            assert!(left.clean(), "{what}: {left:?}");
            ext::resize(&disk, NewSize::Bytes(to)).unwrap_or_else(|e| panic!("{what}: {e}"));
        }
        let report = ext::check(disk.clone()).unwrap();
        assert!(report.findings.is_empty(), "{what}: {:#?}", report.findings);
        assert_eq!(walk_ours(&Ext::open(disk, true).unwrap()), expected, "{what}");
        true
    });
    println!("{looked} of {number} states, {refused} refused");
    assert!(refused > 10 && looked > 15, "{refused} of {looked}");
}
