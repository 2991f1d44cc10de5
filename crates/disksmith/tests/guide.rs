//! The examples of the pages in `docs/` are run, page by page, each in a folder of its own.
//!
//! In a block marked `console` a line that begins with `$ ` is a command (`> ` continues it),
//! what follows is its output. `…` stands for any text within a line, a line of only `…` for any
//! number of lines. A command without output shown may print what it likes. `(exit 1)` as
//! the last line tells a status other than 0. Pages marked `<!-- needs root -->` in their first
//! lines fail for other users.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail by a panic")]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const MARKER: &str = "--8<-- status";

struct Example {
    line: usize,
    command: String,
    output: Vec<String>,
    status: i32,
}

#[test]
fn every_example_does_what_the_page_says() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
    let mut pages = Vec::new();
    collect(&docs, &mut pages);
    assert!(!pages.is_empty(), "there are no pages");
    let mut faults = Vec::new();
    for page in pages {
        let text = std::fs::read_to_string(&page).unwrap();
        let examples = parse(&text);
        if !examples.is_empty() {
            let name = page.file_name().unwrap().to_string_lossy().into_owned();
            faults.extend(run(&name, &examples));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n\n"));
}

fn collect(folder: &Path, pages: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, pages);
        } else if path.extension().is_some_and(|e| e == "md") {
            pages.push(path);
        }
    }
    pages.sort();
}

fn parse(text: &str) -> Vec<Example> {
    let mut examples: Vec<Example> = Vec::new();
    let mut inside = false;
    for (number, line) in text.lines().enumerate() {
        if line.starts_with("```") {
            inside = line == "```console";
        } else if inside {
            read_line(number + 1, line, &mut examples);
        }
    }
    examples
}

fn read_line(number: usize, line: &str, examples: &mut Vec<Example>) {
    if let Some(command) = line.strip_prefix("$ ") {
        // A comment to the reader, not to the shell.
        let command = command.split("    # ").next().unwrap_or(command).to_string();
        examples.push(Example { line: number, command, output: Vec::new(), status: 0 });
    } else if let Some(example) = examples.last_mut() {
        let status = line.strip_prefix("(exit ").and_then(|rest| rest.strip_suffix(')'));
        if let (Some(rest), true) = (line.strip_prefix("> "), example.output.is_empty()) {
            example.command.push('\n');
            example.command.push_str(rest);
        } else if let Some(status) = status.and_then(|s| s.parse().ok()) {
            example.status = status;
        } else {
            example.output.push(line.to_string());
        }
    }
}

fn run(page: &str, examples: &[Example]) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let bin = folder.path().join(".bin");
    std::fs::create_dir(&bin).unwrap();
    for name in ["disksmith", "qemu-img"] {
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_disksmith"), bin.join(name)).unwrap();
    }
    let script: String = examples
        .iter()
        .map(|example| format!("{}\necho \"\n{MARKER} $?\"\n", example.command))
        .collect();
    let output = Command::new("bash")
        .arg("-c")
        .arg(format!("exec 2>&1\nset -o pipefail\n{script}"))
        .current_dir(folder.path())
        .env(
            "PATH",
            format!("{}:{}:/usr/sbin:/sbin", bin.display(), std::env::var("PATH").unwrap()),
        )
        .env("LC_ALL", "C.UTF-8")
        .env("TZ", "UTC")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut results = text.split(MARKER);
    let mut faults = Vec::new();
    let mut printed = results.next().unwrap_or_default().to_string();
    for example in examples {
        let Some(rest) = results.next() else {
            faults.push(format!("{page}:{}: the shell ended", example.line));
            break;
        };
        let (status, next) = rest.split_once('\n').unwrap_or((rest, ""));
        if let Err(why) = judge(example, &printed, status.trim()) {
            faults.push(format!("{page}:{}: $ {}\n{why}", example.line, example.command));
        }
        printed = next.to_string();
    }
    faults
}

fn judge(example: &Example, printed: &str, status: &str) -> Result<(), String> {
    let printed = printed.trim_end_matches('\n');
    if status != example.status.to_string() {
        return Err(format!("status {status}, not {}; it printed:\n{printed}", example.status));
    }
    let lines: Vec<&str> = printed.lines().map(str::trim_end).collect();
    let wanted: Vec<&str> = example.output.iter().map(|line| line.trim_end()).collect();
    if wanted.is_empty() || matches(&wanted, &lines) {
        return Ok(());
    }
    Err(format!("it printed:\n{printed}\ninstead of:\n{}", wanted.join("\n")))
}

fn matches(wanted: &[&str], lines: &[&str]) -> bool {
    match (wanted.split_first(), lines.split_first()) {
        (None, None) => true,
        (Some((&"…", rest)), _) => (0..=lines.len()).any(|skip| matches(rest, &lines[skip..])),
        (Some((want, rest)), Some((line, others))) => like(want, line) && matches(rest, others),
        _ => false,
    }
}

/// `…` matches any text.
fn like(want: &str, line: &str) -> bool {
    let mut pieces = want.split('…');
    let Some(mut rest) = pieces.next().and_then(|first| line.strip_prefix(first)) else {
        return false;
    };
    let pieces: Vec<_> = pieces.collect();
    let Some((last, middle)) = pieces.split_last() else { return rest.is_empty() };
    for piece in middle {
        match rest.find(piece) {
            Some(at) => rest = &rest[at + piece.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}
