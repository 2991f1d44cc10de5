//! `dd`: copy blocks, as dd(1) does, between images.

use disksmith_disk::Disk;
use disksmith_formats::{OpenMode, Options, driver};
use disksmith_operations::{DdConv, DdPlan, DdRequest, dd};

use super::Verb;
use super::common::{Purpose, Source};
use crate::face::{DONE, Face, Outcome, refuse};
use crate::making::{Plan, format_of_name};
use crate::numbers::{bounded, size};
use crate::progress::{Progress, Watch};

/// The arguments of `dd`.
#[derive(clap::Args, Debug, Default)]
pub(crate) struct Dd {
    #[command(flatten)]
    pub source: Source,
    /// Format of the output
    #[arg(short = 'O', long, value_name = "FMT")]
    pub output_format: Option<String>,
    /// Read even while another process writes the input
    #[arg(short = 'U', long)]
    pub force_share: bool,
    /// if=IMAGE of=IMAGE bs=SIZE count=N skip=N
    #[arg(value_name = "OPERAND")]
    pub operands: Vec<String>,
}

#[derive(Default)]
struct Operands {
    input: Option<String>,
    output: Option<String>,
    block_size: u64,
    count: Option<u64>,
    skip: u64,
}

impl Verb for Dd {
    const NAME: &'static str = "dd";
    const ABOUT: &'static str = "Copy blocks from one image to another, as dd does";

    fn run(self, face: &Face) -> Outcome {
        let mut operands = Operands { block_size: 512, ..Operands::default() };
        for operand in &self.operands {
            let (name, value) = operand.split_once('=').unwrap_or((operand, ""));
            match name {
                "if" if operand.contains('=') => operands.input = Some(value.to_string()),
                "of" => operands.output = Some(value.to_string()),
                "bs" => operands.block_size = bounded("bs", value, 1, i32::MAX as u64)?,
                "count" => operands.count = Some(size("count", value)?),
                "skip" => operands.skip = size("skip", value)?,
                _ => return refuse(format!("unrecognized operand {name}")),
            }
        }
        let (Some(input), Some(output)) = (&operands.input, &operands.output) else {
            return refuse("Must specify both input and output files");
        };
        let purpose = Purpose::new(OpenMode::Read).shared(self.force_share);
        let node = self.source.open(face, input, purpose)?;
        let format = match (&self.output_format, face.drop_in) {
            (Some(format), _) => format.as_str(),
            (None, false) => format_of_name(output).unwrap_or("raw"),
            (None, true) => "raw",
        };
        let Some(driver) = driver(format) else { return refuse("Unknown file format") };
        if driver.create.is_none() {
            return refuse(format!("Format driver '{format}' does not support image creation"));
        }
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
            .make(face, &self.source.keys.secrets()?)
            .map_err(|error| error.context(format!("{output}: error while creating output image")))?;
        made.unlock()?;
        let spec = made.target.spec(output, format)?;
        let target = Source::default().settings(Purpose::new(OpenMode::Write))?;
        let target = disksmith_open::open(&spec, &target)?;
        if extent.skipped_too_far {
            face.complain(&format!("{input}: cannot skip to specified offset"));
        }
        let watch = Watch::new(face, Progress::new(face, false, face.drop_in));
        let request = DdRequest {
            source: &node,
            target: &*target.image,
            plan: extent,
            target_is_zero: false,
            conv: DdConv { sparse: !face.drop_in },
        };
        let result = dd(&request, &watch);
        watch.finish();
        result?;
        target.close()?;
        drop(target);
        made.keep()?;
        Ok(DONE)
    }
}
