//! Short reads and writes: legal, and no reason to fail.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::{MAX_TIME, Sum, Template};
use crate::faults::cases::Case;
use crate::{Outcome, succeed};

/// Every request, every second one … is carried out in part.
const EVERY: [u32; 6] = [1, 2, 3, 5, 8, 13];

/// The command must succeed, and its result be right, whichever requests come back short.
pub(crate) fn every_nth(program: &Path, case: &Case, sum: &mut Sum) -> Outcome {
    let template = Template::new(program, case)?;
    let library = library(template.folder.path(), "short.c", include_str!("short.c"))?;
    for every in EVERY {
        let bench = template.bench()?;
        let output = Command::new("timeout")
            .args(["-s", "KILL", &MAX_TIME.as_secs().to_string(), "./disksmith"])
            .args(case.command.split_whitespace())
            .current_dir(bench.folder.path())
            .env("LD_PRELOAD", &library)
            .env("SHORT_EVERY", every.to_string())
            .stdin(Stdio::null())
            .output()
            .map_err(|e| e.to_string())?;
        sum.runs += 1;
        sum.struck += 1;
        let verdict = match (output.status.success(), case.refuses) {
            (false, false) => Err(format!("fails: {}", super::text(&output))),
            _ => bench.judge(&output, false),
        };
        if let Err(why) = verdict {
            sum.faults.push(format!("{}: every {every}. request is short: {why}", case.name));
        }
    }
    Ok(())
}

/// An interposer, compiled with the compiler that links the program.
pub(super) fn library(folder: &Path, name: &str, text: &str) -> Result<PathBuf, String> {
    let source = folder.join(name);
    std::fs::write(&source, text).map_err(|e| e.to_string())?;
    let library = source.with_extension("so");
    succeed(Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).args([&library, &source]))?;
    Ok(library)
}
