//! Entries of the snapshot table (digest section 9).

use disksmith_disk::bytes::{be16, be32, be64};

use super::put;

const FIXED: usize = 40;
/// Extra data that this program writes: state size, disk size, instruction count.
const EXTRA: usize = 24;
/// Extra data beyond this makes an image unreadable for QEMU.
const EXTRA_MOST: usize = 1024;

/// One snapshot, as it lies in the table.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct SnapshotEntry {
    /// Where its L1 table lies.
    pub l1_table_offset: u64,
    /// Entries of its L1 table.
    pub l1_size: u32,
    /// Unique; decimal by custom.
    pub id: Vec<u8>,
    /// The user's name.
    pub name: Vec<u8>,
    /// Seconds since 1970.
    pub date_sec: u32,
    /// And nanoseconds.
    pub date_nsec: u32,
    /// Guest time in nanoseconds.
    pub vm_clock_nsec: u64,
    /// Bytes of machine state.
    pub vm_state_size: u64,
    /// Guest-visible size then; `None` in old tables.
    pub disk_size: Option<u64>,
    /// Instructions executed; `None` when the field is absent, all ones when unknown.
    pub icount: Option<u64>,
    /// Bytes of extra data in the table as read; what a writer must reach is 24.
    pub extra_data_size: u32,
    /// Extra data beyond the known fields; kept.
    pub unknown_extra: Vec<u8>,
}

/// What stands at the front of a piece of the snapshot table.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum SnapshotParse {
    /// An entry, and how many bytes it takes with its padding.
    Entry(Box<SnapshotEntry>, usize),
    /// An entry whose extra data is larger than allowed: what would be left of it when cut to
    /// the limit, the bytes it takes, and its claimed extra data.
    ExtraTooLarge(Box<SnapshotEntry>, usize, u32),
    /// The bytes end before the entry does; this many are needed to get further.
    More(usize),
}

impl SnapshotEntry {
    /// Reads the entry at the front of `bytes`.
    pub fn parse(bytes: &[u8]) -> SnapshotParse {
        let Some((fixed, id_size, name_size)) = Self::parse_fixed(bytes) else {
            return SnapshotParse::More(FIXED);
        };
        let extra_size = fixed.extra_data_size as usize;
        let names = FIXED.saturating_add(extra_size);
        let end = names.saturating_add(id_size).saturating_add(name_size);
        let (Some(extra), Some(id), Some(name)) = (
            bytes.get(FIXED..names),
            bytes.get(names..names.saturating_add(id_size)),
            bytes.get(names.saturating_add(id_size)..end),
        ) else {
            return SnapshotParse::More(end);
        };
        let mut entry = Self { id: id.to_vec(), name: name.to_vec(), ..fixed };
        let taken = end.next_multiple_of(8);
        entry.take_extra(extra.get(..EXTRA_MOST).unwrap_or(extra));
        if extra_size > EXTRA_MOST {
            return SnapshotParse::ExtraTooLarge(Box::new(entry), taken, extra_size as u32);
        }
        SnapshotParse::Entry(Box::new(entry), taken)
    }

    fn parse_fixed(bytes: &[u8]) -> Option<(Self, usize, usize)> {
        let entry = Self {
            l1_table_offset: be64(bytes, 0)?,
            l1_size: be32(bytes, 8)?,
            date_sec: be32(bytes, 16)?,
            date_nsec: be32(bytes, 20)?,
            vm_clock_nsec: be64(bytes, 24)?,
            vm_state_size: be32(bytes, 32)?.into(),
            extra_data_size: be32(bytes, 36)?,
            ..Self::default()
        };
        Some((entry, be16(bytes, 12)?.into(), be16(bytes, 14)?.into()))
    }

    fn take_extra(&mut self, extra: &[u8]) {
        if let Some(size) = be64(extra, 0) {
            self.vm_state_size = size;
        }
        self.disk_size = be64(extra, 8);
        self.icount = be64(extra, 16);
        self.unknown_extra = extra.get(EXTRA..).unwrap_or_default().to_vec();
    }

    /// The entry with its padding, extra data complete. `virtual_size` stands for a size that
    /// the entry does not know.
    pub fn encode(&self, virtual_size: u64) -> Vec<u8> {
        let extra_size = EXTRA.saturating_add(self.unknown_extra.len());
        let mut bytes = vec![0; FIXED.saturating_add(EXTRA)];
        put(&mut bytes, 0, &self.l1_table_offset.to_be_bytes());
        put(&mut bytes, 8, &self.l1_size.to_be_bytes());
        put(&mut bytes, 12, &(self.id.len() as u16).to_be_bytes());
        put(&mut bytes, 14, &(self.name.len() as u16).to_be_bytes());
        put(&mut bytes, 16, &self.date_sec.to_be_bytes());
        put(&mut bytes, 20, &self.date_nsec.to_be_bytes());
        put(&mut bytes, 24, &self.vm_clock_nsec.to_be_bytes());
        let short_state = u32::try_from(self.vm_state_size).unwrap_or(0);
        put(&mut bytes, 32, &short_state.to_be_bytes());
        put(&mut bytes, 36, &(extra_size as u32).to_be_bytes());
        put(&mut bytes, 40, &self.vm_state_size.to_be_bytes());
        put(&mut bytes, 48, &self.disk_size.unwrap_or(virtual_size).to_be_bytes());
        put(&mut bytes, 56, &self.icount.unwrap_or(u64::MAX).to_be_bytes());
        bytes.extend_from_slice(&self.unknown_extra);
        bytes.extend_from_slice(&self.id);
        bytes.extend_from_slice(&self.name);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        let entry = SnapshotEntry {
            l1_table_offset: 0x50000,
            l1_size: 2,
            id: b"1".to_vec(),
            name: b"before".to_vec(),
            vm_state_size: 5 << 32,
            disk_size: Some(1 << 30),
            icount: Some(7),
            extra_data_size: 27,
            unknown_extra: b"abc".to_vec(),
            ..SnapshotEntry::default()
        };
        let bytes = entry.encode(0);
        assert_eq!(
            SnapshotEntry::parse(&bytes),
            SnapshotParse::Entry(Box::new(entry), bytes.len())
        );
        for cut in 0..73 {
            assert!(
                matches!(SnapshotEntry::parse(&bytes[..cut]), SnapshotParse::More(n) if n > cut)
            );
        }
    }
}
