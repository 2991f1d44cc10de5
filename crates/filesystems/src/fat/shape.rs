//! The geometry of an open volume: what the boot sector says, verified.

use disksmith_disk::{Context, Disk, Error, Kind, Result};

use super::layout::{BootSector, ENTRY};

/// Which of the three.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum FatKind {
    /// Entries of 12 bits: up to 4084 clusters.
    Fat12,
    /// Entries of 16 bits: up to 65524 clusters.
    Fat16,
    /// Entries of 28 bits (and 4 reserved).
    Fat32,
}

impl FatKind {
    /// Bits that an entry takes.
    pub fn bits(self) -> u64 {
        match self {
            Self::Fat12 => 12,
            Self::Fat16 => 16,
            Self::Fat32 => 32,
        }
    }

    /// The most clusters, by the specification; FAT32 by what its entries can number.
    pub fn clusters_max(self) -> u32 {
        match self {
            Self::Fat12 => 4084,
            Self::Fat16 => 65_524,
            Self::Fat32 => 0x0FFF_FFF5,
        }
    }

    /// The mark at the end of a chain; entries from [`bad`](Self::bad) + 1 on mean the same.
    pub(crate) fn end(self) -> u32 {
        match self {
            Self::Fat12 => 0xFFF,
            Self::Fat16 => 0xFFFF,
            Self::Fat32 => 0x0FFF_FFFF,
        }
    }

    /// The mark of clusters that cannot be used.
    pub(crate) fn bad(self) -> u32 {
        self.end() - 8
    }

    /// `FAT12`, `FAT16` or `FAT32`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fat12 => "FAT12",
            Self::Fat16 => "FAT16",
            Self::Fat32 => "FAT32",
        }
    }
}

/// Where everything lies. Sectors are numbered from the start of the volume.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Shape {
    pub(crate) kind: FatKind,
    /// Bytes in a sector: 512 to 4096.
    pub(crate) sector: u32,
    /// Sectors in a cluster: 1 to 128.
    pub(crate) per_cluster: u32,
    /// First sector of the first FAT.
    pub(crate) fat_start: u32,
    pub(crate) fats: u32,
    /// Sectors of one FAT.
    pub(crate) fat_sectors: u32,
    /// The FAT that is read; the others are copies unless `mirrored` is false.
    pub(crate) active_fat: u32,
    pub(crate) mirrored: bool,
    /// The root directory of FAT12 and FAT16; no sectors on FAT32.
    pub(crate) root_start: u32,
    pub(crate) root_sectors: u32,
    pub(crate) root_entries: u32,
    /// FAT32: where the root directory begins.
    pub(crate) root_cluster: u32,
    /// First sector of cluster 2.
    pub(crate) data_start: u32,
    /// Clusters, numbered from 2.
    pub(crate) clusters: u32,
    /// All sectors of the volume.
    pub(crate) sectors: u32,
    /// FSInfo and the backup of the boot sector; 0 for none.
    pub(crate) info_sector: u32,
    pub(crate) backup_boot: u32,
}

/// The most sectors in a FAT: entries for all clusters that FAT32 can number.
const FAT_SECTORS_MAX: u64 = (1 << 28) * 4 / 512;

impl Shape {
    /// Reads and verifies the boot sector.
    pub(crate) fn open(disk: &dyn Disk) -> Result<(Self, BootSector)> {
        let mut boot = BootSector::empty();
        if disk.size() < boot.raw.len() as u64 {
            return Err(Error::new(Kind::NotFound, "There is no FAT filesystem (disk too small)"));
        }
        disk.read_at(&mut boot.raw, 0).context("Could not read the boot sector")?;
        let shape = Self::parse(&boot)?;
        Ok((shape, boot))
    }

    /// What a boot sector says, if it makes sense.
    pub(crate) fn parse(boot: &BootSector) -> Result<Self> {
        let sector = u32::from(boot.bpb_byts_per_sec());
        let per_cluster = u32::from(boot.bpb_sec_per_clus());
        let fats = u32::from(boot.bpb_num_fats());
        let fat_start = u32::from(boot.bpb_rsvd_sec_cnt());
        if !sector.is_power_of_two() || !(512..=4096).contains(&sector) {
            return Err(no_fat(format!("sectors of {sector} bytes")));
        }
        if !per_cluster.is_power_of_two() {
            return Err(no_fat(format!("clusters of {per_cluster} sectors")));
        }
        if fats == 0 || fat_start == 0 {
            return Err(no_fat("no room for boot sector or FAT"));
        }
        let media = boot.bpb_media();
        if media < 0xF8 && media != 0xF0 {
            return Err(no_fat(format!("medium 0x{media:02x}")));
        }
        let fat_sectors = boot.fat_sectors();
        let root_entries = u32::from(boot.bpb_root_ent_cnt());
        let root_sectors = (root_entries * ENTRY as u32).div_ceil(sector);
        let sectors = boot.total_sectors();
        let root_start = u64::from(fat_start) + u64::from(fats) * u64::from(fat_sectors);
        let data_start = root_start + u64::from(root_sectors);
        if fat_sectors == 0
            || u64::from(fat_sectors) > FAT_SECTORS_MAX
            || data_start + u64::from(per_cluster) > u64::from(sectors)
        {
            return Err(no_fat("the FATs leave no room for files"));
        }
        let (root_start, data_start) = (root_start as u32, data_start as u32);
        let counted = (sectors - data_start) / per_cluster;
        let kind = match counted {
            _ if boot.is_fat32() => FatKind::Fat32,
            ..=4084 => FatKind::Fat12,
            _ => FatKind::Fat16,
        };
        let entries = u64::from(fat_sectors) * u64::from(sector) * 8 / kind.bits();
        let known = u32::try_from(entries.saturating_sub(2)).unwrap_or(u32::MAX);
        let clusters = counted.min(known).min(kind.clusters_max());
        if clusters == 0 {
            return Err(no_fat("the FAT has no entries"));
        }
        if kind == FatKind::Fat32 && boot.bpb_fs_ver() != 0 {
            return Err(Error::new(Kind::Unsupported, "FAT32 of an unknown version"));
        }
        let flags = if kind == FatKind::Fat32 { boot.bpb_ext_flags() } else { 0 };
        let mirrored = flags & 0x80 == 0;
        let active_fat = if mirrored { 0 } else { u32::from(flags & 0x0F) };
        if active_fat >= fats {
            return Err(corrupt("the FAT in use is not there"));
        }
        let reserved = |sector: u16| match u32::from(sector) {
            number if kind == FatKind::Fat32 && number < fat_start => number,
            _ => 0,
        };
        let shape = Self {
            kind,
            sector,
            per_cluster,
            fat_start,
            fats,
            fat_sectors,
            active_fat,
            mirrored,
            root_start,
            root_sectors,
            root_entries,
            root_cluster: if kind == FatKind::Fat32 { boot.bpb_root_clus() } else { 0 },
            data_start,
            clusters,
            sectors,
            info_sector: reserved(boot.bpb_fs_info()),
            backup_boot: reserved(boot.bpb_bk_boot_sec()),
        };
        if kind == FatKind::Fat32 && !shape.is_cluster(shape.root_cluster) {
            return Err(corrupt(format!(
                "the root directory begins at cluster {}, which is not there",
                shape.root_cluster
            )));
        }
        Ok(shape)
    }

    /// Bytes in a cluster.
    pub(crate) fn cluster_size(&self) -> u64 {
        u64::from(self.sector) * u64::from(self.per_cluster)
    }

    /// True if there is such a cluster.
    pub(crate) fn is_cluster(&self, cluster: u32) -> bool {
        cluster >= 2 && cluster - 2 < self.clusters
    }

    /// Where a cluster lies, in bytes. The cluster must be one.
    pub(crate) fn place(&self, cluster: u32) -> u64 {
        let sector = u64::from(self.data_start)
            + u64::from(cluster.saturating_sub(2)) * u64::from(self.per_cluster);
        sector * u64::from(self.sector)
    }

    /// Where a sector lies, in bytes.
    pub(crate) fn byte(&self, sector: u32) -> u64 {
        u64::from(sector) * u64::from(self.sector)
    }

    /// Bytes of the volume.
    pub(crate) fn size(&self) -> u64 {
        self.byte(self.sectors)
    }

    /// Where the root directory of FAT12 and FAT16 lies, in bytes.
    pub(crate) fn fixed_root(&self) -> Option<std::ops::Range<u64>> {
        let start = self.byte(self.root_start);
        (self.kind != FatKind::Fat32)
            .then(|| start..start + u64::from(self.root_entries) * ENTRY as u64)
    }
}

/// An error of kind corrupt.
pub(crate) fn corrupt(what: impl Into<String>) -> Error {
    Error::new(Kind::Corrupt, format!("The FAT filesystem is corrupt: {}", what.into()))
}

fn no_fat(what: impl Into<String>) -> Error {
    corrupt(format!("its boot sector makes no sense: {}", what.into()))
        .with_hint("A backup of the boot sector may be whole: 'disksmith fsck' looks for one.")
}
