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
    };
    ext::tune(FileDisk::open(&image), &changes).unwrap();
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

#[test]
fn checksums_keep_the_uuid() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("image");
    let change = Tune { uuid: Some([1; 16]), ..Tune::default() };
    ext::make(FileDisk::create(&image, 32 << 20), &MakeOptions::default()).unwrap();
    assert!(ext::tune(FileDisk::open(&image), &change).is_err());
    assert_clean(&image, "refused");
    let options = MakeOptions { profile: Profile::Ext4Upstream, ..MakeOptions::default() };
    ext::make(FileDisk::create(&image, 32 << 20), &options).unwrap();
    ext::tune(FileDisk::open(&image), &change).unwrap();
    assert_clean(&image, "changed");
}
