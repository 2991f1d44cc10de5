//! `partition IMAGE set`.

use disksmith_partitions::{Change, DiskId, Table, parse_attributes, set, types};

use super::edit::number;
use crate::face::{Failure, usage};

/// The arguments of `set`.
#[derive(clap::Args, Debug)]
pub(crate) struct SetArguments {
    /// Number, name or id; not needed for --disk-id
    partition: Option<String>,
    /// What it is for
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<String>,
    /// Its name (GPT)
    #[arg(long)]
    name: Option<String>,
    /// Whether to boot from it
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    bootable: Option<bool>,
    /// Its id (GPT)
    #[arg(long)]
    uuid: Option<String>,
    /// Attributes (GPT): all of them, replacing what is set
    #[arg(long, alias = "flags")]
    attributes: Option<String>,
    /// The id of the disk
    #[arg(long, value_name = "ID")]
    disk_id: Option<String>,
}

impl SetArguments {
    /// The table with everything set.
    pub(super) fn apply(&self, table: &Table) -> Result<Table, Failure> {
        let mut changes = Vec::new();
        if let Some(kind) = &self.kind {
            changes.push(Change::Type(types::parse(kind, table.label)?));
        }
        changes.extend(self.name.clone().map(Change::Name));
        if let Some(text) = &self.attributes {
            changes.push(Change::Attributes(parse_attributes(text)?));
        }
        changes.extend(self.bootable.map(Change::Bootable));
        if let Some(uuid) = &self.uuid {
            changes.push(Change::Uuid(uuid.parse()?));
        }
        let mut new = table.clone();
        if let Some(id) = &self.disk_id {
            new = set(&new, 0, &Change::DiskId(DiskId::parse(id, table.label)?))?;
        } else if changes.is_empty() {
            return usage("nothing was named to be set");
        }
        match (&self.partition, changes.is_empty()) {
            (None, false) => return usage("which partition is meant?"),
            (Some(selector), _) => {
                let number = number(table, selector)?;
                for change in &changes {
                    new = set(&new, number, change)?;
                }
            }
            (None, true) => {}
        }
        Ok(new)
    }
}
