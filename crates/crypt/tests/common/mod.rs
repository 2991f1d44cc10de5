//! Running the tools that are the oracles.
#![allow(dead_code, missing_docs, unreachable_pub, clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::Command;

use disksmith_crypt::luks::{self, CreateOptions, Unlocked};
use disksmith_crypt::{CipherSpec, CryptDisk};
use disksmith_disk::{Disk, MemoryDisk};
use tempfile::TempDir;

/// What a tool answered.
#[derive(Debug)]
pub struct Answer {
    pub success: bool,
    pub out: String,
    pub err: String,
}

/// Runs `program`, which the Debian package `package` has.
pub fn run(package: &str, program: &str, arguments: &[&str]) -> Answer {
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let output = Command::new(program)
        .args(arguments)
        .env("PATH", path)
        .env("LC_ALL", "C")
        .output()
        .unwrap_or_else(|e| panic!("{program} is needed (Debian package {package}): {e}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Answer {
        success: output.status.success(),
        out: text(&output.stdout),
        err: text(&output.stderr),
    }
}

/// As [`run`], and it must succeed. Gives what it printed.
pub fn must(package: &str, program: &str, arguments: &[&str]) -> String {
    let answer = run(package, program, arguments);
    assert!(answer.success, "{program} {arguments:?}: {answer:?}");
    answer.out
}

pub fn qemu_img(arguments: &[&str]) -> String {
    must("qemu-utils", "qemu-img", arguments)
}

pub fn qemu_io(arguments: &[&str]) -> String {
    must("qemu-utils", "qemu-io", arguments)
}

/// QEMU's secret object `s0`.
pub fn secret(password: &str) -> String {
    format!("secret,id=s0,data={password}")
}

/// QEMU's image options of a LUKS file that secret `s0` opens.
pub fn luks_options(path: &Path) -> String {
    format!("driver=luks,key-secret=s0,file.filename={}", path.display())
}

/// All plain bytes of an image, as QEMU reads them.
pub fn qemu_content(folder: &Path, password: &str, options: &str) -> Vec<u8> {
    let target = folder.join("plain.raw");
    let object = secret(password);
    let target_text = target.to_str().unwrap();
    let arguments = ["convert", "--object", &object, "--image-opts", options, "-O", "raw"];
    qemu_img(&[&arguments[..], &[target_text]].concat());
    std::fs::read(target).unwrap()
}

/// Bytes without a pattern that a mistake could hide in.
pub fn noise(length: usize) -> Vec<u8> {
    let mut seed = 0x9e37_79b9_7f4a_7c15u64;
    (0..length)
        .map(|_| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed as u8
        })
        .collect()
}

pub fn cheap(spec: CipherSpec) -> CreateOptions {
    CreateOptions { spec, iter_time_ms: 5, ..CreateOptions::default() }
}

/// A LUKS file of ours.
pub struct Ours {
    pub folder: TempDir,
    pub path: PathBuf,
    pub disk: MemoryDisk,
    pub unlocked: Unlocked,
}

impl Ours {
    /// With `content`, opened by `password`.
    pub fn new(options: &CreateOptions, password: &str, content: &[u8]) -> Self {
        let disk = MemoryDisk::new(luks::header_length(options).unwrap() + content.len() as u64);
        luks::create(options, password.as_bytes()).unwrap().write(&disk, 0).unwrap();
        let unlocked = luks::unlock(&disk, 0, password.as_bytes(), &Default::default()).unwrap();
        let payload = unlocked.header.payload_offset();
        let again = luks::unlock(&disk, 0, password.as_bytes(), &Default::default()).unwrap();
        CryptDisk::new(&disk, payload, again.cipher).write_at(content, 0).unwrap();
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("ours.luks");
        let ours = Self { folder, path, disk, unlocked };
        ours.save();
        ours
    }

    pub fn save(&self) {
        std::fs::write(&self.path, self.disk.to_bytes()).unwrap();
    }

    pub fn text(&self) -> &str {
        self.path.to_str().unwrap()
    }
}

/// What we read from a LUKS file.
pub fn our_content(path: &Path, password: &str) -> Vec<u8> {
    let disk = MemoryDisk::from_bytes(&std::fs::read(path).unwrap());
    let unlocked = luks::unlock(&disk, 0, password.as_bytes(), &Default::default()).unwrap();
    let plain = CryptDisk::new(&disk, unlocked.header.payload_offset(), unlocked.cipher);
    let mut bytes = vec![0; plain.size() as usize];
    plain.read_at(&mut bytes, 0).unwrap();
    bytes
}
