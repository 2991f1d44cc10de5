//! "Success means durable", as the system sees it: the calls of the real program, in order.
#![allow(clippy::unwrap_used, missing_docs, reason = "helpers of tests fail by a panic")]

use std::path::Path;
use std::process::Command;

use disksmith_testkit::oracle;

/// The program's calls that write, name or sync, in order. All of one process, threads too.
fn calls(folder: &Path, arguments: &[&str]) -> Vec<String> {
    let trace = folder.join("trace");
    let watched = "trace=openat,close,pwrite64,write,ftruncate,fallocate,copy_file_range,\
                   fsync,fdatasync,rename,renameat2";
    let status = Command::new("strace")
        .args(["-f", "-qq", "-y", "-s", "0", "-e", watched, "-o"])
        .arg(&trace)
        .arg(env!("CARGO_BIN_EXE_disksmith"))
        .args(arguments)
        .current_dir(folder)
        .status()
        .expect("strace (Debian package strace)");
    assert!(status.success(), "{arguments:?}");
    let text = std::fs::read_to_string(&trace).unwrap();
    text.lines().filter(|line| line.ends_with(char::is_numeric)).map(String::from).collect()
}

fn last(calls: &[String], what: impl Fn(&str) -> bool) -> Option<usize> {
    calls.iter().rposition(|call| what(call))
}

fn changes(call: &str) -> bool {
    ["pwrite64(", "ftruncate(", "fallocate(", "copy_file_range("].iter().any(|c| call.contains(c))
}

fn syncs(call: &str) -> bool {
    call.contains("fsync(") || call.contains("fdatasync(")
}

#[test]
fn a_new_file_is_whole_and_synced_before_it_has_its_name() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.raw"), vec![7; 300_000]).unwrap();
    for arguments in [
        &["convert", "-O", "qcow2", "a.raw", "out"][..],
        &["convert", "-O", "raw", "a.raw", "out"],
        &["convert", "-c", "-O", "qcow2", "a.raw", "out"],
        &["create", "-f", "qcow2", "out", "1M"],
        &["create", "-f", "raw", "out", "1M"],
        &["dd", "if=a.raw", "of=out", "bs=64k"],
    ] {
        let calls = calls(folder.path(), arguments);
        let named = last(&calls, |c| c.contains("rename") && c.contains("out"));
        let named = named.unwrap_or_else(|| panic!("{arguments:?} names nothing: {calls:#?}"));
        let written = last(&calls, |c| changes(c) && c.contains("out")).unwrap_or(0);
        let synced = last(&calls[..named], |c| syncs(c) && c.contains("partial"));
        assert!(written < named, "{arguments:?} writes after the naming: {calls:#?}");
        assert!(synced.is_some_and(|at| at > written), "{arguments:?}: unsynced: {calls:#?}");
        let folder_synced = last(&calls, |c| syncs(c) && !c.contains("out"));
        assert!(folder_synced.is_some_and(|at| at > named), "{arguments:?}: {calls:#?}");
    }
}

#[test]
fn what_is_changed_in_place_ends_synced() {
    let folder = tempfile::tempdir().unwrap();
    let text = |name: &str| folder.path().join(name).to_str().unwrap().to_string();
    let (base, top) = (text("base.qcow2"), text("top.qcow2"));
    oracle::succeed("qemu-img", &["create", "-q", "-f", "qcow2", &base, "1M"]);
    let backing = ["create", "-q", "-f", "qcow2", "-b", &base, "-F", "qcow2", &top];
    oracle::succeed("qemu-img", &backing);
    oracle::succeed("qemu-io", &["-c", "write -P 7 0 128k", &top]);
    for arguments in [
        &["snapshot", "-c", "one", "top.qcow2"][..],
        &["snapshot", "-a", "one", "top.qcow2"],
        &["snapshot", "-d", "one", "top.qcow2"],
        &["bitmap", "--add", "top.qcow2", "b"],
        &["amend", "-o", "lazy_refcounts=on", "top.qcow2"],
        &["resize", "top.qcow2", "2M"],
        &["commit", "top.qcow2"],
        &["rebase", "-b", "", "top.qcow2"],
        &["check", "-r", "all", "top.qcow2"],
    ] {
        let calls = calls(folder.path(), arguments);
        for name in ["top.qcow2", "base.qcow2"] {
            let Some(written) = last(&calls, |c| changes(c) && c.contains(name)) else { continue };
            let synced = last(&calls, |c| syncs(c) && c.contains(name));
            assert!(synced.is_some_and(|at| at > written), "{arguments:?}, {name}: {calls:#?}");
        }
    }
}
