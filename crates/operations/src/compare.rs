//! Whether two images have the same content.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use disksmith_disk::{Disk, Error, Kind, PageBuffer, Result, first_difference, is_zero};
use disksmith_open::{ChainExtent, Node, chain_map};

use crate::Observer;
use crate::observer::{Meter, check_cancelled};
use crate::pipeline::{self, Pipeline};
use crate::pool::{Order, Shape};

/// Differences are told by the sector they lie in.
const SECTOR: u64 = 512;

/// Two images to compare.
#[derive(Clone, Copy, Debug)]
pub struct CompareRequest<'a> {
    /// One.
    pub a: &'a Node,
    /// The other.
    pub b: &'a Node,
    /// Sizes and allocation must be equal too (`-s`).
    pub strict: bool,
}

/// What comparing found.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Comparison {
    /// The answer.
    pub verdict: Verdict,
    /// The sizes differ, and the common part is identical: to be warned of.
    pub size_mismatch: bool,
}

/// The answer of a comparison.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// Same content. Of images of different sizes: the longer one ends in zeroes.
    Identical,
    /// The first difference lies in the sector at this offset.
    ContentDiffers(u64),
    /// Strict: sizes differ.
    SizeDiffers,
    /// Strict: the first difference in allocation is at this offset.
    StatusDiffers(u64),
}

/// What could not be read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum CompareStage {
    /// What is where (status 3 of qemu-img).
    Map,
    /// Content (status 4 of qemu-img).
    Data,
}

/// Why images could not be compared.
#[derive(Debug)]
pub struct CompareError {
    /// What could not be read.
    pub stage: CompareStage,
    /// Which image: `false` = a, `true` = b.
    pub second: bool,
    /// It lies past the end of the shorter image: all before is the same.
    pub past_common: bool,
    /// The cause.
    pub error: Error,
}

impl fmt::Display for CompareError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl std::error::Error for CompareError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

/// Compares. What both images say is zero is not read.
pub fn compare(
    request: &CompareRequest<'_>,
    observer: &dyn Observer,
) -> Result<Comparison, CompareError> {
    let sizes = [request.a.image.size(), request.b.image.size()];
    if request.strict && sizes[0] != sizes[1] {
        return Ok(Comparison { verdict: Verdict::SizeDiffers, size_mismatch: false });
    }
    let common = sizes[0].min(sizes[1]);
    let total = sizes[0].max(sizes[1]);
    // Parts are handed out in order and what was handed out is finished: of several answers the
    // first part's is the right one.
    let shape = Shape { order: Order::Any, ..Shape::copying(None, 1 << 16) };
    let mut walk = Walk {
        sides: [Side::new(request.a), Side::new(request.b)],
        strict: request.strict,
        at: 0,
        common,
        total,
        step: shape.step,
    };
    let meter = Meter::start(observer, total);
    let found: Mutex<Option<(u64, Outcome)>> = Mutex::new(None);
    let result = pipeline::run(Pipeline {
        shape,
        state: &|| (),
        next: &mut || {
            check_cancelled(observer)?;
            let start = walk.at;
            Ok(walk.next().map(|part| (start, part)))
        },
        work: &|(), (start, part): (u64, Part), buffers| {
            Ok((start, part.compare(request, buffers)))
        },
        place: &|(start, outcome), _, _| match outcome {
            Outcome::Same(length) => meter.advance(length),
            other => {
                let mut first = found.lock().unwrap_or_else(PoisonError::into_inner);
                if first.as_ref().is_none_or(|(at, _)| start < *at) {
                    *first = Some((start, other));
                }
                Err(Error::new(Kind::Cancelled, "the answer is known"))
            }
        },
    });
    let found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    let verdict = match found {
        Some((start, Outcome::Failed(error))) => {
            return Err(CompareError { past_common: start >= common, ..error });
        }
        Some((_, Outcome::Differs(at))) => Verdict::ContentDiffers(at),
        Some((_, Outcome::StatusDiffers(at))) => Verdict::StatusDiffers(at),
        Some((_, Outcome::Same(_))) | None => {
            result.map_err(|error| CompareError {
                stage: CompareStage::Data,
                second: false,
                past_common: false,
                error,
            })?;
            meter.finish();
            Verdict::Identical
        }
    };
    let within = matches!(verdict, Verdict::ContentDiffers(at) if at < common);
    Ok(Comparison { verdict, size_mismatch: sizes[0] != sizes[1] && !within })
}

/// What became of one part.
enum Outcome {
    Same(u64),
    Differs(u64),
    StatusDiffers(u64),
    Failed(CompareError),
}

/// A range to be compared, or an answer that the maps gave already.
enum Part {
    Known(Outcome),
    Read { start: u64, end: u64, runs: Vec<Run> },
}

/// A range in which each image is either zero or not known to be.
#[derive(Clone, Copy)]
struct Run {
    start: u64,
    length: u64,
    zero: [bool; 2],
}

/// One image's map, kept until it is used up.
struct Side<'a> {
    node: &'a Node,
    size: u64,
    extent: Option<ChainExtent>,
}

impl<'a> Side<'a> {
    fn new(node: &'a Node) -> Self {
        Self { node, size: node.image.size(), extent: None }
    }

    /// What is at `at`; zeroes past the end.
    fn extent(&mut self, at: u64, end: u64) -> Result<ChainExtent> {
        if let Some(extent) = self.extent.filter(|extent| extent.start + extent.length > at) {
            let used = at - extent.start;
            return Ok(ChainExtent {
                start: at,
                length: extent.length - used,
                place: extent.place.map(|place| place + used),
                ..extent
            });
        }
        let extent = match at < self.size {
            true => chain_map(self.node, at, self.size - at)?,
            false => ChainExtent {
                start: at,
                length: end - at,
                depth: 0,
                present: false,
                zero: true,
                data: false,
                compressed: false,
                place: None,
            },
        };
        self.extent = Some(extent);
        Ok(extent)
    }
}

struct Walk<'a> {
    sides: [Side<'a>; 2],
    strict: bool,
    at: u64,
    common: u64,
    total: u64,
    step: u64,
}

impl Walk<'_> {
    fn next(&mut self) -> Option<Part> {
        if self.at >= self.total {
            return None;
        }
        let start = self.at;
        let end = if start < self.common { self.common } else { self.total };
        let boundary = (start + 1).next_multiple_of(self.step).min(end);
        let mut runs = Vec::new();
        while self.at < boundary {
            let pair = match self.pair() {
                Ok(pair) => pair,
                Err(error) => return Some(Part::Known(Outcome::Failed(error))),
            };
            let (run, status_differs) = pair;
            if self.strict && status_differs && self.at < self.common {
                if self.at > start {
                    // What lies before is compared first; the map is asked again then.
                    break;
                }
                return Some(Part::Known(Outcome::StatusDiffers(self.at)));
            }
            if run.zero == [true; 2] && self.at == start && run.length > self.step {
                self.at += run.length;
                return Some(Part::Known(Outcome::Same(run.length)));
            }
            let length = run.length.min(boundary - self.at);
            runs.push(Run { length, ..run });
            self.at += length;
        }
        Some(Part::Read { start, end: self.at, runs })
    }

    /// The common run at the present position, and whether its status differs.
    fn pair(&mut self) -> Result<(Run, bool), CompareError> {
        let end = if self.at < self.common { self.common } else { self.total };
        let [a, b] = &mut self.sides;
        let failed = |second, error: Error| CompareError {
            stage: CompareStage::Map,
            second,
            past_common: false,
            error,
        };
        let a = a.extent(self.at, end).map_err(|error| failed(false, error))?;
        let b = b.extent(self.at, end).map_err(|error| failed(true, error))?;
        let status = |e: &ChainExtent| (e.present, e.zero, e.data, e.compressed, e.place.is_some());
        let length = a.length.min(b.length).min(end - self.at);
        let same_bytes = self.same_bytes(&a, &b);
        let zero = if same_bytes { [true; 2] } else { [a.zero, b.zero] };
        Ok((Run { start: self.at, length, zero }, status(&a) != status(&b)))
    }

    /// Both images find the range at one place of one file.
    fn same_bytes(&self, a: &ChainExtent, b: &ChainExtent) -> bool {
        let file = |side: &Side<'_>, extent: &ChainExtent| {
            let layer = side.node.chain().nth(extent.depth)?;
            let file = layer.data_file.as_ref().map(|(_, file)| file).or(layer.file.as_ref())?;
            Some((file.id().ok()?, extent.place?, layer.image.encrypted()))
        };
        let places = (file(&self.sides[0], a), file(&self.sides[1], b));
        matches!(places, (Some(a), Some(b)) if a == b && !a.2)
    }
}

impl Part {
    fn compare(self, request: &CompareRequest<'_>, buffers: &mut [PageBuffer; 2]) -> Outcome {
        let (start, end, runs) = match self {
            Self::Known(outcome) => return outcome,
            Self::Read { start, end, runs } => (start, end, runs),
        };
        match read_and_compare(request, buffers, start, &runs) {
            Ok(None) => Outcome::Same(end - start),
            Ok(Some(at)) => Outcome::Differs(at - at % SECTOR),
            Err(error) => Outcome::Failed(error),
        }
    }
}

fn read_and_compare(
    request: &CompareRequest<'_>,
    buffers: &mut [PageBuffer; 2],
    start: u64,
    runs: &[Run],
) -> Result<Option<u64>, CompareError> {
    for (side, buffer) in buffers.iter_mut().enumerate() {
        let node = [request.a, request.b][side];
        read_side(node, side, buffer, start, runs).map_err(|error| CompareError {
            stage: CompareStage::Data,
            second: side == 1,
            past_common: false,
            error,
        })?;
    }
    for run in runs {
        let from = (run.start - start) as usize;
        let range = from..from + run.length as usize;
        let difference = match run.zero {
            [true, true] => None,
            [false, false] => first_difference(&buffers[0][range.clone()], &buffers[1][range]),
            [true, false] => first_nonzero(&buffers[1][range]),
            [false, true] => first_nonzero(&buffers[0][range]),
        };
        if let Some(at) = difference {
            return Ok(Some(run.start + at as u64));
        }
    }
    Ok(None)
}

/// Reads what one image does not know to be zero, neighbours together.
fn read_side(
    node: &Node,
    side: usize,
    buffer: &mut PageBuffer,
    start: u64,
    runs: &[Run],
) -> Result<()> {
    let end = runs.last().map_or(start, |run| run.start + run.length);
    let length = (end - start) as usize;
    buffer.reach(length);
    for group in runs.chunk_by(|a, b| a.zero[side] == b.zero[side]) {
        let (Some(first), Some(last)) = (group.first(), group.last()) else { continue };
        if first.zero[side] {
            continue;
        }
        let range = (first.start - start) as usize..(last.start + last.length - start) as usize;
        node.image.read_at(&mut buffer[range], first.start).map_err(|error| {
            error.context(format!("Error while reading offset {} of {}", first.start, node.shown))
        })?;
    }
    Ok(())
}

fn first_nonzero(bytes: &[u8]) -> Option<usize> {
    let clean = bytes.chunks(SECTOR as usize).take_while(|sector| is_zero(sector)).count();
    (clean * (SECTOR as usize) < bytes.len()).then_some(clean * SECTOR as usize)
}
