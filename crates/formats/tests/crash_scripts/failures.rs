//! The same scripts on storage that fails: the n-th flush, the n-th operation. Whoever asked is
//! told, and what is left is as after a power cut.

use std::sync::Arc;

use disksmith_disk::{Disk, MemoryDisk};
use disksmith_formats::OpenMode;
use disksmith_testkit::{CrashState, FailingDisk, Fault, Injector};

use crate::{Script, Views, copies, damage, judge, scripts, try_open, views};

const EIO: i32 = 5;

/// What became of a script whose storage fails.
struct Run {
    files: Vec<MemoryDisk>,
    met: bool,
    /// Anything of it failed: opening, the action, closing.
    failed: bool,
    /// After the failure, writing and closing once more fail as well.
    stays: bool,
}

fn run(script: &Script, injector: &Arc<Injector>, fault: Fault) -> Run {
    let files: Vec<Arc<MemoryDisk>> =
        [&script.initial].into_iter().chain(&script.data).map(|f| Arc::new(f.clone())).collect();
    let failing: Vec<_> = files
        .iter()
        .map(|file| Arc::new(FailingDisk::new(file.clone(), injector.clone())) as Arc<dyn Disk>)
        .collect();
    let mode = if script.damaged { OpenMode::Repair } else { OpenMode::Write };
    let password = script.passwords.first().copied();
    let image = try_open(&failing, mode, password);
    let (failed, stays) = match &image {
        Err(_) => (true, true),
        Ok(image) => {
            let failed = (script.action)(&**image).is_err() | image.close().is_err();
            // An image that was damaged from the start is not written for that reason already.
            let again = || {
                image.write_at(&[6; 512], 0).is_err() && (script.damaged || image.close().is_err())
            };
            (failed, !failed || !matches!(fault, Fault::Flush(_)) || again())
        }
    };
    drop(image);
    let files = files.iter().map(|file| (**file).clone()).collect();
    Run { files, met: injector.met() > 0, failed, stays }
}

/// Before and after, undisturbed.
fn ends(script: &Script) -> (Views, Views) {
    let never = Fault::Errno(EIO);
    let whole = run(script, &Injector::new(u64::MAX, never, false), never);
    assert!(!whole.failed, "{}: fails by itself", script.name);
    let initial: Vec<_> = [&script.initial].into_iter().chain(&script.data).cloned().collect();
    let of = |files: &[MemoryDisk], password: Option<&&str>| {
        views(&*try_open(&copies(files), OpenMode::Read, password.copied()).unwrap())
    };
    let (first, last) = (script.passwords.first(), script.passwords.last());
    (of(&initial, first), of(&whole.files, last))
}

/// How many runs there were, and what was wrong with which.
#[derive(Default)]
struct Outcome {
    runs: u64,
    wrong: Vec<String>,
}

impl Outcome {
    /// Lets the n-th fail, for every n until the script gets by.
    fn every(&mut self, script: &Script, fault: Fault, most: u64) {
        let ends = ends(script);
        let step = |n: u64| if n < 60 { n + 1 } else { n + n / 20 };
        let mut n = 1;
        while n < most {
            let injector = Injector::new(n, fault, false);
            let run = run(script, &injector, fault);
            if !run.met {
                break;
            }
            self.runs += 1;
            if let Err(why) = verdict(script, run, fault, &ends) {
                self.wrong.push(format!("{}, {fault:?} {n}: {why}", script.name));
            }
            n = step(n);
        }
    }

    fn end(self, least: u64) {
        println!("{} operations failed", self.runs);
        assert!(self.wrong.is_empty(), "{} wrong:\n{}", self.wrong.len(), self.wrong.join("\n"));
        assert!(self.runs > least, "{} operations failed", self.runs);
    }
}

fn verdict(script: &Script, run: Run, fault: Fault, ends: &(Views, Views)) -> Result<(), String> {
    if !run.failed && matches!(fault, Fault::Flush(_)) {
        return Err("nobody was told".into());
    }
    if !run.stays {
        return Err("goes on as if it were well".into());
    }
    let state =
        CrashState { files: run.files, started: 0, durable: 0, begun: 0, name: String::new() };
    judge(script, &state, (&ends.0, &ends.1), false).map(drop)
}

fn all() -> Vec<Script> {
    [
        scripts::amendments(),
        scripts::data_files(),
        scripts::passwords(),
        scripts::bitmaps(),
        scripts::sizes_and_tables(),
        scripts::snapshots(),
        damage::repairs(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

#[test]
fn a_failed_flush_is_told_and_final() {
    let mut outcome = Outcome::default();
    for script in all() {
        outcome.every(&script, Fault::Flush(EIO), u64::MAX);
    }
    outcome.end(200);
}

#[test]
fn a_failed_operation_leaves_old_or_new() {
    let most = if std::env::var_os("DISKSMITH_LONG").is_some() { u64::MAX } else { 40 };
    let mut outcome = Outcome::default();
    for script in all() {
        outcome.every(&script, Fault::Errno(EIO), most);
        outcome.every(&script, Fault::Half(EIO), most);
    }
    outcome.end(1000);
}
