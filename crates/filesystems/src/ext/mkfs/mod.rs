//! Making filesystems, empty or filled.
//!
//! The geometry is that of mke2fs 1.47 (see [`plan`]); the content is laid down in one pass, file
//! content in the order in which it arrives, directories at the end with their index built whole.

mod fill;
mod plan;
mod write;

use std::sync::Arc;

use disksmith_disk::{Disk, Error, Kind, Result};

use super::features::{Compat, FeatureSet, Incompat, RoCompat};
use super::filesystem::Ext;
use crate::Time;
use crate::source::Source;

pub use fill::Filled;
pub(crate) use plan::default_journal_blocks;
pub(crate) use write::{
    add_journal, initialise_groups, make_resize_inode, place_tables, point_to_reserved,
    write_backups,
};

/// Which defaults to begin with.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Profile {
    /// No journal, pointers instead of extents.
    Ext2,
    /// As ext2, with a journal.
    Ext3,
    /// As Debian 12 and most distributions make it.
    #[default]
    Ext4,
    /// As mke2fs 1.47 makes it without a distribution's mke2fs.conf: with `metadata_csum_seed` and
    /// `orphan_file`, which Linux reads from 5.15 on.
    Ext4Upstream,
}

impl Profile {
    /// The features of the profile.
    pub fn features(self) -> FeatureSet {
        let mut set = FeatureSet {
            compat: Compat::RESIZE_INODE | Compat::DIR_INDEX | Compat::EXT_ATTR,
            incompat: Incompat::FILETYPE,
            ro_compat: RoCompat::SPARSE_SUPER | RoCompat::LARGE_FILE,
        };
        if self != Self::Ext2 {
            set.compat |= Compat::HAS_JOURNAL;
        }
        if matches!(self, Self::Ext4 | Self::Ext4Upstream) {
            set.incompat |= Incompat::EXTENTS | Incompat::FLEX_BG | Incompat::BITS64;
            set.ro_compat |= RoCompat::HUGE_FILE
                | RoCompat::METADATA_CSUM
                | RoCompat::DIR_NLINK
                | RoCompat::EXTRA_ISIZE;
        }
        if self == Self::Ext4Upstream {
            set.incompat |= Incompat::CSUM_SEED;
            set.compat |= Compat::ORPHAN_FILE;
        }
        set
    }
}

/// How a filesystem is to be made. `None`: as mke2fs would choose.
#[derive(Clone, Debug)]
pub struct MakeOptions {
    /// The defaults.
    pub profile: Profile,
    /// Features on and off, as `mke2fs -O`: `^64bit,bigalloc`.
    pub features: String,
    /// Bytes in a block: 1024 to 65536.
    pub block_size: Option<u32>,
    /// Bytes in a cluster, with bigalloc.
    pub cluster_size: Option<u32>,
    /// Length in blocks; the whole disk.
    pub blocks: Option<u64>,
    /// Bytes in an inode: 128 to the block size.
    pub inode_size: Option<u32>,
    /// One inode for so many bytes.
    pub inode_ratio: Option<u64>,
    /// Inodes, at least.
    pub inodes: Option<u64>,
    /// Per cent of the blocks kept for root.
    pub reserved: f64,
    /// At most 16 bytes.
    pub label: Vec<u8>,
    /// Random when absent.
    pub uuid: Option<[u8; 16]>,
    /// Random when absent.
    pub hash_seed: Option<[u8; 16]>,
    /// Length of the journal in blocks.
    pub journal_blocks: Option<u32>,
    /// The same in bytes.
    pub journal_bytes: Option<u64>,
    /// Write all inode tables now instead of leaving that to the first mount.
    pub full_init: bool,
    /// RAID chunk in blocks.
    pub stride: u16,
    /// RAID stripe in blocks.
    pub stripe_width: u32,
    /// Owner of the root directory.
    pub root_owner: (u32, u32),
    /// The time of making. Files are not newer than that.
    pub time: Option<Time>,
}

impl Default for MakeOptions {
    fn default() -> Self {
        Self {
            profile: Profile::default(),
            features: String::new(),
            block_size: None,
            cluster_size: None,
            blocks: None,
            inode_size: None,
            inode_ratio: None,
            inodes: None,
            reserved: 5.0,
            label: Vec::new(),
            uuid: None,
            hash_seed: None,
            journal_blocks: None,
            journal_bytes: None,
            full_init: false,
            stride: 0,
            stripe_width: 0,
            root_owner: (0, 0),
            time: None,
        }
    }
}

/// Makes an empty filesystem and opens it.
pub fn make(disk: Arc<dyn Disk>, options: &MakeOptions) -> Result<()> {
    let plan = plan::Plan::new(options, disk.size())?;
    let mut core = write::lay_out(disk, options, &plan)?;
    write::finish(&mut core, &plan)
}

/// Makes a filesystem with the content of `source`.
pub fn make_from(
    disk: Arc<dyn Disk>,
    options: &MakeOptions,
    source: &mut dyn Source,
) -> Result<Filled> {
    let plan = plan::Plan::new(options, disk.size())?;
    let mut core = write::lay_out(disk, options, &plan)?;
    let filled = fill::fill(&mut core, options, source)?;
    write::finish(&mut core, &plan)?;
    Ok(filled)
}

/// What a source will need.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Need {
    /// Files of all kinds.
    pub inodes: u64,
    /// Blocks of content, directories and attributes.
    pub blocks: u64,
}

/// Measures a source for [`size_for`]: reads names and lengths, not content.
pub fn measure(options: &MakeOptions, source: &mut dyn Source) -> Result<Need> {
    fill::measure(options, source)
}

/// What a filesystem of so many bytes will have room for, and the bytes of its blocks.
pub fn room_in(options: &MakeOptions, bytes: u64) -> Result<(Need, u32)> {
    let plan = plan::Plan::new(options, bytes)?;
    let block = 1024 << plan.superblock.s_log_block_size();
    Ok((Need { inodes: plan.inodes(), blocks: plan.free_blocks }, block))
}

/// The size in bytes of the smallest filesystem (in steps of about a hundredth) that holds
/// `need`, and the options with the number of inodes set.
pub fn size_for(options: &MakeOptions, need: &Need) -> Result<(u64, MakeOptions)> {
    let mut options = options.clone();
    let block = u64::from(options.block_size.unwrap_or(4096));
    options.block_size = Some(block as u32);
    let inodes = need.inodes + need.inodes / 50 + 32;
    let blocks = need.blocks + need.blocks / 100 + 64;
    let mut size = (blocks * block + inodes * 256).max(1 << 20).next_multiple_of(1 << 16);
    for _ in 0..2000 {
        options.inodes = None;
        if let Ok(plan) = plan::Plan::new(&options, size) {
            options.inodes = (plan.inodes() < inodes).then_some(inodes);
            let plan = plan::Plan::new(&options, size)?;
            if plan.free_blocks >= blocks + plan.reserved && plan.inodes() >= inodes {
                return Ok((size, options));
            }
        }
        size += (size / 100).next_multiple_of(1 << 16);
    }
    Err(Error::new(Kind::LimitExceeded, "No size was found that holds the files"))
}

/// Makes an empty filesystem and opens it for changes.
pub fn make_and_open(disk: Arc<dyn Disk>, options: &MakeOptions) -> Result<Ext> {
    make(disk.clone(), options)?;
    Ext::open(disk, false)
}
