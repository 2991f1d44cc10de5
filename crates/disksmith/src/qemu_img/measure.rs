//! `qemu-img measure`.

use super::{
    FORCE_SHARE, FORMAT, HELP, IMAGE_OPTS, OBJECT, OUTPUT, Opt, Parsed, Subcommand, value,
};
use crate::commands::Verb;
use crate::commands::measure::Measure;
use crate::face::{Face, Outcome, refuse};

const OWN: &[Opt] = &[
    value('O', "target-format", "FMT", "Format of the image to be made (raw)"),
    value('o', "options", "OPTIONS", "Options of that format"),
    value('s', "size", "SIZE", "An empty image of this size"),
    value('l', "snapshot", "SNAPSHOT", "A snapshot of FILENAME"),
];

pub(super) static SUBCOMMAND: Subcommand = Subcommand {
    name: "measure",
    about: "Tell how large an image will become",
    synopsis: "[-f FMT | --image-opts] [-O FMT] [-o OPTIONS] [-l SNAPSHOT]\n        [--output human|json] [-U] [--object OBJDEF] (--size SIZE | FILENAME)",
    options: &[HELP, OWN, FORMAT, IMAGE_OPTS, OUTPUT, FORCE_SHARE, OBJECT],
    last_is_operand: false,
    run,
};

fn run(face: &Face, parsed: &Parsed) -> Outcome {
    if parsed.operands.len() > 1 {
        return refuse("At most one filename argument is allowed.");
    }
    let verb = Measure {
        source: parsed.source(),
        target_format: parsed.value("target-format"),
        options: parsed.all("options"),
        size: parsed.value("size"),
        snapshot: parsed.value("snapshot"),
        force_share: parsed.has("force-share"),
        form: parsed.form()?,
        image: parsed.operands.first().cloned(),
    };
    verb.run(face)
}
