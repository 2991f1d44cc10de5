//! What of the parsers and writers the tests run through, line by line.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{Outcome, root, succeed};

/// What reads or writes structures that others may have damaged.
const MODULES: &[&str] = &[
    "crates/formats/src/qcow2",
    "crates/formats/src/luks",
    "crates/formats/src/raw",
    "crates/crypt/src/luks",
    "crates/crypt/src/luks2",
    "crates/codec/src",
    "crates/partitions/src/mbr",
    "crates/partitions/src/gpt",
    "crates/partitions/src/script",
    "crates/partitions/src/probe",
    "crates/partitions/src/edit",
    "crates/partitions/src/plan",
    "crates/filesystems/src/ext",
    "crates/filesystems/src/fat",
    "crates/filesystems/src/source",
    "crates/open/src",
];
const PACKAGES: &[&str] = &[
    "disksmith-formats",
    "disksmith-partitions",
    "disksmith-filesystems",
    "disksmith-crypt",
    "disksmith-codec",
    "disksmith-open",
    "disksmith-operations",
    "disksmith-fuzz-harness",
];
const WRITING: &[&str] =
    &["disksmith-formats", "disksmith-operations", "disksmith-partitions", "disksmith-filesystems"];
/// The crash simulators, and the modules whose every writing line they should reach.
const CRASH: &[&str] = &["crash*", "ext_crash"];
const WRITERS: &[&str] =
    &["crates/formats/src/qcow2", "crates/partitions/src/plan", "crates/filesystems/src/ext"];
const WRITES: &[&str] = &[".write_at(", ".write_zeroes(", ".set_size(", ".discard("];

/// `cargo xtask coverage [ARGUMENTS FOR CARGO TEST]`: lines of the parsers that tests reach, all
/// of them or those chosen; `cargo xtask coverage crash`: lines that write, and whether a
/// simulated power cut was near them.
pub(crate) fn run(arguments: &[String]) -> Outcome {
    let crash = arguments.first().is_some_and(|a| a == "crash");
    let chosen = match (crash, arguments) {
        (true, _) => {
            let tests = CRASH.iter().flat_map(|test| ["--test", test]);
            WRITING
                .iter()
                .flat_map(|package| ["-p", package])
                .chain(tests)
                .map(String::from)
                .collect()
        }
        (false, []) => {
            PACKAGES.iter().flat_map(|package| ["-p", package]).map(String::from).collect()
        }
        (false, chosen) => chosen.to_vec(),
    };
    let tools = Tools::find()?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or(root().join("target"), PathBuf::from);
    let folder = target.join("coverage");
    let profiles = folder.join("profiles");
    let _ = std::fs::remove_dir_all(&profiles);
    let executables = tests(&folder, &profiles, &chosen)?;
    let lines = tools.lines(&folder, &profiles, &executables)?;
    match crash {
        true => write_sites(&lines),
        false => modules(&lines),
    }
    Ok(())
}

/// LLVM's tools of the version that rustc's profiles are of.
struct Tools {
    profdata: PathBuf,
    cov: PathBuf,
}

impl Tools {
    /// Rustup's component, or Debian's package.
    fn find() -> Result<Self, String> {
        let about = printed("-vV")?;
        let line = |name: &str| about.lines().find_map(|line| line.strip_prefix(name));
        let major = line("LLVM version: ").and_then(|v| v.split('.').next()).unwrap_or_default();
        let component = Path::new(printed("--print=sysroot")?.trim())
            .join("lib/rustlib")
            .join(line("host: ").unwrap_or_default())
            .join("bin");
        let package = PathBuf::from(format!("/usr/lib/llvm-{major}/bin"));
        [component, package]
            .iter()
            .map(|folder| Self {
                profdata: folder.join("llvm-profdata"),
                cov: folder.join("llvm-cov"),
            })
            .find(|tools| tools.profdata.exists() && tools.cov.exists())
            .ok_or(format!(
                "needs rustup's component llvm-tools or the Debian package llvm-{major}"
            ))
    }

    /// Per file and line, how often it ran.
    fn lines(
        &self,
        folder: &Path,
        profiles: &Path,
        executables: &[PathBuf],
    ) -> Result<Lines, String> {
        let merged = folder.join("merged.profdata");
        succeed(
            Command::new(&self.profdata)
                .args(["merge", "-sparse", "-o"])
                .arg(&merged)
                .arg(profiles),
        )?;
        let mut command = Command::new(&self.cov);
        command.args(["export", "-format=lcov", "-instr-profile"]).arg(&merged);
        command.args(["-ignore-filename-regex", "/registry/|/rustc/|/tests/"]);
        for (number, executable) in executables.iter().enumerate() {
            if number > 0 {
                command.arg("-object");
            }
            command.arg(executable);
        }
        let output = command.output().map_err(|e| e.to_string())?;
        match output.status.success() {
            true => Ok(parse(&String::from_utf8_lossy(&output.stdout))),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    }
}

/// What rustc says when asked.
fn printed(question: &str) -> Result<String, String> {
    let output = Command::new("rustc").arg(question).output().map_err(|e| e.to_string())?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// By file, relative to the root: line numbers and counts.
type Lines = BTreeMap<String, BTreeMap<usize, u64>>;

fn parse(lcov: &str) -> Lines {
    let base = format!("{}/", root().display());
    let mut lines = Lines::new();
    let mut file = String::new();
    for line in lcov.lines() {
        if let Some(path) = line.strip_prefix("SF:") {
            file = path.strip_prefix(&base).unwrap_or(path).to_string();
        } else if let Some((number, count)) =
            line.strip_prefix("DA:").and_then(|rest| rest.split_once(','))
            && let (Ok(number), Ok(count)) = (number.parse(), count.parse::<u64>())
        {
            *lines.entry(file.clone()).or_default().entry(number).or_default() += count;
        }
    }
    lines
}

/// Runs the tests, instrumented; answers their executables.
fn tests(folder: &Path, profiles: &Path, chosen: &[String]) -> Result<Vec<PathBuf>, String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let base = |command: &mut Command| {
        command
            .args(chosen)
            .env("RUSTFLAGS", "-C instrument-coverage")
            .env("CARGO_TARGET_DIR", folder)
            .current_dir(root());
    };
    let mut build = Command::new(&cargo);
    build.args(["test", "--no-run"]);
    base(&mut build);
    let output = build.output().map_err(|e| e.to_string())?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    if !output.status.success() {
        return Err(text);
    }
    let path = |line: &str| {
        let inside = line.split_once('(')?.1.split_once(')')?.0;
        line.trim_start().starts_with("Executable").then(|| root().join(inside))
    };
    let executables = text.lines().filter_map(path).collect();
    let mut run = Command::new(&cargo);
    run.args(["test", "-q", "--no-fail-fast"]);
    base(&mut run);
    run.env("LLVM_PROFILE_FILE", profiles.join("%p-%m.profraw"));
    succeed(&mut run)?;
    Ok(executables)
}

fn modules(lines: &Lines) {
    println!("| module | lines | reached |\n|---|---|---|");
    let (mut sum, mut all) = (0, 0);
    for module in MODULES {
        let (mut reached, mut count) = (0, 0);
        for (_, counts) in lines.iter().filter(|(file, _)| file.starts_with(module)) {
            count += counts.len();
            reached += counts.values().filter(|count| **count > 0).count();
        }
        if count > 0 {
            println!("| {module} | {count} | {:.1} % |", percent(reached, count));
        }
        (sum, all) = (sum + reached, all + count);
    }
    println!("| together | {all} | {:.1} % |", percent(sum, all));
}

fn percent(part: usize, whole: usize) -> f64 {
    100.0 * part as f64 / whole.max(1) as f64
}

fn write_sites(lines: &Lines) {
    let (mut reached, mut all, mut missed) = (0, 0, Vec::new());
    for (file, counts) in lines.iter().filter(|(f, _)| WRITERS.iter().any(|w| f.starts_with(w))) {
        let Ok(text) = std::fs::read_to_string(root().join(file)) else { continue };
        for (number, line) in (1..).zip(text.lines()) {
            // Unit tests come last in a file.
            if line.starts_with("#[cfg(test)]") {
                break;
            }
            let Some(count) = counts.get(&number) else { continue };
            if !WRITES.iter().any(|call| line.contains(call)) {
                continue;
            }
            all += 1;
            match count {
                0 => missed.push(format!("{file}:{number}: {}", line.trim())),
                _ => reached += 1,
            }
        }
    }
    println!("{reached} of {all} lines that write were reached; not reached:");
    for line in missed {
        println!("  {line}");
    }
}
