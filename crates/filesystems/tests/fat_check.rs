//! Damaged FAT volumes: found where fsck.fat finds something, and mended so that it is content.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::changes::new;
use common::fat_damage::{Damage, FILE4, HARMS, KINDS, Scope, theirs};
use common::*;
use disksmith_disk::{Disk, MemoryDisk};
use disksmith_filesystems::fat::{self, Fat, FatKind, Lost, Mend};
use disksmith_filesystems::{FileKind, Filesystem};
use disksmith_testkit::Rng;

/// Large enough for FAT12 with clusters of 4 KiB.
fn filled(kind: FatKind) -> Vec<u8> {
    common::fat_damage::filled(kind, 8 << 20, if kind == FatKind::Fat12 { 4096 } else { 512 })
}

fn ours(image: &Path) -> Vec<String> {
    match fat::check(FileDisk::open(image)) {
        Ok(report) => report.findings,
        Err(error) => vec![error.to_string()],
    }
}

/// Both find something; after our repair neither does.
fn assert_mended(image: &Path, what: &str) {
    assert!(!ours(image).is_empty(), "{what}: we find nothing; fsck.fat: {}", theirs(image).1);
    let report = fat::repair(FileDisk::open(image), Mend::All(Lost::Keep)).unwrap();
    assert!(!report.found.is_empty(), "{what}");
    let again = ours(image);
    assert!(again.is_empty(), "{what}: we still find {again:#?}, after {report:#?}");
    let (clean, said) = theirs(image);
    assert!(clean, "{what}: fsck.fat: {said}\nafter {:#?}", report.found);
}

#[test]
fn each_damage_is_found_and_mended() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("image");
    for kind in KINDS {
        let sound = filled(kind);
        fs::write(&image, &sound).unwrap();
        assert_eq!(ours(&image), Vec::<String>::new(), "{kind:?}");
        for (what, scope, harm) in HARMS.iter().filter(|harm| harm.1.has(kind)) {
            let mut bytes = sound.clone();
            harm(&mut Damage { bytes: &mut bytes, kind });
            assert!(bytes != sound, "{what}");
            fs::write(&image, &bytes).unwrap();
            let what = format!("{kind:?}: {what}");
            let (clean, said) = theirs(&image);
            assert_eq!(clean, *scope == Scope::Unseen, "{what}: fsck.fat: {said}");
            assert_mended(&image, &what);
        }
    }
}

#[test]
fn a_lost_chain_is_kept_with_its_content() {
    let disk = Arc::new(MemoryDisk::from_bytes(&filled(FatKind::Fat16)));
    let (entry, size) = {
        let mut bytes = disk.to_bytes();
        let damage = Damage { bytes: &mut bytes, kind: FatKind::Fat16 };
        let at = damage.entry(FILE4);
        (at, damage.le(at + 28, 4))
    };
    let before = {
        let fat = Fat::open(disk.clone(), true).unwrap();
        let file = fat.lookup(fat.root(), b"some file 3.txt").unwrap();
        let mut bytes = vec![0; file.size as usize];
        fat.read(file.inode, 0, &mut bytes).unwrap();
        bytes
    };
    // Its entries are gone.
    disk.write_at(&[0xE5], entry as u64).unwrap();
    let copy = Arc::new((*disk).clone());
    let report = fat::repair(disk.clone(), Mend::All(Lost::Keep)).unwrap();
    assert_eq!(report.last.count, 0, "{report:#?}");
    let fat = Fat::open(disk, true).unwrap();
    let file = fat.lookup(fat.root(), b"FSCK0000.REC").unwrap();
    let mut bytes = vec![0; size];
    fat.read(file.inode, 0, &mut bytes).unwrap();
    assert!(bytes == before);
    let free = fat.statistics().unwrap().free;
    fat::repair(copy.clone(), Mend::All(Lost::Free)).unwrap();
    assert!(Fat::open(copy, true).unwrap().statistics().unwrap().free > free);
}

#[test]
fn a_boot_sector_comes_back_from_its_backup() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("image");
    fs::write(&image, filled(FatKind::Fat32)).unwrap();
    fs::File::options().write(true).open(&image).unwrap().write_all_at(&[0; 512], 0).unwrap();
    assert!(Fat::open(FileDisk::open(&image), true).is_err());
    assert_mended(&image, "no boot sector");
}

/// Everything that can be asked of a volume, whatever it answers.
fn use_all(disk: &Arc<MemoryDisk>) {
    let read = |fat: &Fat| {
        let mut todo = vec![(fat.root(), 0)];
        let mut met = 0;
        while let Some((inode, depth)) = todo.pop() {
            met += 1;
            if met > 3000 || depth > 50 {
                break;
            }
            let mut inside = Vec::new();
            let _ = fat.read_directory(inode, 0, &mut |entry| {
                inside.push(entry);
                inside.len() < 500
            });
            for entry in inside {
                let _ = fat.lookup(inode, &entry.name);
                match fat.attributes(entry.inode) {
                    Ok(at)
                        if at.kind == FileKind::Directory
                            && entry.name != b"."
                            && entry.name != b".." =>
                    {
                        todo.push((entry.inode, depth + 1));
                    }
                    Ok(at) => {
                        let mut bytes = vec![0; 5000];
                        let _ = fat.read(at.inode, at.size.saturating_sub(3000), &mut bytes);
                    }
                    Err(_) => {}
                }
            }
        }
    };
    if let Ok(fat) = Fat::open(disk.clone(), true) {
        let _ = fat.statistics();
        let _ = fat.label();
        read(&fat);
    }
    let _ = fat::used_ranges(disk.clone());
    let _ = fat::minimum_size(disk.clone());
    let _ = fat::check(disk.clone());
    let changed = Arc::new((**disk).clone());
    if let Ok(fat) = Fat::open(changed.clone(), false) {
        let root = fat.root();
        let _ =
            fat.create(root, b"a new file with a long name", &new(FileKind::Regular)).map(|file| {
                let _ = fat.write(file.inode, 70_000, &[1; 70_000]);
            });
        let _ = fat.create(root, b"new", &new(FileKind::Directory));
        let _ = fat.unlink(root, b"some file 3.txt");
        let _ =
            fat.rename(root, b"folder0", root, b"another", disksmith_filesystems::Rename::Replace);
        let _ = fat.close();
    }
    let shorter = Arc::new((**disk).clone());
    let _ = fat::resize(shorter, 5 << 20);
    let mended = Arc::new((**disk).clone());
    if fat::repair(mended.clone(), Mend::All(Lost::Keep)).is_ok() {
        // A second round finds less: nothing, in all but the worst cases.
        let _ = fat::check(mended);
    }
}

#[test]
fn changed_bytes_do_no_harm_to_us() {
    let rounds = if long() { 4000 } else { 60 };
    for kind in KINDS {
        let sound = filled(kind);
        let mut rng = Rng::new(kind.bits());
        for _ in 0..rounds {
            let disk = Arc::new(MemoryDisk::from_bytes(&sound));
            for _ in 0..1 + rng.below(12) {
                let data = 40_000 + rng.below(200_000);
                let places = [rng.below(90), rng.below(4096), rng.below(40_000), data];
                let at = *rng.pick(&places);
                let byte = *rng.pick(&[0, 1, 0xFF, 0xE5, 0x0F, 0x10, rng.clone().below(256) as u8]);
                disk.write_at(&[byte], at).unwrap();
            }
            use_all(&disk);
        }
    }
}

/// The damaged images of dosfstools, where its source package was fetched:
/// `DISKSMITH_DOSFSTOOLS` names its folder `tests`.
#[test]
fn the_images_of_dosfstools() {
    let Some(folder) = std::env::var_os("DISKSMITH_DOSFSTOOLS") else { return };
    let scratch = tempfile::tempdir().unwrap();
    let image = scratch.path().join("image");
    let mut all: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    // The damaged images are called .fsck, what dosfstools makes of them .xxd.
    all.retain(|path| path.extension().is_some_and(|ext| ext == "xxd" || ext == "fsck"));
    all.sort();
    assert!(!all.is_empty());
    for path in all {
        let disk = from_dump(&fs::read_to_string(&path).unwrap());
        let file = FileDisk::create(&image, disk.size());
        let mut at = 0;
        while at < disk.size() {
            let extent = disk.map(at, u64::MAX).unwrap();
            if extent.state == disksmith_disk::State::Data {
                let mut bytes = vec![0; extent.length as usize];
                disk.read_at(&mut bytes, at).unwrap();
                file.write_at(&bytes, at).unwrap();
            }
            at += extent.length;
        }
        let (clean, said) = theirs(&image);
        let findings = ours(&image);
        let name = path.file_name().unwrap().display().to_string();
        println!("{name}: fsck.fat {clean} ({} lines); ours {findings:?}", said.lines().count());
        assert!(clean || !findings.is_empty(), "{name}: {said}");
        if fat::repair(FileDisk::open(&image), Mend::All(Lost::Keep)).is_ok() {
            let (clean, said) = theirs(&image);
            assert!(clean, "{name}: after our repair: {said}\nwe found {findings:#?}");
        }
        use_all(&Arc::new(disk));
    }
}

/// What `xxd -r` makes of a dump: `offset: hexadecimal digits  text`.
fn from_dump(dump: &str) -> MemoryDisk {
    let disk = MemoryDisk::new(0);
    for line in dump.lines() {
        let Some((at, rest)) = line.split_once(':') else { continue };
        let at = u64::from_str_radix(at.trim(), 16).unwrap();
        let digits = rest.split("  ").next().unwrap_or("");
        let digits: Vec<u8> = digits.bytes().filter(u8::is_ascii_hexdigit).collect();
        let pairs = digits.chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
        let bytes: Vec<u8> = pairs.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect();
        if bytes.iter().any(|byte| *byte != 0) || at == 0 {
            disk.write_at(&bytes, at).unwrap();
        } else {
            disk.set_size(disk.size().max(at + bytes.len() as u64)).unwrap();
        }
    }
    disk
}
