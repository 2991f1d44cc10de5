//! What a disk needs to be booted from, and is not among its files.

pub(super) mod bios;
pub(super) mod syslinux;
pub(super) mod uefi;

use std::path::Path;

use disksmith_disk::{Error, Kind, Result};

use super::contents::ListedFile;
use super::spec::invalid;
use super::survey::{Interest, Survey};

/// How firmware is to find it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Boot {
    /// Boot code in sector 0, then syslinux on the filesystem.
    Bios,
    /// A program on the EFI system partition.
    Uefi,
}

impl Boot {
    pub(super) fn parse(text: &str) -> Result<Self> {
        match text {
            "bios" => Ok(Self::Bios),
            "uefi" | "efi" => Ok(Self::Uefi),
            other => Err(invalid(format!("'{other}' is no way to boot: bios and uefi are"))),
        }
    }

    /// What to look for among the files.
    pub(super) fn interest(self, path: &str) -> Interest {
        match self {
            Self::Bios => bios::interest(path),
            Self::Uefi => uefi::interest(path),
        }
    }
}

/// What booting adds to a disk.
#[derive(Clone, Debug, Default)]
pub(super) struct Additions {
    /// Files, for each partition.
    pub(super) files: Vec<Vec<ListedFile>>,
    /// What is written when all files are there.
    pub(super) bios: Option<bios::Loader>,
}

/// Where a file was found.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) bytes: Vec<u8>,
    /// For messages.
    pub(super) origin: String,
}

/// The first of some files that is in the tree, else on the host. Paths have no slash in front.
pub(super) fn find(survey: &Survey, paths: &[&str]) -> Option<Found> {
    let in_tree = paths.iter().find_map(|path| {
        let bytes = survey.found.get(*path)?.clone()?;
        Some(Found { bytes, origin: format!("{path} of the tree") })
    });
    in_tree.or_else(|| {
        paths.iter().find_map(|path| {
            let host = Path::new("/").join(path);
            let bytes = std::fs::read(&host).ok()?;
            Some(Found { bytes, origin: host.display().to_string() })
        })
    })
}

pub(super) fn missing(what: &str, hint: &str) -> Error {
    Error::new(Kind::NotFound, what.to_string()).with_hint(hint.to_string())
}
