//! `qemu-img check`.

use super::{
    FORCE_SHARE, FORMAT, HELP, IMAGE_OPTS, OBJECT, OUTPUT, Opt, Parsed, QUIET, Subcommand, value,
};
use crate::commands::Verb;
use crate::commands::check::Check;
use crate::face::{Face, Outcome};

const OWN: &[Opt] = &[
    value('T', "cache", "CACHE_MODE", "Cache mode of the image (writeback)"),
    value('r', "repair", "leaks|all", "Mend the image; excludes -U"),
];

pub(super) static SUBCOMMAND: Subcommand = Subcommand {
    name: "check",
    about: "Look for damage in an image, and mend it",
    synopsis: "[-f FMT | --image-opts] [-T CACHE_MODE] [-r leaks|all] [-U]\n        [--output human|json] [-q] [--object OBJDEF] FILENAME",
    options: &[HELP, QUIET, FORMAT, IMAGE_OPTS, OWN, FORCE_SHARE, OUTPUT, OBJECT],
    last_is_operand: false,
    run,
};

fn run(face: &Face, parsed: &Parsed) -> Outcome {
    let verb = Check {
        source: parsed.source(),
        repair: parsed.value("repair"),
        cache: parsed.value("cache"),
        force_share: parsed.has("force-share"),
        form: parsed.form()?,
        quiet: parsed.has("quiet"),
        image: parsed.one_image()?,
    };
    verb.run(face)
}
