//! Inodes.

use super::{fields, high, le32, low, put, put16};
use crate::{Device, FileKind, Time};

/// Bytes of `i_block`.
pub(crate) const BLOCK_AREA: usize = 60;
/// Where `i_block` lies.
pub(crate) const BLOCK_AT: usize = 0x28;
/// The part that every inode has; what follows is `i_extra_isize` bytes and then xattrs.
pub(crate) const GOOD_OLD_SIZE: usize = 128;

/// `i_flags`.
pub(crate) mod flags {
    pub(crate) const IMMUTABLE: u32 = 0x10;
    pub(crate) const APPEND: u32 = 0x20;
    pub(crate) const COMPRESSED: u32 = 0x200;
    pub(crate) const ENCRYPT: u32 = 0x800;
    pub(crate) const INDEX: u32 = 0x1000;
    pub(crate) const IMAGIC: u32 = 0x2000;
    pub(crate) const HUGE_FILE: u32 = 0x4_0000;
    pub(crate) const EXTENTS: u32 = 0x8_0000;
    pub(crate) const VERITY: u32 = 0x10_0000;
    pub(crate) const EA_INODE: u32 = 0x20_0000;
    pub(crate) const INLINE_DATA: u32 = 0x1000_0000;
    pub(crate) const PROJINHERIT: u32 = 0x2000_0000;
    pub(crate) const CASEFOLD: u32 = 0x4000_0000;
    /// What `chattr` may change.
    pub(crate) const USER: u32 = 0x2038_80FF | 0x1_0000 | 0x2_0000;
    /// What a new file takes over from its directory.
    pub(crate) const INHERITED: u32 = 0x0000_00ef & !(IMMUTABLE | APPEND) | PROJINHERIT | CASEFOLD;
}

/// An inode's bytes: as many as the filesystem's inode size.
#[derive(Clone, Debug)]
pub(crate) struct Inode {
    pub(crate) number: u32,
    pub(crate) raw: Vec<u8>,
}

fields! { Inode {
    i_mode, set_i_mode: u16, 0x0;
    i_uid_lo, set_i_uid_lo: u16, 0x2;
    i_size_lo, set_i_size_lo: u32, 0x4;
    i_atime, set_i_atime: u32, 0x8;
    i_ctime, set_i_ctime: u32, 0xC;
    i_mtime, set_i_mtime: u32, 0x10;
    i_dtime, set_i_dtime: u32, 0x14;
    i_gid_lo, set_i_gid_lo: u16, 0x18;
    i_links_count, set_i_links_count: u16, 0x1A;
    i_blocks_lo, set_i_blocks_lo: u32, 0x1C;
    i_flags, set_i_flags: u32, 0x20;
    i_version, set_i_version: u32, 0x24;
    i_generation, set_i_generation: u32, 0x64;
    i_file_acl_lo, set_i_file_acl_lo: u32, 0x68;
    i_size_high, set_i_size_high: u32, 0x6C;
    i_blocks_high, set_i_blocks_high: u16, 0x74;
    i_file_acl_high, set_i_file_acl_high: u16, 0x76;
    i_uid_high, set_i_uid_high: u16, 0x78;
    i_gid_high, set_i_gid_high: u16, 0x7A;
    i_checksum_lo, set_i_checksum_lo: u16, 0x7C;
    i_extra_isize, set_i_extra_isize: u16, 0x80;
    i_checksum_hi, set_i_checksum_hi: u16, 0x82;
    i_ctime_extra, set_i_ctime_extra: u32, 0x84;
    i_mtime_extra, set_i_mtime_extra: u32, 0x88;
    i_atime_extra, set_i_atime_extra: u32, 0x8C;
    i_crtime, set_i_crtime: u32, 0x90;
    i_crtime_extra, set_i_crtime_extra: u32, 0x94;
    i_version_hi, set_i_version_hi: u32, 0x98;
    i_projid, set_i_projid: u32, 0x9C;
}}

impl Inode {
    /// An empty inode of `size` bytes.
    pub(crate) fn empty(number: u32, size: usize) -> Self {
        Self { number, raw: vec![0; size] }
    }

    pub(crate) fn kind(&self) -> Option<FileKind> {
        FileKind::from_mode(self.i_mode())
    }

    pub(crate) fn is_directory(&self) -> bool {
        self.kind() == Some(FileKind::Directory)
    }

    pub(crate) fn is_regular(&self) -> bool {
        self.kind() == Some(FileKind::Regular)
    }

    pub(crate) fn has_flag(&self, flag: u32) -> bool {
        self.i_flags() & flag != 0
    }

    pub(crate) fn set_flag(&mut self, flag: u32, on: bool) {
        let flags = self.i_flags();
        self.set_i_flags(if on { flags | flag } else { flags & !flag });
    }

    /// The length in bytes.
    pub(crate) fn size(&self) -> u64 {
        u64::from(self.i_size_high()) << 32 | u64::from(self.i_size_lo())
    }

    pub(crate) fn set_size(&mut self, size: u64) {
        self.set_i_size_lo(low(size));
        self.set_i_size_high(high(size));
    }

    pub(crate) fn uid(&self) -> u32 {
        u32::from(self.i_uid_high()) << 16 | u32::from(self.i_uid_lo())
    }

    pub(crate) fn set_uid(&mut self, uid: u32) {
        self.set_i_uid_lo((uid & 0xffff) as u16);
        self.set_i_uid_high((uid >> 16) as u16);
    }

    pub(crate) fn gid(&self) -> u32 {
        u32::from(self.i_gid_high()) << 16 | u32::from(self.i_gid_lo())
    }

    pub(crate) fn set_gid(&mut self, gid: u32) {
        self.set_i_gid_lo((gid & 0xffff) as u16);
        self.set_i_gid_high((gid >> 16) as u16);
    }

    /// The xattr block.
    pub(crate) fn file_acl(&self) -> u64 {
        u64::from(self.i_file_acl_high()) << 32 | u64::from(self.i_file_acl_lo())
    }

    pub(crate) fn set_file_acl(&mut self, block: u64) {
        self.set_i_file_acl_lo(low(block));
        self.set_i_file_acl_high((high(block) & 0xffff) as u16);
    }

    /// `i_blocks` as it stands, 48 bits.
    pub(crate) fn blocks_raw(&self) -> u64 {
        u64::from(self.i_blocks_high()) << 32 | u64::from(self.i_blocks_lo())
    }

    pub(crate) fn set_blocks_raw(&mut self, blocks: u64) {
        self.set_i_blocks_lo(low(blocks));
        self.set_i_blocks_high((high(blocks) & 0xffff) as u16);
    }

    pub(crate) fn block_area(&self) -> &[u8] {
        self.raw.get(BLOCK_AT..BLOCK_AT + BLOCK_AREA).unwrap_or(&[])
    }

    pub(crate) fn set_block_area(&mut self, bytes: &[u8]) {
        let mut area = [0; BLOCK_AREA];
        for (place, byte) in area.iter_mut().zip(bytes) {
            *place = *byte;
        }
        put(&mut self.raw, BLOCK_AT, &area);
    }

    /// Pointer `index` of `i_block`.
    pub(crate) fn block_pointer(&self, index: usize) -> u32 {
        le32(&self.raw, BLOCK_AT + 4 * index)
    }

    pub(crate) fn set_block_pointer(&mut self, index: usize, value: u32) {
        super::put32(&mut self.raw, BLOCK_AT + 4 * index, value);
    }

    /// How many bytes after the first 128 hold fields; 0 for 128-byte inodes and nonsense.
    pub(crate) fn extra_size(&self) -> usize {
        if self.raw.len() <= GOOD_OLD_SIZE {
            return 0;
        }
        let extra = usize::from(self.i_extra_isize());
        if extra % 4 != 0 || GOOD_OLD_SIZE + extra > self.raw.len() { 0 } else { extra }
    }

    /// True when the fields up to byte `end` of the inode are there.
    pub(crate) fn reaches(&self, end: usize) -> bool {
        GOOD_OLD_SIZE + self.extra_size() >= end
    }

    pub(crate) fn accessed(&self) -> Time {
        self.time(0x8, 0x8C)
    }

    pub(crate) fn changed(&self) -> Time {
        self.time(0xC, 0x84)
    }

    pub(crate) fn modified(&self) -> Time {
        self.time(0x10, 0x88)
    }

    pub(crate) fn created(&self) -> Option<Time> {
        self.reaches(0x98).then(|| self.time(0x90, 0x94))
    }

    pub(crate) fn set_accessed(&mut self, time: Time) {
        self.set_time(0x8, 0x8C, time);
    }

    pub(crate) fn set_changed(&mut self, time: Time) {
        self.set_time(0xC, 0x84, time);
    }

    pub(crate) fn set_modified(&mut self, time: Time) {
        self.set_time(0x10, 0x88, time);
    }

    pub(crate) fn set_created(&mut self, time: Time) {
        if self.reaches(0x98) {
            self.set_time(0x90, 0x94, time);
        }
    }

    /// Seconds are 32 signed bits, and two more from the low bits of the extra field, which holds
    /// nanoseconds above them.
    fn time(&self, at: usize, extra_at: usize) -> Time {
        let base = i64::from(le32(&self.raw, at) as i32);
        if !self.reaches(extra_at + 4) {
            return Time::from_seconds(base);
        }
        let extra = le32(&self.raw, extra_at);
        let nanoseconds = extra >> 2;
        Time {
            seconds: base + (i64::from(extra & 3) << 32),
            nanoseconds: if nanoseconds < 1_000_000_000 { nanoseconds } else { 0 },
        }
    }

    fn set_time(&mut self, at: usize, extra_at: usize, time: Time) {
        if self.reaches(extra_at + 4) {
            let seconds = time.seconds.clamp(i64::from(i32::MIN), i64::from(i32::MAX) + (3 << 32));
            let base = seconds as i32;
            let epoch = ((seconds - i64::from(base)) >> 32) as u32 & 3;
            put(&mut self.raw, at, &base.to_le_bytes());
            put(&mut self.raw, extra_at, &(time.nanoseconds << 2 | epoch).to_le_bytes());
        } else {
            let base = time.seconds.clamp(i64::from(i32::MIN), i64::from(i32::MAX)) as i32;
            put(&mut self.raw, at, &base.to_le_bytes());
        }
    }

    /// The device number, in the old 16-bit or the new 32-bit encoding.
    pub(crate) fn device(&self) -> Device {
        let old = self.block_pointer(0);
        if old != 0 {
            return Device { major: old >> 8 & 0xff, minor: old & 0xff };
        }
        let new = self.block_pointer(1);
        Device { major: new >> 8 & 0xfff, minor: new & 0xff | new >> 12 & 0xfff00 }
    }

    pub(crate) fn set_device(&mut self, device: Device) {
        self.set_block_area(&[]);
        if device.major < 256 && device.minor < 256 {
            self.set_block_pointer(0, device.major << 8 | device.minor);
        } else {
            let minor = device.minor;
            let value = minor & 0xff | (device.major & 0xfff) << 8 | (minor & 0xfff00) << 12;
            self.set_block_pointer(1, value);
        }
    }

    pub(crate) fn checksum(&self) -> u32 {
        let high = if self.reaches(0x84) { self.i_checksum_hi() } else { 0 };
        u32::from(high) << 16 | u32::from(self.i_checksum_lo())
    }

    pub(crate) fn set_checksum(&mut self, value: u32) {
        put16(&mut self.raw, 0x7C, (value & 0xffff) as u16);
        if self.reaches(0x84) {
            put16(&mut self.raw, 0x82, (value >> 16) as u16);
        }
    }
}
