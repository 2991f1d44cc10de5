//! Combinations of mke2fs's options, both ways.
//!
//! Made by us: e2fsck finds nothing, the kernel mounts it, reads what we put there and writes, and
//! e2fsck finds nothing again. Made by mke2fs and filled by the kernel: our walk is the kernel's;
//! after changes by us e2fsck finds nothing and the kernel sees the changed tree.
//!
//! A sample runs always; all with `DISKSMITH_LONG=1`, the first one then with 50 000 files and
//! 10 000 changes.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use common::*;
use disksmith_filesystems::ext::{self, Ext, MakeOptions, Profile};
use disksmith_filesystems::source::DirectorySource;
use disksmith_filesystems::{
    Changes, Device, Fallocate, FileKind, Filesystem, NewFile, Rename, Time,
};
use disksmith_testkit::Rng;

/// Size in MiB and arguments of mke2fs. Every `STRIDE`th runs always.
const COMBINATIONS: &str = include_str!("ext_matrix.txt");
const STRIDE: usize = 9;

struct Combination {
    text: &'static str,
    mebibytes: u64,
    arguments: Vec<&'static str>,
}

fn combinations() -> Vec<Combination> {
    let lines = COMBINATIONS.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let all: Vec<Combination> = lines
        .map(|text| {
            let mut words = text.split_whitespace();
            let mebibytes = words.next().unwrap().parse().unwrap();
            Combination { text, mebibytes, arguments: words.collect() }
        })
        .collect();
    assert!(all.len() >= 60, "{}", all.len());
    let stride = if long() { 1 } else { STRIDE };
    all.into_iter().step_by(stride).collect()
}

impl Combination {
    fn options(&self) -> MakeOptions {
        let mut options = MakeOptions { root_owner: (0, 0), ..MakeOptions::default() };
        for pair in self.arguments.chunks(2) {
            let [name, value] = pair else { panic!("{}", self.text) };
            let number = || value.parse::<u64>().unwrap();
            match *name {
                "-t" => {
                    options.profile = match *value {
                        "ext2" => Profile::Ext2,
                        "ext3" => Profile::Ext3,
                        _ => Profile::Ext4,
                    }
                }
                "-O" => options.features = (*value).to_string(),
                "-b" => options.block_size = Some(number() as u32),
                "-C" => options.cluster_size = Some(number() as u32),
                "-I" => options.inode_size = Some(number() as u32),
                "-i" => options.inode_ratio = Some(number()),
                "-N" => options.inodes = Some(number()),
                "-m" => options.reserved = value.parse().unwrap(),
                "-J" => {
                    let size: u64 = value.strip_prefix("size=").unwrap().parse().unwrap();
                    options.journal_bytes = Some(size << 20);
                }
                other => panic!("{other} in {}", self.text),
            }
        }
        options
    }

    fn theirs(&self, image: &Path) {
        FileDisk::create(image, self.mebibytes << 20);
        let mut arguments = vec!["-q", "-F"];
        arguments.extend(&self.arguments);
        arguments.push(text(image));
        run("mke2fs", &arguments);
    }

    /// Whether Linux mounts it: blocks are not larger than pages, and no project numbers, for which
    /// kernels without quotas refuse to write. The others are judged by e2fsck alone.
    fn mountable(&self) -> bool {
        let options = self.options();
        options.block_size.is_none_or(|size| size <= 4096) && !options.features.contains("project")
    }
}

/// Tries all combinations, and tells of those that fail.
fn each(try_one: impl Fn(usize, &Combination) + std::panic::RefUnwindSafe) {
    let failed: Vec<&str> = combinations()
        .iter()
        .enumerate()
        .filter(|(number, combination)| {
            std::panic::catch_unwind(|| try_one(*number, combination)).is_err()
        })
        .map(|(_, combination)| combination.text)
        .collect();
    assert!(failed.is_empty(), "{failed:#?}");
}

#[test]
fn what_we_make_the_kernel_uses() {
    let source = tempfile::tempdir().unwrap();
    let tree = source.path().join("tree");
    fill(&tree, 60, 1);
    let expected = walk_host(&tree);
    each(|_, combination| {
        let what = combination.text;
        let folder = tempfile::tempdir().unwrap();
        let (image, at) = (folder.path().join("image"), folder.path().join("mount"));
        let disk = FileDisk::create(&image, combination.mebibytes << 20);
        ext::make_from(disk, &combination.options(), &mut DirectorySource::new(&tree))
            .unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_clean(&image, what);
        let blur = |seen: &mut Seen| {
            (seen.accessed, seen.changed, seen.blocks, seen.inode) = ((0, 0), (0, 0), 0, 0);
            if combination.options().inode_size == Some(128) {
                seen.modified.1 = 0;
            }
        };
        let ours = walk_ours(&Ext::open(FileDisk::open(&image), true).unwrap());
        assert_same(&ours, &expected, what, blur);
        if combination.mountable() {
            {
                let _mounted = Mount::new(&image, &at, "noatime");
                assert_same(&walk_host(&at), &expected, what, blur);
                fill(&at.join("more"), 40, 2);
                fs::remove_dir_all(at.join("d1")).unwrap();
            }
            assert_clean(&image, what);
        }
    });
}

#[test]
fn what_the_kernel_filled_we_read_and_change() {
    each(|number, combination| {
        if !combination.mountable() {
            return;
        }
        let what = combination.text;
        let folder = tempfile::tempdir().unwrap();
        let (image, at) = (folder.path().join("image"), folder.path().join("mount"));
        let (files, changes) = match (number == 0, long()) {
            (true, true) => (50_000, 10_000),
            (true, false) => (1500, 600),
            (false, _) => (120, 300),
        };
        combination.theirs(&image);
        {
            let _mounted = Mount::new(&image, &at, "noatime");
            fill(&at.join("tree"), files, number as u64);
        }
        let theirs = {
            let _mounted = Mount::new(&image, &at, "ro,noatime");
            walk_host(&at)
        };
        assert!(theirs.len() > files, "{what}");
        let ours = Ext::open(FileDisk::open(&image), false)
            .unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_same(&walk_ours(&ours), &theirs, what, |_| {});
        let mut changer = Changer::new(&ours, number as u64);
        for step in 0..changes {
            changer.step(step);
        }
        assert!(changer.done * 2 > changes, "{what}: only {} changes", changer.done);
        let changed = walk_ours(&ours);
        assert_ne!(changed, theirs, "{what}");
        ours.close().unwrap();
        drop(ours);
        assert_clean(&image, what);
        let _mounted = Mount::new(&image, &at, "ro,noatime");
        assert_same(&changed, &walk_host(&at), what, |_| {});
    });
}

/// A tree of about so many files: deep directories, long names, holes, attributes, links of both
/// kinds, devices, times.
fn fill(root: &Path, files: usize, seed: u64) {
    use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags};
    let mut rng = Rng::new(seed);
    fs::create_dir_all(root).unwrap();
    let mut folders = vec![root.to_path_buf()];
    for number in 0..files {
        if number % 25 == 0 {
            let parent = folders[rng.below(folders.len() as u64) as usize].clone();
            let folder = parent.join(format!("d{}", folders.len()));
            fs::create_dir(&folder).unwrap();
            folders.push(folder);
        }
        // Half of the files crowd in one directory.
        let within =
            if number % 2 == 0 { 1.min(folders.len() - 1) } else { number % folders.len() };
        let length = if number % 50 == 3 { 240 } else { rng.below(30) as usize };
        let path = folders[within].join(format!("f{number}{}", "n".repeat(length)));
        match number % 20 {
            0 => std::os::unix::fs::symlink("x".repeat(1 + number % 150), &path).unwrap(),
            1 => {
                let device = rustix::fs::makedev(300, 70_000);
                let mode = Mode::from_bits_retain(0o640);
                let kind = [FileType::Fifo, FileType::CharacterDevice][number / 20 % 2];
                rustix::fs::mknodat(CWD, &path, kind, mode, device).unwrap();
            }
            2 => {
                let file = File::create(&path).unwrap();
                for _ in 0..4 {
                    file.write_all_at(&rng.bytes(5000), rng.below(3 << 20)).unwrap();
                }
            }
            kind => {
                let length = if kind == 3 { rng.below(200_000) } else { rng.below(3000) };
                fs::write(&path, rng.bytes(length as usize)).unwrap();
            }
        }
        if number % 7 == 3 {
            let value = rng.bytes(1 + (number % 13) * 20);
            rustix::fs::lsetxattr(&path, "user.some", &value, XattrFlags::empty()).ok();
        }
        if number % 11 == 4 {
            fs::hard_link(&path, folders[0].join(format!("hard{number}"))).unwrap();
        }
        std::os::unix::fs::lchown(&path, Some(number as u32 % 70_000), Some(80_000)).unwrap();
        let time = Timespec { tv_sec: 1_600_000_000 + number as i64, tv_nsec: number as i64 };
        let times = Timestamps { last_access: time, last_modification: time };
        rustix::fs::utimensat(CWD, &path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
    }
}

/// Random changes of a tree by us.
struct Changer<'a> {
    ours: &'a Ext,
    rng: Rng,
    /// Directory, name, inode.
    files: Vec<(u64, Vec<u8>, u64)>,
    folders: Vec<u64>,
    done: usize,
}

impl<'a> Changer<'a> {
    fn new(ours: &'a Ext, seed: u64) -> Self {
        let mut found = Self {
            ours,
            rng: Rng::new(seed),
            files: Vec::new(),
            folders: vec![ours.root()],
            done: 0,
        };
        let mut at = 0;
        while at < found.folders.len() {
            let folder = found.folders[at];
            let (files, folders) = (&mut found.files, &mut found.folders);
            ours.read_directory(folder, 0, &mut |entry| {
                match entry.kind.or_else(|| ours.attributes(entry.inode).ok().map(|at| at.kind)) {
                    _ if entry.name.starts_with(b".") || entry.name == b"lost+found" => {}
                    Some(FileKind::Directory) => folders.push(entry.inode),
                    Some(FileKind::Regular) => files.push((folder, entry.name, entry.inode)),
                    _ => {}
                }
                true
            })
            .unwrap();
            at += 1;
        }
        found
    }

    fn folder(&mut self) -> u64 {
        self.folders[self.rng.below(self.folders.len() as u64) as usize]
    }

    fn step(&mut self, step: usize) {
        let at = self.rng.below(self.files.len() as u64) as usize;
        let (folder, name, inode) = self.files[at].clone();
        let target = self.folder();
        let fresh = format!("new-{step}-{}", "m".repeat(step % 90)).into_bytes();
        let data = self.rng.bytes(1 + step * 37 % 9000);
        let offset = self.rng.below(200_000);
        let ours = self.ours;
        let file = |kind, mode| NewFile {
            kind,
            mode,
            uid: step as u32,
            gid: 9,
            device: Device::default(),
        };
        let changed = match self.rng.below(11) {
            0 => ours.create(target, &fresh, &file(FileKind::Regular, 0o640)).and_then(|made| {
                self.files.push((target, fresh, made.inode));
                ours.write(made.inode, offset / 1000, &data)
            }),
            1 => ours.create(target, &fresh, &file(FileKind::Directory, 0o751)).map(|made| {
                self.folders.push(made.inode);
            }),
            2 => ours.write(inode, offset, &data),
            3 => {
                let size = Some(offset / 3);
                ours.set_attributes(inode, &Changes { size, ..Changes::default() }).map(|_| ())
            }
            4 => ours.unlink(folder, &name).map(|()| {
                self.files.swap_remove(at);
            }),
            5 => ours.rename(folder, &name, target, &fresh, Rename::Replace).map(|()| {
                self.files[at] = (target, fresh, inode);
            }),
            6 => ours.link(inode, target, &fresh).map(|_| self.files.push((target, fresh, inode))),
            7 => ours
                .symlink(
                    target,
                    &fresh,
                    &data.iter().map(|b| b | 1).take(120).collect::<Vec<_>>(),
                    1,
                    2,
                )
                .map(|_| ()),
            8 => ours.set_xattr(inode, b"user.ours", &data[..data.len().min(300)], None),
            9 => {
                let how = [
                    Fallocate::PunchHole,
                    Fallocate::ZeroRange { keep_size: false },
                    Fallocate::Allocate { keep_size: true },
                ][step % 3];
                ours.fallocate(inode, offset / 2, 20_000, how)
            }
            _ => {
                let changes = Changes {
                    mode: Some(step as u16 & 0o7777),
                    uid: Some(step as u32 * 77),
                    modified: Some(Time { seconds: step as i64 - 50, nanoseconds: 0 }),
                    ..Changes::default()
                };
                ours.set_attributes(inode, &changes).map(|_| ())
            }
        };
        // A full or read-only corner of the tree refuses; everything else is done.
        self.done += usize::from(changed.is_ok());
    }
}
