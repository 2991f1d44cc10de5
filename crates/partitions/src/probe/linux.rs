//! Filesystems that only Linux has: xfs, btrfs, f2fs, squashfs, erofs.

use disksmith_disk::Result;

use super::window::{Fields, Window, product, utf16};
use super::{Content, Usage};

pub(super) fn xfs(window: &Window<'_>) -> Option<Content> {
    let sb = window.superblock(0, 512, 0, b"XFSB")?;
    let block = sb.be32(4);
    if !block.is_power_of_two() || !(512..=65536).contains(&block) {
        return None;
    }
    let (blocks, free) = (sb.be64(8), sb.be64(144));
    Some(Content {
        label: sb.text(108, 12),
        uuid: sb.uuid(32),
        size: product(blocks, u64::from(block)),
        used: blocks.checked_sub(free).and_then(|used| product(used, u64::from(block))),
        ..Content::new("xfs", Usage::Filesystem, (0, 4))
    })
}

pub(super) fn btrfs(window: &Window<'_>) -> Option<Content> {
    const SUPERBLOCK: u64 = 64 << 10;
    let sb = window.superblock(SUPERBLOCK, 4096, 64, b"_BHRfS_M")?;
    let devices = sb.le64(0x88);
    // With several devices the totals are those of all; the device item has this one's size.
    let (size, used) = match devices {
        1 => (sb.le64(0x70), Some(sb.le64(0x78))),
        _ => (sb.le64(0xc9 + 8), Some(sb.le64(0xc9 + 16))),
    };
    Some(Content {
        label: sb.text(0x12b, 256),
        uuid: sb.uuid(32),
        size: Some(size),
        used,
        ..Content::new("btrfs", Usage::Filesystem, (SUPERBLOCK + 64, 8))
    })
}

pub(super) fn f2fs(window: &Window<'_>) -> Result<Option<Content>> {
    const SUPERBLOCK: u64 = 1024;
    let magic = 0xf2f5_2010_u32.to_le_bytes();
    let Some(sb) = window.superblock(SUPERBLOCK, 1152, 0, &magic) else { return Ok(None) };
    let log_block_size = sb.le32(16);
    if !(9..=16).contains(&log_block_size) {
        return Ok(None);
    }
    Ok(Some(Content {
        version: Some(format!("{}.{}", sb.le16(4), sb.le16(6))),
        label: utf16((0..512).map(|unit| sb.le16(124 + 2 * unit))),
        uuid: sb.uuid(108),
        size: product(sb.le64(36), 1 << log_block_size),
        used: f2fs_used(window, &sb, 1 << log_block_size)?,
        ..Content::new("f2fs", Usage::Filesystem, (SUPERBLOCK, 4))
    }))
}

/// What the newer of the two checkpoints calls valid, and everything in front of the main area.
fn f2fs_used(window: &Window<'_>, sb: &Fields<'_>, block: u64) -> Result<Option<u64>> {
    let (log_segment, first, main) = (sb.le32(20), u64::from(sb.le32(76)), u64::from(sb.le32(92)));
    if log_segment > 16 {
        return Ok(None);
    }
    let mut newest = None;
    for pack in [first, first + (1 << log_segment)] {
        let Some(bytes) = product(pack, block).map(|at| window.bytes(at, 192)).transpose()? else {
            continue;
        };
        let checkpoint = bytes.map(Fields).map(|cp| (cp.le64(0), cp.le64(16)));
        newest = newest.max(checkpoint);
    }
    let valid = newest.filter(|(version, _)| *version != 0).map(|(_, valid)| valid);
    Ok(valid.and_then(|valid| product(valid.checked_add(main)?, block)))
}

pub(super) fn squashfs(window: &Window<'_>) -> Option<Content> {
    let sb = window.superblock(0, 96, 0, b"hsqs")?;
    let (major, minor) = (sb.le16(28), sb.le16(30));
    if major < 4 {
        return None;
    }
    Some(Content {
        version: Some(format!("{major}.{minor}")),
        size: Some(sb.le64(40)),
        used: Some(sb.le64(40)),
        ..Content::new("squashfs", Usage::Filesystem, (0, 4))
    })
}

pub(super) fn erofs(window: &Window<'_>) -> Option<Content> {
    const SUPERBLOCK: u64 = 1024;
    let magic = 0xe0f5_e1e2_u32.to_le_bytes();
    let sb = window.superblock(SUPERBLOCK, 128, 0, &magic)?;
    let bits = sb.u8(12);
    if !(9..=16).contains(&bits) {
        return None;
    }
    let size = product(u64::from(sb.le32(36)), 1 << bits);
    Some(Content {
        label: sb.text(64, 16),
        uuid: sb.uuid(48),
        size,
        used: size,
        ..Content::new("erofs", Usage::Filesystem, (SUPERBLOCK, 4))
    })
}
