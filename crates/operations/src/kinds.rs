//! The filesystems that whole disks are made of, and the one place that tells them apart.

use std::sync::Arc;

use disksmith_disk::{Disk, Error, Kind, Result};
use disksmith_filesystems::ext::{self, MakeOptions, Need, NewSize, Profile};
use disksmith_filesystems::fat::{self, FatKind, FatOptions};
use disksmith_filesystems::source::{Node, Source};
use disksmith_filesystems::{Time, swap};
use disksmith_partitions::Content;

/// A filesystem that can be made and grown.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FilesystemKind {
    /// ext2: no journal.
    Ext2,
    /// ext3.
    Ext3,
    /// ext4.
    Ext4,
    /// FAT; which one is told by the size when it is not given.
    Fat(Option<FatKind>),
    /// Swap space.
    Swap,
}

/// Bytes in a page, which swap space has whole ones of.
const PAGE: u64 = 4096;

/// How a filesystem is to be made.
#[derive(Clone, Debug)]
pub(crate) struct MakeSettings {
    pub(crate) kind: FilesystemKind,
    pub(crate) label: String,
    /// The UUID; of a FAT, whose serial number has 32 bits, its beginning.
    pub(crate) id: [u8; 16],
    pub(crate) features: String,
    pub(crate) block_size: Option<u32>,
    pub(crate) inodes: Option<u64>,
    pub(crate) reserved: Option<f64>,
    pub(crate) time: Time,
    /// Where the partition begins, in sectors: FAT knows that.
    pub(crate) start_sector: u32,
    /// Bytes of a sector.
    pub(crate) sector: u32,
}

/// What files need of a filesystem.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct FilesNeed {
    inodes: u64,
    blocks: u64,
    /// Bytes of a block as they were counted.
    block: u64,
}

impl FilesNeed {
    /// Less than this many bytes can never do.
    pub(crate) fn least(&self) -> u64 {
        self.blocks.saturating_mul(self.block)
    }
}

impl FilesystemKind {
    /// Reads the name of a type as `mkfs --type` takes it.
    pub fn parse(text: &str) -> Result<Self> {
        Ok(match text {
            "ext2" => Self::Ext2,
            "ext3" => Self::Ext3,
            "ext4" => Self::Ext4,
            "fat" | "vfat" => Self::Fat(None),
            "fat12" => Self::Fat(Some(FatKind::Fat12)),
            "fat16" => Self::Fat(Some(FatKind::Fat16)),
            "fat32" => Self::Fat(Some(FatKind::Fat32)),
            "swap" => Self::Swap,
            other => {
                return Err(Error::new(
                    Kind::InvalidInput,
                    format!("filesystem type '{other}' is not known"),
                )
                .with_hint("Known are ext2, ext3, ext4, vfat, fat12, fat16, fat32 and swap."));
            }
        })
    }

    /// The one that was recognised, if it is one of ours.
    pub fn of_content(content: &Content) -> Option<Self> {
        match content.kind {
            "ext2" => Some(Self::Ext2),
            "ext3" => Some(Self::Ext3),
            "ext4" => Some(Self::Ext4),
            "vfat" => Some(Self::Fat(None)),
            "swap" => Some(Self::Swap),
            _ => None,
        }
    }

    /// The word for the type of a partition that holds it.
    pub(crate) fn partition_type(self) -> &'static str {
        match self {
            Self::Ext2 | Self::Ext3 | Self::Ext4 => "linux",
            Self::Fat(_) => "fat32",
            Self::Swap => "swap",
        }
    }

    /// Makes the filesystem as long as its disk. Answers its length before and after, in bytes.
    pub(crate) fn grow(self, disk: Arc<dyn Disk>, content: &Content) -> Result<(u64, u64)> {
        match self {
            Self::Ext2 | Self::Ext3 | Self::Ext4 => {
                let done = ext::resize(&disk, NewSize::Disk)?;
                Ok((done.old_bytes(), done.new_bytes()))
            }
            Self::Fat(_) => {
                let size = disk.size();
                let done = fat::resize(disk, size)?;
                Ok((done.old_bytes, done.new_bytes))
            }
            Self::Swap => {
                let size = disk.size() / PAGE * PAGE;
                let old = content.size.unwrap_or(0);
                if size > old {
                    swap::resize(&*disk, size)?;
                }
                Ok((old, size.max(old)))
            }
        }
    }

    /// Makes the filesystem shorter: as short as it can be, or so that it has no more than `most`
    /// bytes. Answers its length before and after, in bytes.
    pub(crate) fn shrink(
        self,
        disk: Arc<dyn Disk>,
        content: &Content,
        most: Option<u64>,
    ) -> Result<(u64, u64)> {
        let old = content.size.unwrap_or_else(|| disk.size());
        if most.is_some_and(|most| old <= most) {
            return Ok((old, old));
        }
        match self {
            Self::Ext2 | Self::Ext3 | Self::Ext4 => {
                let done = ext::resize(&disk, most.map_or(NewSize::Minimum, NewSize::Bytes))?;
                Ok((done.old_bytes(), done.new_bytes()))
            }
            Self::Fat(_) => {
                let size = match most {
                    Some(most) => most,
                    None => fat::minimum_size(disk.clone())?,
                };
                let done = fat::resize(disk, size)?;
                Ok((done.old_bytes, done.new_bytes))
            }
            // Nothing in it says how much swap space is wanted.
            Self::Swap => {
                let size = most.unwrap_or(old) / PAGE * PAGE;
                if size < old {
                    swap::resize(&*disk, size)?;
                }
                Ok((old, size.min(old)))
            }
        }
    }

    /// The least length that [`shrink`](Self::shrink) would give it, in bytes, as far as it can be
    /// told beforehand.
    pub(crate) fn minimum(self, disk: Arc<dyn Disk>, content: &Content) -> Result<u64> {
        match self {
            Self::Ext2 | Self::Ext3 | Self::Ext4 => ext::minimum_size(disk),
            Self::Fat(_) => fat::minimum_size(disk),
            Self::Swap => Ok(content.size.unwrap_or_else(|| disk.size())),
        }
    }

    /// Reads the id of such a filesystem.
    pub(crate) fn parse_id(self, text: &str) -> Option<[u8; 16]> {
        let Self::Fat(_) = self else {
            return uuid::Uuid::parse_str(text).ok().map(uuid::Uuid::into_bytes);
        };
        let mut id = [0; 16];
        id[..4].copy_from_slice(&fat::parse_serial(text)?.to_be_bytes());
        Some(id)
    }
}

impl MakeSettings {
    /// Measures the files of a source.
    pub(crate) fn measure(&self, source: &mut dyn Source) -> Result<FilesNeed> {
        match self.kind {
            FilesystemKind::Ext2 | FilesystemKind::Ext3 | FilesystemKind::Ext4 => {
                let need = ext::measure(&self.ext(), source)?;
                let block = u64::from(self.block_size.unwrap_or(4096));
                Ok(FilesNeed { inodes: need.inodes, blocks: need.blocks, block })
            }
            FilesystemKind::Fat(_) => measure_fat(source),
            FilesystemKind::Swap => Ok(FilesNeed::default()),
        }
    }

    /// The length of a filesystem that holds them with `slack` bytes to spare.
    pub(crate) fn fit(&mut self, need: &FilesNeed, slack: u64) -> Result<u64> {
        match self.kind {
            FilesystemKind::Ext2 | FilesystemKind::Ext3 | FilesystemKind::Ext4 => {
                self.fit_ext(need, slack)
            }
            FilesystemKind::Fat(kind) => {
                let content = need.least().saturating_add(slack);
                // Both tables of the smallest clusters take less than a thirtieth.
                let bytes = content.saturating_add(content / 30).saturating_add(1 << 20);
                let least = least_fat(kind) * u64::from(self.sector / 512).max(1);
                Ok(bytes.max(least).next_multiple_of(1 << 20))
            }
            FilesystemKind::Swap => Err(Error::new(Kind::InvalidInput, "swap space needs a size")),
        }
    }

    fn fit_ext(&mut self, need: &FilesNeed, slack: u64) -> Result<u64> {
        /// With fewer blocks mke2fs makes no journal …
        const JOURNAL_FROM: u64 = 2048;
        /// … and one of so many with few more.
        const JOURNAL: u64 = 1024;
        let blocks = need.blocks.saturating_add(slack / need.block.max(1));
        let mut need = Need { inodes: need.inodes, blocks };
        let (mut bytes, mut options) = ext::size_for(&self.ext(), &need)?;
        let block = u64::from(options.block_size.unwrap_or(4096));
        let journal = self.kind != FilesystemKind::Ext2 && !self.features.contains("^has_journal");
        if journal && bytes / block < JOURNAL_FROM {
            need.blocks = need.blocks.saturating_add(JOURNAL + JOURNAL / 8);
            (bytes, options) = ext::size_for(&self.ext(), &need)?;
            bytes = bytes.max(JOURNAL_FROM * block);
        }
        self.block_size = options.block_size;
        self.inodes = self.inodes.or(options.inodes);
        Ok(bytes)
    }

    /// Whether a filesystem of that length will hold them, as far as that can be told: where blocks
    /// turn out smaller than they were counted, files need fewer bytes.
    pub(crate) fn holds(&self, need: &FilesNeed, length: u64) -> bool {
        match self.kind {
            FilesystemKind::Ext2 | FilesystemKind::Ext3 | FilesystemKind::Ext4 => {
                match ext::room_in(&self.ext(), length) {
                    Ok((room, block)) if u64::from(block) == need.block => {
                        need.blocks <= room.blocks
                    }
                    _ => true,
                }
            }
            FilesystemKind::Fat(_) | FilesystemKind::Swap => true,
        }
    }

    /// Sees to it that a filesystem of a given length has room for as many files, and for what
    /// belongs to each: the blocks of 1 KiB that mke2fs chooses below 512 MiB hold no attribute
    /// of more than that.
    pub(crate) fn provide(&mut self, need: &FilesNeed, length: u64) {
        /// Bytes for an inode that mke2fs chooses at the most, below 4 TiB.
        const RATIO: u64 = 16384;
        /// With blocks of 4 KiB there is a journal from 8 MiB on; with some to spare for it.
        const LARGE_BLOCKS_FROM: u64 = 16 << 20;
        match self.kind {
            FilesystemKind::Ext2 | FilesystemKind::Ext3 | FilesystemKind::Ext4 => {
                if length >= LARGE_BLOCKS_FROM {
                    self.block_size.get_or_insert(4096);
                }
                let wanted = need.inodes + need.inodes / 10 + 32;
                if wanted > length / RATIO && self.inodes.is_none() {
                    self.inodes = Some(wanted.max(length / RATIO));
                }
            }
            FilesystemKind::Fat(_) | FilesystemKind::Swap => {}
        }
    }

    /// Makes the filesystem with the files of a source. Answers what it could not keep.
    pub(crate) fn make(&self, disk: Arc<dyn Disk>, source: &mut dyn Source) -> Result<Vec<String>> {
        match self.kind {
            FilesystemKind::Ext2 | FilesystemKind::Ext3 | FilesystemKind::Ext4 => {
                ext::make_from(disk, &self.ext(), source)?;
                Ok(Vec::new())
            }
            FilesystemKind::Fat(kind) => {
                Ok(fat::make_from(disk, &self.fat(kind), source)?.losses())
            }
            FilesystemKind::Swap => {
                swap::make(&*disk, self.label.as_bytes(), Some(self.id))?;
                Ok(Vec::new())
            }
        }
    }

    fn ext(&self) -> MakeOptions {
        let default = MakeOptions::default();
        // The kernel mounts no filesystem with blocks smaller than the device's sectors.
        let least = (self.sector > 1024).then_some(self.sector);
        MakeOptions {
            profile: match self.kind {
                FilesystemKind::Ext2 => Profile::Ext2,
                FilesystemKind::Ext3 => Profile::Ext3,
                _ => Profile::Ext4,
            },
            features: self.features.clone(),
            block_size: self.block_size.or(least),
            inodes: self.inodes,
            reserved: self.reserved.unwrap_or(default.reserved),
            label: self.label.clone().into_bytes(),
            uuid: Some(self.id),
            time: Some(self.time),
            ..default
        }
    }

    fn fat(&self, kind: Option<FatKind>) -> FatOptions {
        let [a, b, c, d, ..] = self.id;
        FatOptions {
            kind,
            label: self.label.clone().into_bytes(),
            serial: Some(u32::from_be_bytes([a, b, c, d])),
            cluster_size: self.block_size,
            sector_size: Some(self.sector),
            hidden_sectors: self.start_sector,
            time: Some(self.time),
            ..FatOptions::default()
        }
    }
}

/// Counts files in pieces of 4 KiB, the largest clusters that small volumes have.
fn measure_fat(source: &mut dyn Source) -> Result<FilesNeed> {
    const PIECE: u64 = 4096;
    /// An entry has 32 bytes; a long name takes one for each 13 letters, and one of its own.
    const ENTRY: u64 = 32;
    let mut folders: std::collections::HashMap<Vec<u8>, u64> = Default::default();
    let mut need = FilesNeed { inodes: 0, blocks: 0, block: PIECE };
    while let Some(file) = source.next_file()? {
        need.inodes += 1;
        let split = file.path.iter().rposition(|byte| *byte == b'/');
        let (parent, name) = match split {
            Some(at) => (file.path[..at].to_vec(), file.path.len() - at - 1),
            None => (Vec::new(), file.path.len()),
        };
        *folders.entry(parent).or_default() += ENTRY * (2 + (name as u64).div_ceil(13));
        match file.node {
            Node::Regular(size) => need.blocks += size.div_ceil(PIECE),
            Node::Directory => {
                folders.entry(file.path).or_default();
            }
            _ => {}
        }
    }
    need.blocks += folders.values().map(|bytes| (bytes + 2 * ENTRY).div_ceil(PIECE)).sum::<u64>();
    Ok(need)
}

/// The least volume of each kind in sectors of 512 bytes: FAT32 has at least 65525 clusters, FAT16 4085.
fn least_fat(kind: Option<FatKind>) -> u64 {
    match kind {
        Some(FatKind::Fat32) => 36 << 20,
        Some(FatKind::Fat16) => 8 << 20,
        Some(FatKind::Fat12) | None => 1 << 20,
    }
}
