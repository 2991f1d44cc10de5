//! An MBR table, into the sectors to write.

use disksmith_disk::{Error, Kind, Result};

use super::layout::{Entry, Record};
use crate::{DiskId, Geometry, Partition, PartitionType, Role, Table, types};

/// The records of a table: that of sector 0, and extended boot records with their sectors, in
/// the order of the chain.
pub(crate) struct Records {
    pub(crate) main: Record,
    pub(crate) chain: Vec<(u64, Record)>,
}

/// Turns `table` into records. Refuses what an MBR cannot say.
pub(crate) fn encode(table: &Table) -> Result<Records> {
    let disk_id = match table.id {
        Some(DiskId::Mbr(id)) => id,
        _ => return Err(Error::new(Kind::InvalidInput, "an MBR needs a 32-bit disk id")),
    };
    let mut main = Record { signed: true, disk_id, ..Record::default() };
    for partition in table.partitions.iter().filter(|p| !p.is_logical()) {
        let slot = usize::try_from(partition.number)
            .ok()
            .and_then(|n| n.checked_sub(1))
            .and_then(|n| main.entries.get_mut(n))
            .ok_or_else(|| {
                Error::new(
                    Kind::InvalidInput,
                    format!("an MBR has no primary partition {}", partition.number),
                )
            })?;
        *slot = entry(partition, 0, table.geometry)?;
    }
    Ok(Records { main, chain: chain(table)? })
}

fn chain(table: &Table) -> Result<Vec<(u64, Record)>> {
    let logicals: Vec<&Partition> = table.partitions.iter().filter(|p| p.is_logical()).collect();
    let Some(extended) = table.extended() else {
        return match logicals.first() {
            None => Ok(Vec::new()),
            Some(p) => Err(Error::new(
                Kind::InvalidInput,
                format!("partition {} is logical and there is no extended partition", p.number),
            )),
        };
    };
    // Its first boot record would lie over the table: nothing can be in such a partition.
    if extended.start == 0 && logicals.is_empty() {
        return Ok(Vec::new());
    }
    let mut places: Vec<(u64, Option<&Partition>)> = logicals
        .iter()
        .map(|p| match p.role {
            Role::Logical { record } => (record, Some(*p)),
            _ => (p.start, Some(*p)),
        })
        .collect();
    // The first record has to be at the start of the extended partition; it is an empty one
    // where no logical partition has its record there first.
    if places.first().map(|(at, _)| *at) != Some(extended.start) {
        places.insert(0, (extended.start, None));
    }
    let mut chain = Vec::with_capacity(places.len());
    for (index, (at, partition)) in places.iter().enumerate() {
        let mut record = Record { signed: true, ..Record::default() };
        if let Some(partition) = partition {
            record.entries[0] = entry(partition, *at, table.geometry)?;
        }
        if let Some((next, partition)) = places.get(index + 1) {
            record.entries[1] = link(*next, *partition, extended.start, table.geometry)?;
        }
        chain.push((*at, record));
    }
    Ok(chain)
}

fn entry(partition: &Partition, base: u64, geometry: Geometry) -> Result<Entry> {
    let PartitionType::Mbr(kind) = partition.kind else {
        return Err(Error::new(
            Kind::InvalidInput,
            format!("partition {} has a GPT type, which an MBR cannot hold", partition.number),
        ));
    };
    Entry::new(kind, partition.bootable, partition.start, partition.sectors, base, geometry)
        .ok_or_else(|| too_far(partition))
}

/// A link covers the next record and the partition behind it.
fn link(next: u64, partition: Option<&Partition>, base: u64, geometry: Geometry) -> Result<Entry> {
    let after = partition.map_or(next.saturating_add(1), |p| p.after().max(next.saturating_add(1)));
    Entry::new(types::MBR_EXTENDED, false, next, after.saturating_sub(next), base, geometry)
        .ok_or_else(|| {
            Error::new(
                Kind::InvalidInput,
                format!("a boot record cannot be linked at sector {next}"),
            )
        })
}

fn too_far(partition: &Partition) -> Error {
    Error::new(
        Kind::Unsupported,
        format!(
            "partition {} (sectors {} to {}) does not fit into the 32-bit sector numbers of an MBR",
            partition.number,
            partition.start,
            partition.end()
        ),
    )
    .with_hint("A GPT has no such limit: partition IMAGE convert gpt.")
}
