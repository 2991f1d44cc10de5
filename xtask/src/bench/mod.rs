//! `cargo xtask bench`: every verb side by side with qemu-img, and the results as a page.

mod bare;
mod cases;
mod disk;
mod measure;
mod report;

use std::path::PathBuf;
use std::process::Command;

use crate::Outcome;

const USAGE: &str =
    "usage: cargo xtask bench [--dir DIR] [--runs N] [--size BYTES] [--only TEXT] [--report]
  --dir DIR     where the images are made (default: the build's target folder; needs five times the size)
  --runs N      interleaved runs of each case (default 5)
  --size BYTES  guest data of the test disk (default 3 GiB)
  --only TEXT   only cases whose names contain TEXT
  --report      write docs/performance.md and bench/results.tsv";

/// What was asked for.
struct Settings {
    dir: PathBuf,
    runs: usize,
    size: u64,
    only: String,
    report: bool,
}

/// Measures.
pub(crate) fn run(arguments: &[String]) -> Outcome {
    let settings = parse(arguments)?;
    let program = build()?;
    let folder = settings.dir.join("disksmith-bench");
    std::fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
    let result = measure_all(&settings, &program, &folder);
    let _ = std::fs::remove_dir_all(&folder);
    result
}

/// The copy that sets the mark: two threads, nothing else. Called by the bench itself.
pub(crate) fn bare_copy(arguments: &[String]) -> Outcome {
    match arguments {
        [from, to] => bare::copy(from.as_ref(), to.as_ref()).map_err(|error| error.to_string()),
        _ => Err("usage: cargo xtask bare-copy FROM TO".to_string()),
    }
}

fn measure_all(
    settings: &Settings,
    program: &std::path::Path,
    folder: &std::path::Path,
) -> Outcome {
    let source = disk::make(&settings.dir, settings.size)?;
    let bench =
        cases::Bench { program: program.to_path_buf(), folder: folder.to_path_buf(), source };
    bench.prepare()?;
    let mut results = Vec::new();
    for case in cases::all() {
        if !case.name.contains(&settings.only) {
            continue;
        }
        // What takes qemu-img minutes is run less often.
        let runs = if case.slow { settings.runs.div_ceil(2) } else { settings.runs };
        let result = measure::interleaved(&bench, &case, runs)?;
        println!("{}", report::line(&result));
        results.push(result);
        if settings.report {
            report::write(&crate::root(), &bench, settings.runs, &results)?;
        }
    }
    Ok(())
}

fn build() -> Result<PathBuf, String> {
    let root = crate::root();
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    crate::succeed(
        Command::new(cargo).args(["build", "--release", "-p", "disksmith"]).current_dir(&root),
    )?;
    Ok(target().join("release/disksmith"))
}

fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or(crate::root().join("target"), PathBuf::from)
}

fn parse(arguments: &[String]) -> Result<Settings, String> {
    let mut settings = Settings {
        dir: target(),
        runs: 5,
        size: 3 << 30,
        only: String::new(),
        report: false,
    };
    let mut rest = arguments.iter();
    while let Some(flag) = rest.next() {
        if flag == "--report" {
            settings.report = true;
            continue;
        }
        let value = rest.next().ok_or(USAGE)?;
        match flag.as_str() {
            "--dir" => settings.dir = value.into(),
            "--runs" => settings.runs = value.parse().map_err(|_| USAGE)?,
            "--size" => settings.size = value.parse().map_err(|_| USAGE)?,
            "--only" => settings.only.clone_from(value),
            _ => return Err(USAGE.to_string()),
        }
    }
    Ok(settings)
}
