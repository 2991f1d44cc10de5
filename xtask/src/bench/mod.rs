//! `cargo xtask bench`: jobs side by side with the programs that do the same, and the results as
//! a page with plots.

mod bare;
mod case;
mod disk;
mod measure;
mod page;
mod plot;
mod results;
mod suites;

use std::path::{Path, PathBuf};
use std::process::Command;

use self::case::Suite;
use self::measure::Place;
use self::results::Results;
use crate::Outcome;

const USAGE: &str =
    "usage: cargo xtask bench [--suite NAME] [--only TEXT] [--dir DIR] [--runs N] [--size BYTES] [--keep] [--report] [--list]
  --suite NAME  only this suite (default: all)
  --only TEXT   only cases whose names contain TEXT
  --dir DIR     where files are made (default: the build's target folder; needs five times the size)
  --runs N      interleaved runs of each case (default 5)
  --size BYTES  guest data of the test disk (default 3 GiB)
  --keep        leave the prepared files for the next run
  --report      write bench/SUITE.tsv, docs/performance.md and its plots; parts that are not
                measured in this run stay as they were
  --list        name suites and cases, measure nothing";

/// What was asked for.
struct Settings {
    suite: Option<String>,
    only: String,
    dir: PathBuf,
    runs: usize,
    size: u64,
    keep: bool,
    report: bool,
    list: bool,
}

/// Measures.
pub(crate) fn run(arguments: &[String]) -> Outcome {
    let settings = parse(arguments)?;
    let mut all = suites::all();
    let wanted = |suite: &Suite| settings.suite.as_ref().is_none_or(|name| name == suite.name);
    if !all.iter().any(wanted) {
        return Err(USAGE.to_string());
    }
    if settings.list {
        for suite in all.iter().filter(|suite| wanted(suite)) {
            suite.cases.iter().for_each(|case| println!("{}\t{}", suite.name, case.name));
        }
        return Ok(());
    }
    let program = build()?;
    for suite in all.iter().filter(|suite| wanted(suite)) {
        if suite.cases.iter().any(|case| case.name.contains(&settings.only)) {
            run_suite(&settings, &program, suite)?;
        }
    }
    if settings.report {
        page::write(&mut all)?;
    }
    Ok(())
}

/// The copy that sets the mark: two threads, nothing else. Called by the bench itself.
pub(crate) fn bare_copy(arguments: &[String]) -> Outcome {
    match arguments {
        [from, to] => bare::copy(from.as_ref(), to.as_ref()).map_err(|error| error.to_string()),
        _ => Err("usage: cargo xtask bare-copy FROM TO".to_string()),
    }
}

/// A raw disk with so many bytes of data from /usr: the one that is in `dir` already, or a new one.
pub(crate) fn disk(dir: &Path, bytes: u64) -> Result<PathBuf, String> {
    disk::make(dir, bytes)
}

fn run_suite(settings: &Settings, program: &Path, suite: &Suite) -> Outcome {
    let folder = settings.dir.join(format!("disksmith-bench-{}", suite.name));
    std::fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
    let result = prepare(settings, program, suite, &folder)
        .and_then(|place| measure_all(settings, suite, &place));
    if !settings.keep {
        let _ = std::fs::remove_dir_all(&folder);
    }
    result
}

fn measure_all(settings: &Settings, suite: &Suite, place: &Place<'_>) -> Outcome {
    let mut stored = Results::load(suite);
    for case in suite.cases.iter().filter(|case| case.name.contains(&settings.only)) {
        let runs = if case.slow { settings.runs.div_ceil(2) } else { settings.runs };
        let costs = measure::interleaved(place, case, runs)?;
        print!("{}", page::lines(case, &costs));
        stored.put(case, &costs);
        if settings.report {
            stored.circumstances = results::circumstances(place.folder, settings.runs);
            stored.save(suite)?;
        }
    }
    Ok(())
}

/// Puts the programs and the prepared files into the scratch folder.
fn prepare<'a>(
    settings: &Settings,
    program: &Path,
    suite: &Suite,
    folder: &'a Path,
) -> Result<Place<'a>, String> {
    let text = |error: std::io::Error| error.to_string();
    let programs = folder.join("programs");
    std::fs::create_dir_all(&programs).map_err(text)?;
    let own = std::env::current_exe().map_err(text)?;
    link(program, &programs.join("disksmith"))?;
    link(&own, &programs.join("xtask"))?;
    let place = Place { folder, path: format!("{}:{}", programs.display(), crate::search_path()) };
    let stamp = folder.join("prepared");
    if !stamp.exists() {
        if suite.disk {
            link(&disk::make(&settings.dir, settings.size)?, &folder.join("src.raw"))?;
        }
        place.script(&suite.prepare, "")?;
        std::fs::write(&stamp, "").map_err(text)?;
    }
    Ok(place)
}

fn link(to: &Path, name: &Path) -> Outcome {
    let _ = std::fs::remove_file(name);
    let to = std::path::absolute(to).map_err(|error| error.to_string())?;
    std::os::unix::fs::symlink(to, name).map_err(|error| format!("{}: {error}", name.display()))
}

fn build() -> Result<PathBuf, String> {
    let root = crate::root();
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    crate::succeed(
        Command::new(cargo).args(["build", "--release", "-p", "disksmith"]).current_dir(&root),
    )?;
    Ok(target().join("release/disksmith"))
}

/// The build's target folder.
pub(crate) fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or(crate::root().join("target"), PathBuf::from)
}

fn parse(arguments: &[String]) -> Result<Settings, String> {
    let mut settings = Settings {
        suite: None,
        only: String::new(),
        dir: target(),
        runs: 5,
        size: 3 << 30,
        keep: false,
        report: false,
        list: false,
    };
    let mut rest = arguments.iter();
    while let Some(flag) = rest.next() {
        match flag.as_str() {
            "--keep" => settings.keep = true,
            "--report" => settings.report = true,
            "--list" => settings.list = true,
            _ => {
                let value = rest.next().ok_or(USAGE)?;
                match flag.as_str() {
                    "--suite" => settings.suite = Some(value.clone()),
                    "--only" => settings.only.clone_from(value),
                    "--dir" => settings.dir = value.into(),
                    "--runs" => settings.runs = value.parse().map_err(|_| USAGE)?,
                    "--size" => settings.size = value.parse().map_err(|_| USAGE)?,
                    _ => return Err(USAGE.to_string()),
                }
            }
        }
    }
    Ok(settings)
}
