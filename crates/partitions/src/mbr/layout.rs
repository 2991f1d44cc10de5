//! The bytes of boot records; no I/O.

use disksmith_disk::bytes::{le16, le32};

use crate::{Chs, Geometry};

/// Offset of the 32-bit disk signature in sector 0.
pub const DISK_ID_OFFSET: usize = 440;
/// Offset of the first of four entries.
pub const ENTRIES_OFFSET: usize = 446;
/// Offset of the signature, whatever the sector size.
pub const SIGNATURE_OFFSET: usize = 510;
/// The signature as it lies on disk.
pub const SIGNATURE: [u8; 2] = [0x55, 0xaa];
/// Bytes of a record that mean something.
pub const RECORD_LENGTH: usize = 512;

const ENTRY_LENGTH: usize = 16;

/// One 16-byte entry.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Entry {
    /// Offset 0: 0x80 for the partition to boot from, else 0.
    pub status: u8,
    /// Offset 1: where it starts, for DOS.
    pub first_chs: [u8; 3],
    /// Offset 4: the type.
    pub kind: u8,
    /// Offset 5: its last sector, for DOS.
    pub last_chs: [u8; 3],
    /// Offset 8: the first sector, relative to what depends on the record.
    pub start: u32,
    /// Offset 12: how many sectors.
    pub sectors: u32,
}

impl Entry {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let three = |at: usize| bytes.get(at..at + 3)?.try_into().ok();
        Some(Self {
            status: *bytes.first()?,
            first_chs: three(1)?,
            kind: *bytes.get(4)?,
            last_chs: three(5)?,
            start: le32(bytes, 8)?,
            sectors: le32(bytes, 12)?,
        })
    }

    /// An entry for sectors `start..start + sectors` of the disk, whose start is given relative
    /// to `base`. `None` where 32 bits do not suffice.
    pub fn new(
        kind: u8,
        bootable: bool,
        start: u64,
        sectors: u64,
        base: u64,
        geometry: Geometry,
    ) -> Option<Self> {
        let last = start.checked_add(sectors)?.checked_sub(1)?;
        Some(Self {
            status: if bootable { 0x80 } else { 0 },
            first_chs: geometry.chs(start).to_disk(),
            kind,
            last_chs: geometry.chs(last).to_disk(),
            start: start.checked_sub(base)?.try_into().ok()?,
            sectors: sectors.try_into().ok()?,
        })
    }

    fn encode(self) -> [u8; ENTRY_LENGTH] {
        let mut bytes = [0; ENTRY_LENGTH];
        bytes[0] = self.status;
        bytes[1..4].copy_from_slice(&self.first_chs);
        bytes[4] = self.kind;
        bytes[5..8].copy_from_slice(&self.last_chs);
        bytes[8..12].copy_from_slice(&self.start.to_le_bytes());
        bytes[12..].copy_from_slice(&self.sectors.to_le_bytes());
        bytes
    }

    /// The address of its first sector.
    pub fn first(&self) -> Chs {
        Chs::from_disk(self.first_chs)
    }

    /// The address of its last sector.
    pub fn last(&self) -> Chs {
        Chs::from_disk(self.last_chs)
    }

    /// True when it lists nothing.
    pub fn is_unused(&self) -> bool {
        self.kind == 0 && self.sectors == 0
    }
}

/// The partition part of sector 0 or of an extended boot record.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Record {
    /// Whether the last two bytes are there.
    pub signed: bool,
    /// The disk signature (sector 0 only).
    pub disk_id: u32,
    /// The four entries.
    pub entries: [Entry; 4],
}

impl Record {
    /// `None` only when `bytes` are fewer than 512.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.get(..RECORD_LENGTH)?;
        let mut entries = [Entry::default(); 4];
        for (entry, raw) in
            entries.iter_mut().zip(bytes.get(ENTRIES_OFFSET..)?.chunks(ENTRY_LENGTH))
        {
            *entry = Entry::parse(raw)?;
        }
        Some(Self {
            signed: le16(bytes, SIGNATURE_OFFSET)? == u16::from_le_bytes(SIGNATURE),
            disk_id: le32(bytes, DISK_ID_OFFSET)?,
            entries,
        })
    }

    /// Puts the entries and the signature into a sector and leaves all else as it is.
    pub fn encode_into(&self, sector: &mut [u8]) {
        let Some(sector) = sector.get_mut(..RECORD_LENGTH) else { return };
        for (index, entry) in self.entries.iter().enumerate() {
            let at = ENTRIES_OFFSET + index * ENTRY_LENGTH;
            sector[at..at + ENTRY_LENGTH].copy_from_slice(&entry.encode());
        }
        sector[SIGNATURE_OFFSET..].copy_from_slice(&SIGNATURE);
    }

    /// As [`encode_into`](Self::encode_into), with the disk signature.
    pub fn encode_with_id(&self, sector: &mut [u8]) {
        if let Some(id) = sector.get_mut(DISK_ID_OFFSET..DISK_ID_OFFSET + 4) {
            id.copy_from_slice(&self.disk_id.to_le_bytes());
        }
        self.encode_into(sector);
    }

    /// Whether the entries look like a table rather than boot code or chance: flags 0 or 0x80,
    /// at least one used, all of them within the disk.
    pub fn is_plausible(&self, disk_sectors: u64) -> bool {
        let used = self.entries.iter().filter(|e| !e.is_unused());
        used.clone().count() > 0
            && self.entries.iter().all(|e| matches!(e.status, 0 | 0x80))
            && used.clone().all(|e| {
                e.kind != 0
                    && e.start > 0
                    && e.sectors > 0
                    && u64::from(e.start) + u64::from(e.sectors) <= disk_sectors
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_boot_code() {
        let mut sector = [0x90; 512];
        let entry = Entry::new(0x83, true, 63, 2_088_387, 0, Geometry::default()).unwrap();
        let record = Record {
            signed: true,
            disk_id: 0x000e_44e8,
            entries: [entry, Entry::default(), Entry::default(), Entry::default()],
        };
        record.encode_with_id(&mut sector);
        assert_eq!(sector[..440], [0x90; 440]);
        assert_eq!(Record::parse(&sector), Some(record));
        // As sfdisk writes it for the guide's disk.
        assert_eq!(
            sector[446..462],
            [0x80, 1, 1, 0, 0x83, 0xfe, 0x3f, 0x81, 0x3f, 0, 0, 0, 0xc3, 0xdd, 0x1f, 0]
        );
    }

    #[test]
    fn never_panics() {
        for length in 0..600 {
            let _ = Record::parse(&vec![0xff; length]);
            Record::default().encode_with_id(&mut vec![0; length]);
        }
        assert!(Entry::new(0x83, false, u64::MAX, 2, 0, Geometry::default()).is_none());
        assert!(Entry::new(0x83, false, 0, 0, 0, Geometry::default()).is_none());
        assert!(Entry::new(0x83, false, 1 << 32, 1, 0, Geometry::default()).is_none());
    }
}
