//! On-disk structures of exFAT, with the field names of Microsoft's "exFAT file system
//! specification". No I/O here.

use disksmith_disk::{Error, Kind, Result};

use super::super::shape::corrupt;
use super::super::time;
use crate::Time;
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

/// `GeneralSecondaryFlags`: the clusters lie one after the other, the FAT says nothing of them.
pub(crate) const NO_FAT_CHAIN: u8 = 2;

/// `VolumeFlags`.
pub(crate) const VOLUME_DIRTY: u16 = 2;

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
        let second = self.flags & 1 != 0 && self.fats == 2;
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

/// A set of entries: a file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct FileSet {
    pub(crate) attributes: u16,
    pub(crate) start: u32,
    pub(crate) size: u64,
    /// Behind that, the content reads as zero.
    pub(crate) valid: u64,
    /// The clusters lie one after the other.
    pub(crate) contiguous: bool,
    pub(crate) created: Option<Time>,
    pub(crate) modified: Option<Time>,
    pub(crate) accessed: Option<Time>,
    pub(crate) name: Vec<u16>,
}

impl FileSet {
    /// Reads a whole set, its first entry first; `None` if it is none.
    pub(crate) fn parse(raw: &[u8]) -> Option<Self> {
        let stream = raw.get(ENTRY..2 * ENTRY)?;
        if byte(raw, 0) != entry_type::FILE || byte(stream, 0) != entry_type::STREAM {
            return None;
        }
        if le16(raw, 2) != set_checksum(raw) {
            return None;
        }
        let mut name = Vec::new();
        for entry in raw.chunks_exact(ENTRY).skip(2).filter(|e| byte(e, 0) == entry_type::NAME) {
            name.extend((0..15).map(|index| le16(entry, 2 + 2 * index)));
        }
        name.truncate(byte(stream, 3).into());
        let stamp = |at: usize, hundredths: u8, zone: usize| {
            let (date, clock) = (le16(raw, at + 2), le16(raw, at));
            let local = time::decode(date, clock, hundredths)?;
            Some(Time { seconds: local.seconds - offset(byte(raw, zone)), ..local })
        };
        Some(Self {
            attributes: le16(raw, 4),
            start: le32(stream, 20),
            size: le64(stream, 24),
            valid: le64(stream, 8).min(le64(stream, 24)),
            contiguous: byte(stream, 1) & NO_FAT_CHAIN != 0,
            created: stamp(8, byte(raw, 20), 22),
            modified: stamp(12, byte(raw, 21), 23),
            accessed: stamp(16, 0, 24),
            name,
        })
    }
}

/// Seconds east of UTC: quarters of an hour in 7 bits with a sign, if the upper bit is set.
fn offset(zone: u8) -> i64 {
    let quarters = i64::from(zone & 0x7F);
    let quarters = if quarters >= 64 { quarters - 128 } else { quarters };
    if zone & 0x80 == 0 { 0 } else { quarters * 900 }
}
