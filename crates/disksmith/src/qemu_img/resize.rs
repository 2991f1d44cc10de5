//! `qemu-img resize`.

use super::{FORMAT, HELP, IMAGE_OPTS, OBJECT, Opt, Parsed, QUIET, Subcommand, flag, value};
use crate::commands::Verb;
use crate::commands::resize::Resize;
use crate::face::{Face, Outcome, usage};

const OWN: &[Opt] = &[
    value('\0', "preallocation", "PREALLOC", "How to reserve what is added"),
    flag('\0', "shrink", "Allow the image to become smaller"),
];

pub(super) static SUBCOMMAND: Subcommand = Subcommand {
    name: "resize",
    about: "Change the size of an image",
    synopsis: "[-f FMT | --image-opts] [--preallocation PREALLOC] [--shrink]\n        [-q] [--object OBJDEF] FILENAME [+-]SIZE[bkKMGTPE]",
    options: &[HELP, QUIET, FORMAT, IMAGE_OPTS, OWN, OBJECT],
    // A size such as -1M is no option.
    last_is_operand: true,
    run,
};

fn run(face: &Face, parsed: &Parsed) -> Outcome {
    let (image, size) = match parsed.operands.as_slice() {
        [image, size] => (image.clone(), size.clone()),
        [_, _, _, ..] => return usage("Extra argument(s) in command line"),
        _ => return usage("Expecting image file name and size"),
    };
    let verb = Resize {
        source: parsed.source(),
        preallocation: parsed.value("preallocation"),
        shrink: parsed.has("shrink"),
        quiet: parsed.has("quiet"),
        form: Default::default(),
        image,
        size,
    };
    verb.run(face)
}
