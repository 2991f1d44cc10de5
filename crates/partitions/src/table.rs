//! The model of a partition table that everything else works on.

use std::fmt;

use disksmith_disk::{Disk, Error, Kind, Result, Slice};

use crate::types;
use crate::{Geometry, Guid, Oddity};

/// Which sort of partition table a disk has.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Label {
    /// GUID partition table (UEFI specification, chapter 5).
    Gpt,
    /// Master boot record, with logical partitions.
    Mbr,
    /// No partition table.
    None,
}

impl Label {
    /// As sfdisk names it: `gpt`, `dos`; `none` without a table.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gpt => "gpt",
            Self::Mbr => "dos",
            Self::None => "none",
        }
    }
}

/// What identifies the disk itself.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum DiskId {
    /// The disk GUID of a GPT.
    Gpt(Guid),
    /// The 32-bit signature of an MBR.
    Mbr(u32),
}

impl DiskId {
    /// Reads the id of a GPT (a GUID) or of an MBR (a hexadecimal number).
    pub fn parse(text: &str, label: Label) -> Result<Self> {
        match label {
            Label::Gpt => text.parse().map(Self::Gpt),
            _ => u32::from_str_radix(text.strip_prefix("0x").unwrap_or(text), 16)
                .map(Self::Mbr)
                .map_err(|_| {
                    Error::new(Kind::InvalidInput, format!("'{text}' is not the id of an MBR disk"))
                        .with_hint("It is a hexadecimal number of up to eight digits.")
                }),
        }
    }
}

impl fmt::Display for DiskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gpt(guid) => guid.fmt(f),
            Self::Mbr(id) => write!(f, "0x{id:08x}"),
        }
    }
}

/// What a partition is meant for.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum PartitionType {
    /// The type GUID of a GPT entry.
    Gpt(Guid),
    /// The type byte of an MBR entry.
    Mbr(u8),
}

impl PartitionType {
    /// The name that fdisk prints; `unknown` for types without one.
    pub fn name(self) -> &'static str {
        types::name(self).unwrap_or("unknown")
    }
}

/// As sfdisk writes it: `83`, or the GUID.
impl fmt::Display for PartitionType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gpt(guid) => guid.fmt(f),
            Self::Mbr(code) => write!(f, "{code:x}"),
        }
    }
}

/// Where in the table a partition is recorded.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Role {
    /// In the table itself.
    Primary,
    /// An MBR partition that holds logical ones.
    Extended,
    /// Within the extended partition, with a boot record of its own at this sector.
    Logical {
        /// The sector of its extended boot record.
        record: u64,
    },
}

/// One partition.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Partition {
    /// As Linux counts: the entry's place from 1; logical ones from 5 along their chain.
    pub number: u32,
    /// The first sector.
    pub start: u64,
    /// The length in sectors, at least 1.
    pub sectors: u64,
    /// What it is meant for.
    pub kind: PartitionType,
    /// Where it is recorded.
    pub role: Role,
    /// The label of a GPT entry; empty for MBR.
    pub name: String,
    /// The unique id of a GPT entry.
    pub uuid: Option<Guid>,
    /// The 64 attribute bits of a GPT entry.
    pub attributes: u64,
    /// The active flag of an MBR entry; for GPT see [`gpt::ATTRIBUTE_LEGACY_BOOT`](crate::gpt::ATTRIBUTE_LEGACY_BOOT).
    pub bootable: bool,
    /// The name as stored, kept only when it is no valid UTF-16, so that rewriting the table does
    /// not change it.
    pub(crate) raw_name: Option<Vec<u16>>,
}

impl Partition {
    /// The last sector.
    pub fn end(&self) -> u64 {
        match self.sectors {
            0 => self.start.saturating_sub(1),
            sectors => self.start.saturating_add(sectors - 1),
        }
    }

    /// The sector after the last one.
    pub(crate) fn after(&self) -> u64 {
        self.start.saturating_add(self.sectors)
    }

    /// True for the MBR partition that holds the logical ones.
    pub fn is_extended(&self) -> bool {
        self.role == Role::Extended
    }

    /// True for a partition in a chain of extended boot records.
    pub fn is_logical(&self) -> bool {
        matches!(self.role, Role::Logical { .. })
    }

    /// Whether firmware is told to boot from it: the active flag, or GPT's legacy boot attribute.
    pub fn boots(&self) -> bool {
        self.bootable || self.attributes & crate::gpt::ATTRIBUTE_LEGACY_BOOT != 0
    }

    /// The place of its first byte.
    pub fn start_bytes(&self, sector_size: u32) -> u64 {
        self.start.saturating_mul(u64::from(sector_size))
    }

    /// Its length in bytes.
    pub fn length_bytes(&self, sector_size: u32) -> u64 {
        self.sectors.saturating_mul(u64::from(sector_size))
    }
}

/// A partition table, read or to be written.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    /// Which sort.
    pub label: Label,
    /// Bytes in a sector: 512 or 4096 (any power of two from 512 on is accepted).
    pub sector_size: u32,
    /// The size of the disk in whole sectors.
    pub disk_sectors: u64,
    /// What identifies the disk; `None` without a table.
    pub id: Option<DiskId>,
    /// The first sector that a partition may use.
    pub first_usable: u64,
    /// The last sector that a partition may use.
    pub last_usable: u64,
    /// Ascending by number. The extended partition of an MBR is among them.
    pub partitions: Vec<Partition>,
    /// What a GPT's sector 0 lists besides the protective entry (a hybrid MBR).
    pub hybrid: Vec<Partition>,
    /// The shape used for cylinder addresses.
    pub geometry: Geometry,
    /// How many entries a GPT has room for; 4 for an MBR.
    pub capacity: u32,
    /// How a GPT's entries are stored.
    pub(crate) entries: crate::gpt::read::EntryLayout,
    /// Everything that was not as it should be when the table was read, in the order found.
    pub oddities: Vec<Oddity>,
}

impl Table {
    /// The partition with that number.
    pub fn partition(&self, number: u32) -> Option<&Partition> {
        self.partitions.iter().find(|p| p.number == number)
    }

    pub(crate) fn partition_mut(&mut self, number: u32) -> Result<&mut Partition> {
        self.partitions
            .iter_mut()
            .find(|p| p.number == number)
            .ok_or_else(|| no_such_partition(number))
    }

    /// As [`partition`](Self::partition), or the error that names it.
    pub fn require(&self, number: u32) -> Result<&Partition> {
        self.partition(number).ok_or_else(|| no_such_partition(number))
    }

    /// The extended partition of an MBR.
    pub fn extended(&self) -> Option<&Partition> {
        self.partitions.iter().find(|p| p.is_extended())
    }

    /// The window of `disk` that a partition is.
    pub fn slice<D: Disk>(&self, disk: D, number: u32) -> Result<Slice<D>> {
        let partition = self.require(number)?;
        Slice::new(
            disk,
            partition.start_bytes(self.sector_size),
            partition.length_bytes(self.sector_size),
        )
        .map_err(|e| e.context(format!("Could not open partition {number}")))
    }

    /// What Linux calls PARTUUID: the GPT id in lower case, or disk id and number of an MBR.
    pub fn partition_uuid(&self, partition: &Partition) -> Option<String> {
        match (partition.uuid, self.id) {
            (Some(uuid), _) => Some(uuid.to_string().to_lowercase()),
            (None, Some(DiskId::Mbr(id))) => Some(format!("{id:08x}-{:02x}", partition.number)),
            _ => None,
        }
    }

    /// Bytes to sectors, rounded up.
    pub(crate) fn to_sectors(&self, bytes: u64) -> u64 {
        bytes.div_ceil(u64::from(self.sector_size.max(1)))
    }

    pub(crate) fn sort(&mut self) {
        self.partitions.sort_by_key(|p| p.number);
    }
}

/// The partition that `selector` means: a number, else a GPT name, else a PARTUUID (letter case
/// of ids does not matter).
///
/// `Ok(None)` when nothing fits; a name that several partitions bear is an error of kind
/// [`Kind::InvalidInput`].
pub fn find<'t>(table: &'t Table, selector: &str) -> Result<Option<&'t Partition>> {
    if let Ok(number) = selector.parse::<u32>()
        && let Some(partition) = table.partition(number)
    {
        return Ok(Some(partition));
    }
    let mut named = table.partitions.iter().filter(|p| !p.name.is_empty() && p.name == selector);
    if let Some(first) = named.next() {
        return match named.next() {
            None => Ok(Some(first)),
            Some(second) => Err(Error::new(
                Kind::InvalidInput,
                format!(
                    "partitions {} and {} are both named '{selector}'",
                    first.number, second.number
                ),
            )
            .with_hint("Say which one by its number.")),
        };
    }
    Ok(table
        .partitions
        .iter()
        .find(|p| table.partition_uuid(p).is_some_and(|uuid| uuid.eq_ignore_ascii_case(selector))))
}

pub(crate) fn no_such_partition(number: u32) -> Error {
    Error::new(Kind::NotFound, format!("there is no partition {number}"))
}
