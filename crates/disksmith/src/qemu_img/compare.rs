//! `qemu-img compare`.

use super::{
    FORCE_SHARE, HELP, IMAGE_OPTS, OBJECT, Opt, PROGRESS, Parsed, QUIET, Subcommand, flag, value,
};
use crate::commands::Verb;
use crate::commands::common::Form;
use crate::commands::compare::Compare;
use crate::face::{Face, Outcome, usage};

const OWN: &[Opt] = &[
    value('f', "a-format", "FMT", "Format of FILENAME1"),
    value('F', "b-format", "FMT", "Format of FILENAME2"),
    flag('s', "strict", "Sizes and allocation must be equal too"),
    value('T', "cache", "CACHE_MODE", "Cache mode of the images (writeback)"),
];

pub(super) static SUBCOMMAND: Subcommand = Subcommand {
    name: "compare",
    about: "Tell whether two images hold the same",
    synopsis: "[--image-opts | [-f FMT] [-F FMT]] [-s] [-T CACHE] [-U]\n        [-p] [-q] [--object OBJDEF] FILENAME1 FILENAME2",
    options: &[HELP, QUIET, PROGRESS, IMAGE_OPTS, OWN, FORCE_SHARE, OBJECT],
    last_is_operand: false,
    run,
};

fn run(face: &Face, parsed: &Parsed) -> Outcome {
    let [first, second] = parsed.operands.as_slice() else {
        return usage("Expecting two image file names");
    };
    let verb = Compare {
        a_format: parsed.value("a-format"),
        b_format: parsed.value("b-format"),
        image_opts: parsed.has("image-opts"),
        keys: parsed.keys(),
        untrusted: false,
        strict: parsed.has("strict"),
        cache: parsed.value("cache"),
        force_share: parsed.has("force-share"),
        telling: parsed.telling(),
        form: Form::default(),
        first: first.clone(),
        second: second.clone(),
    };
    verb.run(face)
}
