//! FAT volumes: read, changed, checked, mended, resized.

use std::sync::Arc;

use disksmith_disk::{Disk, MemoryDisk};
use disksmith_filesystems::fat::{self, Fat, FatKind, FatOptions, Lost, Mend};
use disksmith_filesystems::{Changes, Device, FileKind, Filesystem, NewFile, Rename};

use super::tree::walk;
use crate::budget::Metered;
use crate::{Target, fields};

pub(crate) const READ: Target = Target {
    name: "fat_read",
    run: |data| {
        let disk = Metered::new(data);
        if let Ok(fat) = Fat::open(disk.clone(), true) {
            let _ = fat.statistics();
            let _ = fat.label();
            walk(&fat);
        }
        let _ = fat::used_ranges(disk.clone());
        let _ = fat::minimum_size(disk);
    },
    seeds,
    fields: fields::fat::FIELDS,
    fix: None,
};

pub(crate) const CHANGE: Target = Target {
    name: "fat_change",
    run: |data| {
        let disk = Metered::new(data);
        if let Ok(fat) = Fat::open(disk, false) {
            change(&fat);
            walk(&fat);
            let _ = fat.close();
        }
    },
    seeds,
    fields: fields::fat::FIELDS,
    fix: None,
};

pub(crate) const REPAIR: Target = Target {
    name: "fat_repair",
    run: |data| {
        let disk = Metered::new(data);
        let _ = fat::check(disk.clone());
        if fat::repair(disk.clone(), Mend::All(Lost::Keep)).is_ok() {
            let again = Metered::over(disk.content());
            let _ = fat::check(again.clone());
            let size = again.size();
            let _ = again.set_size(size + 70_000);
            let _ = fat::resize(again.clone(), size + 70_000);
            let _ = fat::resize(again, size / 2);
        }
    },
    seeds,
    fields: fields::fat::FIELDS,
    fix: None,
};

fn change(fat: &Fat) {
    let root = fat.root();
    let new = |kind| NewFile { kind, mode: 0o644, uid: 0, gid: 0, device: Device::default() };
    if let Ok(file) = fat.create(root, b"a new file, named at length", &new(FileKind::Regular)) {
        let _ = fat.write(file.inode, 5000, &[7; 9000]);
        let _ = fat.set_attributes(file.inode, &Changes { size: Some(700), ..Changes::default() });
    }
    let _ = fat.create(root, b"new", &new(FileKind::Directory));
    let _ = fat.rename(root, b"a long name.txt", root, b"b", Rename::Replace);
    let _ = fat.sync();
    if let Ok(folder) = fat.lookup(root, b"folder") {
        let _ = fat.rename(folder.inode, b"inside", root, b"outside now", Rename::Replace);
        let _ = fat.remove_directory(root, b"folder");
    }
    let _ = fat.unlink(root, b"outside now");
    let _ = fat.unlink(root, b"b");
}

fn seeds() -> Vec<Vec<u8>> {
    let kinds = [FatKind::Fat12, FatKind::Fat32];
    kinds.into_iter().filter_map(|kind| seed(kind).ok()).collect()
}

fn seed(kind: FatKind) -> disksmith_disk::Result<Vec<u8>> {
    let disk = Arc::new(MemoryDisk::new(128 << 10));
    let options = FatOptions { kind: Some(kind), label: b"SEED".to_vec(), ..FatOptions::default() };
    fat::make(&*disk, &options)?;
    let fat = Fat::open(disk.clone(), false)?;
    let new = |kind| NewFile { kind, mode: 0o644, uid: 0, gid: 0, device: Device::default() };
    let file = fat.create(fat.root(), b"a long name.txt", &new(FileKind::Regular))?;
    fat.write(file.inode, 0, &[1; 5000])?;
    let folder = fat.create(fat.root(), b"folder", &new(FileKind::Directory))?;
    let inside = fat.create(folder.inode, b"inside", &new(FileKind::Regular))?;
    fat.write(inside.inode, 0, &[2; 600])?;
    fat.close()?;
    Ok(disk.to_bytes())
}
