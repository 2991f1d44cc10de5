//! `qemu-img map`.

use super::{
    FORCE_SHARE, FORMAT, HELP, IMAGE_OPTS, OBJECT, OUTPUT, Opt, Parsed, Subcommand, value,
};
use crate::commands::Verb;
use crate::commands::map::Map;
use crate::face::{Face, Outcome};

const OWN: &[Opt] = &[
    value('s', "start-offset", "OFFSET", "Where to begin"),
    value('l', "max-length", "LENGTH", "How far to look"),
];

pub(super) static SUBCOMMAND: Subcommand = Subcommand {
    name: "map",
    about: "Tell which ranges of an image hold data, and where",
    synopsis: "[-f FMT | --image-opts] [--start-offset OFFSET] [--max-length LENGTH]\n        [--output human|json] [-U] [--object OBJDEF] FILENAME",
    options: &[HELP, FORMAT, IMAGE_OPTS, OWN, OUTPUT, FORCE_SHARE, OBJECT],
    last_is_operand: false,
    run,
};

fn run(face: &Face, parsed: &Parsed) -> Outcome {
    let verb = Map {
        source: parsed.source(),
        start_offset: parsed.value("start-offset"),
        max_length: parsed.value("max-length"),
        force_share: parsed.has("force-share"),
        form: parsed.form()?,
        image: parsed.one_image()?,
    };
    verb.run(face)
}
