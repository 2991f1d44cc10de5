//! Changes to FAT volumes, held against a model in memory, fsck.fat and mtools.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use common::changes::{Work, new, walk};
use common::*;
use disksmith_disk::Disk;
use disksmith_filesystems::fat::{self, Fat, FatKind, FatOptions};
use disksmith_filesystems::source::DirectorySource;
use disksmith_filesystems::{Changes, FileKind, Filesystem, Rename, Time, errno};
use disksmith_testkit::Rng;

/// `fsck.fat -n` finds nothing at all, and neither do we.
fn assert_fat_clean(image: &Path, what: &str) {
    let output = try_run("fsck.fat", &["-n", text(image)]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{what}: fsck.fat: {}\n{said}", output.status);
    assert_eq!(said.lines().count(), 2, "{what}: fsck.fat: {said}");
}

/// The tree as mtools read it.
fn walk_mtools(image: &Path, folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let _ = fs::remove_dir_all(folder);
    fs::create_dir_all(folder).unwrap();
    let listed = run("mdir", &["-i", text(image), "-b", "-a", "::/"]);
    if !listed.trim().is_empty() {
        run(
            "env",
            &[
                "LC_ALL=C.UTF-8",
                "mcopy",
                "-i",
                text(image),
                "-s",
                "-n",
                "-Q",
                "-m",
                "::/*",
                text(folder),
            ],
        );
    }
    let mut tree = BTreeMap::new();
    let mut todo = vec![folder.to_owned()];
    while let Some(path) = todo.pop() {
        for entry in fs::read_dir(&path).unwrap() {
            let entry = entry.unwrap().path();
            let name = text(entry.strip_prefix(folder).unwrap()).to_string();
            if entry.is_dir() {
                tree.insert(name + "/", Vec::new());
                todo.push(entry);
            } else {
                tree.insert(name, fs::read(&entry).unwrap());
            }
        }
    }
    tree
}

#[test]
fn random_changes_do_what_a_model_does() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("image");
    let rounds = if long() { 40 } else { 8 };
    let shapes = [
        (FatKind::Fat12, 4 << 20, 512, 2048),
        (FatKind::Fat16, 20 << 20, 512, 2048),
        (FatKind::Fat32, 40 << 20, 512, 512),
        (FatKind::Fat16, 40 << 20, 4096, 4096),
    ];
    for round in 0..rounds {
        let (kind, size, sector, cluster) = shapes[round % shapes.len()];
        let options = FatOptions {
            kind: Some(kind),
            sector_size: Some(sector),
            cluster_size: Some(cluster),
            ..FatOptions::default()
        };
        fat::make(&*FileDisk::create(&image, size), &options).unwrap();
        let mut model = BTreeMap::new();
        for session in 0..2 {
            let ours = Fat::open(FileDisk::open(&image), false).unwrap();
            let seed = (round * 10 + session) as u64;
            let mut work = Work { ours: &ours, rng: Rng::new(seed), model };
            for _ in 0..500 {
                work.step();
            }
            let what = format!("round {round}.{session} ({kind:?})");
            assert_eq!(
                walk(&ours).keys().collect::<Vec<_>>(),
                work.tree().keys().collect::<Vec<_>>(),
                "{what}"
            );
            assert!(walk(&ours) == work.tree(), "{what}: content");
            ours.close().unwrap();
            model = work.model;
            assert_fat_clean(&image, &what);
            let again = Fat::open(FileDisk::open(&image), true).unwrap();
            let tree: BTreeMap<_, _> = model.values().cloned().collect();
            assert!(walk(&again) == tree, "{what}: read again");
            if session == 1 && sector == 512 {
                let theirs = walk_mtools(&image, &folder.path().join("out"));
                assert_eq!(
                    theirs.keys().collect::<Vec<_>>(),
                    tree.keys().collect::<Vec<_>>(),
                    "{what}: mtools"
                );
                assert!(theirs == tree, "{what}: mtools");
            }
        }
    }
}

#[test]
fn what_mtools_wrote_is_read_and_changed() {
    let folder = tempfile::tempdir().unwrap();
    let (image, tree) = (folder.path().join("image"), folder.path().join("tree"));
    fs::create_dir_all(tree.join("Sub Folder/deeper")).unwrap();
    for number in 0..300 {
        let data = Rng::new(number).bytes((number * 37) as usize);
        fs::write(tree.join(format!("Sub Folder/entry number {number}.data")), data).unwrap();
        fs::write(tree.join(format!("s{number}.txt")), format!("{number}")).unwrap();
    }
    fs::write(tree.join("Sub Folder/deeper/größe.txt"), b"utf-8").unwrap();
    fs::write(tree.join("large"), Rng::new(7).bytes(3 << 20)).unwrap();
    for kind in ["12", "16", "32"] {
        FileDisk::create(&image, if kind == "12" { 8 << 20 } else { 64 << 20 });
        let arguments = if kind == "12" {
            ["-F12", "-s8"]
        } else if kind == "16" {
            ["-F16", "-s4"]
        } else {
            ["-F32", "-s1"]
        };
        run("mkfs.fat", &[arguments[0], arguments[1], "-nTHEIRS", text(&image)]);
        let mut names: Vec<String> =
            fs::read_dir(&tree).unwrap().map(|e| text(&e.unwrap().path()).to_string()).collect();
        names.sort();
        let mut command = vec!["LC_ALL=C.UTF-8", "mcopy", "-i", text(&image), "-s", "-m"];
        command.extend(names.iter().map(String::as_str));
        command.push("::");
        run("env", &command);
        let ours = Fat::open(FileDisk::open(&image), false).unwrap();
        assert_eq!(ours.label(), b"THEIRS");
        let expected = walk_mtools(&image, &folder.path().join("out"));
        let mut found = walk(&ours);
        assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
        assert!(found == expected, "FAT{kind}");
        for number in (0..300).step_by(3) {
            let name = format!("s{number}.txt");
            ours.unlink(ours.root(), name.as_bytes()).unwrap();
            found.remove(&name);
        }
        let sub = ours.lookup(ours.root(), b"sub folder").unwrap().inode;
        for number in (0..300).step_by(2) {
            let old = format!("Entry Number {number}.Data");
            let new =
                format!("Another name, which is quite a bit longer than the old one, {number}");
            ours.rename(sub, old.as_bytes(), ours.root(), new.as_bytes(), Rename::NoReplace)
                .unwrap_or_else(|error| assert!(kind != "32" && errno(&error) == 28, "{error}"));
            if let Some(data) = ours
                .lookup(ours.root(), new.as_bytes())
                .ok()
                .and_then(|_| found.remove(&format!("Sub Folder/entry number {number}.data")))
            {
                found.insert(new, data);
            }
        }
        ours.close().unwrap();
        assert_fat_clean(&image, kind);
        assert!(walk_mtools(&image, &folder.path().join("out")) == found, "FAT{kind}: mtools");
    }
}

#[test]
fn a_volume_made_from_a_tree_holds_the_tree() {
    let folder = tempfile::tempdir().unwrap();
    let (image, tree) = (folder.path().join("image"), folder.path().join("tree"));
    fs::create_dir_all(tree.join("a/B/c c")).unwrap();
    fs::write(tree.join("a/B/c c/Long name.txt"), b"long").unwrap();
    fs::write(tree.join("README.TXT"), b"read me").unwrap();
    fs::write(tree.join("large"), Rng::new(1).bytes(1 << 20)).unwrap();
    std::os::unix::fs::symlink("large", tree.join("link")).unwrap();
    fs::hard_link(tree.join("large"), tree.join("other")).unwrap();
    let mut options =
        FatOptions { time: Some(Time::from_seconds(1_600_000_001)), ..FatOptions::default() };
    let make = |options: &FatOptions| {
        let disk = FileDisk::create(&image, 40 << 20);
        fat::make_from(disk, options, &mut DirectorySource::new(&tree))
    };
    let filled = make(&options).unwrap();
    assert_eq!((filled.files, filled.symlinks, filled.hard_links), (7, 1, 1));
    assert_fat_clean(&image, "from a tree");
    let ours = Fat::open(FileDisk::open(&image), true).unwrap();
    let found = walk(&ours);
    assert_eq!(found["large"], fs::read(tree.join("large")).unwrap());
    assert_eq!(found["large"], found["other"]);
    assert_eq!(found["a/B/c c/Long name.txt"], b"long");
    assert!(walk_mtools(&image, &folder.path().join("out")) == found);
    let at = ours.lookup(ours.root(), b"LARGE").unwrap();
    assert_eq!(at.modified, Time::from_seconds(1_600_000_000));
    assert_eq!((at.mode, at.links, at.uid), (0o755, 1, 0));
    let first = fs::read(&image).unwrap();
    make(&options).unwrap();
    assert!(first == fs::read(&image).unwrap(), "not reproducible");
    fs::write(tree.join("what?"), b"!").unwrap();
    fs::write(tree.join("readme.txt"), b"the other").unwrap();
    let error = make(&options).unwrap_err().to_string();
    assert!(error.contains("readme.txt") || error.contains("what?"), "{error}");
    options.map_names = true;
    let filled = make(&options).unwrap();
    assert_eq!(filled.renamed_count, 2);
    assert_eq!(filled.renamed[0].1, b"readme_2.txt");
    assert_eq!(filled.renamed[1].1, b"what_");
    assert_fat_clean(&image, "with changed names");
}

#[test]
fn what_fat_has_not_is_refused_by_name() {
    let disk = Arc::new(disksmith_disk::MemoryDisk::new(8 << 20));
    fat::make(&*disk, &FatOptions::default()).unwrap();
    let ours = Fat::open(disk.clone(), false).unwrap();
    let root = ours.root();
    let said = |result: disksmith_disk::Result<_>| result.map(drop).unwrap_err().to_string();
    assert!(said(ours.symlink(root, b"l", b"x", 0, 0)).contains("symbolic links"));
    assert!(said(ours.create(root, b"l", &new(FileKind::BlockDevice))).contains("device"));
    let file = ours.create(root, b"f", &new(FileKind::Regular)).unwrap();
    assert!(said(ours.link(file.inode, root, b"g")).contains("hard links"));
    assert!(
        ours.set_xattr(file.inode, b"user.x", b"y", None)
            .unwrap_err()
            .to_string()
            .contains("extended")
    );
    let owner = Changes { uid: Some(1000), ..Changes::default() };
    assert!(said(ours.set_attributes(file.inode, &owner)).contains("owners"));
    for name in ["a:b", "a?", "a.", "a\n"] {
        assert!(said(ours.create(root, name.as_bytes(), &new(FileKind::Regular))).contains("name"));
    }
    let error = ours.write(file.inode, 0xFFFF_FFFF, b"x").unwrap_err();
    assert_eq!(errno(&error), 27);
    let read_only = Changes { mode: Some(0o444), ..Changes::default() };
    assert_eq!(ours.set_attributes(file.inode, &read_only).unwrap().mode, 0o555);
    assert_eq!(ours.dos_attributes(file.inode).unwrap(), 0x21);
    ours.set_dos_attributes(file.inode, 0x06).unwrap();
    assert_eq!(ours.dos_attributes(file.inode).unwrap(), 0x06);
    // A full volume says so, and is whole afterwards.
    let error = ours.write(file.inode, 0, &vec![1; 9 << 20]).unwrap_err();
    assert_eq!(errno(&error), 28);
    assert_eq!(ours.attributes(file.inode).unwrap().size, 0);
    let free = ours.statistics().unwrap().free;
    let size = ours.statistics().unwrap().block_size as usize * free as usize;
    ours.write(file.inode, 0, &vec![1; size]).unwrap();
    assert_eq!(ours.statistics().unwrap().free, 0);
    ours.unlink(root, b"F").unwrap();
    // What the transaction frees can be used.
    let file = ours.create(root, b"g", &new(FileKind::Regular)).unwrap();
    ours.write(file.inode, 0, &vec![2; size]).unwrap();
    // An open file lives on without its name.
    ours.hold(file.inode);
    ours.unlink(root, b"g").unwrap();
    let mut byte = [0];
    ours.read(file.inode, 5, &mut byte).unwrap();
    assert_eq!(byte, [2]);
    ours.release(file.inode, 1).unwrap();
    ours.close().unwrap();
    assert_eq!(Fat::open(disk.clone(), true).unwrap().statistics().unwrap().free, free);
    assert!(disk.size() > 0);
}

#[test]
fn large_directories_take_linear_time() {
    let disk = Arc::new(disksmith_disk::MemoryDisk::new(64 << 20));
    let options = FatOptions { kind: Some(FatKind::Fat32), ..FatOptions::default() };
    fat::make(&*disk, &options).unwrap();
    let ours = Fat::open(disk, false).unwrap();
    let folder = ours.create(ours.root(), b"folder", &new(FileKind::Directory)).unwrap().inode;
    let name = |number: u32| format!("some long name of the file {number}");
    for number in 0..15_000 {
        ours.create(folder, name(number).as_bytes(), &new(FileKind::Regular)).unwrap();
    }
    for number in (0..15_000).rev() {
        ours.lookup(folder, name(number).to_uppercase().as_bytes()).unwrap();
    }
    // 65 536 slots, four for each name, and one sector of the first for the dots.
    let full = (0..5_000).find_map(|number| {
        ours.create(folder, name(20_000 + number).as_bytes(), &new(FileKind::Regular)).err()
    });
    assert_eq!(errno(&full.unwrap()), 28);
    ours.close().unwrap();
}
