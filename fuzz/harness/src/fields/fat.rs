//! FAT: boot sector, FSInfo, FATs and entries, where the seeds have them (FAT12 with its FAT at
//! 512 and its root directory at 1536; FAT32 with its FAT at 16384 and its root at 18432).

use super::{Field, le};

/// The fields of FAT volumes.
pub const FIELDS: &[Field] = &[
    le("BPB_BytsPerSec", 11, 2),
    le("BPB_SecPerClus", 13, 1),
    le("BPB_RsvdSecCnt", 14, 2),
    le("BPB_NumFATs", 16, 1),
    le("BPB_RootEntCnt", 17, 2),
    le("BPB_TotSec16", 19, 2),
    le("BPB_Media", 21, 1),
    le("BPB_FATSz16", 22, 2),
    le("BPB_TotSec32", 32, 4),
    le("BPB_FATSz32", 36, 4),
    le("BPB_ExtFlags", 40, 2),
    le("BPB_FSVer", 42, 2),
    le("BPB_RootClus", 44, 4),
    le("BPB_FSInfo", 48, 2),
    le("BPB_BkBootSec", 50, 2),
    le("FSI_Free_Count", 512 + 488, 4),
    le("FSI_Nxt_Free", 512 + 492, 4),
    le("FAT12 entries 2 and 3", 515, 4),
    le("FAT12 entries 5 and 6", 519, 4),
    le("FAT32 entry 2", 16384 + 8, 4),
    le("FAT32 entry 3", 16384 + 12, 4),
    le("FAT32 entry 5", 16384 + 20, 4),
    le("FAT12 root, long part", 1536 + 32, 1),
    le("FAT12 root, checksum", 1536 + 32 + 13, 1),
    le("FAT12 root, attributes", 1536 + 32 + 11, 1),
    le("FAT12 root, start", 1536 + 96 + 26, 2),
    le("FAT12 root, size", 1536 + 96 + 28, 4),
    le("FAT32 root, long part", 18432 + 32, 1),
    le("FAT32 root, attributes", 18432 + 64 + 11, 1),
    le("FAT32 root, start", 18432 + 96 + 26, 2),
    le("FAT32 root, start high", 18432 + 96 + 20, 2),
    le("FAT32 root, size", 18432 + 96 + 28, 4),
];
