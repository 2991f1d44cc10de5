//! On-disk structures of exFAT, with the field names of Microsoft's "exFAT file system
//! specification". No I/O here.

use disksmith_disk::{Error, Kind, Result};

use super::super::shape::corrupt;
use crate::raw::{byte, le16, le32, le64, put, put16, put32, put64};

/// Bytes in a directory entry.
pub(crate) const ENTRY: usize = 32;
/// Sectors of a boot region: the boot sector, 8 more, 2 others, and the checksum.
pub(crate) const BOOT_SECTORS: u64 = 12;

/// Types of directory entries.
pub(crate) mod entry_type {
    pub(crate) const END: u8 = 0x00;
    pub(crate) const BITMAP: u8 = 0x81;
    pub(crate) const UPCASE: u8 = 0x82;
    pub(crate) const LABEL: u8 = 0x83;
    pub(crate) const FILE: u8 = 0x85;
    pub(crate) const STREAM: u8 = 0xC0;
    pub(crate) const NAME: u8 = 0xC1;
}

/// The bit of an entry's type that says that it is in use.
pub(crate) const IN_USE: u8 = 0x80;
/// A type that is not in use and not the end, for slots that are skipped.
pub(crate) const UNUSED: u8 = 0x05;

/// `GeneralSecondaryFlags`: there can be clusters.
pub(crate) const ALLOCATION_POSSIBLE: u8 = 1;
/// `GeneralSecondaryFlags`: the clusters lie one after the other, the FAT says nothing of them.
pub(crate) const NO_FAT_CHAIN: u8 = 2;

/// `VolumeFlags` (section 3.1.13): the second FAT is in use.
pub(crate) const ACTIVE_FAT: u16 = 1;
/// `VolumeFlags`: somebody changes the volume, or did not finish.
pub(crate) const VOLUME_DIRTY: u16 = 2;
/// `VolumeFlags`: to be cleared by whoever changes something.
pub(crate) const CLEAR_TO_ZERO: u16 = 8;
/// Where `VolumeSerialNumber`, `VolumeFlags` and `PercentInUse` stand in the boot sector.
pub(crate) const SERIAL_AT: u64 = 100;
pub(crate) const FLAGS_AT: u64 = 106;
pub(crate) const PERCENT_AT: u64 = 112;
/// `FatEntry` (section 4.1.2): the last cluster, and one that is bad.
pub(crate) const CHAIN_END: u32 = 0xFFFF_FFFF;
pub(crate) const CHAIN_BAD: u32 = 0xFFFF_FFF7;
/// No directory is longer, in bytes (section 7.4).
pub(crate) const DIRECTORY_MAX: u64 = 256 << 20;

/// What the boot sector says, verified.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Geometry {
    /// Bytes in a sector, and in a cluster.
    pub(crate) sector: u64,
    pub(crate) cluster: u64,
    /// Sectors.
    pub(crate) volume_length: u64,
    pub(crate) fat_offset: u32,
    pub(crate) fat_length: u32,
    pub(crate) fats: u8,
    pub(crate) heap_offset: u32,
    pub(crate) clusters: u32,
    pub(crate) root: u32,
    pub(crate) serial: u32,
    pub(crate) flags: u16,
}

impl Geometry {
    /// Reads a boot sector of 512 bytes.
    pub(crate) fn parse(boot: &[u8]) -> Result<Self> {
        if boot.get(3..11) != Some(b"EXFAT   ") {
            return Err(Error::new(Kind::NotFound, "There is no exFAT filesystem"));
        }
        let (sector_shift, cluster_shift) = (byte(boot, 108), byte(boot, 109));
        if !(9..=12).contains(&sector_shift)
            || u32::from(sector_shift) + u32::from(cluster_shift) > 25
        {
            return Err(corrupt("its sizes of sectors and clusters are impossible"));
        }
        let sector = 1 << sector_shift;
        let geometry = Self {
            sector,
            cluster: sector << cluster_shift,
            volume_length: le64(boot, 72),
            fat_offset: le32(boot, 80),
            fat_length: le32(boot, 84),
            fats: byte(boot, 110),
            heap_offset: le32(boot, 88),
            clusters: le32(boot, 92),
            root: le32(boot, 96),
            serial: le32(boot, 100),
            flags: le16(boot, 106),
        };
        let fat_end = u64::from(geometry.fat_offset)
            + u64::from(geometry.fat_length) * u64::from(geometry.fats);
        let heap = u64::from(geometry.heap_offset) * sector;
        let end = heap.checked_add(u64::from(geometry.clusters) * geometry.cluster);
        let length = geometry.volume_length.checked_mul(sector);
        let entries = u64::from(geometry.fat_length) * sector / 4;
        let sensible = (1..=2).contains(&geometry.fats)
            && u64::from(geometry.fat_offset) >= 2 * BOOT_SECTORS
            && fat_end <= u64::from(geometry.heap_offset)
            && end.zip(length).is_some_and(|(end, length)| end <= length)
            && geometry.clusters > 0
            && geometry.clusters <= 0xFFFF_FFF5
            && entries >= u64::from(geometry.clusters) + 2
            && geometry.is_cluster(geometry.root);
        match sensible {
            true if byte(boot, 105) == 1 => Ok(geometry),
            true => Err(Error::new(Kind::Unsupported, "exFAT of an unknown version")),
            false => Err(corrupt("its boot sector makes no sense")),
        }
    }

    pub(crate) fn is_cluster(&self, cluster: u32) -> bool {
        cluster >= 2 && cluster - 2 < self.clusters
    }

    /// Where a cluster lies, in bytes.
    pub(crate) fn place(&self, cluster: u32) -> u64 {
        u64::from(self.heap_offset) * self.sector
            + u64::from(cluster.saturating_sub(2)) * self.cluster
    }

    /// Where the FAT in use begins, in bytes.
    pub(crate) fn fat(&self) -> u64 {
        let second = self.flags & ACTIVE_FAT != 0 && self.fats == 2;
        let skip = if second { self.fat_length } else { 0 };
        (u64::from(self.fat_offset) + u64::from(skip)) * self.sector
    }

    /// The boot sector of 512 bytes.
    pub(crate) fn encode(&self, partition_offset: u64, percent: u8) -> Vec<u8> {
        let mut boot = vec![0; 512];
        put(&mut boot, 0, &[0xEB, 0x76, 0x90]);
        put(&mut boot, 3, b"EXFAT   ");
        put64(&mut boot, 64, partition_offset);
        put64(&mut boot, 72, self.volume_length);
        put32(&mut boot, 80, self.fat_offset);
        put32(&mut boot, 84, self.fat_length);
        put32(&mut boot, 88, self.heap_offset);
        put32(&mut boot, 92, self.clusters);
        put32(&mut boot, 96, self.root);
        put32(&mut boot, 100, self.serial);
        put16(&mut boot, 104, 0x0100);
        put16(&mut boot, 106, self.flags);
        let shifts = [self.sector.trailing_zeros(), (self.cluster / self.sector).trailing_zeros()];
        put(&mut boot, 108, &[shifts[0] as u8, shifts[1] as u8, self.fats, 0x80, percent]);
        // Nothing boots from it: halt, for ever.
        put(&mut boot, 120, &[0xF4, 0xEB, 0xFD]);
        put(&mut boot, 510, &[0x55, 0xAA]);
        boot
    }
}

/// The checksum over the first 11 sectors of a boot region; flags and fill level do not count.
pub(crate) fn boot_checksum(sectors: &[u8]) -> u32 {
    let counted = sectors.iter().enumerate().filter(|(at, _)| !matches!(at, 106 | 107 | 112));
    counted.fold(0_u32, |sum, (_, byte)| sum.rotate_right(1).wrapping_add(u32::from(*byte)))
}

/// The checksum of a set of entries, in which its own place does not count.
pub(crate) fn set_checksum(entries: &[u8]) -> u16 {
    let counted = entries.iter().enumerate().filter(|(at, _)| !matches!(at, 2 | 3));
    counted.fold(0_u16, |sum, (_, byte)| sum.rotate_right(1).wrapping_add(u16::from(*byte)))
}

/// The checksum of an up-case table.
pub(crate) fn table_checksum(table: &[u8]) -> u32 {
    table.iter().fold(0_u32, |sum, byte| sum.rotate_right(1).wrapping_add(u32::from(*byte)))
}

/// `NameHash` (section 7.6.4) of a name in upper case.
pub(crate) fn name_hash(upper: &[u16]) -> u16 {
    let bytes = upper.iter().flat_map(|unit| unit.to_le_bytes());
    bytes.fold(0_u16, |sum, byte| sum.rotate_right(1).wrapping_add(u16::from(byte)))
}
