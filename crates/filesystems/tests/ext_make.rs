//! Filesystems that we make: e2fsck finds nothing, the kernel mounts them, their geometry is
//! mke2fs's.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::path::Path;

use common::*;
use disksmith_filesystems::Time;
use disksmith_filesystems::ext::{self, Ext, MakeOptions, Profile};
use disksmith_filesystems::source::{DirectorySource, TarSource};

const MIB: u64 = 1 << 20;

struct Case {
    name: &'static str,
    mke2fs: &'static str,
    size: u64,
    options: MakeOptions,
}

fn case(name: &'static str, mke2fs: &'static str, mebibytes: u64, options: MakeOptions) -> Case {
    Case { name, mke2fs, size: mebibytes * MIB, options }
}

fn profile(profile: Profile) -> MakeOptions {
    MakeOptions { profile, ..MakeOptions::default() }
}

fn with(features: &str) -> MakeOptions {
    MakeOptions { features: features.into(), ..MakeOptions::default() }
}

fn block(options: MakeOptions, size: u32) -> MakeOptions {
    MakeOptions { block_size: Some(size), ..options }
}

fn cases() -> Vec<Case> {
    use Profile::{Ext2, Ext3, Ext4};
    let plain = MakeOptions::default;
    let mut all = vec![
        case("ext4-1g", "-t ext4", 1024, plain()),
        case("ext4-64m", "-t ext4", 64, plain()),
        case("ext4-10g", "-t ext4", 10240, plain()),
        case("ext4-odd", "-t ext4", 777, plain()),
        case("ext3-256m", "-t ext3", 256, profile(Ext3)),
        case("ext3-1g", "-t ext3", 1024, profile(Ext3)),
        case("ext2-2m", "-t ext2", 2, profile(Ext2)),
        case("ext2-100m", "-t ext2", 100, profile(Ext2)),
        case("ext2-1g", "-t ext2", 1024, profile(Ext2)),
        case("2k", "-t ext4 -b 2048", 300, block(plain(), 2048)),
        case("bigalloc", "-t ext4 -O bigalloc", 1024, with("bigalloc")),
        case(
            "bigalloc-1k",
            "-t ext4 -b 1024 -O bigalloc -C 16384",
            512,
            MakeOptions { cluster_size: Some(16384), ..block(with("bigalloc"), 1024) },
        ),
        case("meta_bg", "-t ext4 -O meta_bg,^resize_inode", 600, with("meta_bg,^resize_inode")),
        case(
            "meta_bg-1k",
            "-t ext4 -b 1024 -O meta_bg,^resize_inode",
            600,
            block(with("meta_bg,^resize_inode"), 1024),
        ),
        case(
            "sparse_super2",
            "-t ext4 -O sparse_super2,^resize_inode",
            800,
            with("sparse_super2,^resize_inode"),
        ),
        case("no-flex", "-t ext4 -O ^flex_bg", 600, with("^flex_bg")),
        case(
            "no-csum",
            "-t ext4 -O ^metadata_csum,uninit_bg",
            600,
            with("^metadata_csum,uninit_bg"),
        ),
        case(
            "no-lazy",
            "-t ext4 -O ^metadata_csum,^uninit_bg",
            600,
            with("^metadata_csum,^uninit_bg"),
        ),
        case("no-64bit", "-t ext4 -O ^64bit", 600, with("^64bit")),
        case(
            "no-sparse",
            "-t ext4 -O ^sparse_super,^resize_inode",
            700,
            with("^sparse_super,^resize_inode"),
        ),
        case("no-journal", "-t ext4 -O ^has_journal", 300, with("^has_journal")),
        case("inline", "-t ext4 -O inline_data", 300, with("inline_data")),
        case(
            "orphan_file",
            "-t ext4 -O orphan_file,metadata_csum_seed",
            600,
            profile(Profile::Ext4Upstream),
        ),
        case("128", "-t ext4 -I 128", 600, MakeOptions { inode_size: Some(128), ..plain() }),
        case(
            "512",
            "-t ext4 -I 512 -i 8192 -m 1",
            600,
            MakeOptions {
                inode_size: Some(512),
                inode_ratio: Some(8192),
                reserved: 1.0,
                ..plain()
            },
        ),
        case("inodes", "-t ext4 -N 5000", 600, MakeOptions { inodes: Some(5000), ..plain() }),
        case(
            "large-ratio",
            "-t ext4 -i 1048576",
            2048,
            MakeOptions { inode_ratio: Some(1 << 20), ..plain() },
        ),
    ];
    if long() {
        for (size, text) in [
            (1024, "1024"),
            (2048, "2048"),
            (4096, "4096"),
            (8192, "8192"),
            (16384, "16384"),
            (32768, "32768"),
            (65536, "65536"),
        ] {
            for mebibytes in [33, 140, 513, 1500, 5000, 33000] {
                for (kind, which) in [("ext2", Ext2), ("ext3", Ext3), ("ext4", Ext4)] {
                    let arguments: &'static str =
                        Box::leak(format!("-t {kind} -b {text}").into_boxed_str());
                    all.push(case(arguments, arguments, mebibytes, block(profile(which), size)));
                }
            }
        }
    }
    all
}

/// What is compared of `dumpe2fs`: numbers of the superblock and where tables lie.
fn geometry(image: &Path, groups: bool) -> Vec<String> {
    let said = run("dumpe2fs", &[text(image)]);
    let wanted = [
        "Filesystem features",
        "Filesystem flags",
        "Default mount",
        "Inode count",
        "Block count",
        "Reserved block count",
        "Overhead clusters",
        "Free blocks:",
        "Free inodes:",
        "First block",
        "Block size",
        "Cluster size",
        "Group descriptor size",
        "Reserved GDT",
        "Blocks per group",
        "Clusters per group",
        "Inodes per group",
        "Inode blocks",
        "Flex block",
        "First inode",
        "Inode size",
        "Required extra",
        "Desired extra",
        "Journal inode",
        "Default directory hash",
        "Total journal",
        "Checksum type",
        "Maximum mount",
    ];
    let mut lines: Vec<String> = said
        .lines()
        .take_while(|line| !line.starts_with("Group 0"))
        .filter(|line| wanted.iter().any(|w| line.starts_with(w)))
        .map(str::to_owned)
        .collect();
    if groups {
        lines.extend(
            said.lines()
                .filter(|line| {
                    let line = line.trim_start();
                    line.starts_with("Inode table at")
                        || line.starts_with("Block bitmap at")
                        || line.starts_with("Backup super")
                        || line.starts_with("Reserved GDT blocks at")
                })
                .map(|line| line.split(", csum").next().unwrap().to_owned()),
        );
    }
    lines
}

#[test]
fn empty_filesystems_are_clean_and_mke2fs_alike() {
    let folder = tempfile::tempdir().unwrap();
    let mut wrong = Vec::new();
    for case in cases() {
        let ours = folder.path().join("ours.img");
        let theirs = folder.path().join("theirs.img");
        if let Err(error) = ext::make(FileDisk::create(&ours, case.size), &case.options) {
            wrong.push(format!("{}: {error}", case.name));
            continue;
        }
        let size = format!("{}k", case.size / 1024);
        FileDisk::create(&theirs, case.size);
        let mut arguments: Vec<&str> = vec!["-q", "-F"];
        arguments.extend(case.mke2fs.split(' '));
        arguments.push(text(&theirs));
        let _ = size;
        run("mke2fs", &arguments);
        assert_clean(&ours, case.name);
        let (mut a, mut b) = (geometry(&ours, true), geometry(&theirs, true));
        if case.name.starts_with("bigalloc") || case.name == "inline" {
            // mke2fs leaves gaps between bitmaps there, and makes the root directory inline.
            let differs = ["Overhead", "Free blocks", "  Inode table"];
            for lines in [&mut a, &mut b] {
                lines.retain(|line| !differs.iter().any(|start| line.starts_with(start)));
            }
        }
        if a != b {
            let differing: Vec<String> = a
                .iter()
                .filter(|l| !b.contains(l))
                .chain(b.iter().filter(|l| !a.contains(l)))
                .take(8)
                .cloned()
                .collect();
            wrong.push(format!("{}: {differing:#?}", case.name));
        }
        if !case.name.contains("-b 8192") && case.options.block_size.unwrap_or(4096) <= 4096 {
            let at = folder.path().join("mount");
            {
                let _mounted = Mount::new(&ours, &at, "noatime");
                std::fs::create_dir(at.join("x")).unwrap();
                std::fs::write(at.join("x/y"), vec![7; 100_000]).unwrap();
            }
            assert_clean(&ours, case.name);
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_awkward_tree_comes_back_whole() {
    let folder = tempfile::tempdir().unwrap();
    let tree = folder.path().join("tree");
    awkward_tree(&tree, 3000, 1 << 30);
    let theirs = walk_host(&tree);
    let archive = folder.path().join("tree.tar");
    run(
        "tar",
        &[
            "--numeric-owner",
            "--format=posix",
            "--xattrs",
            "--xattrs-include=*",
            "--acls",
            "--sparse",
            "-C",
            text(&tree),
            "-cf",
            text(&archive),
            ".",
        ],
    );
    let bigalloc = MakeOptions { inodes: Some(8000), ..with("bigalloc") };
    let mut kinds = vec![("ext4", MakeOptions::default()), ("ext2", profile(Profile::Ext2))];
    if long() {
        kinds.extend([("ext3", profile(Profile::Ext3)), ("bigalloc", bigalloc)]);
        kinds.push(("ea_inode", with("ea_inode")));
    }
    for (name, options) in kinds {
        for tar in [false, true] {
            let what = format!("{name} tar={tar}");
            let image = folder.path().join("image");
            let options = block(options.clone(), options.block_size.unwrap_or(4096));
            let disk = FileDisk::create(&image, 128 * MIB);
            if tar {
                let archive = std::fs::File::open(&archive).unwrap();
                ext::make_from(disk, &options, &mut TarSource::new(archive)).unwrap();
            } else {
                ext::make_from(disk, &options, &mut DirectorySource::new(&tree))
                    .unwrap_or_else(|e| panic!("{what}: {e}"));
            }
            assert_clean(&image, &what);
            let blur = |seen: &mut Seen| {
                // Times other than the content's, and what depends on the block size.
                seen.accessed = (0, 0);
                seen.changed = (0, 0);
                seen.inode = 0;
                seen.blocks = 0;
            };
            let skip = |mut manifest: Manifest| {
                // tar has no sockets.
                manifest.retain(|path, _| !(tar && path == b"/socket"));
                manifest
            };
            let at = folder.path().join("mount");
            {
                let _mounted = Mount::new(&image, &at, "ro");
                assert_same(&walk_host(&at), &skip(theirs.clone()), &what, blur);
                assert!(
                    walk_host(&at)[&b"/sparse"[..]].blocks < 512,
                    "{what}: the sparse file grew"
                );
            }
            let ours = walk_ours(&Ext::open(FileDisk::open(&image), true).unwrap());
            assert_same(&ours, &skip(theirs.clone()), &what, blur);
        }
    }
}

#[test]
fn copies_of_a_tree_give_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let (tree, copy) = (folder.path().join("tree"), folder.path().join("copy"));
    awkward_tree(&tree, 500, 1 << 26);
    run("cp", &["-a", text(&tree), text(&copy)]);
    let options = MakeOptions {
        uuid: Some([7; 16]),
        time: Some(Time::from_seconds(1_700_000_000)),
        block_size: Some(4096),
        ..MakeOptions::default()
    };
    let mut images = Vec::new();
    for (index, tree) in [&tree, &copy].into_iter().enumerate() {
        let image = folder.path().join(format!("{index}.img"));
        let disk = FileDisk::create(&image, 64 * MIB);
        ext::make_from(disk, &options, &mut DirectorySource::new(tree)).unwrap();
        images.push(std::fs::read(&image).unwrap());
    }
    assert!(images[0] == images[1], "two copies of one tree differ");
}

#[test]
fn the_smallest_size_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let tree = folder.path().join("tree");
    awkward_tree(&tree, 1000, 1 << 26);
    for options in
        [MakeOptions::default(), profile(Profile::Ext2), block(profile(Profile::Ext3), 1024)]
    {
        let options = MakeOptions { inode_size: Some(512), ..options };
        let need = ext::measure(&options, &mut DirectorySource::new(&tree)).unwrap();
        let (size, options) = ext::size_for(&options, &need).unwrap();
        assert!(size < 32 * MIB, "{size}");
        let image = folder.path().join("image");
        let made = ext::make_from(
            FileDisk::create(&image, size),
            &options,
            &mut DirectorySource::new(&tree),
        );
        if options.block_size == Some(1024) {
            // The large attribute does not fit there.
            assert!(made.is_err());
            continue;
        }
        made.unwrap();
        assert_clean(&image, "auto");
    }
}
