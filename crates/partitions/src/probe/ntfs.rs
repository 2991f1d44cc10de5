//! NTFS.

use disksmith_disk::Result;

use super::window::{Fields, Window, product, utf16};
use super::{Content, Usage};

const VOLUME_RECORD: u64 = 3;
const ATTRIBUTE_VOLUME_NAME: u32 = 0x60;
const ATTRIBUTE_END: u32 = 0xffff_ffff;
/// A file record has fewer attributes than this, whatever its lengths say.
const MAX_ATTRIBUTES: usize = 64;

pub(super) fn probe(window: &Window<'_>) -> Result<Option<Content>> {
    let Some(boot) = window.superblock(0, 512, 3, b"NTFS    ") else { return Ok(None) };
    let sector = u64::from(boot.le16(11));
    if !sector.is_power_of_two() || !(256..=4096).contains(&sector) {
        return Ok(None);
    }
    // Above 128 it is the negative binary logarithm of the number of sectors.
    let Some(per_cluster) = (match boot.u8(13) {
        n @ 1..=128 if n.is_power_of_two() => Some(u64::from(n)),
        n @ 240..=255 => Some(1u64 << (256 - u32::from(n))),
        _ => None,
    }) else {
        return Ok(None);
    };
    let cluster = sector * per_cluster;
    let record = match boot.u8(64) {
        n @ 1..=127 => u64::from(n) * cluster,
        n @ 240..=255 => 1u64 << (256 - u32::from(n)),
        _ => 1024,
    };
    let table = product(boot.le64(48), cluster);
    let place = table.and_then(|table| table.checked_add(VOLUME_RECORD * record));
    let label = match place {
        Some(place) if record <= 4096 => volume_name(window, place, record)?,
        _ => None,
    };
    let serial = boot.le64(72);
    Ok(Some(Content {
        label,
        uuid: (serial != 0).then(|| format!("{serial:016X}")),
        // The last sector of the partition, a copy of the boot sector, is not counted.
        size: boot.le64(40).checked_add(1).and_then(|sectors| product(sectors, sector)),
        marks: vec![(3, 8), (510, 2)],
        ..Content::new("ntfs", Usage::Filesystem, (3, 8))
    }))
}

fn volume_name(window: &Window<'_>, offset: u64, length: u64) -> Result<Option<String>> {
    let Some(record) = window.structure(offset, length, 0, b"FILE")? else { return Ok(None) };
    Ok(attribute(&record))
}

fn attribute(record: &Fields<'_>) -> Option<String> {
    let mut at = usize::from(record.le16(20));
    for _ in 0..MAX_ATTRIBUTES {
        let (kind, length) = (record.le32(at), usize::try_from(record.le32(at + 4)).ok()?);
        if kind == ATTRIBUTE_END || length < 24 || at.checked_add(length)? > record.0.len() {
            return None;
        }
        if kind == ATTRIBUTE_VOLUME_NAME {
            let units = usize::try_from(record.le32(at + 16)).ok()? / 2;
            let value = at + usize::from(record.le16(at + 20));
            return utf16((0..units.min(128)).map(|unit| record.le16(value + 2 * unit)));
        }
        at += length;
    }
    None
}
