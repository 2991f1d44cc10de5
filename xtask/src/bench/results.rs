//! Results on disk: one file of tab-separated values per suite. A run of a part of a suite
//! replaces that part's lines only.

use std::collections::HashMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use super::case::{Case, Suite};
use super::measure::Cost;

const HEAD: &str =
    "case\tprogram\twall_s\tfastest_s\tslowest_s\tcpu_s\tmemory_bytes\tout_bytes\truns\tcommand";

/// The results of a suite: by case and label of the program.
#[derive(Debug, Default)]
pub(super) struct Results {
    /// Where and how they were measured, a line each.
    pub(super) circumstances: Vec<String>,
    costs: HashMap<(String, String), Cost>,
}

impl Results {
    /// What is stored for a suite; nothing if there is none.
    pub(super) fn load(suite: &Suite) -> Self {
        let text = std::fs::read_to_string(file(suite)).unwrap_or_default();
        let mut results = Self::default();
        for line in text.lines() {
            if let Some(note) = line.strip_prefix("# ") {
                results.circumstances.push(note.to_string());
            } else if let Some((key, cost)) = parse(line) {
                results.costs.insert(key, cost);
            }
        }
        results
    }

    pub(super) fn put(&mut self, case: &Case, costs: &[Cost]) {
        for (job, cost) in case.jobs.iter().zip(costs) {
            self.costs.insert((case.name.clone(), job.label.to_string()), *cost);
        }
    }

    pub(super) fn get(&self, case: &Case, label: &str) -> Option<Cost> {
        self.costs.get(&(case.name.clone(), label.to_string())).copied()
    }

    /// Writes the lines of what the suite has now, in its order.
    pub(super) fn save(&self, suite: &Suite) -> crate::Outcome {
        let mut text = String::new();
        for note in &self.circumstances {
            let _ = writeln!(text, "# {note}");
        }
        text.push_str(HEAD);
        text.push('\n');
        for case in &suite.cases {
            for job in &case.jobs {
                let Some(cost) = self.get(case, job.label) else { continue };
                let _ = writeln!(
                    text,
                    "{}\t{}\t{:.5}\t{:.5}\t{:.5}\t{:.4}\t{}\t{}\t{}\t{}",
                    case.name,
                    job.label,
                    cost.wall,
                    cost.range.0,
                    cost.range.1,
                    cost.cpu,
                    cost.memory,
                    cost.size,
                    cost.runs,
                    job.line
                );
            }
        }
        let path = file(suite);
        std::fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))
    }
}

fn parse(line: &str) -> Option<((String, String), Cost)> {
    let mut fields = line.split('\t');
    let key = (fields.next()?.to_string(), fields.next()?.to_string());
    let mut number = || fields.next()?.parse::<f64>().ok();
    let cost = Cost {
        wall: number()?,
        range: (number()?, number()?),
        cpu: number()?,
        memory: number()? as u64,
        size: number()? as u64,
        runs: number()? as usize,
    };
    Some((key, cost))
}

fn file(suite: &Suite) -> PathBuf {
    folder().join(format!("{}.tsv", suite.name))
}

fn folder() -> PathBuf {
    crate::root().join("bench")
}

/// Where and how a run was made.
pub(super) fn circumstances(scratch: &Path, runs: usize) -> Vec<String> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let version = first_line("qemu-img", &["--version"]);
    let kind = first_line("stat", &["-f", "-c", "%T", &scratch.to_string_lossy()]);
    let mut notes = vec![
        format!("{cores} cores, {}, Linux {}", processor(), kernel.trim()),
        version,
        format!("files on {kind}"),
    ];
    if let Ok(disk) = std::fs::metadata(scratch.join("src.raw")) {
        use std::os::unix::fs::MetadataExt;
        notes.push(format!(
            "src.raw: {} bytes with {} of data, an ext4 filesystem filled from /usr",
            disk.len(),
            disk.blocks() * 512
        ));
    }
    notes.push(format!(
        "medians of {runs} interleaved runs (half as many of what takes minutes); load average at the end {}",
        load.split(' ').next().unwrap_or("")
    ));
    notes
}

fn processor() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("model name")).unwrap_or_default();
    line.split_once(':').map_or("", |(_, name)| name.trim()).to_string()
}

fn first_line(program: &str, arguments: &[&str]) -> String {
    let output = std::process::Command::new(program).args(arguments).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    text.unwrap_or_default().lines().next().unwrap_or_default().to_string()
}
