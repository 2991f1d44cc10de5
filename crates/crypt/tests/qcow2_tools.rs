//! Encryption inside qcow2 and qcow, as QEMU makes it: where the header is and what the sector
//! numbers are.
#![allow(clippy::unwrap_used)]

mod common;

use std::path::PathBuf;

use common::*;
use disksmith_crypt::luks::{self, AddKeyOptions, CreateOptions, UnlockOptions};
use disksmith_crypt::{CipherSpec, SectorCipher, legacy_aes};
use disksmith_disk::{Disk, MemoryDisk, bytes::be32, bytes::be64};
use tempfile::TempDir;

/// An encrypted image of QEMU's with 0x5a from byte 0 and 0xc3 from 300 KiB on, 64 KiB each.
fn qemu_image(format: &str, encryption: &str) -> (TempDir, PathBuf, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image");
    let (object, text) = (secret("abc"), path.to_str().unwrap());
    let options = format!("encrypt.format={encryption},encrypt.key-secret=s0");
    qemu_img(&["create", "-q", "-f", format, "--object", &object, "-o", &options, text, "1M"]);
    let opts = format!("driver={format},encrypt.key-secret=s0,file.filename={text}");
    let writes = ["-c", "write -P 0x5a 0 64k", "-c", "write -P 0xc3 300k 64k"];
    qemu_io(&[&["--object", &object, "--image-opts", &opts][..], &writes].concat());
    (folder, path, opts)
}

/// Where the qcow2 keeps guest offset `guest`.
fn host_offset(image: &[u8], guest: u64) -> u64 {
    let entry = |at: u64| be64(image, at as usize).unwrap() & 0x00ff_ffff_ffff_fe00;
    let cluster = 1u64 << be32(image, 20).unwrap();
    let l1 = be64(image, 40).unwrap();
    let l2 = entry(l1);
    entry(l2 + guest / cluster * 8) + guest % cluster
}

/// The offset in the LUKS header extension.
fn luks_header(image: &[u8]) -> u64 {
    let mut at = be32(image, 100).unwrap() as usize;
    loop {
        let (kind, length) = (be32(image, at).unwrap(), be32(image, at + 4).unwrap() as usize);
        match kind {
            0x0537_be77 => return be64(image, at + 8).unwrap(),
            0 => panic!("no LUKS header extension"),
            _ => at += 8 + length.next_multiple_of(8),
        }
    }
}

fn sector(image: &[u8], cipher: &SectorCipher, at: u64, number: u64) -> Vec<u8> {
    let mut sector = image[at as usize..][..512].to_vec();
    cipher.decrypt(number, &mut sector);
    sector
}

#[test]
fn luks_in_qcow2() {
    let (folder, path, opts) = qemu_image("qcow2", "luks,encrypt.iter-time=10");
    let image = std::fs::read(&path).unwrap();
    let disk = MemoryDisk::from_bytes(&image);
    let base = luks_header(&image);
    let mut volume = luks::unlock(&disk, base, b"abc", &UnlockOptions::default()).unwrap();
    for (guest, value) in [(0, 0x5a), (4096, 0x5a), (300 << 10, 0xc3), ((364 << 10) - 512, 0xc3)] {
        let host = host_offset(&image, guest);
        assert_eq!(sector(&image, &volume.cipher, host, host / 512), [value; 512]);
    }

    // Another key, relative to the header within the file.
    let cheap = AddKeyOptions { slot: Some(3), iter_time_ms: 5 };
    luks::add_key(&disk, base, &mut volume, b"more", &cheap).unwrap();
    luks::erase_slot(&disk, base, &mut volume.header, 0, false).unwrap();
    std::fs::write(&path, disk.to_bytes()).unwrap();
    let content = qemu_content(folder.path(), "more", &opts);
    assert!(content[..65536].iter().all(|b| *b == 0x5a));

    // A whole header of ours in the place of QEMU's: same length, other key.
    let created =
        luks::create(&CreateOptions { iter_time_ms: 5, ..CreateOptions::default() }, b"ours")
            .unwrap();
    created.write(&disk, base).unwrap();
    let host = host_offset(&image, 0);
    let mut cluster = vec![0x11; 65536];
    created.unlocked.cipher.encrypt(host / 512, &mut cluster);
    disk.write_at(&cluster, host).unwrap();
    std::fs::write(&path, disk.to_bytes()).unwrap();
    let content = qemu_content(folder.path(), "ours", &opts);
    assert!(content[..65536].iter().all(|b| *b == 0x11));
}

#[test]
fn length_of_a_header_in_qcow2() {
    let options = CreateOptions { spec: CipherSpec::default(), ..CreateOptions::default() };
    assert_eq!(luks::header_length(&options).unwrap(), 0x1f_9000);
}

#[test]
fn legacy_aes_in_qcow2() {
    let (_folder, path, _) = qemu_image("qcow2", "aes");
    let image = std::fs::read(&path).unwrap();
    let cipher = legacy_aes(b"abc").unwrap();
    for (guest, value) in [(0, 0x5a), (4096, 0x5a), (300 << 10, 0xc3)] {
        let host = host_offset(&image, guest);
        assert_eq!(sector(&image, &cipher, host, guest / 512), [value; 512]);
    }
}

#[test]
fn legacy_aes_in_qcow() {
    let (_folder, path, _) = qemu_image("qcow", "aes");
    let image = std::fs::read(&path).unwrap();
    let cipher = legacy_aes(b"abc").unwrap();
    // Clusters of 4 KiB; one L2 table; entries are plain offsets.
    let cluster_bits = image[32];
    let l1 = be64(&image, 40).unwrap();
    let l2 = be64(&image, l1 as usize).unwrap();
    for (guest, value) in [(0u64, 0x5a), (8192, 0x5a), (300 << 10, 0xc3)] {
        let entry = l2 + (guest >> cluster_bits) * 8;
        let host = be64(&image, entry as usize).unwrap();
        assert_eq!(sector(&image, &cipher, host, guest / 512), [value; 512]);
    }
}
