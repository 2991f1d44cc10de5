//! `qemu-img amend`.

use super::{
    FORMAT, HELP, IMAGE_OPTS, OBJECT, Opt, PROGRESS, Parsed, QUIET, Subcommand, flag, value,
};
use crate::commands::Verb;
use crate::commands::amend::Amend;
use crate::face::{Face, Outcome};

const OWN: &[Opt] = &[
    value('t', "cache", "CACHE", "Cache mode of the image (writeback)"),
    flag('\0', "force", "Allow unsafe changes"),
    value('o', "options", "OPTIONS", "What to change; -o help lists the options"),
];

pub(super) static SUBCOMMAND: Subcommand = Subcommand {
    name: "amend",
    about: "Change options of an existing image",
    synopsis: "[-f FMT | --image-opts] [-t CACHE] [--force] [-p] [-q]\n        [--object OBJDEF] -o OPTIONS FILENAME",
    options: &[HELP, QUIET, PROGRESS, FORMAT, IMAGE_OPTS, OWN, OBJECT],
    last_is_operand: false,
    run,
};

fn run(face: &Face, parsed: &Parsed) -> Outcome {
    let verb = Amend {
        source: parsed.source(),
        options: parsed.all("options"),
        cache: parsed.value("cache"),
        force: parsed.has("force"),
        telling: parsed.telling(),
        image: match parsed.operands.as_slice() {
            [image] => Some(image.clone()),
            _ => None,
        },
    };
    verb.run(face)
}
