//! Putting an image onto another backing image without changing what it shows.

use disksmith_codec::{Compressor, Options};
use disksmith_disk::{Context, Disk, Error, Kind, PageBuffer, Result, State, ZeroMode, is_zero};
use disksmith_formats::{Backing, Image};
use disksmith_host::FileId;
use disksmith_open::{ChainExtent, Node, chain_map};

use crate::Observer;
use crate::observer::{Meter, check_cancelled};
use crate::pipeline::{self, Pipeline};
use crate::pool::{self, Shape};
use crate::transfer::{Action, Buffer, Step};

/// What to put onto what.
#[derive(Clone, Copy, Debug)]
pub struct RebaseRequest<'a> {
    /// The image, opened for writing, with its present chain.
    pub image: &'a Node,
    /// The new backing image, opened for reading; `None`: the image shall stand alone.
    pub new: Option<&'a Node>,
    /// How the image is to name it; `None` exactly when `new` is.
    pub record: Option<&'a Backing>,
    /// Store what must be copied compressed.
    pub compress: bool,
    /// Store zeroes that the old backing image holds as the data they are, as qemu-img does;
    /// otherwise they become zero clusters.
    pub store_zeroes: bool,
}

/// Copies into the image what the old and the new backing image show differently, makes that
/// durable, and only then names the new one. Whatever happens in between, the image shows the
/// same content.
pub fn rebase(request: &RebaseRequest<'_>, observer: &dyn Observer) -> Result<()> {
    let image = &*request.image.image;
    let compression = match request.compress {
        true => Some(image.compression().ok_or_else(|| {
            Error::new(Kind::Unsupported, "Compression not supported for this file format")
        })?),
        false => None,
    };
    let unit = match request.compress {
        true => image.cluster_size(),
        false => image.allocation_unit(),
    };
    let unit = unit.unwrap_or(1 << 16);
    let shape = match compression {
        Some(_) => Shape::new(pool::threads(), unit),
        None => Shape::copying(None, unit),
    };
    let mut walk = Walk::new(request, unit, shape.step);
    let meter = Meter::start(observer, image.size());
    pipeline::run(Pipeline {
        shape,
        state: &|| compression.map(|c| Compressor::new(c.algorithm, Options::default())),
        next: &mut || {
            check_cancelled(observer)?;
            walk.next()
        },
        work: &|compressor, part: Part, work| part.compare(request, unit, compressor, work),
        place: &|(part, steps), work: &mut Work, _| {
            place(image, &part, &steps, &work.old)?;
            meter.advance(part.end - part.start)
        },
    })?;
    image.flush()?;
    image.change_backing(request.record.cloned())?;
    image.attach_backing(
        request.new.map(|node| -> std::sync::Arc<dyn Disk> { node.image.clone() }),
    )?;
    image.flush()?;
    meter.finish();
    Ok(())
}

/// Names another backing image, or none, and leaves the content to the caller (`-u`).
pub fn rebase_unsafe(image: &dyn Image, record: Option<&Backing>) -> Result<()> {
    image.change_backing(record.cloned())?;
    image.flush()
}

impl RebaseRequest<'_> {
    /// Whether zeroes from there on are stored: past the end of the old backing image there is
    /// nothing that could be.
    fn stores_zeroes_at(&self, offset: u64) -> bool {
        let old = self.image.backing.as_ref();
        self.store_zeroes && old.is_some_and(|old| offset < old.image.size())
    }
}

/// Memory for the two contents of a part.
#[derive(Default)]
struct Work {
    old: Buffer,
    new: PageBuffer,
}

/// A range of the image, with the runs that it does not hold itself and whose content may
/// change.
struct Part {
    start: u64,
    end: u64,
    runs: Vec<Run>,
}

#[derive(Clone, Copy)]
struct Run {
    start: u64,
    length: u64,
    old_zero: bool,
    new_zero: bool,
}

struct Walk<'a> {
    image: &'a Node,
    new: Option<&'a Node>,
    unit: u64,
    step: u64,
    at: u64,
    size: u64,
    old_run: Option<ChainExtent>,
    new_run: Option<ChainExtent>,
}

impl<'a> Walk<'a> {
    fn new(request: &RebaseRequest<'a>, unit: u64, step: u64) -> Self {
        Self {
            image: request.image,
            new: request.new,
            unit,
            step,
            at: 0,
            size: request.image.image.size(),
            old_run: None,
            new_run: None,
        }
    }

    fn next(&mut self) -> Result<Option<Part>> {
        if self.at >= self.size {
            return Ok(None);
        }
        let start = self.at;
        let boundary = (start + 1).next_multiple_of(self.step).min(self.size);
        let mut runs: Vec<Run> = Vec::new();
        while self.at < boundary {
            let (run, concerned) = self.run()?;
            if !concerned && self.at == start && run.length > self.step {
                let end = run.start + run.length;
                let end = if end == self.size { end } else { end - end % self.unit };
                self.at = end;
                return Ok(Some(Part { start, end, runs }));
            }
            let length = run.length.min(boundary - self.at);
            if concerned {
                runs.push(Run { length, ..run });
            }
            self.at += length;
        }
        Ok(Some(Part { start, end: boundary, runs }))
    }

    /// The run at the present position, and whether its content depends on the backing image
    /// in a way that may change.
    fn run(&mut self) -> Result<(Run, bool)> {
        let old = self.old_extent()?;
        let new = self.new_extent(old.length)?;
        let run = Run {
            start: self.at,
            length: old.length.min(new.length),
            old_zero: old.zero || !old.present,
            new_zero: new.zero || !new.present,
        };
        let own = old.depth == 0 && old.present;
        let same = (run.old_zero && run.new_zero) || self.same_layer(&old, &new);
        Ok((run, !own && !same))
    }

    fn old_extent(&mut self) -> Result<ChainExtent> {
        let left = self.size - self.at;
        let node = self.image;
        remembered(&mut self.old_run, self.at, || chain_map(node, self.at, left))
    }

    /// What the new backing image has; zeroes past its end and if there is none.
    fn new_extent(&mut self, length: u64) -> Result<ChainExtent> {
        let at = self.at;
        let nothing = ChainExtent {
            start: at,
            length,
            depth: 0,
            present: false,
            zero: true,
            data: false,
            compressed: false,
            place: None,
        };
        let Some(node) = self.new.filter(|node| at < node.image.size()) else {
            return Ok(nothing);
        };
        let left = node.image.size() - at;
        remembered(&mut self.new_run, at, || chain_map(node, at, left))
    }

    /// Both chains end at the same image there: nothing to compare.
    fn same_layer(&self, old: &ChainExtent, new: &ChainExtent) -> bool {
        let file = |node: &Node, depth: usize| -> Option<FileId> {
            node.chain().nth(depth)?.file.as_ref()?.id().ok()
        };
        let Some(new_top) = self.new else { return false };
        let files = (file(self.image, old.depth), file(new_top, new.depth));
        old.present && new.present && matches!(files, (Some(a), Some(b)) if a == b)
    }
}

/// The part of a remembered run from `at` on, or a new one.
fn remembered(
    run: &mut Option<ChainExtent>,
    at: u64,
    ask: impl FnOnce() -> Result<ChainExtent>,
) -> Result<ChainExtent> {
    if let Some(known) = run.filter(|known| known.start + known.length > at) {
        let used = at - known.start;
        return Ok(ChainExtent { start: at, length: known.length - used, ..known });
    }
    let new = ask()?;
    *run = Some(new);
    Ok(new)
}

impl Part {
    /// Reads both contents and answers what must be written.
    fn compare(
        self,
        request: &RebaseRequest<'_>,
        unit: u64,
        compressor: &mut Option<Compressor>,
        work: &mut Work,
    ) -> Result<(Self, Vec<Step>)> {
        let mut steps = Vec::new();
        work.old.packed.clear();
        if self.runs.is_empty() {
            return Ok((self, steps));
        }
        let length = (self.end - self.start) as usize;
        work.old.bytes.resize(length.next_multiple_of(unit as usize));
        work.new.resize(length);
        self.read(request, work)?;
        let mut at = self.start;
        while at < self.end {
            let end = (at + unit).min(self.end);
            self.compare_unit(request, (at, end), unit, compressor, work, &mut steps)?;
            at = end;
        }
        Ok((self, steps))
    }

    fn read(&self, request: &RebaseRequest<'_>, work: &mut Work) -> Result<()> {
        for run in &self.runs {
            let from = (run.start - self.start) as usize;
            let range = from..from + run.length as usize;
            match run.old_zero {
                true => work.old.bytes[range.clone()].fill(0),
                false => request
                    .image
                    .image
                    .read_at(&mut work.old.bytes[range.clone()], run.start)
                    .context("error while reading from old backing file")?,
            }
            match request.new.filter(|_| !run.new_zero) {
                None => work.new[range].fill(0),
                Some(new) => new
                    .image
                    .read_at(&mut work.new[range], run.start)
                    .context("error while reading from new backing file")?,
            }
        }
        Ok(())
    }

    /// Fills in what the runs leave out of a unit that the image itself has nothing of: a
    /// compressed cluster is stored whole.
    fn fill_unit(
        &self,
        request: &RebaseRequest<'_>,
        (start, end): (u64, u64),
        work: &mut Work,
    ) -> Result<bool> {
        let image = &request.image.image;
        let mut at = start;
        while at < end {
            let run = image.map(at, end - at)?;
            if run.state != State::Absent {
                return Ok(false);
            }
            at += run.length;
        }
        let range = (start - self.start) as usize..(end - self.start) as usize;
        image
            .read_at(&mut work.old.bytes[range], start)
            .context("error while reading from old backing file")?;
        Ok(true)
    }

    fn compare_unit(
        &self,
        request: &RebaseRequest<'_>,
        (at, end): (u64, u64),
        unit: u64,
        compressor: &mut Option<Compressor>,
        work: &mut Work,
        steps: &mut Vec<Step>,
    ) -> Result<()> {
        let range = |from: u64, to: u64| (from - self.start) as usize..(to - self.start) as usize;
        let inside = || {
            self.runs
                .iter()
                .filter(|run| run.start < end && run.start + run.length > at)
                .map(|run| (run.start.max(at), (run.start + run.length).min(end)))
        };
        let differs =
            |(from, to): (u64, u64)| work.old.bytes[range(from, to)] != work.new[range(from, to)];
        if !inside().any(differs) {
            return Ok(());
        }
        let covered: u64 = inside().map(|(from, to)| to - from).sum();
        let whole = match compressor {
            None => false,
            Some(_) => covered == end - at || self.fill_unit(request, (at, end), work)?,
        };
        let shows_zero = |from: u64, to: u64, work: &Work| match request.stores_zeroes_at(from) {
            true => false,
            false => is_zero(&work.old.bytes[range(from, to)]),
        };
        if whole
            && !shows_zero(at, end, work)
            && let Some(compressor) = compressor
        {
            let start = (at - self.start) as usize;
            let whole = start..start + unit as usize;
            work.old.bytes[(end - self.start) as usize..whole.end].fill(0);
            if let Some(packed) = compressor.compress(&work.old.bytes[whole]) {
                let from = work.old.packed.len();
                work.old.packed.extend_from_slice(packed);
                let packed = from..work.old.packed.len();
                steps.push(Step { at, length: end - at, action: Action::Packed(packed) });
                return Ok(());
            }
        }
        for (from, to) in inside() {
            let action = match shows_zero(from, to, work) {
                true => Action::Zero,
                false => Action::Write,
            };
            steps.push(Step { at: from, length: to - from, action });
        }
        Ok(())
    }
}

fn place(image: &dyn Image, part: &Part, steps: &[Step], buffer: &Buffer) -> Result<()> {
    for step in join(steps) {
        let from = (step.at - part.start) as usize;
        match &step.action {
            Action::Write => {
                image.write_at(&buffer.bytes[from..from + step.length as usize], step.at)
            }
            Action::Zero => make_zero(image, step.at, step.length),
            Action::Packed(packed) => image.write_packed(step.at, &buffer.packed[packed.clone()]),
            Action::Keep | Action::Copy { .. } => Ok(()),
        }
        .context("Error while writing to COW image")?;
    }
    Ok(())
}

/// Zeroes that this layer itself holds. A format without zero clusters leaves alone what reads
/// as zero through the old backing image; the new one may show something else there.
fn make_zero(image: &dyn Image, offset: u64, length: u64) -> Result<()> {
    const STEP: u64 = 1 << 20;
    image.write_zeroes(offset, length, ZeroMode::Unmap)?;
    let (mut at, end) = (offset, offset + length);
    while at < end {
        let run = image.map(at, (end - at).min(STEP))?;
        if run.state == State::Absent {
            image.write_at(&vec![0; run.length as usize], at)?;
        }
        at += run.length;
    }
    Ok(())
}

/// Neighbours of one kind as one.
fn join(steps: &[Step]) -> impl Iterator<Item = Step> + '_ {
    let alike = |a: &Step, b: &Step| {
        a.action == b.action
            && matches!(a.action, Action::Write | Action::Zero)
            && a.at + a.length == b.at
    };
    steps.chunk_by(alike).map(|group| Step {
        at: group[0].at,
        length: group.iter().map(|step| step.length).sum(),
        action: group[0].action.clone(),
    })
}
