//! Independent tools, called.

use std::path::Path;
use std::process::{Command, Output};

/// Runs a tool. A tool that is missing fails the test and names its Debian package.
///
/// # Panics
/// When the tool cannot be started.
pub fn run(tool: &str, arguments: &[&str]) -> Output {
    run_in(Path::new("."), tool, arguments)
}

/// Runs a tool in a folder.
///
/// # Panics
/// When the tool cannot be started.
pub fn run_in(folder: &Path, tool: &str, arguments: &[&str]) -> Output {
    Command::new(tool)
        .args(arguments)
        .current_dir(folder)
        .env("PATH", path())
        .env("LC_ALL", "C")
        .output()
        .unwrap_or_else(|error| panic!("{tool}: {error}; run `cargo xtask oracles` to install it"))
}

/// Runs a tool that must succeed; answers what it printed.
///
/// # Panics
/// When it fails.
pub fn succeed(tool: &str, arguments: &[&str]) -> String {
    let output = run(tool, arguments);
    assert!(
        output.status.success(),
        "{tool} {arguments:?} ended with {}:\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The verdict of `qemu-img check`: its exit status and all it printed.
pub fn qemu_check(format: &str, image: &Path) -> (i32, String) {
    // QEMU looks for an external data file in its working directory.
    let folder = image.parent().unwrap_or(Path::new("."));
    let output = run_in(folder, "qemu-img", &["check", "-f", format, &image.to_string_lossy()]);
    let text = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&text).into_owned())
}

/// Administrators' folders are searched too.
fn path() -> String {
    format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default())
}
