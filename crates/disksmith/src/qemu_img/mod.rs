//! The drop-in for qemu-img 10.0: same arguments, defaults, texts, keys and exit statuses.
//!
//! Each file is one subcommand: its options as data, and how they become the arguments of the
//! verb that does the work.

use crate::face::{DONE, FAILED, Face, Failure, Outcome};

mod amend;
mod arguments;
mod bench;
mod bitmap;
mod check;
mod commit;
mod compare;
mod convert;
mod create;
mod dd;
mod info;
mod map;
mod measure;
mod rebase;
mod resize;
mod shared;
mod snapshot;

use arguments::{Opt, Parsed, flag, option_help, parse, value};

/// A subcommand.
pub(crate) struct Subcommand {
    name: &'static str,
    about: &'static str,
    /// How it is called, after its name.
    synopsis: &'static str,
    options: &'static [&'static [Opt]],
    /// The option letter before the operands is kept out of parsing: sizes like `-1M`.
    last_is_operand: bool,
    run: fn(&Face, &Parsed) -> Outcome,
}

static SUBCOMMANDS: &[&Subcommand] = &[
    &amend::SUBCOMMAND,
    &bench::SUBCOMMAND,
    &bitmap::SUBCOMMAND,
    &check::SUBCOMMAND,
    &commit::SUBCOMMAND,
    &compare::SUBCOMMAND,
    &convert::SUBCOMMAND,
    &create::SUBCOMMAND,
    &dd::SUBCOMMAND,
    &info::SUBCOMMAND,
    &map::SUBCOMMAND,
    &measure::SUBCOMMAND,
    &rebase::SUBCOMMAND,
    &resize::SUBCOMMAND,
    &snapshot::SUBCOMMAND,
];

/// What all subcommands take.
const HELP: &[Opt] = &[flag('h', "help", "Print this help and exit")];
/// What almost all take.
const OBJECT: &[Opt] = &[value(
    '\0',
    "object",
    "OBJDEF",
    "Define an object, such as a secret: secret,id=NAME,data=TEXT",
)];
const IMAGE_OPTS: &[Opt] = &[flag(
    '\0',
    "image-opts",
    "The image is given as options (driver=…,file.filename=…); excludes a format",
)];
const FORMAT: &[Opt] = &[value('f', "format", "FMT", "Format of the image; probed when not given")];
const QUIET: &[Opt] = &[flag('q', "quiet", "Print errors only")];
const PROGRESS: &[Opt] = &[flag('p', "progress", "Show how far the work is")];
const FORCE_SHARE: &[Opt] =
    &[flag('U', "force-share", "Open without locks, beside a process that writes the image")];
const OUTPUT: &[Opt] = &[value('\0', "output", "human|json", "The form of the result (human)")];

/// Runs the drop-in with the arguments after its name. Answers the exit status.
pub(crate) fn run(face: &Face, arguments: &[String]) -> u8 {
    let standard: &[&[Opt]] = &[&[
        flag('h', "help", "Print this help and exit"),
        flag('V', "version", "Print the version and exit"),
        value('T', "trace", "TRACE", "Accepted for compatibility; nothing is traced"),
    ]];
    // Options before the subcommand are the program's own.
    let mut own = 0;
    while let Some(word) = arguments.get(own).filter(|word| word.starts_with('-') && word.len() > 1)
    {
        own += if word == "-T" || word == "--trace" { 2 } else { 1 };
    }
    let (before, after) = arguments.split_at(own.min(arguments.len()));
    let parsed = match parse(standard, before) {
        Ok(parsed) => parsed,
        Err(failure) => return end(face, None, failure),
    };
    if parsed.has("help") {
        face.print(&help(standard));
        return DONE;
    }
    if parsed.has("version") {
        face.print(&version());
        return DONE;
    }
    let Some((name, rest)) = after.split_first() else {
        return end(face, None, Failure::Usage("Not enough arguments".into()));
    };
    if let Some(text) = crate::native::not_utf8(after) {
        face.complain(&text);
        return crate::face::FAILED;
    }
    match SUBCOMMANDS.iter().find(|command| command.name == name) {
        Some(command) => subcommand(face, command, rest)
            .unwrap_or_else(|failure| end(face, Some(command), failure)),
        None => end(face, None, Failure::Usage(format!("Command not found: {name}"))),
    }
}

fn subcommand(face: &Face, command: &Subcommand, arguments: &[String]) -> Outcome {
    let (arguments, last) = match arguments.split_last() {
        Some((last, before))
            if command.last_is_operand && !last.starts_with("--") && last != "-h" =>
        {
            (before, Some(last.clone()))
        }
        _ => (arguments, None),
    };
    let mut parsed = parse(command.options, arguments).map_err(|failure| match failure {
        // getopt's own complaints name the subcommand too.
        Failure::Usage(text) => {
            face.note(&format!("{} {}: {text}\n", face.program, command.name));
            face.note(&try_help(face, Some(command)));
            Failure::Status(FAILED)
        }
        other => other,
    })?;
    if parsed.has("help") {
        face.print(&command_help(command));
        return Ok(DONE);
    }
    parsed.operands.extend(last);
    (command.run)(face, &parsed)
}

fn end(face: &Face, command: Option<&Subcommand>, failure: Failure) -> u8 {
    match failure {
        Failure::Status(status) => status,
        Failure::Error(error) => {
            face.report(&error);
            FAILED
        }
        Failure::Usage(text) => {
            face.complain(&text);
            face.note(&try_help(face, command));
            FAILED
        }
    }
}

fn try_help(face: &Face, command: Option<&Subcommand>) -> String {
    let words = command.map_or(String::new(), |command| format!(" {}", command.name));
    format!("Try '{}{words} --help' for more info\n", face.program)
}

/// The first line is what scripts parse.
fn version() -> String {
    format!(
        "qemu-img version 10.0.2 (Disksmith {})\nDisksmith's drop-in for qemu-img\n",
        env!("CARGO_PKG_VERSION")
    )
}

fn help(standard: &[&[Opt]]) -> String {
    let mut text = version();
    text += "Usage: qemu-img [standard options] COMMAND [--help | command options]\n\nStandard options:\n";
    text += &option_help(standard);
    text += "\nCommands ('qemu-img COMMAND --help' tells more):\n\n";
    for command in SUBCOMMANDS {
        text += &format!("  {} - {}\n", command.name, command.about);
    }
    // Scripts search this list for words.
    let formats: Vec<_> = disksmith_formats::drivers().iter().map(|driver| driver.name).collect();
    text += &format!("\nSupported formats: {} file host_device\n", formats.join(" "));
    text
}

fn command_help(command: &Subcommand) -> String {
    format!(
        "{}.  Usage:\n\n  qemu-img {} {}\n\nArguments:\n{}",
        command.about,
        command.name,
        command.synopsis,
        option_help(command.options)
    )
}
