//! A job done over and over, each time with another of its requests failing.

use std::fmt::Debug;
use std::sync::Arc;

use disksmith_disk::{Disk, Error, MemoryDisk, Result};

use crate::{FailingDisk, Fault, Injector};

/// What a request fails with.
pub const EIO: i32 = 5;
/// Nothing of the request is done.
pub const WHOLE: &[Fault] = &[Fault::Errno(EIO)];
/// Nothing of it is done, and half of it.
pub const WHOLE_AND_HALF: &[Fault] = &[Fault::Errno(EIO), Fault::Half(EIO)];

/// What is done with the storage.
pub type Job<'a, T> = &'a dyn Fn(&[Arc<dyn Disk>]) -> Result<T>;

/// What is left of a job of which a request failed, and what it said.
#[derive(Debug)]
pub struct Run<T> {
    /// The storage.
    pub files: Vec<MemoryDisk>,
    /// The answer.
    pub result: Result<T>,
    /// For people: which request of what failed, and how.
    pub what: String,
}

impl<T: Debug> Run<T> {
    /// Fails unless whoever asked was told, by that error and no other.
    #[track_caller]
    pub fn told(&self) {
        assert!(is_told(&self.result), "{}: {:?}", self.what, self.result);
    }
}

/// Whether an answer is the error of the request that failed.
pub fn is_told<T>(result: &Result<T>) -> bool {
    result.as_ref().err().and_then(Error::errno) == Some(EIO)
}

/// Lets each request of a job on copies of `start` fail, in the ways of `faults`; without
/// `DISKSMITH_LONG` about `quick` of them. Answers how often one did.
pub fn fail_each<T: Debug>(
    start: &[MemoryDisk],
    name: &str,
    faults: &[Fault],
    quick: u64,
    job: Job<'_, T>,
    judge: &dyn Fn(Run<T>),
) -> u64 {
    let never = Injector::new(u64::MAX, Fault::Errno(EIO), false);
    let sound = run(start, &never, job);
    assert!(sound.result.is_ok(), "{name}: {:?}", sound.result);
    let requests = never.asked();
    assert!(requests > 0, "{name} asks nothing of its storage");
    let long = std::env::var_os("DISKSMITH_LONG").is_some();
    let step = if long { 1 } else { requests.div_ceil(quick) };
    let mut failed = 0;
    for n in (1..=requests).step_by(step as usize) {
        for fault in faults {
            let injector = Injector::new(n, *fault, false);
            let what = format!("{name}: request {n} of {requests}, {fault:?}");
            let run = Run { what, ..run(start, &injector, job) };
            assert_eq!(injector.met(), 1, "{}: was not made", run.what);
            judge(run);
            failed += 1;
        }
    }
    failed
}

fn run<T>(start: &[MemoryDisk], injector: &Arc<Injector>, job: Job<'_, T>) -> Run<T> {
    let failing = |file: &MemoryDisk| FailingDisk::new(file.clone(), Arc::clone(injector));
    let disks: Vec<_> = start.iter().map(|file| Arc::new(failing(file))).collect();
    let files: Vec<_> = disks.iter().map(|disk| disk.clone() as Arc<dyn Disk>).collect();
    let result = job(&files);
    let files = disks.iter().map(|disk| disk.inner().clone()).collect();
    Run { files, result, what: String::new() }
}
