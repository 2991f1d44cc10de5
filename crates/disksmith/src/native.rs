//! The native face: `disksmith VERB …`.

use clap::Command;
use clap::error::ErrorKind;
use disksmith_disk::names;

use crate::commands::{Entry, VERBS};
use crate::face::{DONE, Face, Failure};

/// The status for a command line that makes no sense.
const USAGE: u8 = 2;

/// The whole command line as data.
pub(crate) fn command() -> Command {
    command_of(VERBS)
}

/// The command line of these verbs. To describe all of them takes longer than most of them run.
fn command_of(verbs: &[Entry]) -> Command {
    Command::new("disksmith")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Inspect, make, convert, partition, format, fill, mount and repair virtual disks")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .disable_help_subcommand(true)
        .after_help(
            "Sizes: k M G T P E are powers of 1024, kB MB GB … powers of 1000.\n\
             Called as qemu-img, or as 'disksmith qemu-img …', it speaks exactly as that program.\n\
             Start with 'disksmith tour'.",
        )
        .subcommands(verbs.iter().map(|verb| (verb.command)()))
}

/// The verbs that take names which are no UTF-8; those of the files of an image above all. The
/// others would give the text that carries them (see `disksmith_disk::names`) to somebody who takes
/// it for a name.
const ANY_NAMES: &[&str] = &[
    "cat", "check", "chmod", "chown", "compare", "cp", "df", "du", "find", "info", "ln", "ls",
    "map", "mkdir", "mv", "rm", "stat",
];

/// Why a verb refuses its arguments, if one of them is no UTF-8.
pub(crate) fn not_utf8(arguments: &[String]) -> Option<String> {
    let (verb, rest) = arguments.split_first()?;
    let odd = rest.iter().find(|word| names::carries_bytes(word))?;
    let taken = ANY_NAMES.contains(&verb.as_str());
    (!taken).then(|| format!("'{odd}' is not UTF-8, and {verb} takes no such names"))
}

/// Parses and runs. Answers the exit status.
pub(crate) fn run(face: &Face, arguments: &[String]) -> u8 {
    if let Some(text) = not_utf8(arguments) {
        face.complain(&text);
        return USAGE;
    }
    let arguments = tests_of_find(progress_joined(arguments));
    let named = VERBS.iter().position(|verb| arguments.first().is_some_and(|a| a == verb.name));
    let verbs = named.map_or(VERBS, |index| &VERBS[index..=index]);
    let words = std::iter::once("disksmith".to_string()).chain(arguments);
    let matches = match command_of(verbs).try_get_matches_from(words) {
        Ok(matches) => matches,
        Err(error) => return refused(face, &error),
    };
    let Some((name, matches)) = matches.subcommand() else { return USAGE };
    let Some(verb) = VERBS.iter().find(|verb| verb.name == name) else { return USAGE };
    match (verb.run)(matches, face) {
        Ok(status) => status,
        Err(Failure::Status(status)) => status,
        Err(Failure::Usage(text)) => {
            face.complain(&text);
            face.note(&format!("Try 'disksmith {name} --help'.\n"));
            USAGE
        }
        Err(Failure::Error(error)) => {
            face.report(&error);
            crate::face::FAILED
        }
    }
}

/// `--progress json` is `--progress=json`: the form may be left out, so that clap only takes it
/// joined.
fn progress_joined(arguments: &[String]) -> Vec<String> {
    let mut joined: Vec<String> = Vec::with_capacity(arguments.len());
    for word in arguments {
        match joined.last_mut() {
            Some(last) if last == "--progress" && word == "json" => *last += "=json",
            _ => joined.push(word.clone()),
        }
    }
    joined
}

/// find(1) has long names behind one dash; `find -name` is taken as `find --name`.
fn tests_of_find(mut arguments: Vec<String>) -> Vec<String> {
    const NAMES: &[(&str, &str)] = &[
        ("-name", "--name"),
        ("-path", "--path"),
        ("-type", "--type"),
        ("-size", "--size"),
        ("-perm", "--perm"),
        ("-uid", "--uid"),
        ("-gid", "--gid"),
        ("-iname", "--iname"),
        ("-empty", "--empty"),
        ("-maxdepth", "--max-depth"),
        ("-mindepth", "--min-depth"),
        ("-print", "--print"),
        ("-print0", "--print0"),
    ];
    if arguments.first().is_some_and(|verb| verb == "find") {
        for word in &mut arguments {
            if let Some((_, long)) = NAMES.iter().find(|(short, _)| short == word) {
                *word = (*long).to_string();
            }
        }
    }
    arguments
}

/// Help and version are no errors; everything else is one line and a hint.
fn refused(face: &Face, error: &clap::Error) -> u8 {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            face.print(&error.render().to_string());
            DONE
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            face.note(&error.render().to_string());
            USAGE
        }
        _ => {
            face.note(&one_line(face, &error.render().to_string()));
            USAGE
        }
    }
}

/// clap's message in our manner: the error on one line, its tips below, how to get help.
fn one_line(face: &Face, message: &str) -> String {
    let mut text = String::new();
    let mut joined: Vec<&str> = Vec::new();
    let mut help = "Try 'disksmith --help'.".to_string();
    for line in message.lines().map(str::trim).filter(|line| !line.is_empty()) {
        if let Some(usage) = line.strip_prefix("Usage: ") {
            let verb = usage.split(' ').nth(1).filter(|word| word.starts_with(char::is_alphabetic));
            if let Some(verb) = verb {
                help = format!("Try 'disksmith {verb} --help'.");
            }
        } else if let Some(tip) = line.strip_prefix("tip: ") {
            text += &format!("Hint: {tip}\n");
        } else if !line.starts_with("For more information") {
            joined.push(line.strip_prefix("error: ").unwrap_or(line));
        }
    }
    format!("{}: {}\n{text}{help}\n", face.program, joined.join(" "))
}
