//! Label and serial number.

use std::sync::Arc;

use disksmith_disk::{Disk, Error, Kind, Result};

use super::super::label::Tune;
use super::super::name::to_units;
use super::ROOT;
use super::boot::BootRegion;
use super::layout::{ENTRY, IN_USE, SERIAL_AT, entry_type};
use super::pages::Stage;
use super::volume::Volume;
use crate::raw::{byte, put, put16, put32};

/// UTF-16 units in a label (specification, section 7.3).
const UNITS_MAX: usize = 11;

/// A label in UTF-16.
pub(super) fn encode(label: &[u8]) -> Result<Vec<u16>> {
    let units = to_units(label).filter(|units| units.len() <= UNITS_MAX);
    let refuse = |why: &str| {
        let shown = String::from_utf8_lossy(label);
        Error::new(Kind::InvalidInput, format!("'{shown}' cannot be the label: {why}"))
    };
    let units = units.ok_or_else(|| refuse("exFAT labels have at most 11 characters"))?;
    match units.iter().any(|unit| *unit < 0x20) {
        true => Err(refuse("it has a control character")),
        false => Ok(units),
    }
}

/// The entry of a label; without characters it is there, but not in use.
pub(super) fn entry(label: &[u16]) -> [u8; ENTRY] {
    let kind = if label.is_empty() { entry_type::LABEL & !IN_USE } else { entry_type::LABEL };
    let mut raw = [0; ENTRY];
    put(&mut raw, 0, &[kind, label.len() as u8]);
    for (index, unit) in label.iter().enumerate() {
        put16(&mut raw, 2 + 2 * index, *unit);
    }
    raw
}

/// Changes label and serial number of the volume on `disk`. The time in `changes` is not used:
/// exFAT labels bear none.
pub fn tune(disk: Arc<dyn Disk>, changes: &Tune) -> Result<()> {
    let label = changes.label.as_deref().map(encode).transpose()?;
    let mut volume = Volume::open(disk, false)?;
    volume.begin()?;
    if let Some(label) = label {
        volume.put_label(&label)?;
        volume.commit()?;
    }
    if let Some(serial) = changes.serial {
        volume.put_serial(serial)?;
    }
    volume.settle()
}

impl Volume {
    fn put_label(&mut self, label: &[u16]) -> Result<()> {
        let mut there = None;
        self.entries(self.root_stream(), 0, &mut |_, place, raw| {
            if byte(raw, 0) | IN_USE == entry_type::LABEL {
                there = Some(place);
            }
            Ok(there.is_none())
        })?;
        let raw = entry(label);
        match there {
            Some(place) => self.pages.store(Stage::Entry, place, &raw),
            None if label.is_empty() => Ok(()),
            None => self.add_entries(ROOT, &raw).map(drop),
        }
    }

    /// The serial number is under the checksum of both boot regions: the backup is whole before
    /// the main one changes.
    fn put_serial(&mut self, serial: u32) -> Result<()> {
        let sector = self.geometry.sector;
        let mut region = BootRegion::read(&self.pages, sector, 0)?;
        if !region.is_sound() {
            return Err(Error::new(Kind::Refused, "The checksum of its boot sectors is wrong")
                .with_hint("Repair it first: disksmith fsck."));
        }
        put32(&mut region.bytes, SERIAL_AT as usize, serial);
        region.seal();
        region.store(&mut self.pages, Stage::Allocate, 1)?;
        region.store(&mut self.pages, Stage::Entry, 0)?;
        self.geometry.serial = serial;
        self.commit()
    }
}
