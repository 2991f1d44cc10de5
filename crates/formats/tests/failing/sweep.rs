//! One job, on storage of which one request fails.

use std::sync::Arc;

use disksmith_disk::{Disk, Error, Extent, MemoryDisk, Result, pass_on};
use disksmith_testkit::{FailingDisk, Fault, Injector};

pub(crate) const EIO: i32 = 5;
pub(crate) const WHOLE: &[Fault] = &[Fault::Errno(EIO)];
pub(crate) const WHOLE_AND_HALF: &[Fault] = &[Fault::Errno(EIO), Fault::Half(EIO)];
/// Requests of one job that fail in an ordinary run.
const QUICK: u64 = 40;

/// The image, and what lies in files of their own.
pub(crate) type Files<'a> = &'a [Arc<dyn Disk>];

/// What is left of a job of which a request failed, and what it said.
pub(crate) struct Run<T> {
    pub(crate) files: Vec<MemoryDisk>,
    pub(crate) result: Result<T>,
    pub(crate) what: String,
}

impl<T: std::fmt::Debug> Run<T> {
    /// Whoever asked was told, by that error and no other.
    pub(crate) fn told(&self) {
        assert!(is_told(&self.result), "{}: {:?}", self.what, self.result);
    }
}

pub(crate) fn is_told<T>(result: &Result<T>) -> bool {
    result.as_ref().err().and_then(Error::errno) == Some(EIO)
}

/// Lets each request of a job on copies of `start` fail, in the ways of `faults`.
pub(crate) fn fail_each<T: std::fmt::Debug>(
    start: &[MemoryDisk],
    name: &str,
    faults: &[Fault],
    job: &dyn Fn(Files<'_>) -> Result<T>,
    judge: &dyn Fn(Run<T>),
) {
    let never = Injector::new(u64::MAX, Fault::Errno(EIO), false);
    let run = run(start, &never, job);
    assert!(run.result.is_ok(), "{name}: {:?}", run.result);
    let requests = never.asked();
    assert!(requests > 0, "{name} asks nothing of its storage");
    let long = std::env::var_os("DISKSMITH_LONG").is_some();
    let step = if long { 1 } else { requests.div_ceil(QUICK) };
    for n in (1..=requests).step_by(step as usize) {
        for fault in faults {
            let injector = Injector::new(n, *fault, false);
            let mut run = self::run(start, &injector, job);
            run.what = format!("{name}: request {n} of {requests}, {fault:?}");
            assert_eq!(injector.met(), 1, "{}: was not made", run.what);
            judge(run);
        }
    }
}

pub(crate) fn shared(disk: MemoryDisk) -> Arc<dyn Disk> {
    Arc::new(disk)
}

fn run<T>(
    start: &[MemoryDisk],
    injector: &Arc<Injector>,
    job: &dyn Fn(Files<'_>) -> Result<T>,
) -> Run<T> {
    let failing = |file: &MemoryDisk| FailingDisk::new(file.clone(), Arc::clone(injector));
    let disks: Vec<_> = start.iter().map(|file| Arc::new(Storage(failing(file)))).collect();
    let files: Vec<_> = disks.iter().map(|disk| disk.clone() as Arc<dyn Disk>).collect();
    let result = job(&files);
    let files = disks.iter().map(|disk| disk.0.inner().clone()).collect();
    Run { files, result, what: String::new() }
}

/// Maps fail as reads do.
#[derive(Debug)]
struct Storage(FailingDisk<MemoryDisk>);

impl Disk for Storage {
    pass_on!(|own| own.0; size read_at write_at write_zeroes discard flush set_size);

    fn map(&self, offset: u64, length: u64) -> Result<Extent> {
        self.0.read_at(&mut [], offset)?;
        self.0.map(offset, length)
    }
}
