//! qcow2 under power cuts: whatever part of the unflushed writes reached the file, the image
//! opens, shows for each sector a value that it had since the last flush, and its refcounts
//! are at least the references.
//!
//! `DISKSMITH_LONG=1` runs all sequences of two operations on all kinds of images, and many of
//! three; without it a part.
#![allow(clippy::unwrap_used)]

mod common;

use std::sync::Arc;

use common::{Scratch, open};
use disksmith_codec::Compressor;
use disksmith_disk::{Disk, MemoryDisk, ZeroMode};
use disksmith_formats::{
    CreateRequest, Image, OpenMode, OpenRequest, Options, Repair, ResizeRequest, Snapshot, driver,
};
use disksmith_testkit::{
    CrashLimits, CrashState, Recorder, Rng, SectorModel, crash_states, tagged,
};

/// Guest size of every image at the start.
const SIZE: u64 = 96 << 10;

/// The operations of which sequences are made. Offsets suit clusters of 4 KiB and less.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Step {
    /// Whole clusters where nothing is.
    Write(u64, u64),
    ZeroKeep(u64, u64),
    ZeroUnmap(u64, u64),
    Discard(u64, u64),
    Packed(u64),
    Flush,
    Grow,
    Shrink,
    Empty,
    Snapshot,
}

const STEPS: [Step; 16] = [
    Step::Write(65536, 8192),
    Step::Write(69632, 512),
    Step::Write(2048, 12288),
    Step::Write(0, 4096),
    Step::Write(16384, 1024),
    Step::ZeroKeep(0, 8192),
    Step::ZeroUnmap(0, 12288),
    Step::ZeroUnmap(1024, 2048),
    Step::Discard(0, 16384),
    Step::Packed(16384),
    Step::Packed(81920),
    Step::Flush,
    Step::Grow,
    Step::Shrink,
    Step::Empty,
    Step::Snapshot,
];

const KINDS: [&str; 8] = [
    "cluster_size=4k",
    "cluster_size=512",
    "cluster_size=64k",
    "cluster_size=16k,extended_l2=on",
    "cluster_size=4k,lazy_refcounts=on",
    "cluster_size=4k,compat=0.10",
    "cluster_size=512,refcount_bits=1",
    "cluster_size=4k,snapshot",
];

fn options(text: &str) -> Options {
    let mut options = Options::new();
    for (name, value) in text.split(',').filter_map(|pair| pair.split_once('=')) {
        options.set(name, value);
    }
    options
}

/// An image with some data in it, and the model of it.
fn base(kind: &str) -> (MemoryDisk, SectorModel) {
    let file = Arc::new(MemoryDisk::new(0));
    let storage: Arc<dyn Disk> = file.clone();
    let request = CreateRequest { size: SIZE, options: options(kind), ..Default::default() };
    (driver("qcow2").unwrap().create.unwrap())(&storage, &request).unwrap();
    let image = open(storage, OpenMode::Write);
    let mut model = SectorModel::new(SIZE);
    for (write, offset, length) in [(1, 0, 16384), (2, 20480, 1536)] {
        image.write_at(&tagged(write, offset, length), offset).unwrap();
        model.write(write, offset, length);
    }
    apply(&*image, &mut model, 3, Step::Packed(24576));
    apply(&*image, &mut model, 4, Step::Packed(32768));
    if kind.contains("snapshot") {
        image.create_snapshot(Snapshot { name: "s".into(), ..Default::default() }).unwrap();
    }
    image.close().unwrap();
    model.flush();
    (MemoryDisk::clone(&file), model)
}

/// Carries out one step on the image and on the model.
fn apply(image: &dyn Image, model: &mut SectorModel, write: u32, step: Step) {
    let size = image.size();
    let fit = |offset: u64, length: u64| (offset < size).then(|| length.min(size - offset));
    match step {
        Step::Write(offset, length) => {
            let Some(length) = fit(offset, length) else { return };
            image.write_at(&tagged(write, offset, length), offset).unwrap();
            model.write(write, offset, length);
        }
        Step::ZeroKeep(offset, length) | Step::ZeroUnmap(offset, length) => {
            let Some(length) = fit(offset, length) else { return };
            let unmap = matches!(step, Step::ZeroUnmap(..));
            let mode = if unmap { ZeroMode::Unmap } else { ZeroMode::Keep };
            image.write_zeroes(offset, length, mode).unwrap();
            model.write(0, offset, length);
        }
        Step::Discard(offset, length) => {
            let Some(length) = fit(offset, length) else { return };
            image.discard(offset, length).unwrap();
            // Which sectors were given up is the image's choice.
            for at in (offset..offset + length).step_by(512) {
                let mut sector = [0; 512];
                image.read_at(&mut sector, at).unwrap();
                if sector == [0; 512] {
                    model.write(0, at, 512);
                }
            }
        }
        Step::Packed(offset) => {
            let cluster = image.cluster_size().unwrap();
            let offset = offset / cluster * cluster;
            let Some(length) = fit(offset, cluster) else { return };
            let mut data = tagged(write, offset, length);
            data.resize(cluster as usize, 0);
            let algorithm = image.compression().unwrap().algorithm;
            let mut compressor = Compressor::new(algorithm, Default::default());
            match compressor.compress(&data) {
                Some(packed) => image.write_packed(offset, packed).unwrap(),
                None => image.write_at(&data[..length as usize], offset).unwrap(),
            }
            model.write(write, offset, length);
        }
        Step::Flush => image.flush().unwrap(),
        Step::Grow | Step::Shrink => {
            let new = if step == Step::Grow { size + 300 * 1024 } else { 10 * 1024 };
            let request = ResizeRequest { size: new, preallocation: Default::default() };
            // Version 2 refuses with snapshots.
            if image.resize(request).is_ok() {
                model.resize(new);
            }
        }
        Step::Empty => {
            image.make_empty().unwrap();
            model.write(0, 0, size);
        }
        Step::Snapshot => {
            // Narrow refcounts refuse.
            let _ = image.create_snapshot(Snapshot { name: "t".into(), ..Default::default() });
        }
    }
}

/// Runs a sequence, and checks every state in which a cut can leave the file.
fn run(kind: &str, steps: &[Step], limits: CrashLimits, scratch: &Scratch) -> u64 {
    let (initial, model) = base(kind);
    let recorder = Recorder::new();
    let file = recorder.disk(0, initial.clone());
    let image = open(file.clone(), OpenMode::Write);
    // models[n]: what the guest may see when steps before n were carried out.
    let mut models = vec![model.clone()];
    let mut model = model;
    for (number, step) in steps.iter().chain([&Step::Flush]).enumerate() {
        recorder.begin(number as u64);
        let before = model.clone();
        apply(&*image, &mut model, number as u32 + 10, *step);
        let settles = matches!(step, Step::Flush | Step::Grow | Step::Shrink | Step::Empty);
        if settles {
            recorder.durable(number as u64 + 1);
        }
        // While a change of size runs, either side of it is right.
        if model.size() != before.size() {
            let longer = model.either(&before);
            models.push(longer);
        } else {
            models.push(model.clone());
        }
        if settles {
            model.flush();
        }
    }
    let end = steps.len() as u64 + 1;
    recorder.begin(end);
    image.close().unwrap();
    models.push(model.clone());
    let mut seen = 0u64;
    let visited = crash_states(&[initial], &recorder.log(), limits, &mut |state| {
        seen += 1;
        let allowed = &models[(state.begun as usize + 1).min(models.len() - 1)];
        let now = if state.durable > state.begun { &model } else { allowed };
        let told = format!("{kind} {steps:?} state {} (step {})", state.name, state.begun);
        check_state(&state, now, &told, scratch, seen % 499 == 0);
        true
    });
    assert_eq!(visited, seen);
    visited
}

fn check_state(
    state: &CrashState,
    model: &SectorModel,
    told: &str,
    scratch: &Scratch,
    ask_qemu: bool,
) {
    let file: Arc<dyn Disk> = Arc::new(state.files[0].clone());
    let image = open(file, OpenMode::Read);
    let mut content = vec![0; image.size() as usize];
    image.read_at(&mut content, 0).unwrap_or_else(|error| panic!("{told}: {error}"));
    if let Some(violation) = model.check(&content) {
        panic!("{told}: {violation:?}");
    }
    let dirty = image.dirty() == Some(true);
    let file: Arc<dyn Disk> = Arc::new(state.files[0].clone());
    let request = OpenRequest { mode: OpenMode::Check, ..OpenRequest::default() };
    let checked = (driver("qcow2").unwrap().open)(file, request).unwrap();
    let mut lines = Vec::new();
    let report = checked.check(Repair::None, &mut |f| lines.push(f.text)).unwrap().unwrap();
    // Version 2 cannot mark itself dirty while a snapshot is taken: flags that do not fit the
    // refcounts yet are harmless.
    let harmless = told.contains("0.10")
        && lines.iter().all(|line| line.contains("OFLAG_COPIED") || line.starts_with("Leaked"));
    let right = dirty || harmless || report.corruptions + report.check_errors == 0;
    assert!(right, "{told}: {lines:?}");
    // The next writer finds everything in order, and sees the same.
    let file: Arc<dyn Disk> = Arc::new(state.files[0].clone());
    let image = open(file, OpenMode::Write);
    let mut again = vec![0; content.len()];
    image.read_at(&mut again, 0).unwrap();
    assert!(again == content, "{told}: opening for writing changed the content");
    if ask_qemu {
        let path = scratch.path("state");
        std::fs::write(&path, state.files[0].to_bytes()).unwrap();
        let (status, text) = disksmith_testkit::oracle::qemu_check("qcow2", &path);
        assert!(dirty || harmless || status == 0 || status == 3, "{told}: {text}");
    }
}

#[test]
fn no_cut_harms() {
    let long = std::env::var_os("DISKSMITH_LONG").is_some();
    let scratch = Scratch::new();
    let limits = CrashLimits {
        full_up_to: if long { 9 } else { 6 },
        random_subsets: if long { 64 } else { 12 },
        torn: if long { 8 } else { 3 },
        seed: 1,
    };
    let mut rng = Rng::new(7);
    let mut states = 0;
    for kind in KINDS {
        for first in STEPS {
            for second in STEPS {
                // One sequence in eight, all of them in the long run.
                if long || rng.one_in(8) {
                    states += run(kind, &[first, second], limits, &scratch);
                }
                if long && rng.one_in(4) {
                    let third = *rng.pick(&STEPS);
                    states += run(kind, &[first, Step::Flush, second, third], limits, &scratch);
                }
            }
        }
    }
    assert!(states > 5000, "{states}");
    println!("{states} states");
}
