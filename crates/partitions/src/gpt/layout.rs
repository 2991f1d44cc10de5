//! The bytes of GPT headers and entries; no I/O.

use disksmith_disk::bytes::{le16, le32, le64};

use crate::{Guid, OddityKind};

/// `Signature` @ 0.
pub const SIGNATURE: &[u8; 8] = b"EFI PART";
/// `Revision` 1.0.
pub const REVISION: u32 = 0x0001_0000;
/// `HeaderSize` of revision 1.0.
pub const HEADER_SIZE: u32 = 92;
/// `SizeOfPartitionEntry` that everybody uses.
pub const ENTRY_SIZE: u32 = 128;
/// Characters (UTF-16 units) of a name.
pub const NAME_UNITS: usize = 36;

/// A header, field by field, in the order of the specification.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[expect(missing_docs, reason = "the specification's own names, table 5-5")]
pub struct Header {
    pub revision: u32,
    pub header_size: u32,
    pub my_lba: u64,
    pub alternate_lba: u64,
    pub first_usable_lba: u64,
    pub last_usable_lba: u64,
    pub disk_guid: Guid,
    pub partition_entry_lba: u64,
    pub number_of_entries: u32,
    pub size_of_entry: u32,
    pub entries_crc: u32,
}

/// Why a header does not count, and what else is odd about it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Faults(pub Vec<(OddityKind, String)>);

impl Faults {
    pub(crate) fn add(&mut self, kind: OddityKind, detail: impl Into<String>) {
        self.0.push((kind, detail.into()));
    }

    /// True when the header cannot be trusted.
    pub(crate) fn fatal(&self) -> bool {
        self.0.iter().any(|(kind, _)| {
            !matches!(
                kind,
                OddityKind::HeaderReserved | OddityKind::HeaderRevision | OddityKind::UsableRange
            )
        })
    }
}

impl Header {
    /// Reads the header in `sector`, which is said to be sector `lba`. `None` without a
    /// signature; else the fields, trusted or not, and what is wrong with them.
    pub fn parse(sector: &[u8], lba: u64) -> Option<(Self, Faults)> {
        if sector.get(..8)? != SIGNATURE {
            return None;
        }
        let header = Self {
            revision: le32(sector, 8)?,
            header_size: le32(sector, 12)?,
            my_lba: le64(sector, 24)?,
            alternate_lba: le64(sector, 32)?,
            first_usable_lba: le64(sector, 40)?,
            last_usable_lba: le64(sector, 48)?,
            disk_guid: Guid::from_disk(sector.get(56..72)?.try_into().ok()?),
            partition_entry_lba: le64(sector, 72)?,
            number_of_entries: le32(sector, 80)?,
            size_of_entry: le32(sector, 84)?,
            entries_crc: le32(sector, 88)?,
        };
        let mut faults = Faults::default();
        header.check(sector, lba, &mut faults);
        Some((header, faults))
    }

    fn check(&self, sector: &[u8], lba: u64, faults: &mut Faults) {
        if self.revision != REVISION {
            faults.add(
                OddityKind::HeaderRevision,
                format!("revision 0x{:08x}, not 1.0", self.revision),
            );
        }
        let covered = usize::try_from(self.header_size)
            .ok()
            .filter(|size| *size >= HEADER_SIZE as usize)
            .and_then(|size| sector.get(..size));
        match covered {
            None => {
                faults.add(OddityKind::HeaderSize, format!("header length {}", self.header_size))
            }
            Some(bytes) => {
                let (found, told) = (header_crc(bytes), le32(sector, 16).unwrap_or(0));
                if found != told {
                    faults.add(
                        OddityKind::HeaderCrc,
                        format!("header checksum is {found:08x}, not {told:08x} as written"),
                    );
                }
            }
        }
        if self.my_lba != lba {
            faults.add(
                OddityKind::HeaderLocation,
                format!("the header in sector {lba} says that it is in sector {}", self.my_lba),
            );
        }
        if self.size_of_entry < ENTRY_SIZE || !self.size_of_entry.is_multiple_of(8) {
            faults.add(OddityKind::EntriesSize, format!("entries of {} bytes", self.size_of_entry));
        }
        if self.number_of_entries == 0
            || self.number_of_entries > super::MAX_ENTRIES
            || self.entries_bytes() > super::MAX_ENTRIES_BYTES
        {
            faults.add(
                OddityKind::EntriesSize,
                format!("{} entries of {} bytes", self.number_of_entries, self.size_of_entry),
            );
        }
        let reserved = sector.get(20..24).is_some_and(|b| b != [0; 4])
            || sector.get(HEADER_SIZE as usize..).is_some_and(|b| b.iter().any(|b| *b != 0));
        if reserved {
            faults.add(OddityKind::HeaderReserved, "reserved bytes of the header are not zero");
        }
    }

    /// The length of all entries in bytes.
    pub fn entries_bytes(&self) -> u64 {
        u64::from(self.number_of_entries) * u64::from(self.size_of_entry)
    }

    /// The header with its checksum, at the start of a sector of zeroes.
    pub fn encode(&self, sector_size: u32) -> Vec<u8> {
        let mut sector = vec![0; (sector_size as usize).max(512)];
        let mut put = |at: usize, bytes: &[u8]| {
            if let Some(place) = sector.get_mut(at..at + bytes.len()) {
                place.copy_from_slice(bytes);
            }
        };
        put(0, SIGNATURE);
        put(8, &REVISION.to_le_bytes());
        put(12, &HEADER_SIZE.to_le_bytes());
        put(24, &self.my_lba.to_le_bytes());
        put(32, &self.alternate_lba.to_le_bytes());
        put(40, &self.first_usable_lba.to_le_bytes());
        put(48, &self.last_usable_lba.to_le_bytes());
        put(56, &self.disk_guid.to_disk());
        put(72, &self.partition_entry_lba.to_le_bytes());
        put(80, &self.number_of_entries.to_le_bytes());
        put(84, &self.size_of_entry.to_le_bytes());
        put(88, &self.entries_crc.to_le_bytes());
        let crc = header_crc(sector.get(..HEADER_SIZE as usize).unwrap_or_default());
        sector[16..20].copy_from_slice(&crc.to_le_bytes());
        sector
    }
}

/// The checksum of a header, with its own field taken as zero.
fn header_crc(bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(bytes.get(..16).unwrap_or_default());
    hasher.update(&[0; 4]);
    hasher.update(bytes.get(20..).unwrap_or_default());
    hasher.finalize()
}

/// An entry in use.
#[derive(Clone, Debug, Eq, PartialEq)]
#[expect(missing_docs, reason = "the specification's own names, table 5-6")]
pub struct Entry {
    pub partition_type: Guid,
    pub unique: Guid,
    pub starting_lba: u64,
    pub ending_lba: u64,
    pub attributes: u64,
    /// The name's UTF-16 units before the first zero.
    pub name: Vec<u16>,
}

impl Entry {
    /// `None` for an unused entry (its type is zero), and for too few bytes.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let guid = |at: usize| Some(Guid::from_disk(bytes.get(at..at + 16)?.try_into().ok()?));
        let partition_type = guid(0)?;
        if partition_type.is_zero() {
            return None;
        }
        let name = (0..NAME_UNITS)
            .map_while(|unit| le16(bytes, 56 + 2 * unit))
            .take_while(|unit| *unit != 0)
            .collect();
        Some(Self {
            partition_type,
            unique: guid(16)?,
            starting_lba: le64(bytes, 32)?,
            ending_lba: le64(bytes, 40)?,
            attributes: le64(bytes, 48)?,
            name,
        })
    }

    /// Writes the entry over the first 128 bytes of `place`.
    pub fn encode_into(&self, place: &mut [u8]) {
        let Some(place) = place.get_mut(..ENTRY_SIZE as usize) else { return };
        place.fill(0);
        place[..16].copy_from_slice(&self.partition_type.to_disk());
        place[16..32].copy_from_slice(&self.unique.to_disk());
        place[32..40].copy_from_slice(&self.starting_lba.to_le_bytes());
        place[40..48].copy_from_slice(&self.ending_lba.to_le_bytes());
        place[48..56].copy_from_slice(&self.attributes.to_le_bytes());
        for (unit, at) in self.name.iter().take(NAME_UNITS).zip((56..).step_by(2)) {
            place[at..at + 2].copy_from_slice(&unit.to_le_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header {
            revision: REVISION,
            header_size: HEADER_SIZE,
            my_lba: 1,
            alternate_lba: 2_097_151,
            first_usable_lba: 34,
            last_usable_lba: 2_097_118,
            disk_guid: "DD0B1D54-6710-441E-9330-A42676FA5076".parse().unwrap(),
            partition_entry_lba: 2,
            number_of_entries: 128,
            size_of_entry: 128,
            entries_crc: 0xd966_fac0,
        }
    }

    #[test]
    fn checksum_as_parted_writes_it() {
        // A disk of 1 GiB that parted labelled: its checksum field is 0x3fa9aa5f.
        let sector = header().encode(512);
        assert_eq!(sector[16..20], [0x5f, 0xaa, 0xa9, 0x3f]);
        let (parsed, faults) = Header::parse(&sector, 1).unwrap();
        assert_eq!(parsed, header());
        assert_eq!(faults, Faults::default());
    }

    #[test]
    fn each_field_is_checked() {
        let good = header().encode(512);
        for at in 0..92 {
            let mut bad = good.clone();
            bad[at] ^= 0x41;
            match Header::parse(&bad, 1) {
                None => assert!(at < 8),
                Some((_, faults)) => assert!(faults.fatal() || (20..24).contains(&at), "byte {at}"),
            }
        }
        assert!(!Header::parse(&good, 2).unwrap().1.0.is_empty());
        for length in 0..512 {
            let _ = Header::parse(&good[..length], 1);
            let _ = Entry::parse(&good[..length]);
        }
    }
}
