//! ext: opening, walking, checking, replaying the journal, changing what opens.

use std::sync::Arc;

use disksmith_disk::{Disk, MemoryDisk};
use disksmith_filesystems::ext::{self, Ext, MakeOptions, NewSize, Profile};
use disksmith_filesystems::{FileKind, Filesystem, Time};
use disksmith_testkit::Rng;

use super::tree::{file, step, walk};
use crate::budget::Metered;
use crate::{Target, fields};

macro_rules! target {
    ($const:ident, $name:literal, $seeds:ident, $run:expr) => {
        pub(crate) const $const: Target = Target {
            name: $name,
            run: $run,
            seeds: $seeds,
            fields: fields::ext::FIELDS,
            fix: Some(fix),
        };
    };
}

target!(WALK, "ext_walk", seeds, |data| {
    if let Ok(filesystem) = Ext::open(Metered::new(data), true) {
        walk(&filesystem);
    }
});

target!(CHECK, "ext_check", seeds, |data| drop(ext::check(Metered::new(data))));

target!(JOURNAL, "ext_journal", journals, |data| {
    // Read-only the journal is replayed in memory; read-write, on the disk, once and for all.
    if let Ok(filesystem) = Ext::open(Metered::new(data), true) {
        walk(&filesystem);
    }
    let disk = Metered::new(data);
    if let Ok(filesystem) = Ext::open(disk.clone(), false) {
        drop(filesystem.close());
        drop(Ext::open(Metered::over(disk.content()), false));
    }
});

target!(RESIZE, "ext_resize", seeds, |data| {
    drop(ext::minimum_size(Metered::new(data)));
    for size in [NewSize::Minimum, NewSize::Bytes(900 << 10)] {
        let disk = MemoryDisk::from_bytes(data);
        drop(disk.set_size(1 << 20));
        let disk = Metered::over(disk);
        if ext::resize(&(disk.clone() as Arc<dyn Disk>), size).is_ok() {
            drop(ext::check(Metered::over(disk.content())));
        }
    }
});

target!(CHANGE, "ext_change", seeds, |data| {
    let Ok(filesystem) = Ext::open(Metered::new(data), false) else { return };
    let seed = data.iter().rev().take(8).fold(1u64, |seed, byte| seed << 8 | u64::from(*byte));
    let mut rng = Rng::new(seed ^ u64::from(data.get(1060).copied().unwrap_or(0)));
    for number in 0..12 {
        step(&filesystem, &mut rng, number);
    }
    drop(filesystem.sync());
    walk(&filesystem);
    drop(filesystem.close());
});

/// The superblock's checksum, made right again where there is one.
fn fix(bytes: &mut [u8]) {
    const HAS_CHECKSUM: u8 = 4;
    if bytes.get(1024 + 0x65).is_some_and(|ro_compat| ro_compat & HAS_CHECKSUM != 0)
        && let Some(block) = bytes.get_mut(1024..2048)
    {
        let sum = !crc32c::crc32c(&block[..1020]);
        block[1020..].copy_from_slice(&sum.to_le_bytes());
    }
}

fn made(profile: Profile, features: &str, size: u64) -> (Arc<MemoryDisk>, Ext) {
    let disk = Arc::new(MemoryDisk::new(size));
    let options = MakeOptions {
        profile,
        features: features.into(),
        block_size: Some(1024),
        journal_blocks: features.is_empty().then_some(1024),
        inodes: Some(200),
        uuid: Some([7; 16]),
        hash_seed: Some([9; 16]),
        time: Some(Time::from_seconds(1_700_000_000)),
        ..MakeOptions::default()
    };
    let filesystem = ext::make_and_open(disk.clone(), &options).expect("the seed can be made");
    (disk, filesystem)
}

pub(super) fn fill(filesystem: &dyn Filesystem) {
    let root = filesystem.root();
    let make = |name: &str, kind| {
        filesystem.create(root, name.as_bytes(), &file(kind)).expect("it is new").inode
    };
    let (regular, folder) = (make("f", FileKind::Regular), make("f1", FileKind::Directory));
    let steps = || -> disksmith_disk::Result<()> {
        filesystem.write(regular, 0, &[3; 20_000])?;
        filesystem.write(regular, 90_000, &[4; 3000])?;
        filesystem.set_xattr(regular, b"user.note", &[5; 200], None)?;
        for number in 0..60 {
            let name = format!("a name of some length, number {number}");
            filesystem.create(folder, name.as_bytes(), &file(FileKind::Regular))?;
        }
        filesystem.symlink(root, b"link", &[b'l'; 90], 0, 0)?;
        filesystem.sync()
    };
    steps().expect("the seed can be filled");
}

fn seeds() -> Vec<Vec<u8>> {
    let kinds = [
        (Profile::Ext2, "^resize_inode", 600 << 10),
        (Profile::Ext4, "^has_journal,^resize_inode,^metadata_csum", 600 << 10),
        (Profile::Ext4, "^has_journal,^resize_inode,inline_data", 600 << 10),
    ];
    kinds
        .iter()
        .map(|(profile, features, size)| {
            let (disk, filesystem) = made(*profile, features, *size);
            fill(&filesystem);
            filesystem.close().expect("the seed can be closed");
            disk.to_bytes()
        })
        .collect()
}

/// With changes in the journal that are nowhere else yet.
fn journals() -> Vec<Vec<u8>> {
    [Profile::Ext3, Profile::Ext4]
        .iter()
        .map(|profile| {
            let (disk, filesystem) = made(*profile, "", 2 << 20);
            fill(&filesystem);
            disk.to_bytes()
        })
        .collect()
}
