//! Power cuts in the middle of whole commands, ours and qemu-img's: what each wrote is read from
//! its system calls, cut everywhere, and judged in the same way. QEMU's figures are the baseline;
//! ours must be free of what is wrong.
//!
//! `DISKSMITH_LONG=1` takes the simulator's full limits and prints the table of
//! docs/reliability.md; `DISKSMITH_CRASH_ROW=NAME` one row.
#![allow(clippy::unwrap_used, missing_docs, reason = "helpers of tests fail by a panic")]

mod judge;
mod rows;
mod trace;

use std::path::Path;
use std::process::Command;

use disksmith_disk::{Disk, MemoryDisk};
use disksmith_testkit::{CrashLimits, Operation, crash_states};

use judge::{Found, judge, views};
use rows::{ROWS, Row};

/// Every so many states qemu-img is asked too.
const ORACLE: u64 = 61;
/// The rows of an ordinary test run.
const QUICK: &[&str] = &["convert into an image", "snapshot create", "amend: refcount width"];

fn tools() -> String {
    format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default())
}

fn shell(folder: &Path, script: &str) {
    let output =
        Command::new("bash").args(["-ec", script]).current_dir(folder).output().expect("bash");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}: {said}");
}

/// States by what was found.
#[derive(Default)]
struct Counts {
    sound: [u64; 4],
    wrong: u64,
    example: Option<String>,
}

/// Sets a row up, lets the program of that search path do its command, and cuts it everywhere.
fn cut(row: &Row, path: &str, limits: CrashLimits) -> Counts {
    let folder = tempfile::tempdir().unwrap();
    // As system calls name it.
    let place = folder.path().canonicalize().unwrap();
    shell(&place, row.setup);
    let read = || -> Vec<MemoryDisk> {
        let bytes = row.files.iter().map(|name| std::fs::read(place.join(name)).unwrap());
        bytes.map(|bytes| MemoryDisk::from_bytes(&bytes)).collect()
    };
    let initial = read();
    let sizes: Vec<_> = initial.iter().map(Disk::size).collect();
    let mut log = vec![Operation::Begin(0)];
    log.extend(trace::operations(&place, path, row.command, row.files, &sizes));
    log.push(Operation::Durable(1));
    let last = read();
    let before = views(&initial, row.files).unwrap();
    let after = views(&last, row.files).unwrap();
    let mut counts = Counts::default();
    let number = crash_states(&initial, &log, limits, &mut |state| {
        let asked = counts.sound.iter().sum::<u64>() % ORACLE == 0;
        let start = if state.durable == 1 { &after } else { &before };
        match judge(&state.files, row.files, (start, &after), asked) {
            Found::Sound(verdict) => counts.sound[verdict as usize] += 1,
            Found::Wrong(why) => {
                counts.wrong += 1;
                counts.example.get_or_insert(format!("state {}: {why}", state.name));
            }
        }
        true
    });
    assert!(number > 0, "{}: nothing was written", row.name);
    replayed(row, &initial, &log, &last);
    counts
}

/// What was recorded is all that was done.
fn replayed(row: &Row, initial: &[MemoryDisk], log: &[Operation], last: &[MemoryDisk]) {
    let files = initial.to_vec();
    log.iter().for_each(|operation| operation.apply(&files));
    for ((made, there), name) in files.iter().zip(last).zip(row.files) {
        assert!(made.to_bytes() == there.to_bytes(), "{}: {name} differs in replay", row.name);
    }
}

#[test]
fn cuts_of_whole_commands() {
    let long = std::env::var_os("DISKSMITH_LONG").is_some();
    let only = std::env::var("DISKSMITH_CRASH_ROW").ok();
    let limits = match long {
        true => CrashLimits::default(),
        false => CrashLimits { full_up_to: 5, random_subsets: 8, torn: 4, seed: 11 },
    };
    let ours = tempfile::tempdir().unwrap();
    let program = env!("CARGO_BIN_EXE_disksmith");
    std::os::unix::fs::symlink(program, ours.path().join("qemu-img")).unwrap();
    let ours_first = format!("{}:{}", ours.path().display(), tools());
    println!("| operation | | states | clean | leaks only | marked | corrupt | wrong |");
    let mut faults = Vec::new();
    for row in ROWS {
        let chosen = match &only {
            Some(name) => name == row.name,
            None => long || QUICK.contains(&row.name),
        };
        if !chosen {
            continue;
        }
        for (who, path) in [("QEMU", &tools()), ("ours", &ours_first)] {
            if (who == "ours" && row.command.starts_with("qemu-io")) || (who == "QEMU" && !long) {
                continue;
            }
            let counts = cut(row, path, limits);
            let [clean, leaks, marked, corrupt] = counts.sound;
            let states = counts.sound.iter().sum::<u64>() + counts.wrong;
            println!(
                "| {} | {who} | {states} | {clean} | {leaks} | {marked} | {corrupt} | {} |",
                row.name, counts.wrong
            );
            if let Some(example) = &counts.example {
                println!("    {who}: {}: {example}", row.name);
            }
            let unmarked = corrupt > 0 && !row.damaged;
            if who == "ours" && (counts.wrong > 0 || unmarked) {
                faults.push(format!("{}: {:?}, {:?}", row.name, counts.sound, counts.example));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
