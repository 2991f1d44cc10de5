//! LLVM's readers of profiles: which ones there are, and what they answer.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::figures::Figures;
use crate::oracles;

/// The oldest LLVM seen to read the profiles of rustc 1.95, and the package that has it.
const OLDEST: u32 = 19;
const PACKAGE: &str = "llvm-19";
/// The standard library, what is not ours, and files that hold tests only.
const IGNORED: &str = r"/registry/|/rustc/|/tests/|/tests\.rs$|/testkit/|/fuzz/";

pub(super) struct Tools {
    profdata: PathBuf,
    cov: PathBuf,
}

impl Tools {
    /// Rustup's component, Debian's package of rustc's own LLVM, or else the newest there is;
    /// where there is none, one is installed.
    pub(super) fn find() -> Result<Self, String> {
        let about = printed("-vV")?;
        let line = |name: &str| about.lines().find_map(|line| line.strip_prefix(name));
        let major = line("LLVM version: ").and_then(|v| v.split('.').next()).unwrap_or_default();
        let component = Path::new(printed("--print=sysroot")?.trim())
            .join("lib/rustlib")
            .join(line("host: ").unwrap_or_default())
            .join("bin");
        let same = PathBuf::from(format!("/usr/lib/llvm-{major}/bin"));
        if let Some(tools) =
            [component, same].into_iter().chain(packages()).find_map(|folder| Self::inside(&folder))
        {
            return Ok(tools);
        }
        let folder = format!("/usr/lib/{PACKAGE}/bin");
        oracles::ensure(&[(&format!("{folder}/llvm-cov"), PACKAGE)])
            .map_err(|why| format!("rustup's component llvm-tools is not there; {why}"))?;
        Self::inside(Path::new(&folder)).ok_or(format!("{PACKAGE} has no llvm-profdata"))
    }

    fn inside(folder: &Path) -> Option<Self> {
        let tools = Self { profdata: folder.join("llvm-profdata"), cov: folder.join("llvm-cov") };
        (tools.profdata.exists() && tools.cov.exists()).then_some(tools)
    }

    /// What ran of the executables, and how often.
    pub(super) fn figures(
        &self,
        profiles: &Path,
        executables: &[PathBuf],
    ) -> Result<Figures, String> {
        let merged = profiles.with_extension("profdata");
        let mut merge = Command::new(&self.profdata);
        merge.args(["merge", "-sparse", "-o"]).arg(&merged).arg(profiles);
        self.output(&mut merge)?;
        let mut figures = Figures::default();
        figures.take_lines(&self.exported("-format=lcov", &merged, executables)?);
        figures.take_regions(&self.exported("-format=text", &merged, executables)?)?;
        Ok(figures)
    }

    fn exported(
        &self,
        format: &str,
        merged: &Path,
        executables: &[PathBuf],
    ) -> Result<String, String> {
        let mut command = Command::new(&self.cov);
        command.args(["export", format, "-skip-expansions", "-ignore-filename-regex", IGNORED]);
        command.arg("-instr-profile").arg(merged);
        for (number, executable) in executables.iter().enumerate() {
            if number > 0 {
                command.arg("-object");
            }
            command.arg(executable);
        }
        let output = self.output(&mut command)?;
        String::from_utf8(output.stdout).map_err(|e| e.to_string())
    }

    fn output(&self, command: &mut Command) -> Result<Output, String> {
        let output = command.output().map_err(|e| format!("{command:?}: {e}"))?;
        if output.status.success() {
            return Ok(output);
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let why = match said.contains("version") {
            true => "this LLVM cannot read what this rustc writes",
            false => "failed",
        };
        Err(format!("{}: {why}:\n{said}", self.cov.display()))
    }
}

/// Debian's packages that are new enough, the newest first.
fn packages() -> Vec<PathBuf> {
    let entries = std::fs::read_dir("/usr/lib").into_iter().flatten().flatten();
    let mut found: Vec<(u32, PathBuf)> = entries
        .filter_map(|entry| {
            let major = entry.file_name().to_str()?.strip_prefix("llvm-")?.parse().ok()?;
            (major >= OLDEST).then(|| (major, entry.path().join("bin")))
        })
        .collect();
    found.sort_unstable_by(|a, b| b.cmp(a));
    found.into_iter().map(|(_, folder)| folder).collect()
}

/// What rustc says when asked.
fn printed(question: &str) -> Result<String, String> {
    let output = Command::new("rustc").arg(question).output().map_err(|e| e.to_string())?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
