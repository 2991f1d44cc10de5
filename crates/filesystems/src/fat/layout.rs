//! On-disk structures, with the field names of Microsoft's "FAT: General Overview of On-Disk
//! Format" (fatgen103) and ECMA-107. No I/O here.

use super::time;
use crate::Time;
use crate::raw::{byte, le16, le32, put, put16, put32};

/// Bytes of the boot sector that mean something.
pub(crate) const BOOT_BYTES: usize = 512;
/// Bytes in a directory entry.
pub(crate) const ENTRY: usize = 32;

/// The first byte of an entry that is free, with others behind it.
pub(crate) const FREE: u8 = 0xE5;
/// Stands for a name that truly begins with 0xE5.
pub(crate) const KANJI_E5: u8 = 0x05;

/// The bits of `DIR_Attr`.
pub(crate) mod attribute {
    pub(crate) const READ_ONLY: u8 = 0x01;
    pub(crate) const HIDDEN: u8 = 0x02;
    pub(crate) const SYSTEM: u8 = 0x04;
    pub(crate) const VOLUME_ID: u8 = 0x08;
    pub(crate) const DIRECTORY: u8 = 0x10;
    pub(crate) const ARCHIVE: u8 = 0x20;
    /// A part of a long name.
    pub(crate) const LONG_NAME: u8 = 0x0F;
    /// The bits that tell a part of a long name from other entries.
    pub(crate) const LONG_NAME_MASK: u8 = 0x3F;
}

/// Byte 12 of an entry as Windows NT uses it: the name, or its extension, is in lower case.
pub(crate) const LOWER_BASE: u8 = 0x08;
pub(crate) const LOWER_EXTENSION: u8 = 0x10;

/// The last part of a long name (which comes first).
pub(crate) const LAST_LONG_ENTRY: u8 = 0x40;
/// UTF-16 units in one entry of a long name.
pub(crate) const UNITS_PER_ENTRY: usize = 13;
/// Where they lie.
pub(crate) const UNIT_PLACES: [usize; UNITS_PER_ENTRY] =
    [1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30];

/// `BS_BootSig` when serial number, label and type follow.
pub(crate) const EXTENDED_BOOT_SIGNATURE: u8 = 0x29;
/// "There is no label", in the boot sector.
pub(crate) const NO_NAME: &[u8; 11] = b"NO NAME    ";
/// Bit of `BS_Reserved1` that Linux and fsck.fat take for "in use".
pub(crate) const STATE_DIRTY: u8 = 0x01;

/// The boot sector with the BIOS parameter block.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct BootSector {
    pub(crate) raw: [u8; BOOT_BYTES],
}

macro_rules! fields {
    ($($get:ident, $set:ident: $int:ty, $load:ident, $store:ident, $at:expr;)*) => {
        #[allow(dead_code, reason = "the table is complete, whatever is in use")]
        impl BootSector {
            $(
                pub(crate) fn $get(&self) -> $int { $load(&self.raw, $at) }
                pub(crate) fn $set(&mut self, value: $int) { $store(&mut self.raw, $at, value); }
            )*
        }
    };
}

fn put8(target: &mut [u8], at: usize, value: u8) {
    put(target, at, &[value]);
}

fields! {
    bpb_byts_per_sec, set_bpb_byts_per_sec: u16, le16, put16, 11;
    bpb_sec_per_clus, set_bpb_sec_per_clus: u8, byte, put8, 13;
    bpb_rsvd_sec_cnt, set_bpb_rsvd_sec_cnt: u16, le16, put16, 14;
    bpb_num_fats, set_bpb_num_fats: u8, byte, put8, 16;
    bpb_root_ent_cnt, set_bpb_root_ent_cnt: u16, le16, put16, 17;
    bpb_tot_sec16, set_bpb_tot_sec16: u16, le16, put16, 19;
    bpb_media, set_bpb_media: u8, byte, put8, 21;
    bpb_fat_sz16, set_bpb_fat_sz16: u16, le16, put16, 22;
    bpb_sec_per_trk, set_bpb_sec_per_trk: u16, le16, put16, 24;
    bpb_num_heads, set_bpb_num_heads: u16, le16, put16, 26;
    bpb_hidd_sec, set_bpb_hidd_sec: u32, le32, put32, 28;
    bpb_tot_sec32, set_bpb_tot_sec32: u32, le32, put32, 32;
    // FAT32 only.
    bpb_fat_sz32, set_bpb_fat_sz32: u32, le32, put32, 36;
    bpb_ext_flags, set_bpb_ext_flags: u16, le16, put16, 40;
    bpb_fs_ver, set_bpb_fs_ver: u16, le16, put16, 42;
    bpb_root_clus, set_bpb_root_clus: u32, le32, put32, 44;
    bpb_fs_info, set_bpb_fs_info: u16, le16, put16, 48;
    bpb_bk_boot_sec, set_bpb_bk_boot_sec: u16, le16, put16, 50;
}

impl BootSector {
    pub(crate) fn empty() -> Self {
        Self { raw: [0; BOOT_BYTES] }
    }

    /// FAT32 is what has no 16-bit length of the FAT.
    pub(crate) fn is_fat32(&self) -> bool {
        self.bpb_fat_sz16() == 0
    }

    /// Where the fields begin that come after the BPB: `BS_DrvNum`.
    pub(crate) fn extended_at(&self) -> usize {
        if self.is_fat32() { 64 } else { 36 }
    }

    pub(crate) fn total_sectors(&self) -> u32 {
        match self.bpb_tot_sec16() {
            0 => self.bpb_tot_sec32(),
            small => small.into(),
        }
    }

    pub(crate) fn set_total_sectors(&mut self, sectors: u32) {
        let small = u16::try_from(sectors).ok();
        self.set_bpb_tot_sec16(small.unwrap_or(0));
        self.set_bpb_tot_sec32(if small.is_some() { 0 } else { sectors });
    }

    pub(crate) fn fat_sectors(&self) -> u32 {
        match self.bpb_fat_sz16() {
            0 => self.bpb_fat_sz32(),
            small => small.into(),
        }
    }

    /// Serial number, label and type are there.
    pub(crate) fn is_extended(&self) -> bool {
        byte(&self.raw, self.extended_at() + 2) == EXTENDED_BOOT_SIGNATURE
    }

    pub(crate) fn serial(&self) -> Option<u32> {
        let at = self.extended_at();
        matches!(byte(&self.raw, at + 2), 0x28 | 0x29).then(|| le32(&self.raw, at + 3))
    }

    pub(crate) fn set_serial(&mut self, serial: u32) {
        let at = self.extended_at() + 3;
        put32(&mut self.raw, at, serial);
    }

    /// `BS_VolLab`, padded with spaces.
    pub(crate) fn label(&self) -> Option<[u8; 11]> {
        let at = self.extended_at() + 7;
        self.raw.get(at..at + 11)?.try_into().ok().filter(|_| self.is_extended())
    }

    pub(crate) fn set_label(&mut self, label: &[u8; 11]) {
        let at = self.extended_at() + 7;
        put(&mut self.raw, at, label);
    }

    /// Marked as in use.
    pub(crate) fn is_dirty(&self) -> bool {
        byte(&self.raw, self.extended_at() + 1) & STATE_DIRTY != 0
    }

    pub(crate) fn set_dirty(&mut self, dirty: bool) {
        let at = self.extended_at() + 1;
        let state = byte(&self.raw, at) & !STATE_DIRTY;
        put8(&mut self.raw, at, if dirty { state | STATE_DIRTY } else { state });
    }
}

/// The FSInfo sector of FAT32: where it says how many clusters are free and where to look.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Info {
    pub(crate) free: u32,
    pub(crate) next: u32,
}

impl Info {
    /// "Not known".
    pub(crate) const UNKNOWN: u32 = 0xFFFF_FFFF;

    /// Reads a sector; `None` without its three signatures.
    pub(crate) fn parse(sector: &[u8]) -> Option<Self> {
        let signed = le32(sector, 0) == 0x4161_5252
            && le32(sector, 484) == 0x6141_7272
            && le32(sector, 508) & 0xFFFF_0000 == 0xAA55_0000;
        signed.then(|| Self { free: le32(sector, 488), next: le32(sector, 492) })
    }

    /// The sector, of `size` bytes.
    pub(crate) fn encode(self, size: usize) -> Vec<u8> {
        let mut sector = vec![0; size];
        put32(&mut sector, 0, 0x4161_5252);
        put32(&mut sector, 484, 0x6141_7272);
        put32(&mut sector, 488, self.free);
        put32(&mut sector, 492, self.next);
        put32(&mut sector, 508, 0xAA55_0000);
        sector
    }
}

/// A directory entry of the short sort.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct DirEntry {
    pub(crate) raw: [u8; ENTRY],
}

impl DirEntry {
    /// An entry with that name and those attributes.
    pub(crate) fn new(name: &[u8; 11], attributes: u8) -> Self {
        let mut raw = [0; ENTRY];
        put(&mut raw, 0, name);
        put8(&mut raw, 11, attributes);
        Self { raw }
    }

    /// The entry at the start of `bytes`.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        Some(Self { raw: bytes.get(..ENTRY)?.try_into().ok()? })
    }

    pub(crate) fn name(&self) -> [u8; 11] {
        let mut name = [0; 11];
        name.copy_from_slice(&self.raw[..11]);
        name
    }

    pub(crate) fn set_name(&mut self, name: &[u8; 11], case: u8) {
        put(&mut self.raw, 0, name);
        put8(&mut self.raw, 12, case);
    }

    pub(crate) fn case(&self) -> u8 {
        self.raw[12] & (LOWER_BASE | LOWER_EXTENSION)
    }

    pub(crate) fn attributes(&self) -> u8 {
        self.raw[11]
    }

    pub(crate) fn set_attributes(&mut self, attributes: u8) {
        put8(&mut self.raw, 11, attributes);
    }

    pub(crate) fn is_long_part(&self) -> bool {
        self.raw[11] & attribute::LONG_NAME_MASK == attribute::LONG_NAME
    }

    pub(crate) fn is_volume_id(&self) -> bool {
        !self.is_long_part() && self.raw[11] & attribute::VOLUME_ID != 0
    }

    pub(crate) fn is_directory(&self) -> bool {
        !self.is_long_part() && self.raw[11] & attribute::DIRECTORY != 0
    }

    /// Never used, and nothing after it either.
    pub(crate) fn is_end(&self) -> bool {
        self.raw[0] == 0
    }

    pub(crate) fn is_free(&self) -> bool {
        matches!(self.raw[0], 0 | FREE)
    }

    /// `.` or `..`.
    pub(crate) fn is_dot(&self) -> bool {
        matches!(&self.raw[..11], b".          " | b"..         ")
    }

    /// The first cluster; 0 for none. On FAT12 and FAT16 the high half means something else.
    pub(crate) fn start(&self, fat32: bool) -> u32 {
        let high = if fat32 { u32::from(le16(&self.raw, 20)) << 16 } else { 0 };
        high | u32::from(le16(&self.raw, 26))
    }

    pub(crate) fn set_start(&mut self, start: u32) {
        put16(&mut self.raw, 20, (start >> 16) as u16);
        put16(&mut self.raw, 26, (start & 0xffff) as u16);
    }

    /// `DIR_WrtTime`.
    pub(crate) fn modified(&self) -> Option<Time> {
        time::decode(le16(&self.raw, 24), le16(&self.raw, 22), 0)
    }

    pub(crate) fn set_modified(&mut self, to: Time) {
        let (date, clock, _) = time::encode(to);
        put16(&mut self.raw, 22, clock);
        put16(&mut self.raw, 24, date);
    }

    /// `DIR_CrtTime`, to the hundredth of a second.
    pub(crate) fn created(&self) -> Option<Time> {
        time::decode(le16(&self.raw, 16), le16(&self.raw, 14), byte(&self.raw, 13))
    }

    pub(crate) fn set_created(&mut self, to: Time) {
        let (date, clock, hundredths) = time::encode(to);
        put8(&mut self.raw, 13, hundredths);
        put16(&mut self.raw, 14, clock);
        put16(&mut self.raw, 16, date);
    }

    /// `DIR_LstAccDate`: only a date.
    pub(crate) fn accessed(&self) -> Option<Time> {
        time::decode(le16(&self.raw, 18), 0, 0)
    }

    pub(crate) fn set_accessed(&mut self, to: Time) {
        put16(&mut self.raw, 18, time::encode(to).0);
    }

    pub(crate) fn size(&self) -> u32 {
        le32(&self.raw, 28)
    }

    pub(crate) fn set_size(&mut self, size: u32) {
        put32(&mut self.raw, 28, size);
    }
}
