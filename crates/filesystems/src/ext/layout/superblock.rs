//! The superblock: 1024 bytes at byte 1024.

use super::{fields, high, low, put};
use crate::ext::features::{Compat, Incompat, RoCompat};

/// Bytes of a superblock, and where the primary one lies.
pub(crate) const SUPERBLOCK_SIZE: usize = 1024;
/// `s_magic`.
pub(crate) const MAGIC: u16 = 0xEF53;
/// `s_state`: cleanly unmounted.
pub(crate) const STATE_VALID: u16 = 1;
/// `s_state`: errors were found.
pub(crate) const STATE_ERROR: u16 = 2;
/// `s_flags`: directory hashes take names as signed bytes.
pub(crate) const FLAG_SIGNED_HASH: u32 = 1;
/// `s_flags`: directory hashes take names as unsigned bytes.
pub(crate) const FLAG_UNSIGNED_HASH: u32 = 2;

/// A superblock.
#[derive(Clone, Debug)]
pub(crate) struct Superblock {
    pub(crate) raw: [u8; SUPERBLOCK_SIZE],
}

fields! { Superblock {
    s_inodes_count, set_s_inodes_count: u32, 0x0;
    s_blocks_count_lo, set_s_blocks_count_lo: u32, 0x4;
    s_r_blocks_count_lo, set_s_r_blocks_count_lo: u32, 0x8;
    s_free_blocks_count_lo, set_s_free_blocks_count_lo: u32, 0xC;
    s_free_inodes_count, set_s_free_inodes_count: u32, 0x10;
    s_first_data_block, set_s_first_data_block: u32, 0x14;
    s_log_block_size, set_s_log_block_size: u32, 0x18;
    s_log_cluster_size, set_s_log_cluster_size: u32, 0x1C;
    s_blocks_per_group, set_s_blocks_per_group: u32, 0x20;
    s_clusters_per_group, set_s_clusters_per_group: u32, 0x24;
    s_inodes_per_group, set_s_inodes_per_group: u32, 0x28;
    s_mtime, set_s_mtime: u32, 0x2C;
    s_wtime, set_s_wtime: u32, 0x30;
    s_mnt_count, set_s_mnt_count: u16, 0x34;
    s_max_mnt_count, set_s_max_mnt_count: u16, 0x36;
    s_magic, set_s_magic: u16, 0x38;
    s_state, set_s_state: u16, 0x3A;
    s_errors, set_s_errors: u16, 0x3C;
    s_lastcheck, set_s_lastcheck: u32, 0x40;
    s_checkinterval, set_s_checkinterval: u32, 0x44;
    s_creator_os, set_s_creator_os: u32, 0x48;
    s_rev_level, set_s_rev_level: u32, 0x4C;
    s_def_resuid, set_s_def_resuid: u16, 0x50;
    s_def_resgid, set_s_def_resgid: u16, 0x52;
    s_first_ino_raw, set_s_first_ino: u32, 0x54;
    s_inode_size_raw, set_s_inode_size: u16, 0x58;
    s_block_group_nr, set_s_block_group_nr: u16, 0x5A;
    s_feature_compat, set_s_feature_compat: u32, 0x5C;
    s_feature_incompat, set_s_feature_incompat: u32, 0x60;
    s_feature_ro_compat, set_s_feature_ro_compat: u32, 0x64;
    s_reserved_gdt_blocks, set_s_reserved_gdt_blocks: u16, 0xCE;
    s_journal_inum, set_s_journal_inum: u32, 0xE0;
    s_journal_dev, set_s_journal_dev: u32, 0xE4;
    s_last_orphan, set_s_last_orphan: u32, 0xE8;
    s_def_hash_version, set_s_def_hash_version: u8, 0xFC;
    s_jnl_backup_type, set_s_jnl_backup_type: u8, 0xFD;
    s_desc_size_raw, set_s_desc_size: u16, 0xFE;
    s_default_mount_opts, set_s_default_mount_opts: u32, 0x100;
    s_first_meta_bg, set_s_first_meta_bg: u32, 0x104;
    s_mkfs_time, set_s_mkfs_time: u32, 0x108;
    s_blocks_count_hi, set_s_blocks_count_hi: u32, 0x150;
    s_r_blocks_count_hi, set_s_r_blocks_count_hi: u32, 0x154;
    s_free_blocks_count_hi, set_s_free_blocks_count_hi: u32, 0x158;
    s_min_extra_isize, set_s_min_extra_isize: u16, 0x15C;
    s_want_extra_isize, set_s_want_extra_isize: u16, 0x15E;
    s_flags, set_s_flags: u32, 0x160;
    s_raid_stride, set_s_raid_stride: u16, 0x164;
    s_mmp_interval, set_s_mmp_interval: u16, 0x166;
    s_mmp_block, set_s_mmp_block: u64, 0x168;
    s_raid_stripe_width, set_s_raid_stripe_width: u32, 0x170;
    s_log_groups_per_flex, set_s_log_groups_per_flex: u8, 0x174;
    s_checksum_type, set_s_checksum_type: u8, 0x175;
    s_kbytes_written, set_s_kbytes_written: u64, 0x178;
    s_usr_quota_inum, set_s_usr_quota_inum: u32, 0x240;
    s_grp_quota_inum, set_s_grp_quota_inum: u32, 0x244;
    s_overhead_blocks, set_s_overhead_blocks: u32, 0x248;
    s_backup_bgs_0, set_s_backup_bgs_0: u32, 0x24C;
    s_backup_bgs_1, set_s_backup_bgs_1: u32, 0x250;
    s_lpf_ino, set_s_lpf_ino: u32, 0x268;
    s_prj_quota_inum, set_s_prj_quota_inum: u32, 0x26C;
    s_checksum_seed, set_s_checksum_seed: u32, 0x270;
    s_wtime_hi, set_s_wtime_hi: u8, 0x274;
    s_mkfs_time_hi, set_s_mkfs_time_hi: u8, 0x276;
    s_lastcheck_hi, set_s_lastcheck_hi: u8, 0x277;
    s_encoding, set_s_encoding: u16, 0x27C;
    s_orphan_file_inum, set_s_orphan_file_inum: u32, 0x280;
    s_checksum, set_s_checksum: u32, 0x3FC;
}}

impl Superblock {
    /// All zeroes.
    pub(crate) fn empty() -> Self {
        Self { raw: [0; SUPERBLOCK_SIZE] }
    }

    pub(crate) fn compat(&self) -> Compat {
        Compat::from_bits_retain(self.s_feature_compat())
    }

    pub(crate) fn incompat(&self) -> Incompat {
        Incompat::from_bits_retain(self.s_feature_incompat())
    }

    pub(crate) fn ro_compat(&self) -> RoCompat {
        RoCompat::from_bits_retain(self.s_feature_ro_compat())
    }

    pub(crate) fn has_compat(&self, bit: Compat) -> bool {
        self.compat().contains(bit)
    }

    pub(crate) fn has_incompat(&self, bit: Incompat) -> bool {
        self.incompat().contains(bit)
    }

    pub(crate) fn has_ro(&self, bit: RoCompat) -> bool {
        self.ro_compat().contains(bit)
    }

    pub(crate) fn set_incompat(&mut self, bit: Incompat, on: bool) {
        let mut bits = self.incompat();
        bits.set(bit, on);
        self.set_s_feature_incompat(bits.bits());
    }

    pub(crate) fn set_ro(&mut self, bit: RoCompat, on: bool) {
        let mut bits = self.ro_compat();
        bits.set(bit, on);
        self.set_s_feature_ro_compat(bits.bits());
    }

    pub(crate) fn set_compat(&mut self, bit: Compat, on: bool) {
        let mut bits = self.compat();
        bits.set(bit, on);
        self.set_s_feature_compat(bits.bits());
    }

    fn wide(&self) -> bool {
        self.has_incompat(Incompat::BITS64)
    }

    pub(crate) fn blocks_count(&self) -> u64 {
        self.join(self.s_blocks_count_lo(), self.s_blocks_count_hi())
    }

    pub(crate) fn set_blocks_count(&mut self, value: u64) {
        self.set_s_blocks_count_lo(low(value));
        self.set_s_blocks_count_hi(high(value));
    }

    pub(crate) fn reserved_blocks(&self) -> u64 {
        self.join(self.s_r_blocks_count_lo(), self.s_r_blocks_count_hi())
    }

    pub(crate) fn set_reserved_blocks(&mut self, value: u64) {
        self.set_s_r_blocks_count_lo(low(value));
        self.set_s_r_blocks_count_hi(high(value));
    }

    /// In blocks, also with bigalloc.
    pub(crate) fn free_blocks(&self) -> u64 {
        self.join(self.s_free_blocks_count_lo(), self.s_free_blocks_count_hi())
    }

    pub(crate) fn set_free_blocks(&mut self, value: u64) {
        self.set_s_free_blocks_count_lo(low(value));
        self.set_s_free_blocks_count_hi(high(value));
    }

    fn join(&self, lo: u32, hi: u32) -> u64 {
        if self.wide() { u64::from(hi) << 32 | u64::from(lo) } else { lo.into() }
    }

    pub(crate) fn uuid(&self) -> [u8; 16] {
        self.array(0x68)
    }

    pub(crate) fn set_uuid(&mut self, uuid: &[u8; 16]) {
        put(&mut self.raw, 0x68, uuid);
    }

    pub(crate) fn label(&self) -> Vec<u8> {
        let raw: [u8; 16] = self.array(0x78);
        raw.iter().copied().take_while(|b| *b != 0).collect()
    }

    /// The label, cut at 16 bytes.
    pub(crate) fn set_label(&mut self, label: &[u8]) {
        let mut raw = [0; 16];
        for (place, byte) in raw.iter_mut().zip(label) {
            *place = *byte;
        }
        put(&mut self.raw, 0x78, &raw);
    }

    pub(crate) fn hash_seed(&self) -> [u32; 4] {
        std::array::from_fn(|i| super::le32(&self.raw, 0xEC + 4 * i))
    }

    pub(crate) fn set_hash_seed(&mut self, seed: &[u8; 16]) {
        put(&mut self.raw, 0xEC, seed);
    }

    /// The copy of the journal inode's `i_block`, `i_size_high` and `i_size_lo`.
    pub(crate) fn set_journal_backup(&mut self, blocks: &[u8], size: u64) {
        put(&mut self.raw, 0x10C, blocks);
        super::put32(&mut self.raw, 0x10C + 60, high(size));
        super::put32(&mut self.raw, 0x10C + 64, low(size));
        self.set_s_jnl_backup_type(1);
    }

    /// The journal's inode with what the superblock keeps of it; as it was when that is nothing.
    pub(crate) fn journal_backup(&self, mut inode: super::Inode) -> super::Inode {
        if self.s_jnl_backup_type() == 1 {
            let area: [u8; 60] = self.array(0x10C);
            let (high, low) = (super::le32(&self.raw, 0x148), super::le32(&self.raw, 0x14C));
            inode.set_block_area(&area);
            inode.set_size(u64::from(high) << 32 | u64::from(low));
            inode.set_i_mode(0o100_600);
            inode.set_i_links_count(1);
            let tree = super::le16(&area, 0) == 0xF30A;
            inode.set_flag(super::inode::flags::EXTENTS, tree);
        }
        inode
    }

    /// Forgets the journal inode's copy.
    pub(crate) fn clear_journal_backup(&mut self) {
        put(&mut self.raw, 0x10C, &[0; 68]);
        self.set_s_jnl_backup_type(0);
    }

    fn array<const N: usize>(&self, at: usize) -> [u8; N] {
        let mut bytes = [0; N];
        if let Some(source) = self.raw.get(at..at + N) {
            bytes.copy_from_slice(source);
        }
        bytes
    }
}
