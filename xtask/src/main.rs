//! Project chores: `cargo xtask CHORE`.

mod bench;
mod boot;
mod corpus;
mod coverage;
mod faults;
mod journey;
mod locks;
mod long;
mod mutants;
mod oracles;
mod test;
mod tidy;

use std::process::ExitCode;

/// What a chore answers: nothing, or one line that says why it failed.
type Outcome = Result<(), String>;

/// A chore: its name, what it does, and the function that does it.
type Chore = (&'static str, &'static str, fn(&[String]) -> Outcome);

const CHORES: &[Chore] = &[
    ("test", "install the tools that tests compare with, then run all tests", test::run),
    ("tidy", "check the crate table, module arrows and lints; report file sizes", tidy::run),
    ("oracles", "install (root) or name the tools that tests compare with", oracles::run),
    ("bench", "measure every verb beside qemu-img: cargo xtask bench --help", bench::run),
    ("bare-copy", "copy a file with two threads: the bench's mark", bench::bare_copy),
    ("boot", "boot disks made by build in QEMU: cargo xtask boot [RECIPE…]", boot::run),
    ("journey", "send a disk of 3 GB through all forms: cargo xtask journey --help", journey::run),
    ("long", "run every test with its full matrix (hours)", long::all),
    ("faults", "fail every n-th system call, kill, fill disks: cargo xtask faults", faults::run),
    ("coverage", "lines that tests reach: cargo xtask coverage [crash]", coverage::run),
    ("locks", "who may use an image beside whom: cargo xtask locks [quick]", locks::run),
    (
        "mutants",
        "the program on mutated images, under limits: cargo xtask mutants [N]",
        mutants::run,
    ),
    ("corpus", "check and repair e2fsprogs' damaged filesystems, fetched as source", corpus::run),
    ("crash", "simulate power cuts in full: cargo xtask crash [STATES]", long::crash),
    ("crash-ext", "the same for ext alone: cargo xtask crash-ext [STATES]", long::crash_ext),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let name = arguments.first().map_or("", String::as_str);
    let Some((_, _, run)) = CHORES.iter().find(|(chore, ..)| *chore == name) else {
        eprintln!("usage: cargo xtask CHORE");
        for (chore, what, _) in CHORES {
            eprintln!("  {chore:10} {what}");
        }
        return ExitCode::from(2);
    };
    match run(&arguments[1..]) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("xtask {name}: {why}");
            ExitCode::FAILURE
        }
    }
}

/// The workspace's root folder.
fn root() -> std::path::PathBuf {
    let here = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

/// Runs a command and fails unless it succeeds.
fn succeed(command: &mut std::process::Command) -> Outcome {
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{command:?} ended with {status}")),
        Err(error) => Err(format!("could not start {command:?}: {error}")),
    }
}

/// Where tools are looked for: administrators' folders too.
fn search_path() -> String {
    format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default())
}
