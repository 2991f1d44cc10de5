//! Moving what an overlay holds into an image under it.

use std::sync::{Mutex, PoisonError};

use disksmith_disk::{Context, Disk, Error, Kind, Result, ZeroMode};
use disksmith_formats::{Image, Preallocation, ResizeRequest};
use disksmith_open::Node;

use crate::Observer;
use crate::observer::{Meter, check_cancelled};
use crate::pipeline::{self, Pipeline};
use crate::plan::{Plan, Source};
use crate::pool::{Order, Shape};
use crate::rate::RateLimit;
use crate::transfer::{Action, Buffer, Ready, Transfer};
use crate::writeback::Writeback;

/// What to commit where.
#[derive(Clone, Copy, Debug)]
pub struct CommitRequest<'a> {
    /// The overlay with its chain; opened for writing if it is to be emptied.
    pub top: &'a Node,
    /// The image that takes the data, opened for writing. It may be the very object in `top`'s
    /// chain or another one for the same file.
    pub base: &'a dyn Image,
    /// How far below the top the base lies: 1 = its backing image. Everything above it is
    /// committed.
    pub base_depth: usize,
    /// Leave the overlay as it is (`-d`, and with `-b`); otherwise it is emptied when the base
    /// holds everything.
    pub keep_overlay: bool,
    /// At most so many bytes per second (`-r`).
    pub rate: Option<u64>,
}

/// Commits. A base that is smaller than the overlay grows. The base is flushed before the
/// overlay is emptied: whatever happens, the content seen through the overlay stays.
pub fn commit(request: &CommitRequest<'_>, observer: &dyn Observer) -> Result<()> {
    let depth = request.top.chain().count();
    if request.base_depth == 0 || request.base_depth >= depth {
        return Err(Error::new(Kind::InvalidInput, "Image does not have a backing file"));
    }
    let size = request.top.image.size();
    if request.base.size() < size {
        let grown = ResizeRequest { size, preallocation: Preallocation::Off };
        request.base.resize(grown).context("Could not resize the base image")?;
    }
    copy(request, size, observer)?;
    request.base.flush().context("Could not flush the base image")?;
    if !request.keep_overlay {
        request.top.image.make_empty().context("Could not empty the overlay")?;
        request.top.image.flush()?;
    }
    Ok(())
}

fn copy(request: &CommitRequest<'_>, size: u64, observer: &dyn Observer) -> Result<()> {
    let sources = Source::line_up(&[request.top]);
    let unit = request.base.allocation_unit().unwrap_or(1 << 16);
    // At a rate, each piece waits for what the one before it has spent.
    let order = if request.rate.is_some() { Order::Alone } else { Order::InTurn };
    let shape = Shape { order, ..Shape::copying(None, unit) };
    let transfer = Transfer {
        sources: &sources,
        unit,
        sparse: unit,
        find_zeroes: false,
        compress: false,
        salvage: false,
        offload: false,
    };
    let mut plan = Plan::new(&sources, unit, shape.step);
    plan.keep_from_depth = Some(request.base_depth);
    let meter = Meter::start(observer, size);
    let rate = Mutex::new(RateLimit::new(request.rate));
    let writeback = request.top.chain().nth(request.base_depth).map(Writeback::new);
    pipeline::run(Pipeline {
        shape,
        state: &|| None,
        next: &mut || plan.next(),
        work: &|none, piece, buffer| {
            check_cancelled(observer)?;
            transfer.prepare(none, &piece, buffer)
        },
        place: &|ready, buffer, pass| {
            let written = place(request.base, &ready, buffer, pass)?;
            if let Some(rate) = &mut *rate.lock().unwrap_or_else(PoisonError::into_inner) {
                rate.spend(written);
            }
            if let Some(writeback) = &writeback {
                writeback.wrote(written);
            }
            meter.advance(ready.end - ready.start)
        },
    })?;
    meter.finish();
    Ok(())
}

/// Carries a piece's steps out; answers how many bytes were written.
fn place(base: &dyn Image, ready: &Ready, buffer: &Buffer, pass: &mut dyn FnMut()) -> Result<u64> {
    let mut written = 0;
    let last = ready.steps.len().saturating_sub(1);
    for (index, step) in ready.steps.iter().enumerate() {
        let from = (step.at - ready.start) as usize;
        let bytes = || &buffer.bytes[from..from + step.length as usize];
        match step.action {
            Action::Zero => base.write_zeroes(step.at, step.length, ZeroMode::Unmap),
            Action::Write => {
                written += step.length;
                match index == last {
                    true => base.write_in_turn(bytes(), step.at, pass),
                    false => base.write_at(bytes(), step.at),
                }
            }
            _ => continue,
        }
        .with_context(|| format!("error while writing at byte {}", step.at))?;
    }
    Ok(written)
}
