//! FAT: the boot sector, and the first entries of the FAT and of the root directory where a
//! FAT12 or FAT16 volume of the seeds has them.

use super::{Field, le};

/// The boot sector's fields, FAT32's too; the FSInfo sector; the start of the first FAT.
pub const FIELDS: &[Field] = &[
    le("BS_jmpBoot", 0, 2),
    le("BPB_BytsPerSec", 11, 2),
    le("BPB_SecPerClus", 13, 1),
    le("BPB_RsvdSecCnt", 14, 2),
    le("BPB_NumFATs", 16, 1),
    le("BPB_RootEntCnt", 17, 2),
    le("BPB_TotSec16", 19, 2),
    le("BPB_Media", 21, 1),
    le("BPB_FATSz16", 22, 2),
    le("BPB_HiddSec", 28, 4),
    le("BPB_TotSec32", 32, 4),
    le("BPB_FATSz32", 36, 4),
    le("BPB_ExtFlags", 40, 2),
    le("BPB_FSVer", 42, 2),
    le("BPB_RootClus", 44, 4),
    le("BPB_FSInfo", 48, 2),
    le("BPB_BkBootSec", 50, 2),
    le("BS_FilSysType", 54, 8),
    le("signature", 510, 2),
    le("FSI_LeadSig", 512, 4),
    le("FSI_Free_Count", 512 + 488, 4),
    le("FSI_Nxt_Free", 512 + 492, 4),
    le("FAT[0]", 512, 4),
    le("FAT[2]", 515, 2),
    le("FAT[4]", 518, 2),
    le("FAT32[0]", 32 * 512, 4),
    le("FAT32[2]", 32 * 512 + 8, 4),
    le("FAT32[3]", 32 * 512 + 12, 4),
    le("FAT32[5]", 32 * 512 + 20, 4),
];
