//! Disks that run full: the file size limit of the process steps from nothing to the need.

use std::path::Path;
use std::process::{Command, Stdio};

use super::{Bench, Sum};
use crate::Outcome;
use crate::faults::cases::Case;

/// Steps of the limit in KiB; from the step that suffices on, nothing fails any more.
const STEP_KIB: u32 = 64;
const MAX_KIB: u32 = 4096;

/// Every write past the limit fails with EFBIG (SIGXFSZ ignored).
pub(crate) fn step_by_step(program: &Path, case: &Case, sum: &mut Sum) -> Outcome {
    for limit in (0..MAX_KIB).step_by(STEP_KIB as usize) {
        let bench = Bench::new(program, case)?;
        let script = format!("trap '' XFSZ; ulimit -f {limit}; exec ./disksmith {}", case.command);
        let output = Command::new("bash")
            .args(["-c", &script])
            .current_dir(bench.folder.path())
            .stdin(Stdio::null())
            .output()
            .map_err(|e| e.to_string())?;
        sum.runs += 1;
        sum.struck += u64::from(!output.status.success());
        if let Err(why) = bench.judge(&output) {
            sum.faults.push(format!("{}: at most {limit} KiB: {why}", case.name));
        }
        if output.status.success() && limit > 0 {
            break;
        }
    }
    Ok(())
}
