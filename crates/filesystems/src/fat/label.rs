//! The label: 11 bytes in the boot sector and in an entry of the root directory.

use disksmith_disk::{Error, Kind, Result};

use super::core::Core;

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
