//! The middle of a copy: reads a piece, looks for zeroes, compresses, and says what is to be
//! done with which range of the target.

use std::ops::Range;

use disksmith_codec::Compressor;
use disksmith_disk::{Disk, PageBuffer, Result, is_zero};

use crate::Observer;
use crate::plan::{Fill, Piece, Segment, Source};

const SECTOR: usize = 512;

/// A piece's memory, used over and over.
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    /// The piece's bytes.
    pub(crate) bytes: PageBuffer,
    /// Its compressed clusters, one after another.
    pub(crate) packed: Vec<u8>,
}

/// One thing to do with the target.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Step {
    /// Offset in the target.
    pub(crate) at: u64,
    pub(crate) length: u64,
    pub(crate) action: Action,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Action {
    Keep,
    Zero,
    /// Write the buffer's bytes.
    Write,
    /// Write this part of the buffer's packed bytes as a compressed cluster.
    Packed(Range<usize>),
    /// Have the kernel copy it.
    Copy {
        source: usize,
        layer: usize,
        place: u64,
        from: u64,
    },
}

/// A piece ready to be placed.
#[derive(Debug)]
pub(crate) struct Ready {
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) steps: Vec<Step>,
    /// To be told when it is placed.
    pub(crate) warnings: Vec<String>,
}

/// How pieces become steps.
#[derive(Clone, Copy)]
pub(crate) struct Transfer<'a> {
    pub(crate) sources: &'a [Source<'a>],
    /// The target's granularity; see [`crate::plan::Plan::unit`].
    pub(crate) unit: u64,
    /// Zeroes in data are found and left out when they come at least this many bytes long; 0:
    /// everything is stored.
    pub(crate) sparse: u64,
    /// Whether data is searched for zeroes at all; else only what maps call zero counts.
    pub(crate) find_zeroes: bool,
    /// Whether whole units are compressed.
    pub(crate) compress: bool,
    /// Read errors give zeroes and a warning.
    pub(crate) salvage: bool,
    /// Plain data that came as a piece of its own is left to the kernel.
    pub(crate) offload: bool,
}

impl Transfer<'_> {
    /// Reads what must be read of `piece` and decides.
    pub(crate) fn prepare(
        &self,
        compressor: &mut Option<Compressor>,
        piece: &Piece,
        buffer: &mut Buffer,
    ) -> Result<Ready> {
        let mut ready =
            Ready { start: piece.start, end: piece.end, steps: Vec::new(), warnings: Vec::new() };
        if let [only] = &*piece.segments
            && let Some(action) = self.without_reading(only)
        {
            ready.steps.push(Step { at: piece.start, length: only.length, action });
            return Ok(ready);
        }
        buffer.packed.clear();
        self.read(piece, buffer, &mut ready.warnings)?;
        let mut segments = &piece.segments[..];
        let mut at = piece.start;
        while at < piece.end {
            let end = (at + self.unit).min(piece.end);
            while segments.first().is_some_and(|segment| segment.end() <= at) {
                segments = &segments[1..];
            }
            self.unit_steps(compressor, segments, at..end, piece.start, buffer, &mut ready.steps);
            at = end;
        }
        self.store_short_zeroes(piece, &mut ready.steps);
        Ok(ready)
    }

    fn finds_zeroes(&self) -> bool {
        self.find_zeroes && self.sparse > 0
    }

    fn without_reading(&self, only: &Segment) -> Option<Action> {
        match (only.fill, only.place) {
            (Fill::Keep, _) => Some(Action::Keep),
            (Fill::Zero, _) if self.sparse > 0 => Some(Action::Zero),
            (Fill::Data, Some((layer, place))) if self.offload => {
                Some(Action::Copy { source: only.source, layer, place, from: only.from })
            }
            _ => None,
        }
    }

    /// Fills the buffer: data is read, zeroes are set. When compressing, what is left to the
    /// backing image is read too: clusters are stored whole.
    fn read(&self, piece: &Piece, buffer: &mut Buffer, warnings: &mut Vec<String>) -> Result<()> {
        let wanted = |segment: &Segment| match segment.fill {
            Fill::Data => true,
            Fill::Keep => self.compress && piece.segments.len() > 1,
            Fill::Zero => false,
        };
        let length = (piece.end - piece.start) as usize;
        buffer.bytes.reach(length);
        let mut pending: Option<Segment> = None;
        for segment in &piece.segments {
            let range = (segment.at - piece.start) as usize..(segment.end() - piece.start) as usize;
            if !wanted(segment) {
                buffer.bytes[range].fill(0);
                continue;
            }
            match &mut pending {
                Some(last)
                    if last.source == segment.source
                        && last.end() == segment.at
                        && last.from + last.length == segment.from =>
                {
                    last.length += segment.length;
                }
                _ => {
                    if let Some(last) = pending.replace(*segment) {
                        self.read_segment(&last, piece.start, buffer, warnings)?;
                    }
                }
            }
        }
        match pending {
            Some(last) => self.read_segment(&last, piece.start, buffer, warnings),
            None => Ok(()),
        }
    }

    fn read_segment(
        &self,
        segment: &Segment,
        start: u64,
        buffer: &mut Buffer,
        warnings: &mut Vec<String>,
    ) -> Result<()> {
        let range = (segment.at - start) as usize..(segment.end() - start) as usize;
        let bytes = &mut buffer.bytes[range];
        let disk = &*self.sources[segment.source].node.image;
        match self.salvage {
            false => disk.read_at(bytes, segment.from).map_err(|error| {
                error.context(format!("error while reading at byte {}", segment.at))
            }),
            true => {
                salvage(disk, bytes, segment.from, segment.at, warnings);
                Ok(())
            }
        }
    }

    fn unit_steps(
        &self,
        compressor: &mut Option<Compressor>,
        segments: &[Segment],
        unit: Range<u64>,
        start: u64,
        buffer: &mut Buffer,
        steps: &mut Vec<Step>,
    ) {
        let inside = segments.iter().take_while(|segment| segment.at < unit.end);
        let (mut data, mut zero, mut keep) = (false, false, false);
        for segment in inside.clone() {
            match segment.fill {
                Fill::Data => data = true,
                Fill::Zero => zero = true,
                Fill::Keep => keep = true,
            }
        }
        let whole = if data || (zero && self.sparse == 0) {
            self.compress || !keep
        } else {
            !(zero && keep)
        };
        if whole {
            let action = match (data || (zero && self.sparse == 0), keep) {
                (true, _) => self.store(compressor, &unit, start, buffer),
                (false, true) => Action::Keep,
                (false, false) => Action::Zero,
            };
            return push(steps, unit.start, unit.end - unit.start, action);
        }
        for segment in inside {
            let from = segment.at.max(unit.start);
            let to = segment.end().min(unit.end);
            let bytes = &buffer.bytes[(from - start) as usize..(to - start) as usize];
            let action = match segment.fill {
                Fill::Keep => Action::Keep,
                _ if self.sparse == 0 => Action::Write,
                Fill::Zero => Action::Zero,
                Fill::Data if self.finds_zeroes() && is_zero(bytes) => Action::Zero,
                Fill::Data => Action::Write,
            };
            push(steps, from, to - from, action);
        }
    }

    /// What to do with a unit whose bytes are in the buffer.
    fn store(
        &self,
        compressor: &mut Option<Compressor>,
        unit: &Range<u64>,
        start: u64,
        buffer: &mut Buffer,
    ) -> Action {
        let range = (unit.start - start) as usize..(unit.end - start) as usize;
        if self.finds_zeroes() && is_zero(&buffer.bytes[range.clone()]) {
            return Action::Zero;
        }
        let Some(compressor) = compressor.as_mut().filter(|_| self.compress) else {
            return Action::Write;
        };
        // The last cluster may stick out of the disk: its rest is zeroes.
        let whole = range.start + self.unit as usize;
        if range.end < whole {
            buffer.bytes.reach(whole);
            buffer.bytes[range.end..whole].fill(0);
        }
        match compressor.compress(&buffer.bytes[range.start..whole]) {
            Some(packed) => {
                let from = buffer.packed.len();
                buffer.packed.extend_from_slice(packed);
                Action::Packed(from..buffer.packed.len())
            }
            None => Action::Write,
        }
    }

    /// Zeroes found in data that are too short to be worth a hole are written after all.
    fn store_short_zeroes(&self, piece: &Piece, steps: &mut Vec<Step>) {
        if self.sparse <= self.unit || self.compress {
            return;
        }
        let holds_data = |step: &Step| {
            piece.segments.iter().any(|segment| {
                segment.fill == Fill::Data
                    && segment.at < step.at + step.length
                    && segment.end() > step.at
            })
        };
        for step in steps.iter_mut() {
            if step.action == Action::Zero && step.length < self.sparse && holds_data(step) {
                step.action = Action::Write;
            }
        }
        let mut joined: Vec<Step> = Vec::with_capacity(steps.len());
        for step in steps.drain(..) {
            push(&mut joined, step.at, step.length, step.action);
        }
        *steps = joined;
    }
}

/// Adds a step, joined to the one before where they are alike.
fn push(steps: &mut Vec<Step>, at: u64, length: u64, action: Action) {
    if let Some(last) = steps.last_mut()
        && last.action == action
        && matches!(action, Action::Keep | Action::Zero | Action::Write)
        && last.at + last.length == at
    {
        last.length += length;
        return;
    }
    steps.push(Step { at, length, action });
}

/// Reads what can be read; every sector that cannot is zeroed and told.
pub(crate) fn salvage(
    disk: &dyn Disk,
    bytes: &mut [u8],
    from: u64,
    shown: u64,
    warnings: &mut Vec<String>,
) {
    let Err(error) = disk.read_at(bytes, from) else { return };
    if bytes.len() <= SECTOR {
        bytes.fill(0);
        warnings.push(format!("error while reading offset {shown}: {}", error.message()));
        return;
    }
    let half = (bytes.len() / 2).next_multiple_of(SECTOR);
    let (left, right) = bytes.split_at_mut(half);
    salvage(disk, left, from, shown, warnings);
    salvage(disk, right, from + half as u64, shown + half as u64, warnings);
}

/// Tells the warnings of a piece.
pub(crate) fn tell(ready: &Ready, observer: &dyn Observer) {
    ready.warnings.iter().for_each(|warning| observer.warning(warning));
}
