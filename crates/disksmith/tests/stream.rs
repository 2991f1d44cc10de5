//! Raw bytes to where they can only be written from front to end.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail by a panic")]

use std::process::{Command, Stdio};

fn convert(folder: &std::path::Path, arguments: &[&str]) -> std::process::Output {
    Command::new(env!("CARGO_BIN_EXE_disksmith"))
        .arg("convert")
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

#[test]
fn stdout_pipes_and_devices_take_raw_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let mut content = vec![0u8; 3 << 20];
    for (index, byte) in content[700_000..1_500_000].iter_mut().enumerate() {
        *byte = (index % 251) as u8;
    }
    std::fs::write(path("a.raw"), &content).unwrap();
    assert!(convert(folder.path(), &["-f", "raw", "a.raw", "a.qcow2"]).status.success());

    let output = convert(folder.path(), &["-O", "raw", "a.qcow2", "-"]);
    assert!(output.status.success());
    assert!(output.stdout == content);
    // Several sources, one behind the other.
    let output = convert(folder.path(), &["-O", "raw", "a.qcow2", "a.qcow2", "-"]);
    assert!(output.stdout == [&content[..], &content].concat());

    assert!(Command::new("mkfifo").arg(path("pipe")).status().unwrap().success());
    let read = "cat pipe > got";
    let reader = Command::new("sh").args(["-c", read]).current_dir(folder.path()).spawn();
    assert!(convert(folder.path(), &["-O", "raw", "a.qcow2", "pipe"]).status.success());
    assert!(reader.unwrap().wait().unwrap().success());
    assert!(std::fs::read(path("got")).unwrap() == content);

    assert!(convert(folder.path(), &["-O", "raw", "a.qcow2", "/dev/null"]).status.success());
    use std::os::unix::fs::FileTypeExt;
    assert!(std::fs::metadata("/dev/null").unwrap().file_type().is_char_device());

    let output = convert(folder.path(), &["-O", "qcow2", "a.qcow2", "-"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("front to end"), "{text}");
    assert_eq!(text.lines().count(), 2, "{text}");
}
