//! FAT: opening, walking, changing what opens.

use std::sync::Arc;

use disksmith_disk::MemoryDisk;
use disksmith_filesystems::fat::{self, Fat, FatKind, FatOptions};
use disksmith_filesystems::{FileKind, Filesystem, Time};
use disksmith_testkit::Rng;

use super::tree::{file, step, walk};
use crate::budget::Metered;
use crate::{Target, fields};

macro_rules! target {
    ($const:ident, $name:literal, $run:expr) => {
        pub(crate) const $const: Target =
            Target { name: $name, run: $run, seeds, fields: fields::fat::FIELDS, fix: None };
    };
}

target!(WALK, "fat_walk", |data| {
    if let Ok(filesystem) = Fat::open(Metered::new(data), true) {
        walk(&filesystem);
    }
    drop(fat::used_ranges(Metered::new(data)));
});

target!(CHANGE, "fat_change", |data| {
    let Ok(filesystem) = Fat::open(Metered::new(data), false) else { return };
    let seed = data.iter().rev().take(8).fold(1u64, |seed, byte| seed << 8 | u64::from(*byte));
    let mut rng = Rng::new(seed ^ u64::from(data.get(600).copied().unwrap_or(0)));
    for number in 0..12 {
        step(&filesystem, &mut rng, number);
    }
    drop(filesystem.sync());
    walk(&filesystem);
    drop(filesystem.close());
});

fn seeds() -> Vec<Vec<u8>> {
    let kinds = [
        (FatKind::Fat12, 512, 400 << 10),
        (FatKind::Fat16, 512, 4300 << 9),
        (FatKind::Fat32, 512, 1 << 20),
    ];
    kinds.iter().filter_map(|(kind, cluster, size)| seed(*kind, *cluster, *size).ok()).collect()
}

fn seed(kind: FatKind, cluster: u32, size: u64) -> disksmith_disk::Result<Vec<u8>> {
    let disk = Arc::new(MemoryDisk::new(size));
    let options = FatOptions {
        kind: Some(kind),
        cluster_size: Some(cluster),
        serial: Some(0x1234_5678),
        time: Some(Time::from_seconds(1_700_000_000)),
        ..FatOptions::default()
    };
    fat::make(disk.clone(), &options)?;
    let filesystem = Fat::open(disk.clone(), false)?;
    let root = filesystem.root();
    let regular = filesystem.create(root, b"f", &file(FileKind::Regular))?.inode;
    filesystem.write(regular, 0, &[3; 20_000])?;
    let folder = filesystem.create(root, b"f1", &file(FileKind::Directory))?.inode;
    for number in 0..30 {
        let name = format!("a name of some length, number {number}");
        filesystem.create(folder, name.as_bytes(), &file(FileKind::Regular))?;
    }
    filesystem.close()?;
    Ok(disk.to_bytes())
}
