//! Superblocks made by hand, of filesystems whose tools are rare, and of those whose parts lie far
//! from the start.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, reason = "helpers of tests")]

use disksmith_disk::{Disk, MemoryDisk};

use super::MIB;

/// A blank disk with bytes at places.
pub fn crafted(size: u64, pieces: &[(u64, &[u8])]) -> MemoryDisk {
    let disk = MemoryDisk::new(size);
    for (offset, bytes) in pieces {
        disk.write_at(bytes, *offset).unwrap();
    }
    disk
}

pub const ID: [u8; 16] =
    [0x6b, 0xdb, 0x33, 1, 2, 3, 0x4b, 0xa5, 0x8d, 0x6d, 0x2d, 0x4f, 0x8d, 0x9d, 0x3c, 0x11];

pub fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

pub fn wide(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

pub fn erofs() -> MemoryDisk {
    let mut sb = [0; 128];
    put(&mut sb, 0, &0xe0f5_e1e2_u32.to_le_bytes());
    sb[12] = 12;
    put(&mut sb, 36, &256_u32.to_le_bytes());
    put(&mut sb, 48, &ID);
    put(&mut sb, 64, b"erolabel");
    crafted(MIB, &[(1024, &sb)])
}

pub fn f2fs() -> MemoryDisk {
    let mut sb = vec![0; 3072];
    put(&mut sb, 0, &0xf2f5_2010_u32.to_le_bytes());
    put(&mut sb, 4, &[1, 0, 15, 0]);
    for (at, value) in [(8, 9_u32), (12, 3), (16, 12)] {
        put(&mut sb, at, &value.to_le_bytes());
    }
    put(&mut sb, 36, &16384_u64.to_le_bytes());
    put(&mut sb, 108, &ID);
    put(&mut sb, 124, &wide("flash fs"));
    crafted(64 * MIB, &[(1024, &sb)])
}

pub fn ntfs(table: u64) -> MemoryDisk {
    let mut boot = [0; 512];
    put(&mut boot, 0, &[0xeb, 0x52, 0x90]);
    put(&mut boot, 3, b"NTFS    ");
    put(&mut boot, 11, &[0, 2, 8, 0, 0]);
    boot[21] = 0xf8;
    put(&mut boot, 40, &131_071_u64.to_le_bytes());
    put(&mut boot, 48, &table.to_le_bytes());
    put(&mut boot, 56, &1024_u64.to_le_bytes());
    boot[64] = 0xf6;
    boot[68] = 1;
    put(&mut boot, 72, &0x1234_5678_9abc_def0_u64.to_le_bytes());
    put(&mut boot, 510, &[0x55, 0xaa]);
    let mut record = [0; 1024];
    put(&mut record, 0, b"FILE");
    let mut mft = record;
    put(&mut mft, 20, &56_u16.to_le_bytes());
    put(&mut record, 20, &56_u16.to_le_bytes());
    put(&mut record, 24, &400_u32.to_le_bytes());
    put(&mut record, 28, &1024_u32.to_le_bytes());
    let name = wide("Volume A");
    put(&mut record, 56, &0x60_u32.to_le_bytes());
    put(&mut record, 60, &48_u32.to_le_bytes());
    put(&mut record, 72, &(name.len() as u32).to_le_bytes());
    put(&mut record, 76, &24_u16.to_le_bytes());
    put(&mut record, 80, &name);
    put(&mut record, 104, &u32::MAX.to_le_bytes());
    let at = table * 4096;
    crafted(64 * MIB, &[(0, &boot), (at, &mft), (at + 3 * 1024, &record)])
}

pub fn hfs_plus(catalog: u32) -> MemoryDisk {
    let mut header = [0; 512];
    put(&mut header, 0, b"H+\x00\x04");
    for (at, value) in [
        (40, 4096_u32),
        (44, 4096),
        (48, 4000),
        (272 + 4, 8192),
        (284, 2),
        (288, catalog),
        (292, 2),
    ] {
        put(&mut header, at, &value.to_be_bytes());
    }
    put(&mut header, 104, &[1, 2, 3, 4, 5, 6, 7, 8]);
    let mut node = [0; 512];
    node[8] = 1;
    put(&mut node, 10, &3_u16.to_be_bytes());
    for (at, value) in [(16, 1_u32), (20, 1), (24, 1), (28, 1)] {
        put(&mut node, at, &value.to_be_bytes());
    }
    put(&mut node, 32, &4096_u16.to_be_bytes());
    let mut leaf = [0; 512];
    leaf[8] = 0xff;
    leaf[9] = 1;
    put(&mut leaf, 10, &1_u16.to_be_bytes());
    let name: Vec<u8> = "Macintosh".encode_utf16().flat_map(u16::to_be_bytes).collect();
    put(&mut leaf, 14, &(6 + name.len() as u16).to_be_bytes());
    put(&mut leaf, 16, &1_u32.to_be_bytes());
    put(&mut leaf, 20, &9_u16.to_be_bytes());
    put(&mut leaf, 22, &name);
    let at = u64::from(catalog) * 4096;
    crafted(16 * MIB, &[(1024, &header), (at, &node), (at + 4096, &leaf)])
}

pub fn apfs() -> MemoryDisk {
    let mut sb = [0; 4096];
    put(&mut sb, 8, &1_u64.to_le_bytes());
    put(&mut sb, 16, &1_u64.to_le_bytes());
    put(&mut sb, 24, &0x8000_0001_u32.to_le_bytes());
    put(&mut sb, 32, b"NXSB");
    put(&mut sb, 36, &4096_u32.to_le_bytes());
    put(&mut sb, 40, &4096_u64.to_le_bytes());
    put(&mut sb, 72, &ID);
    // Fletcher's checksum over everything behind it.
    let (mut low, mut high) = (0_u64, 0_u64);
    for word in sb[8..].chunks(4) {
        low = (low + u64::from(u32::from_le_bytes(word.try_into().unwrap()))) % 0xffff_ffff;
        high = (high + low) % 0xffff_ffff;
    }
    let check_low = 0xffff_ffff - (low + high) % 0xffff_ffff;
    let check_high = 0xffff_ffff - (low + check_low) % 0xffff_ffff;
    put(&mut sb, 0, &(check_high << 32 | check_low).to_le_bytes());
    crafted(16 * MIB, &[(0, &sb)])
}

pub fn iso9660() -> MemoryDisk {
    let mut descriptor = [0; 2048];
    put(&mut descriptor, 0, b"\x01CD001\x01");
    descriptor[40..72].fill(b' ');
    put(&mut descriptor, 40, b"MY_DISC");
    put(&mut descriptor, 80, &512_u32.to_le_bytes());
    put(&mut descriptor, 84, &512_u32.to_be_bytes());
    put(&mut descriptor, 128, &[0, 8, 8, 0]);
    put(&mut descriptor, 813, b"2024013123595800\0");
    put(&mut descriptor, 830, b"2024020112000000\0");
    crafted(MIB, &[(32768, &descriptor), (34816, b"\xffCD001\x01")])
}

pub fn lvm() -> MemoryDisk {
    let mut label = [0; 512];
    put(&mut label, 0, b"LABELONE");
    put(&mut label, 8, &1_u64.to_le_bytes());
    put(&mut label, 20, &32_u32.to_le_bytes());
    put(&mut label, 24, b"LVM2 001");
    put(&mut label, 32, b"abcdefghijklmnopqrstuvwxyzABCDEF");
    put(&mut label, 64, &(16 * MIB).to_le_bytes());
    // CRC-32 with LVM's own start value and without the last inversion.
    let mut crc = 0xf597_a6cf_u32;
    for byte in &label[20..] {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
        }
    }
    put(&mut label, 16, &crc.to_le_bytes());
    crafted(16 * MIB, &[(512, &label)])
}

pub fn md(place: u64) -> MemoryDisk {
    let mut sb = [0; 1024];
    put(&mut sb, 0, &0xa92b_4efc_u32.to_le_bytes());
    put(&mut sb, 4, &1_u32.to_le_bytes());
    put(&mut sb, 16, &ID);
    put(&mut sb, 32, b"host:name");
    put(&mut sb, 72, &1_u32.to_le_bytes());
    put(&mut sb, 80, &8192_u64.to_le_bytes());
    put(&mut sb, 92, &2_u32.to_le_bytes());
    put(&mut sb, 128, &(if place == 16 * MIB - 8192 { 0_u64 } else { 2048 }).to_le_bytes());
    put(&mut sb, 136, &8192_u64.to_le_bytes());
    put(&mut sb, 144, &(place / 512).to_le_bytes());
    // The sum of the first 256 bytes and of the two roles, folded.
    put(&mut sb, 220, &2_u32.to_le_bytes());
    let sum: u64 =
        sb[..260].chunks(4).map(|w| u64::from(u32::from_le_bytes(w.try_into().unwrap()))).sum();
    put(&mut sb, 216, &((sum & 0xffff_ffff) as u32).wrapping_add((sum >> 32) as u32).to_le_bytes());
    crafted(16 * MIB, &[(place, &sb)])
}

pub fn md_old() -> MemoryDisk {
    let mut sb = [0; 4096];
    put(&mut sb, 0, &0xa92b_4efc_u32.to_le_bytes());
    put(&mut sb, 8, &90_u32.to_le_bytes());
    put(&mut sb, 20, &0x0102_0304_u32.to_le_bytes());
    put(&mut sb, 32, &8192_u32.to_le_bytes());
    put(&mut sb, 52, &0x0506_0708_u32.to_le_bytes());
    put(&mut sb, 56, &0x090a_0b0c_u32.to_le_bytes());
    put(&mut sb, 60, &0x0d0e_0f10_u32.to_le_bytes());
    crafted(16 * MIB, &[(16 * MIB - 65536, &sb)])
}

/// Name, disk, label.
pub fn all() -> Vec<(&'static str, MemoryDisk, Option<&'static str>)> {
    vec![
        ("erofs", erofs(), Some("erolabel")),
        ("f2fs", f2fs(), Some("flash fs")),
        ("ntfs", ntfs(4), Some("Volume A")),
        ("hfsplus", hfs_plus(10), Some("Macintosh")),
        ("apfs", apfs(), None),
        ("iso9660", iso9660(), Some("MY_DISC")),
        ("LVM2_member", lvm(), None),
        ("md 1.2", md(4096), Some("host:name")),
        ("md 1.1", md(0), Some("host:name")),
        ("md 1.0", md(16 * MIB - 8192), Some("host:name")),
        ("md 0.90", md_old(), None),
    ]
}

/// Filesystems that say what they are called and how full they are far from their start.
pub fn far() -> Vec<MemoryDisk> {
    vec![ntfs(100), hfs_plus(100), f2fs_with_checkpoint(), fat16(), fat32(), exfat()]
}

fn f2fs_with_checkpoint() -> MemoryDisk {
    let disk = f2fs();
    for (at, value) in [(20, 9_u32), (76, 512), (92, 3000)] {
        disk.write_at(&value.to_le_bytes(), 1024 + at).unwrap();
    }
    disk.write_at(&1_u64.to_le_bytes(), 512 * 4096).unwrap();
    disk
}

/// A boot sector with two tables of `fat_sectors`.
fn fat_boot(sectors: u32, reserved: u16, small: [u8; 2], large: u32) -> [u8; 512] {
    let mut boot = [0; 512];
    put(&mut boot, 0, &[0xeb, 0x3c, 0x90]);
    put(&mut boot, 11, &512_u16.to_le_bytes());
    boot[13] = 1;
    put(&mut boot, 14, &reserved.to_le_bytes());
    boot[16] = 2;
    boot[21] = 0xf8;
    put(&mut boot, 22, &small);
    put(&mut boot, 32, &sectors.to_le_bytes());
    put(&mut boot, 36, &large.to_le_bytes());
    put(&mut boot, 510, &[0x55, 0xaa]);
    boot
}

fn fat16() -> MemoryDisk {
    let mut boot = fat_boot(60_600, 1, 240_u16.to_le_bytes(), 0);
    put(&mut boot, 17, &512_u16.to_le_bytes());
    put(&mut boot, 36, &[0x80, 0, 0x29, 1, 2, 3, 4]);
    put(&mut boot, 43, b"SIXTEEN    ");
    crafted(32 * MIB, &[(0, &boot)])
}

fn fat32() -> MemoryDisk {
    let mut boot = fat_boot(71_500, 300, [0, 0], 600);
    put(&mut boot, 44, &2_u32.to_le_bytes());
    put(&mut boot, 48, &200_u16.to_le_bytes());
    boot[66] = 0x29;
    let mut info = [0; 512];
    put(&mut info, 0, b"RRaA");
    put(&mut info, 484, b"rrAa");
    put(&mut info, 488, &5000_u32.to_le_bytes());
    crafted(40 * MIB, &[(0, &boot), (200 * 512, &info)])
}

fn exfat() -> MemoryDisk {
    let mut boot = [0; 512];
    put(&mut boot, 3, b"EXFAT   ");
    put(&mut boot, 72, &20_000_u64.to_le_bytes());
    for (at, value) in [(88, 2000_u32), (92, 1000), (96, 2), (100, 77)] {
        put(&mut boot, at, &value.to_le_bytes());
    }
    put(&mut boot, 108, &[9, 3]);
    crafted(16 * MIB, &[(0, &boot)])
}
