//! Power cuts during amendments, changes of bitmaps, and repairs: the content stays, and the
//! image is sound, or marked and mended by the next writer.
#![allow(missing_docs)]

mod common;

use std::sync::Arc;

use common::{Scratch, options, qemu_img, qemu_io};
use disksmith_disk::{Disk, MemoryDisk};
use disksmith_formats::{
    Image, OpenMode, OpenRequest, Preallocation, Repair, ResizeRequest, driver,
};
use disksmith_testkit::{CrashLimits, Recorder, crash_states};

type Action = fn(&dyn Image) -> disksmith_disk::Result<()>;

fn try_open(storage: Arc<dyn Disk>, mode: OpenMode) -> disksmith_disk::Result<Arc<dyn Image>> {
    (driver("qcow2").unwrap().open)(storage, OpenRequest { mode, ..OpenRequest::default() })
}

/// An image with zero clusters, a snapshot and a bitmap.
fn seed(bitmap: bool) -> MemoryDisk {
    let scratch = Scratch::new();
    let path = scratch.path("seed");
    let file = path.to_str().unwrap();
    qemu_img(&["create", "-q", "-f", "qcow2", "-o", "cluster_size=4k", file, "256k"]);
    qemu_io(&path, &["write -P 1 0 64k", "write -z 16k 20k", "write -P 2 200k 9k"]);
    if bitmap {
        qemu_img(&["bitmap", "--add", "-g", "4k", "-f", "qcow2", file, "b"]);
    }
    qemu_img(&["snapshot", "-c", "s", file]);
    qemu_io(&path, &["write -P 3 8k 16k", "write -z 200k 4k"]);
    MemoryDisk::from_bytes(&std::fs::read(&path).unwrap())
}

fn read(disk: &dyn Disk) -> Vec<u8> {
    let mut bytes = vec![0; disk.size() as usize];
    disk.read_at(&mut bytes, 0).unwrap();
    bytes
}

/// What the guest sees now and saw then, up to the shorter of two sizes.
fn seen(image: &dyn Image) -> (Vec<u8>, Vec<u8>) {
    (read(image), read(&*image.open_snapshot("s").unwrap()))
}

fn corruptions(image: &dyn Image) -> u64 {
    image.check(Repair::None, &mut |_| {}).unwrap().unwrap().corruptions
}

/// Cuts `action` everywhere, and judges what is left. Answers the number of states.
fn cut(name: &str, initial: MemoryDisk, mode: OpenMode, action: Action) -> u64 {
    let damaged = mode == OpenMode::Repair;
    let wanted = seen(&*try_open(Arc::new(initial.clone()), OpenMode::Read).unwrap());
    let recorder = Recorder::new();
    let image = try_open(recorder.disk(0, initial.clone()), mode).unwrap();
    action(&*image).unwrap_or_else(|error| panic!("{name}: {error}"));
    image.close().unwrap();
    drop(image);
    let limits = CrashLimits { full_up_to: 8, random_subsets: 24, torn: 4, seed: 3 };
    crash_states(&[initial], &recorder.log(), limits, &mut |state| {
        let storage: Arc<dyn Disk> = Arc::new(state.files[0].clone());
        let context = format!("{name}, state {}", state.name);
        let image = try_open(Arc::clone(&storage), OpenMode::Read)
            .unwrap_or_else(|error| panic!("{context}: {error}"));
        assert!(seen(&*image) == wanted, "{context}: content");
        let sound = corruptions(&*image) == 0 || image.dirty() == Some(true);
        assert!(sound || damaged, "{context}: corrupt and not marked");
        drop(image);
        if damaged {
            let image = try_open(Arc::clone(&storage), OpenMode::Repair).unwrap();
            image.check(Repair::All, &mut |_| {}).unwrap();
        }
        let image = try_open(Arc::clone(&storage), OpenMode::Write)
            .unwrap_or_else(|error| panic!("{context}: for writing: {error}"));
        assert_eq!(corruptions(&*image), 0, "{context}: after opening for writing");
        assert!(seen(&*image) == wanted, "{context}: content after opening for writing");
        image.write_at(&[9; 512], 0).unwrap();
        image.close().unwrap();
        assert_eq!(corruptions(&*image), 0, "{context}: after writing");
        true
    })
}

fn amend(image: &dyn Image, text: &str) -> disksmith_disk::Result<()> {
    image.amend(&options(text), false, &mut |_, _| {})
}

#[test]
fn amendments() {
    let actions: [(&str, Action); 6] = [
        ("downgrade", |image| amend(image, "compat=0.10")),
        ("wider", |image| amend(image, "refcount_bits=64")),
        ("narrower", |image| amend(image, "refcount_bits=4")),
        ("lazy", |image| amend(image, "lazy_refcounts=on")),
        ("upgrade", |image| {
            amend(image, "compat=0.10")?;
            amend(image, "compat=1.1,refcount_bits=8")
        }),
        ("same size", |image| {
            // The size counts as content: it comes back.
            let size = image.size();
            image.resize(ResizeRequest { size, preallocation: Preallocation::Off })
        }),
    ];
    for (name, action) in actions {
        let states = cut(name, seed(false), OpenMode::Write, action);
        println!("{name}: {states} states");
    }
}

#[test]
fn bitmaps() {
    let actions: [(&str, Action); 5] = [
        ("add", |image| image.add_bitmap("new", None, true)),
        ("remove", |image| image.remove_bitmap("b")),
        ("clear", |image| image.clear_bitmap("b")),
        ("merge", |image| image.merge_bitmap("b", &[(0, 4096), (100_000, 5)])),
        ("enable", |image| {
            image.enable_bitmap("b", false)?;
            image.enable_bitmap("b", true)
        }),
    ];
    for (name, action) in actions {
        let states = cut(name, seed(true), OpenMode::Write, action);
        println!("{name}: {states} states");
    }
}

#[test]
fn repairs() {
    let be64 = |disk: &MemoryDisk, at| {
        let mut bytes = [0; 8];
        disk.read_at(&mut bytes, at).unwrap();
        u64::from_be_bytes(bytes)
    };
    let damages: [(&str, fn(u64, u64) -> (u64, Vec<u8>)); 4] = [
        // (refcount table, refcount block) to (place, bytes)
        ("rebuild: no count for the header", |_, block| (block, vec![0, 0])),
        ("rebuild: a broken table", |table, _| (table, vec![0, 0, 0, 0, 0, 0, 0x2a, 0])),
        ("leaks", |_, block| (block + 200, vec![0, 1])),
        ("a count too low", |_, block| (block + 10, vec![0, 1])),
    ];
    for (name, damage) in damages {
        let disk = seed(false);
        let table = be64(&disk, 48);
        let (place, bytes) = damage(table, be64(&disk, table));
        disk.write_at(&bytes, place).unwrap();
        let states = cut(name, disk, OpenMode::Repair, |image| {
            image.check(Repair::All, &mut |_| {}).map(drop)
        });
        println!("{name}: {states} states");
    }
}
