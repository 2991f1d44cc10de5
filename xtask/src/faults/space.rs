//! Disks that run full: a small filesystem whose free space steps from nothing to the need.

use std::path::Path;
use std::process::Command;

use super::{Sum, Template, scratch};
use crate::faults::cases::Case;
use crate::{Outcome, succeed};

/// Free space grows by one page, which is tmpfs' unit.
const STEP_KIB: u64 = 4;
const MAX_KIB: u64 = 4096;
/// Of the whole filesystem.
const SIZE_KIB: u64 = 32 << 10;
/// Steps that must succeed in a row before the need counts as met.
const ENOUGH: u32 = 3;

/// The command with 0, 4, 8 … KiB left; then, with the space freed, the same again.
pub(crate) fn step_by_step(program: &Path, case: &Case, sum: &mut Sum) -> Outcome {
    let template = Template::new(program, case)?;
    let mut successes = 0;
    for free in (0..MAX_KIB).step_by(STEP_KIB as usize) {
        let mount = Mount::new()?;
        let inside = tempfile::tempdir_in(mount.folder.path()).map_err(|e| e.to_string())?;
        let bench = template.bench_in(inside)?;
        let ballast = mount.folder.path().join("ballast");
        mount.fill(&ballast, free)?;
        let output = bench.run(None)?;
        std::fs::remove_file(&ballast).map_err(|e| e.to_string())?;
        sum.runs += 1;
        sum.struck += u64::from(!output.status.success());
        if let Err(why) = bench.judge(&output, false) {
            sum.faults.push(format!("{}: {free} KiB left: {why}", case.name));
        }
        successes = if output.status.success() { successes + 1 } else { 0 };
        if successes == ENOUGH {
            break;
        }
    }
    Ok(())
}

/// A tmpfs of its own, gone at the end.
struct Mount {
    folder: tempfile::TempDir,
}

impl Mount {
    fn new() -> Result<Self, String> {
        let folder = scratch()?;
        let size = format!("size={SIZE_KIB}k");
        succeed(
            Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(folder.path()),
        )
        .map_err(|why| format!("{why} (small filesystems can be mounted by root only)"))?;
        Ok(Self { folder })
    }

    /// Leaves so much free.
    fn fill(&self, ballast: &Path, free_kib: u64) -> Outcome {
        let output = Command::new("stat")
            .args(["-f", "-c", "%a %S"])
            .arg(self.folder.path())
            .output()
            .map_err(|e| e.to_string())?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let mut numbers = text.split_whitespace().filter_map(|n| n.parse::<u64>().ok());
        let (blocks, size) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        let length = (blocks * size).saturating_sub(free_kib << 10).to_string();
        succeed(Command::new("fallocate").args(["-l", &length]).arg(ballast))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.folder.path()).status();
    }
}
