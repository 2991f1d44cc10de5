//! `qemu-img create`.

use super::{HELP, OBJECT, Opt, Parsed, QUIET, Subcommand, flag, value};
use crate::commands::Verb;
use crate::commands::create::Create;
use crate::face::{Face, Outcome, usage};

const OWN: &[Opt] = &[
    value('f', "format", "FMT", "Format of the new image (raw)"),
    value('o', "options", "FMT_OPTS", "Options of the format; -o help lists them"),
    value('b', "backing", "BACKING_FILENAME", "Let the new image stand on this one"),
    value('F', "backing-format", "BACKING_FMT", "Format of the backing file"),
    flag('u', "backing-unsafe", "Do not open the backing file"),
];

pub(super) static SUBCOMMAND: Subcommand = Subcommand {
    name: "create",
    about: "Make an empty image",
    synopsis: "[-f FMT] [-o FMT_OPTS] [-b BACKING_FILENAME [-F BACKING_FMT]] [-u]\n        [-q] [--object OBJDEF] FILENAME [SIZE[bkKMGTPE]]",
    options: &[HELP, QUIET, OWN, OBJECT],
    last_is_operand: false,
    run,
};

fn run(face: &Face, parsed: &Parsed) -> Outcome {
    if let Some(extra) = parsed.operands.get(2) {
        return usage(format!("Unexpected argument: {extra}"));
    }
    let verb = Create {
        format: parsed.value("format"),
        options: parsed.all("options"),
        backing: parsed.value("backing"),
        backing_format: parsed.value("backing-format"),
        backing_unsafe: parsed.has("backing-unsafe"),
        quiet: parsed.has("quiet"),
        form: Default::default(),
        keys: parsed.keys(),
        image: parsed.operands.first().cloned(),
        size: parsed.operands.get(1).cloned(),
    };
    verb.run(face)
}
