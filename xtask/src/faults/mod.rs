//! What happens when the system fails: every n-th system call of a matrix of command lines ends
//! in an error, processes are killed at random times, disks run full.
//!
//! A run must end in time, without a panic; status 0 only when the result is right; sources
//! stay as they were; what stood under the target's name before stands there still, or the whole
//! new file does (in-place commands: the image checks without corruption); and the same command
//! succeeds once the fault is gone.

mod cases;
mod kill;
mod space;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::{Outcome, root, succeed};
use cases::{CASES, Case};

/// System calls that are made to fail, and how.
const CALLS: &[(&str, &[&str])] = &[
    ("openat", &["EMFILE", "EACCES"]),
    ("pread64,preadv,read", &["EIO", "EINTR"]),
    ("pwrite64,pwritev,write", &["EIO", "ENOSPC", "EDQUOT", "EINTR"]),
    ("fsync,fdatasync", &["EIO", "ENOSPC"]),
    ("ftruncate", &["EFBIG", "EIO"]),
    ("fallocate", &["ENOSPC", "EOPNOTSUPP", "EIO"]),
    ("rename,renameat,renameat2", &["EIO", "EACCES"]),
    ("lseek", &["EINVAL"]),
    ("fcntl", &["EAGAIN"]),
];
/// A run that takes longer hangs.
const MAX_TIME: Duration = Duration::from_secs(10);
/// The n-th call for n up to this; a command with more is sampled beyond.
const MAX_INDEX: u32 = 400;

/// What the runs amounted to.
#[derive(Default)]
struct Sum {
    runs: u64,
    struck: u64,
    faults: Vec<String>,
}

/// `cargo xtask faults [calls|kill|space] [CASE]`: all three kinds by default.
pub(crate) fn run(arguments: &[String]) -> Outcome {
    let program = build()?;
    let kind = arguments.first().map_or("all", String::as_str);
    let only = arguments.get(1).map(String::as_str);
    let cases: Vec<&Case> =
        CASES.iter().filter(|case| only.is_none_or(|name| name == case.name)).collect();
    let start = Instant::now();
    let mut sum = Sum::default();
    for case in cases {
        let before = (sum.runs, sum.struck);
        if matches!(kind, "all" | "calls") {
            fail_calls(&program, case, &mut sum)?;
        }
        if matches!(kind, "all" | "kill") {
            kill::at_random_times(&program, case, &mut sum)?;
        }
        if matches!(kind, "all" | "space") {
            space::step_by_step(&program, case, &mut sum)?;
        }
        let (runs, struck) = (sum.runs - before.0, sum.struck - before.1);
        println!("{:24} {runs:6} runs, {struck:6} faults met", case.name);
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

fn build() -> Result<PathBuf, String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--release", "-p", "disksmith"]).current_dir(root());
    succeed(&mut command)?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or(root().join("target"), PathBuf::from);
    Ok(target.join("release/disksmith"))
}

fn fail_calls(program: &Path, case: &Case, sum: &mut Sum) -> Outcome {
    for (calls, errors) in CALLS {
        for error in *errors {
            for n in 1..=MAX_INDEX {
                let bench = Bench::new(program, case)?;
                let log = bench.folder.path().join(".trace");
                let what = format!("{calls}:error={error}:when={n}");
                let output = bench.run(Some((&what, &log)))?;
                sum.runs += 1;
                let struck = fs::read_to_string(&log).unwrap_or_default().contains("(INJECTED)");
                if !struck {
                    break;
                }
                sum.struck += 1;
                if let Err(why) = bench.judge(&output) {
                    sum.faults.push(format!("{}: {what}: {why}", case.name));
                }
                if sum.faults.len() > 40 {
                    return Ok(());
                }
            }
        }
    }
    Ok(())
}

/// A scratch folder in which a case was set up.
struct Bench<'a> {
    case: &'a Case,
    folder: tempfile::TempDir,
    before: Vec<Option<Vec<u8>>>,
}

impl<'a> Bench<'a> {
    fn new(program: &Path, case: &'a Case) -> Result<Self, String> {
        let base = Path::new("/dev/shm");
        let folder = match base.is_dir() {
            true => tempfile::tempdir_in(base),
            false => tempfile::tempdir(),
        }
        .map_err(|e| e.to_string())?;
        let bench = Self { case, folder, before: Vec::new() };
        std::os::unix::fs::symlink(program, bench.path("disksmith")).map_err(|e| e.to_string())?;
        let output = bench.shell(case.setup)?;
        if !output.status.success() {
            return Err(format!("{}: setup: {}", case.name, text(&output)));
        }
        let before = case.untouched.iter().map(|name| fs::read(bench.path(name)).ok()).collect();
        Ok(Self { before, ..bench })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn shell(&self, script: &str) -> Result<Output, String> {
        Command::new("bash")
            .args(["-ec", script])
            .current_dir(self.folder.path())
            .env("PATH", format!("{}:{}", self.folder.path().display(), crate::search_path()))
            .stdin(Stdio::null())
            .output()
            .map_err(|e| e.to_string())
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
    fn judge(&self, output: &Output) -> Outcome {
        let said = text(output);
        if said.contains("panicked") || output.status.code() == Some(101) {
            return Err(format!("panic: {said}"));
        }
        if output.status.code() == Some(137) {
            return Err("hangs".into());
        }
        self.judge_files(output.status.success())?;
        if !output.status.success() && !self.case.refuses && said.trim().is_empty() {
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
        self.verify(if success { self.case.right } else { self.case.whole }, success)?;
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
        let output = self.shell(script)?;
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
