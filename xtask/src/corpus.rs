//! e2fsprogs' own damaged filesystems: fetched as Debian's source package, then checked and repaired.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{Outcome, root, succeed};

/// The source package, and what of it is wanted.
const PACKAGE: &str = "e2fsprogs";

/// Fetches the corpus where it is not there yet and runs the test on it.
pub(crate) fn run(arguments: &[String]) -> Outcome {
    let folder = root().join("target/corpus");
    let tests = match find_tests(&folder) {
        Some(tests) => tests,
        None => {
            fetch(&folder)?;
            find_tests(&folder).ok_or("the source package has no folder 'tests'")?
        }
    };
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    succeed(
        Command::new(cargo)
            .args(["test", "--release", "-p", "disksmith-filesystems", "--test", "ext_corpus"])
            .args(["--", "--nocapture"])
            .args(arguments)
            .env("E2FSPROGS_TESTS", tests)
            .current_dir(root()),
    )
}

fn find_tests(folder: &Path) -> Option<PathBuf> {
    let entries = fs::read_dir(folder).ok()?.flatten();
    entries.map(|entry| entry.path().join("tests")).find(|tests| tests.is_dir())
}

/// The system's own sources with `deb` turned into `deb-src`, in a place of our own.
fn fetch(folder: &Path) -> Outcome {
    let apt = folder.join("apt");
    let told = |error: std::io::Error| format!("{}: {error}", apt.display());
    fs::create_dir_all(apt.join("parts")).map_err(told)?;
    fs::create_dir_all(apt.join("lists/partial")).map_err(told)?;
    let mut sources = vec![PathBuf::from("/etc/apt/sources.list")];
    if let Ok(entries) = fs::read_dir("/etc/apt/sources.list.d") {
        sources.extend(entries.flatten().map(|entry| entry.path()));
    }
    for source in sources {
        let (Ok(text), Some(name)) = (fs::read_to_string(&source), source.file_name()) else {
            continue;
        };
        let lines: Vec<String> = text.lines().map(with_sources).collect();
        fs::write(apt.join("parts").join(name), lines.join("\n") + "\n").map_err(told)?;
    }
    let get = || {
        let mut command = Command::new("apt-get");
        command
            .args(["-o", "Dir::Etc::SourceList=/dev/null"])
            .args(["-o", &format!("Dir::Etc::SourceParts={}", apt.join("parts").display())])
            .args(["-o", &format!("Dir::State::Lists={}", apt.join("lists").display())])
            .current_dir(folder);
        command
    };
    // Sources of others may have no source packages: what counts is that ours is found.
    let _ = succeed(get().args(["update", "-q"]));
    // Of the version that is judged by: others may be on offer.
    let package = format!("{PACKAGE}={}", installed_source()?);
    succeed(get().args(["source", "-q", "--download-only", &package]))?;
    let archive = fs::read_dir(folder)
        .map_err(told)?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.to_string_lossy().contains(".orig.tar") && !is_signature(path))
        .ok_or("apt-get brought no archive")?;
    succeed(
        Command::new("tar")
            .arg("xf")
            .arg(archive)
            .args(["--wildcards", "*/tests/*"])
            .current_dir(folder),
    )
}

/// The version of the sources that the installed package was built from.
fn installed_source() -> Result<String, String> {
    let query = ["-W", "-f", "${source:Version}", PACKAGE];
    let output = Command::new("dpkg-query").args(query).output().map_err(|e| e.to_string())?;
    String::from_utf8(output.stdout).map_err(|e| e.to_string())
}

fn is_signature(path: &Path) -> bool {
    path.extension().is_some_and(|suffix| suffix == "asc")
}

/// One line of a list of package sources.
fn with_sources(line: &str) -> String {
    match (line.strip_prefix("deb "), line.strip_prefix("Types:")) {
        (Some(rest), _) => format!("deb-src {rest}"),
        (_, Some(_)) => "Types: deb-src".into(),
        _ => line.into(),
    }
}
