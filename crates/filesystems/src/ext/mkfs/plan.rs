//! The geometry that mke2fs 1.47 would choose.

use disksmith_disk::{Error, Kind, Result};

use super::MakeOptions;
use crate::ext::checksum::crc32c;
use crate::ext::features::{Compat, FeatureSet, Incompat, RoCompat};
use crate::ext::layout::Superblock;
use crate::ext::layout::superblock::{FLAG_SIGNED_HASH, MAGIC, STATE_VALID};
use crate::ext::shape::Shape;

/// Groups in a flexible group.
const FLEX: u32 = 16;
/// The most blocks of a group: bitmaps of 64 KiB blocks count more than 16 bits can.
const GROUP_BLOCKS_MAX: u64 = (1 << 16) - 8;
/// A last group with fewer free blocks than this is left out.
const LAST_GROUP_LEAST: u64 = 50;

/// A filesystem that is not there yet.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) superblock: Superblock,
    pub(super) shape: Shape,
    pub(super) journal_blocks: u32,
    pub(super) orphan_blocks: u64,
    pub(super) flex: u32,
    /// About: after journal, tables and so on.
    pub(super) free_blocks: u64,
    pub(super) reserved: u64,
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(Kind::InvalidInput, message)
}

impl Plan {
    pub(super) fn inodes(&self) -> u64 {
        self.shape.inodes.into()
    }

    pub(super) fn new(options: &MakeOptions, disk_size: u64) -> Result<Self> {
        let features = features(options)?;
        let mebibytes = options
            .blocks
            .map_or(disk_size, |n| n.saturating_mul(options.block_size.unwrap_or(4096).into()))
            >> 20;
        let (block_default, ratio) = match mebibytes {
            0..3 => (1024, 8192),
            3..512 => (1024, 4096),
            512..0x40_0000 => (4096, 16384),
            0x40_0000..0x100_0000 => (4096, 32768),
            _ => (4096, 65536),
        };
        let block_size = options.block_size.unwrap_or(block_default);
        if !block_size.is_power_of_two() || !(1024..=65536).contains(&block_size) {
            return Err(invalid(format!("The block size {block_size} is not 1024 to 65536")));
        }
        let bigalloc = features.ro_compat.contains(RoCompat::BIGALLOC);
        let cluster = options.cluster_size.unwrap_or(block_size * 16);
        let unit = if bigalloc { cluster } else { block_size };
        let ratio = options.inode_ratio.unwrap_or(ratio).max(unit.into());
        let blocks = match options.blocks {
            Some(blocks) => blocks,
            // Whole pages, as the kernel reads them.
            None => (disk_size & !0xfff) / u64::from(block_size),
        };
        let mut draft = Draft::new(options, features, block_size, blocks, ratio)?;
        draft.fit()?;
        draft.finish(options, disk_size)
    }
}

fn features(options: &MakeOptions) -> Result<FeatureSet> {
    let mut set = options.profile.features();
    set.apply(&options.features)?;
    set.check_makeable()?;
    if set.ro_compat.contains(RoCompat::METADATA_CSUM) {
        set.ro_compat.remove(RoCompat::GDT_CSUM);
    } else if set.incompat.contains(Incompat::CSUM_SEED) {
        return Err(invalid("metadata_csum_seed needs metadata_csum"));
    }
    let clash = |a, b| Err(invalid(format!("The features {a} and {b} exclude each other")));
    if set.compat.contains(Compat::RESIZE_INODE) {
        if set.incompat.contains(Incompat::META_BG) {
            return clash("meta_bg", "resize_inode");
        }
        if !set.ro_compat.contains(RoCompat::SPARSE_SUPER) {
            return Err(invalid("resize_inode needs sparse_super"));
        }
        if set.compat.contains(Compat::SPARSE_SUPER2) {
            return clash("sparse_super2", "resize_inode");
        }
    }
    if set.incompat.contains(Incompat::BITS64) && !set.incompat.contains(Incompat::EXTENTS) {
        return Err(invalid("64bit needs extent").with_hint("Leave both out: ^extent,^64bit."));
    }
    if set.ro_compat.contains(RoCompat::BIGALLOC) && !set.incompat.contains(Incompat::EXTENTS) {
        return Err(invalid("bigalloc needs extent"));
    }
    if set.compat.contains(Compat::ORPHAN_FILE) && !set.compat.contains(Compat::HAS_JOURNAL) {
        set.compat.remove(Compat::ORPHAN_FILE);
    }
    Ok(set)
}

/// Numbers while they are being found.
struct Draft {
    features: FeatureSet,
    block_size: u64,
    cluster_bits: u32,
    first_block: u64,
    blocks: u64,
    per_group: u64,
    inode_size: u64,
    wanted_inodes: u64,
    per_group_inodes: u64,
    reserved_descriptors: u64,
    /// Before a last group was left out.
    given_blocks: u64,
}

impl Draft {
    fn new(
        options: &MakeOptions,
        features: FeatureSet,
        block_size: u32,
        blocks: u64,
        ratio: u64,
    ) -> Result<Self> {
        let bigalloc = features.ro_compat.contains(RoCompat::BIGALLOC);
        let cluster = match options.cluster_size {
            Some(_) if !bigalloc => return Err(invalid("A cluster size needs bigalloc")),
            Some(size) => size,
            None if bigalloc => block_size * 16,
            None => block_size,
        };
        if !cluster.is_power_of_two() || cluster < block_size || cluster > block_size << 15 {
            return Err(invalid(format!("The cluster size {cluster} is not possible")));
        }
        let cluster_bits = (cluster / block_size).trailing_zeros();
        let inode_size = u64::from(options.inode_size.unwrap_or(256));
        if !inode_size.is_power_of_two() || !(128..=block_size.into()).contains(&inode_size) {
            return Err(invalid(format!("The inode size {inode_size} is not possible")));
        }
        let wide = features.incompat.contains(Incompat::BITS64);
        if !wide && blocks > u32::MAX.into() {
            return Err(invalid("More than 2^32 blocks need the feature 64bit"));
        }
        let block_size = u64::from(block_size);
        let clusters = (block_size * 8).min(GROUP_BLOCKS_MAX);
        let wanted = options.inodes.unwrap_or_else(|| {
            (u128::from(blocks) * u128::from(block_size) / u128::from(ratio)) as u64
        });
        Ok(Self {
            features,
            block_size,
            cluster_bits,
            first_block: u64::from(block_size == 1024 && !bigalloc),
            blocks: blocks >> cluster_bits << cluster_bits,
            per_group: clusters << cluster_bits,
            inode_size,
            wanted_inodes: wanted.clamp(12, u32::MAX.into()),
            per_group_inodes: 0,
            reserved_descriptors: 0,
            given_blocks: blocks >> cluster_bits << cluster_bits,
        })
    }

    fn groups(&self) -> u64 {
        self.blocks.saturating_sub(self.first_block).div_ceil(self.per_group)
    }

    fn per_block(&self) -> u64 {
        self.block_size / if self.features.incompat.contains(Incompat::BITS64) { 64 } else { 32 }
    }

    fn descriptor_blocks(&self) -> u64 {
        self.groups().div_ceil(self.per_block())
    }

    fn table_blocks(&self) -> u64 {
        (self.per_group_inodes * self.inode_size).div_ceil(self.block_size)
    }

    /// Room for the descriptor table of a filesystem 1024 times as large.
    fn reserve_descriptors(&self) -> u64 {
        if !self.features.compat.contains(Compat::RESIZE_INODE) {
            return 0;
        }
        let most = u64::from(u32::MAX);
        let most = if self.blocks < most / 1024 { self.blocks * 1024 } else { most };
        let groups = (most - self.first_block).div_ceil(self.per_group);
        let blocks = groups.div_ceil(self.per_block()).saturating_sub(self.descriptor_blocks());
        blocks.min(self.block_size / 4)
    }

    /// Finds the numbers; leaves out a last group that would hold next to nothing.
    fn fit(&mut self) -> Result<()> {
        let bigalloc = self.features.ro_compat.contains(RoCompat::BIGALLOC);
        for _ in 0..100_000 {
            let groups = self.groups();
            if groups == 0 {
                return Err(invalid("The disk is too small for an ext filesystem"));
            }
            let each = self.wanted_inodes.div_ceil(groups);
            if each > self.block_size * 8 {
                if bigalloc || self.per_group < 256 {
                    return Err(invalid("There are too many inodes for this size"));
                }
                self.per_group -= 8;
                self.blocks = self.given_blocks;
                continue;
            }
            // mke2fs's limit, so that the free count fits into 16 bits.
            self.per_group_inodes = each.min(65536 - self.block_size / self.inode_size);
            let whole = self.table_blocks() * self.block_size / self.inode_size;
            self.per_group_inodes = whole.max(8) & !7;
            while self.per_group_inodes * groups > u32::MAX.into() {
                self.per_group_inodes -= 8;
            }
            self.reserved_descriptors = self.reserve_descriptors();
            if self.reserved_descriptors + self.descriptor_blocks() > self.per_group * 3 / 4 {
                self.features.incompat |= Incompat::META_BG;
                self.features.compat.remove(Compat::RESIZE_INODE);
                self.reserved_descriptors = 0;
            }
            let last = (groups - 1) as u32;
            let mut overhead = 2 + self.table_blocks();
            if self.has_super(last) {
                overhead += 1 + self.descriptor_blocks() + self.reserved_descriptors;
            }
            let rest = (self.blocks - self.first_block) % self.per_group;
            if rest == 0 || rest >= overhead + LAST_GROUP_LEAST {
                return Ok(());
            }
            if groups == 1 {
                if rest < overhead {
                    return Err(invalid("The disk is too small for an ext filesystem"));
                }
                return Ok(());
            }
            self.blocks -= rest;
        }
        Err(invalid("No geometry was found for this size"))
    }

    fn has_super(&self, group: u32) -> bool {
        if self.features.compat.contains(Compat::SPARSE_SUPER2) {
            return true;
        }
        let sparse = self.features.ro_compat.contains(RoCompat::SPARSE_SUPER);
        let power = |base: u32| {
            let mut rest = group;
            while rest > 1 && rest.is_multiple_of(base) {
                rest /= base;
            }
            rest == 1
        };
        group <= 1 || !sparse || power(3) || power(5) || power(7)
    }

    fn finish(mut self, options: &MakeOptions, disk_size: u64) -> Result<Plan> {
        let journal_blocks = self.journal_blocks(options)?;
        if journal_blocks == 0 {
            self.features.compat.remove(Compat::HAS_JOURNAL | Compat::ORPHAN_FILE);
        }
        let superblock = self.superblock(options)?;
        let mut shape = Shape::new(&superblock, disk_size)?;
        let flexible = self.features.incompat.contains(Incompat::FLEX_BG);
        let orphan = self.features.compat.contains(Compat::ORPHAN_FILE);
        let orphan_blocks = if orphan { orphan_blocks(self.blocks, self.cluster_bits) } else { 0 };
        shape.features = self.features;
        let mut plan = Plan {
            reserved: superblock.reserved_blocks(),
            superblock,
            shape,
            journal_blocks,
            orphan_blocks,
            flex: if flexible { FLEX } else { 1 },
            free_blocks: 0,
        };
        let base: u64 = (0..shape.groups)
            .map(|group| shape.group_base_blocks(group, self.reserved_descriptors))
            .sum();
        let used = base
            + u64::from(shape.groups) * (2 + shape.table_blocks())
            + u64::from(journal_blocks)
            + orphan_blocks
            + shape.first_block
            + 16;
        plan.free_blocks = self.blocks.saturating_sub(used);
        if plan.free_blocks < 16 {
            return Err(invalid("The disk is too small for an ext filesystem"));
        }
        Ok(plan)
    }

    /// The journal's default length depends on the number of blocks.
    fn journal_blocks(&self, options: &MakeOptions) -> Result<u32> {
        if !self.features.compat.contains(Compat::HAS_JOURNAL) {
            return Ok(0);
        }
        let given = options.journal_bytes.map(|bytes| bytes / self.block_size);
        let given = given.map(|blocks| u32::try_from(blocks).unwrap_or(u32::MAX));
        if let Some(blocks) = options.journal_blocks.or(given) {
            if !(1024..=10_240_000).contains(&blocks) || u64::from(blocks) > self.blocks / 2 {
                return Err(invalid(format!("A journal of {blocks} blocks is not possible")));
            }
            return Ok(blocks);
        }
        Ok(default_journal_blocks(self.blocks))
    }

    fn superblock(&self, options: &MakeOptions) -> Result<Superblock> {
        let mut sb = Superblock::empty();
        let log = (self.block_size / 1024).trailing_zeros();
        sb.set_s_magic(MAGIC);
        sb.set_s_rev_level(1);
        sb.set_s_feature_compat(self.features.compat.bits());
        sb.set_s_feature_incompat(self.features.incompat.bits());
        sb.set_s_feature_ro_compat(self.features.ro_compat.bits());
        sb.set_blocks_count(self.blocks);
        sb.set_s_first_data_block(self.first_block as u32);
        sb.set_s_log_block_size(log);
        sb.set_s_log_cluster_size(log + self.cluster_bits);
        sb.set_s_blocks_per_group(self.per_group as u32);
        sb.set_s_clusters_per_group((self.per_group >> self.cluster_bits) as u32);
        sb.set_s_inodes_per_group(self.per_group_inodes as u32);
        let inodes = self.per_group_inodes * self.groups();
        sb.set_s_inodes_count(u32::try_from(inodes).map_err(|_| invalid("too many inodes"))?);
        sb.set_s_free_inodes_count(inodes as u32);
        sb.set_s_first_ino(11);
        sb.set_s_inode_size(self.inode_size as u16);
        if !(0.0..=50.0).contains(&options.reserved) {
            return Err(invalid("At most 50 % can be reserved"));
        }
        // Taken of what was given, then scaled to what is used.
        let kept = (self.given_blocks as f64 * options.reserved / 100.0) as u64;
        let kept =
            u128::from(kept) * u128::from(self.blocks) / u128::from(self.given_blocks.max(1));
        sb.set_reserved_blocks(kept as u64);
        sb.set_s_reserved_gdt_blocks(self.reserved_descriptors as u16);
        sb.set_s_state(STATE_VALID);
        sb.set_s_errors(1);
        sb.set_s_max_mnt_count(0xffff);
        let now = options.time.unwrap_or_else(crate::Time::now).seconds;
        let (seconds, high) = ((now & 0xffff_ffff) as u32, (now >> 32 & 0xff) as u8);
        sb.set_s_lastcheck(seconds);
        sb.set_s_lastcheck_hi(high);
        sb.set_s_mkfs_time(seconds);
        sb.set_s_mkfs_time_hi(high);
        sb.set_s_wtime(seconds);
        sb.set_s_wtime_hi(high);
        let uuid = options.uuid.unwrap_or_else(|| uuid::Uuid::new_v4().into_bytes());
        sb.set_uuid(&uuid);
        if options.label.len() > 16 {
            return Err(invalid("A label has at most 16 bytes"));
        }
        sb.set_label(&options.label);
        sb.set_hash_seed(&match (options.hash_seed, options.uuid) {
            (Some(seed), _) => seed,
            // A given UUID asks for a reproducible result: the seed follows from it.
            (None, Some(uuid)) => derived_seed(&uuid),
            (None, None) => uuid::Uuid::new_v4().into_bytes(),
        });
        sb.set_s_def_hash_version(crate::ext::hash::HALF_MD4);
        sb.set_s_flags(FLAG_SIGNED_HASH);
        // user_xattr and acl.
        sb.set_s_default_mount_opts(0xC);
        if self.inode_size > 128 {
            sb.set_s_min_extra_isize(32);
            sb.set_s_want_extra_isize(32);
        }
        if self.features.incompat.contains(Incompat::BITS64) {
            sb.set_s_desc_size(64);
        }
        if self.features.incompat.contains(Incompat::FLEX_BG) {
            sb.set_s_log_groups_per_flex(FLEX.trailing_zeros() as u8);
        }
        if self.features.ro_compat.contains(RoCompat::METADATA_CSUM) {
            sb.set_s_checksum_type(1);
        }
        if self.features.incompat.contains(Incompat::CSUM_SEED) {
            sb.set_s_checksum_seed(crc32c(!0, &uuid));
        }
        if self.features.compat.contains(Compat::SPARSE_SUPER2) {
            let groups = self.groups() as u32;
            sb.set_s_backup_bgs_0(u32::from(groups > 1));
            sb.set_s_backup_bgs_1(if groups > 2 { groups - 1 } else { 0 });
        }
        sb.set_s_raid_stride(options.stride);
        sb.set_s_raid_stripe_width(options.stripe_width);
        Ok(sb)
    }
}

/// A hash seed that follows from the UUID.
fn derived_seed(uuid: &[u8; 16]) -> [u8; 16] {
    let mut seed = [0; 16];
    for (index, chunk) in seed.chunks_exact_mut(4).enumerate() {
        chunk.copy_from_slice(&crc32c(!(index as u32), uuid).to_le_bytes());
    }
    seed
}

/// The length of the orphan file.
fn orphan_blocks(blocks: u64, cluster_bits: u32) -> u64 {
    (blocks / 4096).clamp(32, 512).next_multiple_of(1 << cluster_bits)
}

/// The journal's usual length for a filesystem of so many blocks.
pub(crate) fn default_journal_blocks(blocks: u64) -> u32 {
    match blocks {
        // Too small for one: as mke2fs, go without.
        0..2048 => 0,
        2048..32768 => 1024,
        32768..262_144 => 4096,
        262_144..524_288 => 8192,
        524_288..4_194_304 => 16384,
        4_194_304..8_388_608 => 32768,
        8_388_608..16_777_216 => 65536,
        16_777_216..33_554_432 => 131_072,
        _ => 262_144,
    }
}
