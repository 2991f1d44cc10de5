//! Power cuts during changes to FAT volumes: fsck.fat and our check find at most clusters that
//! belong to nothing, copies that differ, marks and counts; files that were synced and not touched
//! since are as they were.
//!
//! `DISKSMITH_CRASH_STATES` sets how many states to look at.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::fs;
use std::sync::Arc;

use common::changes::new;
use common::cuts::{Tree, make_movable, move_on, step, tree};
use common::*;
use disksmith_disk::MemoryDisk;
use disksmith_filesystems::fat::{self, Fat, FatKind, FatOptions};
use disksmith_filesystems::{FileKind, Filesystem};
use disksmith_testkit::{CrashLimits, Recorder, Rng, crash_states};

/// What a cut may leave, as we and as fsck.fat put it.
const HARMLESS: &[&str] = &[
    "marked as in use",
    "belong to no file",
    "differs from the first",
    "FSInfo",
    "more clusters than",
    // A file that moves to another directory is there twice for a moment.
    "has the clusters of another name",
    "leads elsewhere",
];

#[test]
fn a_cut_leaves_lost_clusters_at_most() {
    let budget: usize =
        std::env::var("DISKSMITH_CRASH_STATES").map_or(3000, |n| n.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("image");
    let limits = CrashLimits { full_up_to: 6, random_subsets: 12, torn: 4, seed: 3 };
    let (mut looked_at, mut asked) = (0, 0);
    let mut seed = 0;
    while looked_at < budget {
        seed += 1;
        let kind = [FatKind::Fat12, FatKind::Fat16, FatKind::Fat32][seed as usize % 3];
        let start = MemoryDisk::new(3 << 20);
        let disk = Arc::new(start);
        let options = FatOptions {
            kind: Some(kind),
            cluster_size: Some(if kind == FatKind::Fat12 { 1024 } else { 512 }),
            ..FatOptions::default()
        };
        fat::make(&*disk, &options).unwrap();
        let initial = (*disk).clone();
        let recorder = Recorder::new();
        let disk = recorder.disk(0, initial.clone());
        let ours = Fat::open(disk, false).unwrap();
        let mut rng = Rng::new(seed);
        // The tree at each sync, and what was touched between one sync and the next.
        let mut synced: Vec<Tree> = vec![Tree::new()];
        let mut touched: Vec<Vec<Vec<u8>>> = vec![Vec::new()];
        ours.create(ours.root(), b"folder", &new(FileKind::Directory)).unwrap();
        for round in 0..8 {
            recorder.begin(synced.len() as u64);
            for _ in 0..1 + rng.below(8) {
                let more = step(&ours, &mut rng, round);
                touched.last_mut().unwrap().extend(more);
            }
            ours.sync().unwrap();
            synced.push(tree(&ours, "live"));
            touched.push(Vec::new());
            recorder.durable(synced.len() as u64 - 1);
        }
        ours.close().unwrap();
        let log = recorder.log();
        let every = 7;
        let mut number = 0;
        crash_states(&[initial], &log, limits, &mut |state| {
            number += 1;
            if number % every != 0 {
                return true;
            }
            looked_at += 1;
            let what = format!("seed {seed} ({kind:?}), state {}", state.name);
            let disk = Arc::new(state.files[0].clone());
            let ours = Fat::open(disk.clone(), true).unwrap_or_else(|e| panic!("{what}: {e}"));
            let now = tree(&ours, &what);
            let last = state.durable as usize;
            let changed: Vec<&Vec<u8>> = touched
                .iter()
                .skip(last)
                .take((state.begun as usize).saturating_sub(last))
                .flatten()
                .collect();
            let is_touched = |path: &[u8]| {
                changed.iter().any(|other| {
                    path.eq_ignore_ascii_case(other)
                        || path
                            .to_ascii_lowercase()
                            .starts_with(&[&other.to_ascii_lowercase()[..], b"/"].concat())
                })
            };
            for (path, bytes) in &synced[last] {
                if !is_touched(path) {
                    let shown = String::from_utf8_lossy(path);
                    assert!(
                        now.get(path) == Some(bytes),
                        "{what}: {shown} was synced and is gone or different"
                    );
                }
            }
            let report = fat::check(disk.clone()).unwrap();
            for finding in &report.findings {
                assert!(HARMLESS.iter().any(|known| finding.contains(known)), "{what}: {finding}");
            }
            let moving = report.findings.iter().any(|finding| finding.contains("another name"));
            if looked_at % 20 == 0 && !moving {
                asked += 1;
                fs::write(&image, disk.to_bytes()).unwrap();
                let output = try_run("fsck.fat", &["-n", text(&image)]);
                let said = String::from_utf8_lossy(&output.stdout).into_owned();
                let bad = [
                    "shares",
                    "share clusters",
                    "free cluster",
                    "Bad file name",
                    "Duplicate",
                    "Start cluster beyond",
                    "Cluster chain length is",
                ];
                for words in bad {
                    assert!(!said.contains(words), "{what}: fsck.fat: {said}");
                }
            }
            // Mended, nothing is found any more.
            if looked_at % 10 == 0 {
                fat::repair(disk.clone(), fat::Mend::All(fat::Lost::Free)).unwrap();
                let report = fat::check(disk).unwrap();
                assert!(
                    report.findings.is_empty(),
                    "{what}: after a repair: {:?}",
                    report.findings
                );
            }
            looked_at < budget
        });
    }
    assert!(asked > 10, "fsck.fat was asked {asked} times");
}

#[test]
fn a_file_that_moves_is_never_gone() {
    let budget: usize =
        std::env::var("DISKSMITH_CRASH_STATES").map_or(1500, |n| n.parse().unwrap());
    let limits = CrashLimits { full_up_to: 6, random_subsets: 12, torn: 4, seed: 5 };
    let (mut looked_at, mut seed) = (0, 0);
    while looked_at < budget {
        seed += 1;
        let kind = [FatKind::Fat12, FatKind::Fat16, FatKind::Fat32][seed as usize % 3];
        let disk = Arc::new(MemoryDisk::new(3 << 20));
        let options = FatOptions {
            kind: Some(kind),
            cluster_size: Some(if kind == FatKind::Fat12 { 1024 } else { 512 }),
            ..FatOptions::default()
        };
        fat::make(&*disk, &options).unwrap();
        let ours = Fat::open(disk.clone(), false).unwrap();
        let content = make_movable(&ours);
        ours.close().unwrap();
        let initial = (*disk).clone();
        let recorder = Recorder::new();
        let ours = Fat::open(recorder.disk(0, initial.clone()), false).unwrap();
        let mut rng = Rng::new(seed);
        let mut at = ("a".to_string(), "file".to_string());
        for _ in 0..12 {
            move_on(&ours, &mut rng, &mut at);
            if rng.one_in(2) {
                ours.sync().unwrap();
            }
        }
        ours.close().unwrap();
        let log = recorder.log();
        crash_states(&[initial], &log, limits, &mut |state| {
            looked_at += 1;
            let what = format!("seed {seed} ({kind:?}), state {}", state.name);
            let disk = Arc::new(state.files[0].clone());
            let has = |when: &str| {
                let ours = Fat::open(disk.clone(), true).unwrap();
                let there = tree(&ours, &what).values().any(|bytes| *bytes == content);
                assert!(there, "{what}: the file is gone {when}");
            };
            has("after the cut");
            if looked_at % 8 == 0 {
                fat::repair(disk.clone(), fat::Mend::All(fat::Lost::Free)).unwrap();
                has("after the repair");
                assert_eq!(fat::check(disk.clone()).unwrap().findings, [""; 0], "{what}");
            }
            looked_at < budget
        });
    }
}
