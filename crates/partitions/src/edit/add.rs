//! A new partition.

use disksmith_disk::{Error, Kind, Result, human_size};

use super::require_table;
use crate::{
    Align, Guid, Label, Partition, PartitionType, Region, Role, Table, free_space, gpt, types,
};

/// How long a partition is to be.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Length {
    /// All the free room there is.
    #[default]
    Rest,
    /// So many bytes, rounded up to whole sectors.
    Bytes(u64),
    /// So many sectors.
    Sectors(u64),
}

/// What partition to add. The default is a Linux partition in the largest free region.
#[derive(Clone, Debug, Default)]
pub struct AddRequest {
    /// How long.
    pub length: Length,
    /// The first sector; taken as it is, whatever `align` says. By default the first place where
    /// the partition fits.
    pub start: Option<u64>,
    /// What it is for; a Linux filesystem by default.
    pub kind: Option<PartitionType>,
    /// The label (GPT only).
    pub name: String,
    /// The active flag of an MBR, the legacy boot attribute of a GPT.
    pub bootable: bool,
    /// In the extended partition; by default only where there is no other room.
    pub logical: bool,
    /// Which number; by default the lowest free one.
    pub number: Option<u32>,
    /// The unique id (GPT only); random by default.
    pub uuid: Option<Guid>,
    /// Further attribute bits (GPT only).
    pub attributes: u64,
    /// What a start that is not given is rounded to.
    pub align: Align,
}

/// Adds a partition; returns the new table and the number of the partition. Of an MBR's
/// partitions one at most is bootable: a new one that is takes that from the others. A first
/// logical partition brings the extended one along, in all of the largest free region.
pub fn add(table: &Table, request: &AddRequest) -> Result<(Table, u32)> {
    let (mut new, number) = match request.logical && needs_extended(table) {
        true => insert(&insert(table, &extended(request))?.0, request)?,
        false => insert(table, request)?,
    };
    if new.require(number)?.bootable {
        new.partitions.iter_mut().for_each(|p| p.bootable = p.number == number);
    }
    Ok((new, number))
}

fn needs_extended(table: &Table) -> bool {
    table.label == Label::Mbr && table.extended().is_none()
}

fn extended(request: &AddRequest) -> AddRequest {
    let code = types::MBR_EXTENDED_LBA;
    AddRequest {
        kind: Some(PartitionType::Mbr(code)),
        align: request.align,
        ..AddRequest::default()
    }
}

/// As [`add`], and leaves the others as they are.
pub(crate) fn insert(table: &Table, request: &AddRequest) -> Result<(Table, u32)> {
    require_table(table)?;
    let mut new = table.clone();
    let partition = match table.label {
        Label::Gpt => gpt_partition(table, request)?,
        _ => mbr_partition(table, request)?,
    };
    let number = partition.number;
    new.partitions.push(partition);
    new.sort();
    Ok((new, number))
}

fn gpt_partition(table: &Table, request: &AddRequest) -> Result<Partition> {
    if request.logical {
        return Err(Error::new(Kind::InvalidInput, "a GPT has no logical partitions"));
    }
    gpt::write::check_name(&request.name)?;
    let number = free_number(table, request.number, 1, table.capacity)?;
    let kind = request.kind.unwrap_or(PartitionType::Gpt(types::GPT_LINUX));
    if !matches!(kind, PartitionType::Gpt(guid) if !guid.is_zero()) {
        return Err(Error::new(
            Kind::InvalidInput,
            format!("'{kind}' is not a GPT partition type"),
        ));
    }
    let place = place(table, request, false)?;
    let boot = if request.bootable { gpt::ATTRIBUTE_LEGACY_BOOT } else { 0 };
    Ok(Partition {
        number,
        start: place.start,
        sectors: place.sectors,
        kind,
        role: Role::Primary,
        name: request.name.clone(),
        uuid: Some(request.uuid.unwrap_or_else(Guid::random)),
        attributes: request.attributes | boot,
        bootable: false,
        raw_name: None,
    })
}

fn mbr_partition(table: &Table, request: &AddRequest) -> Result<Partition> {
    if !request.name.is_empty() || request.uuid.is_some() || request.attributes != 0 {
        return Err(Error::new(
            Kind::Unsupported,
            "partitions of an MBR have no names, ids or attributes of their own",
        )
        .with_hint("A GPT has them: partition IMAGE convert gpt."));
    }
    let kind = request.kind.unwrap_or(PartitionType::Mbr(types::MBR_LINUX));
    let PartitionType::Mbr(code) = kind else {
        return Err(Error::new(
            Kind::InvalidInput,
            format!("'{kind}' is not an MBR partition type"),
        ));
    };
    if code == 0 {
        return Err(Error::new(Kind::InvalidInput, "type 0 means that there is no partition"));
    }
    let extended = types::is_extended(code);
    let logical = !extended && wants_logical(table, request);
    if extended && table.extended().is_some() {
        return Err(Error::new(Kind::AlreadyExists, "there is an extended partition already"));
    }
    if logical && table.extended().is_none() {
        return Err(Error::new(Kind::NotFound, "there is no extended partition for a logical one")
            .with_hint("Add one first: partition IMAGE add --type extended."));
    }
    let number = match logical {
        true => logical_number(table, request.number)?,
        false => free_number(table, request.number, 1, 4)?,
    };
    let place = place(table, request, logical)?;
    let role = match (logical, extended) {
        (true, _) => Role::Logical { record: place.record },
        (_, true) => Role::Extended,
        _ => Role::Primary,
    };
    Ok(Partition {
        number,
        start: place.start,
        sectors: place.sectors,
        kind,
        role,
        name: String::new(),
        uuid: None,
        attributes: 0,
        bootable: request.bootable,
        raw_name: None,
    })
}

/// Asked for, or by its number, its start, or because the four primary places are taken.
fn wants_logical(table: &Table, request: &AddRequest) -> bool {
    let Some(extended) = table.extended() else { return request.logical };
    let full = (1..=4).all(|number| table.partition(number).is_some());
    request.logical
        || request.number.is_some_and(|n| n > 4)
        || request.number.is_none()
            && (full
                || request.start.is_some_and(|s| (extended.start..extended.after()).contains(&s)))
}

fn free_number(table: &Table, wanted: Option<u32>, first: u32, last: u32) -> Result<u32> {
    let taken = |number| table.partition(number).is_some();
    match wanted {
        Some(number) if number < first || number > last => Err(Error::new(
            Kind::InvalidInput,
            format!("partition number {number} is not from {first} to {last}"),
        )),
        Some(number) if taken(number) => {
            Err(Error::new(Kind::AlreadyExists, format!("there is a partition {number} already")))
        }
        Some(number) => Ok(number),
        None => (first..=last).find(|n| !taken(*n)).ok_or_else(|| {
            let error =
                Error::new(Kind::OutOfSpace, format!("all {last} places of the table are taken"));
            match table.label {
                Label::Mbr => {
                    error.with_hint("Remove one and add an extended partition, or convert to GPT.")
                }
                _ => error,
            }
        }),
    }
}

/// Logical partitions are numbered along their chain, and a new one goes to its end.
fn logical_number(table: &Table, wanted: Option<u32>) -> Result<u32> {
    let count = table.partitions.iter().filter(|p| p.is_logical()).count();
    if count >= crate::mbr::MAX_LOGICAL {
        return Err(Error::new(
            Kind::LimitExceeded,
            format!("there are {count} logical partitions"),
        ));
    }
    let next = u32::try_from(count).unwrap_or(u32::MAX).saturating_add(5);
    match wanted {
        Some(number) if number != next => Err(Error::new(
            Kind::InvalidInput,
            format!("the next logical partition has number {next}, not {number}"),
        )),
        _ => Ok(next),
    }
}

/// Where a partition goes; `record` only counts for logical ones.
struct Place {
    start: u64,
    sectors: u64,
    record: u64,
}

fn place(table: &Table, request: &AddRequest, logical: bool) -> Result<Place> {
    let wanted = match request.length {
        Length::Rest => None,
        Length::Bytes(bytes) => Some(table.to_sectors(bytes)),
        Length::Sectors(sectors) => Some(sectors),
    };
    if wanted == Some(0) {
        return Err(Error::new(Kind::InvalidInput, "a partition of no length"));
    }
    let regions: Vec<Region> =
        free_space(table).into_iter().filter(|region| region.logical == logical).collect();
    let fits = |region: &Region| fit(table, request, *region, wanted, logical);
    let found = match (request.start, wanted) {
        (Some(start), _) => {
            let region = regions.iter().find(|r| (r.start..r.after()).contains(&start));
            let region = region.ok_or_else(|| not_free(table, start))?;
            return fits(region).ok_or_else(|| no_room(table, wanted, Some(start), &regions));
        }
        (None, Some(_)) => regions.iter().find_map(fits),
        (None, None) => regions.iter().filter_map(fits).max_by(|a, b| {
            // The first of equally large regions.
            a.sectors.cmp(&b.sectors).then(b.start.cmp(&a.start))
        }),
    };
    found.ok_or_else(|| no_room(table, wanted, None, &regions))
}

fn fit(
    table: &Table,
    request: &AddRequest,
    region: Region,
    wanted: Option<u64>,
    logical: bool,
) -> Option<Place> {
    let unit = table.sector_size;
    let align = request.align;
    let (start, record) = match (logical, request.start) {
        (false, Some(start)) => (start, 0),
        (false, None) => (align.start(region.start, unit)?, 0),
        (true, start) => logical_start(table, align, region, start)?,
    };
    if start >= region.after() {
        return None;
    }
    let end = match wanted {
        None => {
            let rounded = align.end_before(region.after(), unit);
            if rounded > start { rounded } else { region.after() }
        }
        Some(sectors) => {
            let exact = start.checked_add(sectors)?;
            let rounded = align.end_after(exact, unit);
            if rounded <= region.after() { rounded } else { exact }
        }
    };
    (end <= region.after()).then_some(Place { start, sectors: end - start, record })
}

/// The start of a logical partition and the sector of its boot record before it.
fn logical_start(
    table: &Table,
    align: Align,
    region: Region,
    wanted: Option<u64>,
) -> Option<(u64, u64)> {
    let base = table.extended()?.start;
    let lead = align.lead(table.sector_size);
    let grain = align.grain(table.sector_size);
    // The record at the start of the extended partition is always there; the first logical
    // partition of a chain uses it.
    if !table.partitions.iter().any(Partition::is_logical) {
        let start = match (wanted, align) {
            (Some(start), _) => start,
            (None, Align::Cylinder(_)) => base.checked_add(lead)?,
            (None, _) => align.start(region.start, table.sector_size)?,
        };
        return (start > base).then_some((start, base));
    }
    let start = match (wanted, align) {
        (Some(start), _) => start,
        (None, Align::Cylinder(_)) => {
            region.start.checked_next_multiple_of(grain)?.checked_add(lead)?
        }
        // sfdisk always puts the record a full unit before; its dumps are to work with ours.
        (None, _) => align.start(region.start.checked_add(lead)?, table.sector_size)?,
    };
    record_before(region, start, lead).map(|record| (start, record))
}

/// The sector for the boot record of a logical partition at `start`: `lead` before it, else as
/// far before it as the free region goes.
pub(crate) fn record_before(region: Region, start: u64, lead: u64) -> Option<u64> {
    let record = start.checked_sub(lead.max(1)).map_or(region.start, |at| at.max(region.start));
    (record < start).then_some(record)
}

fn not_free(table: &Table, start: u64) -> Error {
    let inside = table
        .partitions
        .iter()
        .filter(|p| (p.start..p.after()).contains(&start))
        .max_by_key(|p| p.start);
    let why = match inside {
        Some(p) => format!("sector {start} is in partition {}", p.number),
        None => format!(
            "sector {start} cannot be used: partitions can be in sectors {} to {}",
            table.first_usable, table.last_usable
        ),
    };
    Error::new(Kind::InvalidInput, why)
}

fn no_room(table: &Table, wanted: Option<u64>, start: Option<u64>, regions: &[Region]) -> Error {
    let size = |sectors: u64| human_size(sectors.saturating_mul(u64::from(table.sector_size)));
    let what = match wanted {
        Some(sectors) => format!("there is no room for a partition of {}", size(sectors)),
        None => "there is no room for a partition".to_string(),
    };
    let place = start.map_or_else(String::new, |start| format!(" at sector {start}"));
    let largest = regions.iter().max_by_key(|region| region.sectors);
    let free = match largest {
        Some(r) => format!(
            "; the largest free region is {} (sectors {} to {})",
            size(r.sectors),
            r.start,
            r.end()
        ),
        None => "; nothing is free".to_string(),
    };
    Error::new(Kind::OutOfSpace, format!("{what}{place}{free}"))
}
