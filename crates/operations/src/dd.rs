//! Copying blocks from one place of an image to another place of another one.

use disksmith_disk::{Error, Kind, Result, ZeroMode};
use disksmith_formats::Image;
use disksmith_open::Node;

use crate::Observer;
use crate::observer::{Meter, check_cancelled};
use crate::pipeline::{self, Pipeline};
use crate::plan::{Plan, Source};
use crate::pool::Shape;
use crate::transfer::{Action, Buffer, Transfer};

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
    if to.checked_add(length).is_none_or(|end| end > target.size()) {
        return Err(Error::new(Kind::InvalidInput, "the target is too small"));
    }
    let sources = Source::line_up(&[request.source]);
    let unit = 4096;
    let shape = Shape::copying(unit);
    let transfer = Transfer {
        sources: &sources,
        unit,
        sparse: unit,
        find_zeroes: request.conv.sparse,
        compress: false,
        salvage: false,
        offload: false,
    };
    let mut plan = Plan::new(&sources, unit, shape.step).range(from, from.saturating_add(length));
    let meter = Meter::start(observer, length);
    pipeline::run(Pipeline {
        workers: shape.workers,
        buffers: (0..shape.buffers).map(|_| Buffer::default()).collect(),
        state: &|| None,
        next: &mut || plan.next(),
        work: &|none, piece, buffer| {
            check_cancelled(observer)?;
            transfer.prepare(none, &piece, buffer)
        },
        place: &|ready, buffer| {
            for step in &ready.steps {
                let place = step.at - from + to;
                let at = (step.at - ready.start) as usize;
                match step.action {
                    Action::Write => target
                        .write_at(&buffer.bytes[at..at + step.length as usize], place)
                        .map_err(|error| {
                            error.context("error while writing to output image file")
                        })?,
                    Action::Zero if request.target_is_zero || request.conv.sparse => {}
                    Action::Zero => target.write_zeroes(place, step.length, ZeroMode::Keep)?,
                    _ => {}
                }
            }
            meter.advance(ready.end - ready.start)
        },
        unordered: false,
    })?;
    target.flush()?;
    meter.finish();
    Ok(())
}
