//! Mutated images, shown to the real program under limits of time and memory, with qemu-img
//! beside it as baseline, and some of them under strace, which shows what is opened.

mod trace;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Instant;

use crate::{Outcome, faults, oracles, root, search_path, succeed};

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
/// Every so many mutants are traced.
const TRACED: u64 = 10;
/// Faults of any kind after which there is no use in going on.
const FAULTS_MOST: usize = 20;

/// What one program did.
#[derive(Default)]
struct Sum {
    runs: u64,
    crashes: u64,
    timeouts: u64,
    slowest: f64,
}

/// One run of a program.
struct Attempt {
    output: Output,
    seconds: f64,
}

impl Sum {
    fn note(&mut self, attempt: &Attempt) {
        self.runs += 1;
        self.slowest = self.slowest.max(attempt.seconds);
        match attempt.output.status.code() {
            Some(124 | 137) => self.timeouts += 1,
            None | Some(101 | 128..) => self.crashes += 1,
            _ => {}
        }
    }
}

/// `cargo xtask mutants [N] [FIRST]`.
pub(crate) fn run(arguments: &[String]) -> Outcome {
    let number = |at: usize, default| {
        arguments.get(at).map_or(Ok(default), |text| text.parse().map_err(|_| "a number"))
    };
    let (count, first): (u64, u64) = (number(0, 1000)?, number(1, 1)?);
    oracles::ensure(&[("qemu-img", "qemu-utils"), ("strace", "strace")])?;
    let program = faults::build(true)?;
    let folder = tempfile::tempdir_in("/dev/shm").map_err(|e| e.to_string())?;
    let tools = folder.path().join("tools");
    std::fs::create_dir(&tools).map_err(|e| e.to_string())?;
    std::os::unix::fs::symlink(&program, tools.join("qemu-img")).map_err(|e| e.to_string())?;
    let path = format!("{}:{}", tools.display(), search_path());
    let (mut ours, mut theirs, mut faults) = (Sum::default(), Sum::default(), Faults::default());
    let (mut repaired, mut traced, mut seen) = (0, 0, 0);
    'all: for start in (first..first + count).step_by(BATCH as usize) {
        let many = BATCH.min(first + count - start);
        let batch = tempfile::tempdir_in(folder.path()).map_err(|e| e.to_string())?;
        make(batch.path(), start, many)?;
        for number in start..start + many {
            let mutant = batch.path().join(number.to_string());
            let bench = Bench { folder: batch.path().join("run"), mutant, number, path: &path };
            repaired += bench.ours(&mut ours, &mut faults)?;
            bench.theirs(&mut theirs)?;
            if number % TRACED == 0 {
                traced += bench.traced(&mut faults)?;
            }
            seen += 1;
            if faults.count > FAULTS_MOST {
                break 'all;
            }
        }
        println!("{seen} mutants, {} faults so far", faults.count);
    }
    for (name, sum) in [("disksmith", &ours), ("qemu-img", &theirs)] {
        println!(
            "{name:10} {} runs: {} ended by a signal, {} timeouts, slowest {:.1} s",
            sum.runs, sum.crashes, sum.timeouts, sum.slowest
        );
    }
    println!("{traced} runs traced: what they opened was theirs, but for the faults");
    println!("{seen} mutants; {repaired} called repaired");
    match faults.count {
        0 => Ok(()),
        count => Err(format!("{count} faults, see above")),
    }
}

/// Each is told as it is met: a run of hours may be stopped before its end.
#[derive(Default)]
struct Faults {
    count: usize,
}

impl Faults {
    fn tell(&mut self, mutant: u64, command: &str, what: &str) {
        println!("mutant {mutant}: {command}: {what}");
        self.count += 1;
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

struct Bench<'a> {
    folder: PathBuf,
    mutant: PathBuf,
    number: u64,
    /// Where our program comes before QEMU's.
    path: &'a str,
}

impl Bench<'_> {
    /// All commands of our program. Answers 1 if it called the image repaired.
    fn ours(&self, sum: &mut Sum, faults: &mut Faults) -> Result<u64, String> {
        let before = std::fs::read(&self.mutant).map_err(|e| e.to_string())?;
        let mut repaired = 0;
        for (command, memory) in COMMANDS {
            let output = self.attempt(command, *memory, "", self.path)?;
            sum.note(&output);
            let said = String::from_utf8_lossy(&output.output.stderr).into_owned();
            let mut fault = |why: &str| {
                let said: String = said.chars().take(300).collect();
                faults.tell(self.number, command, &format!("{why}: {said}"));
            };
            match output.output.status.code() {
                Some(124 | 137) => fault("takes too long"),
                None | Some(101 | 128..) => fault("crashes"),
                _ => {}
            }
            if command.contains("-r all") && output.output.status.success() {
                repaired = 1;
                let verdict = self.shell("qemu-img check -q -f qcow2 c", &search_path())?;
                let theirs = String::from_utf8_lossy(&verdict.stderr);
                // Without the key qemu-img does not look at all.
                let judged = !theirs.contains("'encrypt.key-secret' is required");
                if judged && !matches!(verdict.status.code(), Some(0 | 3)) {
                    let theirs = theirs.lines().last().unwrap_or_default();
                    fault(&format!("called repaired, and qemu-img check says: {theirs}"));
                }
            }
        }
        if std::fs::read(&self.mutant).map_err(|e| e.to_string())? != before {
            faults.tell(self.number, "a command that reads", "changed the mutant");
        }
        Ok(repaired)
    }

    fn theirs(&self, sum: &mut Sum) -> Outcome {
        for (command, _) in COMMANDS {
            // Memory without a limit: what it takes is its own affair.
            sum.note(&self.attempt(command, 4096, "", &search_path())?);
        }
        Ok(())
    }

    /// All commands of our program again, looking at what they open. Answers how many.
    fn traced(&self, faults: &mut Faults) -> Result<u64, String> {
        let tracer = format!("strace -ff -y -qq -e trace={} -o ../trace", trace::CALLS);
        let kept = self.folder.parent().unwrap_or(&self.folder);
        for (command, memory) in COMMANDS {
            let output = self.attempt(command, *memory, &tracer, self.path)?;
            let words: Vec<_> = command.split([' ', '=']).collect();
            let written: Vec<_> =
                ["c", "out", "part"].into_iter().filter(|name| words.contains(name)).collect();
            let own = trace::Own { folder: &self.folder, mutant: &self.mutant, written: &written };
            let mut started = false;
            for path in traces(kept)? {
                let text = std::fs::read(&path).map_err(|e| e.to_string())?;
                let text = String::from_utf8_lossy(&text);
                started |= text.starts_with("execve(");
                for line in own.strange(&text) {
                    faults.tell(self.number, command, &format!("is not its own: {line}"));
                }
                std::fs::remove_file(&path).map_err(|e| e.to_string())?;
            }
            if !started {
                return Err(String::from_utf8_lossy(&output.output.stderr).into_owned());
            }
        }
        Ok(COMMANDS.len() as u64)
    }

    fn attempt(
        &self,
        command: &str,
        memory: u32,
        tracer: &str,
        path: &str,
    ) -> Result<Attempt, String> {
        let _ = std::fs::remove_dir_all(&self.folder);
        std::fs::create_dir(&self.folder).map_err(|e| e.to_string())?;
        let mutant = self.mutant.display();
        let data = u64::from(memory) << 20;
        let script = format!(
            "trap '' XFSZ; ln -s {mutant} m; cp {mutant} c; exec timeout -s KILL {MAX_WAIT} \
             prlimit --data={data} --cpu={MAX_CPU} --core=0 --fsize=1073741824 \
             {tracer} qemu-img {command}"
        );
        let start = Instant::now();
        let output = self.shell(&script, path)?;
        Ok(Attempt { output, seconds: start.elapsed().as_secs_f64() })
    }

    fn shell(&self, script: &str, path: &str) -> Result<Output, String> {
        Command::new("bash")
            .args(["-c", script])
            .current_dir(&self.folder)
            .env("PATH", path)
            // Cargo's: whatever is loaded would be looked for in its folders first.
            .env_remove("LD_LIBRARY_PATH")
            .stdin(Stdio::null())
            .output()
            .map_err(|e| e.to_string())
    }
}

fn traces(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let entries = std::fs::read_dir(folder).map_err(|e| e.to_string())?;
    let traces = entries.flatten().map(|entry| entry.path());
    Ok(traces.filter(|path| path.file_stem().is_some_and(|stem| stem == "trace")).collect())
}
