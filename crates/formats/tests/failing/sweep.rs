//! One job, on storage of which one request fails.

use std::fmt::Debug;
use std::sync::Arc;

use disksmith_disk::{Disk, MemoryDisk, Result};
use disksmith_testkit::{Fault, sweep};

pub(crate) use disksmith_testkit::sweep::{EIO, Run, WHOLE, WHOLE_AND_HALF, is_told};

/// Requests of one job that fail in an ordinary run.
const QUICK: u64 = 40;

/// The image, and what lies in files of their own.
pub(crate) type Files<'a> = &'a [Arc<dyn Disk>];

/// Lets requests of a job on copies of `start` fail, in the ways of `faults`.
pub(crate) fn fail_each<T: Debug>(
    start: &[MemoryDisk],
    name: &str,
    faults: &[Fault],
    job: &dyn Fn(Files<'_>) -> Result<T>,
    judge: &dyn Fn(Run<T>),
) {
    sweep::fail_each(start, name, faults, QUICK, job, judge);
}

pub(crate) fn shared(disk: MemoryDisk) -> Arc<dyn Disk> {
    Arc::new(disk)
}
