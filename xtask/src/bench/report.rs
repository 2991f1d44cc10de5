//! The results as lines and as a page.

use std::fmt::Write;
use std::path::Path;
use std::process::Command;

use super::cases::{Bench, Who};
use super::measure::{Cost, Measured};

/// Targets for the copies that a bare copy sets the mark for.
const BARE_TARGET: f64 = 1.15;
/// How much larger than qemu-img's a compressed image may be.
const SIZE_TARGET: f64 = 1.02;

/// Ends the part of the page that a run makes anew.
const END: &str = "\n<!-- end of what `cargo xtask bench --report` writes -->\n";

/// One line for the terminal.
pub(super) fn line(result: &Measured) -> String {
    let cost = |who| result.costs.get(&who).copied();
    let mut text = format!("{:28}", result.name);
    for (label, who) in [
        ("qemu-img", Who::Theirs),
        ("ours", Who::Ours),
        ("native", Who::Native),
        ("bare", Who::Bare),
    ] {
        if let Some(cost) = cost(who) {
            let _ = write!(text, " {label} {} ({} CPU)", seconds(cost.wall), seconds(cost.cpu));
        }
    }
    let _ = write!(text, "  ratio {:.2} (at most {})", ratio(result, Who::Ours), result.target);
    if let Some(bare) = cost(Who::Bare) {
        let ours = cost(Who::Ours).unwrap_or_default();
        let _ = write!(text, "  of bare {:.2}", ours.wall / bare.wall);
    }
    if result.sized {
        let (ours, theirs) =
            (cost(Who::Ours).unwrap_or_default(), cost(Who::Theirs).unwrap_or_default());
        let _ = write!(text, "  size {:.3}", ours.size as f64 / theirs.size as f64);
        let _ = write!(text, "  memory {} MiB", ours.memory >> 20);
    }
    text
}

/// Writes the page and the bare numbers.
pub(super) fn write(
    root: &Path,
    bench: &Bench,
    runs: usize,
    results: &[Measured],
) -> crate::Outcome {
    let save = |name: &str, text: &str| {
        let path = root.join(name);
        std::fs::create_dir_all(path.parent().unwrap_or(root))
            .and_then(|()| std::fs::write(&path, text))
            .map_err(|error| format!("{}: {error}", path.display()))
    };
    let old = std::fs::read_to_string(root.join("docs/performance.md")).unwrap_or_default();
    save("docs/performance.md", &replaced(&old, &page(bench, runs, results)))?;
    save("bench/results.tsv", &table(results))
}

/// The page with its measured part made anew; what other programs and people wrote below stays.
fn replaced(old: &str, measured: &str) -> String {
    let rest = old.split_once(END).map_or("", |(_, rest)| rest);
    format!("{measured}{END}{rest}")
}

fn page(bench: &Bench, runs: usize, results: &[Measured]) -> String {
    let mut text = String::from(include_str!("head.md"));
    let _ = writeln!(text, "\n## Where and how\n\n{}", circumstances(bench, runs));
    text.push_str("\n## Every verb beside qemu-img\n\n");
    text.push_str("| verb | qemu-img | CPU | disksmith | CPU | ratio | at most | memory |\n");
    text.push_str("|---|---|---|---|---|---|---|---|\n");
    for result in results {
        let (theirs, ours) = (cost(result, Who::Theirs), cost(result, Who::Ours));
        let ratio = ratio(result, Who::Ours);
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {} | {} MiB |",
            result.name,
            seconds(theirs.wall),
            seconds(theirs.cpu),
            seconds(ours.wall),
            seconds(ours.cpu),
            verdict(ratio, result.target),
            result.target,
            ours.memory >> 20,
        );
    }
    text.push_str("\n## Plain copies beside a bare copy\n\n");
    text.push_str("| job | bare | disksmith | ratio | at most |\n|---|---|---|---|---|\n");
    for result in results.iter().filter(|result| result.costs.contains_key(&Who::Bare)) {
        let (bare, ours) = (cost(result, Who::Bare), cost(result, Who::Ours));
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {BARE_TARGET} |",
            result.name,
            seconds(bare.wall),
            seconds(ours.wall),
            verdict(ours.wall / bare.wall, BARE_TARGET),
        );
    }
    text.push_str("\n## Sizes of compressed images\n\n");
    text.push_str("| job | qemu-img | disksmith | ratio | at most |\n|---|---|---|---|---|\n");
    for result in results.iter().filter(|result| result.name.contains(" -c")) {
        let (theirs, ours) = (cost(result, Who::Theirs), cost(result, Who::Ours));
        let _ = writeln!(
            text,
            "| {} | {} MB | {} MB | {} | {SIZE_TARGET} |",
            result.name,
            theirs.size / 1_000_000,
            ours.size / 1_000_000,
            verdict(ours.size as f64 / theirs.size as f64, SIZE_TARGET),
        );
    }
    text.push_str("\n## Under its own name (durable before it ends)\n\n");
    text.push_str("| job | qemu-img (not durable) | disksmith | ratio |\n|---|---|---|---|\n");
    for result in results.iter().filter(|result| result.costs.contains_key(&Who::Native)) {
        let _ = writeln!(
            text,
            "| {} | {} | {} | {:.2} |",
            result.name,
            seconds(cost(result, Who::Theirs).wall),
            seconds(cost(result, Who::Native).wall),
            ratio(result, Who::Native),
        );
    }
    text
}

fn table(results: &[Measured]) -> String {
    let mut text =
        String::from("case\tprogram\twall_s\tcpu_s\tmemory_bytes\tout_bytes\targuments\n");
    for result in results {
        for who in [Who::Theirs, Who::Ours, Who::Native, Who::Bare] {
            if let Some(cost) = result.costs.get(&who) {
                let _ = writeln!(
                    text,
                    "{}\t{who:?}\t{:.4}\t{:.3}\t{}\t{}\t{}",
                    result.name, cost.wall, cost.cpu, cost.memory, cost.size, result.arguments
                );
            }
        }
    }
    text
}

fn circumstances(bench: &Bench, runs: usize) -> String {
    let first = |file: &str, key: &str| {
        std::fs::read_to_string(file)
            .unwrap_or_default()
            .lines()
            .find(|line| line.starts_with(key))
            .and_then(|line| line.split_once(':'))
            .map(|(_, value)| value.trim().to_string())
            .unwrap_or_default()
    };
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let version = Command::new("qemu-img").arg("--version").output().map_or_else(
        |_| String::new(),
        |output| String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or("").to_string(),
    );
    let size = std::fs::metadata(&bench.source).map_or(0, |metadata| metadata.len());
    let kind =
        Command::new("stat").args(["-f", "-c", "%T"]).arg(&bench.folder).output().map_or_else(
            |_| String::new(),
            |output| String::from_utf8_lossy(&output.stdout).trim().to_string(),
        );
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    format!(
        "- {cores} cores, {}, Linux {}\n- {version}\n- images on {kind}; the disk is {size} bytes, an ext4 filesystem filled from /usr\n- medians of {runs} interleaved runs; load average at the end {}",
        first("/proc/cpuinfo", "model name"),
        std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim(),
        load.split(' ').next().unwrap_or(""),
    )
}

fn cost(result: &Measured, who: Who) -> Cost {
    result.costs.get(&who).copied().unwrap_or_default()
}

fn ratio(result: &Measured, who: Who) -> f64 {
    cost(result, who).wall / cost(result, Who::Theirs).wall
}

/// A ratio, marked where it misses its target.
fn verdict(ratio: f64, target: f64) -> String {
    match ratio <= target {
        true => format!("{ratio:.2}"),
        false => format!("**{ratio:.2}**"),
    }
}

fn seconds(value: f64) -> String {
    match value {
        v if v < 0.1 => format!("{:.1} ms", v * 1000.0),
        v => format!("{v:.2} s"),
    }
}
