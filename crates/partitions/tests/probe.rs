//! What we recognise, against blkid's low-level probing, on filesystems that their own tools
//! made and on superblocks made by hand for those whose tools are rare.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail by a panic")]

mod common;

use std::collections::BTreeMap;
use std::path::Path;

use common::*;
use disksmith_disk::{Disk, MemoryDisk};
use disksmith_partitions::{Content, probe};
use disksmith_testkit::oracle;

/// blkid's answers by name.
fn blkid(path: &Path) -> BTreeMap<String, String> {
    let output = oracle::run("blkid", &["-p", "-o", "export", &text(path)]);
    let lines = String::from_utf8_lossy(&output.stdout).into_owned();
    lines
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.to_string(), value.replace('\\', "")))
        .collect()
}

fn agree(path: &Path, what: &str) -> Content {
    let theirs = blkid(path);
    let ours = probe(&open(path))
        .unwrap()
        .unwrap_or_else(|| panic!("{what}: not recognised; blkid: {theirs:?}"));
    let told = |name: &str| theirs.get(name).cloned();
    assert_eq!(Some(ours.kind.to_string()), told("TYPE"), "{what}: {theirs:?}");
    assert_eq!(ours.uuid, told("UUID"), "{what}");
    let label = told("LABEL").or_else(|| told("LABEL_FATBOOT"));
    assert_eq!(ours.label, label.map(|l| l.trim_end().to_string()), "{what}");
    if let (Some(version), Some(theirs)) = (&ours.version, told("VERSION")) {
        assert_eq!(*version, theirs, "{what}");
    }
    assert!(ours.size.is_none_or(|size| size <= open(path).size()), "{what}: {:?}", ours.size);
    assert!(ours.used.zip(ours.size).is_none_or(|(used, size)| used <= size), "{what}");
    // Without its marks it is not recognised any more, by blkid neither.
    for (offset, length) in &ours.marks {
        open(path).write_at(&vec![0; *length as usize], *offset).unwrap();
    }
    let left = probe(&open(path)).unwrap();
    assert!(
        left.as_ref().is_none_or(|left| left.kind != ours.kind),
        "{what}: {left:?} after erasing"
    );
    ours
}

struct Made<'a> {
    what: &'a str,
    mib: u64,
    tool: &'a str,
    arguments: &'a [&'a str],
}

#[test]
fn made_by_their_tools() {
    const UUID: &str = "6bdb3301-15a5-4ba5-8d6d-2d4f8d9d3c11";
    let made = [
        Made {
            what: "ext2",
            mib: 16,
            tool: "mkfs.ext2",
            arguments: &["-q", "-F", "-L", "two", "-U", UUID],
        },
        Made { what: "ext3", mib: 32, tool: "mkfs.ext3", arguments: &["-q", "-F", "-L", "three"] },
        Made {
            what: "ext4",
            mib: 64,
            tool: "mkfs.ext4",
            arguments: &["-q", "-F", "-L", "a label"],
        },
        Made {
            what: "ext4 4k",
            mib: 64,
            tool: "mkfs.ext4",
            arguments: &["-q", "-F", "-b", "4096"],
        },
        Made {
            what: "xfs",
            mib: 320,
            tool: "mkfs.xfs",
            arguments: &["-q", "-f", "-L", "xfslabel"],
        },
        Made {
            what: "btrfs",
            mib: 128,
            tool: "mkfs.btrfs",
            arguments: &["-q", "-f", "-L", "butter"],
        },
        Made { what: "fat12", mib: 2, tool: "mkfs.vfat", arguments: &["-F", "12", "-n", "TWELVE"] },
        Made {
            what: "fat16",
            mib: 32,
            tool: "mkfs.vfat",
            arguments: &["-F", "16", "-i", "1a2b3c4d"],
        },
        Made {
            what: "fat32",
            mib: 300,
            tool: "mkfs.vfat",
            arguments: &["-F", "32", "-n", "EFI SYS"],
        },
        Made {
            what: "fat 4k",
            mib: 300,
            tool: "mkfs.vfat",
            arguments: &["-S", "4096", "-n", "BIG"],
        },
        Made { what: "exfat", mib: 64, tool: "mkfs.exfat", arguments: &["-L", "exlabel"] },
        Made {
            what: "ntfs",
            mib: 16,
            tool: "mkfs.ntfs",
            arguments: &["-q", "-F", "-L", "Vol ume"],
        },
        Made { what: "f2fs", mib: 64, tool: "mkfs.f2fs", arguments: &["-q", "-l", "flabel"] },
        Made { what: "swap", mib: 8, tool: "mkswap", arguments: &["-q", "-L", "swp"] },
    ];
    let folder = Folder::new();
    for Made { what, mib, tool, arguments } in made {
        let path = folder.blank("fs", mib * MIB);
        let name = text(&path);
        let arguments: Vec<&str> = arguments.iter().copied().chain([name.as_str()]).collect();
        oracle::succeed(tool, &arguments);
        let content = agree(&path, what);
        assert!(
            content.size.is_some_and(|size| size > mib * MIB * 3 / 4),
            "{what}: {:?}",
            content.size
        );
    }
}

/// Clusters in use as fsck.fat counts them.
#[test]
fn the_space_used_on_fat_is_what_its_checker_counts() {
    let folder = Folder::new();
    let file = folder.path("file");
    std::fs::write(&file, vec![7; 300_001]).unwrap();
    for (bits, mib, cluster) in [("12", 2, "1"), ("12", 7, "4"), ("16", 32, "1"), ("16", 16, "4")] {
        let path = folder.blank("fat", mib * MIB);
        let name = text(&path);
        oracle::succeed("mkfs.vfat", &["-F", bits, "-s", cluster, &name]);
        for copy in 0..5 {
            let target = format!("::file{copy}");
            oracle::succeed("mcopy", &["-i", &name, &text(&file), &target]);
        }
        oracle::succeed("mdel", &["-i", &name, "::file2"]);
        let said = oracle::run("fsck.fat", &["-n", "-v", &name]);
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        let number = |line: Option<&str>, mark: &str| -> u64 {
            let word = line.unwrap().split(mark).next().unwrap().rsplit(' ').next().unwrap();
            word.parse().unwrap()
        };
        let counts = said.lines().last().and_then(|line| line.rsplit_once(" files, "));
        let used = number(counts.map(|(_, clusters)| clusters), "/");
        let bytes = number(said.lines().find(|l| l.contains("per cluster")), " bytes per cluster");
        let ours = probe(&open(&path)).unwrap().unwrap();
        assert_eq!(ours.version, Some(format!("FAT{bits}")));
        assert_eq!(ours.used, Some(used * bytes), "FAT{bits} of {mib} MiB: {said}");
    }
}

/// The blocks that f2fs's own tool calls valid, and those in front of the main area.
#[test]
fn the_space_used_on_f2fs_is_what_its_checkpoint_says() {
    let folder = Folder::new();
    let path = folder.blank("f2fs", 64 * MIB);
    let name = text(&path);
    oracle::succeed("mkfs.f2fs", &["-q", &name]);
    let tree = folder.path("tree");
    std::fs::create_dir(&tree).unwrap();
    std::fs::write(tree.join("file"), vec![7; 3_000_001]).unwrap();
    oracle::run("sload.f2fs", &["-f", &text(&tree), &name]);
    let said = oracle::run("dump.f2fs", &["-d", "1", &name]);
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    let field = |key: &str| -> u64 {
        let line = said.lines().find(|line| line.starts_with(key)).unwrap();
        line.split(": ").nth(1).unwrap().trim_end_matches(']').trim().parse().unwrap()
    };
    let valid = said.lines().filter(|line| line.starts_with("valid_block_count")).count();
    assert_eq!(valid, 1, "{said}");
    let blocks = field("valid_block_count") + field("main_blkaddr");
    let ours = probe(&open(&path)).unwrap().unwrap();
    assert_eq!(ours.used, Some(blocks * 4096), "{said}");
    assert!(field("valid_block_count") > 700, "{said}");
}

#[test]
fn containers_and_archives() {
    let folder = Folder::new();
    for (version, format) in [("1", "luks1"), ("2", "luks2")] {
        let path = folder.blank("luks", 32 * MIB);
        let key = folder.path("key");
        std::fs::write(&key, b"secret").unwrap();
        oracle::succeed(
            "cryptsetup",
            &[
                "luksFormat",
                "-q",
                "--type",
                format,
                "--pbkdf",
                "pbkdf2",
                "--pbkdf-force-iterations",
                "1000",
                "--key-file",
                &text(&key),
                &text(&path),
            ],
        );
        assert_eq!(agree(&path, format).version.as_deref(), Some(version));
    }
    let tree = folder.path("tree");
    std::fs::create_dir(&tree).unwrap();
    std::fs::write(tree.join("file"), b"content").unwrap();
    let path = folder.path("sq");
    oracle::succeed("mksquashfs", &[&text(&tree), &text(&path), "-quiet", "-no-progress"]);
    agree(&path, "squashfs");
    let path = folder.path("erofs");
    oracle::succeed("mkfs.erofs", &[&text(&path), &text(&tree)]);
    agree(&path, "erofs");
    let path = folder.path("iso");
    let arguments = ["-quiet", "-V", "ISOLABEL", "-J", "-r", "-o", &text(&path), &text(&tree)];
    oracle::succeed("genisoimage", &arguments);
    // blkid's version is that of the Joliet names, ours has none.
    assert_eq!(agree(&path, "iso9660").label.as_deref(), Some("ISOLABEL"));
}

/// Physical volumes are made on devices only.
#[test]
fn lvm_made_by_its_tools() {
    let folder = Folder::new();
    let path = folder.blank("lvm", 64 * MIB);
    let device = oracle::succeed("losetup", &["--find", "--show", &text(&path)]);
    let config = "devices { filter=[\"a|.*|\"] use_devicesfile=0 }";
    let made = oracle::run("pvcreate", &["-q", "--config", config, device.trim()]);
    oracle::succeed("losetup", &["--detach", device.trim()]);
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    agree(&path, "LVM2_member");
}

#[test]
fn made_by_hand() {
    let folder = Folder::new();
    for (what, disk, label) in crafted::all() {
        let path = folder.path("crafted");
        save(&disk, &path);
        let content = agree(&path, what);
        assert_eq!(content.label.as_deref(), label, "{what}");
    }
}

/// Superblocks full of nonsense are read within bounds: no panic, no error.
#[test]
fn mutated_superblocks() {
    use disksmith_testkit::Rng;
    let mut rng = Rng::new(42);
    let seeds: Vec<_> = crafted::all().into_iter().map(|(_, disk, _)| disk).collect();
    for round in 0..cases(4000, 400) {
        let disk = seeds[(round % seeds.len() as u64) as usize].clone();
        for _ in 0..1 + rng.below(12) {
            let place = *rng.pick(&[
                0,
                512,
                1024,
                4096,
                16384 + 3072,
                32768,
                40960,
                45056,
                16 * MIB - 65536,
            ]);
            let at = place + rng.below(512);
            let bytes = *rng.pick(&[[0xff_u8; 4], [0; 4], [0x80, 0, 0, 0], [1, 0, 0, 0x7f]]);
            if at + 4 <= disk.size() {
                disk.write_at(&bytes, at).unwrap();
            }
        }
        probe(&disk).unwrap();
        disksmith_partitions::read(&disk).unwrap();
    }
    for size in [0, 1, 511, 512, 1023, 1024, 4095, 65535, 65536 + 100] {
        assert!(probe(&MemoryDisk::new(size)).unwrap().is_none());
    }
}
