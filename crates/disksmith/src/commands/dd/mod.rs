//! `dd`: copy blocks, as dd(1) does, between images, parts of them, and streams.

mod copy;
mod drop_in;
mod operands;
mod output;
mod report;

use super::Verb;
use super::common::Source;
use crate::face::{Face, Outcome};

/// The arguments of `dd`.
#[derive(clap::Args, Debug, Default)]
#[command(after_help = HELP)]
pub(crate) struct Dd {
    #[command(flatten)]
    pub source: Source,
    /// Format of the output
    #[arg(short = 'O', long, value_name = "FMT")]
    pub output_format: Option<String>,
    /// Read even while another process writes the input
    #[arg(short = 'U', long)]
    pub force_share: bool,
    /// if=IMAGE of=IMAGE bs=SIZE count=N skip=N seek=N conv=… status=…
    #[arg(value_name = "OPERAND")]
    pub operands: Vec<String>,
}

const HELP: &str = "\
Operands, as of dd(1):
  if=, of=        IMAGE, IMAGE:PART, a device, or - (the default): stdin, stdout
  bs=, ibs=, obs= bytes per block (512); c, w, b, K, kB, M, MB … and products such as 2x512
  count=, skip=, seek=   in blocks, or in bytes when the number ends in B
  conv=           notrunc, sparse, fsync, fdatasync, noerror, sync, excl, nocreat
  iflag=, oflag=  count_bytes, skip_bytes, seek_bytes, append, direct, sync, dsync, fullblock
  status=         none, noxfer or progress
A new output has the format that -O or the suffix of its name says. An output that is a part of an
image or a device, and any with conv=notrunc or seek=, is written in place, in its own format.";

impl Verb for Dd {
    const NAME: &'static str = "dd";
    const ABOUT: &'static str = "Copy blocks from one image to another, as dd does";

    fn run(self, face: &Face) -> Outcome {
        match face.drop_in {
            true => drop_in::run(&self, face),
            false => copy::run(&self, face),
        }
    }
}
