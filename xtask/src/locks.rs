//! The lock matrix: who may use an image while another process has it open, ours against QEMU
//! and QEMU against ours, in every combination.
//!
//! What counts is what the genuine qemu-img does beside a genuine holder: the same status and
//! the same text must come from our program beside that holder, and from qemu-img beside our
//! program as holder.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::{Outcome, faults, search_path};

/// Somebody who has `h` open. Both forms run until they are ended.
struct Holder {
    name: &'static str,
    /// The format of `h`.
    format: &'static str,
    theirs: &'static str,
    ours: &'static str,
}

const fn holder(
    name: &'static str,
    format: &'static str,
    theirs: &'static str,
    ours: &'static str,
) -> Holder {
    Holder { name, format, theirs, ours }
}

const SLOW_READ_QCOW2: &str = "convert -r 64k -f qcow2 -O raw h slow";
const SLOW_READ_RAW: &str = "convert -r 64k -f raw -O raw h slow";
const SLOW_SHARED: &str = "convert -U -r 64k -f qcow2 -O raw h slow";
const SLOW_WRITE_QCOW2: &str = "convert -n -r 64k -f raw -O qcow2 full h";
const SLOW_WRITE_RAW: &str = "convert -n -r 64k -f raw -O raw full h";
const SLOW_OVERLAY: &str = "convert -r 64k -f qcow2 -O raw overlay slow";
const SLOW_COMMIT: &str = "commit -r 64k -f qcow2 overlay";
const SLOW_COMMIT_TOP: &str = "commit -r 64k -f qcow2 h";

/// `qemu-img` in front of what both know; whole command lines otherwise.
const HOLDERS: &[Holder] = &[
    holder("reader of qcow2", "qcow2", SLOW_READ_QCOW2, SLOW_READ_QCOW2),
    holder("reader of raw", "raw", SLOW_READ_RAW, SLOW_READ_RAW),
    holder("reader that shares", "qcow2", SLOW_SHARED, SLOW_SHARED),
    holder("writer of qcow2", "qcow2", SLOW_WRITE_QCOW2, SLOW_WRITE_QCOW2),
    holder("writer of raw", "raw", SLOW_WRITE_RAW, SLOW_WRITE_RAW),
    holder("reader of an overlay", "qcow2", SLOW_OVERLAY, SLOW_OVERLAY),
    holder("commit into it", "qcow2", SLOW_COMMIT, SLOW_COMMIT),
    holder("commit from it", "qcow2-overlay", SLOW_COMMIT_TOP, SLOW_COMMIT_TOP),
    holder(
        "server of qcow2",
        "qcow2",
        "! exec qemu-nbd -t -k $PWD/s -f qcow2 h",
        "! exec disksmith attach --foreground -f qcow2 h m",
    ),
    holder(
        "server of qcow2, read-only",
        "qcow2",
        "! exec qemu-nbd -t -r -k $PWD/s -f qcow2 h",
        "! exec disksmith attach --foreground -r -f qcow2 h m",
    ),
    holder(
        "server of raw",
        "raw",
        "! exec qemu-nbd -t -k $PWD/s -f raw h",
        "! exec disksmith attach --foreground -f raw h m",
    ),
    holder(
        "server of raw, read-only",
        "raw",
        "! exec qemu-nbd -t -r -k $PWD/s -f raw h",
        "! exec disksmith attach --foreground -r -f raw h m",
    ),
];

/// What is tried on `h` meanwhile; `F` is its format.
const COMMANDS: &[&str] = &[
    "info -f F h",
    "info -U -f F h",
    "check -f F h",
    "check -U -f F h",
    "check -f F -r all h",
    "map -f F h",
    "map -U -f F h",
    "measure -f F -O raw h",
    "compare -f F -F F h copy",
    "compare -U -f F -F F h copy",
    "convert -f F -O raw h out",
    "convert -U -f F -O raw h out",
    "convert -n -f F -O F copy h",
    "create -q -f F h 1M",
    "resize -q -f F h +64k",
    "snapshot -l h",
    "snapshot -c new h",
    "amend -f F -o lazy_refcounts=on h",
    "bitmap -f F --add h new",
    "dd -f F -O raw if=h of=out2 bs=64k",
];

/// Cells of the quick run: every eighth, 60.
const QUICK: usize = 8;
/// A holder must be there by then.
const READY: Duration = Duration::from_secs(10);

/// A cell in which we are stricter than QEMU on purpose: QEMU's server of a raw image lets others
/// write it meanwhile; ours does not (two writers of one disk are never right), so that they find
/// it locked before anything else can go wrong.
fn stricter(holder: &Holder, beside_ours: &Output) -> bool {
    let said = String::from_utf8_lossy(&beside_ours.stderr);
    holder.name == "server of raw" && said.contains("Failed to get \"write\" lock")
}

/// `cargo xtask locks [quick]`.
pub(crate) fn run(arguments: &[String]) -> Outcome {
    let quick = arguments.first().is_some_and(|a| a == "quick");
    let program = faults::build(!quick)?;
    let every = if quick { QUICK } else { 1 };
    let tools = tempfile::tempdir().map_err(|e| e.to_string())?;
    for name in ["disksmith", "qemu-img"] {
        let link = tools.path().join(name);
        std::os::unix::fs::symlink(&program, link).map_err(|e| e.to_string())?;
    }
    let ours = tools.path();
    let (mut cells, mut strict, mut faults) = (0, 0, Vec::new());
    for (row, holder) in HOLDERS.iter().enumerate() {
        for (column, command) in COMMANDS.iter().enumerate() {
            if (row + column) % every != 0 {
                continue;
            }
            let command = command.replace(" F", &format!(" {}", plain(holder.format)));
            let right = cell(holder, false, &command, false, ours)?;
            let directions = [
                ("ours beside QEMU", cell(holder, false, &command, true, ours)?),
                ("QEMU beside ours", cell(holder, true, &command, false, ours)?),
            ];
            for (direction, output) in directions {
                cells += 1;
                if same(&output, &right) {
                    continue;
                }
                if direction == "QEMU beside ours" && stricter(holder, &output) {
                    strict += 1;
                    continue;
                }
                faults.push(format!(
                    "{direction}, {}: {command}:\n    {}\n    instead of {}",
                    holder.name,
                    told(&output),
                    told(&right)
                ));
            }
        }
        println!("{:28} {cells} cells so far, {} differ", holder.name, faults.len());
    }
    println!("{cells} cells: {} differ, {strict} stricter than QEMU on purpose", faults.len());
    match faults.is_empty() {
        true => Ok(()),
        false => Err(format!("\n{}", faults.join("\n"))),
    }
}

fn plain(format: &str) -> &str {
    format.strip_suffix("-overlay").unwrap_or(format)
}

/// The same status; the same words where it fails.
fn same(a: &Output, b: &Output) -> bool {
    a.status.code() == b.status.code() && (a.status.success() || words(a) == words(b))
}

/// What is said of the lock, or of whatever else. QEMU numbers its nodes as it likes, and may
/// warn of a probed format before it finds that it cannot have the image.
fn words(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr);
    let lines = text.lines().skip_while(|line| !line.starts_with("qemu-img: "));
    let lines: Vec<&str> = lines.collect();
    match lines.first() {
        Some(first) if first.contains("bitmap new failed") => "no bitmaps".to_string(),
        _ => lines.join("\n"),
    }
}

fn told(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr).trim().replace('\n', "\n        ");
    format!("{:?}: {text}", output.status.code())
}

/// Runs `command` while a holder, ours or QEMU's, has the image; with `drop_in`, it is our program
/// under qemu-img's name that runs.
fn cell(
    holder: &Holder,
    by_ours: bool,
    command: &str,
    drop_in: bool,
    tools: &Path,
) -> Result<Output, String> {
    let folder = tempfile::tempdir_in("/dev/shm").map_err(|e| e.to_string())?;
    prepare(folder.path(), holder.format)?;
    let with_ours = format!("{}:{}", tools.display(), search_path());
    let path = |ours| if ours { with_ours.clone() } else { search_path() };
    let holding = if by_ours { holder.ours } else { holder.theirs };
    let held = Held::start(holding, folder.path(), &path(by_ours))?;
    let output = Command::new("timeout")
        .args(["20", "bash", "-c", &format!("exec qemu-img {command}")])
        .current_dir(folder.path())
        .env("PATH", path(drop_in))
        .env("LC_ALL", "C.UTF-8")
        .stdin(Stdio::null())
        .output()
        .map_err(|e| e.to_string())?;
    drop(held);
    Ok(output)
}

fn prepare(folder: &Path, format: &str) -> Outcome {
    let make = match format {
        "raw" => "cp full h; cp full copy",
        "qcow2" => {
            "qemu-img convert -O qcow2 full h; cp h copy
             qemu-img create -q -f qcow2 -b h -F qcow2 overlay
             qemu-io -c 'write -P 7 0 1M' overlay >/dev/null"
        }
        _ => {
            "qemu-img convert -O qcow2 full base; qemu-img create -q -f qcow2 -b base -F qcow2 h
             qemu-io -c 'write -P 7 0 1M' h >/dev/null; cp h copy"
        }
    };
    let script = format!("mkdir m; head -c 8M /dev/zero | tr '\\0' 'x' > full; {make}");
    let output = Command::new("bash")
        .args(["-ec", &script])
        .current_dir(folder)
        .env("PATH", search_path())
        .output()
        .map_err(|e| e.to_string())?;
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

/// A process that has the image open.
struct Held {
    child: Child,
    folder: PathBuf,
}

impl Held {
    fn start(holding: &str, folder: &Path, path: &str) -> Result<Self, String> {
        let script = match holding.strip_prefix("! ") {
            Some(line) => line.to_string(),
            None => format!("exec qemu-img {holding}"),
        };
        let child = Command::new("bash")
            .args(["-c", &script])
            .current_dir(folder)
            .env("PATH", path)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .map_err(|e| e.to_string())?;
        let mut held = Self { child, folder: folder.to_path_buf() };
        held.wait_until_ready(holding)?;
        Ok(held)
    }

    /// It is ready when it has `h` open and what comes after that has happened: the socket or
    /// the mount is there, or the copy under way.
    fn wait_until_ready(&mut self, holding: &str) -> Outcome {
        let start = Instant::now();
        let target = fs::canonicalize(self.folder.join("h")).map_err(|e| e.to_string())?;
        while start.elapsed() < READY {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(format!("{holding} ended at once with {status}"));
            }
            let open = fs::read_dir(format!("/proc/{}/fd", self.child.id()))
                .map(|all| {
                    all.flatten().any(|fd| fs::read_link(fd.path()).ok() == Some(target.clone()))
                })
                .unwrap_or(false);
            let serving = !holding.starts_with('!')
                || self.folder.join("s").exists()
                || self.folder.join("m/disk").exists();
            if open && serving {
                // What it does right after opening (creating, sizing) is over then.
                std::thread::sleep(Duration::from_millis(150));
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Err(format!("{holding} does not open the image"))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mounted = self.folder.join("m/disk").exists();
        if mounted {
            let folder = self.folder.join("m");
            let _ = Command::new("fusermount3").arg("-uz").arg(folder).status();
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
