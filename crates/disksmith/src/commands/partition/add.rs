//! `partition IMAGE add`.

use disksmith_disk::{Disk, Result};
use disksmith_partitions::{AddRequest, Align, Amount, Label, Table, parse_attributes, types};

use super::edit::length;
use crate::face::Failure;

/// The arguments of `add`.
#[derive(clap::Args, Debug)]
pub(crate) struct AddArguments {
    /// The length, or 'rest' for the largest free region
    #[arg(long, default_value = "rest")]
    size: String,
    /// Where it starts; the first place where it fits when not given
    #[arg(long, value_name = "SECTOR")]
    start: Option<String>,
    /// What it is for
    #[arg(long = "type", value_name = "TYPE", default_value = "linux")]
    kind: String,
    /// Its name (GPT)
    #[arg(long, default_value = "")]
    name: String,
    /// To be booted from
    #[arg(long)]
    bootable: bool,
    /// In the extended partition (MBR)
    #[arg(long)]
    logical: bool,
    /// 1MiB, another size, optimal (what the device likes), cylinder or none
    #[arg(long, default_value = "1MiB")]
    align: String,
    /// Its number; the lowest free one when not given
    #[arg(long)]
    number: Option<u32>,
    /// Its id (GPT); random when not given
    #[arg(long)]
    uuid: Option<String>,
    /// Attributes (GPT): RequiredPartition, LegacyBIOSBootable, GUID:60, 0x…
    #[arg(long, default_value = "")]
    attributes: String,
}

impl AddArguments {
    /// What the library is to be asked for.
    pub(super) fn request(&self, disk: &dyn Disk, table: &Table) -> Result<AddRequest, Failure> {
        let start = self.start.as_deref().map(str::parse::<Amount>).transpose()?;
        Ok(AddRequest {
            length: length(&self.size)?,
            start: start.map(|start| start.sectors(table.sector_size)),
            kind: match table.label {
                Label::None => None,
                label => Some(types::parse(&self.kind, label)?),
            },
            name: self.name.clone(),
            bootable: self.bootable,
            logical: self.logical,
            number: self.number,
            uuid: self.uuid.as_deref().map(str::parse).transpose()?,
            attributes: parse_attributes(&self.attributes)?,
            align: Align::parse(&self.align, disk)?,
        })
    }
}
