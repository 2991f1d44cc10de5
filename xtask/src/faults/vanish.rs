//! Inputs that vanished, or became something else: the backing file of an image.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use super::{MAX_TIME, Sum, scratch, shell, text};
use crate::{Outcome, search_path};

/// `base.qcow2`, under `top.qcow2`, with data in both; `a.raw` is something else.
const SETUP: &str = "head -c 300000 /dev/urandom > a.raw; truncate -s 2M a.raw
qemu-img convert -O qcow2 a.raw base.qcow2
qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 top.qcow2
qemu-io -c 'write -P 7 64k 128k' top.qcow2 >/dev/null";

/// What becomes of the backing file.
const CASES: &[(&str, &str)] = &[
    ("removed", "rm base.qcow2"),
    ("empty", ": > base.qcow2"),
    ("half", "truncate -s 200k base.qcow2"),
    ("a byte short", "truncate -s -1 base.qcow2"),
    ("header cut", "truncate -s 50 base.qcow2"),
    ("directory", "rm base.qcow2; mkdir base.qcow2"),
    ("pipe", "rm base.qcow2; mkfifo base.qcow2"),
    ("device", "ln -sf /dev/null base.qcow2"),
    ("dangling link", "ln -sf nowhere base.qcow2"),
    ("link to itself", "rm base.qcow2; ln -s base.qcow2 base.qcow2"),
    ("no permission", "chmod 000 base.qcow2"),
    (
        "socket",
        "rm base.qcow2; python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"base.qcow2\")'",
    ),
    ("garbage", "head -c 70000 /dev/urandom > base.qcow2"),
    ("a raw image", "cp a.raw base.qcow2"),
    ("the overlay itself", "ln -sf top.qcow2 base.qcow2"),
    ("a smaller disk", "rm base.qcow2; qemu-img create -q -f qcow2 base.qcow2 1M"),
    ("header zeroed", "dd if=/dev/zero of=base.qcow2 bs=512 count=1 conv=notrunc status=none"),
    (
        "unknown version",
        "printf '\\0\\0\\0\\11' | dd of=base.qcow2 bs=1 seek=4 conv=notrunc status=none",
    ),
    ("unknown feature", "printf '\\100' | dd of=base.qcow2 bs=1 seek=78 conv=notrunc status=none"),
    (
        "tables beyond its end",
        "printf '\\0\\1\\0\\0\\0\\0\\0\\0' | dd of=base.qcow2 bs=1 seek=40 conv=notrunc status=none",
    ),
];

const COMMANDS: &[&str] = &[
    "info --backing-chain top.qcow2",
    "map top.qcow2",
    "convert -O raw top.qcow2 out",
    "compare top.qcow2 a.raw",
    "check top.qcow2",
    "measure -O qcow2 top.qcow2",
    "commit top.qcow2",
    "rebase -b '' top.qcow2",
];

/// Every case with every command: no hang, no panic; refused where qemu-img refuses, with a
/// message that names the file and the image that refers to it; nothing changed when refused.
pub(crate) fn inputs(program: &Path, sum: &mut Sum) -> Outcome {
    for (name, change) in CASES {
        for command in COMMANDS {
            let ours = attempt(change, command, &program.display().to_string())?;
            let theirs = attempt(change, command, "qemu-img")?;
            sum.runs += 1;
            sum.struck += u64::from(!ours.output.status.success());
            for why in judge(command, &ours, &theirs) {
                sum.faults.push(format!("vanished, {name}: {command}: {why}"));
            }
        }
    }
    shrunk_meanwhile(program, sum)?;
    println!("vanish {:31} runs", sum.runs);
    Ok(())
}

struct Attempt {
    output: Output,
    changed: bool,
    made: bool,
}

/// As an ordinary user, since permissions mean nothing to root.
fn attempt(change: &str, command: &str, tool: &str) -> Result<Attempt, String> {
    let folder = scratch()?;
    let setup = format!("{SETUP}\n{change}\n[ $(id -u) != 0 ] || chown -hR 65534:65534 .");
    let made = shell(folder.path(), &setup)?;
    if !made.status.success() {
        return Err(format!("setup: {}", text(&made)));
    }
    let top = folder.path().join("top.qcow2");
    let before = fs::read(&top).map_err(|e| e.to_string())?;
    let user = "u=; [ $(id -u) != 0 ] || u='setpriv --reuid 65534 --regid 65534 --clear-groups'";
    let limit = MAX_TIME.as_secs();
    let output = Command::new("bash")
        .args(["-c", &format!("{user}; exec $u timeout -s KILL {limit} {tool} {command}")])
        .current_dir(folder.path())
        .env("PATH", search_path())
        .stdin(Stdio::null())
        .output()
        .map_err(|e| e.to_string())?;
    let changed = fs::read(&top).ok().as_deref() != Some(&before);
    Ok(Attempt { output, changed, made: folder.path().join("out").exists() })
}

fn judge(command: &str, ours: &Attempt, theirs: &Attempt) -> Vec<String> {
    let mut faults = Vec::new();
    let said = text(&ours.output);
    let (us, them) = (ours.output.status.code(), theirs.output.status.code());
    if said.contains("panicked") || us == Some(101) {
        faults.push(format!("panic: {said}"));
    }
    if us == Some(137) {
        faults.push("hangs".into());
    }
    // QEMU dies of an image that is its own backing file. Ours leaves alone what a check does
    // not need, and refuses to write to an image whose tables lie outside of it.
    let stricter = us == Some(1) && them == Some(0) && command.starts_with("commit");
    if us != them && them.is_some() && !stricter && !command.starts_with("check") {
        faults.push(format!(
            "ends with {us:?}, qemu-img with {them:?}:\n    {said}\n    {}",
            text(&theirs.output)
        ));
    }
    let failed = us != Some(0) && !(command.starts_with("compare") && us == Some(1));
    if failed && !said.contains("base.qcow2") {
        faults.push(format!("does not name the file: {said}"));
    }
    // Where the file is opened for its own sake, nobody refers to it.
    let own = said.contains("Could not open 'base.qcow2'");
    if failed && !said.contains("top.qcow2") && !own && !said.contains("loop") {
        faults.push(format!("does not name the image that refers to it: {said}"));
    }
    if failed && (ours.changed || ours.made) {
        faults.push("changed something although it failed".into());
    }
    faults
}

/// The source is cut short while it is read: an error and no target, or all that was there.
fn shrunk_meanwhile(program: &Path, sum: &mut Sum) -> Outcome {
    const SHRINK: &str = "head -c 64M /dev/urandom > s.raw; cp s.raw before.raw
(sleep 0.3; truncate -s 1M s.raw) &
r=0; timeout -s KILL 20 $PROGRAM convert -r 16M -O raw s.raw out || r=$?
wait; echo status $r
case $r in 0) cmp before.raw out;; 137) false;; *) [ ! -e out ];; esac";
    let folder = scratch()?;
    let script = SHRINK.replace("$PROGRAM", &program.display().to_string());
    let output = shell(folder.path(), &script)?;
    sum.runs += 1;
    sum.struck += 1;
    let said = text(&output);
    if !output.status.success() || !said.contains("s.raw") {
        sum.faults.push(format!("source shrunk during convert: {said}"));
    }
    Ok(())
}
