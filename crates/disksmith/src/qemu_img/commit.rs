//! `qemu-img commit`.

use super::{
    FORMAT, HELP, IMAGE_OPTS, OBJECT, Opt, PROGRESS, Parsed, QUIET, Subcommand, flag, value,
};
use crate::commands::Verb;
use crate::commands::commit::Commit;
use crate::face::{Face, Outcome};

const OWN: &[Opt] = &[
    value('t', "cache", "CACHE_MODE", "Cache mode of the image (writeback)"),
    value('b', "base", "BASE_IMG", "The image of the chain that takes the data; implies -d"),
    flag('d', "drop", "Do not empty FILENAME afterwards"),
    value('r', "rate", "RATE", "At most so many bytes per second"),
];

pub(super) static SUBCOMMAND: Subcommand = Subcommand {
    name: "commit",
    about: "Put what an image holds into its backing file",
    synopsis: "[-f FMT | --image-opts] [-t CACHE_MODE] [-b BASE_IMG] [-d] [-r RATE]\n        [-p] [-q] [--object OBJDEF] FILENAME",
    options: &[HELP, QUIET, PROGRESS, FORMAT, IMAGE_OPTS, OWN, OBJECT],
    last_is_operand: false,
    run,
};

fn run(face: &Face, parsed: &Parsed) -> Outcome {
    let verb = Commit {
        source: parsed.source(),
        base: parsed.value("base"),
        drop: parsed.has("drop"),
        cache: parsed.value("cache"),
        rate: parsed.value("rate"),
        telling: parsed.telling(),
        form: Default::default(),
        image: parsed.one_image()?,
    };
    verb.run(face)
}
