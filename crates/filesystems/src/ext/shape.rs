//! The shape of a filesystem: sizes and places that follow from the superblock, checked once.

use disksmith_disk::{Error, Kind, Result};

use super::checksum::crc32c;
use super::features::{Compat, FeatureSet, Incompat, RoCompat};
use super::layout::Superblock;
use super::layout::group::DESCRIPTOR_MAX;
use super::layout::superblock::MAGIC;

/// What never changes while a filesystem is open. Every number has been checked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) block_size: usize,
    pub(crate) block_bits: u32,
    pub(crate) blocks: u64,
    pub(crate) first_block: u64,
    pub(crate) blocks_per_group: u64,
    /// Blocks in a cluster, as a power of two; 0 without bigalloc.
    pub(crate) cluster_bits: u32,
    pub(crate) clusters_per_group: u64,
    pub(crate) inodes_per_group: u32,
    pub(crate) inodes: u32,
    pub(crate) inode_size: usize,
    pub(crate) first_inode: u32,
    pub(crate) descriptor_size: usize,
    pub(crate) groups: u32,
    /// Start value of metadata checksums.
    pub(crate) seed: u32,
    /// Metadata have CRC-32C checksums.
    pub(crate) checksums: bool,
    /// Groups may be uninitialised; descriptors have a checksum.
    pub(crate) lazy_groups: bool,
    pub(crate) sparse_super: bool,
    pub(crate) sparse_super2: bool,
    pub(crate) backup_groups: [u32; 2],
    pub(crate) meta_bg: bool,
    pub(crate) first_meta_bg: u64,
    pub(crate) hash_seed: [u32; 4],
    pub(crate) features: FeatureSet,
}

/// Not an ext filesystem, or one whose superblock cannot be.
fn corrupt(what: &str) -> Error {
    Error::new(Kind::Corrupt, format!("The ext superblock is corrupt: {what}"))
}

impl Shape {
    /// Checks a superblock. `disk_size` in bytes bounds everything.
    pub(crate) fn new(sb: &Superblock, disk_size: u64) -> Result<Self> {
        if sb.s_magic() != MAGIC {
            return Err(Error::new(
                Kind::NotFound,
                "There is no ext filesystem (bad magic number)",
            ));
        }
        let old = sb.s_rev_level() == 0;
        let features =
            FeatureSet { compat: sb.compat(), incompat: sb.incompat(), ro_compat: sb.ro_compat() };
        let features = if old { FeatureSet::default() } else { features };
        features.check_readable()?;
        let shape = Self::derive(sb, old, features)?;
        shape.check(sb, disk_size)?;
        Ok(shape)
    }

    fn derive(sb: &Superblock, old: bool, features: FeatureSet) -> Result<Self> {
        let log = sb.s_log_block_size();
        if log > 6 {
            return Err(corrupt(&format!("block size 2^{} bytes", u64::from(log) + 10)));
        }
        let ro = features.ro_compat;
        let bigalloc = ro.contains(RoCompat::BIGALLOC);
        let cluster_bits = if bigalloc {
            sb.s_log_cluster_size().checked_sub(log).filter(|bits| *bits <= 16)
        } else {
            Some(0)
        };
        let cluster_bits = cluster_bits.ok_or_else(|| corrupt("cluster size"))?;
        let blocks_per_group = u64::from(sb.s_blocks_per_group());
        let blocks = sb.blocks_count();
        let first_block = u64::from(sb.s_first_data_block());
        if blocks_per_group == 0 || blocks <= first_block {
            return Err(corrupt("no blocks"));
        }
        let groups = (blocks - first_block).div_ceil(blocks_per_group);
        let wide = features.incompat.contains(Incompat::BITS64);
        let checksums = ro.contains(RoCompat::METADATA_CSUM);
        let seed = if features.incompat.contains(Incompat::CSUM_SEED) {
            sb.s_checksum_seed()
        } else {
            crc32c(!0, &sb.uuid())
        };
        Ok(Self {
            block_size: 1024 << log,
            block_bits: 10 + log,
            blocks,
            first_block,
            blocks_per_group,
            cluster_bits,
            clusters_per_group: blocks_per_group >> cluster_bits,
            inodes_per_group: sb.s_inodes_per_group(),
            inodes: sb.s_inodes_count(),
            inode_size: if old { 128 } else { sb.s_inode_size_raw().into() },
            first_inode: if old { 11 } else { sb.s_first_ino_raw() },
            descriptor_size: if wide { sb.s_desc_size_raw().into() } else { 32 },
            groups: u32::try_from(groups).map_err(|_| corrupt("too many groups"))?,
            seed,
            checksums,
            lazy_groups: checksums || ro.contains(RoCompat::GDT_CSUM),
            sparse_super: ro.contains(RoCompat::SPARSE_SUPER),
            sparse_super2: features.compat.contains(Compat::SPARSE_SUPER2),
            backup_groups: [sb.s_backup_bgs_0(), sb.s_backup_bgs_1()],
            meta_bg: features.incompat.contains(Incompat::META_BG),
            first_meta_bg: sb.s_first_meta_bg().into(),
            hash_seed: sb.hash_seed(),
            features,
        })
    }

    fn check(&self, sb: &Superblock, disk_size: u64) -> Result<()> {
        let bits = self.block_size as u64 * 8;
        let bytes = self.blocks.checked_mul(self.block_size as u64);
        if bytes.is_none_or(|bytes| bytes > disk_size) {
            return Err(Error::new(
                Kind::Corrupt,
                format!(
                    "The filesystem has {} blocks of {} bytes, the disk only {disk_size} bytes",
                    self.blocks, self.block_size
                ),
            ));
        }
        if self.clusters_per_group == 0 || self.clusters_per_group > bits {
            return Err(corrupt("blocks per group"));
        }
        if !self.blocks_per_group.is_multiple_of(1 << self.cluster_bits) {
            return Err(corrupt("blocks per group are no whole clusters"));
        }
        if self.inodes_per_group == 0 || u64::from(self.inodes_per_group) > bits {
            return Err(corrupt("inodes per group"));
        }
        if u64::from(self.inodes) != u64::from(self.inodes_per_group) * u64::from(self.groups) {
            return Err(corrupt("number of inodes"));
        }
        if !self.inode_size.is_power_of_two() || !(128..=self.block_size).contains(&self.inode_size)
        {
            return Err(corrupt("inode size"));
        }
        if self.first_inode < 11 {
            return Err(corrupt("first inode"));
        }
        let least = if self.wide() { DESCRIPTOR_MAX } else { 32 };
        if !self.descriptor_size.is_power_of_two()
            || !(least..=1024).contains(&self.descriptor_size)
        {
            return Err(corrupt("descriptor size"));
        }
        if self.first_block > 1 || (self.first_block == 1 && self.block_size != 1024) {
            return Err(corrupt("first data block"));
        }
        let table = self.descriptor_blocks();
        if table > self.blocks || self.first_meta_bg > table && self.meta_bg {
            return Err(corrupt("descriptor table"));
        }
        if self.checksums && sb.s_checksum_type() != 1 {
            return Err(corrupt("unknown checksum type"));
        }
        Ok(())
    }

    /// Group descriptors have 64 bytes or more.
    pub(crate) fn wide(&self) -> bool {
        self.features.incompat.contains(Incompat::BITS64)
    }

    pub(crate) fn has_compat(&self, bit: Compat) -> bool {
        self.features.compat.contains(bit)
    }

    pub(crate) fn has_incompat(&self, bit: Incompat) -> bool {
        self.features.incompat.contains(bit)
    }

    pub(crate) fn has_ro(&self, bit: RoCompat) -> bool {
        self.features.ro_compat.contains(bit)
    }

    pub(crate) fn descriptors_per_block(&self) -> u64 {
        (self.block_size / self.descriptor_size) as u64
    }

    /// Blocks of the whole descriptor table.
    pub(crate) fn descriptor_blocks(&self) -> u64 {
        u64::from(self.groups).div_ceil(self.descriptors_per_block())
    }

    /// Blocks of one group's inode table.
    pub(crate) fn table_blocks(&self) -> u64 {
        (u64::from(self.inodes_per_group) * self.inode_size as u64).div_ceil(self.block_size as u64)
    }

    pub(crate) fn inodes_per_block(&self) -> u32 {
        (self.block_size / self.inode_size) as u32
    }

    pub(crate) fn group_first_block(&self, group: u32) -> u64 {
        self.first_block + u64::from(group) * self.blocks_per_group
    }

    /// Blocks in the group; fewer in the last one.
    pub(crate) fn group_blocks(&self, group: u32) -> u64 {
        (self.blocks - self.group_first_block(group)).min(self.blocks_per_group)
    }

    /// Clusters in the group.
    pub(crate) fn group_clusters(&self, group: u32) -> u64 {
        self.group_blocks(group).div_ceil(1 << self.cluster_bits)
    }

    /// The group of a block that is at or after the first.
    pub(crate) fn group_of(&self, block: u64) -> u32 {
        (block.saturating_sub(self.first_block) / self.blocks_per_group) as u32
    }

    /// Which bit of its group's bitmap stands for the block.
    pub(crate) fn bit_of(&self, block: u64) -> u64 {
        (block.saturating_sub(self.first_block) % self.blocks_per_group) >> self.cluster_bits
    }

    /// True when blocks `start..start + count` can hold data or metadata.
    pub(crate) fn valid_range(&self, start: u64, count: u64) -> bool {
        start > self.first_block && start.checked_add(count).is_some_and(|end| end <= self.blocks)
    }

    /// True when the group has a copy of the superblock.
    pub(crate) fn has_super(&self, group: u32) -> bool {
        if group == 0 {
            return true;
        }
        if self.sparse_super2 {
            return self.backup_groups.contains(&group);
        }
        if group == 1 || !self.sparse_super {
            return true;
        }
        [3, 5, 7].into_iter().any(|base| {
            let mut power = group;
            while power > 1 && power.is_multiple_of(base) {
                power /= base;
            }
            power == 1
        })
    }

    /// The block that holds the primary superblock.
    pub(crate) fn super_block(&self) -> u64 {
        if self.block_size == 1024 { 1 } else { 0 }
    }

    /// Where block `index` of the descriptor table lies.
    pub(crate) fn descriptor_block(&self, index: u64) -> u64 {
        if !self.meta_bg || index < self.first_meta_bg {
            return self.super_block() + 1 + index;
        }
        let group = (index * self.descriptors_per_block()) as u32;
        let mut block = self.group_first_block(group);
        block += u64::from(self.has_super(group));
        if group == 0 && self.block_size == 1024 && self.first_block == 0 {
            block += 1;
        }
        block
    }

    /// How many blocks at the group's start hold superblock, descriptors and reserved
    /// descriptor blocks.
    pub(crate) fn group_base_blocks(&self, group: u32, reserved: u64) -> u64 {
        let mut count = u64::from(self.has_super(group));
        if group == 0 && self.block_size == 1024 && self.first_block == 0 {
            count += 1;
        }
        let per_block = self.descriptors_per_block();
        let meta_group = u64::from(group) / per_block;
        if !self.meta_bg || meta_group < self.first_meta_bg {
            if self.has_super(group) {
                let old = if self.meta_bg { self.first_meta_bg } else { self.descriptor_blocks() };
                count += old + reserved;
            }
        } else {
            let within = u64::from(group) % per_block;
            if within == 0 || within == 1 || within == per_block - 1 {
                count += 1;
            }
        }
        count
    }

    /// The group and the index in its table of an inode number from 1 on.
    pub(crate) fn inode_place(&self, number: u32) -> (u32, u32) {
        let index = number.saturating_sub(1);
        (index / self.inodes_per_group, index % self.inodes_per_group)
    }
}
