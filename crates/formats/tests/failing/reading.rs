//! Looking, reading, checking: the answer is the whole truth, or an error.

use disksmith_disk::{Error, Result};
use disksmith_formats::{Image, OpenMode, Repair};

use crate::kinds::KINDS;
use crate::sweep::{EIO, Run, WHOLE, fail_each, is_told, shared};

/// Pieces that begin and end within clusters.
const PIECE: usize = 7000;

fn look(image: &dyn Image) -> Result<String> {
    let (facts, bitmaps) = (image.facts()?, image.bitmaps()?);
    Ok(format!("{facts:?} {bitmaps:?} {:?} {:?}", image.snapshots(), image.backing()))
}

fn content(image: &dyn Image) -> Result<String> {
    let mut all = vec![0; image.size() as usize];
    for (piece, at) in all.chunks_mut(PIECE).zip((0..).step_by(PIECE)) {
        image.read_at(piece, at)?;
    }
    let (mut at, mut data) = (0, 0);
    while at < image.size() {
        let extent = image.map(at, image.size() - at)?;
        data += if extent.state == disksmith_disk::State::Data { extent.length } else { 0 };
        at += extent.length;
    }
    Ok(format!("{data} bytes of data: {all:?}"))
}

fn everything(image: &dyn Image) -> Result<String> {
    let mut seen = look(image)? + &content(image)?;
    for snapshot in image.snapshots() {
        seen += &content(&*image.open_snapshot(&snapshot.id)?)?;
    }
    for bitmap in image.bitmaps()? {
        seen += &format!("{:?}", image.dirty_ranges(&bitmap.name)?);
    }
    Ok(seen)
}

/// What a check finds, if nothing kept it from looking.
fn check(image: &dyn Image) -> Result<String> {
    let mut found = String::new();
    let report = image.check(Repair::None, &mut |finding| found += &finding.text)?.unwrap();
    match report.check_errors {
        0 => Ok(format!("{found} {report:?}")),
        _ => Err(Error::from_errno(EIO)),
    }
}

/// Its name, how the image is opened for it, and what it finds.
type Job = (&'static str, OpenMode, fn(&dyn Image) -> Result<String>);

#[test]
fn what_cannot_be_read_is_not_taken_for_anything() {
    let jobs: [Job; 4] = [
        ("info", OpenMode::Inspect, look),
        ("reading", OpenMode::Read, everything),
        ("reading while writing", OpenMode::Write, everything),
        ("checking", OpenMode::Check, check),
    ];
    for kind in KINDS {
        let seed = kind.seed();
        for (name, mode, job) in jobs {
            let name = format!("{}: {name}", kind.name);
            let truth = {
                let files: Vec<_> = seed.iter().cloned().map(shared).collect();
                job(&*kind.open(&files, mode).unwrap()).unwrap()
            };
            let judge = |run: Run<String>| {
                // Nothing was lost where the answer is the same.
                let same = run.result.as_ref().is_ok_and(|seen| *seen == truth);
                assert!(
                    same || is_told(&run.result),
                    "{}: untrue or {:?}",
                    run.what,
                    run.result.err()
                );
            };
            fail_each(&seed, &name, WHOLE, &|files| job(&*kind.open(files, mode)?), &judge);
        }
    }
}
