//! exFAT. Unlike its ancestors it has a bitmap of clusters in use, files that lie in one piece
//! without entries in the FAT, checksums, and sizes of 64 bits.
//!
//! All structures are read and changed through [`pages`], which keeps the order of writes. A file
//! is a [`set`] of entries in a [`directory`] ([`slots`] adds and removes them); its clusters are
//! found by [`chain`] and taken from the [`bitmap`].
//!
//! Reference: Microsoft's "exFAT file system specification" of 2019.

mod bitmap;
mod boot;
mod chain;
mod check;
mod content;
mod directory;
mod filesystem;
mod fill;
mod label;
mod layout;
mod make;
mod namespace;
mod node;
mod pages;
mod set;
mod slots;
mod upcase;
mod volume;

use disksmith_disk::{Error, Kind};

pub use check::{check, repair};
pub use filesystem::Exfat;
pub use fill::{make_from, size_for};
pub use label::tune;
pub use make::{ExfatOptions, make};
pub use volume::used_ranges;

/// The root directory's number: a place in the boot sector.
const ROOT: u64 = super::identity::ROOT;

/// An error of kind corrupt.
fn corrupt(what: impl Into<String>) -> Error {
    Error::new(Kind::Corrupt, format!("The exFAT filesystem is corrupt: {}", what.into()))
}
