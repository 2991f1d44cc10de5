//! What of the parsers and writers the tests run through: lines, regions, ways out of errors.

mod figures;
mod report;
mod tools;

use std::path::{Path, PathBuf};
use std::process::Command;

use self::tools::Tools;
use crate::{Outcome, root, succeed};

const PACKAGES: &[&str] = &[
    "disksmith-formats",
    "disksmith-partitions",
    "disksmith-filesystems",
    "disksmith-crypt",
    "disksmith-codec",
    "disksmith-open",
    "disksmith-operations",
    "disksmith-export",
    "disksmith",
    "disksmith-fuzz-harness",
];
/// What the crash simulators run over, and how their tests are called.
const WRITING: &[&str] =
    &["disksmith-formats", "disksmith-operations", "disksmith-partitions", "disksmith-filesystems"];
const CRASH: &str = "*crash*";
/// What cargo calls instead of rustc for the crates of the workspace, and for them alone: all
/// others are taken as they are built already, and run at full speed.
const WRAPPER: &str = "#!/bin/sh\nexec \"$@\" -C instrument-coverage\n";

/// `cargo xtask coverage [ARGUMENTS FOR CARGO TEST]`: what of the parsers is reached by all tests
/// or those chosen; `cargo xtask coverage crash`: lines that write, and whether a simulated power
/// cut was near them.
pub(crate) fn run(arguments: &[String]) -> Outcome {
    let crash = arguments.first().is_some_and(|a| a == "crash");
    let chosen: Vec<String> = match (crash, arguments) {
        (true, _) => packages(WRITING).chain(["--test", CRASH]).map(String::from).collect(),
        (false, []) => packages(PACKAGES).chain(["--tests"]).map(String::from).collect(),
        (false, chosen) => chosen.to_vec(),
    };
    let tools = Tools::find()?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or(root().join("target"), PathBuf::from);
    let folder = target.join("coverage");
    let profiles = folder.join("profiles");
    let _ = std::fs::remove_dir_all(&profiles);
    std::fs::create_dir_all(&profiles).map_err(|e| e.to_string())?;
    let cargo = Cargo { wrapper: wrapper(&folder)?, profiles: profiles.clone(), target, chosen };
    let executables = cargo.build()?;
    let tested = cargo.test();
    let figures = tools.figures(&profiles, &executables)?;
    match crash {
        true => report::write_sites(&figures),
        false => report::modules(&figures, &folder.join("unreached.txt"))?,
    }
    tested.map_err(|_| "tests failed, see above; the figures count what they ran".to_string())
}

fn packages<'a>(names: &'a [&'a str]) -> impl Iterator<Item = &'a str> {
    names.iter().flat_map(|package| ["-p", package])
}

fn wrapper(folder: &Path) -> Result<PathBuf, String> {
    use std::os::unix::fs::PermissionsExt;
    let path = folder.join("rustc");
    std::fs::write(&path, WRAPPER)
        .and_then(|()| std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)))
        .map_err(|e| format!("{}: {e}", path.display()))?;
    Ok(path)
}

struct Cargo {
    wrapper: PathBuf,
    profiles: PathBuf,
    target: PathBuf,
    chosen: Vec<String>,
}

impl Cargo {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
        command
            .arg("test")
            .args(arguments)
            .args(&self.chosen)
            .env("RUSTC_WORKSPACE_WRAPPER", &self.wrapper)
            // Lines come from the coverage map: debug information would only take time.
            .env("CARGO_PROFILE_DEV_DEBUG", "0")
            .env("CARGO_PROFILE_TEST_DEBUG", "0")
            // The program runs thousands of times: four files of each executable take them all.
            .env("LLVM_PROFILE_FILE", self.profiles.join("%4m.profraw"))
            .current_dir(root());
        command
    }

    /// Builds the tests; answers their executables.
    fn build(&self) -> Result<Vec<PathBuf>, String> {
        let output = self.command(&["--no-run"]).output().map_err(|e| e.to_string())?;
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        if !output.status.success() {
            return Err(text);
        }
        let path = |line: &str| {
            let inside = line.split_once('(')?.1.split_once(')')?.0;
            line.trim_start().starts_with("Executable").then(|| root().join(inside))
        };
        let mut executables: Vec<PathBuf> = text.lines().filter_map(path).collect();
        // Tests of the program run it beside them. Without those it may be of another build.
        let program = self.target.join("debug/disksmith");
        executables.extend(is_instrumented(&program).then_some(program));
        Ok(executables)
    }

    fn test(&self) -> Outcome {
        succeed(&mut self.command(&["-q", "--no-fail-fast"]))
    }
}

/// Whether there is a program that has the section of the coverage map.
fn is_instrumented(program: &Path) -> bool {
    const SECTION: &[u8] = b"__llvm_covmap";
    // Names of sections lie near the end.
    std::fs::read(program)
        .is_ok_and(|bytes| bytes.windows(SECTION.len()).rev().any(|w| w == SECTION))
}
