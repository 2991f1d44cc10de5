//! `clone` that is killed, cut short, or reads what cannot be read; with real devices.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail by a panic")]

mod support;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use disksmith_testkit::Rng;
use disksmith_testkit::oracle::{run, succeed};
use support::{Loop, Scratch, disksmith, ours, refused};

const MIB: u64 = 1 << 20;

/// A copy that is under way: at least so many bytes of it are there.
fn begun(state: &Path, arguments: &[&str], least: u64) -> Child {
    let mut child = Command::new(env!("CARGO_BIN_EXE_disksmith"))
        .args(["clone", "--progress=json"])
        .args(arguments)
        .env("XDG_STATE_HOME", state)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut said = Vec::new();
    for line in lines.map(Result::unwrap) {
        let done = line.split("\"done\": ").nth(1).map(|rest| {
            rest.chars().take_while(char::is_ascii_digit).collect::<String>().parse::<u64>()
        });
        if let Some(Ok(done)) = done
            && done >= least
        {
            // Nobody reads the rest; the program does not mind.
            return child;
        }
        said.push(line);
    }
    let ended = child.wait().unwrap();
    panic!("it ended before {least} bytes, {ended}: {said:?}");
}

fn signal(child: &Child, name: &str) {
    succeed("kill", &[name, &child.id().to_string()]);
}

/// A mounted filesystem is thawed again when the copy is killed, and when it is told to stop.
#[test]
fn what_was_frozen_is_thawed_however_the_copy_ends() {
    let scratch = Scratch::new();
    let image = scratch.file("source.raw", 400 * MIB);
    succeed("mke2fs", &["-q", "-t", "ext4", &image]);
    let device = Loop::new(&image);
    let place = scratch.folder("mounted");
    succeed("mount", &[&device.0, &place]);
    let filler = format!("if=/dev/urandom of={place}/filler bs=1M count=300 status=none");
    succeed("dd", &filler.split(' ').collect::<Vec<_>>());
    let target = scratch.text("copy.raw");
    for how in ["-KILL", "-INT"] {
        let mut child =
            begun(&scratch.path("state"), &[&device.0, &target, "--used-only"], 4 * MIB);
        let second = run("fsfreeze", &["--freeze", &place]);
        let still = String::from_utf8_lossy(&second.stderr).contains("busy");
        if second.status.success() {
            succeed("fsfreeze", &["--unfreeze", &place]);
        }
        signal(&child, how);
        assert!(!child.wait().unwrap().success());
        assert!(still, "the filesystem was not frozen: {second:?}");
        assert!(!Path::new(&target).exists());
        // Another process: if it is still frozen, whoever writes hangs.
        let begun = Instant::now();
        let mut writer = Command::new("touch").arg(format!("{place}/after{how}")).spawn().unwrap();
        let thawed = loop {
            match writer.try_wait().unwrap() {
                Some(status) => break status.success(),
                None if begun.elapsed() > Duration::from_secs(60) => break false,
                None => std::thread::sleep(Duration::from_millis(20)),
            }
        };
        if !thawed {
            run("fsfreeze", &["--unfreeze", &place]);
        }
        assert!(thawed, "{how}: the filesystem stayed frozen");
    }
    // Nobody waits for a copy that is gone, and the next copy is whole.
    ours(&["clone", &device.0, &target, "--used-only", "-q"]);
    succeed("umount", &[&place]);
    let output = run("e2fsck", &["-fn", &target]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

/// Clones with another folder for what is kept about devices.
fn clone_with(state: &Path, arguments: &[&str]) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_disksmith"))
        .arg("clone")
        .args(arguments)
        .env("XDG_STATE_HOME", state)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.success(), said)
}

#[test]
fn a_copy_to_a_device_goes_on_where_it_was_stopped() {
    let scratch = Scratch::new();
    let state = scratch.path("state");
    let source = scratch.text("source.raw");
    ours(&["create", &source, "300M", "-q"]);
    ours(&["partition", &source, "init", "gpt", "-q"]);
    ours(&["partition", &source, "add", "--size", "rest", "-q"]);
    let noise =
        format!("if=/dev/urandom of={source} bs=1M seek=1 count=298 conv=notrunc status=none");
    succeed("dd", &noise.split(' ').collect::<Vec<_>>());
    let image = scratch.file("device.raw", 310 * MIB);
    let device = Loop::new(&image);
    let stopped = || {
        let mut child = begun(&state, &[&source, &device.0], 16 * MIB);
        signal(&child, "-INT");
        assert!(!child.wait().unwrap().success());
        assert_eq!(fs::read_dir(state.join("disksmith")).unwrap().count(), 1);
    };
    stopped();
    let (done, said) = clone_with(&state, &[&source, &device.0, "--verify"]);
    assert!(done && said.contains("going on from"), "{said}");
    assert_eq!(fs::read_dir(state.join("disksmith")).unwrap().count(), 0);
    let length = (300 * MIB).to_string();
    succeed("cmp", &["-n", &length, &source, &device.0]);
    // Now it holds a disk, which nobody overwrites unasked.
    let (done, said) = clone_with(&state, &[&source, &device.0]);
    assert!(!done && said.contains("partition table") && said.contains("--force"), "{said}");
    // Another medium under the same name does not get the second half only.
    succeed(
        "dd",
        &["if=/dev/zero", &format!("of={}", device.0), "bs=1M", "count=310", "status=none"],
    );
    stopped();
    succeed(
        "dd",
        &["if=/dev/zero", &format!("of={}", device.0), "bs=1M", "count=310", "status=none"],
    );
    let (done, said) = clone_with(&state, &[&source, &device.0]);
    assert!(done && said.contains("does not hold what was copied"), "{said}");
    succeed("cmp", &["-n", &length, &source, &device.0]);
    // Where nothing can be kept, it is told how to begin anew.
    succeed(
        "dd",
        &["if=/dev/zero", &format!("of={}", device.0), "bs=1M", "count=310", "status=none"],
    );
    let nowhere = scratch.text("file");
    fs::write(&nowhere, "").unwrap();
    let mut child = begun(Path::new(&nowhere), &[&source, &device.0], 16 * MIB);
    signal(&child, "-INT");
    assert!(!child.wait().unwrap().success());
    let (done, said) = clone_with(Path::new(&nowhere), &[&source, &device.0]);
    assert!(!done && said.contains("--force"), "{said}");
    let (done, said) = clone_with(Path::new(&nowhere), &[&source, &device.0, "--force"]);
    assert!(done && !said.contains("going on"), "{said}");
    succeed("cmp", &["-n", &length, &source, &device.0]);
}

/// A source that was written to since is not gone on with.
#[test]
fn a_device_that_was_changed_meanwhile_is_copied_anew() {
    let scratch = Scratch::new();
    let image = scratch.text("source.raw");
    succeed(
        "dd",
        &["if=/dev/urandom", &format!("of={image}"), "bs=1M", "count=300", "status=none"],
    );
    let device = Loop::new(&image);
    let target = scratch.text("copy.raw");
    let stop = || {
        let mut child = begun(&scratch.path("state"), &[&device.0, &target], 16 * MIB);
        signal(&child, "-INT");
        assert!(!child.wait().unwrap().success());
        assert!(scratch.path(".copy.raw.clone-map").exists());
    };
    stop();
    let output = disksmith(&["clone", &device.0, &target]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("going on from"), "{output:?}");
    succeed("cmp", &[&device.0, &target]);
    fs::remove_file(&target).unwrap();
    stop();
    let write = format!("if=/dev/urandom of={} bs=4K count=1 conv=fsync status=none", device.0);
    succeed("dd", &write.split(' ').collect::<Vec<_>>());
    let output = disksmith(&["clone", &device.0, &target]);
    assert!(output.status.success());
    assert!(!String::from_utf8_lossy(&output.stderr).contains("going on"), "{output:?}");
    succeed("cmp", &[&device.0, &target]);
}

/// A block device of the kernel whose sectors give real errors: our own export with faults, under
/// a loop device. ddrescue must come to the same bytes and the same bad sectors.
#[test]
fn read_errors_of_a_device_are_those_that_ddrescue_finds() {
    let scratch = Scratch::new();
    let mut rng = Rng::new(21);
    let source = scratch.text("source.raw");
    let sectors = 8 * MIB / 512 + 3;
    let bytes = rng.bytes(sectors as usize * 512);
    fs::write(&source, &bytes).unwrap();
    let mut bad: Vec<u64> = (0..12).map(|_| rng.below(sectors)).collect();
    bad.extend([4000, 4001, sectors - 1]);
    bad.sort_unstable();
    bad.dedup();
    let rules: Vec<String> = bad
        .iter()
        .enumerate()
        .map(|(n, sector)| {
            format!("\"inject-error.{n}.event\":\"none\",\"inject-error.{n}.iotype\":\"read\",\"inject-error.{n}.sector\":{sector},")
        })
        .collect();
    let faulty = format!(
        "json:{{\"driver\":\"raw\",\"file\":{{\"driver\":\"blkdebug\",{}\"image\":{{\"driver\":\"file\",\"filename\":\"{source}\"}}}}}}",
        rules.concat()
    );
    let place = scratch.folder("attached");
    ours(&["attach", &faulty, &place, "--read-only"]);
    let device = Loop::with(&format!("{place}/disk"), &["--read-only", "--direct-io=on"]);
    let (copy, map) = (scratch.text("copy.raw"), scratch.text("map"));
    let said = refused(&["clone", &device.0, &copy]);
    assert!(said.contains("Input/output error") && said.contains("--rescue"), "{said}");
    let said = refused(&["clone", &device.0, &copy, "--rescue", &map, "--verify"]);
    assert!(said.contains(&format!("{} bytes in", bad.len() * 512)), "{said}");
    let copied = fs::read(&copy).unwrap();
    assert_eq!(copied.len(), bytes.len());
    for (sector, chunk) in bytes.chunks(512).enumerate() {
        let got = &copied[sector * 512..][..512];
        match bad.contains(&(sector as u64)) {
            true => assert!(disksmith::disk::is_zero(got), "sector {sector}"),
            false => assert!(got == chunk, "sector {sector}"),
        }
    }
    let (theirs, their_map) = (scratch.text("theirs.raw"), scratch.text("their-map"));
    succeed("ddrescue", &["--idirect", "--quiet", &device.0, &theirs, &their_map]);
    fs::File::options().write(true).open(&theirs).unwrap().set_len(bytes.len() as u64).unwrap();
    succeed("cmp", &[&copy, &theirs]);
    let listed = |map: &str| succeed("ddrescuelog", &["--list-blocks=-", map]);
    let numbers: Vec<u64> = listed(&map).lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(numbers, bad);
    assert_eq!(listed(&map), listed(&their_map));
    // Their map of our copy: ddrescue goes on from it and finds nothing left to do.
    succeed("ddrescue", &["--idirect", "--quiet", &device.0, &copy, &map]);
    assert_eq!(fs::read(&copy).unwrap(), copied);
    drop(device);
    ours(&["detach", &place]);
}
