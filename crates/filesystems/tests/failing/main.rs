//! Every request that a filesystem's work makes to its storage fails once, with nothing or with half
//! of it done: whoever asked is told, by that error and no other; and what the work was meant to
//! change can be repaired, with what it had nothing to do with as it was.
//!
//! A sample of the requests in every test run, each of them with `DISKSMITH_LONG=1`.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod jobs;
mod kinds;

use std::sync::Arc;

use disksmith_disk::{Disk, Error, MemoryDisk, Result};
use disksmith_filesystems::ext;
use disksmith_testkit::{FailingDisk, Fault, Injector};

use crate::kinds::{KINDS, Kind};

const EIO: i32 = 5;
/// Requests of one job that fail in an ordinary run.
const QUICK: u64 = 60;

type Job<'a> = &'a dyn Fn(Arc<dyn Disk>) -> Result<()>;

/// What is left after a job whose n-th request failed, and what it said.
struct Run {
    disk: MemoryDisk,
    result: Result<()>,
    what: String,
}

/// Lets each request of a job on a copy of `start` fail; answers how many did.
fn fail_each(start: &MemoryDisk, name: &str, job: Job<'_>, judge: &dyn Fn(Run)) -> u64 {
    let long = std::env::var_os("DISKSMITH_LONG").is_some();
    let requests = count(start, job);
    assert!(requests > 0, "{name} asks nothing of its storage");
    let step = if long { 1 } else { requests.div_ceil(QUICK) };
    let mut failed = 0;
    for n in (1..=requests).step_by(step as usize) {
        for fault in [Fault::Errno(EIO), Fault::Half(EIO)] {
            let injector = Injector::new(n, fault, false);
            let disk = Arc::new(FailingDisk::new(start.clone(), Arc::clone(&injector)));
            let result = job(disk.clone());
            assert_eq!(injector.met(), 1, "{name}: request {n} of {requests} was not made");
            let what = format!("{name}: request {n} of {requests}, {fault:?}");
            judge(Run { disk: disk.inner().clone(), result, what });
            failed += 1;
        }
    }
    failed
}

/// How many requests the job makes when all goes well.
fn count(start: &MemoryDisk, job: Job<'_>) -> u64 {
    let never = Injector::new(u64::MAX, Fault::Errno(EIO), false);
    let disk = Arc::new(FailingDisk::new(start.clone(), Arc::clone(&never)));
    job(disk).unwrap();
    never.asked()
}

fn told(run: &Run) {
    let errno = run.result.as_ref().err().and_then(Error::errno);
    assert!(errno == Some(EIO), "{}: {:?}", run.what, run.result);
}

/// A repair ends with nothing left to find, and what nobody touched is as it was.
fn mends(kind: &Kind, run: &Run) {
    let disk = Arc::new(run.disk.clone());
    let left = (kind.repair)(disk.clone()).unwrap_or_else(|e| panic!("{}: {e}", run.what));
    assert!(left.is_empty(), "{}: {left:?}", run.what);
    let ours = (kind.open)(disk, true).unwrap_or_else(|e| panic!("{}: {e}", run.what));
    let kept = jobs::kept();
    let mut content = vec![0; kept.len() + 1];
    let found = ours.lookup(ours.root(), jobs::KEPT).and_then(|file| {
        let length = ours.read(file.inode, 0, &mut content)?;
        Ok(content[..length] == kept[..])
    });
    assert!(matches!(found, Ok(true)), "{}: {found:?}", run.what);
}

fn prepared(kind: &Kind) -> MemoryDisk {
    let disk = Arc::new(MemoryDisk::new(kind.size));
    (kind.make)(disk.clone()).unwrap();
    jobs::prepare(&*(kind.open)(disk.clone(), false).unwrap()).unwrap();
    let left = (kind.check)(disk.clone()).unwrap();
    assert!(left.is_empty(), "{}: {left:?}", kind.name);
    (*disk).clone()
}

fn every(what: &str, work: impl Fn(&Kind) -> u64) {
    // What is asked again is read again.
    ext::limit_cache(0);
    let failed: u64 = KINDS.iter().map(work).sum();
    println!("{what}: {failed} requests failed");
}

#[test]
fn reading() {
    every("reading", |kind| {
        let job: Job<'_> = &|disk| jobs::walk(&*(kind.open)(disk, true)?);
        fail_each(&prepared(kind), kind.name, job, &|run| told(&run))
    });
}

#[test]
fn changing() {
    every("changing", |kind| {
        let job: Job<'_> = &|disk| jobs::change(&*(kind.open)(disk, false)?);
        fail_each(&prepared(kind), kind.name, job, &|run| {
            told(&run);
            mends(kind, &run);
        })
    });
}

#[test]
fn making() {
    every("making", |kind| {
        let job: Job<'_> = &|disk| (kind.make)(disk);
        fail_each(&MemoryDisk::new(kind.size), kind.name, job, &|run| told(&run))
    });
}

#[test]
fn checking() {
    every("checking", |kind| {
        let job: Job<'_> = &|disk| match (kind.check)(disk)? {
            found if found.is_empty() => Ok(()),
            // What could not be read is a finding like others.
            _ => Err(Error::from_errno(EIO)),
        };
        fail_each(&prepared(kind), kind.name, job, &|run| told(&run))
    });
}

#[test]
fn repairing() {
    every("repairing", |kind| {
        let job: Job<'_> = &|disk| (kind.repair)(disk).map(drop);
        fail_each(&damaged(kind), kind.name, job, &|run| mends(kind, &run))
    });
}

/// Left in the middle of changes by storage that went away.
fn damaged(kind: &Kind) -> MemoryDisk {
    let job: Job<'_> = &|disk| jobs::change(&*(kind.open)(disk, false)?);
    let start = prepared(kind);
    let injector = Injector::new(count(&start, job) * 4 / 5, Fault::Errno(EIO), true);
    let disk = Arc::new(FailingDisk::new(start, injector));
    assert!(job(disk.clone()).is_err());
    disk.inner().clone()
}

#[test]
fn resizing() {
    every("resizing", |kind| {
        let Some(resize) = kind.resize else { return 0 };
        [kind.size * 3 / 2, kind.size * 7 / 8]
            .into_iter()
            .map(|size| {
                let start = prepared(kind);
                start.set_size(kind.size.max(size)).unwrap();
                let job: Job<'_> = &|disk| resize(disk, size);
                fail_each(&start, kind.name, job, &|run| {
                    told(&run);
                    mends(kind, &run);
                })
            })
            .sum()
    });
}
