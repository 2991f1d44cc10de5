//! Helpers for the tests: a file as a disk, the kernel's and e2fsprogs' view of it.
#![allow(dead_code, missing_docs, clippy::unwrap_used, reason = "not every test uses everything")]

pub(crate) mod changes;
pub(crate) mod cuts;
pub(crate) mod exfat_damage;
pub(crate) mod fat_damage;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use disksmith_disk::{Disk, Extent, Kind, Result, ZeroMode};
use disksmith_filesystems::{FileKind, Filesystem};

/// A file as a disk.
#[derive(Debug)]
pub(crate) struct FileDisk(File);

impl FileDisk {
    pub(crate) fn open(path: &Path) -> Arc<dyn Disk> {
        Arc::new(Self(File::options().read(true).write(true).open(path).unwrap()))
    }

    pub(crate) fn create(path: &Path, size: u64) -> Arc<dyn Disk> {
        File::create(path).unwrap().set_len(size).unwrap();
        Self::open(path)
    }
}

impl Disk for FileDisk {
    fn size(&self) -> u64 {
        self.0.metadata().unwrap().len()
    }
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        Ok(self.0.read_exact_at(buffer, offset)?)
    }
    fn write_at(&self, data: &[u8], offset: u64) -> Result<()> {
        if offset + data.len() as u64 > self.size() {
            return Err(disksmith_disk::Error::new(Kind::InvalidInput, "past the end"));
        }
        Ok(self.0.write_all_at(data, offset)?)
    }
    fn write_zeroes(&self, offset: u64, length: u64, _: ZeroMode) -> Result<()> {
        let zeroes = vec![0; 1 << 16];
        let mut at = offset;
        while at < offset + length {
            let step = (offset + length - at).min(zeroes.len() as u64);
            self.write_at(&zeroes[..step as usize], at)?;
            at += step;
        }
        Ok(())
    }
    fn discard(&self, _: u64, _: u64) -> Result<()> {
        Ok(())
    }
    fn flush(&self) -> Result<()> {
        Ok(())
    }
    fn map(&self, offset: u64, length: u64) -> Result<Extent> {
        Ok(Extent::data(length.min(self.size() - offset), offset))
    }
    fn set_size(&self, size: u64) -> Result<()> {
        Ok(self.0.set_len(size)?)
    }
}

/// Runs a tool that must be there and succeed.
pub(crate) fn run(program: &str, arguments: &[&str]) -> String {
    let output = try_run(program, arguments);
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub(crate) fn try_run(program: &str, arguments: &[&str]) -> Output {
    Command::new(program).args(arguments).env("MKE2FS_SYNC", "0").output().unwrap_or_else(|error| {
        let package = match program {
            "mount" | "umount" | "losetup" => "mount",
            "setfacl" => "acl",
            "fsck.fat" | "mkfs.fat" => "dosfstools",
            "fsck.exfat" | "mkfs.exfat" | "dump.exfat" => "exfatprogs",
            "mdir" | "mcopy" => "mtools",
            _ => "e2fsprogs",
        };
        panic!("{program}: {error}; install the Debian package {package}")
    })
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// `e2fsck -fn` finds nothing, and neither do we.
pub(crate) fn assert_clean(image: &Path, what: &str) {
    let output = try_run("e2fsck", &["-fn", text(image)]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{what}: e2fsck: {}\n{said}", output.status);
    // Trees that could be smaller are no error; the kernel leaves them behind too.
    let complaint = |line: &str| line.contains("? no") && !line.contains("extent tree (at level");
    assert!(!said.lines().any(complaint), "{what}: e2fsck: {said}");
    let report = disksmith_filesystems::ext::check(FileDisk::open(image)).unwrap();
    assert!(report.findings.is_empty(), "{what}: our check: {:#?}", report.findings);
}

/// A kernel mount, undone on drop.
pub(crate) struct Mount(pub PathBuf);

impl Mount {
    pub(crate) fn new(image: &Path, at: &Path, options: &str) -> Self {
        assert!(
            rustix::process::geteuid().is_root(),
            "this test mounts with the kernel: run it as root"
        );
        fs::create_dir_all(at).unwrap();
        let options = format!("loop,{options}");
        run("mount", &["-o", &options, text(image), text(at)]);
        Self(at.to_owned())
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

/// What is compared of a file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Seen {
    pub mode: u32,
    pub links: u64,
    pub uid: u32,
    pub gid: u32,
    pub size: u64,
    pub blocks: u64,
    pub device: (u32, u32),
    pub modified: (i64, i64),
    pub accessed: (i64, i64),
    pub changed: (i64, i64),
    pub content: u32,
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub inode: u64,
}

pub(crate) type Manifest = BTreeMap<Vec<u8>, Seen>;

/// The tree below a host folder. `lost+found` is left out.
pub(crate) fn walk_host(root: &Path) -> Manifest {
    use std::os::unix::ffi::OsStrExt;
    let mut manifest = Manifest::new();
    let mut todo = vec![(root.to_owned(), Vec::new())];
    while let Some((path, name)) = todo.pop() {
        let meta = fs::symlink_metadata(&path).unwrap();
        let kind = meta.file_type();
        if kind.is_dir() {
            for entry in fs::read_dir(&path).unwrap() {
                let entry = entry.unwrap();
                if name.is_empty() && entry.file_name() == "lost+found" {
                    continue;
                }
                let child = [&name[..], b"/", entry.file_name().as_bytes()].concat();
                todo.push((entry.path(), child));
            }
        }
        let content = if kind.is_file() {
            crc32c::crc32c(&fs::read(&path).unwrap())
        } else if kind.is_symlink() {
            crc32c::crc32c(fs::read_link(&path).unwrap().as_os_str().as_bytes())
        } else {
            0
        };
        let device = if kind.is_char_device() || kind.is_block_device() {
            (rustix::fs::major(meta.rdev()), rustix::fs::minor(meta.rdev()))
        } else {
            (0, 0)
        };
        let is_directory = kind.is_dir();
        manifest.insert(
            name,
            Seen {
                mode: meta.mode(),
                links: if is_directory { 0 } else { meta.nlink() },
                uid: meta.uid(),
                gid: meta.gid(),
                size: if is_directory { 0 } else { meta.size() },
                blocks: if is_directory { 0 } else { meta.blocks() },
                device,
                modified: (meta.mtime(), meta.mtime_nsec()),
                accessed: (meta.atime(), meta.atime_nsec()),
                changed: (meta.ctime(), meta.ctime_nsec()),
                content,
                xattrs: host_xattrs(&path),
                inode: meta.ino(),
            },
        );
    }
    manifest
}

fn host_xattrs(path: &Path) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut names = vec![0_u8; 65536];
    let length = rustix::fs::llistxattr(path, &mut names).unwrap_or(0);
    let mut all: Vec<(Vec<u8>, Vec<u8>)> = names[..length]
        .split(|b| *b == 0)
        .filter(|name| !name.is_empty())
        .map(|name| {
            let mut value = vec![0_u8; 65536];
            let length = rustix::fs::lgetxattr(path, name, &mut value).unwrap();
            value.truncate(length);
            (name.to_vec(), value)
        })
        .collect();
    all.sort();
    all
}

/// The tree that our reader sees, in the same terms.
pub(crate) fn walk_ours(filesystem: &dyn Filesystem) -> Manifest {
    let mut manifest = Manifest::new();
    let mut todo = vec![(filesystem.root(), Vec::new())];
    while let Some((inode, name)) = todo.pop() {
        let at = filesystem.attributes(inode).unwrap_or_else(|e| panic!("{inode} {name:?}: {e}"));
        let mut content = 0;
        let is_directory = at.kind == FileKind::Directory;
        match at.kind {
            FileKind::Directory => filesystem
                .read_directory(inode, 0, &mut |entry| {
                    let dots = entry.name == b"." || entry.name == b"..";
                    let recovered = name.is_empty() && entry.name == b"lost+found";
                    if !dots && !recovered {
                        let found = filesystem.lookup(inode, &entry.name).unwrap();
                        assert_eq!(found.inode, entry.inode);
                        todo.push((entry.inode, [&name[..], b"/", &entry.name].concat()));
                    }
                    true
                })
                .unwrap_or_else(|e| panic!("{name:?}: {e}")),
            FileKind::Regular => {
                let mut buffer = vec![0; 1 << 20];
                let mut offset = 0;
                while offset < at.size {
                    let count = filesystem.read(inode, offset, &mut buffer).unwrap();
                    content = crc32c::crc32c_append(content, &buffer[..count]);
                    offset += count as u64;
                }
            }
            FileKind::Symlink => content = crc32c::crc32c(&filesystem.read_link(inode).unwrap()),
            _ => {}
        }
        let mut xattrs: Vec<(Vec<u8>, Vec<u8>)> = filesystem
            .xattrs(inode)
            .unwrap()
            .into_iter()
            .map(|name| (name.clone(), filesystem.xattr(inode, &name).unwrap()))
            .collect();
        xattrs.sort();
        let time = |t: disksmith_filesystems::Time| (t.seconds, i64::from(t.nanoseconds));
        manifest.insert(
            name,
            Seen {
                mode: u32::from(at.mode) | u32::from(at.kind.mode_bits()),
                links: if is_directory { 0 } else { at.links.into() },
                uid: at.uid,
                gid: at.gid,
                size: if is_directory { 0 } else { at.size },
                blocks: if is_directory { 0 } else { at.blocks },
                device: (at.device.major, at.device.minor),
                modified: time(at.modified),
                accessed: time(at.accessed),
                changed: time(at.changed),
                content,
                xattrs,
                inode,
            },
        );
    }
    manifest
}

/// Both manifests are the same, but for what `same` makes equal.
pub(crate) fn assert_same(
    ours: &Manifest,
    theirs: &Manifest,
    what: &str,
    blur: impl Fn(&mut Seen),
) {
    if let Some(name) = ours.keys().find(|name| !theirs.contains_key(*name)) {
        panic!("{what}: only ours has {:?}", String::from_utf8_lossy(name));
    }
    for (name, their) in theirs {
        let Some(our) = ours.get(name) else {
            panic!("{what}: ours lacks {:?}", String::from_utf8_lossy(name))
        };
        let (mut a, mut b) = (our.clone(), their.clone());
        blur(&mut a);
        blur(&mut b);
        assert_eq!(a, b, "{what}: {:?}", String::from_utf8_lossy(name));
    }
}

pub(crate) fn long() -> bool {
    std::env::var_os("DISKSMITH_LONG").is_some()
}

/// The awkward tree: everything that builders tend to lose.
pub(crate) fn awkward_tree(root: &Path, many: usize, sparse_size: u64) {
    use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags};
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    fs::create_dir_all(root).unwrap();
    let p = |name: &str| root.join(name);
    fs::write(p("hello"), b"hello world\n").unwrap();
    fs::write(p("empty"), b"").unwrap();
    let big: Vec<u8> =
        (0..3_000_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    fs::write(p("big"), &big).unwrap();
    fs::hard_link(p("hello"), p("hard1")).unwrap();
    fs::hard_link(p("hello"), p("hard2")).unwrap();
    std::os::unix::fs::symlink("hello", p("short-link")).unwrap();
    std::os::unix::fs::symlink("x/".repeat(200), p("long-link")).unwrap();
    std::os::unix::fs::symlink("a".repeat(59), p("link59")).unwrap();
    std::os::unix::fs::symlink("a".repeat(60), p("link60")).unwrap();
    let node = |name: &str, kind, major, minor| {
        let dev = rustix::fs::makedev(major, minor);
        rustix::fs::mknodat(CWD, p(name), kind, Mode::from_bits_retain(0o644), dev).unwrap();
    };
    node("fifo", FileType::Fifo, 0, 0);
    node("socket", FileType::Socket, 0, 0);
    node("char", FileType::CharacterDevice, 5, 1);
    node("block", FileType::BlockDevice, 300, 70000);
    for (name, mode) in [("setuid", 0o4755), ("sticky", 0o1777)] {
        fs::write(p(name), name).unwrap();
        rustix::fs::chmod(p(name), Mode::from_bits_retain(mode)).unwrap();
    }
    fs::write(p("owned"), b"x").unwrap();
    std::os::unix::fs::chown(p("owned"), Some(70000), Some(80000)).unwrap();
    let sparse = File::create(p("sparse")).unwrap();
    sparse.set_len(sparse_size).unwrap();
    sparse.write_all_at(b"!", sparse_size / 3 * 2).unwrap();
    for (name, value) in [("user.small", vec![b'v'; 5]), ("user.large", vec![b'w'; 3000])] {
        // The large one does not fit into blocks of 1 KiB.
        let set = rustix::fs::lsetxattr(p("hello"), name, &value, XattrFlags::empty());
        assert!(set.is_ok() || set == Err(rustix::io::Errno::NOSPC), "{set:?}");
    }
    run("setfacl", &["-m", "u:1234:rwx,g:4321:r", text(&p("owned"))]);
    let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    rustix::fs::lsetxattr(p("setuid"), "security.capability", &capability, XattrFlags::empty())
        .unwrap();
    fs::create_dir(p("many")).unwrap();
    run("setfacl", &["-d", "-m", "u:1234:rwx", text(&p("many"))]);
    for i in 0..many {
        fs::write(p("many").join(format!("entry-{i:05}-{}", "n".repeat(i % 40))), b"").unwrap();
    }
    fs::write(root.join(OsStr::from_bytes(b"not-utf8-\xff\xfe")), b"n").unwrap();
    fs::write(p(&"l".repeat(255)), b"l").unwrap();
    let mut deep = p("deep");
    for level in 0..40 {
        fs::create_dir(&deep).unwrap();
        deep = deep.join(format!("level{level}"));
    }
    let times = [
        ("old", -315_619_200, 0),
        ("future", 2_208_988_800, 999_999_999),
        ("nano", 1_000_000_000, 123_456_789),
    ];
    for (name, seconds, nanoseconds) in times {
        fs::write(p(name), name).unwrap();
        let t = Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
        let t = Timestamps { last_access: t, last_modification: t };
        rustix::fs::utimensat(CWD, p(name), &t, AtFlags::empty()).unwrap();
    }
}
