//! `dd` beside dd(1): the same bytes, sizes and records; and between images, parts and streams.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail by a panic")]

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use disksmith_testkit::{Rng, oracle};

fn start(program: &str, arguments: &[String], input: &[u8]) -> Output {
    let mut command = Command::new(program);
    if program != "dd" {
        command.arg("dd");
    }
    let mut child = command
        .args(arguments)
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A program that does not read its input closes it.
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

fn ours(line: &str) -> Output {
    let words: Vec<String> = line.split(' ').map(str::to_string).collect();
    start(env!("CARGO_BIN_EXE_disksmith"), &words, &[])
}

fn done(line: &str) -> Output {
    let output = ours(line);
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

fn disksmith(arguments: &[&str]) {
    let output = Command::new(env!("CARGO_BIN_EXE_disksmith")).args(arguments).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {errors}");
}

/// The records that both programs tell.
fn records(output: &Output) -> Vec<String> {
    let text = String::from_utf8_lossy(&output.stderr);
    text.lines().filter(|line| line.contains(" records ")).map(str::to_string).collect()
}

fn operands(rng: &mut Rng) -> Vec<String> {
    let mut words = vec![format!("bs={}", rng.pick(&["512", "1000", "4K", "64kB", "3x7", "1"]))];
    let mut maybe = |text: String, rng: &mut Rng| {
        if rng.one_in(2) {
            words.push(text);
        }
    };
    let amount = |rng: &mut Rng| match rng.one_in(4) {
        true => format!("{}B", rng.below(5000)),
        false => rng.below(40).to_string(),
    };
    maybe(format!("count={}", amount(rng)), rng);
    maybe(format!("skip={}", amount(rng)), rng);
    // By blocks: dd 9.1 forgets the old content where it seeks by less than a block.
    maybe(format!("seek={}", rng.below(40)), rng);
    let conv = ["notrunc", "sparse", "notrunc,sparse", "fsync", "sync,noerror", "sync,notrunc"];
    maybe(format!("conv={}", rng.pick(&conv)), rng);
    words
}

#[test]
fn the_same_bytes_and_records_as_dd() {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| folder.path().join(name).to_str().unwrap().to_string();
    for seed in 0..120 {
        let mut rng = Rng::new(seed);
        let length = rng.below(60_000) as usize;
        let mut input = rng.bytes(length);
        input.iter_mut().skip(8192).take(9000).for_each(|byte| *byte = 0);
        fs::write(place("input"), &input).unwrap();
        let from_pipe = rng.one_in(4);
        let words = operands(&mut rng);
        let old = rng.one_in(2).then(|| {
            let length = rng.below(80_000) as usize;
            rng.bytes(length)
        });
        let mut results = Vec::new();
        for program in ["dd", env!("CARGO_BIN_EXE_disksmith")] {
            let _ = fs::remove_file(place("output"));
            if let Some(old) = &old {
                fs::write(place("output"), old).unwrap();
            }
            let mut words = words.clone();
            words.push(format!("of={}", place("output")));
            let output = match from_pipe {
                // What comes through a pipe in pieces would count as partial blocks.
                true if program == "dd" => {
                    words.push("iflag=fullblock".to_string());
                    start(program, &words, &input)
                }
                true => start(program, &words, &input),
                false => {
                    words.push(format!("if={}", place("input")));
                    start(program, &words, &[])
                }
            };
            assert!(output.status.success(), "{seed}: {words:?} {output:?}");
            results.push((records(&output), fs::read(place("output")).unwrap()));
        }
        assert_eq!(results[0].0, results[1].0, "{seed}: {words:?}");
        assert!(results[0].1 == results[1].1, "{seed}: {words:?} {old:?}", old = old.is_some());
    }
}

/// A disk of three partitions of 1 MiB, random bytes in the first.
fn disk(folder: &Path, name: &str) -> (String, Vec<u8>) {
    let path = folder.join(name).to_str().unwrap().to_string();
    let bytes = Rng::new(name.len() as u64).bytes(1 << 20);
    disksmith(&["create", &path, "8M"]);
    disksmith(&["partition", &path, "init", "gpt", "-q"]);
    for label in ["one", "two", "three"] {
        disksmith(&["partition", &path, "add", "--size", "1M", "--name", label, "-q"]);
    }
    let file = folder.join("first").to_str().unwrap().to_string();
    fs::write(&file, &bytes).unwrap();
    done(&format!("if={file} of={path}:one bs=64K"));
    (path, bytes)
}

/// The second partition, by qemu-img and dd.
fn second(folder: &Path, image: &str) -> Vec<u8> {
    let raw = folder.join("whole").to_str().unwrap().to_string();
    oracle::succeed("qemu-img", &["convert", "-O", "raw", image, &raw]);
    fs::read(&raw).unwrap()[2 << 20..3 << 20].to_vec()
}

#[test]
fn parts_of_images_in_all_combinations() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    for (from, to) in
        [("a.raw", "b.raw"), ("a.raw", "b.qcow2"), ("a.qcow2", "b.raw"), ("a.qcow2", "bb.qcow2")]
    {
        let (from, bytes) = disk(folder, from);
        let (to, _) = disk(folder, to);
        done(&format!("if={from}:1 of={to}:2 bs=1M"));
        assert!(second(folder, &to) == bytes, "{from} to {to}");
        // A piece, kept around; then out to a file and to stdout.
        done(&format!(
            "if={from}:one of={to}:two bs=4096 count=3 skip=5 seek=100 conv=notrunc,fsync"
        ));
        let mut expected = bytes.clone();
        expected[100 * 4096..103 * 4096].copy_from_slice(&bytes[5 * 4096..8 * 4096]);
        assert!(second(folder, &to) == expected, "{from} to {to}");
        let file = folder.join("out").to_str().unwrap().to_string();
        done(&format!("if={to}:2 of={file} status=none"));
        assert!(fs::read(&file).unwrap() == expected);
        assert!(done(&format!("if={to}:2 skip=1 bs=1000")).stdout == expected[1000..]);
        // Between parts of one image.
        done(&format!("if={to}:1 of={to}:2"));
        assert!(
            second(folder, &to)[..]
                == Rng::new(to.rsplit('/').next().unwrap().len() as u64).bytes(1 << 20)
        );
        let overlap = ours(&format!("if={to} of={to}:2 count=4M iflag=count_bytes"));
        assert!(String::from_utf8_lossy(&overlap.stderr).contains("overlap"));
        // What does not fit is refused before anything is written.
        let before = second(folder, &to);
        let full = ours(&format!("if={from} of={to}:2"));
        assert!(!full.status.success());
        assert!(String::from_utf8_lossy(&full.stderr).contains("do not fit"));
        assert!(second(folder, &to) == before);
        let full = ours(&format!("if=/dev/zero of={to}:2 bs=64K"));
        assert!(!full.status.success(), "a stream without end");
        assert!(second(folder, &to).iter().all(|byte| *byte == 0));
    }
}

#[test]
fn streams_devices_and_conversions() {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| folder.path().join(name).to_str().unwrap().to_string();
    // The guide's way to see NULs.
    assert_eq!(done("if=/dev/zero bs=1 count=5").stdout, [0; 5]);
    done(&format!("if=/dev/zero of={} bs=512 count=2048", place("zero.raw")));
    assert_eq!(fs::metadata(place("zero.raw")).unwrap().len(), 1 << 20);
    let bytes = Rng::new(1).bytes(3 << 20);
    fs::write(place("bytes.raw"), &bytes).unwrap();
    done(&format!("if={} of={} bs=1M seek=2", place("bytes.raw"), place("new.qcow2")));
    let info = oracle::succeed("qemu-img", &["info", &place("new.qcow2")]);
    assert!(info.contains("file format: qcow2") && info.contains("virtual size: 5 MiB"), "{info}");
    // Written from some place on: what is before stays, what is behind goes unless told.
    done(&format!("if={} of={} bs=1M seek=1 count=1", place("bytes.raw"), place("new.qcow2")));
    done(&format!(
        "if={} of={} bs=1M count=1 conv=notrunc",
        place("bytes.raw"),
        place("new.qcow2")
    ));
    let raw = place("raw");
    oracle::succeed("qemu-img", &["convert", "-O", "raw", &place("new.qcow2"), &raw]);
    let half = &bytes[..1 << 20];
    assert!(fs::read(&raw).unwrap() == [half, half].concat());
    oracle::succeed("qemu-img", &["check", &place("new.qcow2")]);
    done(&format!(
        "if={} of={} oflag=append conv=notrunc",
        place("bytes.raw"),
        place("bytes2.raw")
    ));
    done(&format!(
        "if={} of={} oflag=append conv=notrunc",
        place("bytes.raw"),
        place("bytes2.raw")
    ));
    assert!(fs::read(place("bytes2.raw")).unwrap() == [&bytes[..], &bytes[..]].concat());
    assert!(!ours(&format!("if=/dev/null of={} conv=nocreat", place("none"))).status.success());
    assert!(!ours(&format!("if=/dev/null of={raw} conv=excl")).status.success());
    assert!(String::from_utf8_lossy(&ours("if=/dev/null conv=ucase").stderr).contains("ucase"));
    // In and out of a partition with convert -n, in both faces.
    let (disk, first) = disk(folder.path(), "d.qcow2");
    fs::write(place("mib.raw"), half).unwrap();
    disksmith(&["convert", "-n", &place("mib.raw"), &format!("{disk}:2")]);
    assert!(second(folder.path(), &disk) == half);
    let part = format!("{disk}:1");
    disksmith(&["qemu-img", "convert", "-O", "raw", &part, &place("out.raw")]);
    assert!(fs::read(place("out.raw")).unwrap() == first);
    disksmith(&["qemu-img", "convert", "-n", "-O", "raw", &place("out.raw"), &format!("{disk}:2")]);
    assert!(second(folder.path(), &disk) == first);
    // From one part of an image to another, which is opened once.
    let parts = [":1", ":2", ":3"].map(|part| format!("{disk}{part}"));
    disksmith(&["convert", "-n", &place("mib.raw"), &parts[2]]);
    disksmith(&["convert", "-n", &parts[2], &parts[1]]);
    assert!(second(folder.path(), &disk) == half);
    disksmith(&["qemu-img", "convert", "-n", "-O", "raw", &parts[0], &parts[1]]);
    assert!(second(folder.path(), &disk) == first);
    for wrong in [&disk, &parts[1]] {
        let words = ["convert", "-n", wrong, &parts[1]];
        let output = Command::new(env!("CARGO_BIN_EXE_disksmith")).args(words).output().unwrap();
        assert!(String::from_utf8_lossy(&output.stderr).contains("overlap"), "{output:?}");
    }
    assert!(second(folder.path(), &disk) == first);
}
