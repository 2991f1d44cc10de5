//! `fsck`, `label` and `tune` from the command line, with e2fsprogs as the judge.
#![allow(clippy::unwrap_used, missing_docs)]

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Output};

fn ours(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_disksmith")).args(arguments).output().unwrap()
}

fn tool(program: &str, arguments: &[&str]) -> Output {
    Command::new(program)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}; install the package e2fsprogs"))
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A qcow2 image with an ext4 in it, and the name of a raw copy for e2fsprogs.
fn image(folder: &Path) -> (String, String) {
    let name = |file: &str| folder.join(file).to_str().unwrap().to_owned();
    let (image, raw) = (name("disk.qcow2"), name("disk.raw"));
    assert!(ours(&["create", "-q", "-f", "qcow2", &image, "64M"]).status.success());
    assert!(ours(&["mkfs", &image, "--type", "ext4", "--label", "first"]).status.success());
    (image, raw)
}

fn e2fsck(image: &str, raw: &str) -> Option<i32> {
    let _ = fs::remove_file(raw);
    assert!(ours(&["convert", "-O", "raw", image, raw]).status.success());
    tool("e2fsck", &["-fn", raw]).status.code()
}

#[test]
fn damage_is_told_and_mended() {
    let folder = tempfile::tempdir().unwrap();
    let (image, raw) = image(folder.path());
    let clean = ours(&["fsck", &image]);
    assert_eq!(clean.status.code(), Some(0), "{clean:?}");
    assert!(said(&clean).contains("clean"), "{clean:?}");
    // In a raw copy, the free counts of the superblock and the root's link count.
    assert_eq!(e2fsck(&image, &raw), Some(0));
    let file = fs::File::options().read(true).write(true).open(&raw).unwrap();
    file.write_all_at(&[9; 4], 1024 + 12).unwrap();
    let told = ours(&["fsck", "-n", &raw]);
    assert_eq!(told.status.code(), Some(4), "{told:?}");
    let json = ours(&["fsck", "--json", &raw]);
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert!(json["left-count"].as_u64().unwrap() > 0, "{json}");
    let mended = ours(&["fsck", "-y", &raw]);
    assert_eq!(mended.status.code(), Some(1), "{mended:?}");
    assert_eq!(ours(&["fsck", "-p", &raw]).status.code(), Some(0));
    assert_eq!(tool("e2fsck", &["-fn", &raw]).status.code(), Some(0));
    // A superblock that is gone comes back from its copy; what is no filesystem cannot be checked.
    file.write_all_at(&[0; 1024], 1024).unwrap();
    assert_eq!(ours(&["fsck", "-y", &raw]).status.code(), Some(1));
    assert_eq!(tool("e2fsck", &["-fn", &raw]).status.code(), Some(0));
    fs::write(&raw, vec![0; 1 << 20]).unwrap();
    assert_eq!(ours(&["fsck", &raw]).status.code(), Some(8));
}

#[test]
fn labels_and_settings() {
    let folder = tempfile::tempdir().unwrap();
    let (image, raw) = image(folder.path());
    assert_eq!(said(&ours(&["label", &image])), "first\n");
    assert!(ours(&["label", &image, "second"]).status.success());
    assert_eq!(said(&ours(&["label", &image])), "second\n");
    let uuid = "12345678-9abc-def0-1234-56789abcdef0";
    assert!(ours(&["label", &image, "--uuid", uuid]).status.success());
    let tuned =
        ours(&["tune", &image, "-m", "2", "-c", "20", "-e", "remount-ro", "-O", "^has_journal"]);
    assert!(tuned.status.success(), "{tuned:?}");
    assert_eq!(e2fsck(&image, &raw), Some(0));
    let shown = said(&tool("tune2fs", &["-l", &raw]));
    for line in ["second", uuid, "Maximum mount count:      20", "Remount read-only"] {
        assert!(shown.contains(line), "{line}: {shown}");
    }
    assert!(!shown.contains("has_journal"), "{shown}");
    assert!(!ours(&["tune", &image]).status.success());
    assert!(!ours(&["label", &image, "a label of more than sixteen bytes"]).status.success());
}
