//! Sixteen workers on one open image: overlapping reads, writes, zeroes, discards, compressed
//! clusters and snapshots taken, read, gone back to and deleted. What each sector held is to be
//! explained by some order of the operations on it, each at an instant between its begin and its
//! end, and the image is whole after.
//!
//! A few seconds in every test run, 60 with `DISKSMITH_LONG=1`; the seed of a failure is printed,
//! but who met whom is the machine's affair.

#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

#[path = "../common/mod.rs"]
mod common;
mod jitter;
mod serial;
mod worker;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use disksmith_disk::{Disk, MemoryDisk, ZeroMode};
use disksmith_formats::{CreateRequest, Image, OpenMode, Repair, driver};
use disksmith_testkit::Rng;

use crate::common::{Scratch, open, options, qemu_img};
use crate::jitter::{Jitter, Slow};
use crate::serial::{Event, outcomes};
use crate::worker::{Field, Note, SECTOR, Worker, filled};

const WORKERS: usize = 16;
/// Operations of a worker between two looks at everything.
const STEPS: usize = 25;
/// Rounds that an image sees.
const ROUNDS: usize = 3;
const SIZE: u64 = 512 << 10;
/// Shown to qemu-img too: every so many images.
const ORACLE: u64 = 10;

/// Creation options; whether it lies on a backing image; whether it has a data file.
const KINDS: &[(&str, bool, bool)] = &[
    ("cluster_size=4k", false, false),
    ("cluster_size=512", false, false),
    ("cluster_size=4k,lazy_refcounts=on", true, false),
    ("cluster_size=16k,extended_l2=on", true, false),
    ("cluster_size=4k,compat=0.10", false, false),
    ("cluster_size=64k", true, false),
    ("cluster_size=4k", false, true),
    ("cluster_size=16k,extended_l2=on,data_file_raw=on", false, true),
];

#[test]
fn every_sector_has_a_serial_order() {
    let long = std::env::var_os("DISKSMITH_LONG").is_some();
    let time = Duration::from_secs(if long { 60 } else { 3 });
    let (start, mut seed, mut count) = (Instant::now(), 0, 0);
    while start.elapsed() < time || seed < KINDS.len() as u64 {
        count += one_image(seed);
        seed += 1;
    }
    println!("{seed} images, {count} operations by {WORKERS} workers");
}

/// Where the backing image ends within a cluster, what is behind is zero already, and to zero the
/// rest is to zero the cluster: unless somebody else is writing there.
#[test]
fn a_write_beside_what_is_zeroed_is_not_lost() {
    let storage: Arc<dyn Disk> = Arc::new(MemoryDisk::new(0));
    let request = CreateRequest { size: 1 << 16, ..CreateRequest::default() };
    (driver("qcow2").unwrap().create.unwrap())(&storage, &request).unwrap();
    let image = open(storage, OpenMode::Write);
    let backing = Arc::new(Slow::new(&[1; 8 * SECTOR]));
    image.attach_backing(Some(Arc::<Slow>::clone(&backing))).unwrap();
    std::thread::scope(|scope| {
        // The new cluster gets what the backing image has, too.
        scope.spawn(|| image.write_at(&[2; SECTOR], 9 * SECTOR as u64).unwrap());
        backing.being_read();
        image.write_zeroes(0, 8 * SECTOR as u64, ZeroMode::Keep).unwrap();
    });
    let mut data = [0; 10 * SECTOR];
    image.read_at(&mut data, 0).unwrap();
    let (zeroed, written) = data.split_at(9 * SECTOR);
    assert!(zeroed.iter().all(|byte| *byte == 0));
    assert!(written.iter().all(|byte| *byte == 2));
}

/// All rounds on one image. Answers how many operations there were.
fn one_image(seed: u64) -> usize {
    let (text, backed, external) = KINDS[seed as usize % KINDS.len()];
    let storage = Arc::new(Jitter::new(seed));
    let data: Arc<dyn Disk> = Arc::new(Jitter::new(seed + 1));
    let request = CreateRequest {
        size: SIZE,
        options: options(text),
        data_file: external.then(|| ("data".to_string(), Arc::clone(&data))),
        ..CreateRequest::default()
    };
    let plain: Arc<dyn Disk> = Arc::<Jitter>::clone(&storage);
    (driver("qcow2").unwrap().create.unwrap())(&plain, &request).unwrap();
    let image = open(Arc::clone(&plain), OpenMode::Write);
    let sectors = SIZE / SECTOR as u64;
    let below = |number: u64| if backed { number + 1 } else { 0 };
    let backing: Vec<u8> = (0..sectors)
        .flat_map(|n| if backed { filled(below(n), n, 1) } else { vec![0; SECTOR] })
        .collect();
    if backed {
        image.attach_backing(Some(Arc::new(MemoryDisk::from_bytes(&backing)))).unwrap();
    }
    if external {
        image.attach_data_file(Arc::clone(&data)).unwrap();
    }
    let mut known: Vec<Vec<u64>> = (0..sectors).map(|number| vec![below(number)]).collect();
    let mut count = 0;
    for round in 0..ROUNDS {
        let what = format!("seed {seed}, {text}, round {round}");
        count += one_round(&image, seed * 100 + round as u64, !external, &mut known, &what);
        if text.contains("data_file_raw") {
            assert!(content(&*data) == content(&*image), "{what}: the data file alone differs");
        }
    }
    image.close().unwrap();
    drop(image);
    if seed.is_multiple_of(ORACLE) && !external {
        judge(&storage.disk);
    }
    count
}

fn one_round(
    image: &Arc<dyn Image>,
    seed: u64,
    internal: bool,
    known: &mut [Vec<u64>],
    what: &str,
) -> usize {
    let sectors = known.len() as u64;
    let field = Field {
        image: Arc::clone(image),
        sectors,
        clock: AtomicU64::new(0),
        snapshots: Default::default(),
        internal,
        sparse: seed.is_multiple_of(2),
    };
    let work = |number| {
        let rng = Rng::new(seed << 8 | number as u64);
        let mut worker =
            Worker { field: &field, number, rng, notes: Vec::new(), written: (seed + 1) << 32 };
        (0..STEPS).for_each(|_| worker.step());
        worker.notes
    };
    let mut notes: Vec<Note> = std::thread::scope(|scope| {
        let all: Vec<_> = (0..WORKERS).map(|number| scope.spawn(move || work(number))).collect();
        all.into_iter().flat_map(|one| one.join().unwrap_or_else(|_| panic!("{what}"))).collect()
    });
    for taken in std::mem::take(&mut *field.snapshots.lock().unwrap()) {
        field.look(&taken).unwrap();
        notes.push(taken.note());
        image.delete_snapshot(taken.name()).unwrap();
    }
    let mut events: Vec<Vec<Event>> = vec![Vec::new(); sectors as usize];
    for (sector, event) in notes.iter().flat_map(Note::events) {
        events[sector as usize].push(event);
    }
    let now = field.values(&**image, 0, sectors);
    for (sector, events) in events.iter().enumerate() {
        let may = outcomes(&known[sector], events).unwrap_or_else(|event| {
            panic!("{what}: sector {sector}: {event:?} of {events:?} after {:?}", known[sector])
        });
        assert!(may.contains(&now[sector]), "{what}: sector {sector}: {} {may:?}", now[sector]);
        known[sector] = vec![now[sector]];
    }
    let report = image.check(Repair::None, &mut |finding| println!("{}", finding.text));
    let report = report.unwrap().unwrap();
    assert_eq!((report.corruptions, report.leaks, report.check_errors), (0, 0, 0), "{what}");
    WORKERS * STEPS
}

fn content(disk: &dyn Disk) -> Vec<u8> {
    let mut bytes = vec![0; SIZE as usize];
    disk.read_at(&mut bytes, 0).unwrap();
    bytes
}

fn judge(disk: &MemoryDisk) {
    let scratch = Scratch::new();
    let path = scratch.path("image");
    std::fs::write(&path, disk.to_bytes()).unwrap();
    qemu_img(&["check", "-q", "-f", "qcow2", path.to_str().unwrap()]);
}
