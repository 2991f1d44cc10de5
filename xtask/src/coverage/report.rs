//! The figures in words.

use std::fmt::Write;
use std::path::Path;

use super::figures::{Figures, File};
use crate::Outcome;

/// What reads or writes structures that others may have damaged.
const MODULES: &[&str] = &[
    "crates/formats/src/qcow2",
    "crates/formats/src/luks",
    "crates/formats/src/raw",
    "crates/crypt/src/luks/",
    "crates/crypt/src/luks2/",
    "crates/codec/src",
    "crates/partitions/src/mbr",
    "crates/partitions/src/gpt",
    "crates/partitions/src/script",
    "crates/partitions/src/probe",
    "crates/partitions/src/edit",
    "crates/partitions/src/plan",
    "crates/filesystems/src/ext/check",
    "crates/filesystems/src/ext/journal",
    "crates/filesystems/src/ext/layout",
    "crates/filesystems/src/ext/mkfs",
    "crates/filesystems/src/ext/resize",
    "crates/filesystems/src/ext/",
    "crates/filesystems/src/fat/check",
    "crates/filesystems/src/fat/exfat",
    "crates/filesystems/src/fat/resize",
    "crates/filesystems/src/fat/",
    "crates/filesystems/src/source",
    "crates/open/src",
];
/// A file below this share of lines is named.
const BAR: f64 = 90.0;
/// The modules whose every writing line a simulated cut should reach, and what writes.
const WRITERS: &[&str] = &[
    "crates/formats/src/qcow2",
    "crates/partitions/src/plan",
    "crates/filesystems/src/ext",
    "crates/filesystems/src/fat",
];
const WRITES: &[&str] = &[
    ".write_at(",
    ".write_zeroes(",
    ".discard(",
    "storage.set_size(",
    "disk.set_size(",
    "data.set_size(",
];

/// Parts and wholes.
#[derive(Default, Clone, Copy)]
struct Shares {
    lines: (usize, usize),
    regions: (usize, usize),
    errors: (usize, usize),
}

impl Shares {
    fn of(file: &File) -> Self {
        let share = |counts: &mut dyn Iterator<Item = u64>| {
            counts.fold((0, 0), |(part, all), count| (part + usize::from(count > 0), all + 1))
        };
        let errors = file.regions.iter().filter(|(span, _)| file.is_error_branch(**span));
        Self {
            lines: share(&mut file.lines.values().copied()),
            regions: share(&mut file.regions.values().copied()),
            errors: share(&mut errors.map(|(_, count)| *count)),
        }
    }

    fn add(&mut self, other: Self) {
        let sum = |a: &mut (usize, usize), b: (usize, usize)| *a = (a.0 + b.0, a.1 + b.1);
        sum(&mut self.lines, other.lines);
        sum(&mut self.regions, other.regions);
        sum(&mut self.errors, other.errors);
    }

    fn print(&self, name: &str) {
        let share = |(part, all): (usize, usize)| format!("{:.1} % of {all}", percent(part, all));
        let [lines, regions, errors] = [self.lines, self.regions, self.errors].map(share);
        println!("| {name} | {lines} | {regions} | {errors} |");
    }
}

/// A table by module and one of the files below the bar; what was not reached, in a file.
pub(super) fn modules(figures: &Figures, unreached: &Path) -> Outcome {
    let mut sums = vec![Shares::default(); MODULES.len()];
    let (mut all, mut below, mut missed) = (Shares::default(), Vec::new(), String::new());
    for (name, file) in &figures.files {
        // The first that fits: the parts of a module come before its rest.
        let Some(module) = MODULES.iter().position(|module| name.starts_with(module)) else {
            continue;
        };
        let shares = Shares::of(file);
        sums[module].add(shares);
        all.add(shares);
        if percent(shares.lines.0, shares.lines.1) < BAR {
            below.push((name, shares));
        }
        describe_missed(name, file, &mut missed);
    }
    let head = "lines | regions | error branches |\n|---|---|---|---|";
    println!("| module | {head}");
    for (module, shares) in MODULES.iter().zip(&sums).filter(|(_, shares)| shares.lines.1 > 0) {
        shares.print(module);
    }
    all.print("together");
    println!("\n| file below {BAR} % of lines | {head}");
    for (name, shares) in below {
        shares.print(name);
    }
    println!("\nNot reached, line by line: {}", unreached.display());
    std::fs::write(unreached, missed).map_err(|e| e.to_string())
}

fn describe_missed(name: &str, file: &File, missed: &mut String) {
    let errors =
        file.regions.iter().filter(|(span, count)| **count == 0 && file.is_error_branch(**span));
    let mut places: Vec<_> = errors.map(|(span, _)| (span[0], "error")).collect();
    places.extend(file.lines.iter().filter(|(_, count)| **count == 0).map(|(n, _)| (*n, "line")));
    places.sort_unstable();
    for (number, kind) in places {
        let text = file.text[number - 1].trim();
        let _ = writeln!(missed, "{name}:{number}: {kind}: {text}");
    }
}

fn percent(part: usize, whole: usize) -> f64 {
    100.0 * part as f64 / whole.max(1) as f64
}

/// Lines that write, and whether they ran.
pub(super) fn write_sites(figures: &Figures) {
    let (mut reached, mut all, mut missed) = (0, 0, Vec::new());
    let writes = |file: &&str| WRITERS.iter().any(|w| file.starts_with(w));
    for (name, file) in figures.files.iter().filter(|(name, _)| writes(&name.as_str())) {
        for (number, count) in &file.lines {
            let line = &file.text[number - 1];
            if !WRITES.iter().any(|call| line.contains(call)) {
                continue;
            }
            all += 1;
            match count {
                0 => missed.push(format!("{name}:{number}: {}", line.trim())),
                _ => reached += 1,
            }
        }
    }
    println!("{reached} of {all} lines that write were reached; not reached:");
    for line in missed {
        println!("  {line}");
    }
}
