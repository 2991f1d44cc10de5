//! Copying the content of images into another.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use disksmith_codec::{Compressor, DeflateWindow};
use disksmith_disk::{Disk, Error, Kind, Result, ZeroMode};
use disksmith_formats::{Compression, Image};
use disksmith_open::Node;

use crate::observer::{Meter, check_cancelled};
use crate::pipeline::{self, Pipeline};
use crate::plan::{Plan, Source};
use crate::pool::{self, Order, Shape};
use crate::rate::RateLimit;
use crate::transfer::{Action, Buffer, Ready, Step, Transfer, tell};
use crate::writeback::Writeback;
use crate::{Observer, bitmaps};

/// Whether data is copied by the kernel instead of through this process.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Offload {
    /// Always where the bytes lie plainly in source and target (`-C`).
    Always,
    /// Never.
    Never,
    /// Where source and target lie on one filesystem that can share blocks between files.
    #[default]
    WhereShared,
}

/// In which order pieces are written.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum WriteOrder {
    /// One after another: what progress tells of is written up to there.
    InOrder,
    /// As they come (`-W`): the layout of a format that allocates depends on chance.
    AsTheyCome,
    /// As they come where that is faster and bytes lie where they lie, whoever writes first; else
    /// in order.
    #[default]
    WhereAlike,
}

/// What to copy, where to, and how.
#[derive(Clone, Copy, Debug)]
pub struct ConvertRequest<'a> {
    /// The images whose contents follow each other in the target. A snapshot is made a source
    /// by [`crate::snapshot_view`].
    pub sources: &'a [&'a Node],
    /// The target: made, opened for writing, its backing attached.
    pub target: &'a Node,
    /// The target reads as zero now: zeroes need not be written. True for new files, false for
    /// devices, for images that were there before, and for images with a backing file.
    pub target_is_zero: bool,
    /// The target has a backing image (`-B`): what the topmost layer of a source does not have
    /// is left to it.
    pub target_has_backing: bool,
    /// Store clusters compressed (`-c`) …
    pub compress: bool,
    /// … at this level; `None` = the codec's default …
    pub level: Option<u8>,
    /// … and, for deflate, with matches that reach so far.
    pub deflate_window: DeflateWindow,
    /// Zeroes in data of at least this many bytes are not stored (`-S`); 0: everything is
    /// stored, holes of the source too.
    pub sparse_size: u64,
    /// What lies before this byte (a multiple of the target's granularity and of 2 MiB) is there
    /// already.
    pub start: u64,
    /// Threads; `None` = what suits the machine (`-m`).
    pub threads: Option<usize>,
    /// In which order pieces are written.
    pub writes: WriteOrder,
    /// Leave copying to the kernel (`-C`).
    pub offload: Offload,
    /// At most so many bytes per second (`-r`).
    pub rate: Option<u64>,
    /// Read errors give zeroes and a warning.
    pub salvage: bool,
    /// Copy the persistent bitmaps of the only source …
    pub bitmaps: bool,
    /// … but leave out with a warning those that cannot be trusted.
    pub skip_broken_bitmaps: bool,
}

impl<'a> ConvertRequest<'a> {
    /// A plain copy into a new and empty target, as `qemu-img convert` without options.
    pub fn new(sources: &'a [&'a Node], target: &'a Node) -> Self {
        Self {
            sources,
            target,
            target_is_zero: true,
            target_has_backing: false,
            compress: false,
            level: None,
            deflate_window: DeflateWindow::default(),
            sparse_size: 4096,
            start: 0,
            threads: None,
            writes: WriteOrder::default(),
            offload: Offload::default(),
            rate: None,
            salvage: false,
            bitmaps: false,
            skip_broken_bitmaps: false,
        }
    }
}

/// Copies. When it returns, everything is written and flushed as far as the target's cache mode
/// asks for.
///
/// The target's content and layout depend on the request alone, not on the number of threads
/// (unless they are written [`WriteOrder::AsTheyCome`]).
///
/// # Errors
///
/// In qemu-img's words: `error while reading at byte N: …`, `error while writing at byte N: …`,
/// `Compression not supported for this file format`, `output file is smaller than input file`.
pub fn convert(request: &ConvertRequest<'_>, observer: &dyn Observer) -> Result<()> {
    let target = &*request.target.image;
    let sources = Source::line_up(request.sources);
    let total = sources.last().map_or(0, |last| last.start.saturating_add(last.size));
    check(request, total)?;
    let compression = match request.compress {
        true => Some(target.compression().ok_or_else(no_compression)?),
        false => None,
    };
    let unit = unit(request, compression);
    let shape = shape(request, unit);
    let offload = offload(request, compression);
    let transfer = Transfer {
        sources: &sources,
        unit,
        sparse: request.sparse_size,
        find_zeroes: true,
        compress: request.compress,
        salvage: request.salvage,
        offload,
    };
    let mut plan = Plan::new(&sources, unit, shape.step).range(request.start, total);
    plan.whole_runs = offload;
    plan.salvage = request.salvage.then_some(observer);
    if request.target_has_backing {
        plan.keep_from_depth = Some(1);
        plan.backing_end = request.target.backing.as_ref().map(|node| node.image.size());
    }
    let meter = Meter::start(observer, total);
    meter.advance(request.start)?;
    let placer = Placer {
        request,
        target,
        transfer: &transfer,
        observer,
        meter: &meter,
        rate: Mutex::new(RateLimit::new(request.rate)),
        kernel_copies: AtomicBool::new(true),
        writeback: Writeback::new(request.target),
    };
    pipeline::run(Pipeline {
        shape,
        state: &|| compression.map(|compression| compressor(request, compression)),
        next: &mut || plan.next(),
        work: &|compressor, piece, buffer| {
            check_cancelled(observer)?;
            transfer.prepare(compressor, &piece, buffer)
        },
        place: &|ready, buffer, pass| placer.place(&ready, buffer, pass),
    })?;
    if let (true, [source]) = (request.bitmaps, request.sources) {
        let skip = request.skip_broken_bitmaps;
        bitmaps::copy_bitmaps(&*source.image, target, skip, observer)?;
    }
    target.flush().map_err(|error| error.context("error while writing"))?;
    meter.finish();
    Ok(())
}

fn check(request: &ConvertRequest<'_>, total: u64) -> Result<()> {
    if request.target.image.size() < total {
        return Err(Error::new(Kind::InvalidInput, "output file is smaller than input file"));
    }
    if request.bitmaps && !request.skip_broken_bitmaps {
        request.sources.iter().try_for_each(|node| bitmaps::check_bitmaps(&*node.image))?;
    }
    Ok(())
}

fn no_compression() -> Error {
    Error::new(Kind::Unsupported, "Compression not supported for this file format")
}

fn compressor(request: &ConvertRequest<'_>, compression: Compression) -> Compressor {
    let options =
        disksmith_codec::Options { level: request.level, deflate_window: request.deflate_window };
    Compressor::new(compression.algorithm, options)
}

/// The granularity of the target: storage comes in clusters, so smaller holes save nothing.
fn unit(request: &ConvertRequest<'_>, compression: Option<Compression>) -> u64 {
    const LARGEST: u64 = 1 << 20;
    if let Some(compression) = compression {
        return compression.cluster_size;
    }
    let sparse = match request.sparse_size {
        0 => 4096,
        size => 1 << size.clamp(512, LARGEST).ilog2(),
    };
    match request.target.image.allocation_unit() {
        Some(unit) => sparse.max(unit),
        None => sparse,
    }
}

fn shape(request: &ConvertRequest<'_>, unit: u64) -> Shape {
    let shape = match (request.threads, request.compress) {
        (threads, true) => Shape::new(threads.unwrap_or_else(pool::threads), unit),
        (threads, false) => Shape::copying(threads, unit),
    };
    Shape { order: order(request).unwrap_or(shape.order), ..shape }
}

/// Who writes when, unless that follows from the work.
fn order(request: &ConvertRequest<'_>) -> Option<Order> {
    // A plain window on a file allocates nothing. Warnings come in order.
    let free = || request.target.image.host_window().is_some() && !request.salvage;
    match request.writes {
        WriteOrder::AsTheyCome => Some(Order::Any),
        // At a rate, each piece waits for what the one before it has spent.
        WriteOrder::WhereAlike if request.rate.is_none() => free().then_some(Order::Any),
        _ if request.compress => None,
        _ => Some(Order::Alone),
    }
}

/// Whether the kernel can do the copying: the target is a plain window on a file.
fn offload(request: &ConvertRequest<'_>, compression: Option<Compression>) -> bool {
    let target = &*request.target.image;
    if compression.is_some() || target.host_window().is_none() || request.salvage {
        return false;
    }
    match request.offload {
        Offload::Never => false,
        Offload::Always => true,
        Offload::WhereShared => request.sources.iter().all(|node| {
            node.chain().all(|layer| match (layer_window(layer), target.host_window()) {
                (Some((from, _)), Some((to, _))) => disksmith_host::shares_blocks(from, to),
                _ => false,
            })
        }),
    }
}

/// The file that the places in a layer's map mean, with the offset to add.
fn layer_window(layer: &Node) -> Option<(std::os::fd::BorrowedFd<'_>, u64)> {
    match &layer.data_file {
        Some((_, file)) => file.host_window(),
        None => layer.image.storage().host_window(),
    }
}

/// Carries steps out.
struct Placer<'a> {
    request: &'a ConvertRequest<'a>,
    target: &'a dyn Image,
    transfer: &'a Transfer<'a>,
    observer: &'a dyn Observer,
    meter: &'a Meter<'a>,
    rate: Mutex<Option<RateLimit>>,
    /// Cleared when the kernel refused once.
    kernel_copies: AtomicBool,
    writeback: Writeback<'a>,
}

impl Placer<'_> {
    /// The next piece may be placed beside this one as soon as it is settled where the last of
    /// this goes.
    fn place(&self, ready: &Ready, buffer: &mut Buffer, pass: &mut dyn FnMut()) -> Result<()> {
        tell(ready, self.observer);
        let last = ready.steps.iter().rposition(|step| self.acts(step));
        for (index, step) in ready.steps.iter().enumerate() {
            let pass: &mut dyn FnMut() = if last == Some(index) { pass } else { &mut || {} };
            self.step(ready, step, buffer, pass).map_err(|error| match error.kind() {
                Kind::Cancelled => error,
                _ => error.context(format!("error while writing at byte {}", step.at)),
            })?;
        }
        self.meter.advance(ready.end - ready.start)
    }

    fn acts(&self, step: &Step) -> bool {
        match step.action {
            Action::Keep => false,
            Action::Zero => !self.request.target_is_zero,
            _ => true,
        }
    }

    fn step(
        &self,
        ready: &Ready,
        step: &Step,
        buffer: &mut Buffer,
        pass: &mut dyn FnMut(),
    ) -> Result<()> {
        if !self.acts(step) {
            return Ok(());
        }
        let range = || {
            let from = (step.at - ready.start) as usize;
            from..from + step.length as usize
        };
        match &step.action {
            Action::Keep => {}
            Action::Zero => self.target.write_zeroes(step.at, step.length, ZeroMode::Unmap)?,
            Action::Write => self.target.write_in_turn(&buffer.bytes[range()], step.at, pass)?,
            Action::Packed(packed) => {
                self.target.write_packed(step.at, &buffer.packed[packed.clone()])?;
            }
            Action::Copy { source, layer, place, from } => {
                return self.copy(step, *source, *layer, *place, *from, buffer);
            }
        }
        self.wrote(step.length);
        Ok(())
    }

    fn wrote(&self, bytes: u64) {
        if let Some(rate) = &mut *self.rate.lock().unwrap_or_else(PoisonError::into_inner) {
            rate.spend(bytes);
        }
        self.writeback.wrote(bytes);
    }

    /// In the kernel as far as it goes, the rest by reading and writing.
    fn copy(
        &self,
        step: &Step,
        source: usize,
        layer: usize,
        place: u64,
        from: u64,
        buffer: &mut Buffer,
    ) -> Result<()> {
        const CHUNK: u64 = 64 << 20;
        let node = self.transfer.sources[source].node;
        let mut done = 0;
        while done < step.length && self.kernel_copies.load(Ordering::Relaxed) {
            check_cancelled(self.observer)?;
            let windows =
                node.chain().nth(layer).and_then(layer_window).zip(self.target.host_window());
            let Some(((from_file, base), (to_file, start))) = windows else { break };
            let chunk = CHUNK.min(step.length - done);
            let copied = disksmith_host::copy_in_kernel(
                (from_file, base + place + done),
                (to_file, start + step.at + done),
                chunk,
            )?;
            if copied == 0 {
                self.kernel_copies.store(false, Ordering::Relaxed);
            }
            self.wrote(copied);
            done += copied;
        }
        while done < step.length {
            check_cancelled(self.observer)?;
            let chunk = (step.length - done).min(1 << 20);
            buffer.bytes.reach(chunk as usize);
            let bytes = &mut buffer.bytes[..chunk as usize];
            node.image.read_at(bytes, from + done)?;
            self.target.write_at(bytes, step.at + done)?;
            self.wrote(chunk);
            done += chunk;
        }
        Ok(())
    }
}
