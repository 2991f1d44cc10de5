//! A disk attached as a FUSE folder, used as other programs would.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail by a panic")]

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use disksmith_disk::{Disk, Slice};
use disksmith_export::{DiskFile, DiskFolder, MountOptions, is_mounted, loops, mount, unmount};
use disksmith_host::{FileDisk, OpenOptions};
use disksmith_testkit::Rng;

const SIZE: u64 = 8 << 20;
/// `p1` of the folder.
const PART: (u64, u64) = (1 << 20, 6 << 20);

fn steps(quick: u64) -> u64 {
    if std::env::var_os("DISKSMITH_LONG").is_some() { 100_000 } else { quick }
}

/// Serves a raw file of `size` bytes as a folder while `use_it` works in it.
fn attached(use_it: impl FnOnce(&Path)) -> Vec<u8> {
    let scratch = tempfile::tempdir().unwrap();
    let (file, folder) = (scratch.path().join("disk.raw"), scratch.path().join("folder"));
    File::create(&file).unwrap().set_len(SIZE).unwrap();
    fs::create_dir(&folder).unwrap();
    let options = OpenOptions { write: true, ..OpenOptions::default() };
    let disk: Arc<dyn Disk> = Arc::new(FileDisk::open(&file, options).unwrap());
    let part = Arc::new(Slice::new(disk.clone(), PART.0, PART.1).unwrap());
    let files = vec![
        DiskFile { name: "disk".into(), disk, start: 0 },
        DiskFile { name: "p1".into(), disk: part, start: PART.0 },
    ];
    let options =
        MountOptions { source: "disk.raw".into(), kind: "disksmith".into(), ..Default::default() };
    let (mounted, disks) = mount(DiskFolder::new(files, false), &folder, &options).unwrap();
    std::thread::scope(|scope| {
        let server = scope.spawn(|| mounted.serve());
        let used = std::panic::catch_unwind(AssertUnwindSafe(|| use_it(&folder)));
        unmount_soon(&folder);
        server.join().unwrap().unwrap();
        used.unwrap();
    });
    assert!(!is_mounted(&folder));
    for disk in disks {
        disk.flush().unwrap();
    }
    fs::read(&file).unwrap()
}

/// A program that another test starts holds all open files of this one for a moment, until its own
/// code runs.
fn unmount_soon(folder: &Path) {
    let give_up = Instant::now() + Duration::from_secs(20);
    while let Err(error) = unmount(folder) {
        assert!(Instant::now() < give_up, "{error}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn random_reads_and_writes_agree_with_a_model() {
    let mut model = vec![0; SIZE as usize];
    let result = attached(|folder| {
        let open =
            |name: &str| File::options().read(true).write(true).open(folder.join(name)).unwrap();
        let only_write = |name: &str| File::options().write(true).open(folder.join(name)).unwrap();
        let (disk, part) = (open("disk"), open("p1"));
        let (onto_disk, onto_part) = (only_write("disk"), only_write("p1"));
        let mut rng = Rng::new(11);
        for step in 0..steps(2000) {
            let (file, onto, start, size) = match rng.one_in(2) {
                true => (&disk, &onto_disk, 0, SIZE),
                false => (&part, &onto_part, PART.0, PART.1),
            };
            let offset = rng.below(size);
            let length = rng.below(100_000.min(size - offset)) as usize;
            let place = (start + offset) as usize..(start + offset) as usize + length;
            if rng.one_in(2) {
                let data = rng.bytes(length);
                // Through the kernel's cache, or past it.
                let way = if rng.one_in(2) { file } else { onto };
                way.write_all_at(&data, offset).unwrap();
                model[place].copy_from_slice(&data);
            } else {
                let mut seen = vec![0; length];
                file.read_exact_at(&mut seen, offset).unwrap();
                assert!(seen == model[place], "step {step}: {length} bytes at {offset}");
            }
        }
        disk.sync_all().unwrap();
    });
    assert!(result == model);
}

#[test]
fn the_kernel_makes_and_uses_a_filesystem_on_a_partition() {
    assert!(rustix::process::geteuid().is_root(), "this test needs root for the loop device");
    let result = attached(|folder| {
        let part = folder.join("p1");
        let run = |program: &str, arguments: &[&str]| {
            let output = Command::new(program)
                .args(arguments)
                .env("PATH", format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap()))
                .output()
                .unwrap();
            assert!(
                output.status.success(),
                "{program}: {}",
                String::from_utf8_lossy(&output.stderr)
            );
        };
        run("mkfs.ext4", &["-q", "-F", part.to_str().unwrap()]);
        let device = loops::attach(&part, &loops::LoopOptions::default()).unwrap();
        assert!(loops::list().iter().any(|known| known.device == device.device));
        let place = tempfile::tempdir().unwrap();
        let (from, to) = (device.device.to_str().unwrap(), place.path().to_str().unwrap());
        run("mount", &[from, to]);
        fs::write(place.path().join("hello"), "from the kernel").unwrap();
        run("umount", &[to]);
        loops::detach(&device.device).unwrap();
        run("e2fsck", &["-fn", part.to_str().unwrap()]);
    });
    let magic = &result[PART.0 as usize + 1024 + 56..][..2];
    assert_eq!(magic, [0x53, 0xef]);
    assert!(result.windows(15).any(|w| w == b"from the kernel"));
}
