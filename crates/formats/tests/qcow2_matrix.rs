//! Combinations of create options, both ways against qemu-img 10.0.2: what we write it checks
//! and reads, what it writes we read and go on writing.
//!
//! A few combinations by default, all of them with `DISKSMITH_LONG=1`.
#![allow(clippy::unwrap_used)]

mod common;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::{Scratch, image_file, options, pattern, qemu_img, random_operations};
use disksmith_crypt::Secret;
use disksmith_disk::{Disk, MemoryDisk, first_difference};
use disksmith_formats::{Backing, CreateRequest, Image, OpenMode, OpenRequest, Repair, driver};

const PASSWORD: &str = "matrix";
const SIZE: u64 = (3 << 20) + 512;
const OBJECT: [&str; 2] = ["--object", "secret,id=s,data=matrix"];

#[derive(Clone, Debug)]
struct Case {
    text: String,
    backing: bool,
    data_file: bool,
    encrypted: bool,
}

/// Every combination that the format allows.
fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for cluster in ["512", "4k", "64k", "2M"] {
        for (version, width) in [("1.1", "16"), ("1.1", "1"), ("1.1", "64"), ("0.10", "16")] {
            for extended in [false, true] {
                for compression in ["zlib", "zstd"] {
                    for encryption in ["", "aes", "luks"] {
                        for preallocation in ["off", "metadata", "falloc", "full"] {
                            for (backing, data) in [
                                (false, ""),
                                (true, ""),
                                (false, "file"),
                                (true, "file"),
                                (false, "raw"),
                            ] {
                                let v2 = version == "0.10";
                                let small = matches!(cluster, "512" | "4k");
                                let impossible = extended && (v2 || small)
                                    || v2 && (compression == "zstd" || !data.is_empty())
                                    || backing && preallocation != "off" && !extended
                                    // A LUKS header of 4040 clusters, over and over.
                                    || encryption == "luks" && cluster == "512"
                                    || data == "raw" && !encryption.is_empty();
                                if impossible {
                                    continue;
                                }
                                let mut text = format!(
                                    "cluster_size={cluster},compat={version},refcount_bits={width},compression_type={compression},preallocation={preallocation}"
                                );
                                if extended {
                                    text += ",extended_l2=on";
                                }
                                if !encryption.is_empty() {
                                    text += &format!(
                                        ",encrypt.format={encryption},encrypt.key-secret=s"
                                    );
                                }
                                if encryption == "luks" {
                                    text += ",encrypt.iter-time=10";
                                }
                                if data == "raw" {
                                    text += ",data_file_raw=on";
                                }
                                cases.push(Case {
                                    text,
                                    backing,
                                    data_file: !data.is_empty(),
                                    encrypted: !encryption.is_empty(),
                                });
                            }
                        }
                    }
                }
            }
        }
    }
    cases
}

/// The files of one case.
struct Files {
    image: PathBuf,
    base: PathBuf,
    data: PathBuf,
    back: PathBuf,
}

impl Files {
    fn new(scratch: &Scratch) -> Self {
        let path = |name| scratch.path(name);
        let files = Self {
            image: path("image"),
            base: path("base"),
            data: path("data"),
            back: path("back"),
        };
        for file in [&files.image, &files.data, &files.back] {
            let _ = std::fs::remove_file(file);
        }
        files
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn open(case: &Case, files: &Files, mode: OpenMode) -> Arc<dyn Image> {
    let secret = case.encrypted.then(|| Secret::new(PASSWORD.into()));
    let request = OpenRequest { mode, secret, ..OpenRequest::default() };
    let image =
        (driver("qcow2").unwrap().open)(Arc::new(image_file(&files.image)), request).unwrap();
    if case.data_file {
        image.attach_data_file(Arc::new(image_file(&files.data))).unwrap();
    }
    if case.backing {
        image.attach_backing(Some(Arc::new(image_file(&files.base)))).unwrap();
    }
    image
}

/// The image as qemu-img names it, with its key.
fn operand(case: &Case, files: &Files) -> String {
    let key = if case.encrypted { ",encrypt.key-secret=s" } else { "" };
    format!("driver=qcow2,file.filename={}{key}", text(&files.image))
}

fn content_by_qemu(case: &Case, files: &Files) -> Vec<u8> {
    let source = operand(case, files);
    let mut args = vec!["convert"];
    args.extend(OBJECT);
    args.extend(["--image-opts", &source, "-O", "raw", text(&files.back)]);
    qemu_img(&args);
    std::fs::read(&files.back).unwrap()
}

fn check_by_qemu(case: &Case, files: &Files) {
    let source = operand(case, files);
    let mut args = vec!["check", "-q"];
    args.extend(OBJECT);
    args.extend(["--image-opts", &source]);
    qemu_img(&args);
}

fn start(case: &Case, base: &[u8]) -> MemoryDisk {
    let mut bytes = vec![0; SIZE as usize];
    if case.backing {
        let have = base.len().min(bytes.len());
        bytes[..have].copy_from_slice(&base[..have]);
    }
    MemoryDisk::from_bytes(&bytes)
}

fn ours_to_theirs(case: &Case, files: &Files, base: &[u8], seed: u64) {
    let storage: Arc<dyn Disk> = Arc::new(image_file(&files.image));
    let data: Option<(String, Arc<dyn Disk>)> = case
        .data_file
        .then(|| (text(&files.data).to_string(), Arc::new(image_file(&files.data)) as _));
    let backing = case
        .backing
        .then(|| Backing { name: text(&files.base).to_string(), format: Some("raw".to_string()) });
    let request = CreateRequest {
        size: SIZE,
        options: options(&case.text),
        backing,
        data_file: data,
        secret: case.encrypted.then(|| Secret::new(PASSWORD.into())),
    };
    (driver("qcow2").unwrap().create.unwrap())(&storage, &request).unwrap();
    let image = open(case, files, OpenMode::Write);
    let mut model = start(case, base);
    if case.encrypted && !case.text.contains("preallocation=off") {
        // Reserved clusters decrypt to noise, with qemu-img too.
        let mut noise = vec![0; SIZE as usize];
        image.read_at(&mut noise, 0).unwrap();
        model = MemoryDisk::from_bytes(&noise);
    }
    random_operations(&*image, &model, seed, 60, 400_000);
    image.close().unwrap();
    check_by_qemu(case, files);
    let theirs = content_by_qemu(case, files);
    assert_eq!(first_difference(&theirs, &model.to_bytes()), None, "{case:?}");
}

fn theirs_to_ours(case: &Case, files: &Files, seed: u64) {
    let size = SIZE.to_string();
    let data = format!("{},data_file={}", case.text, text(&files.data));
    let mut args = vec!["create", "-q", "-f", "qcow2"];
    args.extend(OBJECT);
    args.extend(["-o", if case.data_file { &data } else { &case.text }]);
    if case.backing {
        args.extend(["-b", text(&files.base), "-F", "raw"]);
    }
    args.extend([text(&files.image), &size]);
    qemu_img(&args);
    let source = operand(case, files);
    let mut writes = vec![
        "write -P 7 30k 100k",
        "write -P 9 1000448 70000",
        "write -z 64k 8k",
        "discard 1M 64k",
    ];
    // qemu-io compresses whole clusters, and only where nothing is stored yet.
    if !case.encrypted
        && !case.data_file
        && !case.text.contains("=2M,")
        && case.text.contains("preallocation=off")
    {
        writes.push("write -c -P 3 1536k 64k");
    }
    common::qemu_io_options(&OBJECT, &source, &writes);
    let image = open(case, files, OpenMode::Write);
    let mut ours = vec![0; SIZE as usize];
    image.read_at(&mut ours, 0).unwrap();
    let theirs = content_by_qemu(case, files);
    assert_eq!(first_difference(&theirs, &ours), None, "{case:?}");
    let model = MemoryDisk::from_bytes(&theirs);
    random_operations(&*image, &model, seed, 40, 400_000);
    image.close().unwrap();
    check_by_qemu(case, files);
    let theirs = content_by_qemu(case, files);
    assert_eq!(first_difference(&theirs, &model.to_bytes()), None, "{case:?}");
    let report = open(case, files, OpenMode::Check).check(Repair::None, &mut |finding| {
        panic!("{case:?}: {}", finding.text);
    });
    assert_eq!(report.unwrap().unwrap().leaks, 0);
}

#[test]
fn both_ways() {
    let long = std::env::var_os("DISKSMITH_LONG").is_some();
    let base = pattern(2 << 20);
    let all = cases();
    assert!(all.len() > 400, "{}", all.len());
    let chosen: Vec<_> = all.iter().step_by(if long { 1 } else { 61 }).enumerate().collect();
    println!("{} of {} combinations", chosen.len(), all.len());
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let scratch = Scratch::new();
                while let Some((number, case)) = chosen.get(next.fetch_add(1, Ordering::Relaxed)) {
                    println!("{case:?}");
                    one(case, &scratch, &base, *number as u64 + 1);
                }
            });
        }
    });
}

fn one(case: &Case, scratch: &Scratch, base: &[u8], seed: u64) {
    let files = Files::new(scratch);
    std::fs::write(&files.base, base).unwrap();
    ours_to_theirs(case, &files, base, seed);
    let files = Files::new(scratch);
    theirs_to_ours(case, &files, seed);
}
