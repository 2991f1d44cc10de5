//! What the program may take, whatever the size of the image: memory and time.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail by a panic")]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use disksmith_testkit::Rng;
use wait4::Wait4;

/// Most memory that a conversion may have in use.
const MEMORY: u64 = 128 << 20;
/// What has no data takes no time. So much, twice over, for a busy machine.
const MOMENT: Duration = Duration::from_secs(1);

struct Used {
    memory: u64,
    wall: Duration,
}

fn run(folder: &Path, line: &str) -> Used {
    let started = Instant::now();
    let mut child = Command::new(env!("CARGO_BIN_EXE_disksmith"))
        .args(line.split(' '))
        .current_dir(folder)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let ended = child.wait4().unwrap();
    assert!(ended.status.success(), "{line}: {}", ended.status);
    Used { memory: ended.rusage.maxrss, wall: started.elapsed() }
}

/// The best of a few tries takes at most a moment: other tests run at the same time.
fn within_a_moment(folder: &Path, line: &str) {
    let best = (0..4).map(|_| run(folder, line).wall).min().unwrap();
    assert!(best < MOMENT, "{line} took {best:?}");
}

/// A raw file with data that hardly compresses in its first half, and that does in the second.
fn fill(path: &Path, mebibytes: u64) {
    let file = File::create(path).unwrap();
    let mut rng = Rng::new(7);
    for at in 0..mebibytes {
        let bytes = match at < mebibytes / 2 {
            true => rng.bytes(1 << 20),
            false => vec![at as u8 | 1; 1 << 20],
        };
        file.write_all_at(&bytes, at << 20).unwrap();
    }
}

#[test]
fn conversions_stay_within_their_memory() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let folder = folder.path();
    fill(&folder.join("src.raw"), 192);
    for line in [
        "convert -f raw -O qcow2 src.raw plain.qcow2",
        "convert -f raw -O raw src.raw copy.raw",
        "convert -O raw plain.qcow2 back.raw",
        "convert -f raw -O qcow2 -m 16 -W src.raw out",
        "convert -f raw -O qcow2 -o cluster_size=2M src.raw big.qcow2",
        "convert -f raw -O qcow2 -o cluster_size=512 src.raw small.qcow2",
        "convert -c -f raw -O qcow2 src.raw zlib.qcow2",
        "convert -c -f raw -O qcow2 -o compression_type=zstd,cluster_size=2M -m 16 src.raw zstd.qcow2",
        "convert -O raw zlib.qcow2 out",
        "convert -O qcow2 -m 16 zstd.qcow2 out",
        "convert -f raw -O raw -t none -T none src.raw out",
        "compare -f raw -F qcow2 src.raw zstd.qcow2",
        "qemu-img convert -f raw -O qcow2 src.raw out",
    ] {
        let used = run(folder, line);
        assert!(used.memory < MEMORY, "{line} had {} MiB", used.memory >> 20);
    }
    // Not only little memory, but the right bytes.
    run(folder, "compare -f raw -F raw src.raw back.raw");
    run(folder, "compare -f raw -F qcow2 src.raw zlib.qcow2");
}

#[test]
fn a_tebibyte_of_nothing_converts_at_once() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let folder = folder.path();
    File::create(folder.join("holes.raw")).unwrap().set_len(1 << 40).unwrap();
    within_a_moment(folder, "convert -f raw -O qcow2 holes.raw out.qcow2");
    within_a_moment(folder, "convert -O raw out.qcow2 out.raw");
    within_a_moment(folder, "qemu-img convert -f raw -O qcow2 holes.raw out");
    within_a_moment(folder, "compare -f raw -F qcow2 holes.raw out.qcow2");
    assert_eq!(folder.join("out.raw").metadata().unwrap().len(), 1 << 40);
}

#[test]
fn an_empty_image_of_64_tebibytes_is_made_and_checked_at_once() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let folder = folder.path();
    within_a_moment(folder, "create -q -f qcow2 x 64T");
    within_a_moment(folder, "check -q x");
    within_a_moment(folder, "qemu-img create -q -f qcow2 y 64T");
    within_a_moment(folder, "qemu-img check -q y");
    within_a_moment(folder, "map x");
    within_a_moment(folder, "info x");
}

/// `-t none` opens past the page cache, `directsync` and `writethrough` with every write durable;
/// what is written is the same. A filesystem that cannot is named as qemu-img names it.
#[test]
fn cache_modes_reach_the_kernel() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let folder = folder.path();
    fill(&folder.join("src.raw"), 8);
    // No multiple of a block: the end is written through a larger one.
    File::options()
        .write(true)
        .open(folder.join("src.raw"))
        .unwrap()
        .set_len((8 << 20) - 1536)
        .unwrap();
    for (mode, flags) in [
        ("none", "O_DIRECT"),
        ("directsync", "O_DIRECT"),
        ("directsync", "O_DSYNC"),
        ("writethrough", "O_DSYNC"),
    ] {
        for format in ["raw", "qcow2"] {
            let line = format!("qemu-img convert -f raw -O {format} -t {mode} src.raw out");
            let trace = Command::new("strace")
                .args(["-f", "-e", "trace=openat", env!("CARGO_BIN_EXE_disksmith")])
                .args(line.split(' '))
                .current_dir(folder)
                .output()
                .expect("strace (Debian package strace)");
            assert!(trace.status.success(), "{line}");
            let text = String::from_utf8_lossy(&trace.stderr).into_owned();
            let open = text.lines().any(|call| call.contains("\"out\"") && call.contains(flags));
            assert!(open, "{line} does not open with {flags}:\n{text}");
            let same = ["compare", "-q", "-f", "raw", "-F", format, "src.raw", "out"];
            let same = disksmith_testkit::oracle::run_in(folder, "qemu-img", &same);
            assert!(same.status.success(), "{line}: qemu-img sees another content");
        }
    }
    run(folder, "qemu-img convert -f raw -O raw -T none src.raw again");
    run(folder, "qemu-img compare -f raw -F raw src.raw again");
    for program in [env!("CARGO_BIN_EXE_disksmith"), "qemu-img"] {
        let mut command = Command::new(program);
        if program != "qemu-img" {
            command.arg("qemu-img");
        }
        let refused =
            command.args(["convert", "-f", "raw", "-T", "none", "-O", "raw", "/proc/cpuinfo", "x"]);
        let refused = refused.current_dir(folder).output().unwrap();
        assert_eq!(
            String::from_utf8_lossy(&refused.stderr),
            "qemu-img: Could not open '/proc/cpuinfo': Could not open '/proc/cpuinfo': filesystem does not support O_DIRECT\n",
        );
    }
}
