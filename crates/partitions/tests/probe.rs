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

/// A blank disk with bytes at places.
fn crafted(size: u64, pieces: &[(u64, &[u8])]) -> MemoryDisk {
    let disk = MemoryDisk::new(size);
    for (offset, bytes) in pieces {
        disk.write_at(bytes, *offset).unwrap();
    }
    disk
}

const ID: [u8; 16] =
    [0x6b, 0xdb, 0x33, 1, 2, 3, 0x4b, 0xa5, 0x8d, 0x6d, 0x2d, 0x4f, 0x8d, 0x9d, 0x3c, 0x11];

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

fn wide(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

fn erofs() -> MemoryDisk {
    let mut sb = [0; 128];
    put(&mut sb, 0, &0xe0f5_e1e2_u32.to_le_bytes());
    sb[12] = 12;
    put(&mut sb, 36, &256_u32.to_le_bytes());
    put(&mut sb, 48, &ID);
    put(&mut sb, 64, b"erolabel");
    crafted(MIB, &[(1024, &sb)])
}

fn f2fs() -> MemoryDisk {
    let mut sb = vec![0; 3072];
    put(&mut sb, 0, &0xf2f5_2010_u32.to_le_bytes());
    put(&mut sb, 4, &[1, 0, 15, 0]);
    for (at, value) in [(8, 9_u32), (12, 3), (16, 12)] {
        put(&mut sb, at, &value.to_le_bytes());
    }
    put(&mut sb, 36, &16384_u64.to_le_bytes());
    put(&mut sb, 108, &ID);
    put(&mut sb, 124, &wide("flash fs"));
    crafted(64 * MIB, &[(1024, &sb)])
}

fn ntfs() -> MemoryDisk {
    let mut boot = [0; 512];
    put(&mut boot, 0, &[0xeb, 0x52, 0x90]);
    put(&mut boot, 3, b"NTFS    ");
    put(&mut boot, 11, &[0, 2, 8, 0, 0]);
    boot[21] = 0xf8;
    put(&mut boot, 40, &131_071_u64.to_le_bytes());
    put(&mut boot, 48, &4_u64.to_le_bytes());
    put(&mut boot, 56, &1024_u64.to_le_bytes());
    boot[64] = 0xf6;
    boot[68] = 1;
    put(&mut boot, 72, &0x1234_5678_9abc_def0_u64.to_le_bytes());
    put(&mut boot, 510, &[0x55, 0xaa]);
    let mut record = [0; 1024];
    put(&mut record, 0, b"FILE");
    let mut mft = record;
    put(&mut mft, 20, &56_u16.to_le_bytes());
    put(&mut record, 20, &56_u16.to_le_bytes());
    put(&mut record, 24, &400_u32.to_le_bytes());
    put(&mut record, 28, &1024_u32.to_le_bytes());
    let name = wide("Volume A");
    put(&mut record, 56, &0x60_u32.to_le_bytes());
    put(&mut record, 60, &48_u32.to_le_bytes());
    put(&mut record, 72, &(name.len() as u32).to_le_bytes());
    put(&mut record, 76, &24_u16.to_le_bytes());
    put(&mut record, 80, &name);
    put(&mut record, 104, &u32::MAX.to_le_bytes());
    crafted(64 * MIB, &[(0, &boot), (4 * 4096, &mft), (4 * 4096 + 3 * 1024, &record)])
}

fn hfs_plus() -> MemoryDisk {
    let mut header = [0; 512];
    put(&mut header, 0, b"H+\x00\x04");
    for (at, value) in
        [(40, 4096_u32), (44, 4096), (48, 4000), (272 + 4, 8192), (284, 2), (288, 10), (292, 2)]
    {
        put(&mut header, at, &value.to_be_bytes());
    }
    put(&mut header, 104, &[1, 2, 3, 4, 5, 6, 7, 8]);
    let mut node = [0; 512];
    node[8] = 1;
    put(&mut node, 10, &3_u16.to_be_bytes());
    for (at, value) in [(16, 1_u32), (20, 1), (24, 1), (28, 1)] {
        put(&mut node, at, &value.to_be_bytes());
    }
    put(&mut node, 32, &4096_u16.to_be_bytes());
    let mut leaf = [0; 512];
    leaf[8] = 0xff;
    leaf[9] = 1;
    put(&mut leaf, 10, &1_u16.to_be_bytes());
    let name: Vec<u8> = "Macintosh".encode_utf16().flat_map(u16::to_be_bytes).collect();
    put(&mut leaf, 14, &(6 + name.len() as u16).to_be_bytes());
    put(&mut leaf, 16, &1_u32.to_be_bytes());
    put(&mut leaf, 20, &9_u16.to_be_bytes());
    put(&mut leaf, 22, &name);
    crafted(16 * MIB, &[(1024, &header), (40960, &node), (40960 + 4096, &leaf)])
}

fn apfs() -> MemoryDisk {
    let mut sb = [0; 4096];
    put(&mut sb, 8, &1_u64.to_le_bytes());
    put(&mut sb, 16, &1_u64.to_le_bytes());
    put(&mut sb, 24, &0x8000_0001_u32.to_le_bytes());
    put(&mut sb, 32, b"NXSB");
    put(&mut sb, 36, &4096_u32.to_le_bytes());
    put(&mut sb, 40, &4096_u64.to_le_bytes());
    put(&mut sb, 72, &ID);
    // Fletcher's checksum over everything behind it.
    let (mut low, mut high) = (0_u64, 0_u64);
    for word in sb[8..].chunks(4) {
        low = (low + u64::from(u32::from_le_bytes(word.try_into().unwrap()))) % 0xffff_ffff;
        high = (high + low) % 0xffff_ffff;
    }
    let check_low = 0xffff_ffff - (low + high) % 0xffff_ffff;
    let check_high = 0xffff_ffff - (low + check_low) % 0xffff_ffff;
    put(&mut sb, 0, &(check_high << 32 | check_low).to_le_bytes());
    crafted(16 * MIB, &[(0, &sb)])
}

fn iso9660() -> MemoryDisk {
    let mut descriptor = [0; 2048];
    put(&mut descriptor, 0, b"\x01CD001\x01");
    descriptor[40..72].fill(b' ');
    put(&mut descriptor, 40, b"MY_DISC");
    put(&mut descriptor, 80, &512_u32.to_le_bytes());
    put(&mut descriptor, 84, &512_u32.to_be_bytes());
    put(&mut descriptor, 128, &[0, 8, 8, 0]);
    put(&mut descriptor, 813, b"2024013123595800\0");
    put(&mut descriptor, 830, b"2024020112000000\0");
    crafted(MIB, &[(32768, &descriptor), (34816, b"\xffCD001\x01")])
}

fn lvm() -> MemoryDisk {
    let mut label = [0; 512];
    put(&mut label, 0, b"LABELONE");
    put(&mut label, 8, &1_u64.to_le_bytes());
    put(&mut label, 20, &32_u32.to_le_bytes());
    put(&mut label, 24, b"LVM2 001");
    put(&mut label, 32, b"abcdefghijklmnopqrstuvwxyzABCDEF");
    put(&mut label, 64, &(16 * MIB).to_le_bytes());
    // CRC-32 with LVM's own start value and without the last inversion.
    let mut crc = 0xf597_a6cf_u32;
    for byte in &label[20..] {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
        }
    }
    put(&mut label, 16, &crc.to_le_bytes());
    crafted(16 * MIB, &[(512, &label)])
}

fn md(place: u64) -> MemoryDisk {
    let mut sb = [0; 1024];
    put(&mut sb, 0, &0xa92b_4efc_u32.to_le_bytes());
    put(&mut sb, 4, &1_u32.to_le_bytes());
    put(&mut sb, 16, &ID);
    put(&mut sb, 32, b"host:name");
    put(&mut sb, 72, &1_u32.to_le_bytes());
    put(&mut sb, 80, &8192_u64.to_le_bytes());
    put(&mut sb, 92, &2_u32.to_le_bytes());
    put(&mut sb, 128, &(if place == 16 * MIB - 8192 { 0_u64 } else { 2048 }).to_le_bytes());
    put(&mut sb, 136, &8192_u64.to_le_bytes());
    put(&mut sb, 144, &(place / 512).to_le_bytes());
    // The sum of the first 256 bytes and of the two roles, folded.
    put(&mut sb, 220, &2_u32.to_le_bytes());
    let sum: u64 =
        sb[..260].chunks(4).map(|w| u64::from(u32::from_le_bytes(w.try_into().unwrap()))).sum();
    put(&mut sb, 216, &((sum & 0xffff_ffff) as u32).wrapping_add((sum >> 32) as u32).to_le_bytes());
    crafted(16 * MIB, &[(place, &sb)])
}

fn md_old() -> MemoryDisk {
    let mut sb = [0; 4096];
    put(&mut sb, 0, &0xa92b_4efc_u32.to_le_bytes());
    put(&mut sb, 8, &90_u32.to_le_bytes());
    put(&mut sb, 20, &0x0102_0304_u32.to_le_bytes());
    put(&mut sb, 32, &8192_u32.to_le_bytes());
    put(&mut sb, 52, &0x0506_0708_u32.to_le_bytes());
    put(&mut sb, 56, &0x090a_0b0c_u32.to_le_bytes());
    put(&mut sb, 60, &0x0d0e_0f10_u32.to_le_bytes());
    crafted(16 * MIB, &[(16 * MIB - 65536, &sb)])
}

#[test]
fn made_by_hand() {
    let folder = Folder::new();
    for (what, disk, label) in [
        ("erofs", erofs(), Some("erolabel")),
        ("f2fs", f2fs(), Some("flash fs")),
        ("ntfs", ntfs(), Some("Volume A")),
        ("hfsplus", hfs_plus(), Some("Macintosh")),
        ("apfs", apfs(), None),
        ("iso9660", iso9660(), Some("MY_DISC")),
        ("LVM2_member", lvm(), None),
        ("md 1.2", md(4096), Some("host:name")),
        ("md 1.1", md(0), Some("host:name")),
        ("md 1.0", md(16 * MIB - 8192), Some("host:name")),
        ("md 0.90", md_old(), None),
    ] {
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
    let seeds = [erofs(), f2fs(), ntfs(), hfs_plus(), apfs(), iso9660(), lvm(), md(4096), md_old()];
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
