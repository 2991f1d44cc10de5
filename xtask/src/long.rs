//! The long runs: full matrices, simulated power cuts by the million.

use std::process::Command;

use crate::{Outcome, root, succeed};

/// Every test with its full matrix.
pub(crate) fn all(arguments: &[String]) -> Outcome {
    release_tests(&["--workspace"], arguments, &[("DISKSMITH_LONG", "1")])
}

/// The crash simulator on all workloads, for at least so many states.
pub(crate) fn crash(arguments: &[String]) -> Outcome {
    let states = arguments.first().map_or("1000000", String::as_str);
    crash_tests(&["--workspace", "--test", "crash*", "--test", "ext_crash"], states)
}

/// The same for ext2, ext3 and ext4 alone.
pub(crate) fn crash_ext(arguments: &[String]) -> Outcome {
    let states = arguments.first().map_or("100000", String::as_str);
    crash_tests(&["--package", "disksmith-filesystems", "--test", "ext_crash"], states)
}

fn crash_tests(what: &[&str], states: &str) -> Outcome {
    release_tests(
        what,
        &["--".into(), "--nocapture".into()],
        &[("DISKSMITH_LONG", "1"), ("DISKSMITH_CRASH_STATES", states)],
    )
}

fn release_tests(what: &[&str], arguments: &[String], variables: &[(&str, &str)]) -> Outcome {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    succeed(
        Command::new(cargo)
            .args(["test", "--release", "--no-fail-fast"])
            .args(what)
            .args(arguments)
            .envs(variables.iter().copied())
            .current_dir(root()),
    )
}
