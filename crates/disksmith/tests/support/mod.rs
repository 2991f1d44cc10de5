//! What the tests of mounts and file verbs share. They compare with the kernel, so they need root.
#![allow(
    clippy::unwrap_used,
    dead_code,
    unreachable_pub,
    missing_docs,
    reason = "helpers of tests fail by a panic"
)]

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use disksmith_testkit::oracle::{run, succeed};

/// Runs our program.
pub fn disksmith(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_disksmith")).args(arguments).output().unwrap()
}

/// Runs our program, which must succeed; answers its stdout.
pub fn ours(arguments: &[&str]) -> String {
    let output = disksmith(arguments);
    assert!(
        output.status.success(),
        "disksmith {arguments:?} ended with {}:\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs our program, which must fail; answers its stderr.
pub fn refused(arguments: &[&str]) -> String {
    let output = disksmith(arguments);
    assert!(!output.status.success(), "disksmith {arguments:?} succeeded");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A folder for one test. What is mounted in it is unmounted at the end.
pub struct Scratch(tempfile::TempDir);

impl Scratch {
    pub fn new() -> Self {
        assert!(
            rustix::process::geteuid().is_root(),
            "this test compares with the kernel's mounts and needs root"
        );
        Self(tempfile::tempdir().unwrap())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A path in it as text.
    pub fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_string()
    }

    /// A new directory.
    pub fn folder(&self, name: &str) -> String {
        std::fs::create_dir(self.path(name)).unwrap();
        self.text(name)
    }

    /// A sparse file.
    pub fn file(&self, name: &str, size: u64) -> String {
        std::fs::File::create(self.path(name)).unwrap().set_len(size).unwrap();
        self.text(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let table = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        for line in table.lines().rev() {
            let place = line.split(' ').nth(1).unwrap_or_default();
            if Path::new(place).starts_with(self.0.path()) {
                run("umount", &["-l", place]);
            }
        }
    }
}

/// A loop device for the time of a test.
pub struct Loop(pub String);

impl Loop {
    pub fn new(image: &str) -> Self {
        Self::with(image, &[])
    }

    pub fn with(image: &str, options: &[&str]) -> Self {
        let words = [&["--find", "--show"], options, &[image]].concat();
        let device = succeed("losetup", &words).trim().to_string();
        // Kernels without the option to scan by themselves are told.
        run("partx", &["--add", &device]);
        Self(device)
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        run("partx", &["--delete", &self.0]);
        run("losetup", &["--detach", &self.0]);
    }
}

/// Mounts an image by the kernel while `look` looks.
pub fn by_kernel<T>(scratch: &Scratch, image: &str, look: impl FnOnce(&Path) -> T) -> T {
    let place = scratch.path("by-kernel");
    let _ = std::fs::create_dir(&place);
    let text = place.to_str().unwrap();
    succeed("mount", &["-o", "loop", image, text]);
    let result = look(&place);
    succeed("umount", &[text]);
    result
}

/// All that `stat` and reading tell of a file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Seen {
    mode: u32,
    owner: (u32, u32),
    size: u64,
    modified: (i64, i64),
    device: u64,
    links: u64,
    content: u64,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// Everything below a folder, by relative path.
pub fn walk(root: &Path) -> BTreeMap<Vec<u8>, Seen> {
    let mut all = BTreeMap::new();
    let mut todo = vec![root.to_path_buf()];
    while let Some(folder) = todo.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let relative = path.strip_prefix(root).unwrap();
            if relative == Path::new("lost+found") {
                continue;
            }
            let seen = see(&path);
            if seen.mode & 0o170_000 == 0o040_000 {
                todo.push(path.clone());
            }
            all.insert(relative.as_os_str().as_bytes().to_vec(), seen);
        }
    }
    all
}

fn see(path: &Path) -> Seen {
    let found = std::fs::symlink_metadata(path).unwrap();
    let kind = found.mode() & 0o170_000;
    let mut content = DefaultHasher::new();
    match kind {
        0o120_000 => std::fs::read_link(path).unwrap().hash(&mut content),
        // Large files of the tests are holes.
        0o100_000 if found.len() < 1 << 26 => std::fs::read(path).unwrap().hash(&mut content),
        0o100_000 => (found.blocks() < 1 << 10).hash(&mut content),
        _ => {}
    }
    let folder = kind == 0o040_000;
    Seen {
        mode: found.mode(),
        owner: (found.uid(), found.gid()),
        size: if folder { 0 } else { found.len() },
        modified: (found.mtime(), found.mtime_nsec()),
        device: if matches!(kind, 0o020_000 | 0o060_000) { found.rdev() } else { 0 },
        links: if folder { 0 } else { found.nlink() },
        content: content.finish(),
        xattrs: xattrs(path),
    }
}

fn xattrs(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut list = vec![0; 65_536];
    let length = rustix::fs::llistxattr(path, &mut list[..]).unwrap();
    let names = list[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty());
    names
        .map(|name| {
            let mut value = vec![0; 65_536];
            let length = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap();
            value.truncate(length);
            (name.to_vec(), value)
        })
        .collect()
}

/// Two walks must be one.
pub fn assert_same(a: &BTreeMap<Vec<u8>, Seen>, b: &BTreeMap<Vec<u8>, Seen>) {
    for name in a.keys().chain(b.keys()) {
        let shown = String::from_utf8_lossy(name);
        assert_eq!(a.get(name), b.get(name), "{shown}");
    }
    assert!(!a.is_empty());
}

/// A tree with all that is easily lost.
pub fn awkward(root: &str) {
    let script = r#"
        set -e; cd "$1"
        echo one > one; ln one two; ln -s one link; ln -s "$(printf 'x%.0s' $(seq 200))" long-link
        mkfifo fifo; mknod chr c 1 70000; mknod blk b 8 1
        echo x > suid; chmod 4755 suid; mkdir sticky; chmod 1777 sticky
        echo x > owner; chown 70000:80000 owner
        truncate -s 1G sparse; printf Z | dd of=sparse bs=1 seek=536870912 conv=notrunc status=none
        touch -d '1960-01-02 03:04:05.123456789' old; touch -d '2040-01-02 03:04:05.5' new
        touch "$(printf 'n%.0s' $(seq 255))" "$(printf 'bad\377\376name')" "$(printf 'ctl\033[31m')"
        d=deep; for i in $(seq 40); do d=$d/d$i; done; mkdir -p $d; echo deep > $d/leaf
        mkdir many; (cd many; seq 1 600 | xargs touch)
        head -c 3000000 /dev/urandom > data
    "#;
    succeed("bash", &["-c", script, "bash", root]);
    let root = Path::new(root);
    let set = |file: &str, name: &str, value: &[u8]| {
        rustix::fs::lsetxattr(root.join(file), name, value, rustix::fs::XattrFlags::empty())
            .unwrap();
    };
    set("one", "user.small", b"hello");
    set("owner", "user.large", &[b'y'; 3000]);
    // cap_net_raw=ep, as setcap writes it.
    set("suid", "security.capability", b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
    let entry = |tag: u8, bits: u8, id: u32| {
        let mut entry = vec![tag, 0, bits, 0];
        entry.extend(id.to_le_bytes());
        entry
    };
    let mut list = vec![2, 0, 0, 0];
    for (tag, bits, id) in [(1, 6, !0), (2, 6, 1234), (4, 4, !0), (0x10, 6, !0), (0x20, 4, !0)] {
        list.extend(entry(tag, bits, id));
    }
    set("data", "system.posix_acl_access", &list);
}
