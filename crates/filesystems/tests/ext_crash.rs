//! Power cuts: after a cut at any write, with any reordering between flushes, the tree is one that
//! was there between the last sync and the cut, for us and after e2fsck's replay.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;

use common::*;
use disksmith_disk::{Disk, MemoryDisk};
use disksmith_filesystems::ext::{self, Ext, MakeOptions, Profile};
use disksmith_filesystems::{Changes, Device, Fallocate, FileKind, Filesystem, NewFile, Rename};
use disksmith_testkit::{CrashLimits, Recorder, Rng, crash_states};

/// Path to kind, links, size, content and attributes.
type Tree = BTreeMap<Vec<u8>, (u32, u64, u64, u32, usize)>;

fn tree(filesystem: &dyn Filesystem) -> Tree {
    walk_ours(filesystem)
        .into_iter()
        .map(|(name, seen)| {
            (name, (seen.mode, seen.links, seen.size, seen.content, seen.xattrs.len()))
        })
        .collect()
}

fn file(kind: FileKind) -> NewFile {
    NewFile { kind, mode: 0o700, uid: 0, gid: 0, device: Device::default() }
}

/// One random change of names, lengths or attributes. Bytes once written are not overwritten:
/// that is not atomic on any ordered filesystem.
fn step(ours: &Ext, rng: &mut Rng, number: u64) {
    let root = ours.root();
    let name = |n: u64| format!("file-{n}-{}", "z".repeat((n * 9) as usize)).into_bytes();
    let pick = name(rng.below(8));
    let other = name(rng.below(8));
    let data = vec![number as u8 + 1; 1 + rng.below(9000) as usize];
    let found = ours.lookup(root, &pick);
    let _ = match (rng.below(10), found) {
        (0..=2, Err(_)) => ours.create(root, &pick, &file(FileKind::Regular)).map(|_| 0),
        (3, Err(_)) => ours.create(root, &pick, &file(FileKind::Directory)).map(|_| 0),
        (4, Err(_)) => ours.symlink(root, &pick, &[b's'; 90], 1, 2).map(|_| 0),
        (0..=2, Ok(at)) if at.kind == FileKind::Regular => {
            ours.write(at.inode, at.size, &data).map(|()| 0)
        }
        (3, Ok(at)) if at.kind == FileKind::Regular => {
            let changes = Changes { size: Some(at.size / 2), ..Changes::default() };
            ours.set_attributes(at.inode, &changes).map(|_| 0)
        }
        (4, Ok(at)) if at.kind == FileKind::Directory => {
            ours.create(at.inode, &other, &file(FileKind::Fifo)).map(|_| 0)
        }
        (5, Ok(_)) => ours.rename(root, &pick, root, &other, Rename::Replace).map(|()| 0),
        (6, Ok(at)) => ours.link(at.inode, root, &other).map(|_| 0),
        (7, Ok(at)) => ours
            .set_xattr(at.inode, format!("user.{number}").as_bytes(), &[1; 300], None)
            .map(|()| 0),
        (8, Ok(at)) if at.kind == FileKind::Regular => ours
            .fallocate(at.inode, at.size, 20_000, Fallocate::Allocate { keep_size: true })
            .map(|()| 0),
        (_, Ok(at)) if at.kind == FileKind::Directory => {
            ours.remove_directory(root, &pick).map(|()| 0)
        }
        (_, Ok(_)) => ours.unlink(root, &pick).map(|()| 0),
        _ => Ok(0),
    };
}

fn crash(name: &str, options: &MakeOptions, seed: u64, steps: u64, stride: u64) -> (u64, u64) {
    const SIZE: u64 = 6 << 20;
    let fresh: Arc<dyn Disk> = Arc::new(MemoryDisk::new(SIZE));
    ext::make(fresh.clone(), options).unwrap();
    let mut bytes = vec![0; SIZE as usize];
    fresh.read_at(&mut bytes, 0).unwrap();
    let initial = MemoryDisk::from_bytes(&bytes);
    let recorder = Recorder::new();
    let disk = recorder.disk(0, initial.clone());
    let ours = Ext::open(disk, false).unwrap();
    let mut rng = Rng::new(seed);
    let mut trees = vec![tree(&ours)];
    for number in 0..steps {
        recorder.begin(number + 1);
        step(&ours, &mut rng, number);
        trees.push(tree(&ours));
        if rng.one_in(4) {
            ours.sync().unwrap();
            recorder.durable(number + 1);
        }
    }
    ours.close().unwrap();
    drop(ours);
    let limits = CrashLimits { full_up_to: 8, random_subsets: 24, torn: 4, seed };
    let folder = tempfile::tempdir().unwrap();
    let (mut count, mut checked, mut confirmed) = (0, 0, 0);
    crash_states(&[initial], &recorder.log(), limits, &mut |state| {
        count += 1;
        if count % stride != 0 {
            return true;
        }
        checked += 1;
        let what = format!("{name} seed {seed} state {}", state.name);
        let content = state.files[0].clone();
        let seen = |disk: Arc<dyn Disk>, read_only| {
            let opened = Ext::open(disk, read_only).unwrap_or_else(|e| panic!("{what}: {e}"));
            tree(&opened)
        };
        let found = seen(Arc::new(content.clone()), true);
        let possible = &trees[state.durable as usize..=(state.begun as usize).min(trees.len() - 1)];
        if !possible.contains(&found) {
            let last = possible.last().unwrap();
            let differing: Vec<_> = found.iter().filter(|(k, v)| last.get(*k) != Some(v)).collect();
            panic!(
                "{what}: the tree was never there (steps {}..={}): {differing:?}",
                state.durable, state.begun
            );
        }
        let written = Arc::new(content.clone());
        assert_eq!(seen(written.clone(), false), found, "{what}: replayed onto the disk");
        // A torn superblock, which has two sectors, is more than e2fsck can bear.
        if checked % 20 == 0 && !state.name.contains('t') {
            confirmed += 1;
            let image = folder.path().join("image");
            std::fs::write(&image, content.to_bytes()).unwrap();
            try_run("e2fsck", &["-E", "journal_only", "-y", text(&image)]);
            let recovered = seen(FileDisk::open(&image), true);
            assert_eq!(recovered, found, "{what}: e2fsck's replay");
            run("e2fsck", &["-p", text(&image)]);
            assert_clean(&image, &what);
        }
        true
    });
    (checked, confirmed)
}

#[test]
fn any_cut_leaves_a_tree_that_was_there() {
    let (seeds, steps, stride) = if long() { (60, 200, 1) } else { (1, 120, 4) };
    let mut total = (0, 0);
    for seed in 0..seeds {
        for (name, profile, block) in [
            ("ext4", Profile::Ext4, 1024),
            ("ext3", Profile::Ext3, 1024),
            ("upstream", Profile::Ext4Upstream, 1024),
        ] {
            let options = MakeOptions {
                profile,
                block_size: Some(block),
                journal_blocks: Some(1024),
                inodes: Some(200),
                ..MakeOptions::default()
            };
            let (checked, confirmed) = crash(name, &options, seed, steps, stride);
            total.0 += checked;
            total.1 += confirmed;
        }
    }
    println!("{} states, {} confirmed by e2fsck", total.0, total.1);
    assert!(total.0 > 300 && total.1 > 5, "too few states: {total:?}");
}
