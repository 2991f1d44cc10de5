//! Filesystems made by mke2fs and filled by the kernel: what we read is what the kernel reads.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use common::*;
use disksmith_filesystems::ext::Ext;

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
