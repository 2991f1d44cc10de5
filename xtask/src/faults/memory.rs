//! Memory that runs out while an image is opened, told about and checked.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};

use super::{MAX_TIME, Sum, scratch, shell, short, text};
use crate::Outcome;

/// Images whose tables are larger than what may be refused: an L1 table of 128 KiB, a refcount
/// table of 256 KiB, 400 snapshots with long names, clusters of 2 MiB.
const SETUP: &str = "qemu-img create -q -f qcow2 -o cluster_size=512 l1.qcow2 512M
qemu-img create -q -f qcow2 -o cluster_size=2M large.qcow2 64M
qemu-io -f qcow2 -c 'write -P 1 0 5M' large.qcow2 >/dev/null
qemu-img create -q -f qcow2 -o cluster_size=4k many.qcow2 1M
for n in $(seq 400); do qemu-img snapshot -c $(printf %0200d $n) many.qcow2; done
qemu-img bitmap --add -g 512 many.qcow2 b";
const IMAGES: &[&str] = &["l1.qcow2", "large.qcow2", "many.qcow2"];
const COMMANDS: &[&str] = &["info", "check", "map", "snapshot -l"];

/// Every request for more than 64 KiB is refused once: the command ends with an error and a
/// message, not with a signal, or does without.
pub(crate) fn runs_out(program: &Path, sum: &mut Sum) -> Outcome {
    let folder = scratch()?;
    let made = shell(folder.path(), SETUP)?;
    if !made.status.success() {
        return Err(format!("setup: {}", text(&made)));
    }
    let library = short::library(folder.path(), "memory.c", include_str!("memory.c"))?;
    for image in IMAGES {
        for command in COMMANDS {
            for n in 1.. {
                let told = folder.path().join("told");
                let script = format!(
                    "exec 9>told; exec env LD_PRELOAD={} MEMORY_NTH={n} MEMORY_TOLD=9 timeout -s \
                     KILL {} {} {command} {image}",
                    library.display(),
                    MAX_TIME.as_secs(),
                    program.display()
                );
                let output = Command::new("bash")
                    .args(["-c", &script])
                    .current_dir(folder.path())
                    .stdin(Stdio::null())
                    .output()
                    .map_err(|e| e.to_string())?;
                sum.runs += 1;
                if std::fs::metadata(&told).map_or(0, |m| m.len()) == 0 {
                    break;
                }
                sum.struck += 1;
                let code = output.status.code();
                if output.status.signal().is_some() || code.is_none_or(|c| c > 100) {
                    let said = text(&output);
                    sum.faults.push(format!("memory: {command} {image}, request {n}: {said}"));
                }
                if code.is_some_and(|c| c != 0) && text(&output).trim().is_empty() {
                    sum.faults.push(format!("memory: {command} {image}, request {n}: mute"));
                }
            }
        }
    }
    println!("memory {:31} runs", sum.runs);
    Ok(())
}
