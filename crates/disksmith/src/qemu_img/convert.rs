//! `qemu-img convert`.

use super::{FORCE_SHARE, HELP, OBJECT, Opt, PROGRESS, Parsed, QUIET, Subcommand, flag, value};
use crate::commands::Verb;
use crate::commands::convert::Convert;
use crate::face::{Face, Outcome, refuse};

const OWN: &[Opt] = &[
    value('f', "source-format", "SRC_FMT", "Format of the sources"),
    flag('\0', "source-image-opts", "The sources are given as options; excludes a format"),
    flag('\0', "image-opts", "=source-image-opts"),
    value('l', "source-snapshot", "SNAPSHOT", "Read this snapshot of the source"),
    value('T', "source-cache", "SRC_CACHE", "Cache mode of the sources (writeback)"),
    value('O', "target-format", "TGT_FMT", "Format of the target (raw)"),
    flag('\0', "target-image-opts", "The target is given as options; needs -n"),
    value('o', "target-options", "TGT_OPTS", "Options of the target's format"),
    flag('c', "compress", "Store the data compressed"),
    value('t', "target-cache", "TGT_CACHE", "Cache mode of the target (unsafe)"),
    value('B', "backing", "BACKING_FILENAME", "Let the target stand on this image"),
    value('F', "backing-format", "BACKING_FMT", "Format of that image"),
    flag('n', "no-create", "The target exists"),
    flag('\0', "target-is-zero", "The existing target holds zeroes only"),
    value('S', "sparse-size", "SPARSE_SIZE", "Shortest run of zeroes that is left out (4k)"),
    flag('\0', "bitmaps", "Copy persistent bitmaps too"),
    flag('\0', "skip-broken-bitmaps", "Leave out bitmaps that cannot be trusted"),
    value('r', "rate", "RATE", "At most so many bytes per second"),
    value('m', "parallel", "NUM", "How many pieces are worked on at once (8)"),
    flag('C', "copy-range-offloading", "Leave the copying to the kernel"),
    flag('\0', "salvage", "Go on after read errors, with zeroes"),
    flag('W', "oob-writes", "Write pieces in any order"),
];

pub(super) static SUBCOMMAND: Subcommand = Subcommand {
    name: "convert",
    about: "Copy images into one of another format",
    synopsis: "[-f SRC_FMT | --source-image-opts] [-l SNAPSHOT] [-T SRC_CACHE] [-U]\n        [-O TGT_FMT | --target-image-opts] [-o TGT_OPTS] [-t TGT_CACHE] [-c] [-n]\n        [-B BACKING_FILENAME [-F BACKING_FMT]] [--bitmaps [--skip-broken-bitmaps]]\n        [-S SPARSE_SIZE] [-m NUM] [-W] [-C] [-r RATE] [--salvage] [--target-is-zero]\n        [-p] [-q] [--object OBJDEF] SRC_FILENAME [SRC_FILENAME2 ...] TGT_FILENAME",
    options: &[HELP, QUIET, PROGRESS, OWN, FORCE_SHARE, OBJECT],
    last_is_operand: false,
    run,
};

fn run(face: &Face, parsed: &Parsed) -> Outcome {
    let mut source = parsed.source();
    source.format = parsed.value("source-format");
    source.image_opts = parsed.has("source-image-opts");
    if source.format.is_some() && source.image_opts {
        return refuse("--image-opts and --format are mutually exclusive");
    }
    let verb = Convert {
        source,
        source_snapshot: parsed.value("source-snapshot"),
        source_cache: parsed.value("source-cache"),
        target_format: parsed.value("target-format"),
        target_image_opts: parsed.has("target-image-opts"),
        options: parsed.all("target-options"),
        target_cache: parsed.value("target-cache"),
        backing: parsed.value("backing"),
        backing_format: parsed.value("backing-format"),
        compress: parsed.has("compress"),
        no_create: parsed.has("no-create"),
        target_is_zero: parsed.has("target-is-zero"),
        sparse_size: parsed.value("sparse-size"),
        bitmaps: parsed.has("bitmaps"),
        skip_broken_bitmaps: parsed.has("skip-broken-bitmaps"),
        parallel: parsed.value("parallel"),
        oob_writes: parsed.has("oob-writes"),
        copy_range_offloading: parsed.has("copy-range-offloading"),
        rate: parsed.value("rate"),
        salvage: parsed.has("salvage"),
        force_share: parsed.has("force-share"),
        telling: parsed.telling(),
        images: parsed.operands.clone(),
    };
    verb.run(face)
}
