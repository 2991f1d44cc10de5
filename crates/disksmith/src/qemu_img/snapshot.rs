//! `qemu-img snapshot`.

use super::{
    FORCE_SHARE, FORMAT, HELP, IMAGE_OPTS, OBJECT, Opt, Parsed, QUIET, Subcommand, flag, value,
};
use crate::commands::Verb;
use crate::commands::common::Form;
use crate::commands::snapshot::Snapshot;
use crate::face::{Face, Outcome, usage};

const OWN: &[Opt] = &[
    flag('l', "list", "List the snapshots (the default)"),
    value('c', "create", "SNAPSHOT", "Take a snapshot"),
    value('a', "apply", "SNAPSHOT", "Return to a snapshot"),
    value('d', "delete", "SNAPSHOT", "Remove a snapshot"),
];

pub(super) static SUBCOMMAND: Subcommand = Subcommand {
    name: "snapshot",
    about: "List or change the snapshots inside an image",
    synopsis: "[-f FMT | --image-opts] [-l | -a|-c|-d SNAPSHOT]\n        [-U] [-q] [--object OBJDEF] FILENAME",
    options: &[HELP, QUIET, FORMAT, IMAGE_OPTS, FORCE_SHARE, OBJECT, OWN],
    last_is_operand: false,
    run,
};

fn run(face: &Face, parsed: &Parsed) -> Outcome {
    let actions =
        parsed.iter().filter(|(name, _)| ["list", "create", "apply", "delete"].contains(name));
    if actions.count() > 1 {
        return usage("Cannot mix '-l', '-a', '-c', '-d'");
    }
    let verb = Snapshot {
        source: parsed.source(),
        list: parsed.has("list"),
        create: parsed.value("create"),
        apply: parsed.value("apply"),
        delete: parsed.value("delete"),
        force_share: parsed.has("force-share"),
        quiet: parsed.has("quiet"),
        form: Form::default(),
        image: parsed.one_image()?,
    };
    verb.run(face)
}
