//! Label, UUID, reserved blocks, a journal for ext2: as dumpe2fs and the kernel see them.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use common::*;
use disksmith_filesystems::ext::{self, MakeOptions, Profile, Tune};

#[test]
fn an_ext2_becomes_an_ext3() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("image");
    let options =
        MakeOptions { profile: Profile::Ext2, block_size: Some(1024), ..MakeOptions::default() };
    ext::make(FileDisk::create(&image, 32 << 20), &options).unwrap();
    let changes = Tune {
        label: Some(b"a label".to_vec()),
        uuid: Some([0x5a; 16]),
        reserved_blocks: Some(123),
        journal_blocks: Some(2048),
        ..Tune::default()
    };
    ext::tune(&FileDisk::open(&image), &changes).unwrap();
    assert_clean(&image, "tuned");
    for block in ["1", "8193"] {
        let said = run(
            "dumpe2fs",
            &["-h", "-o", &format!("superblock={block}"), "-o", "blocksize=1024", text(&image)],
        );
        for line in [
            "a label",
            "5a5a5a5a-5a5a-5a5a-5a5a-5a5a5a5a5a5a",
            "has_journal",
            "Reserved block count:     123",
        ] {
            assert!(said.contains(line), "{block}: {line}: {said}");
        }
    }
    assert!(run("dumpe2fs", &["-h", text(&image)]).contains("Total journal blocks:     2048"));
    let at = folder.path().join("mount");
    {
        let _mounted = Mount::new(&image, &at, "noatime");
        std::fs::write(at.join("file"), [1; 70_000]).unwrap();
    }
    assert_clean(&image, "tuned and used");
}

/// A filesystem with some files, in a fresh folder.
fn made(arguments: &str, folder: &std::path::Path) -> std::path::PathBuf {
    let image = folder.join("image");
    std::fs::File::create(&image).unwrap().set_len(48 << 20).unwrap();
    let mut words: Vec<&str> = arguments.split_whitespace().collect();
    words.extend(["-q", "-F", text(&image)]);
    run("mke2fs", &words);
    let mount = folder.join("mount");
    let _mounted = Mount::new(&image, &mount, "noatime");
    for number in 0..300 {
        let name = format!("{number}-{}", "n".repeat(number % 90));
        std::fs::write(mount.join(name), vec![number as u8; number * 61]).unwrap();
    }
    std::fs::create_dir_all(mount.join("deep/er/still")).unwrap();
    std::os::unix::fs::symlink("x".repeat(90), mount.join("deep/link")).unwrap();
    image
}

#[test]
fn features_change_as_tune2fs_changes_them() {
    let cases = [
        ("-t ext4 -O ^metadata_csum,uninit_bg -b 1024", "metadata_csum", "metadata_csum"),
        ("-t ext4 -b 1024", "^metadata_csum", "uninit_bg"),
        ("-t ext4 -b 1024", "^has_journal", ""),
        ("-t ext2 -b 1024", "has_journal", "has_journal"),
        ("-t ext2 -b 1024 -O ^dir_index", "dir_index", "dir_index"),
        ("-t ext4 -b 1024", "^dir_index", ""),
        ("-t ext3 -b 1024", "extent,huge_file,dir_nlink", "extent"),
        ("-t ext4 -b 1024", "metadata_csum_seed", "metadata_csum_seed"),
        ("-t ext2 -b 1024 -O ^filetype", "filetype", "filetype"),
        ("-t ext4", "^resize_inode", ""),
        ("-t ext3 -b 1024", "uninit_bg", "uninit_bg"),
    ];
    for (arguments, list, expected) in cases {
        let folder = tempfile::tempdir().unwrap();
        let image = made(arguments, folder.path());
        let mount = folder.path().join("mount");
        let what = format!("{arguments} -O {list}");
        let before = {
            let _mounted = Mount::new(&image, &mount, "ro,noatime");
            walk_host(&mount)
        };
        let changes = Tune { features: Some(list.into()), ..Tune::default() };
        ext::tune(&FileDisk::open(&image), &changes).unwrap_or_else(|e| panic!("{what}: {e}"));
        assert_clean(&image, &what);
        let said = run("dumpe2fs", &["-h", text(&image)]);
        let features = said.lines().find(|l| l.starts_with("Filesystem features:")).unwrap();
        assert!(
            expected.is_empty() || features.split(' ').any(|f| f == expected),
            "{what}: {said}"
        );
        for gone in list.split(',').filter_map(|f| f.strip_prefix('^')) {
            assert!(!features.split(' ').any(|f| f == gone), "{what}: {features}");
        }
        let mut after = {
            let _mounted = Mount::new(&image, &mount, "noatime");
            std::fs::write(mount.join("after"), "more").unwrap();
            std::fs::remove_file(mount.join("after")).unwrap();
            walk_host(&mount)
        };
        after.insert(Vec::new(), before[&b""[..]].clone());
        assert_eq!(after, before, "{what}");
        assert_clean(&image, &format!("{what}, used"));
    }
}

#[test]
fn a_uuid_that_checksums_begin_with() {
    let folder = tempfile::tempdir().unwrap();
    let image = made("-t ext4 -b 1024", folder.path());
    let change = Tune { uuid: Some([0x21; 16]), ..Tune::default() };
    ext::tune(&FileDisk::open(&image), &change).unwrap();
    assert_clean(&image, "changed");
    let said = run("blkid", &["-p", "-o", "value", "-s", "UUID", text(&image)]);
    assert_eq!(said.trim(), "21212121-2121-2121-2121-212121212121");
}

#[test]
fn settings_are_those_that_tune2fs_shows() {
    let folder = tempfile::tempdir().unwrap();
    let image = made("-t ext4", folder.path());
    let changes = Tune {
        reserved_percent: Some(1.0),
        max_mounts: Some(30),
        mounts: Some(4),
        check_interval: Some(86_400 * 10),
        on_error: Some(ext::OnError::ReadOnly),
        reserved_uid: Some(5),
        reserved_gid: Some(6),
        mount_options: Some("^acl,discard,journal_data".into()),
        ..Tune::default()
    };
    ext::tune(&FileDisk::open(&image), &changes).unwrap();
    assert_clean(&image, "tuned");
    let said = run("tune2fs", &["-l", text(&image)]);
    for line in [
        "Reserved block count:     491",
        "Maximum mount count:      30",
        "Mount count:              4",
        "Check interval:           864000 (1 week, 3 days)",
        "Errors behavior:          Remount read-only",
        "Reserved blocks uid:      5",
        "Reserved blocks gid:      6",
        "Default mount options:    journal_data user_xattr discard",
    ] {
        assert!(said.contains(line), "{line}: {said}");
    }
}
