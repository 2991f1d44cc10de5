//! qcow2 against qemu-img and qemu-io 10.0.2, both ways, and against a flat model.

#![allow(clippy::unwrap_used)]

mod common;

use std::sync::Arc;

use common::{Scratch, image_file, open, pattern, qemu_img, qemu_io};
use disksmith_disk::{Disk, MemoryDisk, ZeroMode};
use disksmith_formats::{CreateRequest, Image, OpenMode, Options, driver};

fn options(text: &str) -> Options {
    let mut options = Options::new();
    for pair in text.split(',').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap();
        options.set(name, value);
    }
    options
}

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

/// Carries out the same operations on an image and on its model, comparing as it goes.
fn random_operations(image: &dyn Image, model: &MemoryDisk, seed: u64, count: u32, most: u64) {
    let mut random = common::Random::new(seed);
    let size = image.size();
    for step in 0..count {
        let unit = [1, 512, 4096, 65536][random.below(4) as usize];
        let offset = random.below(size) / unit * unit;
        let length = (random.below(most) / unit * unit).max(unit).min(size - offset);
        match random.below(10) {
            0..4 => {
                let data = random.bytes(length as usize);
                image.write_at(&data, offset).unwrap();
                model.write_at(&data, offset).unwrap();
            }
            4..6 => {
                let mode = if random.below(2) == 0 { ZeroMode::Keep } else { ZeroMode::Unmap };
                image.write_zeroes(offset, length, mode).unwrap();
                model.write_zeroes(offset, length, mode).unwrap();
            }
            6 => {
                image.discard(offset, length).unwrap();
                // What a discarded range reads as is the image's choice.
                let mut now = vec![0; length as usize];
                image.read_at(&mut now, offset).unwrap();
                let mut before = vec![0; length as usize];
                model.read_at(&mut before, offset).unwrap();
                assert!(now.iter().zip(&before).all(|(n, b)| *n == 0 || n == b), "step {step}");
                model.write_at(&now, offset).unwrap();
            }
            7 if image.compression().is_some() => {
                let cluster = image.cluster_size().unwrap();
                let at = offset / cluster * cluster;
                let mut data = vec![0; cluster as usize];
                data[..100].copy_from_slice(&random.bytes(100));
                let have = cluster.min(size - at);
                let algorithm = image.compression().unwrap().algorithm;
                let mut compressor =
                    disksmith_codec::Compressor::new(algorithm, Default::default());
                if let Some(packed) = compressor.compress(&data) {
                    image.write_packed(at, packed).unwrap();
                    model.write_at(&data[..have as usize], at).unwrap();
                }
            }
            8 => image.flush().unwrap(),
            _ => {
                let (mut a, mut b) = (vec![0; length as usize], vec![0; length as usize]);
                image.read_at(&mut a, offset).unwrap();
                model.read_at(&mut b, offset).unwrap();
                assert_eq!(
                    disksmith_disk::first_difference(&a, &b),
                    None,
                    "step {step} at {offset}"
                );
            }
        }
    }
    let (mut a, mut b) = (vec![0; size as usize], vec![0; size as usize]);
    image.read_at(&mut a, 0).unwrap();
    model.read_at(&mut b, 0).unwrap();
    assert_eq!(disksmith_disk::first_difference(&a, &b), None);
}
