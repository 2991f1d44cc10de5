//! exFAT: boot sector, FAT, bitmap and entries, where the seed has them: its FAT at 12288, its
//! bitmap at 13312, its up-case table at 13824, its root directory at 17920.

use super::{Field, le};

/// Where the root directory begins.
pub const ROOT: usize = 17_920;
const SET: usize = ROOT + 96;

/// The fields of exFAT volumes.
pub const FIELDS: &[Field] = &[
    le("VolumeLength", 72, 8),
    le("FatOffset", 80, 4),
    le("FatLength", 84, 4),
    le("ClusterHeapOffset", 88, 4),
    le("ClusterCount", 92, 4),
    le("FirstClusterOfRootDirectory", 96, 4),
    le("VolumeFlags", 106, 2),
    le("BytesPerSectorShift", 108, 1),
    le("SectorsPerClusterShift", 109, 1),
    le("NumberOfFats", 110, 1),
    le("boot checksum", 512 * 11, 4),
    le("FatEntry of the bitmap", 12_288 + 8, 4),
    le("FatEntry of the up-case table", 12_288 + 12, 4),
    le("FatEntry of the root", 12_288 + 44, 4),
    le("FatEntry 12", 12_288 + 48, 4),
    le("FatEntry 13", 12_288 + 52, 4),
    le("bitmap", 13_312, 8),
    le("up-case table", 13_824 + 400, 2),
    le("label, CharacterCount", ROOT + 1, 1),
    le("bitmap, FirstCluster", ROOT + 32 + 20, 4),
    le("bitmap, DataLength", ROOT + 32 + 24, 8),
    le("up-case, FirstCluster", ROOT + 64 + 20, 4),
    le("up-case, DataLength", ROOT + 64 + 24, 8),
    le("SecondaryCount", SET + 1, 1),
    le("FileAttributes", SET + 4, 2),
    le("GeneralSecondaryFlags", SET + 33, 1),
    le("NameLength", SET + 35, 1),
    le("NameHash", SET + 36, 2),
    le("ValidDataLength", SET + 40, 8),
    le("FirstCluster", SET + 52, 4),
    le("DataLength", SET + 56, 8),
    le("type of the name", SET + 64, 1),
    le("name", SET + 66, 2),
    le("second file, GeneralSecondaryFlags", SET + 96 + 33, 1),
    le("second file, FirstCluster", SET + 96 + 52, 4),
    le("second file, DataLength", SET + 96 + 56, 8),
];
