//! Changes of all sorts to all kinds of images. Whoever asked is told; what is there is old or new,
//! sector by sector, and sound, or marked and mended by the next writer; what was done after the
//! failure, and said to be done, is there.

use std::sync::Arc;

use disksmith_disk::{Disk, MemoryDisk, Result, ZeroMode};
use disksmith_formats::{Backing, Image, OpenMode, Preallocation, Repair, ResizeRequest, Snapshot};
use disksmith_testkit::tagged;

use crate::common::options;
use crate::common::views::{Views, allowed, views};
use crate::kinds::{KINDS, Kind, PASSWORD, SIZE, pack};
use crate::sweep::{EIO, Run, WHOLE, WHOLE_AND_HALF, fail_each, is_told, shared};

type Action = fn(&dyn Image) -> Result<()>;

struct Change {
    name: &'static str,
    fits: fn(&Kind) -> bool,
    action: Action,
    /// The password after it, if it is another one.
    password: Option<&'static str>,
}

const fn change(name: &'static str, fits: fn(&Kind) -> bool, action: Action) -> Change {
    Change { name, fits, action, password: None }
}

fn resize(image: &dyn Image, size: u64, preallocation: Preallocation) -> Result<()> {
    image.resize(ResizeRequest { size, preallocation })
}

fn amend(image: &dyn Image, text: &str) -> Result<()> {
    image.amend(&options(text), false, &mut |_, _| {})
}

fn resizes(kind: &Kind) -> bool {
    !kind.version_2()
}

/// In which all else can be said.
fn plain(kind: &Kind) -> bool {
    !kind.version_2() && !kind.data_file && !kind.locked
}

const CHANGES: &[Change] = &[
    change(
        "writes",
        |_| true,
        |image| {
            image.write_at(&tagged(7, 512, 40_960), 512)?;
            image.write_at(&tagged(7, 82_100, 900), 82_100)?;
            image.flush()?;
            image.write_at(&tagged(8, 150_016, 3000), 150_016)
        },
    ),
    change(
        "packs",
        |kind| kind.packed,
        |image| {
            for cluster in [3, 4, 5, 6, 7] {
                pack(image, cluster)?;
            }
            Ok(())
        },
    ),
    change(
        "zeroes",
        |_| true,
        |image| {
            image.write_zeroes(700, 40_000, ZeroMode::Unmap)?;
            image.write_zeroes(60_000, 21_000, ZeroMode::Keep)?;
            image.write_zeroes(204_800, 300, ZeroMode::Unmap)
        },
    ),
    change("discards", |_| true, |image| image.discard(0, 120_000)),
    change("grows", resizes, |image| resize(image, SIZE + 40_960, Preallocation::Off)),
    change("grows, tables", resizes, |image| resize(image, SIZE + 40_960, Preallocation::Metadata)),
    change("grows, reserved", resizes, |image| resize(image, SIZE + 20_480, Preallocation::Falloc)),
    change("grows, written", resizes, |image| resize(image, SIZE + 20_480, Preallocation::Full)),
    // What is dropped shows the backing image, until the size is written.
    change(
        "shrinks",
        |kind| resizes(kind) && !kind.backing,
        |image| resize(image, 30_208, Preallocation::Off),
    ),
    change("empties", |kind| !kind.version_2(), |image| image.make_empty()),
    change(
        "snapshot",
        |kind| kind.snapshots,
        |image| image.create_snapshot(Snapshot { name: "three".into(), ..Snapshot::default() }),
    ),
    change(
        "goes back",
        |kind| kind.snapshots && !kind.bitmaps,
        |image| image.apply_snapshot("one"),
    ),
    change("forgets a snapshot", |kind| kind.snapshots, |image| image.delete_snapshot("one")),
    change("adds a bitmap", |kind| kind.bitmaps, |image| image.add_bitmap("new", None, true)),
    change(
        "first bitmap",
        |kind| plain(kind) && !kind.bitmaps,
        |image| image.add_bitmap("new", None, true),
    ),
    change(
        "drops bitmaps",
        |kind| kind.bitmaps,
        |image| {
            image.remove_bitmap("bits")?;
            image.remove_bitmap("other")
        },
    ),
    change("clears a bitmap", |kind| kind.bitmaps, |image| image.clear_bitmap("bits")),
    change(
        "switches bitmaps",
        |kind| kind.bitmaps,
        |image| {
            image.enable_bitmap("bits", false)?;
            image.enable_bitmap("other", true)
        },
    ),
    change(
        "merges bitmaps",
        |kind| kind.bitmaps,
        |image| image.merge_bitmap("other", &image.dirty_ranges("bits")?),
    ),
    change(
        "names a backing image",
        |kind| kind.backing,
        |image| {
            let name = "another name, and a longer one".repeat(20);
            image.change_backing(Some(Backing { name, format: Some("qcow2".into()) }))
        },
    ),
    change("other counts", plain, |image| amend(image, "refcount_bits=32")),
    change(
        "older",
        |kind| kind.options == "cluster_size=4k" && !kind.data_file,
        |image| amend(image, "compat=0.10"),
    ),
    change("newer", Kind::version_2, |image| amend(image, "compat=1.1,refcount_bits=8")),
    change(
        "lazy",
        |kind| !kind.version_2(),
        |image| {
            amend(image, "lazy_refcounts=on")?;
            image.write_at(&tagged(7, 90_112, 4096), 90_112)?;
            amend(image, "lazy_refcounts=off")
        },
    ),
    change(
        "data file's name",
        |kind| kind.data_file,
        |image| {
            amend(image, "data_file=another")?;
            amend(image, "data_file_raw=off")
        },
    ),
    change("mends", |_| true, |image| image.check(Repair::All, &mut |_| {}).map(drop)),
    Change {
        name: "passwords",
        fits: |kind| kind.name == "luks",
        action: |image| {
            let add = "encrypt.state=active,encrypt.new-secret=second,encrypt.iter-time=1";
            amend(image, add)?;
            amend(image, "encrypt.state=inactive,encrypt.old-secret=first")
        },
        password: Some("second"),
    },
];

/// Where something is written after the failure, and what.
const LATER: u64 = 250_368;

fn later() -> Vec<u8> {
    tagged(99, LATER, 512)
}

/// What it said; and after a failure, whether a later write was said to be done.
fn carry_out(kind: &Kind, mode: OpenMode, change: &Change, files: &[Arc<dyn Disk>]) -> Outcome {
    let image = match kind.open(files, mode) {
        Ok(image) => image,
        Err(error) => return Outcome { result: Err(error), later: false },
    };
    let done = (change.action)(&*image);
    let later = done.is_err() && image.write_at(&later(), LATER).is_ok() && image.flush().is_ok();
    let result = done.and(image.close());
    Outcome { result, later }
}

#[derive(Debug)]
struct Outcome {
    result: Result<()>,
    later: bool,
}

fn disks(files: &[MemoryDisk]) -> Vec<Arc<dyn Disk>> {
    files.iter().cloned().map(shared).collect()
}

/// What is to be seen before and after.
fn ends(kind: &Kind, change: &Change, seed: &[MemoryDisk]) -> (Views, Views) {
    let before = views(&*kind.open(&disks(seed), OpenMode::Read).unwrap()).unwrap();
    let files = disks(seed);
    let done = carry_out(kind, mode(change), change, &files);
    done.result.unwrap_or_else(|error| panic!("{}, {}: {error}", kind.name, change.name));
    let password = change.password.unwrap_or(PASSWORD);
    let after = views(&*kind.unlock(&files, OpenMode::Read, password).unwrap()).unwrap();
    (before, after)
}

fn mode(change: &Change) -> OpenMode {
    if change.name == "mends" { OpenMode::Repair } else { OpenMode::Write }
}

fn corruptions(image: &dyn Image) -> u64 {
    image.check(Repair::None, &mut |_| {}).unwrap().unwrap().corruptions
}

/// Opens with the old password or the new one.
fn reopen(kind: &Kind, change: &Change, files: &[Arc<dyn Disk>], mode: OpenMode) -> Arc<dyn Image> {
    let new = change.password.unwrap_or(PASSWORD);
    kind.open(files, mode)
        .or_else(|_| kind.unlock(files, mode, new))
        .unwrap_or_else(|error| panic!("{}, {}: {error}", kind.name, change.name))
}

fn judge(
    kind: &Kind,
    change: &Change,
    (before, after): &(Views, Views),
    run: &Run<()>,
    later: bool,
) {
    let what = &run.what;
    let files = disks(&run.files);
    let image = reopen(kind, change, &files, OpenMode::Read);
    // Version 2 has no mark.
    let marked = image.dirty() == Some(true) || kind.version_2();
    assert!(marked || corruptions(&*image) == 0, "{what}: corrupt and not marked");
    let see = |image: &dyn Image| {
        let mut seen = views(image).unwrap();
        hide_later(&mut seen, before, later, what);
        allowed(&seen, before, after).unwrap_or_else(|why| panic!("{what}: {why}"));
    };
    see(&*image);
    drop(image);
    if kind.version_2() {
        let image = reopen(kind, change, &files, OpenMode::Repair);
        image.check(Repair::All, &mut |_| {}).unwrap();
        image.close().unwrap();
    }
    let image = reopen(kind, change, &files, OpenMode::Write);
    assert_eq!(corruptions(&*image), 0, "{what}: corrupt after it was opened for writing");
    see(&*image);
    image.write_at(&[8; 700], 9000).unwrap();
    image.close().unwrap();
}

/// The sector that was written after the failure, where it was, is as it was said to be.
fn hide_later(seen: &mut Views, before: &Views, must: bool, what: &str) {
    let (at, end) = (LATER as usize, LATER as usize + 512);
    let (shown, old) = (&mut seen[0].1, &before[0].1);
    let Some(sector) = shown.get_mut(at..end) else {
        assert!(!must, "{what}: what was written later is gone");
        return;
    };
    assert!(!must || *sector == later()[..], "{what}: what was written later is not there");
    if *sector == later()[..] {
        sector.copy_from_slice(&old[at..end]);
    }
}

#[test]
fn a_change_that_fails_leaves_old_or_new() {
    for kind in KINDS {
        let seed = kind.seed();
        for change in CHANGES.iter().filter(|change| (change.fits)(kind)) {
            let ends = ends(kind, change, &seed);
            let name = format!("{}: {}", kind.name, change.name);
            let faults = if kind.locked { WHOLE } else { WHOLE_AND_HALF };
            let job = |files: &[Arc<dyn Disk>]| {
                let Outcome { result, later } = carry_out(kind, mode(change), change, files);
                Ok((result, later))
            };
            fail_each(&seed, &name, faults, &job, &|run| {
                let (result, later) = run.result.unwrap();
                let run = Run { files: run.files, result, what: run.what };
                let told = is_told(&run.result);
                let harmless = run.result.is_ok() && is_after(kind, change, &ends.1, &run.files);
                assert!(told || harmless, "{}: {:?} ({EIO} was)", run.what, run.result);
                judge(kind, change, &ends, &run, later);
            });
        }
    }
}

/// Nothing was lost by the failure.
fn is_after(kind: &Kind, change: &Change, after: &Views, files: &[MemoryDisk]) -> bool {
    let image = reopen(kind, change, &disks(files), OpenMode::Read);
    views(&*image).is_ok_and(|seen| seen == *after) && corruptions(&*image) == 0
}
