//! Internal snapshots, bitmaps and amendments of qcow2 images, against models and qemu-img.
#![allow(clippy::unwrap_used, missing_docs, reason = "helpers of tests fail by a panic")]

mod common;

use std::path::Path;
use std::sync::Arc;

use common::{Random, Scratch, image_file, open, options, qemu_img, qemu_io};
use disksmith_disk::{Disk, MemoryDisk, ZeroMode};
use disksmith_formats::{Image, OpenMode, Preallocation, ResizeRequest, Snapshot};

const SIZE: u64 = 1 << 20;

fn create(path: &Path, text: &str) {
    let mut args = vec!["create", "-q", "-f", "qcow2"];
    if !text.is_empty() {
        args.extend(["-o", text]);
    }
    qemu_img(&[&args[..], &[path.to_str().unwrap(), "1M"]].concat());
}

fn writable(path: &Path) -> Arc<dyn Image> {
    open(Arc::new(image_file(path)), OpenMode::Write)
}

fn content(disk: &dyn Disk) -> Vec<u8> {
    let mut bytes = vec![0; disk.size() as usize];
    disk.read_at(&mut bytes, 0).unwrap();
    bytes
}

fn model_content(model: &MemoryDisk) -> Vec<u8> {
    content(model)
}

fn check(path: &Path) {
    qemu_img(&["check", "-q", "-f", "qcow2", path.to_str().unwrap()]);
}

/// What qemu-img reads from the image or one of its snapshots.
fn as_qemu_reads(scratch: &Scratch, path: &Path, snapshot: Option<&str>) -> Vec<u8> {
    let raw = scratch.path("qemu.raw");
    let mut args = vec!["convert", "-f", "qcow2", "-O", "raw"];
    if let Some(snapshot) = snapshot {
        args.extend(["-l", snapshot]);
    }
    args.extend([path.to_str().unwrap(), raw.to_str().unwrap()]);
    qemu_img(&args);
    std::fs::read(raw).unwrap()
}

fn named(name: &str) -> Snapshot {
    Snapshot { name: name.into(), date_seconds: 1_700_000_000, ..Snapshot::default() }
}

fn random_write(image: &dyn Image, model: &MemoryDisk, random: &mut Random) {
    let offset = random.below(SIZE / 512) * 512;
    let length = (random.below(150) * 512 + 512).min(SIZE - offset);
    match random.below(4) {
        0 => {
            image.write_zeroes(offset, length, ZeroMode::Unmap).unwrap();
            model.write_zeroes(offset, length, ZeroMode::Unmap).unwrap();
        }
        _ => {
            let data = random.bytes(length as usize);
            image.write_at(&data, offset).unwrap();
            model.write_at(&data, offset).unwrap();
        }
    }
}

#[test]
fn snapshots_hold_what_they_held() {
    let kinds = [
        "cluster_size=64k",
        "cluster_size=4k",
        "cluster_size=512",
        "compat=0.10,cluster_size=4k",
        "extended_l2=on,cluster_size=16k",
        "cluster_size=4k,refcount_bits=64",
        "cluster_size=4k,lazy_refcounts=on",
    ];
    let scratch = Scratch::new();
    for (seed, kind) in kinds.iter().enumerate() {
        let mut random = Random::new(seed as u64 + 11);
        let path = scratch.path(&format!("image{seed}"));
        create(&path, kind);
        let mut image = writable(&path);
        let model = MemoryDisk::new(SIZE);
        let mut held: Vec<(String, Vec<u8>)> = Vec::new();
        for step in 0..40 {
            let pick = random.below(held.len().max(1) as u64) as usize;
            match random.below(10) {
                0..2 => {
                    let name = format!("s{step}");
                    image.create_snapshot(named(&name)).unwrap();
                    held.push((name, model_content(&model)));
                }
                2 if !held.is_empty() => {
                    image.apply_snapshot(&held[pick].0).unwrap();
                    model.write_at(&held[pick].1, 0).unwrap();
                }
                3 if !held.is_empty() => {
                    image.delete_snapshot(&held[pick].0).unwrap();
                    held.remove(pick);
                }
                4 if !held.is_empty() => {
                    let view = image.open_snapshot(&held[pick].0).unwrap();
                    assert!(content(&*view) == held[pick].1, "{kind} step {step}");
                }
                5 if step % 3 == 0 => {
                    image.close().unwrap();
                    image = writable(&path);
                }
                _ => random_write(&*image, &model, &mut random),
            }
            assert!(content(&*image) == model_content(&model), "{kind} step {step}");
        }
        let names: Vec<String> = image.snapshots().into_iter().map(|s| s.name).collect();
        assert_eq!(names, held.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>());
        image.close().unwrap();
        drop(image);
        check(&path);
        assert!(as_qemu_reads(&scratch, &path, None) == model_content(&model), "{kind}");
        for (name, held) in &held {
            assert!(as_qemu_reads(&scratch, &path, Some(name)) == *held, "{kind} {name}");
        }
    }
}

/// A refcount block counts 64 clusters here, a table names 64 blocks: the snapshot table alone
/// needs two new blocks in a row, and the fourth one a new refcount table.
#[test]
fn a_table_longer_than_a_block_counts_finds_its_place() {
    let scratch = Scratch::new();
    let path = scratch.path("image");
    let file = path.to_str().unwrap();
    let text = "cluster_size=512,refcount_bits=64";
    qemu_img(&["create", "-q", "-f", "qcow2", "-o", text, file, "1900k"]);
    qemu_io(&path, &["write -P 1 0 1800k"]);
    let image = writable(&path);
    let before = content(&*image);
    for letter in ["a", "b", "c", "d"] {
        image.create_snapshot(named(&letter.repeat(60_000))).unwrap();
    }
    image.write_at(&[7; 100_000], 0).unwrap();
    image.close().unwrap();
    assert!(content(&*image.open_snapshot("1").unwrap()) == before);
    drop(image);
    check(&path);
}

#[test]
fn snapshots_of_qemu_img_and_ours_mix() {
    let scratch = Scratch::new();
    let path = scratch.path("image");
    let file = path.to_str().unwrap();
    create(&path, "cluster_size=4k");
    qemu_io(&path, &["write -P 1 0 300k", "write -c -P 2 512k 4k"]);
    qemu_img(&["snapshot", "-c", "theirs", file]);
    qemu_io(&path, &["write -P 3 100k 300k"]);
    let image = writable(&path);
    image.create_snapshot(named("ours")).unwrap();
    let list = image.snapshots();
    assert_eq!(list[1].id, "2");
    assert_eq!(list[1].disk_size, Some(SIZE));
    let error = image.apply_snapshot("nope").unwrap_err();
    assert_eq!(error.to_string(), "Failed to load snapshot: No such file or directory");
    assert_eq!(image.delete_snapshot("nope").unwrap_err().to_string(), "snapshot not found");
    image.apply_snapshot("theirs").unwrap();
    image.close().unwrap();
    drop(image);
    check(&path);
    let listed = qemu_img(&["snapshot", "-l", file]);
    assert!(listed.contains("1       theirs") && listed.contains("2       ours"), "{listed}");
    qemu_img(&["snapshot", "-d", "theirs", file]);
    qemu_img(&["snapshot", "-a", "ours", file]);
    check(&path);
    let bytes = as_qemu_reads(&scratch, &path, None);
    assert_eq!((bytes[0], bytes[200 << 10], bytes[512 << 10]), (1, 3, 2));
}

#[test]
fn narrow_refcounts_refuse_and_change_nothing() {
    let scratch = Scratch::new();
    let path = scratch.path("image");
    create(&path, "cluster_size=4k,refcount_bits=1");
    qemu_io(&path, &["write -P 1 0 300k"]);
    let image = writable(&path);
    let error = image.create_snapshot(named("a")).unwrap_err();
    assert_eq!(error.to_string(), "Invalid argument");
    image.close().unwrap();
    drop(image);
    check(&path);
}

#[test]
fn bitmaps_record_what_was_written() {
    let scratch = Scratch::new();
    for (number, kind) in ["cluster_size=64k", "cluster_size=512"].iter().enumerate() {
        let path = scratch.path(&format!("image{number}"));
        let file = path.to_str().unwrap();
        create(&path, kind);
        let image = writable(&path);
        image.add_bitmap("ours", Some(4096), true).unwrap();
        image.add_bitmap("off", Some(512), false).unwrap();
        let twice = image.add_bitmap("ours", None, true).unwrap_err();
        assert_eq!(twice.to_string(), "Bitmap already exists: ours");
        let odd = image.add_bitmap("odd", Some(300), true).unwrap_err();
        assert_eq!(odd.to_string(), "Granularity must be power of 2 and at least 512");
        let none = image.remove_bitmap("nope").unwrap_err();
        assert_eq!(none.to_string(), "Dirty bitmap 'nope' not found");
        image.write_at(&[1; 5000], 8000).unwrap();
        image.close().unwrap();
        drop(image);
        check(&path);
        // Theirs goes on where ours stopped, and the other way round.
        qemu_io(&path, &["write -P 1 512k 4k"]);
        qemu_img(&["bitmap", "--add", "--merge", "ours", "-f", "qcow2", "-g", "4k", file, "copy"]);
        let image = writable(&path);
        let wanted = [(4096, 12288), (512 << 10, 4096)];
        assert_eq!(image.dirty_ranges("ours").unwrap(), wanted);
        assert_eq!(image.dirty_ranges("copy").unwrap(), wanted);
        assert_eq!(image.dirty_ranges("off").unwrap(), []);
        image.write_at(&[0], 0).unwrap();
        let size = 3 << 20;
        image.resize(ResizeRequest { size, preallocation: Preallocation::Off }).unwrap();
        image.write_at(&[2; 512], size - 512).unwrap();
        let wanted = [(0, 16384), (512 << 10, 4096), (size - 4096, 4096)];
        assert_eq!(image.dirty_ranges("ours").unwrap(), wanted);
        image.merge_bitmap("off", &[(1000, 100)]).unwrap();
        assert_eq!(image.dirty_ranges("off").unwrap(), [(512, 1024)]);
        image.clear_bitmap("copy").unwrap();
        image.enable_bitmap("copy", false).unwrap();
        image.resize(ResizeRequest { size: 6144, preallocation: Preallocation::Off }).unwrap();
        assert_eq!(image.dirty_ranges("ours").unwrap(), [(0, 6144)]);
        image.close().unwrap();
        drop(image);
        check(&path);
        let image = writable(&path);
        for name in ["copy", "ours", "off"] {
            image.remove_bitmap(name).unwrap();
        }
        assert!(image.bitmaps().unwrap().is_empty());
        drop(image);
        check(&path);
        assert!(!qemu_img(&["info", file]).contains("bitmaps"));
    }
}

#[test]
fn a_bitmap_left_in_use_can_only_be_removed() {
    let scratch = Scratch::new();
    let path = scratch.path("image");
    create(&path, "");
    let image = writable(&path);
    image.add_bitmap("b", None, true).unwrap();
    image.write_at(&[1; 512], 0).unwrap();
    // As after a crash: the file as it is while the image is open.
    let torn = scratch.path("torn");
    std::fs::copy(&path, &torn).unwrap();
    drop(image);
    let image = writable(&torn);
    assert!(image.bitmaps().unwrap()[0].in_use);
    let error = image.clear_bitmap("b").unwrap_err();
    assert_eq!(error.to_string(), "Bitmap 'b' is inconsistent and cannot be used");
    image.remove_bitmap("b").unwrap();
    drop(image);
    check(&torn);
}

#[test]
fn amendments_keep_the_content() {
    let scratch = Scratch::new();
    let base = scratch.path("base");
    qemu_img(&["create", "-q", "-f", "qcow2", base.to_str().unwrap(), "1M"]);
    qemu_io(&base, &["write -P 7 0 1M"]);
    for (number, backed) in [(0, false), (1, true)] {
        let path = scratch.path(&format!("image{number}"));
        let file = path.to_str().unwrap();
        match backed {
            true => drop(qemu_img(&[
                "create",
                "-q",
                "-f",
                "qcow2",
                "-o",
                "cluster_size=4k",
                "-F",
                "qcow2",
                "-b",
                base.to_str().unwrap(),
                file,
            ])),
            false => create(&path, "cluster_size=4k"),
        }
        qemu_io(&path, &["write -P 1 0 100k", "write -z 32k 40k", "write -z -u 600k 64k"]);
        qemu_img(&["snapshot", "-c", "s", file]);
        qemu_io(&path, &["write -P 2 8k 16k", "write -z 200k 20k"]);
        let before =
            (as_qemu_reads(&scratch, &path, None), as_qemu_reads(&scratch, &path, Some("s")));
        for text in [
            "lazy_refcounts=on",
            "lazy_refcounts=off",
            "refcount_bits=64",
            "refcount_bits=2",
            "refcount_bits=16",
            "compat=0.10",
            "compat=1.1",
            "compat=0.10",
        ] {
            let image = writable(&path);
            let mut told = Vec::new();
            image
                .amend(&options(text), false, &mut |done, total| told.push((done, total)))
                .unwrap();
            image.close().unwrap();
            drop(image);
            check(&path);
            let after =
                (as_qemu_reads(&scratch, &path, None), as_qemu_reads(&scratch, &path, Some("s")));
            assert!(before == after, "{text}, backed: {backed}");
            assert!(told.iter().all(|(done, total)| done <= total));
        }
        assert!(qemu_img(&["info", file]).contains("compat: 0.10"));
    }
}

#[test]
fn amendments_refuse_in_qemu_img_s_words() {
    let scratch = Scratch::new();
    let path = scratch.path("image");
    create(&path, "");
    qemu_io(&path, &["write -P 1 0 100k"]);
    qemu_img(&["snapshot", "-c", "s", path.to_str().unwrap()]);
    let image = writable(&path);
    for (text, wanted) in [
        ("compat=0.42", "Unknown compatibility level 0.42"),
        ("refcount_bits=3", "Refcount width must be a power of two and may not exceed 64 bits"),
        (
            "refcount_bits=1",
            "Cannot decrease refcount entry width to 1 bits: Cluster at offset 0x40000 has a refcount of 2",
        ),
        ("data_file=x", "data-file can only be set for images that use an external data file"),
        ("data_file_raw=on", "data-file-raw cannot be set on existing images"),
        ("backing_file=x", "Cannot amend the backing file"),
        ("encrypt.state=active", "Can't amend encryption options - encryption not present"),
        (
            "compat=0.10,lazy_refcounts=on",
            "Lazy refcounts only supported with compatibility level 1.1 and above (use compat=1.1 or greater)",
        ),
    ] {
        let error = image.amend(&options(text), false, &mut |_, _| {}).unwrap_err();
        assert_eq!(error.to_string(), wanted);
    }
    image.resize(ResizeRequest { size: 2 * SIZE, preallocation: Preallocation::Off }).unwrap();
    let error = image.amend(&options("compat=0.10"), false, &mut |_, _| {}).unwrap_err();
    assert_eq!(error.to_string(), "Internal snapshots prevent downgrade of image");
    drop(image);
    check(&path);
}
