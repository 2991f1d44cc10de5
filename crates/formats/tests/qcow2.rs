//! qcow2 against qemu-img and qemu-io 10.0.2, both ways, and against a flat model.

#![allow(clippy::unwrap_used)]

mod common;

use std::sync::Arc;

use common::{Scratch, image_file, open, options, pattern, qemu_img, qemu_io, random_operations};
use disksmith_disk::{Disk, MemoryDisk, ZeroMode};
use disksmith_formats::{CreateRequest, OpenMode, driver};

fn request(size: u64, text: &str) -> CreateRequest {
    CreateRequest { size, options: options(text), ..CreateRequest::default() }
}

#[test]
fn an_empty_image_is_what_qemu_img_makes() {
    let scratch = Scratch::new();
    for text in [
        "",
        "compat=0.10",
        "cluster_size=512",
        "cluster_size=2M",
        "extended_l2=on",
        "refcount_bits=1",
        "refcount_bits=64",
        "lazy_refcounts=on",
        "compression_type=zstd",
        "preallocation=metadata",
        "preallocation=metadata,extended_l2=on",
        "preallocation=full,cluster_size=4096",
    ] {
        for size in [0, 512, 10 << 20, (1 << 30) + 512] {
            // Where refcount blocks lie among a long L1 table is each program's own affair.
            if text.contains("full") && size == 0
                || size > 10 << 20 && (text.contains("prealloc") || text.contains("=512"))
            {
                continue;
            }
            let theirs = scratch.path("theirs");
            let mut args = vec!["create", "-q", "-f", "qcow2"];
            if !text.is_empty() {
                args.extend(["-o", text]);
            }
            let size_text = size.to_string();
            qemu_img(&[&args[..], &[theirs.to_str().unwrap(), &size_text]].concat());
            let ours = scratch.path("ours");
            let _ = std::fs::remove_file(&ours);
            let storage: Arc<dyn Disk> = Arc::new(image_file(&ours));
            (driver("qcow2").unwrap().create.unwrap())(&storage, &request(size, text)).unwrap();
            let (a, b) = (std::fs::read(&ours).unwrap(), std::fs::read(&theirs).unwrap());
            assert_eq!(a.len(), b.len(), "{text} {size}");
            // Full preallocation moves the refcount table, which is of no use.
            if text.contains("full") {
                qemu_img(&["check", "-q", ours.to_str().unwrap()]);
                continue;
            }
            let differs = disksmith_disk::first_difference(&a, &b);
            assert_eq!(differs, None, "{text} {size}");
        }
    }
}

#[test]
fn what_we_write_qemu_reads() {
    let scratch = Scratch::new();
    for text in [
        "",
        "compat=0.10",
        "cluster_size=512,refcount_bits=2",
        "cluster_size=4k,refcount_bits=1",
        "cluster_size=2M",
        "extended_l2=on",
        "extended_l2=on,cluster_size=16k,refcount_bits=64",
        "lazy_refcounts=on,refcount_bits=8",
        "preallocation=metadata,extended_l2=on",
        "preallocation=metadata,refcount_bits=32",
    ] {
        let path = scratch.path("image");
        let _ = std::fs::remove_file(&path);
        let size = (3 << 20) + 1536;
        let storage: Arc<dyn Disk> = Arc::new(image_file(&path));
        (driver("qcow2").unwrap().create.unwrap())(&storage, &request(size, text)).unwrap();
        let image = open(storage, OpenMode::Write);
        let model = MemoryDisk::new(size);
        random_operations(&*image, &model, text.len() as u64 + 7, 400, 300_000);
        image.close().unwrap();
        let raw = scratch.path("raw");
        std::fs::write(&raw, model.to_bytes()).unwrap();
        qemu_img(&["check", path.to_str().unwrap()]);
        qemu_img(&["compare", path.to_str().unwrap(), raw.to_str().unwrap()]);
    }
}

#[test]
fn what_qemu_writes_we_read() {
    let scratch = Scratch::new();
    let raw = scratch.path("raw");
    std::fs::write(&raw, pattern(5 << 20)).unwrap();
    for text in [
        "cluster_size=64k",
        "cluster_size=512",
        "cluster_size=4k,compat=0.10",
        "cluster_size=2M",
        "extended_l2=on",
        "compression_type=zstd",
    ] {
        for compressed in [false, true] {
            let path = scratch.path("image");
            let mut args = vec!["convert", "-f", "raw", "-O", "qcow2", "-o", text];
            if compressed {
                args.push("-c");
            }
            args.extend([raw.to_str().unwrap(), path.to_str().unwrap()]);
            qemu_img(&args);
            qemu_io(&path, &["write -P 17 100k 30k", "write -z 200k 64k", "discard 1M 128k"]);
            let back = scratch.path("back");
            qemu_img(&["convert", "-O", "raw", path.to_str().unwrap(), back.to_str().unwrap()]);
            let image = open(Arc::new(image_file(&path)), OpenMode::Read);
            let mut all = vec![0; image.size() as usize];
            image.read_at(&mut all, 0).unwrap();
            assert!(all == std::fs::read(&back).unwrap(), "{text} {compressed}");
            // Small reads take another way through compressed clusters.
            for at in (0..image.size()).step_by(99_991) {
                let mut few = vec![0; 777.min((image.size() - at) as usize)];
                image.read_at(&mut few, at).unwrap();
                assert_eq!(few, all[at as usize..at as usize + few.len()]);
            }
        }
    }
}

#[test]
fn measures_as_qemu_img_does() {
    use disksmith_formats::qcow2::Measure;
    let scratch = Scratch::new();
    let raw = scratch.path("raw");
    std::fs::write(&raw, pattern(3 << 20)).unwrap();
    let source = image_file(&raw);
    let numbers = |text: String| -> Vec<u64> {
        text.lines().map(|line| line.rsplit(' ').next().unwrap().parse().unwrap()).collect()
    };
    for text in [
        "cluster_size=64k",
        "cluster_size=512",
        "cluster_size=2M",
        "extended_l2=on",
        "refcount_bits=1",
        "refcount_bits=64,cluster_size=4k",
        "preallocation=falloc",
        "preallocation=metadata",
        "compat=0.10",
        "encrypt.format=luks,encrypt.key-secret=s",
        "encrypt.format=luks,encrypt.key-secret=s,encrypt.cipher-alg=aes-128,cluster_size=4k",
    ] {
        let secret = ["measure", "--object", "secret,id=s,data=x", "-O", "qcow2", "-o", text];
        for size in [0u64, 1, 1 << 20, 10 << 30, 3 << 40] {
            let size_text = size.to_string();
            // qemu-img spends seconds on each key derivation.
            let slow = text.contains("luks") && size != 1 << 20;
            if slow || text.contains("512") && size >> 40 != 0 {
                continue;
            }
            let theirs = numbers(qemu_img(&[&secret[..], &["--size", &size_text]].concat()));
            let ours = Measure::new(size, &options(text), false).unwrap().finish();
            assert_eq!(vec![ours.required, ours.fully_allocated], theirs, "{text} {size}");
        }
        let theirs =
            numbers(qemu_img(&[&secret[..], &["-f", "raw", raw.to_str().unwrap()]].concat()));
        let mut measure = Measure::new(source.size(), &options(text), false).unwrap();
        let mut at = 0;
        while at < source.size() {
            let extent = source.map(at, source.size() - at).unwrap();
            if extent.state == disksmith_disk::State::Data {
                measure.add_data(at, extent.length);
            }
            at += extent.length;
        }
        let ours = measure.finish();
        assert_eq!(vec![ours.required, ours.fully_allocated], theirs[..2], "{text}");
    }
}

#[test]
fn many_threads_write_and_read_one_image() {
    let storage: Arc<dyn Disk> = Arc::new(MemoryDisk::new(0));
    let size = 16 << 20;
    let text = "cluster_size=4k";
    (driver("qcow2").unwrap().create.unwrap())(&storage, &request(size, text)).unwrap();
    let image = open(Arc::clone(&storage), OpenMode::Write);
    let threads = 4;
    // Neighbouring stripes share clusters, but no thread touches another one's bytes.
    let stripe = 3000;
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let image = Arc::clone(&image);
            scope.spawn(move || {
                let mut random = common::Random::new(thread + 1);
                for _ in 0..600 {
                    let at =
                        (random.below(size / stripe / threads - 1) * threads + thread) * stripe;
                    let data = vec![thread as u8 + 1; stripe as usize];
                    match random.below(4) {
                        0 => image.write_zeroes(at, stripe, ZeroMode::Unmap).unwrap(),
                        1 if random.below(20) == 0 => image.flush().unwrap(),
                        _ => image.write_at(&data, at).unwrap(),
                    }
                    let mut back = vec![0; stripe as usize];
                    image.read_at(&mut back, at).unwrap();
                    assert!(
                        back.iter().all(|b| *b == back[0])
                            && [0, thread as u8 + 1].contains(&back[0])
                    );
                }
            });
        }
    });
    image.close().unwrap();
    let scratch = Scratch::new();
    let path = scratch.path("image");
    let mut bytes = vec![0; storage.size() as usize];
    storage.read_at(&mut bytes, 0).unwrap();
    std::fs::write(&path, bytes).unwrap();
    qemu_img(&["check", "-q", path.to_str().unwrap()]);
}

#[test]
fn a_huge_empty_image_costs_nothing() {
    let storage: Arc<dyn Disk> = Arc::new(MemoryDisk::new(0));
    let begin = std::time::Instant::now();
    (driver("qcow2").unwrap().create.unwrap())(&storage, &request(64 << 40, "")).unwrap();
    let image = open(storage, OpenMode::Write);
    let extent = image.map(0, u64::MAX).unwrap();
    assert_eq!(extent.length, 64 << 40);
    image.write_at(&[1; 4096], (64 << 40) - 4096).unwrap();
    image.close().unwrap();
    assert!(begin.elapsed().as_secs() < 5);
}

#[test]
fn a_long_life() {
    use disksmith_formats::{Repair, ResizeRequest, Snapshot};
    let scratch = Scratch::new();
    for (number, text) in [
        "cluster_size=4k",
        "cluster_size=512,refcount_bits=8",
        "cluster_size=16k,extended_l2=on",
        "cluster_size=64k,compat=0.10",
        "cluster_size=4k,lazy_refcounts=on,compression_type=zstd",
    ]
    .into_iter()
    .enumerate()
    {
        let file = Arc::new(MemoryDisk::new(0));
        let storage: Arc<dyn Disk> = file.clone();
        (driver("qcow2").unwrap().create.unwrap())(&storage, &request(1 << 20, text)).unwrap();
        let mut image = open(Arc::clone(&storage), OpenMode::Write);
        let mut model = MemoryDisk::new(1 << 20);
        let mut snapshots: Vec<(String, MemoryDisk)> = Vec::new();
        let mut random = common::Random::new(number as u64 + 99);
        for step in 0..60 {
            random_operations(&*image, &model, random.next(), 8, 100_000);
            match random.below(8) {
                0..2 if snapshots.len() < 5 => {
                    let name = format!("s{step}");
                    let snapshot = Snapshot { name: name.clone(), ..Default::default() };
                    image.create_snapshot(snapshot).unwrap();
                    snapshots.push((name, model.clone()));
                }
                2 if !snapshots.is_empty() => {
                    let at = random.below(snapshots.len() as u64) as usize;
                    image.delete_snapshot(&snapshots.remove(at).0).unwrap();
                }
                3 if !snapshots.is_empty() => {
                    let at = random.below(snapshots.len() as u64) as usize;
                    image.apply_snapshot(&snapshots[at].0).unwrap();
                    model = snapshots[at].1.clone();
                }
                4 if !text.contains("0.10") => {
                    let size = (256 + random.below(6000)) * 512;
                    let request = ResizeRequest { size, preallocation: Default::default() };
                    image.resize(request).unwrap();
                    model.set_size(size).unwrap();
                }
                5 => {
                    image.close().unwrap();
                    image = open(Arc::clone(&storage), OpenMode::Write);
                }
                6 if random.below(8) == 0 => {
                    image.make_empty().unwrap();
                    let size = model.size();
                    model = MemoryDisk::new(size);
                }
                _ => {}
            }
            assert_eq!(image.size(), model.size());
            for (name, model) in &snapshots {
                let view = image.open_snapshot(name).unwrap();
                let mut content = vec![0; view.size() as usize];
                view.read_at(&mut content, 0).unwrap();
                assert!(content == model.to_bytes(), "{text} step {step} snapshot {name}");
            }
        }
        image.close().unwrap();
        let mut lines = Vec::new();
        let checked = open(Arc::clone(&storage), OpenMode::Check);
        checked.check(Repair::None, &mut |finding| lines.push(finding.text)).unwrap();
        assert!(lines.is_empty(), "{text}: {lines:?}");
        let path = scratch.path("image");
        std::fs::write(&path, file.to_bytes()).unwrap();
        qemu_img(&["check", "-q", path.to_str().unwrap()]);
    }
}
