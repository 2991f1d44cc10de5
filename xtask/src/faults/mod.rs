//! What happens when the system fails: every n-th system call of a matrix of command lines ends
//! in an error, processes are killed at random times, disks run full.
//!
//! A run must end in time, without a panic; status 0 only when the result is right; sources
//! stay as they were; what stood under the target's name before stands there still, or the whole
//! new file does (in-place commands: the image checks without corruption); and the same command
//! succeeds once the fault is gone.

mod cases;
mod kill;
mod memory;
mod short;
mod space;
mod vanish;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::{Outcome, root, succeed};
use cases::{CASES, Case};

/// System calls that are made to fail, and how. One at a time: strace counts each by itself.
const CALLS: &[(&str, &[&str])] = &[
    ("openat", &["EMFILE", "EACCES"]),
    ("pread64", &["EIO", "EINTR"]),
    ("preadv", &["EIO", "EINTR"]),
    ("read", &["EIO", "EINTR"]),
    ("pwrite64", &["EIO", "ENOSPC", "EDQUOT", "EINTR"]),
    ("pwritev", &["EIO", "ENOSPC", "EDQUOT", "EINTR"]),
    ("write", &["EIO", "ENOSPC", "EINTR"]),
    ("fsync", &["EIO", "ENOSPC"]),
    ("fdatasync", &["EIO", "ENOSPC"]),
    ("ftruncate", &["EFBIG", "EIO"]),
    ("fallocate", &["ENOSPC", "EOPNOTSUPP", "EIO"]),
    ("copy_file_range", &["EIO", "ENOSPC", "EXDEV"]),
    ("rename", &["EIO", "EACCES"]),
    ("renameat2", &["EIO", "EACCES"]),
    ("lseek", &["EINVAL"]),
    ("fcntl", &["EAGAIN"]),
];
/// A run that takes longer hangs.
const MAX_TIME: Duration = Duration::from_secs(10);
/// Faults shown of one case and kind.
const MAX_SHOWN: usize = 6;
/// The cases of the quick run.
const QUICK: &[&str] =
    &["create-qcow2", "convert-raw-qcow2", "convert-chain", "snapshot-create", "commit", "check"];
/// The n-th call for n up to this; a command with more is sampled beyond.
const MAX_INDEX: u32 = 400;

/// What the runs amounted to.
#[derive(Default)]
struct Sum {
    runs: u64,
    struck: u64,
    faults: Vec<String>,
}

/// The errors of [`CALLS`] that are tried: all, or one each.
static ERRORS: AtomicUsize = AtomicUsize::new(usize::MAX);

/// A kind of fault, and how a case meets it.
type Kind = (&'static str, fn(&Path, &Case, &mut Sum) -> Outcome);

const KINDS: &[Kind] = &[
    ("calls", fail_calls),
    ("short", short::every_nth),
    ("kill", kill::at_random_times),
    ("space", space::step_by_step),
];

/// `cargo xtask faults [calls|short|kill|space|vanish|memory|quick] [CASE]`: all kinds by default;
/// `quick` is failing calls, one error each, for six command lines.
pub(crate) fn run(arguments: &[String]) -> Outcome {
    let kind = arguments.first().map_or("all", String::as_str);
    let program = build(kind != "quick")?;
    let only = arguments.get(1).map(String::as_str);
    let start = Instant::now();
    let mut sum = Sum::default();
    if matches!(kind, "all" | "vanish") {
        vanish::inputs(&program, &mut sum)?;
    }
    if matches!(kind, "all" | "memory") {
        memory::runs_out(&program, &mut sum)?;
    }
    if kind == "quick" {
        ERRORS.store(1, Ordering::Relaxed);
    }
    for (name, meet) in KINDS {
        let quick = kind == "quick" && *name == "calls";
        if !quick && kind != "all" && kind != *name {
            continue;
        }
        let (runs, struck) = (sum.runs, sum.struck);
        for case in CASES.iter().filter(|case| only.is_none_or(|name| name == case.name)) {
            if quick && !QUICK.contains(&case.name) {
                continue;
            }
            let before = (sum.runs, sum.struck);
            meet(&program, case, &mut sum)?;
            let (runs, struck) = (sum.runs - before.0, sum.struck - before.1);
            println!("{name:6} {:24} {runs:6} runs, {struck:6} faults met", case.name);
        }
        println!("{name}: {} runs, {} faults met", sum.runs - runs, sum.struck - struck);
    }
    println!(
        "{} runs, {} faults met, {} failures, {:.0} s",
        sum.runs,
        sum.struck,
        sum.faults.len(),
        start.elapsed().as_secs_f64()
    );
    match sum.faults.is_empty() {
        true => Ok(()),
        false => Err(format!("\n{}", sum.faults.join("\n"))),
    }
}

/// Builds the program; answers where it is. `DISKSMITH_PROGRAM` names a built one. For the small
/// sets it is the one of the tests, otherwise one as it is released.
pub(crate) fn build(release: bool) -> Result<PathBuf, String> {
    if let Some(program) = std::env::var_os("DISKSMITH_PROGRAM") {
        return Ok(program.into());
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "-p", "disksmith"]).current_dir(root());
    if release {
        command.arg("--release");
    }
    succeed(&mut command)?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or(root().join("target"), PathBuf::from);
    Ok(target.join(if release { "release/disksmith" } else { "debug/disksmith" }))
}

fn fail_calls(program: &Path, case: &Case, sum: &mut Sum) -> Outcome {
    let template = Template::new(program, case)?;
    let before = sum.faults.len();
    for (call, errors) in CALLS {
        for error in errors.iter().take(ERRORS.load(Ordering::Relaxed)) {
            for n in 1..=MAX_INDEX {
                let bench = template.bench()?;
                let log = bench.folder.path().join(".trace");
                let what = format!("{call}:error={error}:when={n}");
                let output = bench.run(Some((&what, &log)))?;
                sum.runs += 1;
                let trace = fs::read_to_string(&log).unwrap_or_default();
                let Some(struck) = trace.lines().find(|line| line.contains("(INJECTED)")) else {
                    break;
                };
                sum.struck += 1;
                // What could not be told cannot be told.
                let mute = *call == "write";
                if let Err(why) = bench.judge(&output, mute) {
                    sum.faults.push(format!("{}: {what}: {why}\n    {struck}", case.name));
                }
                if sum.faults.len() > before + MAX_SHOWN {
                    return Ok(());
                }
            }
        }
    }
    Ok(())
}

/// A case set up once, to be copied for every run.
struct Template<'a> {
    case: &'a Case,
    folder: tempfile::TempDir,
}

impl<'a> Template<'a> {
    fn new(program: &Path, case: &'a Case) -> Result<Self, String> {
        let folder = scratch()?;
        std::os::unix::fs::symlink(program, folder.path().join("disksmith"))
            .map_err(|e| e.to_string())?;
        let output = shell(folder.path(), case.setup)?;
        match output.status.success() {
            true => Ok(Self { case, folder }),
            false => Err(format!("{}: setup: {}", case.name, text(&output))),
        }
    }

    fn bench(&self) -> Result<Bench<'a>, String> {
        self.bench_in(scratch()?)
    }

    fn bench_in(&self, folder: tempfile::TempDir) -> Result<Bench<'a>, String> {
        let from = self.folder.path().join(".");
        succeed(Command::new("cp").arg("-a").args([&from, folder.path()]))?;
        let untouched = self.case.untouched.iter();
        let before = untouched.map(|name| fs::read(folder.path().join(name)).ok()).collect();
        Ok(Bench { case: self.case, folder, before })
    }
}

fn scratch() -> Result<tempfile::TempDir, String> {
    let base = Path::new("/dev/shm");
    let made = if base.is_dir() { tempfile::tempdir_in(base) } else { tempfile::tempdir() };
    made.map_err(|e| e.to_string())
}

fn shell(folder: &Path, script: &str) -> Result<Output, String> {
    Command::new("bash")
        .args(["-ec", script])
        .current_dir(folder)
        .env("PATH", format!("{}:{}", folder.display(), crate::search_path()))
        .stdin(Stdio::null())
        .output()
        .map_err(|e| e.to_string())
}

/// A scratch folder in which a case was set up.
struct Bench<'a> {
    case: &'a Case,
    folder: tempfile::TempDir,
    before: Vec<Option<Vec<u8>>>,
}

impl Bench<'_> {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The command, under strace when something is to fail.
    fn run(&self, inject: Option<(&str, &Path)>) -> Result<Output, String> {
        let limit = MAX_TIME.as_secs().to_string();
        let mut words = vec!["timeout".to_string(), "-s".into(), "KILL".into(), limit];
        if let Some((what, log)) = inject {
            words.extend(["strace", "-f", "-qq", "-o"].map(String::from));
            words.extend([log.display().to_string(), "-e".into(), format!("inject={what}")]);
        }
        words.push("./disksmith".into());
        words.extend(self.case.command.split_whitespace().map(String::from));
        Command::new(&words[0])
            .args(&words[1..])
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .output()
            .map_err(|e| e.to_string())
    }

    /// Holds what a failed or finished run left against the rules.
    fn judge(&self, output: &Output, mute: bool) -> Outcome {
        let said = text(output);
        if said.contains("panicked") || output.status.code() == Some(101) {
            return Err(format!("panic: {said}"));
        }
        if output.status.code() == Some(137) {
            return Err("hangs".into());
        }
        self.judge_files(output.status.success())?;
        if !output.status.success() && !self.case.refuses && !mute && said.trim().is_empty() {
            return Err("failed without a word".into());
        }
        Ok(())
    }

    fn judge_files(&self, success: bool) -> Outcome {
        for (name, before) in self.case.untouched.iter().zip(&self.before) {
            if fs::read(self.path(name)).ok() != *before {
                return Err(format!("{name} was changed"));
            }
        }
        if let Some(name) = leftover(self.folder.path()) {
            return Err(format!("{name} was left behind"));
        }
        match (success, self.case.whole) {
            // What a failed command leaves under the target's name is whole.
            (false, "") if self.path("out").exists() => self.verify(self.case.right, false)?,
            (false, whole) => self.verify(whole, false)?,
            (true, _) => self.verify(self.case.right, true)?,
        }
        if success {
            return Ok(());
        }
        let again = self.run(None)?;
        if !again.status.success() && !self.case.once {
            return Err(format!("does not succeed afterwards: {}", text(&again)));
        }
        match self.case.once {
            true => Ok(()),
            false => self.verify(self.case.right, true),
        }
    }

    fn verify(&self, script: &str, success: bool) -> Outcome {
        let output = shell(self.folder.path(), script)?;
        match output.status.success() {
            true => Ok(()),
            false => {
                let when = if success { "after success" } else { "after the failure" };
                Err(format!("{when}, `{script}` fails: {}", text(&output)))
            }
        }
    }
}

/// Files under temporary names must be gone, unless the process was killed.
fn leftover(folder: &Path) -> Option<String> {
    let names = fs::read_dir(folder).ok()?.flatten().map(|e| e.file_name());
    names.map(|n| n.to_string_lossy().into_owned()).find(|n| n.ends_with(".partial"))
}

fn text(output: &Output) -> String {
    let both = [output.stdout.as_slice(), &output.stderr].concat();
    let text = String::from_utf8_lossy(&both).into_owned();
    text.chars().take(400).collect()
}
