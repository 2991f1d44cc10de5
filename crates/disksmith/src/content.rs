//! What the bytes of a raw disk look like, as file(1) would tell.

use disksmith_disk::Disk;

/// Bytes looked at: the superblock of btrfs is the farthest signature.
const LOOK: u64 = 0x1_1000;

/// A signature: what it means, where it is, what it is.
type Signature = (&'static str, usize, &'static [u8]);

const SIGNATURES: &[Signature] = &[
    ("LUKS encrypted volume", 0, b"LUKS\xba\xbe"),
    ("XFS filesystem", 0, b"XFSB"),
    ("squashfs filesystem", 0, b"hsqs"),
    ("NTFS filesystem", 3, b"NTFS    "),
    ("exFAT filesystem", 3, b"EXFAT   "),
    ("FAT filesystem", 82, b"FAT32   "),
    ("FAT filesystem", 54, b"FAT16   "),
    ("FAT filesystem", 54, b"FAT12   "),
    ("LVM physical volume", 512, b"LABELONE"),
    ("LVM physical volume", 0, b"LABELONE"),
    ("EROFS filesystem", 1024, b"\xe2\xe1\xf5\xe0"),
    ("F2FS filesystem", 1024, b"\x10\x20\xf5\xf2"),
    ("swap space", 4086, b"SWAPSPACE2"),
    ("ISO 9660 filesystem", 0x8001, b"CD001"),
    ("btrfs filesystem", 0x1_0040, b"_BHRfS_M"),
];

/// A few words on what `disk` holds.
pub(crate) fn describe(disk: &dyn Disk) -> String {
    let mut start = vec![0; LOOK.min(disk.size()) as usize];
    if disk.read_at(&mut start, 0).is_err() {
        return "unreadable".to_string();
    }
    let has = |at: usize, magic: &[u8]| start.get(at..at + magic.len()) == Some(magic);
    if let Some((what, ..)) = SIGNATURES.iter().find(|(_, at, magic)| has(*at, magic)) {
        return (*what).to_string();
    }
    if has(1080, b"\x53\xef") {
        return ext(&start).to_string();
    }
    if has(512, b"EFI PART") || has(4096, b"EFI PART") {
        return "GPT partition table".to_string();
    }
    if has(510, b"\x55\xaa") {
        return boot_sector(&start);
    }
    match start.iter().all(|byte| *byte == 0) {
        true => "nothing recognised (starts with zeroes)".to_string(),
        false => "data".to_string(),
    }
}

/// The ext family by its feature bits: a journal makes it ext3, extents make it ext4.
fn ext(start: &[u8]) -> &'static str {
    let word = |at: usize| {
        start.get(at..at + 4).map(|b| b.iter().rev().fold(0u32, |n, b| n << 8 | u32::from(*b)))
    };
    let compatible = word(1024 + 0x5c).unwrap_or(0);
    let incompatible = word(1024 + 0x60).unwrap_or(0);
    match (compatible & 4 != 0, incompatible & 0x2c0 != 0) {
        (_, true) => "ext4 filesystem",
        (true, false) => "ext3 filesystem",
        (false, false) => "ext2 filesystem",
    }
}

fn boot_sector(start: &[u8]) -> String {
    let entries = start.get(446..510).unwrap_or_default().chunks(16);
    let used = entries.filter(|entry| entry.get(4).is_some_and(|kind| *kind != 0)).count();
    let code = start.get(..440).is_some_and(|code| code.iter().any(|byte| *byte != 0));
    let table = match used {
        0 => "MBR partition table without partitions".to_string(),
        1 => "MBR partition table, 1 partition".to_string(),
        several => format!("MBR partition table, {several} partitions"),
    };
    match code {
        true => format!("x86 boot sector, {table}"),
        false => table,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use disksmith_disk::MemoryDisk;

    #[test]
    fn signatures_are_recognised() {
        let disk = MemoryDisk::new(1 << 20);
        assert_eq!(describe(&disk), "nothing recognised (starts with zeroes)");
        disk.write_at(&[0x55, 0xaa], 510).unwrap();
        assert_eq!(describe(&disk), "MBR partition table without partitions");
        disk.write_at(&[0x83], 450).unwrap();
        disk.write_at(&[0xfa], 0).unwrap();
        assert_eq!(describe(&disk), "x86 boot sector, MBR partition table, 1 partition");
        disk.write_at(&[0x53, 0xef], 1080).unwrap();
        assert_eq!(describe(&disk), "ext2 filesystem");
        assert_eq!(describe(&MemoryDisk::new(0)), "nothing recognised (starts with zeroes)");
    }
}
