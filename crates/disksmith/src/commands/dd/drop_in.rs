//! `dd` as qemu-img has it: `count` counts from the start of the input, the output is made anew.

use disksmith_disk::Disk;
use disksmith_formats::{OpenMode, Options};
use disksmith_operations::{DdConv, DdPlan, DdRequest, dd};

use super::Dd;
use crate::commands::common::{Purpose, Source};
use crate::face::{DONE, Face, Failure, Outcome, refuse};
use crate::making::{Plan, creatable, is_driver};
use crate::numbers::{bounded, size};
use crate::progress::{Progress, Watch};

#[derive(Default)]
struct Operands {
    input: Option<String>,
    output: Option<String>,
    block_size: u64,
    count: Option<u64>,
    skip: u64,
}

impl Operands {
    fn parse(face: &Face, texts: &[String]) -> Result<Self, Failure> {
        let mut operands = Self { block_size: 512, ..Self::default() };
        for operand in texts {
            let (name, value) = operand.split_once('=').unwrap_or((operand, ""));
            match name {
                "if" if operand.contains('=') => operands.input = Some(value.to_string()),
                "of" => operands.output = Some(value.to_string()),
                "bs" => operands.block_size = bounded(face, "bs", value, 1, i32::MAX as u64)?,
                "count" => operands.count = Some(size(face, "count", value)?),
                "skip" => operands.skip = size(face, "skip", value)?,
                _ => return refuse(format!("unrecognized operand {name}")),
            }
        }
        Ok(operands)
    }
}

pub(super) fn run(verb: &Dd, face: &Face) -> Outcome {
    let operands = Operands::parse(face, &verb.operands)?;
    let (Some(input), Some(output)) = (&operands.input, &operands.output) else {
        return refuse("Must specify both input and output files");
    };
    let purpose = Purpose::new(OpenMode::Read).shared(verb.force_share);
    let node = verb.source.open(face, input, purpose)?;
    let format = verb.output_format.as_deref().unwrap_or("raw");
    if !is_driver(format) {
        return refuse("Unknown file format");
    }
    let driver = creatable(format)?;
    let extent = DdPlan::new(
        node.image.size(),
        operands.block_size,
        operands.count,
        operands.skip,
        0,
        true,
    )?;
    let mut options = Options::new();
    options.set("size", extent.target_size().to_string());
    let plan = Plan { driver, name: output.clone(), options };
    let made = plan
        .make(face, &verb.source.keys.secrets()?)
        .map_err(|error| error.context(format!("{output}: error while creating output image")))?;
    made.unlock()?;
    let spec = made.target.spec(output, format)?;
    let target = Source::default().settings(Purpose::new(OpenMode::Write))?;
    let target = disksmith_open::open(&spec, &target)?;
    if extent.skipped_too_far {
        face.complain(&format!("{input}: cannot skip to specified offset"));
    }
    let watch = Watch::new(face, Progress::new(face, false, true));
    let request = DdRequest {
        source: &node,
        target: &*target.image,
        plan: extent,
        target_is_zero: false,
        conv: DdConv::default(),
    };
    let result = dd(&request, &watch);
    watch.finish();
    result?;
    target.close()?;
    drop(target);
    made.keep()?;
    Ok(DONE)
}
