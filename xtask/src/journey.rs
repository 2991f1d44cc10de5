//! A disk of gigabytes, filled from this machine's own /usr, on its way through all forms.

use std::path::PathBuf;
use std::process::Command;

use crate::{Outcome, bench, root, succeed};

const USAGE: &str = "usage: cargo xtask journey [--size BYTES] [--dir DIR]
  --size BYTES  guest data of the disk (default 3 GiB)
  --dir DIR     where the disk is made (default: the build's target folder)";

/// Runs the test of that name with the disk; see `crates/disksmith/tests/journey.rs`.
pub(crate) fn run(arguments: &[String]) -> Outcome {
    let (mut size, mut folder) = (3u64 << 30, bench::target());
    let mut rest = arguments.iter();
    while let Some(flag) = rest.next() {
        let value = rest.next().ok_or(USAGE)?;
        match flag.as_str() {
            "--size" => size = value.parse().map_err(|_| USAGE)?,
            "--dir" => folder = PathBuf::from(value),
            _ => return Err(USAGE.to_string()),
        }
    }
    std::fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
    let disk = bench::disk(&folder, size)?;
    let disk = std::path::absolute(disk).map_err(|error| error.to_string())?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    succeed(
        Command::new(cargo)
            .args(["test", "--release", "-p", "disksmith", "--test", "journey"])
            .env("DISKSMITH_JOURNEY_DISK", disk)
            .current_dir(root()),
    )
}
