//! The rules that keep the house in order: which crate may use which, where `unsafe` may stand,
//! how long files get.

use std::fs;
use std::path::{Path, PathBuf};

use crate::{Outcome, root};

/// Which crates of ours each crate may use, besides itself. The table of ARCHITECTURE.md.
const ARROWS: &[(&str, &[&str])] = &[
    ("disk", &[]),
    ("host", &["disk"]),
    ("codec", &["disk"]),
    ("crypt", &["disk"]),
    ("formats", &["disk", "codec", "crypt"]),
    ("partitions", &["disk"]),
    ("filesystems", &["disk"]),
    ("nbd", &["disk"]),
    ("open", &["disk", "host", "codec", "crypt", "formats", "partitions", "filesystems", "nbd"]),
    (
        "operations",
        &["disk", "host", "codec", "crypt", "formats", "partitions", "filesystems", "open"],
    ),
    ("export", &["disk", "host", "codec", "crypt", "formats", "partitions", "filesystems", "open"]),
    (
        "disksmith",
        &[
            "disk",
            "host",
            "codec",
            "crypt",
            "formats",
            "partitions",
            "filesystems",
            "open",
            "operations",
            "export",
        ],
    ),
    ("testkit", &["disk", "host"]),
];

/// The only crates in which `unsafe` may stand.
const UNSAFE: &[&str] = &["host", "export"];

/// Longer files than this are named in the report.
const LONG_FILE: usize = 800;

/// Checks the rules; prints the sizes of the crates and the long files.
pub(crate) fn run(_: &[String]) -> Outcome {
    let mut faults = Vec::new();
    for folder in folders(&root().join("crates")) {
        check_crate(&folder, &mut faults);
    }
    match faults.is_empty() {
        true => Ok(()),
        false => Err(format!("\n  {}", faults.join("\n  "))),
    }
}

fn check_crate(folder: &Path, faults: &mut Vec<String>) {
    let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let Some((_, allowed)) = ARROWS.iter().find(|(crate_name, _)| *crate_name == name) else {
        faults.push(format!("crate {name} has no row in the table of arrows"));
        return;
    };
    check_arrows(folder, &name, allowed, faults);
    let mut files = Vec::new();
    rust_files(&folder.join("src"), &mut files);
    let mut total = 0;
    for file in files {
        let text = fs::read_to_string(&file).unwrap_or_default();
        let shown = file.strip_prefix(root()).unwrap_or(&file).display().to_string();
        let lines = text.lines().count();
        total += lines;
        if lines > LONG_FILE {
            println!("long file: {shown} {lines} lines");
        }
        if !UNSAFE.contains(&name.as_str()) && has_unsafe(&text) {
            faults.push(format!("{shown}: unsafe outside of {}", UNSAFE.join(" and ")));
        }
        if text.contains("todo!(") || text.contains("unimplemented!(") {
            faults.push(format!("{shown}: unfinished code"));
        }
    }
    if total < 20 {
        faults.push(format!("crate {name} is empty"));
    }
    println!("{name:12} {total:6} lines");
}

/// Dependencies for tests may point anywhere but upwards in a circle, which cargo refuses.
fn check_arrows(folder: &Path, name: &str, allowed: &[&str], faults: &mut Vec<String>) {
    let manifest = fs::read_to_string(folder.join("Cargo.toml")).unwrap_or_default();
    let mut section = "";
    for line in manifest.lines() {
        if line.starts_with('[') {
            section = line.trim();
        } else if section == "[dependencies]"
            && let Some(rest) = line.strip_prefix("disksmith-")
        {
            let used = rest.split(['.', ' ', '=']).next().unwrap_or(rest);
            if !allowed.contains(&used) {
                faults.push(format!("crate {name} must not use {used}"));
            }
        }
    }
}

fn has_unsafe(text: &str) -> bool {
    text.lines().map(str::trim).any(|line| {
        !line.starts_with("//")
            && ["unsafe {", "unsafe fn ", "unsafe impl "].iter().any(|word| {
                // Names may end in the word: `backing_unsafe {`.
                line.find(word).is_some_and(|at| !line[..at].ends_with(['_', '#']))
            })
    })
}

fn folders(parent: &Path) -> Vec<PathBuf> {
    let mut found: Vec<_> = fs::read_dir(parent)
        .map(|entries| entries.flatten().map(|e| e.path()).filter(|p| p.is_dir()).collect())
        .unwrap_or_default();
    found.sort();
    found
}

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}
