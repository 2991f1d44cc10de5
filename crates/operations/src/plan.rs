//! From maps to pieces of work: which ranges of the sources hold data, read as zero, or are
//! left to the target's backing image.

use disksmith_disk::Result;
use disksmith_open::{ChainExtent, Node, chain_map_above};

use crate::Observer;

/// What is to happen with a range of the target.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Fill {
    /// Nothing: what lies under the target there is right already.
    Keep,
    /// It shall read as zero.
    Zero,
    /// It shall hold the source's bytes.
    Data,
}

/// A range of the target with one fate.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Segment {
    /// Offset in the target.
    pub(crate) at: u64,
    /// Bytes.
    pub(crate) length: u64,
    pub(crate) fill: Fill,
    /// Which source.
    pub(crate) source: usize,
    /// Offset in that source.
    pub(crate) from: u64,
    /// Layer of that source and offset in its storage where the bytes lie plainly.
    pub(crate) place: Option<(usize, u64)>,
}

impl Segment {
    pub(crate) fn end(&self) -> u64 {
        self.at + self.length
    }

    /// The first `length` bytes of it.
    fn head(&self, length: u64) -> Self {
        Self { length, ..*self }
    }

    fn skip(&self, bytes: u64) -> Self {
        Self {
            at: self.at + bytes,
            length: self.length - bytes,
            from: self.from + bytes,
            place: self.place.map(|(layer, place)| (layer, place + bytes)),
            ..*self
        }
    }
}

/// Consecutive segments that are dealt with together. At most [`Plan::step`] bytes, except
/// for a single segment of which nothing needs to be read into memory.
#[derive(Debug)]
pub(crate) struct Piece {
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) segments: Vec<Segment>,
}

/// One of the images whose contents follow each other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Source<'a> {
    pub(crate) node: &'a Node,
    /// Offset in the target.
    pub(crate) start: u64,
    pub(crate) size: u64,
}

impl<'a> Source<'a> {
    /// The sources with their places in the target.
    pub(crate) fn line_up(nodes: &[&'a Node]) -> Vec<Self> {
        let mut start = 0u64;
        let mut line = Vec::with_capacity(nodes.len());
        for node in nodes {
            let size = node.image.size();
            line.push(Self { node, start, size });
            start = start.saturating_add(size);
        }
        line
    }
}

/// How maps are read.
pub(crate) struct Plan<'a> {
    pub(crate) sources: &'a [Source<'a>],
    /// What layers at this depth and below have is left to the target's backing image.
    pub(crate) keep_from_depth: Option<usize>,
    /// Where the target's backing image ends: past it, zeroes are there without being written.
    pub(crate) backing_end: Option<u64>,
    /// Pieces begin and end at multiples of this.
    pub(crate) unit: u64,
    /// The largest piece that is read into memory; a multiple of `unit`.
    pub(crate) step: u64,
    /// Plain data may come as one piece of any size.
    pub(crate) whole_runs: bool,
    /// Maps that cannot be read are told and count as data.
    pub(crate) salvage: Option<&'a dyn Observer>,
    at: u64,
    end: u64,
    rest: Option<Segment>,
}

impl<'a> Plan<'a> {
    pub(crate) fn new(sources: &'a [Source<'a>], unit: u64, step: u64) -> Self {
        Self {
            sources,
            keep_from_depth: None,
            backing_end: None,
            unit,
            step,
            whole_runs: false,
            salvage: None,
            at: 0,
            end: sources.last().map_or(0, |last| last.start.saturating_add(last.size)),
            rest: None,
        }
    }

    /// Only a part of the target, from a multiple of the unit on.
    pub(crate) fn range(mut self, start: u64, end: u64) -> Self {
        self.at = start;
        self.end = end.min(self.end);
        self
    }

    /// The next piece, in ascending order without gaps.
    pub(crate) fn next(&mut self) -> Result<Option<Piece>> {
        if self.at >= self.end {
            return Ok(None);
        }
        let start = self.at;
        let first = self.peek()?;
        if let Some(end) = self.alone(&first) {
            let piece = Piece { start, end, segments: vec![self.take(first, end)] };
            return Ok(Some(piece));
        }
        let boundary = (start + 1).next_multiple_of(self.step).min(self.end);
        let mut segments: Vec<Segment> = Vec::new();
        while self.at < boundary {
            let run = self.peek()?;
            let segment = self.take(run, boundary.min(run.end()));
            match segments.last_mut() {
                Some(last) if joins(last, &segment) => last.length += segment.length,
                _ => segments.push(segment),
            }
        }
        Ok(Some(Piece { start, end: boundary, segments }))
    }

    /// Where a piece made of `run` alone would end, if it is worth one.
    fn alone(&self, run: &Segment) -> Option<u64> {
        let plain = self.whole_runs && run.place.is_some();
        if run.fill == Fill::Data && !plain {
            return None;
        }
        let end = match run.end() {
            end if end == self.end => end,
            end => end - end % self.unit,
        };
        let long = end >= run.at.saturating_add(self.step) || (end == self.end && end > run.at);
        (long || (plain && end > run.at)).then_some(end)
    }

    /// Uses up `run` as far as `end`.
    fn take(&mut self, run: Segment, end: u64) -> Segment {
        let taken = end - run.at;
        self.rest = (taken < run.length).then(|| run.skip(taken));
        self.at = end;
        run.head(taken)
    }

    /// The run at the present position.
    fn peek(&mut self) -> Result<Segment> {
        if let Some(rest) = self.rest {
            return Ok(rest);
        }
        let at = self.at;
        let index = self.sources.partition_point(|source| source.start + source.size <= at);
        let source = self.sources[index];
        let from = at - source.start;
        let extent = self.map(source.node, from, source.size - from, at)?;
        let left = self.end - at;
        let mut run = Segment {
            at,
            length: extent.length.min(left),
            fill: self.fill(&extent),
            source: index,
            from,
            place: extent.place.map(|place| (extent.depth, place)),
        };
        self.leave_zeroes_past_backing(&mut run);
        self.rest = Some(run);
        Ok(run)
    }

    fn fill(&self, extent: &ChainExtent) -> Fill {
        match self.keep_from_depth {
            Some(depth) if extent.depth >= depth => Fill::Keep,
            _ if extent.zero || !extent.present => Fill::Zero,
            _ => Fill::Data,
        }
    }

    fn leave_zeroes_past_backing(&self, run: &mut Segment) {
        let Some(end) = self.backing_end.filter(|_| run.fill == Fill::Zero) else { return };
        match end {
            end if end <= run.at => run.fill = Fill::Keep,
            end => run.length = run.length.min(end - run.at),
        }
    }

    /// The chain's answer; when salvaging, data where there is none.
    fn map(&self, node: &Node, from: u64, length: u64, at: u64) -> Result<ChainExtent> {
        const SECTOR: u64 = 512;
        let layers = self.keep_from_depth.unwrap_or(usize::MAX);
        let mut ask = length;
        loop {
            let error = match chain_map_above(node, layers, from, ask) {
                Ok(extent) => return Ok(extent),
                Err(error) => error,
            };
            let Some(observer) = self.salvage else {
                return Err(
                    error.context(format!("error while reading block status at offset {at}"))
                );
            };
            if ask > SECTOR {
                ask = (ask / 4).next_multiple_of(SECTOR).max(SECTOR);
                continue;
            }
            observer.warning(&format!("error while reading block status at offset {at}: {error}"));
            return Ok(ChainExtent {
                start: from,
                length: ask,
                depth: 0,
                present: true,
                zero: false,
                data: true,
                compressed: false,
                place: None,
            });
        }
    }
}

/// Where the sources, one behind the other, hold data, as (start, end): what copying takes time
/// for. `everything`: zeroes are copied too. With `salvage`, maps that cannot be read are told
/// there and count as data.
pub fn data_ranges(
    sources: &[&Node],
    everything: bool,
    salvage: Option<&dyn Observer>,
) -> Result<Vec<(u64, u64)>> {
    let line = Source::line_up(sources);
    let mut plan = Plan { salvage, ..Plan::new(&line, 1, u64::MAX) };
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    while plan.at < plan.end {
        let run = plan.peek()?;
        plan.take(run, run.end());
        if !everything && run.fill != Fill::Data {
            continue;
        }
        match ranges.last_mut() {
            Some((_, end)) if *end == run.at => *end = run.end(),
            _ => ranges.push((run.at, run.end())),
        }
    }
    Ok(ranges)
}

/// Whether `next` simply goes on where `last` ends, as far as reading is concerned.
fn joins(last: &Segment, next: &Segment) -> bool {
    last.fill == next.fill
        && last.source == next.source
        && last.from + last.length == next.from
        && last.end() == next.at
}
