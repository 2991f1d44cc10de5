//! Processes ended at random times.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::{Bench, Sum, leftover};
use crate::Outcome;
use crate::faults::cases::Case;

/// Times per case and signal.
const TIMES: u32 = 25;

/// SIGKILL, SIGTERM and SIGINT at times spread over a whole run's length. After SIGKILL a
/// temporary file may stay; after the others nothing may.
pub(crate) fn at_random_times(program: &Path, case: &Case, sum: &mut Sum) -> Outcome {
    let whole = duration(program, case)?;
    for signal in ["KILL", "TERM", "INT"] {
        for time in 0..TIMES {
            let bench = Bench::new(program, case)?;
            let wait = whole.mul_f64(f64::from(time) / f64::from(TIMES));
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

fn duration(program: &Path, case: &Case) -> Result<Duration, String> {
    let bench = Bench::new(program, case)?;
    let start = Instant::now();
    bench.run(None)?;
    Ok(start.elapsed())
}
