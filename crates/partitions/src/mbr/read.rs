//! Sector 0 and the chain of extended boot records, into partitions.

use disksmith_disk::{Disk, Result};

use super::MAX_LOGICAL;
use super::layout::{Entry, Record};
use crate::types::is_extended;
use crate::{Geometry, Oddity, OddityKind, Partition, PartitionType, Role};

/// What an MBR lists.
pub(crate) struct Found {
    pub(crate) partitions: Vec<Partition>,
    pub(crate) oddities: Vec<Oddity>,
    pub(crate) geometry: Geometry,
}

/// Reads the partitions of the record in sector 0 and, through extended ones, the logical ones.
pub(crate) fn read(
    disk: &dyn Disk,
    record: &Record,
    sector_size: u32,
    disk_sectors: u64,
) -> Result<Found> {
    let mut reader = Reader {
        disk,
        sector_size,
        disk_sectors,
        partitions: Vec::new(),
        oddities: Vec::new(),
        entries: Vec::new(),
    };
    reader.primaries(record);
    reader.logicals()?;
    let geometry = infer_geometry(&reader.entries);
    reader.addresses(geometry);
    reader.boot_flags();
    Ok(Found { partitions: reader.partitions, oddities: reader.oddities, geometry })
}

struct Reader<'d> {
    disk: &'d dyn Disk,
    sector_size: u32,
    disk_sectors: u64,
    partitions: Vec<Partition>,
    oddities: Vec<Oddity>,
    /// Number, absolute start and entry of each partition.
    entries: Vec<(u32, u64, Entry)>,
}

impl Reader<'_> {
    fn odd(&mut self, kind: OddityKind, detail: String) {
        self.oddities.push(Oddity::new(kind, detail));
    }

    fn odd_of(&mut self, kind: OddityKind, number: u32, detail: String) {
        self.oddities.push(Oddity::of(kind, number, detail));
    }

    fn primaries(&mut self, record: &Record) {
        for (number, entry) in (1u32..).zip(&record.entries) {
            if entry.is_unused() {
                continue;
            }
            if entry.sectors == 0 {
                self.odd_of(
                    OddityKind::Empty,
                    number,
                    format!("partition {number} has type {:x} and no sectors", entry.kind),
                );
                continue;
            }
            if entry.kind == 0 {
                self.odd_of(
                    OddityKind::TypeMissing,
                    number,
                    format!("entry {number} has {} sectors and no type", entry.sectors),
                );
                continue;
            }
            let role = if is_extended(entry.kind) { Role::Extended } else { Role::Primary };
            self.push(number, entry, u64::from(entry.start), role);
        }
    }

    fn push(&mut self, number: u32, entry: &Entry, start: u64, role: Role) {
        self.entries.push((number, start, *entry));
        self.partitions.push(Partition {
            number,
            start,
            sectors: u64::from(entry.sectors),
            kind: PartitionType::Mbr(entry.kind),
            role,
            name: String::new(),
            uuid: None,
            attributes: 0,
            bootable: entry.status & 0x80 != 0,
            raw_name: None,
        });
    }

    /// Follows the chain of the first extended partition, as Linux and the tools do.
    fn logicals(&mut self) -> Result<()> {
        let mut extended = self
            .partitions
            .iter()
            .filter(|p| p.is_extended())
            .map(|p| (p.number, p.start, p.after()));
        let Some((first, base, limit)) = extended.next() else { return Ok(()) };
        let others: Vec<u32> = extended.map(|(number, ..)| number).collect();
        for number in others {
            self.odd_of(
                OddityKind::ExtendedSeveral,
                number,
                format!(
                    "partitions {first} and {number} are both extended; only {first} is followed"
                ),
            );
        }
        let mut seen = Vec::new();
        let mut next = Some(base);
        let mut number = 5;
        while let Some(at) = next {
            next = None;
            if let Some(record) = self.visit(at, base, limit, &mut seen)? {
                let (data, link) = self.split(&record, at);
                if let Some(entry) = data {
                    self.logical(number, &entry, at, base, limit);
                    number += 1;
                }
                next = link.map(|link| base.saturating_add(u64::from(link.start)));
            }
        }
        Ok(())
    }

    /// Reads the boot record at sector `at`; `None`, with the reason noted, ends the chain.
    fn visit(
        &mut self,
        at: u64,
        base: u64,
        limit: u64,
        seen: &mut Vec<u64>,
    ) -> Result<Option<Record>> {
        if seen.contains(&at) {
            self.odd(
                OddityKind::EbrLoop,
                format!("the chain of boot records comes back to sector {at}"),
            );
            return Ok(None);
        }
        if seen.len() >= MAX_LOGICAL {
            self.odd(
                OddityKind::EbrTooMany,
                format!("the chain of boot records has more than {MAX_LOGICAL} links"),
            );
            return Ok(None);
        }
        if at == 0 {
            self.odd(
                OddityKind::EbrLink,
                "a boot record cannot be in sector 0, where the table itself is".to_string(),
            );
            return Ok(None);
        }
        if at < base || at >= limit || at >= self.disk_sectors {
            self.odd(
                OddityKind::EbrLink,
                format!("boot record at sector {at} is outside of the extended partition ({base} to {})", limit.saturating_sub(1)),
            );
            return Ok(None);
        }
        seen.push(at);
        let mut bytes = [0; super::layout::RECORD_LENGTH];
        let offset = at.saturating_mul(u64::from(self.sector_size));
        self.disk.read_at(&mut bytes, offset)?;
        let record = Record::parse(&bytes).unwrap_or_default();
        if !record.signed {
            self.odd(
                OddityKind::EbrSignature,
                format!("boot record at sector {at} has no signature"),
            );
            return Ok(None);
        }
        Ok(Some(record))
    }

    /// The data entry and the link of an extended boot record.
    fn split(&mut self, record: &Record, at: u64) -> (Option<Entry>, Option<Entry>) {
        let (mut data, mut link, mut extra) = (None, None, 0);
        for entry in record.entries.iter().filter(|e| e.sectors > 0) {
            let place = if is_extended(entry.kind) { &mut link } else { &mut data };
            match place {
                None if entry.kind != 0 => *place = Some(*entry),
                _ => extra += 1,
            }
        }
        if extra > 0 {
            self.odd(
                OddityKind::EbrExtra,
                format!(
                    "boot record at sector {at} has {extra} further entries, which are ignored"
                ),
            );
        }
        (data, link)
    }

    fn logical(&mut self, number: u32, entry: &Entry, at: u64, base: u64, limit: u64) {
        let start = at.saturating_add(u64::from(entry.start));
        let after = start.saturating_add(u64::from(entry.sectors));
        if start < base || after > limit {
            self.odd_of(
                OddityKind::LogicalOutside,
                number,
                format!(
                    "partition {number} (sectors {start} to {}) is outside of the extended partition ({base} to {})",
                    after.saturating_sub(1),
                    limit.saturating_sub(1)
                ),
            );
        }
        self.push(number, entry, start, Role::Logical { record: at });
    }

    /// Compares cylinder addresses with sector numbers. Logical partitions' addresses are
    /// written in too many ways to judge.
    fn addresses(&mut self, geometry: Geometry) {
        let wrong: Vec<u32> = self
            .entries
            .iter()
            .filter(|(number, ..)| *number <= 4)
            .filter(|(_, start, entry)| !addresses_agree(entry, *start, geometry))
            .map(|(number, ..)| *number)
            .collect();
        for number in wrong {
            self.odd_of(
                OddityKind::ChsMismatch,
                number,
                format!("partition {number} has cylinder addresses that do not match its sectors"),
            );
        }
    }

    fn boot_flags(&mut self) {
        let strange: Vec<(u32, u8)> = self
            .entries
            .iter()
            .filter(|(_, _, e)| !matches!(e.status, 0 | 0x80))
            .map(|(number, _, e)| (*number, e.status))
            .collect();
        for (number, status) in strange {
            self.odd_of(
                OddityKind::BootFlag,
                number,
                format!("partition {number} has boot flag 0x{status:02x}, neither 0x00 nor 0x80"),
            );
        }
        let active: Vec<u32> = self
            .partitions
            .iter()
            .filter(|p| p.bootable && p.number <= 4)
            .map(|p| p.number)
            .collect();
        if active.len() > 1 {
            self.odd(
                OddityKind::BootSeveral,
                format!("partitions {active:?} are all marked bootable"),
            );
        }
    }
}

fn addresses_agree(entry: &Entry, start: u64, geometry: Geometry) -> bool {
    let last = start.saturating_add(u64::from(entry.sectors)).saturating_sub(1);
    let agrees = |bytes: [u8; 3], sector: u64| {
        let given = Chs3(bytes);
        given == Chs3(geometry.chs(sector).to_disk())
            || given.is_overflow() && sector >= geometry.cylinder() * 1023
    };
    agrees(entry.first_chs, start) && agrees(entry.last_chs, last)
}

#[derive(Eq, PartialEq)]
struct Chs3([u8; 3]);

impl Chs3 {
    /// The forms that tools write for "too far for cylinders".
    fn is_overflow(&self) -> bool {
        matches!(self.0, [0xfe | 0xff, 0xff, 0xff]) || self.0[1] == 0xff && self.0[2] == 0xff
    }
}

/// The geometry that explains the cylinder addresses: where every partition ends with the same
/// head and sector, that is a cylinder's end, if all addresses agree with it.
fn infer_geometry(entries: &[(u32, u64, Entry)]) -> Geometry {
    let usual = Geometry::default();
    let primaries: Vec<_> = entries.iter().filter(|(number, ..)| *number <= 4).collect();
    let Some((_, _, first)) = primaries.first() else { return usual };
    let last = first.last();
    let Some(heads) = last.head.checked_add(1) else { return usual };
    let candidate = Geometry { heads, sectors: last.sector };
    let fits = last.sector > 0
        && primaries.iter().all(|(_, start, entry)| addresses_agree(entry, *start, candidate))
        && !primaries.iter().all(|(_, start, entry)| addresses_agree(entry, *start, usual));
    if fits { candidate } else { usual }
}
