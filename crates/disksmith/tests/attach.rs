//! `attach` and `detach` from outside: disks as files and as loop devices, used by the kernel and
//! its tools, left in the middle, killed.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail by a panic")]

mod support;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use disksmith_testkit::Rng;
use disksmith_testkit::oracle::{run, succeed};
use support::{Scratch, ours, refused};

const MIB: u64 = 1 << 20;
const SIZE: u64 = 16 * MIB;
/// The first partition.
const PART: (u64, u64) = (MIB, 8 * MIB);

fn steps() -> u64 {
    if std::env::var_os("DISKSMITH_LONG").is_some() { 100_000 } else { 2500 }
}

/// A disk with one partition of 8 MiB.
fn disk(scratch: &Scratch, name: &str) -> String {
    let image = scratch.text(name);
    ours(&["create", "-q", &image, "16M"]);
    ours(&["partition", &image, "init", "gpt", "-q"]);
    ours(&["partition", &image, "add", "--size", "8M", "-q"]);
    image
}

/// All bytes of an image, by qemu-img.
fn content(scratch: &Scratch, image: &str) -> Vec<u8> {
    let raw = scratch.text("content");
    succeed("qemu-img", &["convert", "-O", "raw", image, &raw]);
    fs::read(raw).unwrap()
}

fn open(path: &Path) -> File {
    File::options().read(true).write(true).open(path).unwrap()
}

/// Waits for what another process is about to do.
fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(30), "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn server(folder: &str) -> String {
    let list: serde_json::Value =
        serde_json::from_str(&ours(&["attach", "--list", "--json"])).unwrap();
    let all = list["attached"].as_array().unwrap();
    let ours = all.iter().find(|entry| entry["place"] == folder).expect("it is listed");
    ours["process"].to_string()
}

/// Reads, writes, holes and zeroes at random places of the disk and its partition, against an
/// array of bytes; by turns cut, reopened and flushed.
#[test]
fn random_operations_agree_with_a_model() {
    for name in ["disk.raw", "disk.qcow2"] {
        let scratch = Scratch::new();
        let (image, folder) = (disk(&scratch, name), scratch.folder("folder"));
        let mut model = content(&scratch, &image);
        ours(&["attach", &image, &folder]);
        let place = Path::new(&folder);
        let mut files = [open(&place.join("disk")), open(&place.join("p1"))];
        let mut rng = Rng::new(7);
        for step in 0..steps() {
            let which = usize::from(rng.one_in(2));
            let (start, size) = if which == 0 { (0, SIZE) } else { PART };
            let offset = rng.below(size);
            let longest = if rng.one_in(8) { 600_000 } else { 9000 };
            let length = rng.below((size - offset).min(longest)) as usize;
            let within = (start + offset) as usize..(start + offset) as usize + length;
            let file = &files[which];
            match rng.below(20) {
                0..9 => {
                    let data = rng.bytes(length);
                    file.write_all_at(&data, offset).unwrap();
                    model[within].copy_from_slice(&data);
                }
                9 if length > 0 => {
                    let zero = match rng.one_in(2) {
                        true => rustix::fs::FallocateFlags::PUNCH_HOLE,
                        false => rustix::fs::FallocateFlags::ZERO_RANGE,
                    };
                    let keep = rustix::fs::FallocateFlags::KEEP_SIZE;
                    rustix::fs::fallocate(file, zero | keep, offset, length as u64).unwrap();
                    model[within].fill(0);
                }
                10 => file.sync_data().unwrap(),
                11 => {
                    let names = ["disk", "p1"];
                    files[which] = open(&place.join(names[which]));
                }
                _ => {
                    let mut seen = vec![0; length];
                    file.read_exact_at(&mut seen, offset).unwrap();
                    assert!(seen == model[within], "{name}, step {step}: {length} at {offset}");
                }
            }
        }
        drop(files);
        ours(&["detach", &folder]);
        if name.ends_with("qcow2") {
            succeed("qemu-img", &["check", &image]);
        }
        assert!(content(&scratch, &image) == model, "{name}");
    }
}

/// The kernel makes and uses a filesystem on a partition of a qcow2 image.
#[test]
fn the_kernel_mounts_a_partition() {
    let scratch = Scratch::new();
    let (image, folder) = (disk(&scratch, "disk.qcow2"), scratch.folder("folder"));
    ours(&["attach", &image, &folder]);
    let part = format!("{folder}/p1");
    succeed("mkfs.ext4", &["-q", "-F", &part]);
    support::by_kernel(&scratch, &part, |place| {
        fs::write(place.join("hello"), "from the kernel").unwrap();
    });
    succeed("e2fsck", &["-fn", &part]);
    // A loop device may let go of its file a moment later.
    eventually("detach", || support::disksmith(&["detach", &folder]).status.success());
    assert_eq!(ours(&["cat", &format!("{image}::/hello")]), "from the kernel");
    succeed("qemu-img", &["check", &image]);
}

#[test]
fn killed_stopped_and_left_by_readers() {
    for name in ["disk.raw", "disk.qcow2"] {
        let scratch = Scratch::new();
        let (image, folder) = (disk(&scratch, name), scratch.folder("folder"));
        let bytes = Rng::new(3).bytes(5 * MIB as usize);
        // SIGKILL: what was synced is there, and the image is whole.
        ours(&["attach", &image, &folder]);
        let file = open(&Path::new(&folder).join("p1"));
        file.write_all_at(&bytes, 0).unwrap();
        file.sync_all().unwrap();
        succeed("kill", &["-9", &server(&folder)]);
        drop(file);
        run("umount", &["-l", &folder]);
        let status = run("qemu-img", &["check", &image]).status.code();
        assert!(matches!(status, Some(0 | 3 | 63)), "{name}: {status:?}");
        assert!(content(&scratch, &image)[MIB as usize..][..bytes.len()] == bytes, "{name}");
        // A reader that vanishes in the middle is nobody's loss, and SIGTERM ends it in order.
        ours(&["attach", &image, &folder]);
        let mut reader = Command::new("cat")
            .arg(format!("{folder}/disk"))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(20));
        reader.kill().unwrap();
        reader.wait().unwrap();
        let file = open(&Path::new(&folder).join("disk"));
        file.write_all_at(&bytes, 9 * MIB).unwrap();
        drop(file);
        succeed("kill", &["-TERM", &server(&folder)]);
        eventually("SIGTERM", || !fs::exists(format!("{folder}/disk")).unwrap_or(true));
        eventually("the lock", || {
            run("qemu-img", &["check", &image]).status.code().is_some_and(|c| matches!(c, 0 | 63))
        });
        assert!(content(&scratch, &image)[9 * MIB as usize..][..bytes.len()] == bytes, "{name}");
    }
}

#[test]
fn loop_devices_have_nodes_for_partitions() {
    for name in ["disk.raw", "disk.qcow2"] {
        let scratch = Scratch::new();
        let image = disk(&scratch, name);
        let device = ours(&["attach", "--loop", &image]).trim().to_string();
        let part = format!("{device}p1");
        assert_eq!(succeed("blockdev", &["--getsize64", &device]).trim(), SIZE.to_string());
        assert_eq!(succeed("blockdev", &["--getsize64", &part]).trim(), PART.1.to_string());
        succeed("mkfs.ext4", &["-q", &part]);
        let place = scratch.folder("place");
        succeed("mount", &[&part, &place]);
        fs::write(scratch.path("place/hello"), "from the kernel").unwrap();
        assert!(refused(&["detach", &device]).contains("in use"));
        succeed("umount", &[&place]);
        let list = ours(&["attach", "--list"]);
        assert!(list.lines().any(|line| line.starts_with(&device)), "{list}");
        ours(&["detach", &device]);
        assert!(!ours(&["attach", "--list"]).contains(&device));
        assert!(refused(&["detach", &device]).contains("nothing is attached"));
        assert_eq!(ours(&["cat", &format!("{image}:1:/hello")]), "from the kernel");
    }
}

#[test]
fn loop_devices_with_options() {
    let scratch = Scratch::new();
    let image = disk(&scratch, "disk.raw");
    let size = |device: &str| succeed("blockdev", &["--getsize64", device]).trim().to_string();
    let attach = |options: &[&str]| {
        let words = [&["attach", "--loop"], options, &[image.as_str()]].concat();
        ours(&words).trim().to_string()
    };
    let window = attach(&["--offset", "1MiB", "--size-limit", "2MiB", "--read-only"]);
    assert_eq!(size(&window), (2 * MIB).to_string());
    assert_eq!(succeed("blockdev", &["--getro", &window]).trim(), "1");
    ours(&["detach", &window]);
    // A partition by its address.
    let words = ["attach", "--loop", &format!("{image}:1")];
    let part = ours(&words).trim().to_string();
    assert_eq!(size(&part), PART.1.to_string());
    ours(&["detach", &part]);
    let large = attach(&["--sector", "4096", "--direct"]);
    assert_eq!(succeed("blockdev", &["--getss", &large]).trim(), "4096");
    ours(&["detach", &large]);
    let missing = scratch.text("missing");
    assert!(refused(&["attach", "--loop", &missing]).contains("No such file"));
}

#[test]
fn a_loop_device_goes_after_its_use() {
    let scratch = Scratch::new();
    let image = disk(&scratch, "disk.qcow2");
    let there = |device: &str| ours(&["attach", "--list"]).contains(&format!("{device} "));
    ours(&["mkfs", &format!("{image}:1"), "-t", "ext4"]);
    let words = ["attach", "--loop", "--auto-clear", &format!("{image}:1")];
    let device = ours(&words).trim().to_string();
    let place = scratch.folder("place");
    // Who only looks is no user.
    succeed("blockdev", &["--getsize64", &device]);
    std::thread::sleep(Duration::from_millis(500));
    assert!(there(&device));
    succeed("mount", &[&device, &place]);
    std::thread::sleep(Duration::from_secs(1));
    assert!(there(&device));
    succeed("umount", &[&place]);
    eventually("the device is gone", || !there(&device));
    // Who detaches it first has it gone as well.
    let second = disk(&scratch, "second.img");
    let device = ours(&["attach", "--loop", "--auto-clear", &second]).trim().to_string();
    ours(&["detach", &device]);
    eventually("the device is gone", || !there(&device));
}
