//! Power cuts during what changes several files: commit and rebase. The product over the files'
//! open operations is enumerated; at every state the topmost image, with whatever it names under
//! it, shows what it showed before, and every file is sound.
//!
//! `DISKSMITH_LONG=1` takes the simulator's full limits.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail by a panic")]

mod support;

use std::sync::Arc;

use disksmith_disk::{Disk, MemoryDisk};
use disksmith_formats::{
    Backing, CreateRequest, Image, OpenMode, OpenRequest, Options, Repair, driver,
};
use disksmith_open::Node;
use disksmith_operations::{CommitRequest, RebaseRequest, Silent, commit, rebase};
use disksmith_testkit::{CrashLimits, Recorder, Tally, Verdict, crash_states, tagged};
use support::failures::Failures;
use support::node;

const TOP: usize = 0;
const BASE: usize = 1;
const OTHER: usize = 2;
/// What the files are called inside of images.
const NAMES: [&str; 3] = ["top", "base", "other"];

/// A second name of `other`, for which the first sector has no room.
fn long_name() -> String {
    (0..90).fold("other".to_string(), |name, number| format!("{name}/{number:04}"))
}
const SIZE: u64 = 96 << 10;

/// Clusters of the top and of the base, bytes that the base has.
struct Shape {
    top: u64,
    base: u64,
    base_size: u64,
}

const SHAPES: &[Shape] = &[
    Shape { top: 4096, base: 4096, base_size: SIZE },
    Shape { top: 4096, base: 512, base_size: SIZE },
    Shape { top: 512, base: 8192, base_size: SIZE - 8192 },
    Shape { top: 16384, base: 4096, base_size: SIZE - 5 * 512 },
];

fn open(disk: Arc<dyn Disk>, mode: OpenMode) -> disksmith_disk::Result<Arc<dyn Image>> {
    (driver("qcow2").unwrap().open)(disk, OpenRequest { mode, ..OpenRequest::default() })
}

fn make(cluster: u64, size: u64, backing: Option<&str>, writes: &[(u32, u64, u64)]) -> MemoryDisk {
    let storage = Arc::new(MemoryDisk::new(0));
    let disk: Arc<dyn Disk> = storage.clone();
    let mut options = Options::new();
    options.set("cluster_size", cluster.to_string());
    let named = |name: &str| Backing { name: name.into(), format: Some("qcow2".into()) };
    let request =
        CreateRequest { size, options, backing: backing.map(named), ..CreateRequest::default() };
    (driver("qcow2").unwrap().create.unwrap())(&disk, &request).unwrap();
    let image = open(disk, OpenMode::Write).unwrap();
    for (write, offset, length) in writes {
        // Whole clusters, so that nothing is read from the layer that is not attached here.
        let start = offset / cluster * cluster;
        let end = (offset + length).next_multiple_of(cluster).min(size);
        image.write_at(&tagged(*write, start, end - start), start).unwrap();
    }
    image.close().unwrap();
    drop(image);
    (*storage).clone()
}

fn files(shape: &Shape) -> Vec<MemoryDisk> {
    vec![
        make(shape.top, SIZE, Some("base"), &[(1, 9_000, 20_000), (2, 80_000, 9_000)]),
        make(shape.base, shape.base_size, None, &[(3, 0, 16_000), (4, 40_000, 30_000)]),
        make(4096, SIZE, None, &[(3, 0, 16_000), (5, 60_000, 20_000)]),
    ]
}

/// The top with what it names under it, read-only.
fn shown(files: &[MemoryDisk]) -> Result<Vec<u8>, String> {
    let open = |number: usize| {
        open(Arc::new(files[number].clone()), OpenMode::Read)
            .map_err(|error| format!("opening {}: {error}", NAMES[number]))
    };
    let top = open(TOP)?;
    let below: Option<Arc<dyn Disk>> = match top.backing() {
        None => None,
        Some(backing) => {
            let is_long = backing.name == long_name();
            let number = NAMES.iter().position(|name| *name == backing.name);
            let number = number.or(is_long.then_some(OTHER));
            Some(open(number.ok_or_else(|| format!("names {}", backing.name))?)?)
        }
    };
    top.attach_backing(below).map_err(|error| error.to_string())?;
    let mut bytes = vec![0; top.size() as usize];
    top.read_at(&mut bytes, 0).map_err(|error| format!("reading: {error}"))?;
    Ok(bytes)
}

fn judge(files: &[MemoryDisk], wanted: &[u8]) -> Result<Verdict, String> {
    if shown(files)? != wanted {
        return Err("the top shows something else".into());
    }
    let mut worst = Verdict::Clean;
    for (number, file) in files.iter().enumerate() {
        let name = NAMES[number];
        let disk: Arc<dyn Disk> = Arc::new(file.clone());
        let image = open(disk, OpenMode::Read).map_err(|error| format!("{name}: {error}"))?;
        let report = image.check(Repair::None, &mut |_| {}).unwrap().unwrap();
        let verdict = match (report.corruptions, report.leaks) {
            (0, 0) => Verdict::Clean,
            (0, _) => Verdict::Leaks,
            _ if image.dirty() == Some(true) => Verdict::Marked,
            (n, _) => return Err(format!("{name}: {n} corruptions, and not marked")),
        };
        if verdict as usize > worst as usize {
            worst = verdict;
        }
    }
    let kept: Vec<_> = files.iter().map(|file| Arc::new(file.clone())).collect();
    for (number, file) in kept.iter().enumerate() {
        let image = open(file.clone(), OpenMode::Write)
            .map_err(|error| format!("{} for writing: {error}", NAMES[number]))?;
        image.close().map_err(|error| format!("closing {}: {error}", NAMES[number]))?;
    }
    let repaired: Vec<MemoryDisk> = kept.iter().map(|file| (**file).clone()).collect();
    match shown(&repaired)? == wanted {
        true => Ok(worst),
        false => Err("opening for writing changed what the top shows".into()),
    }
}

type Act = fn(&[Arc<dyn Disk>]) -> disksmith_disk::Result<()>;

fn chain(disks: &[Arc<dyn Disk>], base_mode: OpenMode) -> disksmith_disk::Result<Node> {
    let base = Arc::new(node(open(disks[BASE].clone(), base_mode)?, None));
    Ok(node(open(disks[TOP].clone(), OpenMode::Write)?, Some(base)))
}

/// Closes all layers, also after a failure.
fn end(top: &Node, done: disksmith_disk::Result<()>) -> disksmith_disk::Result<()> {
    let closed: Vec<_> = top.chain().map(|layer| layer.image.close()).collect();
    closed.into_iter().fold(done, disksmith_disk::Result::and)
}

fn do_commit(disks: &[Arc<dyn Disk>], keep_overlay: bool) -> disksmith_disk::Result<()> {
    let top = chain(disks, OpenMode::Write)?;
    let base = top.backing.clone().unwrap();
    let request =
        CommitRequest { top: &top, base: &*base.image, base_depth: 1, keep_overlay, rate: None };
    end(&top, commit(&request, &Silent).map(drop))
}

fn do_rebase(
    disks: &[Arc<dyn Disk>],
    to: Option<String>,
    compress: bool,
) -> disksmith_disk::Result<()> {
    let top = chain(disks, OpenMode::Read)?;
    let other = node(open(disks[OTHER].clone(), OpenMode::Read)?, None);
    let record = to.map(|name| Backing { name, format: Some("qcow2".into()) });
    let new = record.is_some().then_some(&other);
    let request = RebaseRequest {
        image: &top,
        new,
        record: record.as_ref(),
        compress,
        store_zeroes: compress,
    };
    end(&top, rebase(&request, &Silent).map(drop))
}

const ACTS: &[(&str, Act)] = &[
    ("commit", |disks| do_commit(disks, false)),
    ("commit, overlay kept", |disks| do_commit(disks, true)),
    ("rebase to another", |disks| do_rebase(disks, Some("other".into()), false)),
    ("rebase, long name", |disks| do_rebase(disks, Some(long_name()), false)),
    ("rebase, compressing", |disks| do_rebase(disks, Some("other".into()), true)),
    ("rebase to none", |disks| do_rebase(disks, None, false)),
];

/// Every act on every shape.
fn cases() -> impl Iterator<Item = (String, &'static str, Act, &'static Shape)> {
    let all = ACTS.iter().flat_map(|act| SHAPES.iter().enumerate().map(move |shape| (act, shape)));
    // 512 bytes have no room for a long name, whatever is done.
    let fit = all.filter(|((name, _), (_, shape))| !name.contains("long") || shape.top != 512);
    fit.map(|((name, act), (number, shape))| {
        (format!("{name}, shape {number}"), *name, *act, shape)
    })
}

#[test]
fn what_the_top_shows_survives_every_cut() {
    let limits = match std::env::var_os("DISKSMITH_LONG") {
        Some(_) => CrashLimits::default(),
        None => CrashLimits { full_up_to: 6, random_subsets: 16, torn: 4, seed: 5 },
    };
    let mut tally = Tally::default();
    for (case, name, act, shape) in cases() {
        let initial = files(shape);
        let wanted = shown(&initial).unwrap();
        let recorder = Recorder::new();
        let disks: Vec<_> =
            initial.iter().enumerate().map(|(n, f)| recorder.disk(n, f.clone())).collect();
        let all: Vec<_> = disks.iter().map(|disk| disk.clone() as Arc<dyn Disk>).collect();
        act(&all).unwrap();
        let last: Vec<_> = disks.iter().map(|disk| disk.content()).collect();
        assert!(shown(&last).unwrap() == wanted, "{case}: at the end");
        crash_states(&initial, &recorder.log(), limits, &mut |state| {
            match judge(&state.files, &wanted) {
                Ok(verdict) => tally.count(name, verdict),
                Err(why) => panic!("{case}, state {}: {why}", state.name),
            }
            true
        });
    }
    println!("{} states of chains\n{tally}", tally.states());
    assert!(tally.states() > 1000, "too few states to show anything");
}

#[test]
fn what_the_top_shows_survives_every_failure() {
    let mut failures = Failures::default();
    for (case, _, act, shape) in cases() {
        let initial = files(shape);
        let wanted = shown(&initial).unwrap();
        failures.every(&case, &initial, &act, &|files| judge(files, &wanted).map(drop));
    }
    failures.end(1000);
}
