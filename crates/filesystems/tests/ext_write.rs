//! Changes: the same random operations on our filesystem and on a folder of the host give the same
//! answers and the same tree; e2fsck finds nothing; the kernel sees that tree.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use common::*;
use disksmith_filesystems::ext::{self, Ext, MakeOptions, Profile};
use disksmith_filesystems::{
    Changes, Device, Fallocate, FileKind, Filesystem, NewFile, Rename, errno, resolve,
};
use rustix::fs::{FallocateFlags, RenameFlags, XattrFlags};

/// A small generator of random numbers, the same everywhere.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }
    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

/// The same operations on both sides.
struct Twins<'a> {
    ours: &'a dyn Filesystem,
    host: PathBuf,
    rng: Rng,
    names: Vec<String>,
    reached: u64,
}

fn code<T>(result: disksmith_disk::Result<T>) -> i32 {
    match result {
        Ok(_) => 0,
        Err(error) => errno(&error),
    }
}

fn host_code<T>(result: std::io::Result<T>) -> i32 {
    match result {
        Ok(_) => 0,
        Err(error) => error.raw_os_error().unwrap_or(-1),
    }
}

fn rustix_code<T>(result: rustix::io::Result<T>) -> i32 {
    result.err().map_or(0, rustix::io::Errno::raw_os_error)
}

impl Twins<'_> {
    fn path(&mut self) -> String {
        let depth = 1 + self.rng.below(3);
        let mut path = String::new();
        for _ in 0..depth {
            let at = self.rng.below(self.names.len() as u64) as usize;
            path.push('/');
            path.push_str(&self.names[at].clone());
        }
        path
    }

    fn split<'p>(&self, path: &'p str) -> (disksmith_disk::Result<u64>, &'p [u8]) {
        let at = path.rfind('/').unwrap();
        let parent = resolve(self.ours, &path.as_bytes()[..at], true).map(|a| a.inode);
        (parent, &path.as_bytes()[at + 1..])
    }

    fn inode(&self, path: &str) -> disksmith_disk::Result<u64> {
        resolve(self.ours, path.as_bytes(), false).map(|a| a.inode)
    }

    fn host(&self, path: &str) -> PathBuf {
        self.host.join(&path[1..])
    }

    fn step(&mut self, step: u64) {
        let path = self.path();
        let host = self.host(&path);
        let (parent, name) = self.split(&path);
        let what = self.rng.below(100);
        let file = |kind| NewFile { kind, mode: 0o644, uid: 0, gid: 0, device: Device::default() };
        let (a, b, op) = match what {
            0..20 => {
                let a =
                    code(parent.and_then(|p| self.ours.create(p, name, &file(FileKind::Regular))));
                (a, host_code(File::options().write(true).create_new(true).open(&host)), "create")
            }
            20..28 => {
                let made = NewFile { mode: 0o755, ..file(FileKind::Directory) };
                (
                    code(parent.and_then(|p| self.ours.create(p, name, &made))),
                    host_code(fs::create_dir(&host)),
                    "mkdir",
                )
            }
            28..45 => {
                let offset = match self.rng.below(4) {
                    0 => 0,
                    1 => self.rng.below(20_000),
                    2 => self.rng.below(300_000),
                    _ => self.rng.below(12) * 4096,
                };
                let length = self.rng.below(30_000) + 1;
                let data: Vec<u8> = (0..length).map(|i| (i * 7 + step) as u8).collect();
                let b = host_code(
                    File::options()
                        .write(true)
                        .custom_flags_nofollow()
                        .open(&host)
                        .and_then(|f| f.write_all_at(&data, offset)),
                );
                if b != 0 {
                    return;
                }
                (
                    code(self.inode(&path).and_then(|i| self.ours.write(i, offset, &data))),
                    b,
                    "write",
                )
            }
            45..53 => {
                let size = if self.rng.below(3) == 0 { 0 } else { self.rng.below(200_000) };
                let b = host_code(
                    File::options()
                        .write(true)
                        .custom_flags_nofollow()
                        .open(&host)
                        .and_then(|f| f.set_len(size)),
                );
                if b != 0 {
                    return;
                }
                let changes = Changes { size: Some(size), ..Changes::default() };
                (
                    code(self.inode(&path).and_then(|i| self.ours.set_attributes(i, &changes))),
                    b,
                    "truncate",
                )
            }
            53..63 => {
                let a = code(parent.and_then(|p| self.ours.unlink(p, name)));
                (a, rustix_code(rustix::fs::unlink(&host)), "unlink")
            }
            63..67 => {
                let a = code(parent.and_then(|p| self.ours.remove_directory(p, name)));
                (a, rustix_code(rustix::fs::rmdir(&host)), "rmdir")
            }
            67..80 => {
                let other = self.path();
                let (flags, how) = match self.rng.below(6) {
                    0 => (RenameFlags::EXCHANGE, Rename::Exchange),
                    1 => (RenameFlags::NOREPLACE, Rename::NoReplace),
                    _ => (RenameFlags::empty(), Rename::Replace),
                };
                let (to, new) = self.split(&other);
                let a = code(parent.and_then(|p| self.ours.rename(p, name, to?, new, how)));
                let b = rustix_code(rustix::fs::renameat_with(
                    rustix::fs::CWD,
                    &host,
                    rustix::fs::CWD,
                    self.host(&other),
                    flags,
                ));
                // Which of several errors comes first is not promised.
                if a != 0 && b != 0 {
                    return;
                }
                (a, b, "rename")
            }
            80..84 => {
                let other = self.path();
                let (to, new) = self.split(&other);
                let a = code(self.inode(&path).and_then(|i| self.ours.link(i, to?, new)));
                let b = host_code(fs::hard_link(&host, self.host(&other)));
                if a != 0 && b != 0 {
                    return;
                }
                (a, b, "link")
            }
            84..88 => {
                let target = "t".repeat(1 + self.rng.below(120) as usize);
                let a =
                    code(parent.and_then(|p| self.ours.symlink(p, name, target.as_bytes(), 0, 0)));
                (a, host_code(std::os::unix::fs::symlink(&target, &host)), "symlink")
            }
            88..94 => {
                let key = format!("user.k{}", self.rng.below(6));
                let value = vec![b'v'; self.rng.below(700) as usize];
                let remove = self.rng.below(3) == 0;
                let found = self.inode(&path);
                let kind = fs::symlink_metadata(&host).map(|m| m.file_type());
                if !kind.is_ok_and(|k| k.is_file() || k.is_dir()) {
                    return;
                }
                if remove {
                    let a = code(found.and_then(|i| self.ours.remove_xattr(i, key.as_bytes())));
                    (a, rustix_code(rustix::fs::lremovexattr(&host, &key)), "removexattr")
                } else {
                    let b = rustix_code(rustix::fs::lsetxattr(
                        &host,
                        &key,
                        &value,
                        XattrFlags::empty(),
                    ));
                    let a = code(
                        found.and_then(|i| self.ours.set_xattr(i, key.as_bytes(), &value, None)),
                    );
                    if a == 28 && b == 0 {
                        rustix::fs::lremovexattr(&host, &key).unwrap();
                        let _ = self
                            .inode(&path)
                            .and_then(|i| self.ours.remove_xattr(i, key.as_bytes()));
                        return;
                    }
                    (a, b, "setxattr")
                }
            }
            94..99 => {
                let offset = self.rng.below(150_000);
                let length = 1 + self.rng.below(60_000);
                let (flags, how) = match self.rng.below(5) {
                    0 => (FallocateFlags::empty(), Fallocate::Allocate { keep_size: false }),
                    1 => (FallocateFlags::KEEP_SIZE, Fallocate::Allocate { keep_size: true }),
                    2 => (FallocateFlags::ZERO_RANGE, Fallocate::ZeroRange { keep_size: false }),
                    _ => (
                        FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
                        Fallocate::PunchHole,
                    ),
                };
                let Ok(open) = File::options().write(true).custom_flags_nofollow().open(&host)
                else {
                    return;
                };
                let b = rustix_code(rustix::fs::fallocate(&open, flags, offset, length));
                (
                    code(
                        self.inode(&path).and_then(|i| self.ours.fallocate(i, offset, length, how)),
                    ),
                    b,
                    "fallocate",
                )
            }
            _ => {
                self.ours.sync().unwrap();
                return;
            }
        };
        self.reached += u64::from(a == 0);
        assert_eq!(a, b, "step {step}: {op} {path}");
    }
}

trait NoFollow {
    fn custom_flags_nofollow(&mut self) -> &mut Self;
}

impl NoFollow for fs::OpenOptions {
    fn custom_flags_nofollow(&mut self) -> &mut Self {
        use std::os::unix::fs::OpenOptionsExt;
        self.custom_flags(0o400_000)
    }
}

fn blur(seen: &mut Seen) {
    seen.modified = (0, 0);
    seen.accessed = (0, 0);
    seen.changed = (0, 0);
    seen.inode = 0;
    seen.blocks = 0;
}

fn twins(name: &str, options: &MakeOptions, size: u64, steps: u64, folder: &Path) {
    let image = folder.join("image");
    let host = folder.join("host");
    let _ = fs::remove_dir_all(&host);
    fs::create_dir(&host).unwrap();
    ext::make(FileDisk::create(&image, size), options).unwrap();
    rustix::process::umask(rustix::fs::Mode::from_bits_retain(0o022));
    for round in 0..3 {
        let ours = Ext::open(FileDisk::open(&image), false).unwrap();
        let names = (0..12).map(|i| format!("n{i}{}", "x".repeat(i * 3))).collect();
        let mut twins =
            Twins { ours: &ours, host: host.clone(), rng: Rng(round * 77 + 5), names, reached: 0 };
        for step in 0..steps {
            twins.step(step);
        }
        assert!(twins.reached > steps / 8, "{name}: only {} steps did anything", twins.reached);
        assert_same(&walk_ours(&ours), &walk_host(&host), name, blur);
        if round == 1 {
            // Not closed: what was committed is replayed.
            ours.sync().unwrap();
            drop(ours);
            let again = Ext::open(FileDisk::open(&image), true).unwrap();
            assert_same(&walk_ours(&again), &walk_host(&host), name, blur);
            // 1: the journal was replayed, or (ext2) the state set to clean; nothing more.
            let repaired = try_run("e2fsck", &["-p", text(&image)]);
            assert!(repaired.status.code().is_some_and(|code| code <= 1), "{name}: {repaired:?}");
        } else {
            ours.close().unwrap();
        }
        assert_clean(&image, name);
    }
    let at = folder.join("mount");
    let _mounted = Mount::new(&image, &at, "ro");
    assert_same(&walk_host(&at), &walk_host(&host), name, blur);
}

#[test]
fn random_changes_are_the_kernels() {
    let folder = tempfile::tempdir().unwrap();
    let with = |features: &str, block| MakeOptions {
        features: features.into(),
        block_size: Some(block),
        ..MakeOptions::default()
    };
    let old =
        |profile, block| MakeOptions { profile, block_size: Some(block), ..MakeOptions::default() };
    let cases = [
        ("ext4", with("", 4096)),
        ("ext4-1k", with("", 1024)),
        ("ext3", old(Profile::Ext3, 1024)),
        ("ext2", old(Profile::Ext2, 4096)),
        ("bigalloc", with("bigalloc", 1024)),
        ("no-csum", with("^metadata_csum,uninit_bg,^64bit", 2048)),
        ("inline", with("inline_data,ea_inode", 4096)),
        ("orphan_file", old(Profile::Ext4Upstream, 4096)),
    ];
    let steps = if long() { 20_000 } else { 700 };
    for (name, options) in cases {
        twins(name, &options, 64 << 20, steps, folder.path());
    }
}

/// Thousands of names in one directory, out of order, and half of them removed again.
#[test]
fn large_directories_keep_their_index() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("image");
    let count = if long() { 100_000 } else { 12_000 };
    for block_size in [1024, 4096] {
        let options = MakeOptions {
            block_size: Some(block_size),
            inodes: Some(count / 2 + 1000),
            ..MakeOptions::default()
        };
        let options = MakeOptions { inodes: Some(count + 1000), ..options };
        ext::make(FileDisk::create(&image, 256 << 20), &options).unwrap();
        let ours = Ext::open(FileDisk::open(&image), false).unwrap();
        let file = NewFile {
            kind: FileKind::Regular,
            mode: 0o600,
            uid: 1,
            gid: 2,
            device: Device::default(),
        };
        let name = |i: u64| {
            format!(
                "{:016x}-{}",
                i.wrapping_mul(0x9E37_79B9_7F4A_7C15),
                "y".repeat((i % 30) as usize)
            )
        };
        for i in 0..count {
            ours.create(ours.root(), name(i).as_bytes(), &file)
                .unwrap_or_else(|e| panic!("{i}: {e}"));
        }
        for i in (0..count).step_by(2) {
            ours.unlink(ours.root(), name(i).as_bytes()).unwrap();
        }
        for i in 0..count {
            assert_eq!(ours.lookup(ours.root(), name(i).as_bytes()).is_ok(), i % 2 == 1, "{i}");
        }
        ours.close().unwrap();
        assert_clean(&image, "large directory");
        let at = folder.path().join("mount");
        let _mounted = Mount::new(&image, &at, "ro");
        for i in (1..count).step_by(97) {
            assert_eq!(at.join(name(i)).exists(), i % 2 == 1, "{i}");
        }
        assert_eq!(fs::read_dir(&at).unwrap().count() as u64, count / 2 + 1);
    }
}

/// A file in very many pieces: the extent tree grows to several levels and shrinks again.
#[test]
fn deep_trees_grow_and_shrink() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("image");
    for profile in [Profile::Ext4, Profile::Ext3] {
        let options = MakeOptions { profile, block_size: Some(1024), ..MakeOptions::default() };
        ext::make(FileDisk::create(&image, 64 << 20), &options).unwrap();
        let ours = Ext::open(FileDisk::open(&image), false).unwrap();
        let file = NewFile {
            kind: FileKind::Regular,
            mode: 0o600,
            uid: 0,
            gid: 0,
            device: Device::default(),
        };
        let inode = ours.create(ours.root(), b"pieces", &file).unwrap().inode;
        let pieces = 9000_u64;
        for i in 0..pieces {
            let at = i.wrapping_mul(7919) % pieces * 2048;
            ours.write(inode, at, &at.to_le_bytes()).unwrap();
        }
        let mut buffer = [0; 8];
        for i in 0..pieces {
            ours.read(inode, i * 2048, &mut buffer).unwrap();
            assert_eq!(u64::from_le_bytes(buffer), i * 2048);
        }
        ours.sync().unwrap();
        ours.fallocate(inode, 2_000_000, 9_000_000, Fallocate::PunchHole).unwrap();
        let changes = Changes { size: Some(15_000_001), ..Changes::default() };
        ours.set_attributes(inode, &changes).unwrap();
        let held = ours.create(ours.root(), b"held", &file).unwrap().inode;
        ours.write(held, 0, &vec![1; 3_000_000]).unwrap();
        ours.hold(held);
        ours.unlink(ours.root(), b"held").unwrap();
        let mut part = [0; 4];
        assert_eq!(ours.read(held, 2_000_000, &mut part).unwrap(), 4);
        ours.release(held, 1).unwrap();
        ours.close().unwrap();
        assert_clean(&image, "deep trees");
        let ours = Ext::open(FileDisk::open(&image), false).unwrap();
        ours.unlink(ours.root(), b"pieces").unwrap();
        ours.close().unwrap();
        assert_clean(&image, "deep trees");
    }
}
