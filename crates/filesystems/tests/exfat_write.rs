//! Changes to exFAT volumes, held against a model in memory and fsck.exfat.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::collections::BTreeMap;
use std::path::Path;

use common::changes::{Work, walk};
use common::*;
use disksmith_filesystems::fat::exfat::{self, Exfat, ExfatOptions};
use disksmith_filesystems::Filesystem;
use disksmith_testkit::Rng;

/// `fsck.exfat -n` finds nothing at all.
fn assert_clean_exfat(image: &Path, what: &str) {
    let output = try_run("fsck.exfat", &["-n", text(image)]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{what}: fsck.exfat: {}\n{said}", output.status);
    let last = said.lines().find(|line| line.starts_with(text(image))).unwrap_or("");
    assert!(last.contains(": clean"), "{what}: fsck.exfat: {said}");
    let report = exfat::check(FileDisk::open(image)).unwrap();
    assert!(report.findings.is_empty(), "{what}: our check: {:#?}", report.findings);
    for word in ["ERROR", "WARN", "rror:", "orrupt"] {
        assert!(!said.contains(word), "{what}: fsck.exfat: {said}");
    }
}

fn make(image: &Path, size: u64, sector: u32, cluster: u32) {
    let options = ExfatOptions {
        sector_size: Some(sector),
        cluster_size: Some(cluster),
        ..ExfatOptions::default()
    };
    exfat::make(&*FileDisk::create(image, size), &options).unwrap();
}

#[test]
fn random_changes_do_what_a_model_does() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("image");
    let rounds = if long() { 60 } else { 10 };
    let shapes = [
        (6 << 20, 512, 512),
        (20 << 20, 512, 4096),
        (40 << 20, 4096, 4096),
        (20 << 20, 512, 1024),
        (40 << 20, 512, 32_768),
    ];
    for round in 0..rounds {
        let (size, sector, cluster) = shapes[round % shapes.len()];
        make(&image, size, sector, cluster);
        let mut model = BTreeMap::new();
        for session in 0..2 {
            let ours = Exfat::open(FileDisk::open(&image), false).unwrap();
            let seed = (round * 10 + session) as u64;
            let mut work = Work { ours: &ours, rng: Rng::new(seed), model };
            for _ in 0..500 {
                work.step();
            }
            let what = format!("round {round}.{session} ({sector}, {cluster})");
            assert_eq!(
                walk(&ours).keys().collect::<Vec<_>>(),
                work.tree().keys().collect::<Vec<_>>(),
                "{what}"
            );
            assert!(walk(&ours) == work.tree(), "{what}: content");
            ours.close().unwrap();
            model = work.model;
            assert_clean_exfat(&image, &what);
            let again = Exfat::open(FileDisk::open(&image), true).unwrap();
            assert!(!again.is_dirty(), "{what}");
            let tree: BTreeMap<_, _> = model.values().cloned().collect();
            assert!(walk(&again) == tree, "{what}: read again");
        }
    }
}
