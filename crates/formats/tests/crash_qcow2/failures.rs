//! The same workloads on storage of which the n-th request fails once. The guest is told, and
//! goes on: what it was told is done is there in the end, everything else is old or new.

use std::collections::BTreeSet;
use std::sync::Arc;

use disksmith_disk::{Disk, MemoryDisk};
use disksmith_formats::OpenMode;
use disksmith_testkit::{FailingDisk, Fault, Injector};

use crate::judge::Judge;
use crate::kinds::Kind;
use crate::workload::{Expected, FIRST_SNAPSHOT, Op, Run, perform, prepare, try_open};
use crate::{MAX_SHOWN, chosen_workloads};

const EIO: i32 = 5;
/// Failed requests of the sample that runs with every test run, and of a long one.
const QUICK_RUNS: u64 = 6_000;
const LONG_RUNS: u64 = 300_000;

/// What the guest knows.
struct Guest {
    expected: Expected,
    /// Snapshots that were to be made or deleted, which failed.
    doubtful: BTreeSet<String>,
    deleted: bool,
}

impl Guest {
    fn told(&mut self, kind: &Kind, op: Op, number: u64, done: bool) {
        match (done, op) {
            (true, _) => self.expected.step(kind, op, number),
            (false, _) => self.expected.failed_step(kind, op, number),
        }
        match (done, op) {
            (true, Op::SnapshotDelete) => self.deleted = true,
            (false, Op::SnapshotDelete) => drop(self.doubtful.insert(FIRST_SNAPSHOT.into())),
            (false, Op::SnapshotCreate) => drop(self.doubtful.insert(format!("s{number}"))),
            (true, Op::Flush) => self.settle(),
            _ => {}
        }
    }

    /// Everything that was done is durable.
    fn settle(&mut self) {
        let Expected { model, snapshots, sizes } = &mut self.expected;
        model.flush();
        *sizes = sizes.pop().into_iter().collect();
        for (name, (model, must)) in snapshots.iter_mut() {
            model.flush();
            *must = !self.doubtful.contains(name);
        }
        if self.deleted {
            snapshots.remove(FIRST_SNAPSHOT);
        }
    }
}

/// Whether the fault was met; if it was, and the outcome is wrong, why.
fn fail(run: &Run, start: &Expected, n: u64, fault: Fault) -> (bool, Result<(), String>) {
    let injector = Injector::new(n, fault, false);
    let files: Vec<Arc<MemoryDisk>> = run.initial.iter().map(|f| Arc::new(f.clone())).collect();
    let disks: Vec<_> = files
        .iter()
        .map(|file| Arc::new(FailingDisk::new(file.clone(), injector.clone())) as Arc<dyn Disk>)
        .collect();
    let mut guest = Guest { expected: start.clone(), doubtful: BTreeSet::new(), deleted: false };
    if let Ok(image) = try_open(&disks, OpenMode::Write) {
        for (number, op) in (0..).zip(&run.ops) {
            guest.expected.sizes.push(image.size());
            let done = perform(run.kind, &*image, *op, number, image.size());
            guest.told(run.kind, *op, number, done.is_ok());
            guest.expected.sizes.push(image.size());
        }
        if image.close().is_ok() {
            guest.settle();
        }
    }
    if injector.met() == 0 {
        return (false, Ok(()));
    }
    let files: Vec<MemoryDisk> = files.iter().map(|file| (**file).clone()).collect();
    (true, Judge::new(run).judge_files(&files, &guest.expected, false).map(drop))
}

#[test]
fn what_a_failed_request_leaves_is_old_or_new() {
    let (workloads, _) = chosen_workloads();
    let long = std::env::var_os("DISKSMITH_LONG").is_some();
    let most = if long { LONG_RUNS } else { QUICK_RUNS };
    let (mut runs, mut wrong) = (0, Vec::new());
    for (kind, ops) in &workloads {
        let (initial, start) = prepare(kind, ops);
        let run = Run { kind, ops: ops.clone(), initial, log: Vec::new(), durable: Vec::new() };
        for fault in [Fault::Errno(EIO), Fault::Half(EIO)] {
            for n in 1.. {
                let (met, verdict) = fail(&run, &start, n, fault);
                runs += 1;
                if let Err(why) = verdict {
                    let names: Vec<_> = ops.iter().map(|op| op.name()).collect();
                    wrong.push(format!("{}:{} {fault:?} {n}: {why}", kind.name, names.join(",")));
                }
                if !met {
                    break;
                }
            }
        }
        if runs >= most || wrong.len() >= MAX_SHOWN {
            break;
        }
    }
    println!("{runs} runs");
    assert!(wrong.is_empty(), "{} wrong of {runs}:\n{}", wrong.len(), wrong.join("\n"));
    assert!(runs > 100, "{runs} runs");
}
