//! `qemu-img info`.

use super::{FORCE_SHARE, FORMAT, HELP, IMAGE_OPTS, OBJECT, OUTPUT, Opt, Parsed, Subcommand, flag};
use crate::commands::Verb;
use crate::commands::info::Info;
use crate::face::{Face, Outcome};

const OWN: &[Opt] = &[flag('b', "backing-chain", "Go on with the backing files")];

pub(super) static SUBCOMMAND: Subcommand = Subcommand {
    name: "info",
    about: "Tell what an image is",
    synopsis: "[-f FMT | --image-opts] [-b] [-U] [--object OBJDEF] [--output human|json] FILENAME",
    options: &[HELP, FORMAT, IMAGE_OPTS, OWN, FORCE_SHARE, OUTPUT, OBJECT],
    last_is_operand: false,
    run,
};

fn run(face: &Face, parsed: &Parsed) -> Outcome {
    let verb = Info {
        source: parsed.source(),
        backing_chain: parsed.has("backing-chain"),
        force_share: parsed.has("force-share"),
        form: parsed.form()?,
        image: parsed.one_image()?,
    };
    verb.run(face)
}
