//! Helpers of the integration tests.
#![allow(
    clippy::unwrap_used,
    dead_code,
    unreachable_pub,
    missing_docs,
    reason = "helpers of tests fail by a panic"
)]

pub mod views;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use disksmith_disk::{Disk, MemoryDisk, ZeroMode};
use disksmith_formats::{Image, OpenMode, OpenRequest, Options, driver};
use disksmith_host::{FileDisk, OpenOptions};

/// A folder that goes away.
pub struct Scratch(tempfile::TempDir);

impl Scratch {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

/// A file that is made if it is not there.
pub fn image_file(path: &Path) -> FileDisk {
    let options = OpenOptions { write: true, create: true, no_flush: true, ..Default::default() };
    FileDisk::open(path, options).unwrap()
}

/// Opens a qcow2 image.
pub fn open(storage: Arc<dyn Disk>, mode: OpenMode) -> Arc<dyn Image> {
    let request = OpenRequest { mode, ..OpenRequest::default() };
    (driver("qcow2").unwrap().open)(storage, request).unwrap()
}

/// Runs qemu-img, which must succeed.
pub fn qemu_img(args: &[&str]) -> String {
    let output = run("qemu-img", "qemu-utils", args);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "qemu-img {args:?}: {text}{errors}");
    text
}

/// Runs qemu-io commands on a qcow2 image, which must succeed.
pub fn qemu_io(path: &Path, commands: &[&str]) {
    let mut args = vec!["-f", "qcow2"];
    for command in commands {
        args.extend(["-c", command]);
    }
    args.push(path.to_str().unwrap());
    let output = run("qemu-io", "qemu-utils", &args);
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !text.contains("failed"), "{args:?}: {text}{errors}");
}

fn run(program: &str, package: &str, args: &[&str]) -> Output {
    Command::new(program)
        .args(args)
        .output()
        .unwrap_or_else(|error| panic!("{program} (Debian package {package}): {error}"))
}

/// `a=1,b=2`; names without a value are left out.
pub fn options(text: &str) -> Options {
    let mut options = Options::new();
    for (name, value) in text.split(',').filter_map(|pair| pair.split_once('=')) {
        options.set(name, value);
    }
    options
}

/// Carries out the same operations on an image and on its model, comparing as it goes.
pub fn random_operations(image: &dyn Image, model: &MemoryDisk, seed: u64, count: u32, most: u64) {
    let mut random = Random::new(seed);
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
            7 if image.compression().is_some() && image.data_file().is_none() => {
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

/// Bytes with runs of zero, runs that compress and runs that do not.
pub fn pattern(length: usize) -> Vec<u8> {
    let mut random = Random::new(length as u64);
    let mut bytes = Vec::with_capacity(length);
    while bytes.len() < length {
        let run = 1000 + random.below(150_000) as usize;
        match random.below(3) {
            0 => bytes.extend(std::iter::repeat_n(0, run)),
            1 => bytes.extend((0..run).map(|n| (n / 57 % 251) as u8)),
            _ => bytes.extend(random.bytes(run)),
        }
    }
    bytes.truncate(length);
    bytes
}

/// Xorshift: the same numbers on every run.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        (self.next() >> 11) % limit.max(1)
    }

    pub fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length.div_ceil(8)).flat_map(|_| self.next().to_le_bytes()).take(length).collect()
    }
}

/// As [`qemu_io`], on an image that `options` name.
pub fn qemu_io_options(object: &[&str], options: &str, commands: &[&str]) {
    let mut args = object.to_vec();
    for command in commands {
        args.extend(["-c", command]);
    }
    args.extend(["--image-opts", options]);
    let output = run("qemu-io", "qemu-utils", &args);
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !text.contains("failed"), "{args:?}: {text}{errors}");
}
