//! Taking the time.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use wait4::Wait4;

use super::case::{Case, Job};

/// What one program took for a case: medians of its runs.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Cost {
    /// Wall time in seconds.
    pub(super) wall: f64,
    /// The quickest and the slowest run's.
    pub(super) range: (f64, f64),
    /// Processor time in seconds, user and system.
    pub(super) cpu: f64,
    /// Most memory in use by a process, in bytes; the largest of all runs.
    pub(super) memory: u64,
    /// Bytes that the output takes on the host.
    pub(super) size: u64,
    /// How many runs.
    pub(super) runs: usize,
}

/// Where commands run: the scratch folder, with our programs first on the path.
pub(super) struct Place<'a> {
    pub(super) folder: &'a Path,
    pub(super) path: String,
}

/// Runs everybody in turn, so that a noisy moment hits all alike; takes medians. In the order of
/// the case's jobs.
pub(super) fn interleaved(
    place: &Place<'_>,
    case: &Case,
    runs: usize,
) -> Result<Vec<Cost>, String> {
    // What was written before is not to be written back at the expense of the first. Between the
    // runs of a case there is no such pause: in virtual machines, memory that was free for seconds
    // belongs to the host, and whoever touches it next would pay for getting it back.
    let _ = Command::new("sync").arg("-f").arg(place.folder).status();
    if !case.slow {
        // Once unmeasured: the first to touch a page of memory waits for it to be found.
        for job in &case.jobs {
            place.one(case, job, 1)?;
        }
    }
    let mut all: Vec<Vec<Cost>> = vec![Vec::new(); case.jobs.len()];
    for run in 0..runs {
        // Who goes first changes, too.
        for turn in 0..case.jobs.len() {
            let index = (run + turn) % case.jobs.len();
            all[index].push(place.one(case, &case.jobs[index], case.repeat)?);
        }
    }
    Ok(all.iter().map(|costs| median(costs)).collect())
}

impl Place<'_> {
    /// Runs a script in the shell.
    pub(super) fn script(&self, script: &str, who: &str) -> Result<(), String> {
        if script.is_empty() {
            return Ok(());
        }
        crate::succeed(
            Command::new("sh")
                .args(["-euc", script])
                .current_dir(self.folder)
                .env("PATH", &self.path)
                .env("WHO", who)
                .stdout(Stdio::null()),
        )
    }

    fn one(&self, case: &Case, job: &Job, repeat: usize) -> Result<Cost, String> {
        let mut sum = Cost::default();
        for _ in 0..repeat {
            self.script(&case.before, job.label)?;
            let cost = self.time(&job.line)?;
            sum.wall += cost.wall;
            sum.cpu += cost.cpu;
            sum.memory = sum.memory.max(cost.memory);
            sum.size = case.output.map_or(0, |file| allocated(&self.folder.join(file)));
            self.script(&case.after, job.label)?;
        }
        Ok(Cost { wall: sum.wall / repeat as f64, cpu: sum.cpu / repeat as f64, ..sum })
    }

    fn time(&self, line: &str) -> Result<Cost, String> {
        let mut command = self.command(line);
        let started = Instant::now();
        let mut child = command.spawn().map_err(|error| format!("{line}: {error}"))?;
        let used = child.wait4().map_err(|error| error.to_string())?;
        let wall = started.elapsed().as_secs_f64();
        if !used.status.success() {
            return Err(format!("{line} ended with {}", used.status));
        }
        let cpu = (used.rusage.utime + used.rusage.stime).as_secs_f64();
        Ok(Cost { wall, cpu, memory: used.rusage.maxrss, ..Cost::default() })
    }

    fn command(&self, line: &str) -> Command {
        let mut words = line.split_whitespace();
        let mut command = match line.contains(['|', '&', ';', '<', '>', '$', '\'', '"']) {
            true => {
                let mut command = Command::new("sh");
                command.args(["-ec", line]);
                command
            }
            false => {
                let mut command = Command::new(self.find(words.next().unwrap_or_default()));
                command.args(words);
                command
            }
        };
        command.current_dir(self.folder).env("PATH", &self.path).stdout(Stdio::null());
        command
    }

    /// The standard library looks for programs on our own path, not on the child's.
    fn find(&self, program: &str) -> std::path::PathBuf {
        let folders = std::env::split_paths(&self.path);
        let found = folders.map(|folder| folder.join(program)).find(|file| file.exists());
        found.unwrap_or_else(|| program.into())
    }
}

fn allocated(file: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(file).map_or(0, |metadata| metadata.blocks() * 512)
}

fn median(costs: &[Cost]) -> Cost {
    let sorted = |key: fn(&Cost) -> f64| {
        let mut values: Vec<f64> = costs.iter().map(key).collect();
        values.sort_by(f64::total_cmp);
        values
    };
    let middle = |values: &[f64]| {
        let half = values.len() / 2;
        match values.len() {
            0 => 0.0,
            n if n % 2 == 1 => values[half],
            _ => f64::midpoint(values[half - 1], values[half]),
        }
    };
    let walls = sorted(|cost| cost.wall);
    let ends = (walls.first().copied().unwrap_or(0.0), walls.last().copied().unwrap_or(0.0));
    Cost {
        wall: middle(&walls),
        range: ends,
        cpu: middle(&sorted(|cost| cost.cpu)),
        memory: costs.iter().map(|cost| cost.memory).max().unwrap_or(0),
        size: middle(&sorted(|cost| cost.size as f64)) as u64,
        runs: costs.len(),
    }
}
