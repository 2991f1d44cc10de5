//! Other lengths: beside resize2fs's result, under e2fsck's eyes, with the kernel's view of the files.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use common::*;
use disksmith_filesystems::ext::{self, NewSize, Resized};

/// Facts that must be the same whoever changed the length.
const FACTS: &[&str] = &[
    "Block count",
    "Inode count",
    "Free blocks",
    "Free inodes",
    "Reserved block count",
    "Blocks per group",
    "Inodes per group",
    "Flex block group size",
    "Filesystem state",
];

fn facts(image: &Path) -> BTreeMap<String, String> {
    run("dumpe2fs", &["-h", text(image)])
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned()))
        .filter(|(name, _)| FACTS.contains(&name.as_str()))
        .collect()
}

struct Bench {
    _folder: tempfile::TempDir,
    image: PathBuf,
    copy: PathBuf,
    mount: PathBuf,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (image, copy, mount) =
            (folder.path().join("image"), folder.path().join("copy"), folder.path().join("mount"));
        Self { _folder: folder, image, copy, mount }
    }

    fn make(&self, arguments: &str, size: u64) {
        fs::write(&self.image, b"").unwrap();
        fs::File::options().write(true).open(&self.image).unwrap().set_len(size).unwrap();
        let mut words: Vec<&str> = arguments.split_whitespace().collect();
        words.extend(["-q", "-F", text(&self.image)]);
        run("mke2fs", &words);
    }

    /// Files of many kinds, some of them deleted again so that the free space is in pieces.
    fn fill(&self, megabytes: u64) {
        let _mounted = Mount::new(&self.image, &self.mount, "noatime");
        let folder = self.mount.join("folder");
        fs::create_dir(&folder).unwrap();
        for number in 0..megabytes * 8 {
            let length = 30_000 + (number * 7919) % 190_000;
            let data: Vec<u8> = (0..length).map(|at| (at * number + at / 251) as u8).collect();
            fs::write(folder.join(format!("file-{number}")), data).unwrap();
        }
        for number in (0..megabytes * 8).step_by(3) {
            fs::remove_file(folder.join(format!("file-{number}"))).unwrap();
        }
        std::os::unix::fs::symlink("x".repeat(100), folder.join("link")).unwrap();
        for number in 0..200 {
            let name = format!("{number}-{}", "n".repeat(50));
            fs::write(folder.join(name), b"small").unwrap();
        }
    }

    fn manifest(&self, image: &Path) -> Manifest {
        let _mounted = Mount::new(image, &self.mount, "ro,noatime");
        walk_host(&self.mount)
    }

    fn set_size(&self, image: &Path, size: u64) {
        fs::File::options().write(true).open(image).unwrap().set_len(size).unwrap();
    }

    fn resize(&self, size: NewSize) -> Resized {
        ext::resize(&FileDisk::open(&self.image), size).unwrap()
    }
}

/// (mke2fs arguments, old size, new size) in MiB; `fill` with so many.
const GROWTHS: &[(&str, u64, u64)] = &[
    ("-t ext4", 20, 100),
    ("-t ext4", 100, 1000),
    ("-t ext4", 130, 140),
    ("-t ext4", 64, 5000),
    ("-t ext2", 20, 100),
    ("-t ext2 -b 1024", 7, 40),
    ("-t ext2 -b 1024 -r 0", 8, 30),
    ("-t ext3 -b 2048", 40, 300),
    ("-t ext3 -b 1024", 20, 2000),
    ("-t ext4 -b 1024", 20, 2000),
    ("-t ext4 -b 1024 -E resize=40000", 20, 1000),
    ("-t ext4 -O ^resize_inode", 60, 600),
    ("-t ext4 -b 1024 -O ^resize_inode", 16, 600),
    ("-t ext4 -b 1024 -O meta_bg,^resize_inode", 30, 600),
    ("-t ext4 -b 1024 -O meta_bg,^resize_inode,^flex_bg", 40, 333),
    ("-t ext4 -O ^flex_bg", 40, 700),
    ("-t ext4 -O ^64bit", 40, 700),
    ("-t ext4 -O ^64bit,^metadata_csum,uninit_bg", 40, 700),
    ("-t ext4 -O ^metadata_csum", 40, 700),
    ("-t ext4 -O ^has_journal", 40, 700),
    ("-t ext4 -O ^has_journal -b 1024", 8, 400),
    ("-t ext4 -O bigalloc", 100, 1500),
    ("-t ext4 -O bigalloc -C 65536 -b 1024", 60, 900),
    ("-t ext4 -O sparse_super2,^resize_inode", 40, 700),
    ("-t ext4 -O sparse_super2,^resize_inode -b 1024", 7, 90),
    ("-t ext4 -O inline_data,metadata_csum_seed", 40, 300),
    ("-t ext4 -O orphan_file", 40, 300),
    ("-t ext4 -G 4 -b 2048", 40, 900),
    ("-t ext4 -N 100000", 100, 400),
    ("-t ext4 -I 128 -m 1", 40, 400),
    ("-t ext4 -g 1024 -b 1024", 10, 60),
    ("-t ext4 -i 1024 -b 1024", 10, 90),
    ("-t ext3 -O ^sparse_super,^resize_inode -b 1024", 20, 70),
];

#[test]
fn grown_as_resize2fs_grows() {
    let mut wrong = Vec::new();
    for (arguments, from, to) in GROWTHS.iter().step_by(if long() { 1 } else { 3 }) {
        let outcome = std::panic::catch_unwind(|| grow_one(arguments, *from, *to));
        if outcome.is_err() {
            wrong.push(format!("{arguments} {from} {to}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

fn grow_one(arguments: &str, from: u64, to: u64) {
    let bench = Bench::new();
    let what = format!("mke2fs {arguments}, {from} to {to} MiB");
    bench.make(arguments, from << 20);
    bench.fill((from / 8).min(8));
    let before = bench.manifest(&bench.image);
    bench.set_size(&bench.image, to << 20);
    fs::copy(&bench.image, &bench.copy).unwrap();
    let done = bench.resize(NewSize::Disk);
    assert!(done.new_blocks > done.old_blocks, "{what}");
    assert_clean(&bench.image, &what);
    run("resize2fs", &["-f", text(&bench.copy)]);
    let (ours, mut theirs) = (facts(&bench.image), facts(&bench.copy));
    if what.contains("bigalloc") {
        // resize2fs 1.47.0 counts more free blocks than there are blocks at all.
        theirs.insert("Free blocks".into(), ours["Free blocks"].clone());
    }
    if !what.contains("^resize_inode") && !what.contains("resize=") {
        assert_eq!(ours, theirs, "{what}");
    } else {
        assert_eq!(ours["Block count"], theirs["Block count"], "{what}");
    }
    assert_eq!(bench.manifest(&bench.image), before, "{what}");
    {
        let _mounted = Mount::new(&bench.image, &bench.mount, "noatime");
        for number in 0..4 {
            let data = vec![number as u8; (to as usize - from as usize) << 17];
            fs::write(bench.mount.join(format!("more-{number}")), data).unwrap();
        }
    }
    assert_clean(&bench.image, &format!("{what}, used"));
    // The copies are as good as the original.
    let backup = (fs::metadata(&bench.image).unwrap().len() > 0).then(|| backup_of(&bench.image));
    if let Some((block, size)) = backup.flatten() {
        let said = run(
            "dumpe2fs",
            &[
                "-o",
                &format!("superblock={block}"),
                "-o",
                &format!("blocksize={size}"),
                "-h",
                text(&bench.image),
            ],
        );
        let count = &facts(&bench.image)["Block count"];
        assert!(
            said.lines().any(|l| l.starts_with("Block count:") && l.ends_with(count)),
            "{what}"
        );
    }
}

/// Block and block size of the first superblock copy.
fn backup_of(image: &Path) -> Option<(u64, u64)> {
    let said = run("dumpe2fs", &[text(image)]);
    let size = said.lines().find_map(|l| l.strip_prefix("Block size:"))?.trim().parse().ok()?;
    let place = said.lines().find_map(|l| l.trim().strip_prefix("Backup superblock at "))?;
    Some((place.split(',').next()?.parse().ok()?, size))
}

/// (mke2fs arguments, old size, new size) in MiB; 0 is the least that there can be.
const SHRINKS: &[(&str, u64, u64)] = &[
    ("-t ext4", 200, 60),
    ("-t ext4 -O bigalloc", 600, 300),
    ("-t ext4 -N 60000", 300, 80),
    ("-t ext4", 400, 0),
    ("-t ext4 -b 1024", 100, 40),
    ("-t ext2 -b 1024", 60, 30),
    ("-t ext3 -b 1024", 100, 0),
    ("-t ext3 -b 2048 -O ^resize_inode", 200, 70),
    ("-t ext4 -O ^flex_bg,^64bit", 400, 150),
    ("-t ext4 -b 1024 -O meta_bg,^resize_inode", 150, 50),
    ("-t ext4 -O ^metadata_csum,uninit_bg", 400, 0),
    ("-t ext4 -O sparse_super2,^resize_inode", 600, 200),
    ("-t ext4 -O ^has_journal -b 1024 -g 1024", 60, 0),
];

#[test]
fn shrunk_files_stay_whole() {
    let mut wrong = Vec::new();
    for (arguments, from, to) in SHRINKS.iter().step_by(if long() { 1 } else { 2 }) {
        if std::panic::catch_unwind(|| shrink_one(arguments, *from, *to)).is_err() {
            wrong.push(format!("{arguments} {from} {to}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

fn shrink_one(arguments: &str, from: u64, to: u64) {
    let bench = Bench::new();
    let what = format!("mke2fs {arguments}, {from} to {to} MiB");
    bench.make(arguments, from << 20);
    scatter(&bench);
    bench.fill(8);
    assert_clean(&bench.image, &what);
    let mut before = bench.manifest(&bench.image);
    let estimate = run("resize2fs", &["-f", "-P", text(&bench.image)]);
    let estimate: u64 = estimate.trim().rsplit(' ').next().unwrap().parse().unwrap();
    let size = if to == 0 { NewSize::Minimum } else { NewSize::Bytes(to << 20) };
    let done = bench.resize(size);
    assert!(done.new_blocks < done.old_blocks, "{what}: {done:?}");
    if to == 0 {
        println!("{what}: {} blocks, resize2fs -P says {estimate}", done.new_blocks);
        assert!(done.new_blocks <= estimate + estimate / 10, "{what}: {done:?} {estimate}");
    }
    bench.set_size(&bench.image, done.new_bytes());
    assert_clean(&bench.image, &what);
    let mut after = bench.manifest(&bench.image);
    // Moving gives files other blocks of pointers and inodes other numbers.
    for seen in before.values_mut().chain(after.values_mut()) {
        (seen.inode, seen.blocks) = (0, 0);
    }
    assert_eq!(after, before, "{what}");
    bench.set_size(&bench.image, from << 20);
    bench.resize(NewSize::Disk);
    assert_clean(&bench.image, &format!("{what}, and back"));
}

/// Directories all over the groups, with files whose blocks and inodes lie at the end.
fn scatter(bench: &Bench) {
    let _mounted = Mount::new(&bench.image, &bench.mount, "noatime");
    for number in 0..60 {
        let folder = bench.mount.join(format!("spread-{number}"));
        fs::create_dir_all(folder.join("below/further")).unwrap();
        for file in 0..6 {
            fs::write(folder.join(format!("f{file}")), vec![file as u8; 9000]).unwrap();
        }
        fs::hard_link(folder.join("f1"), folder.join("below/hard")).unwrap();
        let _ = std::process::Command::new("setfattr")
            .args(["-n", "user.long", "-v", &"v".repeat(600)])
            .arg(folder.join("f2"))
            .status();
        std::os::unix::fs::symlink("s".repeat(80), folder.join("link")).unwrap();
    }
}
