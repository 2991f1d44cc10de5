//! A real disk's way through all forms: raw, qcow2, compressed qcow2, overlay, commit, rebase, and
//! raw again. At every step the genuine qemu-img finds it sound and identical.
//!
//! The disk is a small one; `cargo xtask journey` sends one of 3 GB and more.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail by a panic")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use disksmith_testkit::Rng;
use disksmith_testkit::oracle::succeed;

/// Names the disk to send instead of the small one.
const DISK: &str = "DISKSMITH_JOURNEY_DISK";

struct Journey {
    folder: PathBuf,
}

impl Journey {
    fn path(&self, name: &str) -> String {
        self.folder.join(name).to_string_lossy().into_owned()
    }

    fn ours(&self, line: &str) {
        let output = Command::new(env!("CARGO_BIN_EXE_disksmith"))
            .args(line.split(' '))
            .current_dir(&self.folder)
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "disksmith {line}: {errors}");
    }

    /// The genuine program finds no fault, and what the model holds.
    fn is(&self, name: &str, model: &str) {
        succeed("qemu-img", &["check", "-q", "-f", "qcow2", &self.path(name)]);
        self.shows(name, model);
    }

    /// The genuine program and ours find that the image shows the model's bytes.
    fn shows(&self, name: &str, model: &str) {
        let (image, raw) = (self.path(name), self.path(model));
        let compare = ["compare", "-q", "-f", "qcow2", "-F", "raw", &image, &raw];
        succeed("qemu-img", &compare);
        self.ours(&compare.join(" "));
    }

    /// Changes the overlay and the model alike, by the genuine program.
    fn change(&self, overlay: &str, model: &str, seed: u64) {
        let (overlay, model) = (self.path(overlay), self.path(model));
        let size = fs::metadata(&model).unwrap().len();
        let mut rng = Rng::new(seed);
        let mut commands = Vec::new();
        for _ in 0..60 {
            let length = (rng.below(400_000) + 1).next_multiple_of(512);
            let at = rng.below(size - length) / 512 * 512;
            commands.push("-c".to_string());
            commands.push(match rng.below(4) {
                0 => format!("write -q -z {at} {length}"),
                _ => format!("write -q -P {} {at} {length}", rng.below(255) + 1),
            });
        }
        for (format, file) in [("qcow2", &overlay), ("raw", &model)] {
            let mut words = vec!["-f", format];
            words.extend(commands.iter().map(String::as_str));
            words.push(file);
            succeed("qemu-io", &words);
        }
    }
}

/// An ext4 filesystem with some of this machine's programs.
fn small_disk(folder: &Path) -> PathBuf {
    const MOST: u64 = 24 << 20;
    let tree = folder.join("tree");
    fs::create_dir(&tree).unwrap();
    let mut total = 0;
    let mut files: Vec<_> = fs::read_dir("/usr/bin").unwrap().flatten().collect();
    files.sort_by_key(fs::DirEntry::file_name);
    for file in files {
        let metadata = file.metadata().unwrap();
        if metadata.is_file() && total + metadata.len() <= MOST {
            total += metadata.len();
            fs::copy(file.path(), tree.join(file.file_name())).unwrap();
        }
    }
    let disk = folder.join("small.raw");
    fs::File::create(&disk).unwrap().set_len(48 << 20).unwrap();
    let (from, to) = (tree.to_string_lossy(), disk.to_string_lossy());
    succeed("mke2fs", &["-q", "-t", "ext4", "-d", &from, &to]);
    fs::remove_dir_all(&tree).unwrap();
    disk
}

#[test]
fn a_disk_comes_back_as_it_left() {
    let scratch = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let disk = match std::env::var_os(DISK) {
        Some(path) => PathBuf::from(path),
        None => small_disk(scratch.path()),
    };
    let journey = Journey { folder: scratch.path().to_path_buf() };
    let (from, model) = (disk.to_string_lossy().into_owned(), journey.path("model"));
    succeed("cp", &["--sparse=always", &from, &model]);

    journey.ours("convert -f raw -O qcow2 model plain");
    journey.is("plain", "model");
    journey.ours("convert -c -f qcow2 -O qcow2 plain packed");
    journey.is("packed", "model");

    journey.ours("create -q -f qcow2 -b packed -F qcow2 overlay");
    journey.shows("overlay", "model");
    journey.change("overlay", "model", 1);
    journey.is("overlay", "model");

    journey.ours("commit -q overlay");
    journey.is("packed", "model");
    journey.is("overlay", "model");

    // Another overlay, moved onto the plain image, which was not committed to.
    journey.change("overlay", "model", 2);
    journey.ours("rebase -f qcow2 -b plain -F qcow2 overlay");
    fs::remove_file(journey.path("packed")).unwrap();
    journey.is("overlay", "model");
    journey.ours("convert -f qcow2 -O raw overlay end");
    succeed("cmp", &[&journey.path("end"), &model]);

    // Without changes on the way, the filesystem is what it was.
    journey.ours("convert -f qcow2 -O raw plain back");
    succeed("cmp", &[&journey.path("back"), &from]);
    succeed("e2fsck", &["-fn", &journey.path("back")]);
}
