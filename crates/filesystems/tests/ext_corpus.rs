//! e2fsprogs' own damaged filesystems, where `E2FSPROGS_TESTS` names the `tests` folder of its
//! source (`cargo xtask corpus` fetches it): each is opened, walked, checked and repaired without
//! panic or hang; our check finds something where e2fsck does and nowhere else; what our repair calls
//! clean, e2fsck calls clean.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use common::*;
use disksmith_filesystems::Filesystem;
use disksmith_filesystems::ext::{self, Ext, Repair};

/// Where e2fsck is mistaken: it does not count the attribute blocks of symlinks with inline data.
const QUIRKS: &[&str] = &["f_inlinedata_repair"];

/// Checking or repairing one takes no longer.
const TIME_MAX: Duration = Duration::from_secs(20);

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

/// What e2fsck says, and whether it finds anything. Trees that could be smaller are no damage.
fn e2fsck(image: &Path) -> (bool, String) {
    let output = try_run("timeout", &["20", "e2fsck", "-fn", text(image)]);
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    let asked = |line: &str| line.contains("? no") && !line.contains("Optimize");
    let found = !matches!(output.status.code(), Some(0 | 4))
        || said.lines().any(asked)
        || said.contains("trying backup blocks");
    (found, said)
}

/// e2fsck's verdict once it has replayed the journal.
fn their_verdict(image: &Path, copy: &Path) -> bool {
    fs::copy(image, copy).unwrap();
    if !needs_recovery(image).unwrap_or(false) {
        return e2fsck(copy).0;
    }
    let replayed = try_run("timeout", &["20", "e2fsck", "-y", "-E", "journal_only", text(copy)]);
    let mended = String::from_utf8_lossy(&replayed.stdout).contains("? yes");
    let said = e2fsck(copy).1;
    // The kernel brings the superblock's counts up to date when it unmounts only: after a replay
    // they are no damage.
    let counts = |line: &str| {
        line.starts_with("Free blocks count wrong (")
            || line.starts_with("Free inodes count wrong (")
    };
    let lines: Vec<&str> = said.lines().filter(|line| !line.is_empty()).collect();
    let asked = |pair: &[&str]| {
        pair[1].contains("? no") && !pair[1].contains("Optimize") && !counts(pair[0])
    };
    mended || lines.windows(2).any(asked)
}

fn needs_recovery(image: &Path) -> std::io::Result<bool> {
    use std::os::unix::fs::FileExt;
    let mut word = [0; 4];
    fs::File::open(image)?.read_exact_at(&mut word, 1024 + 0x60)?;
    Ok(u32::from_le_bytes(word) & 4 != 0)
}

#[derive(Default)]
struct Outcome {
    name: String,
    theirs: bool,
    ours: bool,
    panicked: bool,
    slowest: Duration,
    /// What e2fsck says of what our repair called clean.
    wrong: Option<String>,
    /// What our repair said that it left.
    left: Option<String>,
}

fn judge(name: String, image: &Path, copy: &Path) -> Outcome {
    let mut outcome = Outcome { name, theirs: their_verdict(image, copy), ..Outcome::default() };
    let looked = Instant::now();
    let checked = std::panic::catch_unwind(|| {
        let report = ext::check(FileDisk::open(image));
        if std::env::var_os("E2FSPROGS_ONLY").is_some() {
            println!("{report:#?}");
        }
        let found = report.map_or(true, |report| report.count > 0);
        let took = looked.elapsed();
        if let Ok(filesystem) = Ext::open(FileDisk::open(image), true) {
            walk(&filesystem);
        }
        (found, took)
    });
    let Ok((found, took)) = checked else {
        outcome.panicked = true;
        return outcome;
    };
    (outcome.ours, outcome.slowest) = (found, took);
    fs::copy(image, copy).unwrap();
    let started = Instant::now();
    let mended = std::panic::catch_unwind(|| ext::repair(FileDisk::open(copy), Repair::All));
    outcome.slowest = outcome.slowest.max(started.elapsed());
    match mended {
        Err(_) => outcome.panicked = true,
        Ok(Err(why)) => outcome.left = Some(why.to_string()),
        Ok(Ok(report)) if !report.clean() => {
            outcome.left = Some(format!("{:?}", report.last.findings));
        }
        Ok(Ok(report)) => {
            if std::env::var_os("E2FSPROGS_ONLY").is_some() {
                println!("{:#?}", report.found);
            }
            let (found, said) = e2fsck(copy);
            let quirk = QUIRKS.contains(&outcome.name.as_str());
            outcome.wrong = (found && !quirk).then_some(said);
        }
    }
    outcome
}

#[test]
fn damaged_filesystems_are_borne_found_and_mended() {
    let Some(folder) = std::env::var_os("E2FSPROGS_TESTS") else { return };
    let only = std::env::var("E2FSPROGS_ONLY").ok();
    let mut entries: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|path| {
            let name = path.file_name().unwrap().to_string_lossy();
            let wanted = only.as_ref().is_none_or(|only| only.split(',').any(|o| o == name));
            wanted
                && (name.starts_with("f_") || name.starts_with("j_"))
                && path.join("image.gz").exists()
        })
        .collect();
    entries.sort();
    let (next, outcomes) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let scratch = tempfile::tempdir().unwrap();
                let (image, copy) = (scratch.path().join("image"), scratch.path().join("copy"));
                while let Some(entry) = entries.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let name = entry.file_name().unwrap().to_string_lossy().into_owned();
                    let packed = entry.join("image.gz");
                    fs::write(&image, try_run("gzip", &["-dc", text(&packed)]).stdout).unwrap();
                    let outcome = judge(name, &image, &copy);
                    outcomes.lock().unwrap().push(outcome);
                }
            });
        }
    });
    let outcomes = outcomes.into_inner().unwrap();
    report(&outcomes);
    let count = |what: &dyn Fn(&Outcome) -> bool| outcomes.iter().filter(|o| what(o)).count();
    assert_eq!(count(&|o| o.panicked), 0);
    assert_eq!(count(&|o| o.slowest > TIME_MAX), 0);
    assert_eq!(count(&|o| o.wrong.is_some()), 0, "repaired, but not by e2fsck's standards");
    if only.is_none() {
        let same = count(&|o| o.ours == o.theirs);
        assert!(same * 100 >= outcomes.len() * 95, "{same} of {}", outcomes.len());
    }
}

fn report(outcomes: &[Outcome]) {
    let names = |what: &dyn Fn(&Outcome) -> bool| -> Vec<&str> {
        outcomes.iter().filter(|o| what(o)).map(|o| o.name.as_str()).collect()
    };
    let same = names(&|o| o.ours == o.theirs);
    println!("{} images, {} verdicts alike", outcomes.len(), same.len());
    println!("missed: {:?}", names(&|o| o.theirs && !o.ours));
    println!("found by us alone: {:?}", names(&|o| !o.theirs && o.ours));
    println!("panics: {:?}", names(&|o| o.panicked));
    println!("over 2 s: {:?}", names(&|o| o.slowest > Duration::from_secs(2)));
    println!("mended: {}", names(&|o| !o.panicked && o.left.is_none() && o.wrong.is_none()).len());
    for outcome in outcomes {
        if let Some(left) = &outcome.left {
            println!("left: {}: {}", outcome.name, &left[..left.len().min(400)]);
        }
        if let Some(said) = &outcome.wrong {
            println!("WRONG: {}: {}", outcome.name, &said[..said.len().min(1500)]);
        }
    }
}
