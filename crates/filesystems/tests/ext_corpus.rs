//! e2fsprogs' own damaged filesystems, where `E2FSPROGS_TESTS` names the `tests` folder of its
//! source (`apt-get source e2fsprogs`): each is opened, walked and checked without panic or hang;
//! our check finds something wherever e2fsck does.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use common::*;
use disksmith_filesystems::Filesystem;
use disksmith_filesystems::ext::{self, Ext};

/// Reads everything that can be read.
fn walk(filesystem: &dyn Filesystem) {
    let mut todo = vec![filesystem.root()];
    let mut seen = std::collections::HashSet::new();
    let mut buffer = vec![0; 65536];
    while let Some(inode) = todo.pop() {
        if !seen.insert(inode) {
            continue;
        }
        let _ = filesystem.attributes(inode);
        let _ = filesystem.read(inode, 0, &mut buffer);
        let _ = filesystem.read_link(inode);
        for name in filesystem.xattrs(inode).unwrap_or_default() {
            let _ = filesystem.xattr(inode, &name);
        }
        let _ = filesystem.read_directory(inode, 0, &mut |entry| {
            todo.push(entry.inode);
            true
        });
    }
}

#[test]
fn damaged_filesystems_are_borne_and_found() {
    let Some(folder) = std::env::var_os("E2FSPROGS_TESTS") else { return };
    let scratch = tempfile::tempdir().unwrap();
    let image = scratch.path().join("image");
    let mut verdicts: BTreeMap<(bool, bool), Vec<String>> = BTreeMap::new();
    let mut panicked: Vec<String> = Vec::new();
    let mut entries: Vec<_> = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    entries.sort();
    for entry in entries {
        let name = entry.file_name().unwrap().to_string_lossy().into_owned();
        let packed = entry.join("image.gz");
        if !packed.exists() || !(name.starts_with("f_") || name.starts_with("j_")) {
            continue;
        }
        let unpacked = try_run("gzip", &["-dc", text(&packed)]);
        fs::write(&image, unpacked.stdout).unwrap();
        let theirs = try_run("timeout", &["20", "e2fsck", "-fn", text(&image)]);
        let broken = theirs.status.code() != Some(0);
        let started = Instant::now();
        let outcome = std::panic::catch_unwind(|| {
            let found = match ext::check(FileDisk::open(&image)) {
                Ok(report) => !report.findings.is_empty(),
                Err(_) => true,
            };
            if let Ok(filesystem) = Ext::open(FileDisk::open(&image), true) {
                walk(&filesystem);
            }
            found
        });
        let Ok(found) = outcome else {
            panicked.push(name);
            continue;
        };
        let took = started.elapsed();
        assert!(took < Duration::from_secs(60), "{name} took {took:?}");
        verdicts.entry((broken, found)).or_default().push(name);
    }
    for ((broken, found), names) in &verdicts {
        println!(
            "e2fsck {broken} ours {found}: {} {}",
            names.len(),
            if broken != found { names.join(" ") } else { String::new() }
        );
    }
    assert!(panicked.is_empty(), "panics: {panicked:?}");
    let count = |key| verdicts.get(&key).map_or(0, Vec::len);
    let (missed, caught) = (count((true, false)), count((true, true)));
    assert!(caught * 100 >= (caught + missed) * 90, "{missed} of {} missed", caught + missed);
}
