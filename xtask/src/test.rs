//! All tests.

use std::process::Command;

use crate::{Outcome, faults, locks, oracles, root, succeed, tidy};

/// Installs the oracles, checks the tree's own rules, then runs every test: with nextest where
/// it is installed, with cargo's own runner otherwise. Further arguments go to the runner.
/// At the end, the small sets of faults and locks with the program that the tests built.
pub(crate) fn run(arguments: &[String]) -> Outcome {
    oracles::run(&[])?;
    tidy::run(&[])?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let nextest = Command::new(&cargo)
        .args(["nextest", "--version"])
        .output()
        .is_ok_and(|output| output.status.success());
    let runner: &[&str] = if nextest { &["nextest", "run"] } else { &["test"] };
    succeed(
        Command::new(&cargo)
            .args(runner)
            .args(["--workspace", "--no-fail-fast"])
            .args(arguments)
            .current_dir(root()),
    )?;
    if nextest {
        // nextest leaves the examples in the documentation out.
        succeed(Command::new(&cargo).args(["test", "--workspace", "--doc"]).current_dir(root()))?;
    }
    faults::run(&["quick".to_string()])?;
    locks::run(&["quick".to_string()])
}
