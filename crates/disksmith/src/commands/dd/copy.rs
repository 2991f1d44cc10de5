//! `dd` as dd(1) has it.

use std::fs::File;
use std::io::{Read, Write};

use disksmith_disk::{Context, Disk, Error, Kind, Result, ZeroMode};
use disksmith_formats::{Image, OpenMode};
use disksmith_open::{Address, Node, sibling};
use disksmith_operations::{
    DdConv, DdPlan, DdRequest, DdStream, Observer, dd, dd_from_stream, dd_to_stream,
};

use super::Dd;
use super::operands::Operands;
use super::output::{InPlace, Output, resize, stream};
use super::report::Report;
use crate::commands::common::Purpose;
use crate::face::{DONE, FAILED, Face, Failure, Outcome};

/// Where dd reads.
enum Input {
    Stream(Box<dyn Read>),
    Image(Box<Node>),
}

pub(super) fn run(verb: &Dd, face: &Face) -> Outcome {
    let mut operands = Operands::parse(&verb.operands)?;
    let input = match &operands.input {
        None => Some(Input::Stream(Box::new(std::io::stdin()))),
        Some(name) => {
            stream(name, File::options().read(true))?.map(|file| Input::Stream(Box::new(file)))
        }
    };
    let (input, output) = match input {
        Some(input) => {
            let output = Output::open(verb, face, &operands, operands.limit.filter(is_modest))?;
            (input, output)
        }
        None => open_images(verb, face, &operands)?,
    };
    if let (true, Output::InPlace(place)) = (operands.append, &output) {
        operands.to = operands.to.saturating_add(place.target.image.size());
    }
    let report = Report::start(face, &operands);
    let copied = match input {
        Input::Stream(mut input) => from_stream(&mut *input, output, &operands, &report),
        Input::Image(node) => {
            let plan = plan(&node, &operands);
            if plan.skipped_too_far {
                face.complain(&format!("{}: cannot skip to specified offset", node.shown));
            }
            from_image(&node, plan, output, &operands, &report).map(|()| plan.length)
        }
    };
    match copied {
        // A reader that has enough ends the program quietly, as it would dd.
        Err(error) if operands.output.is_none() && error.errno() == Some(EPIPE) => {
            Err(Failure::Status(FAILED))
        }
        Err(error) => {
            let name = operands.output.as_deref().unwrap_or("standard output");
            Err(error.context(format!("Could not write '{name}'")).into())
        }
        Ok(copied) => {
            report.finish(copied, copied.saturating_add(operands.padding(copied)));
            Ok(DONE)
        }
    }
}

/// "Broken pipe" of the host.
const EPIPE: i32 = 32;

/// A new output is not made larger than this before so much has come.
fn is_modest(length: &u64) -> bool {
    *length <= 1 << 40
}

/// An input that is an image, and the output. When both are parts of one image it is opened
/// once, for writing.
fn open_images(verb: &Dd, face: &Face, operands: &Operands) -> Result<(Input, Output), Failure> {
    let name = operands.input.as_deref().unwrap_or_default();
    let address = Address::parse(name).with_format(verb.source.format.as_deref());
    let target = operands.output.as_deref().map(Address::parse);
    let maybe_same = target.is_some_and(|t| {
        !(t.is_plain() && address.is_plain())
            && std::fs::canonicalize(&t.image).ok() == std::fs::canonicalize(&address.image).ok()
    });
    if maybe_same
        && let Output::InPlace(place) = Output::open(verb, face, operands, None)?
        && let Some(part) = sibling(&place.image, &address)?
    {
        refuse_overlap(part.start, part.disk.size(), &place, operands)?;
        return Ok((Input::Image(Box::new(part.into_node())), Output::InPlace(place)));
    }
    let purpose = Purpose { cache: operands.input_cache, ..Purpose::new(OpenMode::Read) };
    let node = verb.source.open(face, name, purpose.shared(verb.force_share))?;
    let length = plan(&node, operands).length;
    Ok((Input::Image(Box::new(node)), Output::open(verb, face, operands, Some(length))?))
}

/// Blocks are read ahead of those written, so what is written must not be what is still read.
fn refuse_overlap(start: u64, size: u64, place: &InPlace, operands: &Operands) -> Result<()> {
    let length = size.saturating_sub(operands.from).min(operands.limit.unwrap_or(u64::MAX));
    let from = start.saturating_add(operands.from);
    let to = place.start.saturating_add(operands.to);
    match from != to && from.abs_diff(to) < length {
        true => Err(Error::new(Kind::Refused, "input and output overlap")
            .with_hint("A partition is moved with: partition IMAGE move PARTITION START.")),
        false => Ok(()),
    }
}

fn plan(node: &Node, operands: &Operands) -> DdPlan {
    let size = exact_size(node);
    let from = operands.from.min(size);
    DdPlan {
        from,
        to: operands.to,
        length: (size - from).min(operands.limit.unwrap_or(u64::MAX)),
        skipped_too_far: operands.from > size,
    }
}

/// As a disk, a file ends with a whole sector; what is copied ends where the file does.
fn exact_size(node: &Node) -> u64 {
    let size = node.image.size();
    let file = node.path.as_deref().filter(|_| node.image.format() == "raw");
    let length = file.and_then(|path| std::fs::metadata(path).ok()).map(|m| m.len());
    length.filter(|length| size.checked_sub(*length).is_some_and(|rest| rest < 512)).unwrap_or(size)
}

fn from_image(
    source: &Node,
    plan: DdPlan,
    output: Output,
    operands: &Operands,
    report: &Report<'_>,
) -> Result<()> {
    let conv = DdConv { sparse: operands.conv.sparse, noerror: operands.conv.noerror };
    let padding = operands.padding(plan.length);
    let length = plan.length.saturating_add(padding);
    let copy = |target: &Node, target_is_zero: bool| {
        pad(&*target.image, plan.to.saturating_add(plan.length), padding)?;
        let request = DdRequest { source, target: &*target.image, plan, target_is_zero, conv };
        dd(&request, report)?;
        target.close()
    };
    match output {
        Output::Stream(mut output) => {
            dd_to_stream(source, plan, conv, &mut *output, report)?;
            std::io::copy(&mut std::io::repeat(0).take(padding), &mut output)
                .and_then(|_| output.flush())
                .context("error while writing the output")
        }
        Output::InPlace(place) => {
            let keep = operands.conv.notrunc || operands.append;
            place.fit(plan.to, length, keep)?;
            copy(&place.target, false)
        }
        Output::New { node, made } => {
            // Images are made in whole sectors; a file is as long as what was copied.
            resize(&*node.image, end(operands, length))?;
            copy(&node, zero_when_new(&node))?;
            drop(node);
            made.keep()
        }
    }
}

/// Zeroes behind what is copied.
fn pad(target: &dyn Image, at: u64, length: u64) -> Result<()> {
    match length {
        0 => Ok(()),
        _ => target.write_zeroes(at, length, ZeroMode::Keep),
    }
}

/// Where a new output ends: as with dd, one that is not cut is not made longer by nothing.
fn end(operands: &Operands, copied: u64) -> u64 {
    match copied == 0 && operands.conv.notrunc {
        true => 0,
        false => operands.to.saturating_add(copied),
    }
}

/// A hole of an encrypted volume decrypts to noise, and a device holds what it held.
fn zero_when_new(node: &Node) -> bool {
    node.image.format() != "luks" && !node.file.as_ref().is_some_and(|file| file.is_block_device())
}

fn from_stream(
    input: &mut dyn Read,
    output: Output,
    operands: &Operands,
    report: &Report<'_>,
) -> Result<u64> {
    let skipped = std::io::copy(&mut input.take(operands.from), &mut std::io::sink())
        .context("error while reading the input")?;
    if skipped < operands.from {
        report.warning("the input ended before what was to be skipped");
    }
    let mut input = Padded::new(input, operands);
    copy_stream(&mut input, output, operands, report)?;
    Ok(input.read)
}

fn copy_stream(
    input: &mut dyn Read,
    output: Output,
    operands: &Operands,
    report: &Report<'_>,
) -> Result<()> {
    let (to, sparse) = (operands.to, operands.conv.sparse);
    let limit = operands.limit.map(|limit| limit.saturating_add(operands.padding(limit)));
    match output {
        Output::Stream(mut output) => {
            let copied = std::io::copy(input, &mut output).and_then(|_| output.flush());
            copied.context("error while copying")
        }
        Output::InPlace(place) => {
            let keep = operands.conv.notrunc || operands.append;
            if !place.fixed {
                place.fit(to, 0, keep)?;
            }
            let target = &*place.target.image;
            let old = if keep { exact_size(&place.image) } else { 0 };
            let request = DdStream { target, to, limit, grow: !place.fixed, sparse };
            let copied = dd_from_stream(input, request, report)?;
            if !place.fixed {
                resize(target, old.max(end(operands, copied)))?;
            }
            place.target.close()
        }
        Output::New { node, made } => {
            let target = &*node.image;
            let request = DdStream { target, to, limit, grow: true, sparse };
            let copied = dd_from_stream(input, request, report)?;
            resize(target, end(operands, copied))?;
            node.close()?;
            drop(node);
            made.keep()
        }
    }
}

/// As much of a stream as is wanted, and the zeroes that fill up its last block.
struct Padded<'a> {
    input: std::io::Take<&'a mut dyn Read>,
    operands: &'a Operands,
    read: u64,
    /// Known when the stream has ended.
    padding: Option<std::io::Take<std::io::Repeat>>,
}

impl<'a> Padded<'a> {
    fn new(input: &'a mut dyn Read, operands: &'a Operands) -> Self {
        let input = input.take(operands.limit.unwrap_or(u64::MAX));
        Self { input, operands, read: 0, padding: None }
    }
}

impl Read for Padded<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.padding.is_none() {
            let length = self.input.read(buffer)?;
            self.read += length as u64;
            if length > 0 || buffer.is_empty() {
                return Ok(length);
            }
        }
        let padding = self.operands.padding(self.read);
        self.padding.get_or_insert_with(|| std::io::repeat(0).take(padding)).read(buffer)
    }
}
