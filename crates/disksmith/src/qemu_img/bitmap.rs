//! `qemu-img bitmap`.

use super::{FORMAT, HELP, IMAGE_OPTS, OBJECT, Opt, Parsed, Subcommand, flag, value};
use crate::commands::Verb;
use crate::commands::bitmap::{Action, Bitmap};
use crate::face::{Face, Outcome, refuse};

const OWN: &[Opt] = &[
    flag('\0', "add", "Add BITMAP, recording from now on"),
    flag('\0', "remove", "Remove BITMAP"),
    flag('\0', "clear", "Mark everything clean in BITMAP"),
    flag('\0', "enable", "Record changes into BITMAP"),
    flag('\0', "disable", "Stop recording into BITMAP"),
    value('\0', "merge", "SOURCE", "Mark dirty in BITMAP what is dirty in SOURCE"),
    value('g', "granularity", "SIZE[KMGTPE]", "Bytes per bit of an added bitmap"),
    value('b', "source-file", "SRC_FILENAME", "The image that holds SOURCE"),
    value('F', "source-format", "SRC_FMT", "Format of that image"),
];

pub(super) static SUBCOMMAND: Subcommand = Subcommand {
    name: "bitmap",
    about: "Change the persistent bitmaps of an image",
    synopsis: "(--merge SOURCE | --add | --remove | --clear | --enable | --disable)...\n        [-b SRC_FILENAME [-F SRC_FMT]] [-g SIZE] [-f FMT | --image-opts]\n        [--object OBJDEF] FILENAME BITMAP",
    options: &[HELP, FORMAT, IMAGE_OPTS, OWN, OBJECT],
    last_is_operand: false,
    run,
};

fn run(face: &Face, parsed: &Parsed) -> Outcome {
    let ordered: Vec<_> = parsed
        .iter()
        .filter_map(|(name, value)| match name {
            "add" => Some(Action::Add),
            "remove" => Some(Action::Remove),
            "clear" => Some(Action::Clear),
            "enable" => Some(Action::Enable),
            "disable" => Some(Action::Disable),
            "merge" => Some(Action::Merge(value.to_string())),
            _ => None,
        })
        .collect();
    if ordered.is_empty() {
        return refuse(
            "Need at least one of --add, --remove, --clear, --enable, --disable, or --merge",
        );
    }
    let [image, bitmap] = parsed.operands.as_slice() else {
        return refuse("Expecting filename and bitmap name");
    };
    let verb = Bitmap {
        source: parsed.source(),
        ordered,
        granularity: parsed.value("granularity"),
        source_file: parsed.value("source-file"),
        source_format: parsed.value("source-format"),
        image: image.clone(),
        bitmap: bitmap.clone(),
        ..Bitmap::default()
    };
    verb.run(face)
}
