//! Power cuts during changes to exFAT volumes: what was synced and not touched since is as it was,
//! our check finds nothing but what a cut may leave, and after our repair fsck.exfat is content.
//!
//! `DISKSMITH_CRASH_STATES` sets how many states to look at.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::fs;
use std::path::Path;
use std::sync::Arc;

use common::changes::new;
use common::cuts::{Tree, make_movable, move_on, step, tree};
use common::*;
use disksmith_disk::{Disk, MemoryDisk};
use disksmith_filesystems::fat::exfat::{self, Exfat, ExfatOptions};
use disksmith_filesystems::fat::{Lost, Mend, Tune};
use disksmith_filesystems::{FileKind, Filesystem};
use disksmith_testkit::{CrashLimits, Recorder, Rng, crash_states};

/// What a cut may leave, as we put it.
const HARMLESS: &[&str] = &[
    "marked as in use",
    "belong to no file",
    "more clusters than",
    // A file that moves is there twice for a moment.
    "has the clusters of another name",
    // A directory's new cluster before its new length, or the reverse.
    "the entries of a file are not whole",
    "belongs to no file",
];

fn made(cluster: u32, sector: u32) -> MemoryDisk {
    let disk = MemoryDisk::new(3 << 20);
    let options = ExfatOptions {
        cluster_size: Some(cluster),
        sector_size: Some(sector),
        ..ExfatOptions::default()
    };
    exfat::make(&disk, &options).unwrap();
    disk
}

fn assert_fsck(image: &Path, disk: &MemoryDisk, what: &str) {
    fs::write(image, disk.to_bytes()).unwrap();
    let output = try_run("fsck.exfat", &["-n", text(image)]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    let clean = output.status.success() && said.contains(": clean") && !said.contains("ERROR");
    assert!(clean, "{what}: fsck.exfat: {said}");
}

fn budget(default: usize) -> usize {
    std::env::var("DISKSMITH_CRASH_STATES").map_or(default, |n| n.parse().unwrap())
}

const SHAPES: [(u32, u32); 4] = [(512, 512), (1024, 512), (4096, 4096), (4096, 512)];
const LIMITS: CrashLimits = CrashLimits { full_up_to: 6, random_subsets: 12, torn: 4, seed: 3 };

/// A disk writes each of its own sectors whole; the simulator tears between those of 512 bytes.
fn limits(sector: u32) -> CrashLimits {
    CrashLimits { torn: if sector == 512 { LIMITS.torn } else { 0 }, ..LIMITS }
}

#[test]
fn a_cut_leaves_lost_clusters_at_most() {
    let budget = budget(1200);
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("image");
    let (mut looked_at, mut asked, mut seed) = (0, 0, 0);
    while looked_at < budget {
        seed += 1;
        let (cluster, sector) = SHAPES[seed as usize % SHAPES.len()];
        let initial = made(cluster, sector);
        let recorder = Recorder::new();
        let ours = Exfat::open(recorder.disk(0, initial.clone()), false).unwrap();
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
        let mut number = 0;
        crash_states(&[initial], &log, limits(sector), &mut |state| {
            number += 1;
            if number % 7 != 0 {
                return true;
            }
            looked_at += 1;
            let what = format!("seed {seed} ({cluster}, {sector}), state {}", state.name);
            let disk = Arc::new(state.files[0].clone());
            let ours = Exfat::open(disk.clone(), true).unwrap_or_else(|e| panic!("{what}: {e}"));
            let now = tree(&ours, &what);
            let last = state.durable as usize;
            let open = (state.begun as usize).saturating_sub(last);
            let changed: Vec<&Vec<u8>> = touched.iter().skip(last).take(open).flatten().collect();
            assert_kept(&synced[last], &now, &changed, &what);
            let report = exfat::check(disk.clone()).unwrap();
            for finding in &report.findings {
                assert!(HARMLESS.iter().any(|known| finding.contains(known)), "{what}: {finding}");
            }
            if looked_at % 10 == 0 {
                asked += 1;
                exfat::repair(disk.clone(), Mend::All(Lost::Free)).unwrap();
                let report = exfat::check(disk.clone()).unwrap();
                assert!(report.findings.is_empty(), "{what}: mended: {:?}", report.findings);
                assert_fsck(&image, &disk, &what);
                let ours = Exfat::open(disk.clone(), true).unwrap();
                assert_kept(&synced[last], &tree(&ours, &what), &changed, &what);
            }
            looked_at < budget
        });
    }
    assert!(asked > 10, "fsck.exfat was asked {asked} times");
}

/// What was synced and is not among what changed is there.
fn assert_kept(synced: &Tree, now: &Tree, changed: &[&Vec<u8>], what: &str) {
    for (path, bytes) in synced {
        let lower = path.to_ascii_lowercase();
        let touched = changed.iter().any(|other| {
            let other = other.to_ascii_lowercase();
            lower == other || lower.starts_with(&[&other[..], b"/"].concat())
        });
        let shown = String::from_utf8_lossy(path);
        assert!(
            touched || now.get(path) == Some(bytes),
            "{what}: {shown} was synced and is gone or different"
        );
    }
}

#[test]
fn a_file_that_moves_is_never_gone() {
    let budget = budget(700);
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("image");
    let (mut looked_at, mut seed) = (0, 0);
    while looked_at < budget {
        seed += 1;
        let (cluster, sector) = SHAPES[seed as usize % SHAPES.len()];
        let initial = made(cluster, sector);
        let disk = Arc::new(initial);
        let ours = Exfat::open(disk.clone(), false).unwrap();
        let content = make_movable(&ours);
        ours.close().unwrap();
        let initial = (*disk).clone();
        let recorder = Recorder::new();
        let ours = Exfat::open(recorder.disk(0, initial.clone()), false).unwrap();
        let mut rng = Rng::new(seed);
        let mut at = ("a".to_string(), "file".to_string());
        for _ in 0..12 {
            move_on(&ours, &mut rng, &mut at);
            if rng.one_in(2) {
                ours.sync().unwrap();
            }
        }
        ours.close().unwrap();
        crash_states(&[initial], &recorder.log(), limits(sector), &mut |state| {
            looked_at += 1;
            let what = format!("seed {seed} ({cluster}, {sector}), state {}", state.name);
            let disk = Arc::new(state.files[0].clone());
            let has = |when: &str| {
                let ours = Exfat::open(disk.clone(), true).unwrap();
                let there = tree(&ours, &what).values().any(|bytes| *bytes == content);
                assert!(there, "{what}: the file is gone {when}");
            };
            has("after the cut");
            if looked_at % 8 == 0 {
                exfat::repair(disk.clone(), Mend::All(Lost::Free)).unwrap();
                has("after the repair");
                assert_fsck(&image, &disk, &what);
            }
            looked_at < budget
        });
    }
}

#[test]
fn a_cut_while_label_and_serial_number_change_can_be_mended() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("image");
    let initial = made(4096, 512);
    let recorder = Recorder::new();
    let tune = Tune { label: Some(b"new".to_vec()), serial: Some(0xABCD_0123), time: None };
    exfat::tune(recorder.disk(0, initial.clone()), &tune).unwrap();
    let before = Exfat::open(Arc::new(initial.clone()), true).unwrap().uuid();
    let mut seen = [0; 2];
    crash_states(&[initial], &recorder.log(), LIMITS, &mut |state| {
        let what = format!("state {}", state.name);
        let disk = Arc::new(state.files[0].clone());
        exfat::repair(disk.clone(), Mend::All(Lost::Free)).unwrap();
        assert_fsck(&image, &disk, &what);
        let ours = Exfat::open(disk.clone(), true).unwrap();
        assert!(ours.label().is_empty() || ours.label() == b"new", "{what}");
        let uuid = ours.uuid();
        assert!(uuid == before || uuid == "ABCD-0123", "{what}: {uuid}");
        seen[usize::from(uuid == before)] += 1;
        assert!(disk.size() > 0);
        true
    });
    assert!(seen[0] > 0 && seen[1] > 0, "{seen:?}");
}
