//! What holds other things: LUKS, LVM2 physical volumes, members of a Linux RAID.

use disksmith_disk::Result;

use super::window::{Fields, Window, product, uuid_text};
use super::{Content, Usage};

const SECTOR: u64 = 512;

pub(super) fn luks(window: &Window<'_>) -> Option<Content> {
    let header = window.superblock(0, 512, 0, b"LUKS\xba\xbe")?;
    let version = header.be16(6);
    if !matches!(version, 1 | 2) {
        return None;
    }
    Some(Content {
        version: Some(version.to_string()),
        label: header.text(24, 48).filter(|_| version == 2),
        uuid: header.text(168, 40),
        ..Content::new("crypto_LUKS", Usage::Crypto, (0, 6))
    })
}

/// The label is in one of the first four sectors.
pub(super) fn lvm(window: &Window<'_>) -> Option<Content> {
    for sector in 0..4 {
        let at = sector * SECTOR;
        let Some(label) = window.superblock(at, SECTOR, 0, b"LABELONE") else { continue };
        let header = label.le32(20) as usize;
        if label.slice(24, 8) != b"LVM2 001" || label.le64(8) != sector || header > 448 {
            continue;
        }
        return Some(Content {
            version: Some("LVM2 001".to_string()),
            uuid: lvm_uuid(label.slice(header, 32)),
            size: Some(label.le64(header + 32)),
            ..Content::new("LVM2_member", Usage::Raid, (at, 8))
        });
    }
    None
}

/// Thirty-two characters in groups of 6-4-4-4-4-4-6.
fn lvm_uuid(bytes: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(bytes).ok().filter(|t| t.len() == 32 && t.is_ascii())?;
    let cuts = [0, 6, 10, 14, 18, 22, 26, 32];
    let groups: Option<Vec<&str>> = cuts.windows(2).map(|w| text.get(w[0]..w[1])).collect();
    Some(groups?.join("-"))
}

/// The superblock of version 1 is at 4 KiB (1.2), at the start (1.1) or near the end (1.0), that
/// of version 0.90 in the last whole 64 KiB.
pub(super) fn md(window: &Window<'_>) -> Result<Option<Content>> {
    let magic = 0xa92b_4efc_u32.to_le_bytes();
    let sectors = window.size() / SECTOR;
    let late = sectors.checked_sub(16).map(|sector| (sector & !7) * SECTOR);
    for (place, version) in [(late, "1.0"), (Some(0), "1.1"), (Some(4096), "1.2")] {
        let Some(place) = place else { continue };
        let Some(sb) = window.structure(place, 256, 0, &magic)? else { continue };
        if sb.le32(4) == 1 && sb.le64(144).checked_mul(SECTOR) == Some(place) {
            return Ok(Some(Content {
                version: Some(version.to_string()),
                label: sb.text(32, 32),
                uuid: sb.uuid(16),
                size: product(sb.le64(80), SECTOR),
                ..Content::new("linux_raid_member", Usage::Raid, (place, 4))
            }));
        }
    }
    let old = (window.size() & !0xffff).checked_sub(0x10000);
    let Some(place) = old else { return Ok(None) };
    let Some(sb) = window.structure(place, 4096, 0, &magic)? else { return Ok(None) };
    if sb.le32(4) != 0 {
        return Ok(None);
    }
    Ok(Some(Content {
        version: Some(format!("{}.{}.{}", sb.le32(4), sb.le32(8), sb.le32(12))),
        uuid: md_uuid(&sb),
        size: product(u64::from(sb.le32(32)), 1024),
        ..Content::new("linux_raid_member", Usage::Raid, (place, 4))
    }))
}

/// Four words, stored as numbers in two places.
fn md_uuid(sb: &Fields<'_>) -> Option<String> {
    let mut bytes = Vec::with_capacity(16);
    for at in [20, 52, 56, 60] {
        bytes.extend(sb.le32(at).to_be_bytes());
    }
    uuid_text(&bytes)
}
