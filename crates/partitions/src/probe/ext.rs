//! ext2, ext3 and ext4.

use super::window::{Window, product};
use super::{Content, Usage};

const SUPERBLOCK: u64 = 1024;
const COMPAT_HAS_JOURNAL: u32 = 0x4;
const INCOMPAT_JOURNAL_DEV: u32 = 0x8;
const INCOMPAT_64BIT: u32 = 0x80;
/// What ext3 may have: filetype, needs recovery, meta block groups.
const EXT3_INCOMPAT: u32 = 0x2 | 0x4 | 0x10;
/// Sparse superblocks, large files, directory trees.
const EXT3_RO_COMPAT: u32 = 0x1 | 0x2 | 0x4;

pub(super) fn probe(window: &Window<'_>) -> Option<Content> {
    let sb = window.superblock(SUPERBLOCK, 1024, 0x38, &[0x53, 0xef])?;
    let log_block_size = sb.le32(0x18);
    if log_block_size > 6 || sb.le32(0x04) == 0 {
        return None;
    }
    let (compat, incompat, ro_compat) = (sb.le32(0x5c), sb.le32(0x60), sb.le32(0x64));
    let kind = match () {
        () if incompat & INCOMPAT_JOURNAL_DEV != 0 => "jbd",
        () if incompat & !EXT3_INCOMPAT != 0 || ro_compat & !EXT3_RO_COMPAT != 0 => "ext4",
        () if compat & COMPAT_HAS_JOURNAL != 0 => "ext3",
        () => "ext2",
    };
    let wide = |low: usize, high: usize| {
        let high = if incompat & INCOMPAT_64BIT != 0 { sb.le32(high) } else { 0 };
        u64::from(high) << 32 | u64::from(sb.le32(low))
    };
    let block = 1024u64 << log_block_size;
    let (blocks, free) = (wide(0x04, 0x150), wide(0x0c, 0x158));
    Some(Content {
        version: Some(format!("{}.{}", sb.le32(0x4c), sb.le16(0x3e))),
        label: sb.text(0x78, 16),
        uuid: sb.uuid(0x68),
        size: product(blocks, block),
        used: blocks.checked_sub(free).and_then(|used| product(used, block)),
        ..Content::new(kind, Usage::Filesystem, (SUPERBLOCK + 0x38, 2))
    })
}
