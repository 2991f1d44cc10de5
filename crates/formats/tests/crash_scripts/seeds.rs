//! The images that scripts start from, made by our own creation in memory, or by QEMU.

use std::sync::Arc;

use disksmith_crypt::Secret;
use disksmith_disk::{Disk, MemoryDisk, ZeroMode};
use disksmith_formats::{CreateRequest, Image, OpenMode, Snapshot, driver};

use crate::common::{Scratch, options, qemu_img, qemu_io};
use crate::try_open;

/// 256 KiB with zero clusters, a snapshot, and perhaps a bitmap, from QEMU.
pub(crate) fn from_qemu(bitmap: bool) -> MemoryDisk {
    let scratch = Scratch::new();
    let path = scratch.path("seed");
    let file = path.to_str().unwrap();
    qemu_img(&["create", "-q", "-f", "qcow2", "-o", "cluster_size=4k", file, "256k"]);
    qemu_io(&path, &["write -P 1 0 64k", "write -z 16k 20k", "write -P 2 200k 9k"]);
    if bitmap {
        qemu_img(&["bitmap", "--add", "-g", "4k", "-f", "qcow2", file, "b"]);
        qemu_img(&["bitmap", "--add", "-g", "4k", "-f", "qcow2", file, "other"]);
    }
    qemu_img(&["snapshot", "-c", "s", file]);
    qemu_io(&path, &["write -P 3 8k 16k", "write -z 200k 4k"]);
    MemoryDisk::from_bytes(&std::fs::read(&path).unwrap())
}

/// `size` bytes with these options, the first `filled` of them written.
pub(crate) fn filled(text: &str, size: u64, filled: u64) -> MemoryDisk {
    with(text, size, None, |image| {
        image.write_at(&pattern(filled), 0).unwrap();
    })
}

/// With two snapshots, and overwritten since.
pub(crate) fn with_snapshots(text: &str) -> MemoryDisk {
    with(text, 256 << 10, None, |image| {
        let take = |name: &str| {
            let snapshot = Snapshot { name: name.into(), ..Snapshot::default() };
            image.create_snapshot(snapshot).unwrap();
        };
        image.write_at(&pattern(40_960), 4096).unwrap();
        take("first");
        image.write_at(&[7; 20_000], 10_000).unwrap();
        image.write_zeroes(4096, 8192, ZeroMode::Unmap).unwrap();
        take("second");
        image.write_at(&[8; 9_000], 30_000).unwrap();
    })
}

/// Encrypted, with the password `first`.
pub(crate) fn encrypted() -> MemoryDisk {
    let text = "cluster_size=4k,encrypt.format=luks,encrypt.iter-time=1";
    with(text, 64 << 10, Some("first"), |image| image.write_at(&pattern(20_000), 0).unwrap())
}

/// What images call their data file.
pub(crate) const DATA_FILE: &str = "data";

/// 256 KiB, the first 200 000 bytes of which are written, in a file of their own; the image and
/// that file.
pub(crate) fn with_data_file(text: &str) -> Vec<MemoryDisk> {
    make(text, 256 << 10, None, true, |image| image.write_at(&pattern(200_000), 0).unwrap())
}

fn with(text: &str, size: u64, password: Option<&str>, fill: impl Fn(&dyn Image)) -> MemoryDisk {
    make(text, size, password, false, fill).swap_remove(0)
}

fn make(
    text: &str,
    size: u64,
    password: Option<&str>,
    data_file: bool,
    fill: impl Fn(&dyn Image),
) -> Vec<MemoryDisk> {
    let storage: Vec<_> = (0..=u8::from(data_file)).map(|_| Arc::new(MemoryDisk::new(0))).collect();
    let files: Vec<_> = storage.iter().map(|disk| disk.clone() as Arc<dyn Disk>).collect();
    let request = CreateRequest {
        size,
        options: options(text),
        secret: password.map(|word| Secret::new(word.into())),
        data_file: files.get(1).map(|disk| (DATA_FILE.to_string(), disk.clone())),
        ..CreateRequest::default()
    };
    (driver("qcow2").unwrap().create.unwrap())(&files[0], &request).unwrap();
    let image = try_open(&files, OpenMode::Write, password).unwrap();
    fill(&*image);
    image.close().unwrap();
    drop(image);
    storage.iter().map(|disk| (**disk).clone()).collect()
}

/// Bytes of which no two sectors are alike.
fn pattern(length: u64) -> Vec<u8> {
    disksmith_testkit::tagged(1, 0, length)
}
