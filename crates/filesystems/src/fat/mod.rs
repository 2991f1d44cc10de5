//! FAT12, FAT16 and FAT32, with long names.
//!
//! The volume is an array of sectors: the boot sector (what it says is the [`shape`]) and others
//! that are reserved, the file allocation tables ([`table`]), on FAT12 and FAT16 the root
//! directory, then clusters. The table says of each cluster which one follows it ([`chain`]).
//! Directories are files of entries of 32 bytes ([`directory`]); a file is its entry.
//!
//! Why an engine of our own: the crates that there are (`fatfs` 0.3, `hadris-fat` 3.0-rc) take
//! `&mut self` for every read, and leave neither the order of writes nor the moment of flushes to
//! us. Many readers at once and safety in a power cut are what this one is about ([`core`]).
//!
//! Reference: Microsoft's "FAT: General Overview of On-Disk Format" 1.03 and ECMA-107.

mod chain;
mod check;
mod chunk;
mod content;
mod core;
mod directory;
pub mod exfat;
mod filesystem;
mod fill;
mod identity;
mod interface;
mod label;
mod layout;
mod make;
mod name;
mod namespace;
mod node;
mod resize;
mod shape;
mod shared;
mod table;
mod time;
mod used;

pub use check::{CheckReport, Lost, Mend, RepairReport, check, repair};
pub use filesystem::Fat;
pub use fill::{FatFilled, make_from, size_for};
pub use label::{Tune, tune};
pub use make::{FatOptions, make};
pub use resize::{Resized, minimum_size, resize};
pub use shape::FatKind;
pub use used::used_ranges;

/// A serial number as everybody shows it: `1234-ABCD`.
pub fn serial_text(serial: u32) -> String {
    format!("{:04X}-{:04X}", serial >> 16, serial & 0xFFFF)
}

/// Reads a serial number: `1234-ABCD`, or eight digits without the dash.
pub fn parse_serial(text: &str) -> Option<u32> {
    let digits: String = match text.split_once('-') {
        Some((high, low)) if high.len() == 4 && low.len() == 4 => [high, low].concat(),
        Some(_) => return None,
        None => text.to_string(),
    };
    let plain = digits.len() == 8 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    u32::from_str_radix(&digits, 16).ok().filter(|_| plain)
}
