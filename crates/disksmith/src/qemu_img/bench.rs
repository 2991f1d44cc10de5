//! `qemu-img bench`.

use super::{FORCE_SHARE, FORMAT, HELP, IMAGE_OPTS, Opt, Parsed, QUIET, Subcommand, flag, value};
use crate::commands::Verb;
use crate::commands::bench::Bench;
use crate::commands::common::Form;
use crate::face::{Face, Outcome};

const OWN: &[Opt] = &[
    value('t', "cache", "CACHE", "Cache mode of the image (writeback)"),
    value('c', "count", "COUNT", "How many requests (75000)"),
    value('s', "buffer-size", "BUFFER_SIZE", "Bytes per request (4096)"),
    value('d', "depth", "DEPTH", "How many requests at once (64)"),
    value('o', "offset", "OFFSET", "Where the first request goes"),
    value('S', "step-size", "STEP_SIZE", "From one request to the next (the buffer size)"),
    value('i', "aio", "AIO", "threads, native or io_uring; makes no difference here"),
    flag('n', "native", "Makes no difference here"),
    flag('w', "write", "Write; what the image holds is lost"),
    value('\0', "pattern", "PATTERN", "The byte to write (0)"),
    value('\0', "flush-interval", "FLUSH_INTERVAL", "Flush after so many requests"),
    flag('\0', "no-drain", "Do not wait for requests under way before a flush"),
];

pub(super) static SUBCOMMAND: Subcommand = Subcommand {
    name: "bench",
    about: "Measure how fast an image is read or written",
    synopsis: "[-f FMT | --image-opts] [-t CACHE] [-c COUNT] [-d DEPTH]\n        [-o OFFSET] [-s BUFFER_SIZE] [-S STEP_SIZE] [-i AIO] [-n] [-U] [-q]\n        [-w [--pattern PATTERN] [--flush-interval INTERVAL [--no-drain]]] FILENAME",
    options: &[HELP, QUIET, FORMAT, IMAGE_OPTS, OWN, FORCE_SHARE],
    last_is_operand: false,
    run,
};

fn run(face: &Face, parsed: &Parsed) -> Outcome {
    let verb = Bench {
        source: parsed.source(),
        cache: parsed.value("cache"),
        count: parsed.value("count"),
        depth: parsed.value("depth"),
        buffer_size: parsed.value("buffer-size"),
        step_size: parsed.value("step-size"),
        offset: parsed.value("offset"),
        aio: parsed.value("aio"),
        native: parsed.has("native"),
        write: parsed.has("write"),
        pattern: parsed.value("pattern"),
        flush_interval: parsed.value("flush-interval"),
        no_drain: parsed.has("no-drain"),
        quiet: parsed.has("quiet"),
        force_share: parsed.has("force-share"),
        form: Form::default(),
        image: parsed.one_image()?,
    };
    verb.run(face)
}
