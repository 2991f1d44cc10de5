//! Properties of a partition or of the disk.

use disksmith_disk::{Error, Kind, Result};

use super::require_table;
use crate::{DiskId, Guid, Label, Partition, PartitionType, Table, gpt, types};

/// One property.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// The attribute bits of a GPT partition.
    Attributes(u64),
    /// The active flag of an MBR partition, of which one at most has it; the legacy boot
    /// attribute of a GPT partition.
    Bootable(bool),
    /// The label of a GPT partition.
    Name(String),
    /// What it is for.
    Type(PartitionType),
    /// The unique id of a GPT partition.
    Uuid(Guid),
    /// The id of the disk itself; the partition number does not matter.
    DiskId(DiskId),
}

/// Changes a property of partition `number`.
pub fn set(table: &Table, number: u32, change: &Change) -> Result<Table> {
    require_table(table)?;
    let mut new = table.clone();
    if let Change::DiskId(id) = change {
        let fits = matches!(
            (table.label, id),
            (Label::Gpt, DiskId::Gpt(_)) | (Label::Mbr, DiskId::Mbr(_))
        );
        if !fits {
            return Err(Error::new(
                Kind::InvalidInput,
                format!("{id} is no disk id for this sort of table"),
            ));
        }
        new.id = Some(*id);
        return Ok(new);
    }
    table.require(number)?;
    match (table.label, change) {
        (Label::Gpt, _) => set_gpt(new.partition_mut(number)?, change)?,
        (_, Change::Bootable(on)) => {
            for p in &mut new.partitions {
                p.bootable = *on && p.number == number || !*on && p.number != number && p.bootable;
            }
        }
        (_, Change::Type(kind)) => set_mbr_type(new.partition_mut(number)?, *kind)?,
        _ => {
            return Err(Error::new(
                Kind::Unsupported,
                "partitions of an MBR have no names, ids or attributes of their own",
            )
            .with_hint("A GPT has them: partition IMAGE convert gpt."));
        }
    }
    Ok(new)
}

fn set_gpt(partition: &mut Partition, change: &Change) -> Result<()> {
    match change {
        Change::Attributes(bits) => partition.attributes = *bits,
        Change::Bootable(true) => partition.attributes |= gpt::ATTRIBUTE_LEGACY_BOOT,
        Change::Bootable(false) => partition.attributes &= !gpt::ATTRIBUTE_LEGACY_BOOT,
        Change::Name(name) => {
            gpt::write::check_name(name)?;
            partition.name.clone_from(name);
            partition.raw_name = None;
        }
        Change::Type(kind @ PartitionType::Gpt(guid)) if !guid.is_zero() => partition.kind = *kind,
        Change::Type(kind) => {
            return Err(Error::new(
                Kind::InvalidInput,
                format!("'{kind}' is not a GPT partition type"),
            ));
        }
        Change::Uuid(uuid) if uuid.is_zero() => {
            return Err(Error::new(Kind::InvalidInput, "an id of all zeroes"));
        }
        Change::Uuid(uuid) => partition.uuid = Some(*uuid),
        Change::DiskId(_) => {}
    }
    Ok(())
}

fn set_mbr_type(partition: &mut Partition, kind: PartitionType) -> Result<()> {
    let PartitionType::Mbr(code @ 1..) = kind else {
        return Err(Error::new(
            Kind::InvalidInput,
            format!("'{kind}' is not an MBR partition type"),
        ));
    };
    if types::is_extended(code) != partition.is_extended() {
        return Err(Error::new(
            Kind::InvalidInput,
            "a partition cannot be made extended, or cease to be, by changing its type",
        )
        .with_hint("Remove it and add the other."));
    }
    partition.kind = kind;
    Ok(())
}
