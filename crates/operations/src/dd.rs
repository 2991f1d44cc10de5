//! Copying blocks from one place of an image to another place of another one, and from and to
//! streams.

use std::io::{Read, Write};
use std::sync::{Mutex, PoisonError};

use disksmith_disk::{Context, Error, Kind, PageBuffer, Result, ZeroMode};
use disksmith_formats::{Image, Preallocation, ResizeRequest};
use disksmith_open::Node;

use crate::Observer;
use crate::observer::{Meter, check_cancelled};
use crate::pipeline::{self, Pipeline};
use crate::plan::{Plan, Source};
use crate::pool::Shape;
use crate::transfer::{Action, Transfer};

/// Which bytes `dd` copies, worked out from blocks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct DdPlan {
    /// Where reading begins.
    pub from: u64,
    /// Where writing begins.
    pub to: u64,
    /// How many bytes are copied: less than asked for where the source ends before.
    pub length: u64,
    /// `skip` leads past the end of the source: nothing is copied, to be warned of.
    pub skipped_too_far: bool,
}

impl DdPlan {
    /// `count` blocks from block `skip` on of a source of `size` bytes, to block `seek`.
    ///
    /// With `count_from_start`, as in qemu-img, `count` blocks from the start of the source are
    /// looked at and `skip` of these left out; otherwise, as in dd(1), `count` are copied.
    pub fn new(
        size: u64,
        block_size: u64,
        count: Option<u64>,
        skip: u64,
        seek: u64,
        count_from_start: bool,
    ) -> Result<Self> {
        let too_far = || Error::new(Kind::InvalidInput, "seek leads past the largest offset");
        let to = seek.checked_mul(block_size).ok_or_else(too_far)?;
        let from = skip.saturating_mul(block_size);
        let count = count.map_or(u64::MAX, |count| count.saturating_mul(block_size));
        let end = match count_from_start {
            true => size.min(count),
            false => size.min(from.saturating_add(count)),
        };
        Ok(Self {
            from: from.min(end),
            to,
            length: end.saturating_sub(from),
            skipped_too_far: from > end,
        })
    }

    /// The size that a new target must have.
    pub fn target_size(&self) -> u64 {
        self.to.saturating_add(self.length)
    }
}

/// `conv=` of dd(1), as far as it makes sense for disks.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct DdConv {
    /// Blocks of zeroes are left out (the target reads as zero there, or keeps what it has).
    pub sparse: bool,
    /// What cannot be read is told and becomes zeroes.
    pub noerror: bool,
}

/// What to copy.
#[derive(Clone, Copy, Debug)]
pub struct DdRequest<'a> {
    /// Read from here.
    pub source: &'a Node,
    /// Written here: made or opened by the caller, large enough.
    pub target: &'a dyn Image,
    /// Which bytes.
    pub plan: DdPlan,
    /// The target reads as zero where it will be written: zeroes need not be written.
    pub target_is_zero: bool,
    /// How.
    pub conv: DdConv,
}

/// Copies, and flushes as far as the target's cache mode asks for.
pub fn dd(request: &DdRequest<'_>, observer: &dyn Observer) -> Result<()> {
    let DdPlan { from, to, length, .. } = request.plan;
    let target = request.target;
    if length > 0 && to.checked_add(length).is_none_or(|end| end > target.size()) {
        return Err(Error::new(Kind::InvalidInput, "the target is too small"));
    }
    copy(request.source, request.plan, request.conv, observer, &|piece, at| {
        let place = at - from + to;
        match piece {
            Piece::Data(bytes) => {
                target.write_at(bytes, place).context("error while writing to output image file")
            }
            Piece::Zeroes(_) if request.target_is_zero || request.conv.sparse => Ok(()),
            Piece::Zeroes(length) => target.write_zeroes(place, length, ZeroMode::Keep),
        }
    })?;
    target.flush()
}

/// Writes the planned bytes of `source` to a stream.
pub fn dd_to_stream(
    source: &Node,
    plan: DdPlan,
    conv: DdConv,
    output: &mut (dyn Write + Send),
    observer: &dyn Observer,
) -> Result<()> {
    let output = Mutex::new(output);
    // Pieces come one at a time and in order.
    copy(source, DdPlan { to: 0, ..plan }, conv, observer, &|piece, _| {
        let mut output = output.lock().unwrap_or_else(PoisonError::into_inner);
        match piece {
            Piece::Data(bytes) => output.write_all(bytes),
            Piece::Zeroes(length) => {
                std::io::copy(&mut std::io::repeat(0).take(length), &mut *output).map(|_| ())
            }
        }
        .context("error while writing the output")
    })?;
    let mut output = output.lock().unwrap_or_else(PoisonError::into_inner);
    output.flush().context("error while writing the output")
}

/// What a stream is copied into.
#[derive(Clone, Copy, Debug)]
pub struct DdStream<'a> {
    /// Written here.
    pub target: &'a dyn Image,
    /// Where writing begins.
    pub to: u64,
    /// At most so many bytes; `None` = to the stream's end.
    pub limit: Option<u64>,
    /// The target may be made larger as more comes.
    pub grow: bool,
    /// Blocks of zeroes are left out.
    pub sparse: bool,
}

/// Copies a stream to a disk and flushes it; answers how many bytes came. Where the target is
/// full, everything that fits has been written.
pub fn dd_from_stream(
    input: &mut dyn Read,
    request: DdStream<'_>,
    observer: &dyn Observer,
) -> Result<u64> {
    let DdStream { target, to, .. } = request;
    let limit = request.limit.unwrap_or(u64::MAX);
    let mut buffer = PageBuffer::zeroed(STREAM_STEP);
    let mut done = 0u64;
    let result = loop {
        check_cancelled(observer)?;
        let wanted = limit.saturating_sub(done).min(buffer.len() as u64) as usize;
        let length = fill(input, &mut buffer[..wanted])?;
        if length == 0 {
            break Ok(done);
        }
        let at = to.saturating_add(done);
        let room = room(&request, at, length as u64)?;
        put(&request, &buffer[..length.min(room as usize)], at)?;
        done += room.min(length as u64);
        observer.progress(done, request.limit.unwrap_or(0));
        if room < length as u64 {
            break Err(Error::new(Kind::OutOfSpace, format!("it is full after {done} bytes")));
        }
    };
    target.flush()?;
    result
}

/// A stream is copied in pieces of this size.
const STREAM_STEP: usize = 1 << 20;
/// Blocks of zeroes of this size are looked for in streams.
const SPARSE_BLOCK: usize = 4096;

/// How much of `length` bytes fits at `at`. What may grow does so in steps that double it.
fn room(request: &DdStream<'_>, at: u64, length: u64) -> Result<u64> {
    let end = at.saturating_add(length);
    let size = request.target.size();
    if end > size && request.grow {
        let wanted = request.limit.map_or(0, |limit| request.to.saturating_add(limit));
        let wanted = if wanted > MOST_AHEAD { end.saturating_mul(2) } else { wanted };
        let size = end.max(wanted).next_multiple_of(512);
        request.target.resize(ResizeRequest { size, preallocation: Preallocation::Off })?;
        return Ok(length);
    }
    Ok(size.saturating_sub(at).min(length))
}

/// A target is not made larger than this before so much has come.
const MOST_AHEAD: u64 = 1 << 40;

fn put(request: &DdStream<'_>, bytes: &[u8], at: u64) -> Result<()> {
    let write = |bytes: &[u8], at| {
        request.target.write_at(bytes, at).context("error while writing to output image file")
    };
    if !request.sparse {
        return write(bytes, at);
    }
    let mut at = at;
    for block in bytes.chunks(SPARSE_BLOCK) {
        if !disksmith_disk::is_zero(block) {
            write(block, at)?;
        }
        at += block.len() as u64;
    }
    Ok(())
}

/// Reads until the buffer is full or the stream ends.
fn fill(input: &mut dyn Read, buffer: &mut [u8]) -> Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match input.read(&mut buffer[length..]) {
            Ok(0) => break,
            Ok(more) => length += more,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error).context("error while reading the input"),
        }
    }
    Ok(length)
}

enum Piece<'a> {
    Data(&'a [u8]),
    Zeroes(u64),
}

/// Hands the planned bytes of `source` to `put`, with where they lie in it; in order.
fn copy(
    source: &Node,
    plan: DdPlan,
    conv: DdConv,
    observer: &dyn Observer,
    put: &(dyn Fn(Piece<'_>, u64) -> Result<()> + Sync),
) -> Result<()> {
    let DdPlan { from, length, .. } = plan;
    let sources = Source::line_up(&[source]);
    let unit = 4096;
    let shape = Shape::copying(None, unit);
    let transfer = Transfer {
        sources: &sources,
        unit,
        sparse: unit,
        find_zeroes: conv.sparse,
        compress: false,
        salvage: conv.noerror,
        offload: false,
    };
    let mut plan = Plan::new(&sources, unit, shape.step).range(from, from.saturating_add(length));
    plan.salvage = conv.noerror.then_some(observer);
    let meter = Meter::start(observer, length);
    pipeline::run(Pipeline {
        shape,
        state: &|| None,
        next: &mut || plan.next(),
        work: &|none, piece, buffer| {
            check_cancelled(observer)?;
            transfer.prepare(none, &piece, buffer)
        },
        place: &|ready, buffer, _| {
            ready.warnings.iter().for_each(|text| observer.warning(text));
            for step in &ready.steps {
                let at = (step.at - ready.start) as usize;
                match step.action {
                    Action::Write => {
                        put(Piece::Data(&buffer.bytes[at..at + step.length as usize]), step.at)?;
                    }
                    Action::Zero => put(Piece::Zeroes(step.length), step.at)?,
                    _ => {}
                }
            }
            meter.advance(ready.end - ready.start)
        },
    })?;
    meter.finish();
    Ok(())
}
