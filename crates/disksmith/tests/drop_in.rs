//! Ours and the genuine qemu-img, side by side: the command lines of `drop_in.txt` must give the
//! same status, the same stdout and the same stderr.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};

const TABLE: &str = include_str!("drop_in.txt");

/// Command lines of one group share a folder.
fn groups() -> Vec<Vec<&'static str>> {
    let mut groups = vec![Vec::new()];
    for line in TABLE.lines().filter(|line| !line.starts_with('#')) {
        match (line.trim().is_empty(), groups.last_mut()) {
            (false, Some(group)) => group.push(line),
            _ => groups.push(Vec::new()),
        }
    }
    groups.retain(|group| !group.is_empty());
    groups
}

#[derive(Debug, Eq, PartialEq)]
struct Said {
    status: Option<i32>,
    out: String,
    err: String,
}

fn say(line: &str, folder: &Path, tools: &Path) -> Said {
    let line = line.strip_prefix("$ ").unwrap_or(line);
    let path = format!("{}:{}", tools.display(), std::env::var("PATH").unwrap_or_default());
    let output = Command::new("timeout")
        .args(["120", "sh", "-c", line])
        .current_dir(folder)
        .env("PATH", path)
        .env("TZ", "UTC")
        .env("LC_ALL", "C.UTF-8")
        .stdin(Stdio::null())
        .output()
        .expect("sh runs");
    Said {
        status: output.status.code(),
        out: filtered(&String::from_utf8_lossy(&output.stdout)),
        err: filtered(&String::from_utf8_lossy(&output.stderr)),
    }
}

/// What no two runs have in common (times, what the host filesystem decides), and how long a
/// file is, which depends on the order in which a program allocates.
fn filtered(text: &str) -> String {
    text.lines()
        .map(|line| {
            let key = line.trim_start();
            let varies =
                ["disk size:", "\"actual-size\"", "\"date-", "Run completed in", "file length:"];
            // Of a child node, that is of the file.
            if key.starts_with("\"virtual-size\"") && line.len() - key.len() >= 16 {
                return "virtual-size …\n".to_string();
            }
            match varies.iter().find(|start| key.starts_with(**start)) {
                Some(start) => format!("{start} …\n"),
                None => format!("{}\n", without_dates(line)),
            }
        })
        .collect()
}

/// `2026-11-22 08:52:54` of a snapshot table.
fn without_dates(line: &str) -> String {
    let words: Vec<&str> = line.split(' ').collect();
    let is = |word: &str, mark: char, count: usize| {
        word.matches(mark).count() == 2
            && word.len() == count
            && word.chars().all(|c| c.is_ascii_digit() || c == mark)
    };
    let words: Vec<&str> = words
        .into_iter()
        .map(|word| if is(word, '-', 10) || is(word, ':', 8) { "…" } else { word })
        .collect();
    words.join(" ")
}

#[test]
fn ours_says_what_the_genuine_one_says() {
    let tools = tempfile::tempdir().unwrap();
    let (ours, theirs) = (tools.path().join("ours"), tools.path().join("theirs"));
    std::fs::create_dir(&ours).unwrap();
    std::fs::create_dir(&theirs).unwrap();
    symlink(env!("CARGO_BIN_EXE_disksmith"), ours.join("qemu-img")).unwrap();
    let genuine = ["/usr/bin/qemu-img", "/usr/local/bin/qemu-img"];
    let genuine = genuine.iter().find(|path| Path::new(path).exists());
    symlink(
        genuine.expect("qemu-img is needed: install Debian's qemu-utils"),
        theirs.join("qemu-img"),
    )
    .unwrap();

    let mut differences = Vec::new();
    for group in groups() {
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for line in group {
            let expected = say(line, a.path(), &theirs);
            let got = say(line, b.path(), &ours);
            if expected != got {
                differences.push(format!("{line}\nexpected {expected:#?}\ngot {got:#?}"));
            }
        }
    }
    assert!(differences.is_empty(), "{} differ:\n{}", differences.len(), differences.join("\n"));
}
