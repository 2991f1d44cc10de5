//! Edits: from a table to another table, without touching the disk.

pub(crate) mod add;
pub(crate) mod convert;
pub(crate) mod init;
pub(crate) mod minimise;
pub(crate) mod moving;
pub(crate) mod remove;
pub(crate) mod repair;
pub(crate) mod resize;
pub(crate) mod set;

use disksmith_disk::{Error, Kind};

use crate::{Label, Table};

/// Edits of partitions need a table to be in.
pub(crate) fn require_table(table: &Table) -> disksmith_disk::Result<()> {
    match table.label {
        Label::None => Err(Error::new(Kind::NotFound, "the disk has no partition table")
            .with_hint("Make one first: partition IMAGE init gpt.")),
        _ => Ok(()),
    }
}
