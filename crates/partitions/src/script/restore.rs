//! From a dump back to a table.

use disksmith_disk::{Error, Kind, Result};

use super::{Dump, DumpPartition, parse_attributes};
use crate::edit::add::insert;
use crate::edit::init::{init_with_id, with_layout};
use crate::read::none;
use crate::{AddRequest, Align, DiskId, Label, Length, Table, gpt, types};

/// The table that `dump` describes, for the disk that `old` was read from. What the dump leaves
/// open is chosen as [`add`](crate::add) does: without a label a GPT is made.
pub fn restore(old: &Table, dump: &Dump) -> Result<Table> {
    let sector_size = dump.sector_size.unwrap_or(old.sector_size);
    if sector_size != old.sector_size {
        return Err(Error::new(
            Kind::InvalidInput,
            format!(
                "the dump is for sectors of {sector_size} bytes, the disk has {}",
                old.sector_size
            ),
        ));
    }
    let mut table = empty(old, dump)?;
    // Partitions without a number take what numbered ones leave, and extended ones come before
    // the logical ones in them.
    for (index, p) in dump.partitions.iter().enumerate() {
        let request = request(&table, dump, p)
            .map_err(|e| e.context(format!("partition {} of the dump", index + 1)))?;
        table = insert(&table, &request)
            .map_err(|e| e.context(format!("partition {} of the dump", index + 1)))?
            .0;
    }
    Ok(table)
}

fn empty(old: &Table, dump: &Dump) -> Result<Table> {
    let label = match dump.label.as_deref() {
        None | Some("gpt") => Label::Gpt,
        Some("dos" | "mbr" | "msdos") => Label::Mbr,
        Some(other) => {
            return Err(Error::new(
                Kind::Unsupported,
                format!("partition tables of sort '{other}'"),
            ));
        }
    };
    let id = dump.id.as_deref().map(|id| DiskId::parse(id, label)).transpose()?;
    let mut table = match (label, dump.table_length) {
        (Label::Gpt, Some(capacity)) => {
            let mut table = with_layout(none(old.sector_size, old.disk_sectors), capacity)?;
            table.id = id.or(table.id);
            table
        }
        _ => init_with_id(old, label, id)?,
    };
    if label == Label::Gpt {
        table.first_usable =
            dump.first_lba.map_or(table.first_usable, |n| n.max(table.first_usable));
        table.last_usable = dump.last_lba.map_or(table.last_usable, |n| n.min(table.last_usable));
        if table.first_usable > table.last_usable {
            return Err(Error::new(Kind::InvalidInput, "the dump leaves no usable sectors"));
        }
    }
    Ok(table)
}

fn request(table: &Table, dump: &Dump, p: &DumpPartition) -> Result<AddRequest> {
    let gpt = table.label == Label::Gpt;
    let mut attributes = if gpt { parse_attributes(&p.attributes)? } else { 0 };
    if gpt && p.bootable {
        attributes |= gpt::ATTRIBUTE_LEGACY_BOOT;
    }
    Ok(AddRequest {
        length: Length::from(p.size),
        start: p.start.map(|start| start.sectors(table.sector_size)),
        kind: p.kind.as_deref().map(|text| types::parse(text, table.label)).transpose()?,
        name: if gpt { p.name.clone() } else { String::new() },
        bootable: !gpt && p.bootable,
        logical: p.number.is_some_and(|n| n > 4) && !gpt,
        number: p.number,
        uuid: p.uuid.as_deref().filter(|_| gpt).map(str::parse).transpose()?,
        attributes,
        align: dump.grain.filter(|grain| *grain > 0).map_or(Align::default(), Align::Bytes),
    })
}
