//! Block group descriptors: 32 bytes, or 64 and more with the 64bit feature.

use super::{fields, high, low};

/// The most bytes of a descriptor that we use; longer ones keep the rest on disk.
pub(crate) const DESCRIPTOR_MAX: usize = 64;
/// `bg_flags`: the inode table and bitmap are not initialised.
pub(crate) const INODE_UNINIT: u16 = 1;
/// `bg_flags`: the block bitmap is not initialised.
pub(crate) const BLOCK_UNINIT: u16 = 2;
/// `bg_flags`: the inode table is zeroed.
pub(crate) const INODE_ZEROED: u16 = 4;

/// A group descriptor; `wide` when the high halves are there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GroupDescriptor {
    pub(crate) raw: [u8; DESCRIPTOR_MAX],
    pub(crate) wide: bool,
}

fields! { GroupDescriptor {
    bg_block_bitmap_lo, set_bg_block_bitmap_lo: u32, 0x0;
    bg_inode_bitmap_lo, set_bg_inode_bitmap_lo: u32, 0x4;
    bg_inode_table_lo, set_bg_inode_table_lo: u32, 0x8;
    bg_free_blocks_count_lo, set_bg_free_blocks_count_lo: u16, 0xC;
    bg_free_inodes_count_lo, set_bg_free_inodes_count_lo: u16, 0xE;
    bg_used_dirs_count_lo, set_bg_used_dirs_count_lo: u16, 0x10;
    bg_flags, set_bg_flags: u16, 0x12;
    bg_block_bitmap_csum_lo, set_bg_block_bitmap_csum_lo: u16, 0x18;
    bg_inode_bitmap_csum_lo, set_bg_inode_bitmap_csum_lo: u16, 0x1A;
    bg_itable_unused_lo, set_bg_itable_unused_lo: u16, 0x1C;
    bg_checksum, set_bg_checksum: u16, 0x1E;
    bg_block_bitmap_hi, set_bg_block_bitmap_hi: u32, 0x20;
    bg_inode_bitmap_hi, set_bg_inode_bitmap_hi: u32, 0x24;
    bg_inode_table_hi, set_bg_inode_table_hi: u32, 0x28;
    bg_free_blocks_count_hi, set_bg_free_blocks_count_hi: u16, 0x2C;
    bg_free_inodes_count_hi, set_bg_free_inodes_count_hi: u16, 0x2E;
    bg_used_dirs_count_hi, set_bg_used_dirs_count_hi: u16, 0x30;
    bg_itable_unused_hi, set_bg_itable_unused_hi: u16, 0x32;
    bg_block_bitmap_csum_hi, set_bg_block_bitmap_csum_hi: u16, 0x38;
    bg_inode_bitmap_csum_hi, set_bg_inode_bitmap_csum_hi: u16, 0x3A;
}}

/// A pair of getter and setter for a value split in halves.
macro_rules! halves {
    ($($get:ident, $set:ident: $value:ty, $half:ty = $lo:ident $set_lo:ident $hi:ident $set_hi:ident;)*) => {$(
        pub(crate) fn $get(&self) -> $value {
            let hi = if self.wide { <$value>::from(self.$hi()) } else { 0 };
            hi << <$half>::BITS | <$value>::from(self.$lo())
        }
        pub(crate) fn $set(&mut self, value: $value) {
            self.$set_lo((value & <$value>::from(<$half>::MAX)) as $half);
            if self.wide {
                self.$set_hi((value >> <$half>::BITS) as $half);
            }
        }
    )*};
}

impl GroupDescriptor {
    /// All zeroes.
    pub(crate) fn empty(wide: bool) -> Self {
        Self { raw: [0; DESCRIPTOR_MAX], wide }
    }

    /// From `bytes` of the table.
    pub(crate) fn parse(bytes: &[u8]) -> Self {
        let mut raw = [0; DESCRIPTOR_MAX];
        let length = bytes.len().min(DESCRIPTOR_MAX);
        for (place, byte) in raw.iter_mut().zip(bytes) {
            *place = *byte;
        }
        Self { raw, wide: length >= DESCRIPTOR_MAX }
    }

    pub(crate) fn block_bitmap(&self) -> u64 {
        self.join(self.bg_block_bitmap_lo(), self.bg_block_bitmap_hi())
    }

    pub(crate) fn set_block_bitmap(&mut self, block: u64) {
        self.set_bg_block_bitmap_lo(low(block));
        self.set_bg_block_bitmap_hi(high(block));
    }

    pub(crate) fn inode_bitmap(&self) -> u64 {
        self.join(self.bg_inode_bitmap_lo(), self.bg_inode_bitmap_hi())
    }

    pub(crate) fn set_inode_bitmap(&mut self, block: u64) {
        self.set_bg_inode_bitmap_lo(low(block));
        self.set_bg_inode_bitmap_hi(high(block));
    }

    pub(crate) fn inode_table(&self) -> u64 {
        self.join(self.bg_inode_table_lo(), self.bg_inode_table_hi())
    }

    pub(crate) fn set_inode_table(&mut self, block: u64) {
        self.set_bg_inode_table_lo(low(block));
        self.set_bg_inode_table_hi(high(block));
    }

    fn join(&self, lo: u32, hi: u32) -> u64 {
        if self.wide { u64::from(hi) << 32 | u64::from(lo) } else { lo.into() }
    }

    halves! {
        free_blocks, set_free_blocks: u32, u16 = bg_free_blocks_count_lo set_bg_free_blocks_count_lo bg_free_blocks_count_hi set_bg_free_blocks_count_hi;
        free_inodes, set_free_inodes: u32, u16 = bg_free_inodes_count_lo set_bg_free_inodes_count_lo bg_free_inodes_count_hi set_bg_free_inodes_count_hi;
        used_dirs, set_used_dirs: u32, u16 = bg_used_dirs_count_lo set_bg_used_dirs_count_lo bg_used_dirs_count_hi set_bg_used_dirs_count_hi;
        itable_unused, set_itable_unused: u32, u16 = bg_itable_unused_lo set_bg_itable_unused_lo bg_itable_unused_hi set_bg_itable_unused_hi;
        block_bitmap_csum, set_block_bitmap_csum: u32, u16 = bg_block_bitmap_csum_lo set_bg_block_bitmap_csum_lo bg_block_bitmap_csum_hi set_bg_block_bitmap_csum_hi;
        inode_bitmap_csum, set_inode_bitmap_csum: u32, u16 = bg_inode_bitmap_csum_lo set_bg_inode_bitmap_csum_lo bg_inode_bitmap_csum_hi set_bg_inode_bitmap_csum_hi;
    }

    pub(crate) fn has_flag(&self, flag: u16) -> bool {
        self.bg_flags() & flag != 0
    }

    pub(crate) fn set_flag(&mut self, flag: u16, on: bool) {
        let flags = self.bg_flags();
        self.set_bg_flags(if on { flags | flag } else { flags & !flag });
    }
}
