//! Both copies of a GPT, into one table; whichever is whole counts.

use disksmith_disk::{Disk, Result};

use super::layout::{Entry, Faults, Header};
use crate::mbr::layout::Record;
use crate::{DiskId, Geometry, Label, Oddity, OddityKind, Partition, PartitionType, Role, Table};

/// One copy as found: a header with a signature, its faults, and its entries as far as they
/// could be read.
#[derive(Clone, Debug)]
pub(crate) struct Copy {
    pub(crate) header: Header,
    pub(crate) faults: Faults,
    /// Empty where the header does not say plausibly where they are.
    pub(crate) entries: Vec<u8>,
}

impl Copy {
    pub(crate) fn is_valid(&self) -> bool {
        !self.faults.fatal()
    }

    /// The header itself is whole, whatever its entries are.
    fn header_is_valid(&self) -> bool {
        !self.faults.0.iter().any(|(kind, _)| {
            !matches!(
                kind,
                OddityKind::HeaderReserved
                    | OddityKind::HeaderRevision
                    | OddityKind::EntriesCrc
                    | OddityKind::UsableRange
            )
        })
    }
}

/// Everything of a GPT that is on a disk.
#[derive(Clone, Debug, Default)]
pub(crate) struct Survey {
    pub(crate) primary: Option<Copy>,
    /// In the last sector, else where the primary header says.
    pub(crate) backup: Option<Copy>,
    pub(crate) backup_lba: u64,
}

impl Survey {
    /// Looks at sector 1, at the last sector and, if the backup is not there, where the primary
    /// header says that it is.
    pub(crate) fn new(disk: &dyn Disk, sector_size: u32, disk_sectors: u64) -> Result<Self> {
        if disk_sectors < 3 {
            return Ok(Self::default());
        }
        let last = disk_sectors - 1;
        let primary = load(disk, 1, sector_size, disk_sectors)?;
        let mut survey = Self {
            backup: load(disk, last, sector_size, disk_sectors)?,
            backup_lba: last,
            primary,
        };
        let told = survey.primary.as_ref().map(|copy| copy.header.alternate_lba);
        if let Some(told) = told.filter(|lba| *lba > 1 && *lba < last)
            && !survey.backup.as_ref().is_some_and(Copy::is_valid)
            && let Some(copy) = load(disk, told, sector_size, disk_sectors)?
        {
            survey.backup = Some(copy);
            survey.backup_lba = told;
        }
        Ok(survey)
    }

    pub(crate) fn has_signature(&self) -> bool {
        self.primary.is_some() || self.backup.is_some()
    }

    pub(crate) fn primary_is_valid(&self) -> bool {
        self.primary.as_ref().is_some_and(Copy::is_valid)
    }

    pub(crate) fn backup_is_valid(&self) -> bool {
        self.backup.as_ref().is_some_and(Copy::is_valid)
    }

    /// The header and the entries to believe: a whole copy, else a whole header of one with
    /// entries of the other that fit its checksum.
    pub(crate) fn best(&self) -> Option<(&Header, &[u8])> {
        let copies = [self.primary.as_ref(), self.backup.as_ref()];
        let whole = copies.iter().flatten().find(|copy| copy.is_valid());
        if let Some(copy) = whole {
            return Some((&copy.header, &copy.entries));
        }
        let headers = copies.iter().flatten().filter(|copy| copy.header_is_valid());
        headers
            .flat_map(|copy| copies.iter().flatten().map(move |other| (copy, other)))
            .find(|(copy, other)| {
                copy.header.entries_bytes() == other.entries.len() as u64
                    && crc32fast::hash(&other.entries) == copy.header.entries_crc
            })
            .map(|(copy, other)| (&copy.header, other.entries.as_slice()))
    }
}

/// Reads the copy whose header is in sector `lba`; `None` without a signature.
fn load(disk: &dyn Disk, lba: u64, sector_size: u32, disk_sectors: u64) -> Result<Option<Copy>> {
    let unit = u64::from(sector_size);
    let mut sector = vec![0; sector_size as usize];
    disk.read_at(&mut sector, lba.saturating_mul(unit))?;
    let Some((header, mut faults)) = Header::parse(&sector, lba) else { return Ok(None) };
    let mut entries = Vec::new();
    if !faults.0.iter().any(|(kind, _)| *kind == OddityKind::EntriesSize) {
        entries = load_entries(disk, &header, lba, sector_size, disk_sectors, &mut faults)?;
    }
    check_usable(&header, sector_size, disk_sectors, &mut faults);
    Ok(Some(Copy { header, faults, entries }))
}

fn load_entries(
    disk: &dyn Disk,
    header: &Header,
    lba: u64,
    sector_size: u32,
    disk_sectors: u64,
    faults: &mut Faults,
) -> Result<Vec<u8>> {
    let unit = u64::from(sector_size);
    let first = header.partition_entry_lba;
    let after = first.checked_add(header.entries_bytes().div_ceil(unit));
    let inside = after
        .is_some_and(|after| first >= 2 && after <= disk_sectors && !(first..after).contains(&lba));
    if !inside {
        faults.add(
            OddityKind::EntriesLocation,
            format!("the entries are said to be at sector {first}"),
        );
        return Ok(Vec::new());
    }
    // Bounded by MAX_ENTRIES_BYTES, which the header was checked for.
    let mut entries = vec![0; usize::try_from(header.entries_bytes()).unwrap_or(0)];
    disk.read_at(&mut entries, first.saturating_mul(unit))?;
    let found = crc32fast::hash(&entries);
    if found != header.entries_crc {
        faults.add(
            OddityKind::EntriesCrc,
            format!(
                "checksum of the entries is {found:08x}, not {:08x} as written",
                header.entries_crc
            ),
        );
    }
    Ok(entries)
}

fn check_usable(header: &Header, sector_size: u32, disk_sectors: u64, faults: &mut Faults) {
    let (first, last) = (header.first_usable_lba, header.last_usable_lba);
    let length = header.entries_bytes().div_ceil(u64::from(sector_size));
    let entries = header.partition_entry_lba;
    // Written with saturation: every field is whatever somebody put there.
    let clear = first > entries.saturating_add(length).saturating_sub(1) || last < entries;
    if first < 2 || first > last.saturating_add(1) || last >= disk_sectors || !clear {
        faults.add(
            OddityKind::UsableRange,
            format!("usable sectors {first} to {last} on a disk of {disk_sectors} sectors"),
        );
    }
}

/// Turns what was found into a table.
pub(crate) fn table(
    survey: &Survey,
    record: &Record,
    sector_size: u32,
    disk_sectors: u64,
) -> Table {
    let mut oddities = Vec::new();
    report(survey, disk_sectors, &mut oddities);
    let hybrid = super::protective::inspect(record, disk_sectors, &mut oddities);
    let mut table = Table {
        label: Label::Gpt,
        sector_size,
        disk_sectors,
        id: None,
        first_usable: 34,
        last_usable: disk_sectors.saturating_sub(34),
        partitions: Vec::new(),
        hybrid,
        geometry: Geometry::default(),
        capacity: super::DEFAULT_ENTRIES,
        entries: EntryLayout::default(),
        oddities: Vec::new(),
    };
    if let Some((header, entries)) = survey.best() {
        table.id = Some(DiskId::Gpt(header.disk_guid));
        table.first_usable = header.first_usable_lba;
        table.last_usable = header.last_usable_lba;
        table.capacity = header.number_of_entries;
        let primary = survey.primary.as_ref().filter(|c| c.header_is_valid());
        table.entries = EntryLayout {
            size: header.size_of_entry,
            lba: primary.map_or(2, |copy| copy.header.partition_entry_lba),
        };
        let size = header.size_of_entry as usize;
        for (number, bytes) in (1u32..).zip(entries.chunks_exact(size.max(1))) {
            if let Some(entry) = Entry::parse(bytes) {
                table.partitions.extend(partition(number, &entry, &mut oddities));
            }
        }
        if header.disk_guid.is_zero() {
            oddities.push(Oddity::new(OddityKind::ZeroId, "the disk id is all zeroes"));
        }
    }
    table.oddities = oddities;
    table
}

/// Where and how the entries of a GPT are stored.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct EntryLayout {
    /// Bytes in an entry.
    pub(crate) size: u32,
    /// Where the primary copy's begin.
    pub(crate) lba: u64,
}

impl Default for EntryLayout {
    fn default() -> Self {
        Self { size: super::layout::ENTRY_SIZE, lba: 2 }
    }
}

fn partition(number: u32, entry: &Entry, oddities: &mut Vec<Oddity>) -> Option<Partition> {
    let (start, end) = (entry.starting_lba, entry.ending_lba);
    let Some(sectors) = end.checked_sub(start).and_then(|n| n.checked_add(1)) else {
        oddities.push(Oddity::of(
            OddityKind::Empty,
            number,
            format!("partition {number} ends (sector {end}) before it starts (sector {start})"),
        ));
        return None;
    };
    let name = String::from_utf16(&entry.name);
    if name.is_err() {
        oddities.push(Oddity::of(
            OddityKind::NameInvalid,
            number,
            format!("the name of partition {number} is not valid UTF-16"),
        ));
    }
    Some(Partition {
        number,
        start,
        sectors,
        kind: PartitionType::Gpt(entry.partition_type),
        role: Role::Primary,
        raw_name: name.is_err().then(|| entry.name.clone()),
        name: name.unwrap_or_else(|_| String::from_utf16_lossy(&entry.name)),
        uuid: Some(entry.unique),
        attributes: entry.attributes,
        bootable: false,
    })
}

/// Names what is wrong with the copies, each for itself and compared.
fn report(survey: &Survey, disk_sectors: u64, oddities: &mut Vec<Oddity>) {
    for (which, copy) in [("primary", &survey.primary), ("backup", &survey.backup)] {
        for (kind, detail) in copy.iter().flat_map(|copy| &copy.faults.0) {
            oddities.push(Oddity::new(*kind, format!("{which} GPT: {detail}")));
        }
    }
    let mut odd = |kind, detail: &str| oddities.push(Oddity::new(kind, detail));
    let (primary, backup) = (survey.primary_is_valid(), survey.backup_is_valid());
    if survey.primary.is_none() {
        odd(OddityKind::HeaderSignature, "primary GPT: there is no header in sector 1");
    }
    if survey.backup.is_none() {
        odd(OddityKind::BackupMissing, "there is no backup GPT at the end of the disk");
    }
    match (primary, backup) {
        (true, false) if survey.backup.is_some() => {
            odd(OddityKind::BackupDamaged, "the backup GPT is damaged; the primary one is used");
        }
        (false, true) => {
            odd(OddityKind::PrimaryDamaged, "the primary GPT is damaged; the backup is used");
        }
        (false, false) if survey.best().is_some() => {
            odd(
                OddityKind::PrimaryDamaged,
                "both copies are damaged; one's header fits the other's entries",
            );
        }
        (false, false) => odd(OddityKind::GptUnreadable, "neither copy of the GPT can be read"),
        _ => {}
    }
    if survey.backup.is_some() && survey.backup_lba != disk_sectors.saturating_sub(1) {
        oddities.push(Oddity::new(
            OddityKind::BackupNotAtEnd,
            format!(
                "the backup GPT is in sector {}, the disk ends with sector {}",
                survey.backup_lba,
                disk_sectors.saturating_sub(1)
            ),
        ));
    }
    if let (true, true, Some(a), Some(b)) = (primary, backup, &survey.primary, &survey.backup) {
        let differing = differences(a, b, survey.backup_lba);
        if !differing.is_empty() {
            oddities.push(Oddity::new(
                OddityKind::BackupMismatch,
                format!("primary and backup GPT differ in {}", differing.join(", ")),
            ));
        }
    }
}

fn differences(primary: &Copy, backup: &Copy, backup_lba: u64) -> Vec<&'static str> {
    let (a, b) = (&primary.header, &backup.header);
    [
        ("disk id", a.disk_guid != b.disk_guid),
        ("first usable sector", a.first_usable_lba != b.first_usable_lba),
        ("last usable sector", a.last_usable_lba != b.last_usable_lba),
        ("number of entries", a.number_of_entries != b.number_of_entries),
        ("size of entries", a.size_of_entry != b.size_of_entry),
        ("where the backup is", a.alternate_lba != backup_lba),
        ("where the primary is", b.alternate_lba != a.my_lba),
        ("partitions", primary.entries != backup.entries),
    ]
    .into_iter()
    .filter_map(|(what, differs)| differs.then_some(what))
    .collect()
}
