//! `qemu-img rebase`.

use super::{
    FORCE_SHARE, FORMAT, HELP, IMAGE_OPTS, OBJECT, Opt, PROGRESS, Parsed, QUIET, Subcommand, flag,
    value,
};
use crate::commands::Verb;
use crate::commands::rebase::Rebase;
use crate::face::{Face, Outcome};

const OWN: &[Opt] = &[
    value('t', "cache", "CACHE", "Cache mode of the image (writeback)"),
    value('b', "backing", "BACKING_FILENAME|\"\"", "The image to stand on, or none"),
    value('F', "backing-format", "BACKING_FMT", "Format of that image"),
    value('T', "backing-cache", "CACHE", "Cache mode of that image (writeback)"),
    flag('u', "backing-unsafe", "Only change the stored name"),
    flag('c', "compress", "Store what must be copied compressed"),
];

pub(super) static SUBCOMMAND: Subcommand = Subcommand {
    name: "rebase",
    about: "Let an image stand on another backing file",
    synopsis: "[-f FMT | --image-opts] [-t CACHE] [-b BACKING_FILENAME [-F BACKING_FMT]]\n        [-T BACKING_CACHE] [-u] [-c] [-U] [-p] [-q] [--object OBJDEF] FILENAME",
    options: &[HELP, QUIET, PROGRESS, FORMAT, IMAGE_OPTS, OWN, FORCE_SHARE, OBJECT],
    last_is_operand: false,
    run,
};

fn run(face: &Face, parsed: &Parsed) -> Outcome {
    let verb = Rebase {
        source: parsed.source(),
        backing: parsed.value("backing"),
        backing_format: parsed.value("backing-format"),
        backing_unsafe: parsed.has("backing-unsafe"),
        compress: parsed.has("compress"),
        cache: parsed.value("cache"),
        backing_cache: parsed.value("backing-cache"),
        force_share: parsed.has("force-share"),
        telling: parsed.telling(),
        image: parsed.one_image()?,
    };
    verb.run(face)
}
