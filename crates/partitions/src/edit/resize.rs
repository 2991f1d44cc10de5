//! A partition's other length. The start stays; what is in it is not touched.

use disksmith_disk::{Error, Kind, Result, human_size};

use super::require_table;
use crate::{Align, Length, Partition, Table, free_space};

/// Gives partition `number` another length; [`Length::Rest`] takes the free room behind it, up
/// to what `align` allows.
pub fn resize(table: &Table, number: u32, length: Length, align: Align) -> Result<Table> {
    require_table(table)?;
    let partition = table.require(number)?;
    let limit = limit(table, partition);
    let after = match length {
        Length::Rest => {
            let rounded = align.end_before(limit, table.sector_size);
            if rounded >= partition.after() { rounded } else { limit }
        }
        Length::Bytes(bytes) => wanted(partition, table.to_sectors(bytes))?,
        Length::Sectors(sectors) => wanted(partition, sectors)?,
    };
    if after > limit && after > partition.after() {
        let room =
            limit.saturating_sub(partition.start).saturating_mul(u64::from(table.sector_size));
        return Err(Error::new(
            Kind::OutOfSpace,
            format!(
                "partition {number} can have at most {} ({room} bytes, up to sector {})",
                human_size(room),
                limit.saturating_sub(1)
            ),
        ));
    }
    if partition.is_extended()
        && let Some(inner) = table.partitions.iter().find(|p| p.is_logical() && p.after() > after)
    {
        return Err(Error::new(
            Kind::InvalidInput,
            format!("partition {} would no longer be within the extended partition", inner.number),
        ));
    }
    let mut new = table.clone();
    let changed = new.partition_mut(number)?;
    changed.sectors = after.saturating_sub(changed.start);
    Ok(new)
}

fn wanted(partition: &Partition, sectors: u64) -> Result<u64> {
    match partition.start.checked_add(sectors) {
        Some(after) if sectors > 0 => Ok(after),
        _ => Err(Error::new(Kind::InvalidInput, format!("a partition of {sectors} sectors"))),
    }
}

/// Where a partition has to end at the latest: behind the free room that follows it, if any.
fn limit(table: &Table, partition: &Partition) -> u64 {
    let after = partition.after();
    free_space(table)
        .iter()
        .find(|region| region.logical == partition.is_logical() && region.start == after)
        .map_or(after, |region| region.after())
}
