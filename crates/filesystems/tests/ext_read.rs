//! Filesystems made by mke2fs and filled by the kernel: what we read is what the kernel reads.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use common::*;
use disksmith_filesystems::ext::Ext;
use disksmith_filesystems::{Filesystem, Seek};

/// Name, mke2fs arguments, size.
const MATRIX: &[(&str, &str, &str)] = &[
    ("ext4", "-t ext4", "128M"),
    ("ext4-4k", "-t ext4 -b 4096 -O metadata_csum_seed", "128M"),
    ("ext3", "-t ext3", "128M"),
    ("ext2", "-t ext2", "128M"),
    ("ext2-128", "-t ext2 -I 128 -b 2048", "128M"),
    ("inline", "-t ext4 -O inline_data -I 512", "128M"),
    ("bigalloc", "-t ext4 -O bigalloc -C 16384", "256M"),
    ("meta_bg", "-t ext4 -O meta_bg,^resize_inode -b 1024", "128M"),
    ("ea_inode", "-t ext4 -O ea_inode", "128M"),
    ("sparse_super2", "-t ext4 -O sparse_super2,^resize_inode", "128M"),
    ("uninit", "-t ext4 -O ^metadata_csum,uninit_bg,^64bit", "128M"),
    ("orphan", "-t ext4 -O orphan_file", "128M"),
];

#[test]
fn the_kernels_tree_is_read_alike() {
    let folder = tempfile::tempdir().unwrap();
    for (name, arguments, size) in MATRIX {
        let image = folder.path().join(format!("{name}.img"));
        let mut all: Vec<&str> = vec!["-q", "-F"];
        all.extend(arguments.split(' '));
        all.extend([text(&image), size]);
        run("mke2fs", &all);
        let mount = folder.path().join("mount");
        {
            let _mounted = Mount::new(&image, &mount, "noatime");
            awkward_tree(&mount.join("tree"), 2000, 64 << 20);
        }
        let theirs = {
            let _mounted = Mount::new(&image, &mount, "ro,noatime");
            walk_host(&mount)
        };
        let filesystem = Ext::open(FileDisk::open(&image), true)
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        let ours = walk_ours(&filesystem);
        assert_same(&ours, &theirs, name, |_| {});
        drop(filesystem);
        assert_clean(&image, name);
        std::fs::remove_file(&image).unwrap();
    }
}

/// What no mapping can reach is a hole, looked at in one step.
#[test]
fn a_length_that_is_nonsense_costs_no_time() {
    for kind in ["ext4", "ext2"] {
        a_long_file(kind);
    }
}

fn a_long_file(kind: &str) {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("image");
    run("mke2fs", &["-q", "-F", "-t", kind, text(&image), "16M"]);
    let long = 0x4000_0000_0000_0000_u64;
    let commands = format!("write /etc/passwd file\nset_inode_field file size {long}\n");
    let list = folder.path().join("commands");
    std::fs::write(&list, commands).unwrap();
    run("debugfs", &["-w", "-f", text(&list), text(&image)]);
    let ours = Ext::open(FileDisk::open(&image), true).unwrap();
    let file = ours.lookup(ours.root(), b"file").unwrap();
    assert_eq!(file.size, long);
    let begun = std::time::Instant::now();
    let hole = ours.seek(file.inode, 0, Seek::Hole).unwrap();
    assert!(ours.seek(file.inode, hole, Seek::Data).is_err());
    let mut buffer = [1; 4096];
    assert_eq!(ours.read(file.inode, long - 5000, &mut buffer).unwrap(), buffer.len());
    assert_eq!(buffer, [0; 4096]);
    assert!(begun.elapsed().as_millis() < 500, "{:?}", begun.elapsed());
}
