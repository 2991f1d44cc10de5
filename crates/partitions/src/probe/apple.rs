//! HFS+ and APFS.

use disksmith_disk::Result;

use super::window::{Fields, Window, product, utf16};
use super::{Content, Usage};

const HFS_HEADER: u64 = 1024;

pub(super) fn hfs_plus(window: &Window<'_>) -> Result<Option<Content>> {
    let header = |magic: &[u8]| window.superblock(HFS_HEADER, 512, 0, magic);
    let Some(header) = header(b"H+").or_else(|| header(b"HX")) else { return Ok(None) };
    let block = header.be32(40);
    if !block.is_power_of_two() || block < 512 || !matches!(header.be16(2), 4 | 5) {
        return Ok(None);
    }
    let (blocks, free) = (header.be32(44), header.be32(48));
    let block = u64::from(block);
    Ok(Some(Content {
        label: hfs_label(window, &header, block)?,
        uuid: hfs_uuid(header.slice(104, 8)),
        size: product(u64::from(blocks), block),
        used: blocks.checked_sub(free).and_then(|used| product(u64::from(used), block)),
        ..Content::new("hfsplus", Usage::Filesystem, (HFS_HEADER, 2))
    }))
}

/// The volume's name is the name of the root folder: the first record of the catalog.
fn hfs_label(window: &Window<'_>, header: &Fields<'_>, block: u64) -> Result<Option<String>> {
    let Some(catalog) = product(u64::from(header.be32(288)), block) else { return Ok(None) };
    let Some(node) = window.bytes(catalog, 512)?.map(Fields) else { return Ok(None) };
    let size = u64::from(node.be16(14 + 18));
    let leaf = product(u64::from(node.be32(14 + 10)), size).and_then(|at| catalog.checked_add(at));
    let Some(leaf) = leaf.filter(|_| size >= 512) else { return Ok(None) };
    let Some(node) = window.bytes(leaf, size)?.map(Fields) else { return Ok(None) };
    // A leaf (kind -1) whose first key has the parent of the root folder, 1.
    if node.u8(8) != 0xff || node.be32(16) != 1 {
        return Ok(None);
    }
    let units = usize::from(node.be16(20)).min(255);
    Ok(utf16((0..units).map(|unit| node.be16(22 + 2 * unit))))
}

/// Apple derives the UUID from the eight bytes of the volume's id: version 3 in a namespace of
/// its own.
fn hfs_uuid(id: &[u8]) -> Option<String> {
    const NAMESPACE: uuid::Uuid = uuid::Uuid::from_u128(0xB3E20F39_F292_11D6_97A4_00306543ECAC);
    (id.len() == 8 && id != [0; 8]).then(|| uuid::Uuid::new_v3(&NAMESPACE, id).to_string())
}

pub(super) fn apfs(window: &Window<'_>) -> Option<Content> {
    let sb = window.superblock(0, 4096, 32, b"NXSB")?;
    let block = sb.le32(36);
    if !block.is_power_of_two() || !(4096..=65536).contains(&block) {
        return None;
    }
    Some(Content {
        uuid: sb.uuid(72),
        size: product(sb.le64(40), u64::from(block)),
        ..Content::new("apfs", Usage::Filesystem, (32, 4))
    })
}
