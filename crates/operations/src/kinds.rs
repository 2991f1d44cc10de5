//! The filesystems that whole disks are made of, and the one place that tells them apart.

use std::sync::Arc;

use disksmith_disk::{Disk, Error, Kind, Result};
use disksmith_filesystems::Time;
use disksmith_filesystems::ext::{self, MakeOptions, Need, Profile};
use disksmith_filesystems::source::Source;
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
}

/// How a filesystem is to be made.
#[derive(Clone, Debug)]
pub(crate) struct MakeSettings {
    pub(crate) kind: FilesystemKind,
    pub(crate) label: String,
    pub(crate) uuid: [u8; 16],
    pub(crate) features: String,
    pub(crate) block_size: Option<u32>,
    pub(crate) inodes: Option<u64>,
    pub(crate) reserved: Option<f64>,
    pub(crate) time: Time,
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
            other => {
                return Err(Error::new(
                    Kind::InvalidInput,
                    format!("filesystem type '{other}' is not known"),
                )
                .with_hint("Known are ext2, ext3 and ext4."));
            }
        })
    }

    /// The one that was recognised, if it is one of ours.
    pub fn of_content(content: &Content) -> Option<Self> {
        match content.kind {
            "ext2" => Some(Self::Ext2),
            "ext3" => Some(Self::Ext3),
            "ext4" => Some(Self::Ext4),
            _ => None,
        }
    }

    /// The word for the type of a partition that holds it.
    pub(crate) fn partition_type(self) -> &'static str {
        match self {
            Self::Ext2 | Self::Ext3 | Self::Ext4 => "linux",
        }
    }

    /// Makes the filesystem as long as its disk. Answers its length before and after, in bytes.
    pub(crate) fn grow(self, disk: Arc<dyn Disk>) -> Result<(u64, u64)> {
        match self {
            Self::Ext2 | Self::Ext3 | Self::Ext4 => {
                let _ = disk;
                Err(Error::new(Kind::Unsupported, "ext filesystems cannot be grown yet"))
            }
        }
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
        }
    }

    /// The length of a filesystem that holds them with `slack` bytes to spare.
    pub(crate) fn fit(&mut self, need: &FilesNeed, slack: u64) -> Result<u64> {
        match self.kind {
            FilesystemKind::Ext2 | FilesystemKind::Ext3 | FilesystemKind::Ext4 => {
                let need = Need {
                    inodes: need.inodes,
                    blocks: need.blocks.saturating_add(slack / need.block.max(1)),
                };
                let (bytes, options) = ext::size_for(&self.ext(), &need)?;
                self.block_size = options.block_size;
                self.inodes = self.inodes.or(options.inodes);
                Ok(bytes)
            }
        }
    }

    /// Sees to it that a filesystem of a given length has room for as many files.
    pub(crate) fn provide(&mut self, need: &FilesNeed, length: u64) {
        /// Bytes for an inode that mke2fs chooses at the most, below 4 TiB.
        const RATIO: u64 = 16384;
        match self.kind {
            FilesystemKind::Ext2 | FilesystemKind::Ext3 | FilesystemKind::Ext4 => {
                let wanted = need.inodes + need.inodes / 10 + 32;
                if wanted > length / RATIO && self.inodes.is_none() {
                    self.inodes = Some(wanted.max(length / RATIO));
                }
            }
        }
    }

    /// Makes the filesystem with the files of a source.
    pub(crate) fn make(&self, disk: Arc<dyn Disk>, source: &mut dyn Source) -> Result<()> {
        match self.kind {
            FilesystemKind::Ext2 | FilesystemKind::Ext3 | FilesystemKind::Ext4 => {
                ext::make_from(disk, &self.ext(), source).map(drop)
            }
        }
    }

    fn ext(&self) -> MakeOptions {
        let default = MakeOptions::default();
        MakeOptions {
            profile: match self.kind {
                FilesystemKind::Ext2 => Profile::Ext2,
                FilesystemKind::Ext3 => Profile::Ext3,
                FilesystemKind::Ext4 => Profile::Ext4,
            },
            features: self.features.clone(),
            block_size: self.block_size,
            inodes: self.inodes,
            reserved: self.reserved.unwrap_or(default.reserved),
            label: self.label.clone().into_bytes(),
            uuid: Some(self.uuid),
            time: Some(self.time),
            ..default
        }
    }
}
