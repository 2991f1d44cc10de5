//! The entry point: which personality was called.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use crate::face::Face;
use crate::{native, qemu_img, signals};

/// Runs the program with the arguments of the process.
///
/// Called as `qemu-img` (by a link, or as `disksmith qemu-img …`) it is a drop-in for that
/// program; else it is `disksmith`.
pub fn main() -> ExitCode {
    let mut arguments: Vec<String> = std::env::args_os().map(lossless).collect();
    let name = arguments.first().map(|name| base_name(name)).unwrap_or_default();
    if !arguments.is_empty() {
        arguments.remove(0);
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

/// Names that are no UTF-8 would need byte strings all the way down; they are shown with
/// replacement characters and will then not be found, which the error says.
fn lossless(argument: OsString) -> String {
    argument.into_string().unwrap_or_else(|raw| raw.to_string_lossy().into_owned())
}

fn base_name(name: &str) -> String {
    Path::new(name).file_name().unwrap_or_default().to_string_lossy().into_owned()
}
