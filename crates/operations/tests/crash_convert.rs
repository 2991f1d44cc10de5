//! Power cuts during convert into an image that is there: the product over the target's files
//! (an image, and perhaps its data file) and the source. At every state each sector of the target
//! is as before or as the source has it, and the source as ever.
//!
//! `DISKSMITH_LONG=1` takes the simulator's full limits.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail by a panic")]

mod support;

use std::sync::Arc;

use disksmith_disk::{Disk, MemoryDisk};
use disksmith_formats::{CreateRequest, Image, OpenMode, OpenRequest, Options, Repair, driver};
use disksmith_operations::{ConvertRequest, Silent, convert};
use disksmith_testkit::{CrashLimits, Recorder, Tally, Verdict, crash_states, tagged};
use support::failures::Failures;
use support::{content, node};

const SIZE: u64 = 128 << 10;
const SOURCE: usize = 0;

/// A kind of target.
struct Shape {
    name: &'static str,
    options: &'static [(&'static str, &'static str)],
    data_file: bool,
    compress: bool,
    /// The target had nothing in it.
    fresh: bool,
}

const fn shape(name: &'static str, options: &'static [(&'static str, &'static str)]) -> Shape {
    Shape { name, options, data_file: false, compress: false, fresh: false }
}

const SHAPES: &[Shape] = &[
    shape("4k", &[("cluster_size", "4k")]),
    shape("512", &[("cluster_size", "512")]),
    Shape { fresh: true, ..shape("new", &[("cluster_size", "4k")]) },
    Shape { fresh: true, compress: true, ..shape("new, compressed", &[("cluster_size", "4k")]) },
    shape("extended", &[("cluster_size", "16k"), ("extended_l2", "on")]),
    Shape { data_file: true, ..shape("data file", &[("cluster_size", "4k")]) },
    Shape { data_file: true, fresh: true, ..shape("new data file", &[("cluster_size", "4k")]) },
    Shape {
        data_file: true,
        ..shape("raw data file", &[("cluster_size", "4k"), ("data_file_raw", "on")])
    },
];

/// An image; its data file is the second disk.
fn open(files: &[Arc<dyn Disk>], mode: OpenMode) -> disksmith_disk::Result<Arc<dyn Image>> {
    let request = OpenRequest { mode, ..OpenRequest::default() };
    let image = (driver("qcow2").unwrap().open)(files[0].clone(), request)?;
    if let Some(data) = files.get(1) {
        image.attach_data_file(data.clone())?;
    }
    Ok(image)
}

fn copies(files: &[MemoryDisk]) -> Vec<Arc<dyn Disk>> {
    files.iter().map(|file| Arc::new(file.clone()) as Arc<dyn Disk>).collect()
}

/// The source, then the target's files.
fn files(shape: &Shape) -> Vec<MemoryDisk> {
    let source = make(&[("cluster_size", "4k")], false, |image| {
        image.write_at(&tagged(1, 0, 50_000), 0).unwrap();
        image.write_at(&tagged(2, 90_112, 20_480), 90_112).unwrap();
    });
    let target = make(shape.options, shape.data_file, |image| {
        if !shape.fresh {
            image.write_at(&tagged(3, 20_480, 60_000), 20_480).unwrap();
        }
    });
    [source, target].concat()
}

fn make(options: &[(&str, &str)], data_file: bool, fill: impl Fn(&dyn Image)) -> Vec<MemoryDisk> {
    let made: Vec<_> = (0..=u8::from(data_file)).map(|_| Arc::new(MemoryDisk::new(0))).collect();
    let files: Vec<_> = made.iter().map(|file| file.clone() as Arc<dyn Disk>).collect();
    let mut request = CreateRequest {
        size: SIZE,
        data_file: files.get(1).map(|disk| ("data".to_string(), disk.clone())),
        ..CreateRequest::default()
    };
    request.options = Options::new();
    options.iter().for_each(|(name, value)| request.options.set(name, *value));
    (driver("qcow2").unwrap().create.unwrap())(&files[0], &request).unwrap();
    let image = open(&files, OpenMode::Write).unwrap();
    fill(&*image);
    image.close().unwrap();
    drop(image);
    made.iter().map(|file| (**file).clone()).collect()
}

fn shown(files: &[Arc<dyn Disk>]) -> Result<Vec<u8>, String> {
    open(files, OpenMode::Read).map(|image| content(&*image)).map_err(|e| e.to_string())
}

fn check(files: &[Arc<dyn Disk>]) -> Verdict {
    let image = open(files, OpenMode::Read).unwrap();
    let report = image.check(Repair::None, &mut |_| {}).unwrap().unwrap();
    match (report.corruptions, report.leaks) {
        (0, 0) => Verdict::Clean,
        (0, _) => Verdict::Leaks,
        _ if image.dirty() == Some(true) => Verdict::Marked,
        _ => Verdict::Corrupt,
    }
}

fn judge(files: &[MemoryDisk], before: &[u8], after: &[u8]) -> Result<Verdict, String> {
    let (source, target) = files.split_at(SOURCE + 1);
    if shown(&copies(source))? != after {
        return Err("the source shows something else".into());
    }
    let target = copies(target);
    let old_or_new = |what: &str| {
        let seen = shown(&target).map_err(|e| format!("{what}: {e}"))?;
        let wrong = (seen.chunks(512).zip(before.chunks(512)).zip(after.chunks(512)))
            .position(|((seen, old), new)| seen != old && seen != new);
        wrong.map_or(Ok(seen), |at| Err(format!("{what}: sector {at} is neither old nor new")))
    };
    let seen = old_or_new("after the cut")?;
    let verdict = check(&target);
    if verdict == Verdict::Corrupt {
        return Err("corrupt, and not marked".into());
    }
    let image = open(&target, OpenMode::Write).map_err(|e| format!("for writing: {e}"))?;
    image.close().map_err(|e| format!("closing: {e}"))?;
    match old_or_new("opened for writing")? == seen && check(&target) as u8 <= 1 {
        true => Ok(verdict),
        false => Err("opening for writing changed the content, or did not mend".into()),
    }
}

/// The source into the target; what fails is closed, too.
fn act(shape: &Shape, files: &[Arc<dyn Disk>]) -> disksmith_disk::Result<()> {
    let (source, target) = files.split_at(SOURCE + 1);
    let from = node(open(source, OpenMode::Read)?, None);
    let to = node(open(target, OpenMode::Write)?, None);
    let sources = [&from];
    let request = ConvertRequest {
        target_is_zero: shape.fresh,
        compress: shape.compress,
        ..ConvertRequest::new(&sources, &to)
    };
    let done = convert(&request, &Silent).map(drop);
    let closed = to.image.close();
    done.and(closed)
}

#[test]
fn each_sector_of_the_target_is_old_or_new_after_a_failure() {
    let mut failures = Failures::default();
    for shape in SHAPES {
        let initial = files(shape);
        let (source, target) = initial.split_at(SOURCE + 1);
        let before = shown(&copies(target)).unwrap();
        let wanted = shown(&copies(source)).unwrap();
        let look = |files: &[MemoryDisk]| judge(files, &before, &wanted).map(drop);
        failures.every(shape.name, &initial, &|files| act(shape, files), &look);
    }
    failures.end(300);
}

#[test]
fn each_sector_of_the_target_is_old_or_new() {
    let limits = match std::env::var_os("DISKSMITH_LONG") {
        Some(_) => CrashLimits::default(),
        None => CrashLimits { full_up_to: 6, random_subsets: 16, torn: 4, seed: 9 },
    };
    let mut tally = Tally::default();
    for shape in SHAPES {
        let initial = files(shape);
        let recorder = Recorder::new();
        let disks: Vec<_> =
            initial.iter().enumerate().map(|(n, f)| recorder.disk(n, f.clone())).collect();
        let all: Vec<_> = disks.iter().map(|disk| disk.clone() as Arc<dyn Disk>).collect();
        let (source, target) = all.split_at(SOURCE + 1);
        let before = shown(target).unwrap();
        let wanted = shown(source).unwrap();
        recorder.begin(0);
        act(shape, &all).unwrap();
        recorder.durable(1);
        assert!(shown(target).unwrap() == wanted, "{}: at the end", shape.name);
        crash_states(&initial, &recorder.log(), limits, &mut |state| {
            let before = if state.durable == 1 { &wanted } else { &before };
            match judge(&state.files, before, &wanted) {
                Ok(verdict) => tally.count(shape.name, verdict),
                Err(why) => panic!("{}, state {}: {why}", shape.name, state.name),
            }
            true
        });
    }
    println!("{} states of convert\n{tally}", tally.states());
    assert!(tally.states() > 100, "too few states to show anything");
}
