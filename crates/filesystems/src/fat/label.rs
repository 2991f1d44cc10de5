//! The label: 11 bytes in the boot sector and in an entry of the root directory.

use std::sync::Arc;

use disksmith_disk::{Disk, Error, Kind, Result};

use super::core::Core;
use super::layout::{DirEntry, ENTRY, FREE, NO_NAME, attribute};
use crate::Time;

/// Bytes in a label.
const LENGTH: usize = 11;
/// What a label cannot have, besides control characters.
const FORBIDDEN: &[u8] = b"\"*+,./:;<=>?[\\]|";

/// The label as it is stored: padded with spaces. Lower case is kept, as mkfs.fat keeps it.
pub(crate) fn encode(label: &[u8]) -> Result<[u8; LENGTH]> {
    let refuse = |why: &str| {
        let shown = String::from_utf8_lossy(label);
        Err(Error::new(Kind::InvalidInput, format!("'{shown}' cannot be the label: {why}")))
    };
    if label.len() > LENGTH {
        return refuse("FAT labels have at most 11 bytes");
    }
    if !label.is_ascii() {
        return refuse("FAT labels are ASCII here, as other characters depend on a code page");
    }
    if label.iter().any(|byte| *byte < 0x20 || *byte == 0x7F || FORBIDDEN.contains(byte)) {
        return refuse("it has a character that FAT labels cannot have");
    }
    if label.first() == Some(&b' ') {
        return refuse("it begins with a space");
    }
    let mut stored = [b' '; LENGTH];
    for (to, from) in stored.iter_mut().zip(label) {
        *to = *from;
    }
    Ok(stored)
}

/// The label that `stored` is; empty for none.
pub(crate) fn decode(stored: &[u8; LENGTH]) -> Vec<u8> {
    if stored == super::layout::NO_NAME {
        return Vec::new();
    }
    let mut stored = *stored;
    if stored[0] == super::layout::KANJI_E5 {
        stored[0] = 0xE5;
    }
    let end = stored.iter().rposition(|byte| !matches!(byte, b' ' | 0)).map_or(0, |at| at + 1);
    let bytes = stored.get(..end).unwrap_or(&[]);
    match bytes.is_ascii() {
        true => bytes.to_vec(),
        // Code page 437 is not worth a table for a label: the text stays readable.
        false => String::from_utf8_lossy(bytes).into_owned().into_bytes(),
    }
}

/// The label of an open volume: that of the root directory, else that of the boot sector.
pub(crate) fn of(core: &Core) -> Result<Vec<u8>> {
    let mut found = None;
    core.scan_slots(core.shape.root_cluster, 0, &mut |entry, _, _, _, _| {
        if entry.is_volume_id() && !entry.is_directory() {
            found = Some(decode(&entry.name()));
        }
        found.is_none()
    })?;
    Ok(match found {
        Some(label) => label,
        None => core.boot.label().map(|label| decode(&label)).unwrap_or_default(),
    })
}

/// Changes to make to what a volume says of itself; `None` leaves things as they are.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Tune {
    /// The label, at most 11 characters; empty for none.
    pub label: Option<Vec<u8>>,
    /// The serial number.
    pub serial: Option<u32>,
    /// The time that the label bears, instead of the clock's.
    pub time: Option<Time>,
}

/// Changes label and serial number of the volume on `disk`, in all places where they stand.
pub fn tune(disk: Arc<dyn Disk>, changes: &Tune) -> Result<()> {
    let label = changes.label.as_deref().map(encode).transpose()?;
    let mut core = Core::open(disk, false)?;
    if changes.serial.is_some() && core.boot.serial().is_none() {
        return Err(Error::new(
            Kind::Unsupported,
            "Its boot sector has no room for a serial number",
        ));
    }
    core.clock = changes.time;
    core.begin()?;
    if let Some(label) = label {
        let empty = label == [b' '; LENGTH];
        put_entry(&mut core, (!empty).then_some(&label))?;
        if core.boot.is_extended() {
            core.boot.set_label(if empty { NO_NAME } else { &label });
        }
    }
    if let Some(serial) = changes.serial {
        core.boot.set_serial(serial);
    }
    core.commit()?;
    core.put_boot(0)?;
    core.put_backup()?;
    core.shut_down()
}

/// The entry in the root directory: changed, made or removed.
fn put_entry(core: &mut Core, label: Option<&[u8; LENGTH]>) -> Result<()> {
    let root = core.shape.root_cluster;
    let mut there = None;
    core.scan_slots(root, 0, &mut |entry, _, _, place, _| {
        if entry.is_volume_id() && !entry.is_directory() {
            there = Some((entry, place * ENTRY as u64));
        }
        there.is_none()
    })?;
    let (place, bytes) = match (there, label) {
        (None, None) => return Ok(()),
        (Some((_, place)), None) => (place, vec![FREE]),
        (Some((mut entry, place)), Some(label)) => {
            entry.set_name(label, 0);
            entry.set_modified(core.now());
            (place, entry.raw.to_vec())
        }
        (None, Some(label)) => {
            let mut entry = DirEntry::new(label, attribute::VOLUME_ID);
            entry.set_modified(core.now());
            return core.add_entries(root, &[entry.raw], &[]).map(drop);
        }
    };
    let chunk = core.chunks.store(&*core.disk, &core.shape, place, &bytes)?;
    core.transaction.chunks.insert(chunk);
    Ok(())
}
