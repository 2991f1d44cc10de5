//! The entry point: which personality was called.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Command, ExitCode};

use disksmith_disk::names;

use crate::face::Face;
use crate::{native, qemu_img, signals};

/// The only argument of the process that thaws again what a copy has frozen.
const KEEP_FROZEN: &str = "--keep-frozen";

/// Runs the program with the arguments of the process.
///
/// Called as `qemu-img` (by a link, or as `disksmith qemu-img …`) it is a drop-in for that
/// program; else it is `disksmith`.
pub fn main() -> ExitCode {
    let mut arguments: Vec<String> =
        std::env::args_os().map(|word| names::to_text(word.as_bytes())).collect();
    let name = arguments.first().map(|name| base_name(name)).unwrap_or_default();
    if !arguments.is_empty() {
        arguments.remove(0);
    }
    if arguments.first().is_some_and(|word| word == KEEP_FROZEN) {
        return ExitCode::from(u8::from(disksmith_host::keep_frozen().is_err()));
    }
    signals::install();
    let status = if name == "qemu-img" {
        qemu_img::run(&Face::qemu_img(&name), &arguments)
    } else if arguments.first().is_some_and(|word| word == "qemu-img") {
        qemu_img::run(&Face::qemu_img("qemu-img"), &arguments[1..])
    } else {
        native::run(&Face::native("disksmith"), &arguments)
    };
    ExitCode::from(status)
}

/// How this program starts itself as the process that freezes and thaws.
pub(crate) fn keeper() -> Command {
    let program = std::env::current_exe().ok().filter(|path| path.exists());
    let mut command = Command::new(program.unwrap_or_else(|| "/proc/self/exe".into()));
    command.arg(KEEP_FROZEN);
    command
}

fn base_name(name: &str) -> String {
    Path::new(name).file_name().unwrap_or_default().to_string_lossy().into_owned()
}
