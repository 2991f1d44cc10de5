//! Reading a copy back.

use std::ops::Range;

use disksmith_disk::{Context, Disk, Error, Kind, PageBuffer, Result, State, is_zero};

use super::Reader;
use super::reader::{Hashed, hash};
use crate::Observer;
use crate::observer::Meter;

/// Read at once.
const BUFFER: u64 = 1 << 20;

/// Reads `target` back and compares it with the hashes that were taken while `reader` was copied
/// from `start` on; what was copied by an earlier run (before `start`) is read from both. What
/// was not read from the source must be zeroes if the target was new (`zeroes`).
pub fn verify(
    reader: &Reader,
    target: &dyn Disk,
    start: u64,
    zeroes: bool,
    observer: &dyn Observer,
) -> Result<()> {
    let meter = Meter::start(observer, reader.size());
    let hashes = reader.hashes();
    both(reader, target, start, &meter)?;
    let mut at = start;
    for hashed in &hashes {
        if zeroes {
            must_be_zero(target, at..hashed.offset)?;
        }
        one(target, hashed)?;
        meter.advance((hashed.offset + hashed.length).saturating_sub(at))?;
        at = at.max(hashed.offset + hashed.length);
    }
    if zeroes {
        must_be_zero(target, at..reader.size())?;
    }
    meter.finish();
    Ok(())
}

/// Whether `target` holds what was copied to it, everything before `done`, as far as samples tell:
/// a device may have been used for something else since, or be another one of the same name.
pub fn holds_beginning(reader: &Reader, target: &dyn Disk, done: u64) -> Result<bool> {
    const SAMPLES: u64 = 64;
    const SAMPLE: u64 = 64 << 10;
    let (mut own, mut copy) = (vec![0; SAMPLE as usize], vec![0; SAMPLE as usize]);
    for number in 0..=SAMPLES {
        let mut at = done.saturating_sub(SAMPLE) / SAMPLES * number;
        // From there on, the next that was copied.
        let length = loop {
            if at >= done {
                break 0;
            }
            let run = reader.map(at, done - at)?;
            if run.state == State::Data {
                break run.length.min(SAMPLE) as usize;
            }
            at += run.length;
        };
        let (own, copy) = (&mut own[..length], &mut copy[..length]);
        // What cannot be read tells nothing.
        if reader.read_at(own, at).is_ok() {
            target.read_at(copy, at).context("Could not read the copy back")?;
            if own != copy {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

fn one(target: &dyn Disk, hashed: &Hashed) -> Result<()> {
    let mut bytes = PageBuffer::zeroed(usize::try_from(hashed.length).unwrap_or(0));
    target.read_at(&mut bytes, hashed.offset).context("Could not read the copy back")?;
    match hash(&bytes) == hashed.hash {
        true => Ok(()),
        false => Err(differs(hashed.offset, hashed.length)),
    }
}

/// The part that an earlier run copied.
fn both(reader: &Reader, target: &dyn Disk, end: u64, meter: &Meter<'_>) -> Result<()> {
    let mut at = 0;
    while at < end {
        let run = reader.map(at, (end - at).min(BUFFER))?;
        if run.state == State::Data {
            let length = usize::try_from(run.length).unwrap_or(0);
            let (mut source, mut copy) = (PageBuffer::zeroed(length), PageBuffer::zeroed(length));
            reader.read_at(&mut source, at)?;
            target.read_at(&mut copy, at).context("Could not read the copy back")?;
            if source[..] != copy[..] {
                return Err(differs(at, run.length));
            }
        }
        meter.advance(run.length)?;
        at += run.length;
    }
    Ok(())
}

fn must_be_zero(target: &dyn Disk, range: Range<u64>) -> Result<()> {
    let mut at = range.start;
    while at < range.end {
        let run = target.map(at, range.end - at).context("Could not read the copy back")?;
        let mut length = run.length;
        if run.state == State::Data {
            length = length.min(BUFFER);
            let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
            target.read_at(&mut bytes, at).context("Could not read the copy back")?;
            if !is_zero(&bytes) {
                return Err(differs(at, length));
            }
        }
        at += length;
    }
    Ok(())
}

fn differs(offset: u64, length: u64) -> Error {
    Error::new(
        Kind::Io,
        format!(
            "the copy differs from what was written, in bytes {offset} to {}",
            offset + length - 1
        ),
    )
    .with_hint("The target does not hold what it was given: do not rely on it.")
}
