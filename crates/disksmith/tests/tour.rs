//! The guide as a whole, and the examples of its chapter 1 one by one.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail by a panic")]

use std::path::Path;
use std::process::{Command, Output};

fn disksmith(folder: &Path, words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_disksmith"))
        .args(words)
        .current_dir(folder)
        .output()
        .expect("the program runs")
}

fn ok(folder: &Path, words: &[&str]) -> String {
    let output = disksmith(folder, words);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{words:?}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_tour_ends_well() {
    let folder = tempfile::tempdir().unwrap();
    let text = ok(folder.path(), &["tour", "scratch"]);
    for words in [
        "Example 1.1",
        "Example 1.5",
        "Image committed.",
        "Images are identical.",
        "Example 2.2",
        "Example 2.5",
        "Example 2.6",
        "new      disk1.raw: 1 GiB long, 0 B of it on disk",
        "255 heads, 63 sectors/track, 130 cylinders",
        "Disk identifier: 0x000e44e8",
        "bytes 440 to 442, 510 to 511",
        "disk1.raw1               1         130     1044193+  83  Linux",
        "63 2088449 2088387",
        "The tour is over",
    ] {
        assert!(text.contains(words), "no '{words}' in:\n{text}");
    }
    assert!(folder.path().join("scratch/webserver.raw").exists());
    assert!(!disksmith(folder.path(), &["tour", "scratch"]).status.success());
}

#[test]
fn example_1_1_tells_both_sizes() {
    let folder = tempfile::tempdir().unwrap();
    ok(folder.path(), &["create", "-q", "image-qcow.qcow2", "10G"]);
    ok(folder.path(), &["create", "-q", "image-raw.raw", "10G"]);
    let qcow2 = ok(folder.path(), &["info", "image-qcow.qcow2"]);
    for line in [
        "image: image-qcow.qcow2",
        "file format: qcow2",
        "virtual size: 10 GiB (10737418240 bytes)",
        "disk size: 196 KiB",
        "cluster_size: 65536",
    ] {
        assert!(qcow2.lines().any(|l| l == line), "no '{line}' in:\n{qcow2}");
    }
    let raw = ok(folder.path(), &["info", "image-raw.raw"]);
    for line in [
        "file format: raw",
        "virtual size: 10 GiB (10737418240 bytes)",
        "disk size: 0 B",
        "allocated: 0 B of 10 GiB (0.0 %)",
    ] {
        assert!(raw.lines().any(|l| l == line), "no '{line}' in:\n{raw}");
    }
}

#[test]
fn examples_1_2_and_1_3_convert_there_and_back() {
    let folder = tempfile::tempdir().unwrap();
    let raw = folder.path().join("a.raw");
    let bytes: Vec<u8> = (0..3_000_000u32).map(|n| (n.wrapping_mul(n) >> 7) as u8).collect();
    std::fs::write(&raw, &bytes[..2_999_808]).unwrap();
    ok(folder.path(), &["convert", "-f", "raw", "-O", "qcow2", "a.raw", "b.qcow"]);
    assert!(ok(folder.path(), &["info", "b.qcow"]).contains("file format: qcow2"));
    ok(folder.path(), &["convert", "-O", "raw", "b.qcow", "c.raw"]);
    assert!(std::fs::read(folder.path().join("c.raw")).unwrap() == bytes[..2_999_808]);
    let names = std::fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(names, 3, "nothing half made is left");
}

#[test]
fn example_1_4_records_the_backing_format() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("base")).unwrap();
    ok(folder.path(), &["create", "-q", "base/b.qcow2", "10G"]);
    ok(folder.path(), &["create", "-q", "-b", "base/b.qcow2", "top.qcow2"]);
    let info = ok(folder.path(), &["info", "top.qcow2"]);
    assert!(info.contains("backing file: base/b.qcow2\nbacking file format: qcow2\n"), "{info}");
    assert!(info.contains("virtual size: 10 GiB"));
    let commit = ok(folder.path(), &["commit", "top.qcow2"]);
    assert_eq!(commit, "Image committed.\n");
}

#[test]
fn example_1_5_makes_a_raw_image() {
    let folder = tempfile::tempdir().unwrap();
    let line = ok(folder.path(), &["create", "webserver.raw", "10G"]);
    assert_eq!(line, "Formatting 'webserver.raw', fmt=raw size=10737418240\n");
}

#[test]
fn usage_errors_name_the_nearest_verb() {
    let folder = tempfile::tempdir().unwrap();
    let output = disksmith(folder.path(), &["inof", "x"]);
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.starts_with("disksmith: ") && text.contains("info"), "{text}");
    let output = disksmith(folder.path(), &["info", "nosuch"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        String::from_utf8(output.stderr).unwrap(),
        "disksmith: Could not open 'nosuch': No such file or directory\n"
    );
}

#[test]
fn completions_and_manual_pages_know_the_verbs() {
    let folder = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish"] {
        assert!(ok(folder.path(), &["completions", shell]).contains("convert"));
    }
    assert!(ok(folder.path(), &["man"]).contains("convert"));
    assert!(ok(folder.path(), &["man", "info"]).contains("backing"));
}
