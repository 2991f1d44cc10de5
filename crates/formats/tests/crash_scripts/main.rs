//! Power cuts during fixed scripts: amendments, bitmaps, growth of tables, resizing, emptying,
//! repairs of damaged images. At every state each sector of the disk and of every snapshot is as
//! before or as after the script; the image is sound, or marked and mended by the next writer.
//!
//! `DISKSMITH_LONG=1` takes the simulator's full limits; `DISKSMITH_CRASH_SCRIPT=NAME` one script.
#![allow(clippy::unwrap_used, missing_docs, reason = "helpers of tests fail by a panic")]

#[path = "../common/mod.rs"]
mod common;
mod damage;
mod failures;
mod scripts;
mod seeds;

use std::sync::Arc;

use common::views::{Views, allowed};
use disksmith_crypt::Secret;
use disksmith_disk::{Disk, MemoryDisk};
use disksmith_formats::{Image, OpenMode, OpenRequest, Repair, driver};
use disksmith_testkit::{CrashLimits, CrashState, Recorder, Tally, Verdict, crash_states, oracle};

pub(crate) type Action = fn(&dyn Image) -> disksmith_disk::Result<()>;

/// One script.
pub(crate) struct Script {
    pub(crate) name: String,
    /// The row of the table that it counts in.
    pub(crate) row: &'static str,
    pub(crate) initial: MemoryDisk,
    /// The external data file, if it has one.
    pub(crate) data: Option<MemoryDisk>,
    pub(crate) action: Action,
    /// The image is damaged from the start, and the action repairs.
    pub(crate) damaged: bool,
    /// Passwords, of which one must open the image at any time.
    pub(crate) passwords: &'static [&'static str],
}

/// Every so many states qemu-img looks too.
const ORACLE: u64 = 97;

/// Opens an image; its data file is the second disk.
pub(crate) fn try_open(
    files: &[Arc<dyn Disk>],
    mode: OpenMode,
    password: Option<&str>,
) -> disksmith_disk::Result<Arc<dyn Image>> {
    let secret = password.map(|word| Secret::new(word.into()));
    let request = OpenRequest { mode, secret, ..OpenRequest::default() };
    let image = (driver("qcow2").unwrap().open)(files[0].clone(), request)?;
    if let Some(data) = files.get(1) {
        image.attach_data_file(data.clone())?;
    }
    Ok(image)
}

pub(crate) fn copies(files: &[MemoryDisk]) -> Vec<Arc<dyn Disk>> {
    files.iter().map(|file| Arc::new(file.clone()) as Arc<dyn Disk>).collect()
}

pub(crate) fn views(image: &dyn Image) -> Views {
    common::views::views(image).unwrap()
}

fn check(image: &dyn Image) -> (u64, u64) {
    let report = image.check(Repair::None, &mut |_| {}).unwrap().unwrap();
    (report.corruptions, report.leaks)
}

/// Cuts a script everywhere and judges what is left.
pub(crate) fn cut(script: &Script, tally: &mut Tally) {
    let name = &script.name;
    let password = script.passwords.first().copied();
    let mode = if script.damaged { OpenMode::Repair } else { OpenMode::Write };
    let initial: Vec<_> = [&script.initial].into_iter().chain(&script.data).cloned().collect();
    let recorder = Recorder::new();
    let disks: Vec<_> =
        initial.iter().enumerate().map(|(n, disk)| recorder.disk(n, disk.clone())).collect();
    let before = views(
        &*try_open(&copies(&initial), OpenMode::Read, password)
            .unwrap_or_else(|error| panic!("{name}: {error}")),
    );
    let files: Vec<_> = disks.iter().map(|disk| disk.clone() as Arc<dyn Disk>).collect();
    let image = try_open(&files, mode, password).unwrap();
    recorder.begin(0);
    (script.action)(&*image).unwrap_or_else(|error| panic!("{name}: {error}"));
    image.close().unwrap();
    recorder.durable(1);
    drop(image);
    let last = script.passwords.last().copied();
    let left: Vec<_> = disks.iter().map(|disk| disk.content()).collect();
    let after = views(&*try_open(&copies(&left), OpenMode::Read, last).unwrap());
    let limits = match std::env::var_os("DISKSMITH_LONG") {
        Some(_) => CrashLimits::default(),
        None => CrashLimits { full_up_to: 5, random_subsets: 8, torn: 4, seed: 3 },
    };
    let mut number = 0;
    crash_states(&initial, &recorder.log(), limits, &mut |state| {
        number += 1;
        let before = if state.durable == 1 { &after } else { &before };
        match judge(script, &state, (before, &after), number % ORACLE == 1) {
            Ok(verdict) => tally.count(script.row, verdict),
            Err(why) => panic!("{name}, state {}: {why}", state.name),
        }
        true
    });
}

pub(crate) fn judge(
    script: &Script,
    state: &CrashState,
    (before, after): (&Views, &Views),
    ask: bool,
) -> Result<Verdict, String> {
    let storage = copies(&state.files);
    let passwords: Vec<_> = match script.passwords {
        [] => vec![None],
        some => some.iter().map(|word| Some(*word)).collect(),
    };
    let (image, password) = passwords
        .iter()
        .find_map(|word| Some((try_open(&storage, OpenMode::Read, *word).ok()?, *word)))
        .ok_or("does not open")?;
    allowed(&views(&*image), before, after)?;
    let dirty = image.dirty() == Some(true);
    let (corruptions, leaks) = check(&*image);
    let verdict = match (corruptions, leaks) {
        (0, 0) => Verdict::Clean,
        (0, _) => Verdict::Leaks,
        _ if dirty => Verdict::Marked,
        _ if script.damaged => Verdict::Corrupt,
        _ => return Err(format!("{corruptions} corruptions, and not marked")),
    };
    drop(image);
    if ask && password.is_none() {
        ask_qemu(&state.files, verdict)?;
    }
    if script.damaged {
        let image = try_open(&storage, OpenMode::Repair, password);
        let image = image.map_err(|e| format!("to repair: {e}"))?;
        image.check(Repair::All, &mut |_| {}).map_err(|e| format!("repairing: {e}"))?;
        image.close().map_err(|e| format!("repairing: {e}"))?;
    }
    let image = try_open(&storage, OpenMode::Write, password);
    let image = image.map_err(|e| format!("opening for writing: {e}"))?;
    if check(&*image).0 != 0 {
        return Err("corrupt after opening for writing".into());
    }
    allowed(&views(&*image), before, after).map_err(|e| format!("opened for writing: {e}"))?;
    image.write_at(&[9; 512], 0).map_err(|e| format!("writing: {e}"))?;
    image.close().map_err(|e| format!("closing: {e}"))?;
    match check(&*image).0 {
        0 => Ok(verdict),
        n => Err(format!("{n} corruptions after writing")),
    }
}

/// The same class of verdict from the genuine tool.
fn ask_qemu(files: &[MemoryDisk], ours: Verdict) -> Result<(), String> {
    let folder = tempfile::tempdir().map_err(|e| e.to_string())?;
    let path = folder.path().join("image.qcow2");
    for (file, path) in files.iter().zip([&path, &folder.path().join(seeds::DATA_FILE)]) {
        std::fs::write(path, file.to_bytes()).map_err(|e| e.to_string())?;
    }
    let (status, text) = oracle::qemu_check("qcow2", &path);
    let right = match ours {
        Verdict::Clean => status == 0,
        Verdict::Leaks => status == 3,
        // 1: parts of the metadata cannot be read at all.
        Verdict::Marked | Verdict::Corrupt => matches!(status, 1 | 2),
    };
    if right { Ok(()) } else { Err(format!("{ours:?}, qemu-img check says {status}: {text}")) }
}

fn run(scripts: Vec<Script>) {
    let only = std::env::var("DISKSMITH_CRASH_SCRIPT").ok();
    let mut tally = Tally::default();
    for script in scripts.into_iter().filter(|s| only.as_ref().is_none_or(|name| *name == s.name)) {
        cut(&script, &mut tally);
    }
    println!("{} states of scripts\n{tally}", tally.states());
}

#[test]
fn amendments() {
    run(scripts::amendments());
}

#[test]
fn data_files() {
    run(scripts::data_files());
}

#[test]
fn passwords() {
    run(scripts::passwords());
}

#[test]
fn bitmaps() {
    run(scripts::bitmaps());
}

#[test]
fn sizes_and_tables() {
    run(scripts::sizes_and_tables());
}

#[test]
fn snapshots() {
    run(scripts::snapshots());
}

#[test]
fn repairs() {
    run(damage::repairs());
}
