//! Mutated images, shown to the real program under limits of time and memory, with qemu-img
//! beside it as baseline.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Instant;

use crate::{Outcome, faults, root, search_path, succeed};

/// What is run on `m`, a mutant; `c` is a fresh copy of it. Each with its memory limit in MiB.
const COMMANDS: &[(&str, u32)] = &[
    ("info -f qcow2 m", 64),
    ("check -f qcow2 m", 256),
    ("check -f qcow2 -r all c", 256),
    ("map -f qcow2 m", 256),
    ("compare -f qcow2 -F qcow2 m m", 256),
    ("convert -f qcow2 -O qcow2 m out", 256),
    ("dd -f qcow2 -O raw bs=4k skip=1 count=1 if=m of=part", 256),
    ("dd -f qcow2 -O raw bs=64k skip=2 count=3 if=m of=part", 256),
    ("snapshot -l m", 64),
    ("snapshot -c new c", 256),
    ("resize -f qcow2 c +64k", 256),
    ("bitmap -f qcow2 --add c new", 256),
];
/// Seconds of processor time and of waiting.
const MAX_CPU: u32 = 10;
const MAX_WAIT: u32 = 30;
/// Mutants made at a time.
const BATCH: u64 = 200;

/// What one program did.
#[derive(Default)]
struct Sum {
    runs: u64,
    crashes: u64,
    timeouts: u64,
    slowest: f64,
}

/// `cargo xtask mutants [N] [FIRST]`.
pub(crate) fn run(arguments: &[String]) -> Outcome {
    let number = |at: usize, default| {
        arguments.get(at).map_or(Ok(default), |text| text.parse().map_err(|_| "a number"))
    };
    let (count, first): (u64, u64) = (number(0, 1000)?, number(1, 1)?);
    let program = faults::build(true)?;
    let folder = tempfile::tempdir_in("/dev/shm").map_err(|e| e.to_string())?;
    let tools = folder.path().join("tools");
    std::fs::create_dir(&tools).map_err(|e| e.to_string())?;
    std::os::unix::fs::symlink(&program, tools.join("qemu-img")).map_err(|e| e.to_string())?;
    let (mut ours, mut theirs, mut faults) = (Sum::default(), Sum::default(), Vec::new());
    let mut repaired = 0;
    for start in (first..first + count).step_by(BATCH as usize) {
        let many = BATCH.min(first + count - start);
        let batch = tempfile::tempdir_in(folder.path()).map_err(|e| e.to_string())?;
        make(batch.path(), start, many)?;
        for number in start..start + many {
            let mutant = batch.path().join(number.to_string());
            let bench = Bench { folder: batch.path().join("run"), mutant };
            repaired += bench.ours(&tools, number, &mut ours, &mut faults)?;
            bench.theirs(&mut theirs)?;
        }
        println!("{} mutants, {} faults so far", start + many - first, faults.len());
        if faults.len() > 20 {
            break;
        }
    }
    for (name, sum) in [("disksmith", &ours), ("qemu-img", &theirs)] {
        println!(
            "{name:10} {} runs: {} ended by a signal, {} timeouts, slowest {:.1} s",
            sum.runs, sum.crashes, sum.timeouts, sum.slowest
        );
    }
    println!("{count} mutants; {repaired} called repaired, all of them clean for qemu-img");
    match faults.is_empty() {
        true => Ok(()),
        false => Err(format!("\n{}", faults.join("\n"))),
    }
}

fn make(folder: &Path, first: u64, count: u64) -> Outcome {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    succeed(
        Command::new(cargo)
            .args(["run", "-q", "--release", "-p", "disksmith-fuzz-harness"])
            .args(["--example", "mutants", "--", "qcow2_repair"])
            .arg(folder)
            .args([first.to_string(), count.to_string()])
            .current_dir(root()),
    )
}

struct Bench {
    folder: PathBuf,
    mutant: PathBuf,
}

impl Bench {
    /// All commands of our program. Answers 1 if it called the image repaired.
    fn ours(
        &self,
        tools: &Path,
        number: u64,
        sum: &mut Sum,
        faults: &mut Vec<String>,
    ) -> Result<u64, String> {
        let path = format!("{}:{}", tools.display(), search_path());
        let before = std::fs::read(&self.mutant).map_err(|e| e.to_string())?;
        let mut repaired = 0;
        for (command, memory) in COMMANDS {
            let output = self.attempt(command, *memory, &path, sum)?;
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            let mut fault = |why: &str| {
                let said: String = said.chars().take(300).collect();
                faults.push(format!("mutant {number}: {command}: {why}: {said}"));
            };
            match output.status.code() {
                Some(124 | 137) => fault("takes too long"),
                None | Some(101 | 128..) => fault("crashes"),
                _ => {}
            }
            if command.contains("-r all") && output.status.success() {
                repaired = 1;
                let verdict = self.shell("qemu-img check -q -f qcow2 c", &search_path())?;
                if !matches!(verdict.status.code(), Some(0 | 3)) {
                    fault("called repaired, and qemu-img check differs");
                }
            }
        }
        if std::fs::read(&self.mutant).map_err(|e| e.to_string())? != before {
            faults.push(format!("mutant {number}: was changed by a command that reads"));
        }
        Ok(repaired)
    }

    fn theirs(&self, sum: &mut Sum) -> Outcome {
        for (command, _) in COMMANDS {
            // Memory without a limit: what it takes is its own affair.
            self.attempt(command, 4096, &search_path(), sum)?;
        }
        Ok(())
    }

    fn attempt(
        &self,
        command: &str,
        memory: u32,
        path: &str,
        sum: &mut Sum,
    ) -> Result<Output, String> {
        let _ = std::fs::remove_dir_all(&self.folder);
        std::fs::create_dir(&self.folder).map_err(|e| e.to_string())?;
        let mutant = self.mutant.display();
        let data = u64::from(memory) << 20;
        let script = format!(
            "trap '' XFSZ; ln -s {mutant} m; cp {mutant} c; exec timeout -s KILL {MAX_WAIT} \
             prlimit --data={data} --cpu={MAX_CPU} --core=0 --fsize=1073741824 qemu-img {command}"
        );
        let start = Instant::now();
        let output = self.shell(&script, path)?;
        sum.runs += 1;
        sum.slowest = sum.slowest.max(start.elapsed().as_secs_f64());
        match output.status.code() {
            Some(124 | 137) => sum.timeouts += 1,
            None | Some(101 | 128..) => sum.crashes += 1,
            _ => {}
        }
        Ok(output)
    }

    fn shell(&self, script: &str, path: &str) -> Result<Output, String> {
        Command::new("bash")
            .args(["-c", script])
            .current_dir(&self.folder)
            .env("PATH", path)
            .stdin(Stdio::null())
            .output()
            .map_err(|e| e.to_string())
    }
}
