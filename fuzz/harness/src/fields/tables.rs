//! Partition tables of the seeds: 512-byte sectors, 2 MiB.

use super::{Field, le};

/// MBR: the table in sector 0, and the chain of boot records that starts at sector 1024, each
/// with its partition one sector behind (align 1 sector: records at 1024, 1124 …).
pub const MBR: &[Field] = &[
    le("disk signature", 440, 4),
    le("1: status", 446, 1),
    le("1: CHS begin", 447, 2),
    le("1: type", 450, 1),
    le("1: CHS end", 451, 2),
    le("1: start", 454, 4),
    le("1: length", 458, 4),
    le("2: type", 466, 1),
    le("2: start", 470, 4),
    le("2: length", 474, 4),
    le("3: type", 482, 1),
    le("3: start", 486, 4),
    le("3: length", 490, 4),
    le("4: type", 498, 1),
    le("4: start", 502, 4),
    le("4: length", 506, 4),
    le("signature", 510, 2),
    le("EBR 1: type", 1024 * 512 + 450, 1),
    le("EBR 1: start", 1024 * 512 + 454, 4),
    le("EBR 1: length", 1024 * 512 + 458, 4),
    le("EBR 1: next type", 1024 * 512 + 466, 1),
    le("EBR 1: next start", 1024 * 512 + 470, 4),
    le("EBR 1: next length", 1024 * 512 + 474, 4),
    le("EBR 1: signature", 1024 * 512 + 510, 2),
    le("EBR 2: start", 1224 * 512 + 454, 4),
    le("EBR 2: next type", 1224 * 512 + 466, 1),
    le("EBR 2: next start", 1224 * 512 + 470, 4),
    le("EBR 2: signature", 1224 * 512 + 510, 2),
];

/// GPT: protective MBR, primary header in sector 1, entries from sector 2.
pub const GPT: &[Field] = &[
    le("protective: type", 450, 1),
    le("protective: start", 454, 4),
    le("protective: length", 458, 4),
    le("signature", 512, 8),
    le("revision", 520, 4),
    le("header size", 524, 4),
    le("header CRC", 528, 4),
    le("my LBA", 536, 8),
    le("alternate LBA", 544, 8),
    le("first usable LBA", 552, 8),
    le("last usable LBA", 560, 8),
    le("disk GUID", 568, 8),
    le("partition entry LBA", 584, 8),
    le("number of entries", 592, 4),
    le("size of entry", 596, 4),
    le("entries CRC", 600, 4),
    le("1: type GUID", 1024, 8),
    le("1: unique GUID", 1040, 8),
    le("1: first LBA", 1056, 8),
    le("1: last LBA", 1064, 8),
    le("1: attributes", 1072, 8),
    le("1: name", 1080, 2),
    le("2: type GUID", 1152, 8),
    le("2: first LBA", 1184, 8),
    le("2: last LBA", 1192, 8),
    le("5: type GUID", 1536, 8),
    le("backup: my LBA", 4095 * 512 + 24, 8),
    le("backup: alternate LBA", 4095 * 512 + 32, 8),
    le("backup: partition entry LBA", 4095 * 512 + 72, 8),
    le("backup: number of entries", 4095 * 512 + 80, 4),
    le("backup: CRC", 4095 * 512 + 16, 4),
];

/// Checksums of both GPT headers and of the entries, made right again.
pub fn fix_gpt(bytes: &mut [u8]) {
    for header in [512, 4095 * 512] {
        let Some(raw) = bytes.get(header..header + 512) else { continue };
        let number = |at: usize, width: usize| {
            raw[at..at + width].iter().rev().fold(0u64, |n, byte| n << 8 | u64::from(*byte))
        };
        let size = number(12, 4).min(512) as usize;
        let start = (number(72, 8) as usize).saturating_mul(512);
        let length = (number(80, 4) as usize).saturating_mul(number(84, 4) as usize);
        let entries = bytes.get(start..start.saturating_add(length)).map(crc32fast::hash);
        if let Some(sum) = entries {
            bytes[header + 88..header + 92].copy_from_slice(&sum.to_le_bytes());
        }
        bytes[header + 16..header + 20].fill(0);
        let sum = crc32fast::hash(&bytes[header..header + size]);
        bytes[header + 16..header + 20].copy_from_slice(&sum.to_le_bytes());
    }
}
