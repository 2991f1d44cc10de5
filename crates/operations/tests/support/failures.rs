//! Operations on storage of which the n-th request fails once.

use std::sync::Arc;

use disksmith_disk::{Disk, MemoryDisk, Result};
use disksmith_testkit::{FailingDisk, Fault, Injector};

const EIO: i32 = 5;
/// Requests of one operation that fail by default, of each kind of fault.
const QUICK: u64 = 40;

/// An operation on files.
pub type Act<'a> = &'a dyn Fn(&[Arc<dyn Disk>]) -> Result<()>;

/// What the failures led to.
#[derive(Default)]
pub struct Failures {
    runs: u64,
    wrong: Vec<String>,
}

impl Failures {
    /// Lets the n-th request, and the n-th flush, of `act` fail, for every n until it gets by.
    /// `judge` looks at what is left, which must be as after a power cut.
    pub fn every(
        &mut self,
        case: &str,
        initial: &[MemoryDisk],
        act: Act<'_>,
        judge: &dyn Fn(&[MemoryDisk]) -> std::result::Result<(), String>,
    ) {
        let most = if std::env::var_os("DISKSMITH_LONG").is_some() { u64::MAX } else { QUICK };
        for fault in [Fault::Errno(EIO), Fault::Half(EIO), Fault::Flush(EIO)] {
            for n in 1..most {
                let injector = Injector::new(n, fault, false);
                let files: Vec<_> = initial.iter().map(|file| Arc::new(file.clone())).collect();
                let disks: Vec<_> = files
                    .iter()
                    .map(|f| {
                        Arc::new(FailingDisk::new(f.clone(), injector.clone())) as Arc<dyn Disk>
                    })
                    .collect();
                let done = act(&disks);
                drop(disks);
                if injector.met() == 0 {
                    break;
                }
                self.runs += 1;
                let left: Vec<MemoryDisk> = files.iter().map(|file| (**file).clone()).collect();
                let verdict = match done.is_ok() && matches!(fault, Fault::Flush(_)) {
                    true => Err("nobody was told".to_string()),
                    false => judge(&left),
                };
                if let Err(why) = verdict {
                    self.wrong.push(format!("{case}, {fault:?} {n}: {why}"));
                }
            }
        }
    }

    /// Fails if anything was wrong, or nothing was shown.
    pub fn end(self, least: u64) {
        println!("{} requests failed", self.runs);
        assert!(self.wrong.is_empty(), "{} wrong:\n{}", self.wrong.len(), self.wrong.join("\n"));
        assert!(self.runs > least, "{} requests failed", self.runs);
    }
}
