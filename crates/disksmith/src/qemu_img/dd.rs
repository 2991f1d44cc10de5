//! `qemu-img dd`.

use super::{FORCE_SHARE, FORMAT, HELP, IMAGE_OPTS, OBJECT, Opt, Parsed, Subcommand, value};
use crate::commands::Verb;
use crate::commands::dd::Dd;
use crate::face::{Face, Outcome};

const OWN: &[Opt] = &[value('O', "output-format", "OUTPUT_FMT", "Format of the output (raw)")];

pub(super) static SUBCOMMAND: Subcommand = Subcommand {
    name: "dd",
    about: "Copy blocks of an image into a new one",
    synopsis: "[-f FMT | --image-opts] [-O OUTPUT_FMT] [-U] [--object OBJDEF]\n        [bs=BLOCK_SIZE] [count=BLOCKS] [skip=BLOCKS] if=INPUT of=OUTPUT",
    options: &[HELP, FORMAT, IMAGE_OPTS, OWN, FORCE_SHARE, OBJECT],
    last_is_operand: false,
    run,
};

fn run(face: &Face, parsed: &Parsed) -> Outcome {
    let verb = Dd {
        source: parsed.source(),
        output_format: parsed.value("output-format"),
        force_share: parsed.has("force-share"),
        operands: parsed.operands.clone(),
    };
    verb.run(face)
}
