//! Who holds a lock, as far as /proc tells.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The process that holds a lock on `byte` of the file through another descriptor:
/// `qemu-io (process 4242)`. `None` where /proc does not tell.
pub(crate) fn find(file: &File, byte: i64) -> Option<String> {
    let wanted = file.metadata().ok()?;
    let me = std::process::id();
    for process in fs::read_dir("/proc").ok()?.flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|n| n.parse::<u32>().ok()) else {
            continue;
        };
        let Ok(descriptors) = fs::read_dir(process.path().join("fd")) else { continue };
        for descriptor in descriptors.flatten() {
            let same = fs::metadata(descriptor.path())
                .is_ok_and(|m| (m.dev(), m.ino()) == (wanted.dev(), wanted.ino()));
            if !same || (pid == me && descriptor.file_name() == *own_number(file)) {
                continue;
            }
            let info = process.path().join("fdinfo").join(descriptor.file_name());
            if locks_byte(&info, byte) {
                return Some(describe(&process.path(), pid));
            }
        }
    }
    None
}

fn own_number(file: &File) -> std::ffi::OsString {
    use std::os::fd::AsRawFd;
    file.as_raw_fd().to_string().into()
}

/// Lines of interest: `lock: 1: OFDLCK ADVISORY READ -1 08:01:131 100 100`.
fn locks_byte(info: &Path, byte: i64) -> bool {
    let Ok(text) = fs::read_to_string(info) else { return false };
    text.lines().filter(|line| line.starts_with("lock:")).any(|line| {
        let words: Vec<_> = line.split_whitespace().collect();
        let [.., start, end] = words.as_slice() else { return false };
        let end = if *end == "EOF" { Some(i64::MAX) } else { end.parse().ok() };
        start.parse::<i64>().is_ok_and(|s| s <= byte) && end.is_some_and(|e| byte <= e)
    })
}

fn describe(process: &Path, pid: u32) -> String {
    let name = fs::read_to_string(process.join("comm")).unwrap_or_default();
    match name.trim() {
        "" => format!("process {pid}"),
        name => format!("{name} (process {pid})"),
    }
}
