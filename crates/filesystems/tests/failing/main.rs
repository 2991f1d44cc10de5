//! Every request that a filesystem's work makes to its storage fails once, with nothing or with half
//! of it done: whoever asked is told, by that error and no other; and what the work was meant to
//! change can be repaired, with what it had nothing to do with as it was.
//!
//! A sample of the requests in every test run, each of them with `DISKSMITH_LONG=1`.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod jobs;
mod kinds;

use std::io::{BufReader, Read};
use std::sync::Arc;

use disksmith_disk::{Disk, Error, MemoryDisk, Result};
use disksmith_filesystems::ext::{self, Tune};
use disksmith_filesystems::source::{TarSource, TreeSource, write_tar};
use disksmith_testkit::sweep::{self, EIO, WHOLE_AND_HALF, is_told};
use disksmith_testkit::{FailingDisk, Fault, Injector, Rng};

use crate::jobs::{STEPS, Step};
use crate::kinds::{KINDS, Kind};

/// Requests of one job that fail in an ordinary run.
const QUICK: u64 = 8;
/// Changes that a repair has to do with.
const HALF_WAY: usize = 20;

type Job<'a> = &'a dyn Fn(Arc<dyn Disk>) -> Result<()>;

type Run = sweep::Run<()>;

/// Lets requests of a job on a copy of `start` fail; answers how many did.
fn fail_each(start: &MemoryDisk, name: &str, job: Job<'_>, judge: &dyn Fn(Run)) -> u64 {
    let start = std::slice::from_ref(start);
    sweep::fail_each(start, name, WHOLE_AND_HALF, QUICK, &|files| job(files[0].clone()), judge)
}

fn is_long() -> bool {
    std::env::var_os("DISKSMITH_LONG").is_some()
}

/// How many requests the job makes when all goes well.
fn count(start: &MemoryDisk, job: Job<'_>) -> u64 {
    let never = Injector::new(u64::MAX, Fault::Errno(EIO), false);
    let disk = Arc::new(FailingDisk::new(start.clone(), Arc::clone(&never)));
    job(disk).unwrap();
    never.asked()
}

/// A repair ends with nothing left to find, and what nobody touched is as it was.
fn mends(kind: &Kind, run: &Run) {
    let disk = Arc::new(run.files[0].clone());
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
        fail_each(&prepared(kind), kind.name, job, &|run| run.told())
    });
}

#[test]
fn changing() {
    every("changing", |kind| {
        let mut start = prepared(kind);
        let failed = STEPS.iter().map(|step| {
            let job: Job<'_> = &|disk| step.run(&*(kind.open)(disk, false)?);
            let name = format!("{}, {}", kind.name, step.name);
            let failed = fail_each(&start, &name, job, &|run| {
                run.told();
                mends(kind, &run);
            });
            start = changed(kind, &start, step);
            failed
        });
        failed.sum()
    });
}

fn changed(kind: &Kind, start: &MemoryDisk, step: &Step) -> MemoryDisk {
    let disk = Arc::new(start.clone());
    step.run(&*(kind.open)(disk.clone(), false).unwrap()).unwrap();
    (*disk).clone()
}

#[test]
fn making() {
    every("making", |kind| {
        let job: Job<'_> = &|disk| (kind.make)(disk);
        fail_each(&MemoryDisk::new(kind.size), kind.name, job, &|run| run.told())
    });
}

#[test]
fn filling() {
    every("filling", |kind| {
        let archive = archive(kind);
        let fill: Job<'_> = &|disk| (kind.fill)(disk, &mut TarSource::new(&archive[..]));
        fail_each(&MemoryDisk::new(kind.size), kind.name, fill, &|run| run.told())
    });
}

/// An archive that ends early, or that cannot be read on, is told.
#[test]
fn filling_from_what_ends() {
    for kind in KINDS {
        let archive = archive(kind);
        // Zeroes end it.
        let last = archive.iter().rposition(|byte| *byte != 0).unwrap();
        for end in (0..last).step_by(last / 40) {
            let stream = archive[..end].chain(Broken);
            let disk = Arc::new(MemoryDisk::new(kind.size));
            let result = (kind.fill)(disk, &mut TarSource::new(BufReader::new(stream)));
            assert!(is_told(&result), "{}: {result:?} at {end}", kind.name);
        }
    }
}

struct Broken;

impl Read for Broken {
    fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
        Err(std::io::Error::from_raw_os_error(EIO))
    }
}

fn archive(kind: &Kind) -> Vec<u8> {
    let tree = (kind.open)(Arc::new(prepared(kind)), true).unwrap();
    let mut archive = Vec::new();
    write_tar(&mut TreeSource::new(&*tree, tree.root()), &mut archive).unwrap();
    archive
}

#[test]
fn tuning() {
    let changes = || Tune::default();
    let tunes = [
        Tune { label: Some(b"another".to_vec()), reserved_percent: Some(7.0), ..changes() },
        Tune { uuid: Some([3; 16]), ..changes() },
        Tune { features: Some("^metadata_csum,^has_journal".into()), ..changes() },
        Tune { features: Some("metadata_csum".into()), ..changes() },
        Tune { journal_blocks: Some(1024), ..changes() },
    ];
    every("tuning", |kind| {
        let Some(tune) = kind.tune else { return 0 };
        let mut start = prepared(kind);
        let failed = tunes.iter().map(|changes| {
            let job: Job<'_> = &|disk| tune(disk, changes);
            let disk = Arc::new(start.clone());
            if job(disk.clone()).is_err() {
                // Not for this kind.
                return 0;
            }
            let failed = fail_each(&start, kind.name, job, &|run| {
                // The repair at the end of it may have tried again.
                if run.result.is_ok() {
                    let left = (kind.check)(Arc::new(run.files[0].clone()));
                    assert!(left.as_ref().is_ok_and(Vec::is_empty), "{}: {left:?}", run.what);
                }
                mends(kind, &run);
            });
            start = (*disk).clone();
            failed
        });
        failed.sum()
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
        fail_each(&prepared(kind), kind.name, job, &|run| run.told())
    });
}

#[test]
fn repairing() {
    every("repairing", |kind| {
        let job: Job<'_> = &|disk| (kind.repair)(disk).map(drop);
        fail_each(&damaged(kind), kind.name, job, &|run| mends(kind, &run))
    });
}

/// Where a repair of random damage leaves nothing to find, one that failed half way and was run again
/// does so too.
#[test]
fn repairing_damage() {
    let damages = if is_long() { 60 } else { 4 };
    every("repairing damage", |kind| {
        let sound = prepared(kind);
        let failed = (0..damages).map(|seed| {
            let start = with_damage(&sound, seed);
            let repair = |disk| (kind.repair)(disk);
            if !repair(Arc::new(start.clone())).is_ok_and(|left| left.is_empty()) {
                return 0;
            }
            let job: Job<'_> = &|disk| repair(disk).map(drop);
            let name = format!("{}, damage {seed}", kind.name);
            fail_each(&start, &name, job, &|run| {
                let left = repair(Arc::new(run.files[0].clone()));
                assert!(left.as_ref().is_ok_and(Vec::is_empty), "{}: {left:?}", run.what);
            })
        });
        failed.sum()
    });
}

/// Some bytes are others, of those that are not zero.
fn with_damage(sound: &MemoryDisk, seed: u64) -> MemoryDisk {
    let mut rng = Rng::new(seed);
    let disk = sound.clone();
    let mut sector = [0; 512];
    let mut wanted = 1 + rng.below(3);
    while wanted > 0 {
        let offset = rng.below(disk.size() / 512) * 512;
        disk.read_at(&mut sector, offset).unwrap();
        let used: Vec<usize> = (0..512).filter(|at| sector[*at] != 0).collect();
        if used.is_empty() {
            continue;
        }
        sector[used[rng.below(used.len() as u64) as usize]] ^= 1 << rng.below(8);
        disk.write_at(&sector, offset).unwrap();
        wanted -= 1;
    }
    disk
}

/// Left in the middle of changes by storage that went away.
fn damaged(kind: &Kind) -> MemoryDisk {
    let job: Job<'_> = &|disk| {
        let steps = &STEPS[..HALF_WAY];
        steps.iter().try_for_each(|step| step.run(&*(kind.open)(disk.clone(), false)?))
    };
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
                    run.told();
                    mends(kind, &run);
                })
            })
            .sum()
    });
}
