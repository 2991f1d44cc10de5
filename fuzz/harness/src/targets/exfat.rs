//! exFAT volumes: read, changed, checked, mended, labelled.

use std::sync::Arc;

use disksmith_disk::MemoryDisk;
use disksmith_filesystems::fat::exfat::{self, Exfat, ExfatOptions};
use disksmith_filesystems::fat::{Lost, Mend, Tune};
use disksmith_filesystems::{Changes, FileKind, Filesystem, Rename};
use disksmith_testkit::Rng;

use super::tree::{file, step, walk};
use crate::budget::Metered;
use crate::{Target, fields};

pub(crate) const READ: Target = Target {
    name: "exfat_read",
    run: |data| {
        let disk = Metered::new(data);
        if let Ok(exfat) = Exfat::open(disk.clone(), true) {
            walk(&exfat);
        }
        let _ = exfat::used_ranges(disk);
    },
    seeds,
    fields: fields::exfat::FIELDS,
    fix: Some(fix),
};

pub(crate) const CHANGE: Target = Target {
    name: "exfat_change",
    run: |data| {
        let disk = Metered::new(data);
        if let Ok(exfat) = Exfat::open(disk.clone(), false) {
            change(&exfat);
            walk(&exfat);
            let _ = exfat.close();
        }
        let tune = Tune { label: Some(b"other".to_vec()), serial: Some(7), time: None };
        let _ = exfat::tune(disk, &tune);
    },
    seeds,
    fields: fields::exfat::FIELDS,
    fix: Some(fix),
};

pub(crate) const REPAIR: Target = Target {
    name: "exfat_repair",
    run: |data| {
        let disk = Metered::new(data);
        let _ = exfat::check(disk.clone());
        if exfat::repair(disk.clone(), Mend::All(Lost::Keep)).is_ok() {
            let again = Metered::over(disk.content());
            let _ = exfat::check(again.clone());
            let _ = exfat::repair(again, Mend::All(Lost::Free));
        }
    },
    seeds,
    fields: fields::exfat::FIELDS,
    fix: Some(fix),
};

fn change(exfat: &Exfat) {
    let root = exfat.root();
    let long = b"a new file, named at length";
    if let Ok(made) = exfat.create(root, long, &file(FileKind::Regular)) {
        let _ = exfat.write(made.inode, 5000, &[7; 9000]);
        let shorter = Changes { size: Some(700), ..Changes::default() };
        let _ = exfat.set_attributes(made.inode, &shorter);
    }
    for name in [&b"a long name.txt"[..], b"in one piece"] {
        if let Ok(found) = exfat.lookup(root, name) {
            let _ = exfat.write(found.inode, found.size, &[8; 3000]);
        }
    }
    let _ = exfat.rename(root, b"a long name.txt", root, b"b", Rename::Replace);
    let _ = exfat.sync();
    if let Ok(folder) = exfat.lookup(root, b"folder") {
        let _ = exfat.rename(folder.inode, b"inside", root, b"b", Rename::Replace);
        let _ = exfat.remove_directory(root, b"folder");
    }
    let mut rng = Rng::new(1);
    for number in 0..30 {
        step(exfat, &mut rng, number);
    }
}

/// Makes the checksums of the sets in the first clusters right again.
fn fix(bytes: &mut [u8]) {
    let Some(heap) = bytes.get(fields::exfat::ROOT..) else { return };
    let starts: Vec<usize> = (0..heap.len() / 32)
        .filter(|slot| heap.get(slot * 32) == Some(&0x85))
        .map(|slot| fields::exfat::ROOT + slot * 32)
        .collect();
    for start in starts {
        let count = bytes.get(start + 1).copied().unwrap_or(0);
        let end = start + (usize::from(count) + 1) * 32;
        let Some(set) = bytes.get_mut(start..end) else { continue };
        let sum = set
            .iter()
            .enumerate()
            .filter(|(at, _)| *at != 2 && *at != 3)
            .fold(0_u16, |sum, (_, byte)| sum.rotate_right(1).wrapping_add((*byte).into()));
        if let Some(place) = set.get_mut(2..4) {
            place.copy_from_slice(&sum.to_le_bytes());
        }
    }
}

fn seeds() -> Vec<Vec<u8>> {
    seed().into_iter().collect()
}

fn seed() -> disksmith_disk::Result<Vec<u8>> {
    let disk = Arc::new(MemoryDisk::new(128 << 10));
    let options = ExfatOptions {
        cluster_size: Some(512),
        label: b"SEED".to_vec(),
        ..ExfatOptions::default()
    };
    exfat::make(&*disk, &options)?;
    let volume = Exfat::open(disk.clone(), false)?;
    let root = volume.root();
    let chain = volume.create(root, b"a long name.txt", &file(FileKind::Regular))?;
    let whole = volume.create(root, b"in one piece", &file(FileKind::Regular))?;
    for number in 0..3 {
        volume.write(chain.inode, number * 700, &[1; 700])?;
        volume.write(whole.inode, 0, &[3; 600])?;
        let other = format!("between {number}");
        let other = volume.create(root, other.as_bytes(), &file(FileKind::Regular))?;
        volume.write(other.inode, 0, &[4; 300])?;
    }
    let folder = volume.create(root, b"folder", &file(FileKind::Directory))?;
    let inside = volume.create(folder.inode, b"inside", &file(FileKind::Regular))?;
    volume.write(inside.inode, 0, &[2; 600])?;
    volume.close()?;
    Ok(disk.to_bytes())
}
