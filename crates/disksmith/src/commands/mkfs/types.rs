//! The types that can be made, and what makes them.

use std::sync::Arc;

use disksmith_disk::{Disk, Result};
use disksmith_filesystems::ext::{self, MakeOptions, Profile};
use disksmith_filesystems::fat::exfat::{self, ExfatOptions};
use disksmith_filesystems::fat::{self, FatKind, FatOptions};
use disksmith_filesystems::source::Source;
use disksmith_filesystems::swap;

use super::extended::{self, epoch};
use super::{Mkfs, parse_uuid};
use crate::face::{Failure, usage};

/// How a filesystem is to be made.
#[derive(Clone, Debug)]
pub(super) enum Making {
    Ext(MakeOptions),
    Fat(FatOptions),
    Exfat(ExfatOptions),
    Swap { label: Vec<u8>, uuid: Option<[u8; 16]> },
}

/// Reads the command line for one type.
type Reader = fn(&Mkfs) -> Result<Making, Failure>;

/// The names of the types.
const TYPES: &[(&str, Reader)] = &[
    ("ext2", |verb| extended::options(verb, Profile::Ext2).map(Making::Ext)),
    ("ext3", |verb| extended::options(verb, Profile::Ext3).map(Making::Ext)),
    ("ext4", |verb| extended::options(verb, Profile::Ext4).map(Making::Ext)),
    ("fat", |verb| fat_options(verb, None)),
    ("vfat", |verb| fat_options(verb, None)),
    ("fat12", |verb| fat_options(verb, Some(FatKind::Fat12))),
    ("fat16", |verb| fat_options(verb, Some(FatKind::Fat16))),
    ("fat32", |verb| fat_options(verb, Some(FatKind::Fat32))),
    ("exfat", exfat_options),
    ("swap", swap_options),
];

/// What the command line asks for.
pub(super) fn read(verb: &Mkfs) -> Result<Making, Failure> {
    match TYPES.iter().find(|(name, _)| *name == verb.kind) {
        Some((_, reader)) => reader(verb),
        None => {
            let known: Vec<&str> = TYPES.iter().map(|(name, _)| *name).collect();
            usage(format!("filesystem type '{}' is not known ({})", verb.kind, known.join(", ")))
        }
    }
}

/// Refuses options that belong to ext.
fn only_ext(verb: &Mkfs) -> Result<(), Failure> {
    let given = [
        ("--features", verb.features.is_some()),
        ("--block-size", verb.block_size.is_some()),
        ("--inode-ratio", verb.inode_ratio.is_some()),
        ("--inodes", verb.inodes.is_some()),
        ("--inode-size", verb.inode_size.is_some()),
        ("--usage", verb.usage.is_some()),
        ("--journal", verb.journal.is_some()),
        ("--extended", verb.extended.is_some()),
        ("--reserved", verb.reserved.is_some()),
    ];
    match given.iter().find(|option| option.1) {
        Some((name, _)) => usage(format!("{name} means nothing to {}", verb.kind)),
        None => Ok(()),
    }
}

fn serial(verb: &Mkfs) -> Result<Option<u32>, Failure> {
    verb.uuid.as_deref().map(parse_serial).transpose()
}

/// Reads a serial number of FAT.
pub(crate) fn parse_serial(text: &str) -> Result<u32, Failure> {
    match fat::parse_serial(text) {
        Some(serial) => Ok(serial),
        None => usage(format!("'{text}' is no serial number of a FAT (like 1234-ABCD)")),
    }
}

fn exfat_options(verb: &Mkfs) -> Result<Making, Failure> {
    only_ext(verb)?;
    Ok(Making::Exfat(ExfatOptions {
        cluster_size: verb.cluster_size,
        label: verb.label.clone().unwrap_or_default().into_bytes(),
        serial: serial(verb)?,
        map_names: verb.map_names,
        time: epoch()?,
        ..ExfatOptions::default()
    }))
}

fn fat_options(verb: &Mkfs, kind: Option<FatKind>) -> Result<Making, Failure> {
    only_ext(verb)?;
    Ok(Making::Fat(FatOptions {
        kind,
        cluster_size: verb.cluster_size,
        label: verb.label.clone().unwrap_or_default().into_bytes(),
        serial: serial(verb)?,
        map_names: verb.map_names,
        time: epoch()?,
        ..FatOptions::default()
    }))
}

fn swap_options(verb: &Mkfs) -> Result<Making, Failure> {
    only_ext(verb)?;
    if verb.from.is_some() || verb.cluster_size.is_some() {
        return usage("swap space has neither files nor clusters");
    }
    Ok(Making::Swap {
        label: verb.label.clone().unwrap_or_default().into_bytes(),
        uuid: verb.uuid.as_deref().map(parse_uuid).transpose()?,
    })
}

impl Making {
    fn name(&self) -> &'static str {
        match self {
            Self::Ext(_) => "ext",
            Self::Fat(_) => "FAT",
            Self::Exfat(_) => "exFAT",
            Self::Swap { .. } => "swap space",
        }
    }

    /// The size in bytes that holds the files of a source, and the options that go with it.
    pub(super) fn size_for(&self, source: &mut dyn Source) -> Result<(u64, Self), Failure> {
        match self {
            Self::Ext(options) => {
                let need = ext::measure(options, source)?;
                let (size, options) = ext::size_for(options, &need)?;
                Ok((size, Self::Ext(options)))
            }
            Self::Fat(options) => {
                let size = fat::size_for(options, source)?;
                Ok((size, self.clone()))
            }
            Self::Exfat(options) => {
                let size = exfat::size_for(options, source)?;
                Ok((size, self.clone()))
            }
            Self::Swap { .. } => {
                usage(format!("a size for files cannot be found for {}", self.name()))
            }
        }
    }

    /// Makes it; answers what could not be kept, one line each. `start`: where the disk begins in
    /// the whole one, in bytes.
    pub(super) fn make(
        &self,
        disk: Arc<dyn Disk>,
        start: u64,
        source: Option<&mut dyn Source>,
    ) -> Result<Vec<String>> {
        match (self, source) {
            (Self::Ext(options), None) => ext::make(disk, options)?,
            (Self::Ext(options), Some(source)) => drop(ext::make_from(disk, options, source)?),
            (Self::Fat(options), source) => {
                let sector = options.sector_size.unwrap_or(disk.geometry().sector.max(512));
                let hidden = u32::try_from(start / u64::from(sector)).unwrap_or(0);
                let options = FatOptions { hidden_sectors: hidden, ..options.clone() };
                match source {
                    None => fat::make(&*disk, &options)?,
                    Some(source) => return Ok(fat::make_from(disk, &options, source)?.losses()),
                }
            }
            (Self::Exfat(options), source) => {
                let sector = u64::from(disk.geometry().sector.max(512));
                let hidden_sectors = start / sector;
                let options = ExfatOptions { hidden_sectors, ..options.clone() };
                match source {
                    None => exfat::make(&*disk, &options)?,
                    Some(source) => return Ok(exfat::make_from(disk, &options, source)?.losses()),
                }
            }
            (Self::Swap { label, uuid }, _) => swap::make(&*disk, label, *uuid)?,
        }
        Ok(Vec::new())
    }
}
