//! Images made to do harm: what they name is not opened, what they claim is not believed, and
//! looking at them costs little.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail by a panic")]

use std::io::{Read, Seek};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use wait4::Wait4;

/// Longest that a look may take.
const SECOND: Duration = Duration::from_secs(1);
/// Most memory that a look may have in use, in bytes.
const MEMORY: u64 = 64 << 20;
/// Address space is more: the program itself, libraries and the stacks of threads are in it. What
/// an absurd header asks for would not fit.
const ADDRESSES_KIB: u64 = 192 << 10;
/// Other tests keep the machine busy: the best of so many looks counts for time.
const LOOKS: usize = 3;

fn run(folder: &Path, words: &[&str]) -> Output {
    let mut output = look(folder, words);
    for _ in 1..LOOKS {
        if output.1 < SECOND {
            break;
        }
        let again = look(folder, words);
        assert_eq!(again.0.status, output.0.status, "{words:?} twice");
        output = again;
    }
    let (output, took) = output;
    assert!(took < SECOND, "{words:?} took {took:?}");
    let code = output.status.code();
    assert!(matches!(code, Some(0..=3 | 63)), "{words:?}: {code:?}");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!text.contains("panicked"), "{text}");
    output
}

/// Runs the program with little memory; answers how long it took, too.
fn look(folder: &Path, words: &[&str]) -> (Output, Duration) {
    let script = format!("ulimit -v {ADDRESSES_KIB}; exec timeout 10 \"$@\"");
    let mut files = [tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap()];
    let started = Instant::now();
    let mut child = Command::new("sh")
        .args(["-c", &script, "sh", env!("CARGO_BIN_EXE_disksmith")])
        .args(words)
        .current_dir(folder)
        .stdout(files[0].try_clone().unwrap())
        .stderr(files[1].try_clone().unwrap())
        .spawn()
        .expect("sh runs");
    let ended = child.wait4().unwrap();
    let took = started.elapsed();
    let memory = ended.rusage.maxrss;
    assert!(memory < MEMORY, "{words:?} had {} MiB", memory >> 20);
    let [stdout, stderr] = files.each_mut().map(|file| {
        let mut bytes = Vec::new();
        file.rewind().unwrap();
        file.read_to_end(&mut bytes).unwrap();
        bytes
    });
    (Output { status: ended.status, stdout, stderr }, took)
}

/// A fresh qcow2 of 1 MiB, with bytes replaced.
fn qcow2(folder: &Path, name: &str, changes: &[(usize, &[u8])]) {
    let made = run(folder, &["create", "-q", "-f", "qcow2", name, "1M"]);
    assert!(made.status.success());
    let path = folder.join(name);
    let mut bytes = std::fs::read(&path).unwrap();
    for (at, change) in changes {
        bytes[*at..at + change.len()].copy_from_slice(change);
    }
    std::fs::write(path, bytes).unwrap();
}

/// One that names `backing`: the name is put behind the header.
fn with_backing(folder: &Path, name: &str, backing: &str) {
    const PLACE: usize = 0x400;
    let length = (backing.len() as u32).to_be_bytes();
    qcow2(
        folder,
        name,
        &[(8, &(PLACE as u64).to_be_bytes()), (16, &length), (PLACE, backing.as_bytes())],
    );
}

/// One whose external data file is `data`.
fn with_data_file(folder: &Path, name: &str, data: &str) {
    let mut extension = 0x4441_5441u32.to_be_bytes().to_vec();
    extension.extend((data.len() as u32).to_be_bytes());
    extension.extend(data.as_bytes());
    extension.resize(extension.len().next_multiple_of(8) + 8, 0);
    qcow2(folder, name, &[(72, &4u64.to_be_bytes()), (112, &extension)]);
}

/// Opening a pipe without anybody at its other end, or a file without permission, would show.
fn traps(folder: &Path) -> (String, String) {
    let pipe = folder.join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let secret = folder.join("secret");
    std::fs::write(&secret, "top secret\n").unwrap();
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o000)).unwrap();
    (pipe.display().to_string(), secret.display().to_string())
}

/// CVE-2008-2004, CVE-2015-1850, CVE-2015-5163, CVE-2024-32498, CVE-2024-4467.
#[test]
fn looking_opens_nothing_that_an_image_names() {
    let folder = tempfile::tempdir().unwrap();
    let (pipe, secret) = traps(folder.path());
    let accessed = |path: &str| std::fs::metadata(path).unwrap().accessed().unwrap();
    let before = (accessed(&pipe), accessed(&secret));
    for (number, target) in [&pipe, &secret].into_iter().enumerate() {
        let (backing, data) = (format!("b{number}"), format!("d{number}"));
        with_backing(folder.path(), &backing, target);
        with_data_file(folder.path(), &data, target);
        for image in [&backing, &data] {
            let info = run(folder.path(), &["info", image]);
            assert!(info.status.success(), "{}", String::from_utf8_lossy(&info.stderr));
            assert!(String::from_utf8_lossy(&info.stdout).contains(target.as_str()), "it is told");
            assert!(run(folder.path(), &["qemu-img", "info", image]).status.success());
        }
    }
    assert_eq!(before, (accessed(&pipe), accessed(&secret)));
}

#[test]
fn untrusted_images_may_refer_to_nothing() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("host"), [7; 4096]).unwrap();
    with_backing(folder.path(), "b", "host");
    with_data_file(folder.path(), "d", "host");
    for words in [
        &["convert", "--untrusted", "-O", "raw", "b", "out"][..],
        &["convert", "--untrusted", "-O", "raw", "d", "out"],
        &["map", "--untrusted", "b"],
        &["compare", "--untrusted", "b", "b"],
        &["info", "--untrusted", "--backing-chain", "b"],
    ] {
        let output = run(folder.path(), words);
        assert!(!output.status.success(), "{words:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("'host'"), "{words:?}");
        assert!(!folder.path().join("out").exists());
    }
}

/// CVE-2024-4467: a name out of an image never chooses a driver.
#[test]
fn names_with_a_protocol_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("host"), [7; 4096]).unwrap();
    for name in [
        "json:{\"driver\":\"raw\",\"file\":{\"driver\":\"file\",\"filename\":\"host\"}}",
        "nbd://127.0.0.1:1/x",
        "http://127.0.0.1:1/x",
        "blkdebug::host",
    ] {
        with_backing(folder.path(), "b", name);
        let info = run(folder.path(), &["info", "b"]);
        assert!(info.status.success() && String::from_utf8_lossy(&info.stdout).contains(name));
        for words in [
            &["map", "b"][..],
            &["convert", "-O", "raw", "b", "out"],
            &["info", "--backing-chain", "b"],
        ] {
            let output = run(folder.path(), words);
            assert!(!output.status.success(), "{name} {words:?}");
            let text = String::from_utf8_lossy(&output.stderr);
            assert!(text.contains("not a plain path"), "{text}");
        }
        with_data_file(folder.path(), "d", name);
        assert!(!run(folder.path(), &["map", "d"]).status.success());
    }
}

#[test]
fn chains_that_bite_their_tail_end() {
    let folder = tempfile::tempdir().unwrap();
    with_backing(folder.path(), "a", "b");
    with_backing(folder.path(), "b", "a");
    with_backing(folder.path(), "self", "self");
    for name in ["a", "self"] {
        for words in [
            &["map", name][..],
            &["info", "--backing-chain", name],
            &["qemu-img", "info", "--backing-chain", name],
        ] {
            assert!(!run(folder.path(), words).status.success(), "{words:?}");
        }
    }
    std::fs::write(folder.path().join("l0"), [0; 512]).unwrap();
    for depth in 1..80 {
        with_backing(folder.path(), &format!("l{depth}"), &format!("l{}", depth - 1));
    }
    let output = run(folder.path(), &["map", "l79"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("longer than"));
    assert!(run(folder.path(), &["map", "l40"]).status.success());
}

/// Bytes to be put at a place in an image.
type Patch<'a> = (usize, &'a [u8]);

/// CVE-2014-0143, -0144, -0145, -0147, CVE-2015-5162, CVE-2013-2096: sizes and counts without
/// any sense.
#[test]
fn absurd_headers_give_one_line_at_little_cost() {
    let huge = u64::MAX.to_be_bytes();
    let many = u32::MAX.to_be_bytes();
    let cases: &[(&str, &[Patch])] = &[
        ("cluster bits 0", &[(20, &[0, 0, 0, 0])]),
        ("cluster bits 63", &[(20, &[0, 0, 0, 63])]),
        ("size", &[(24, &huge)]),
        ("l1 entries", &[(36, &many)]),
        ("l1 place", &[(40, &huge)]),
        ("l1 place past the end", &[(40, &[0, 0, 0x7f, 0xff, 0xff, 0xff, 0, 0])]),
        ("refcount table place", &[(48, &huge)]),
        ("refcount table length", &[(56, &many)]),
        ("snapshots", &[(60, &many), (64, &[0, 0, 0, 0, 0, 1, 0, 0])]),
        ("snapshots at the end of the world", &[(60, &[0, 0, 0, 1]), (64, &huge)]),
        ("backing name length", &[(8, &[0, 0, 0, 0, 0, 0, 4, 0]), (16, &many)]),
        ("backing name place", &[(8, &huge), (16, &[0, 0, 0, 4])]),
        ("refcount order", &[(96, &[0, 0, 0, 70])]),
        ("header length", &[(100, &many)]),
        ("unknown feature", &[(72, &[0x80, 0, 0, 0, 0, 0, 0, 0])]),
        ("extension length", &[(112, &[0x12, 0x34, 0x56, 0x78, 0xff, 0xff, 0xff, 0xff])]),
        ("encryption", &[(32, &[0, 0, 0, 9])]),
        ("version", &[(4, &[0, 0, 0, 77])]),
    ];
    let folder = tempfile::tempdir().unwrap();
    for (what, changes) in cases {
        qcow2(folder.path(), "x", changes);
        for words in [
            &["info", "x"][..],
            &["info", "--json", "x"],
            &["map", "x"],
            &["check", "x"],
            &["snapshot", "x"],
        ] {
            let output = run(folder.path(), words);
            let lines = String::from_utf8_lossy(&output.stderr).lines().count();
            if !output.status.success() && words[0] != "check" {
                assert!((1..=2).contains(&lines), "{what}: {words:?} says {lines} lines");
            }
        }
    }
}

#[test]
fn short_and_random_files_are_survived() {
    let folder = tempfile::tempdir().unwrap();
    qcow2(folder.path(), "whole", &[]);
    let whole = std::fs::read(folder.path().join("whole")).unwrap();
    for length in
        [0, 1, 3, 4, 8, 71, 72, 103, 104, 111, 112, 119, 511, 512, 65535, 65536, 131_072, 196_607]
    {
        std::fs::write(folder.path().join("x"), &whole[..length.min(whole.len())]).unwrap();
        for words in [&["info", "x"][..], &["map", "x"], &["check", "x"]] {
            run(folder.path(), words);
        }
    }
    let mut state = 0x2545_f491_4f6c_dd1du64;
    for _ in 0..60 {
        let mut bytes = whole.clone();
        for _ in 0..4 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let at = 4 + (state % 400) as usize;
            bytes[at] = (state >> 32) as u8;
        }
        std::fs::write(folder.path().join("x"), &bytes).unwrap();
        for words in [&["info", "x"][..], &["check", "x"]] {
            run(folder.path(), words);
        }
    }
}

/// CVE-2010-3851, CVE-2026-24708: a guest that owns a raw disk cannot turn it into another
/// format's image by what it writes, and what is guessed to be raw is written with care.
#[test]
fn a_guessed_raw_disk_keeps_its_first_sector() {
    let folder = tempfile::tempdir().unwrap();
    assert!(run(folder.path(), &["create", "-q", "disk.raw", "1M"]).status.success());
    let resize = run(folder.path(), &["resize", "disk.raw", "2M"]);
    assert!(resize.status.success());
    assert!(String::from_utf8_lossy(&resize.stderr).contains("taken for a raw disk"));
    let resize = run(folder.path(), &["qemu-img", "resize", "disk.raw", "3M"]);
    assert!(String::from_utf8_lossy(&resize.stderr).starts_with(
        "WARNING: Image format was not specified for 'disk.raw' and probing guessed raw."
    ));
    let resize = run(folder.path(), &["resize", "-f", "raw", "disk.raw", "4M"]);
    assert!(resize.stderr.is_empty());
}

/// What an image says is shown without its control characters.
#[test]
fn names_from_images_cannot_command_the_terminal() {
    let folder = tempfile::tempdir().unwrap();
    with_backing(folder.path(), "b", "x\x1b]0;owned\x07\nfile format: raw");
    let output = run(folder.path(), &["info", "b"]);
    assert!(output.stdout.iter().all(|byte| *byte == b'\n' || *byte >= b' '));
}
