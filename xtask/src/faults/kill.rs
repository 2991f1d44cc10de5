//! Processes ended at random times.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use disksmith_testkit::Rng;

use super::{Sum, Template, leftover};
use crate::Outcome;
use crate::faults::cases::Case;

/// Times per signal for the commands that change or make the most …
const MANY_TIMES: u32 = 500;
/// … and for the others.
const TIMES: u32 = 25;
const MANY: &[&str] = &[
    "convert-raw-qcow2-4k",
    "commit",
    "rebase-none",
    "resize-shrink",
    "snapshot-create",
    "snapshot-apply",
    "snapshot-delete",
    "check-repair",
    "amend-refcounts",
];

/// SIGKILL, SIGTERM and SIGINT at times spread over a whole run's length. After SIGKILL a
/// temporary file may stay; after the others nothing may. `DISKSMITH_KILLS` sets how often.
pub(crate) fn at_random_times(program: &Path, case: &Case, sum: &mut Sum) -> Outcome {
    let template = Template::new(program, case)?;
    let whole = duration(&template)?;
    let asked = std::env::var("DISKSMITH_KILLS").ok().and_then(|text| text.parse().ok());
    let times = asked.unwrap_or(if MANY.contains(&case.name) { MANY_TIMES } else { TIMES });
    let mut rng = Rng::new(1);
    for signal in ["KILL", "TERM", "INT"] {
        for _ in 0..times {
            let bench = template.bench()?;
            let wait = whole.mul_f64(rng.below(1100) as f64 / 1000.0);
            let mut child = Command::new(bench.path("disksmith"))
                .args(case.command.split_whitespace())
                .current_dir(bench.folder.path())
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .map_err(|e| e.to_string())?;
            std::thread::sleep(wait);
            let _ = Command::new("kill")
                .args([format!("-{signal}"), child.id().to_string()])
                .stderr(Stdio::null())
                .status();
            let status = child.wait().map_err(|e| e.to_string())?;
            sum.runs += 1;
            sum.struck += u64::from(!status.success());
            if signal == "KILL"
                && let Some(name) = leftover(bench.folder.path())
            {
                let _ = std::fs::remove_file(bench.path(&name));
            }
            if let Err(why) = bench.judge_files(status.success()) {
                sum.faults.push(format!("{}: SIG{signal} after {wait:?}: {why}", case.name));
            }
        }
    }
    Ok(())
}

/// The middle one of five runs.
fn duration(template: &Template<'_>) -> Result<Duration, String> {
    let mut times = Vec::new();
    for _ in 0..5 {
        let bench = template.bench()?;
        let start = Instant::now();
        bench.run(None)?;
        times.push(start.elapsed());
    }
    times.sort();
    Ok(times[2])
}
