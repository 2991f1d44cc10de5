//! Directory entries in a block.

use disksmith_disk::Result;

use super::core::corrupt;
use super::layout::{le16, le32, put, put16, put32};
use crate::FileKind;

/// Bytes of an entry before its name.
const HEAD: usize = 8;
/// Bytes of the checksum entry at the end of a block.
pub(crate) const TAIL: usize = 12;
/// `file_type` of the checksum entry.
const TAIL_TYPE: u8 = 0xDE;

/// One entry.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dirent<'a> {
    /// Byte in the block.
    pub(crate) at: usize,
    /// Bytes to the next entry.
    pub(crate) length: usize,
    /// 0 when unused.
    pub(crate) inode: u32,
    pub(crate) kind: u8,
    pub(crate) name: &'a [u8],
}

/// The bytes that an entry needs.
pub(crate) fn needed(name_length: usize) -> usize {
    (HEAD + name_length).next_multiple_of(4)
}

/// `rec_len` of blocks of 64 KiB does not fit into 16 bits.
fn decode_length(raw: u16, block_size: usize) -> usize {
    if block_size < 65536 {
        return raw.into();
    }
    match raw {
        0 | 65535 => block_size,
        raw => usize::from(raw & 65532) | usize::from(raw & 3) << 16,
    }
}

fn encode_length(length: usize) -> u16 {
    if length < 65536 { length as u16 } else { 65535 }
}

/// The entry at `at`, checked.
pub(crate) fn parse(block: &[u8], at: usize, block_size: usize) -> Result<Dirent<'_>> {
    let length = decode_length(le16(block, at + 4), block_size);
    let name_length = usize::from(block.get(at + 6).copied().unwrap_or(0));
    let fits = length >= 12 && length.is_multiple_of(4) && at + length <= block.len();
    let name = block.get(at + HEAD..at + HEAD + name_length);
    match name {
        Some(name) if fits && needed(name_length) <= length => Ok(Dirent {
            at,
            length,
            inode: le32(block, at),
            kind: block.get(at + 7).copied().unwrap_or(0),
            name,
        }),
        _ => Err(corrupt(format!("a directory entry at byte {at} of its block is bad"))),
    }
}

/// All entries, used or not, of a block or of a part of an inline directory.
pub(crate) fn entries(block: &[u8], block_size: usize) -> impl Iterator<Item = Result<Dirent<'_>>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        if at >= block.len() {
            return None;
        }
        let entry = parse(block, at, block_size);
        at = match &entry {
            Ok(entry) => at + entry.length,
            Err(_) => block.len(),
        };
        Some(entry)
    })
}

/// Writes an entry.
pub(crate) fn write(block: &mut [u8], at: usize, length: usize, inode: u32, kind: u8, name: &[u8]) {
    put32(block, at, inode);
    put16(block, at + 4, encode_length(length));
    put(block, at + 6, &[name.len() as u8, kind]);
    put(block, at + HEAD, name);
}

/// Changes the length of an entry.
pub(crate) fn set_length(block: &mut [u8], at: usize, length: usize) {
    put16(block, at + 4, encode_length(length));
}

/// Puts the checksum entry at the end of a block.
pub(crate) fn write_tail(block: &mut [u8]) {
    let at = block.len() - TAIL;
    block[at..].fill(0);
    put16(block, at + 4, TAIL as u16);
    put(block, at + 7, &[TAIL_TYPE]);
}

/// True when the block ends with a checksum entry.
pub(crate) fn has_tail(block: &[u8]) -> bool {
    let Some(at) = block.len().checked_sub(TAIL) else { return false };
    le32(block, at) == 0
        && le16(block, at + 4) == TAIL as u16
        && block.get(at + 6) == Some(&0)
        && block.get(at + 7) == Some(&TAIL_TYPE)
}

/// True when one unused entry covers the whole block: an index block.
pub(crate) fn fills_block(block: &[u8], block_size: usize) -> bool {
    le32(block, 0) == 0 && decode_length(le16(block, 4), block_size) == block_size
}

/// Adds an entry where there is room; false when there is none. `end` is where entries stop.
pub(crate) fn insert(
    block: &mut [u8],
    end: usize,
    block_size: usize,
    inode: u32,
    kind: u8,
    name: &[u8],
) -> Result<bool> {
    let need = needed(name.len());
    let mut at = 0;
    while at < end {
        let (length, used) = {
            let entry = parse(block, at, block_size)?;
            (entry.length, if entry.inode == 0 { 0 } else { needed(entry.name.len()) })
        };
        if length >= used + need {
            if used > 0 {
                set_length(block, at, used);
            }
            write(block, at + used, length - used, inode, kind, name);
            return Ok(true);
        }
        at += length;
    }
    Ok(false)
}

/// The `file_type` of a kind.
pub(crate) fn kind_code(kind: FileKind) -> u8 {
    match kind {
        FileKind::Regular => 1,
        FileKind::Directory => 2,
        FileKind::CharDevice => 3,
        FileKind::BlockDevice => 4,
        FileKind::Fifo => 5,
        FileKind::Socket => 6,
        FileKind::Symlink => 7,
    }
}

/// The kind of a `file_type`.
pub(crate) fn kind_of(code: u8) -> Option<FileKind> {
    Some(match code & 7 {
        1 => FileKind::Regular,
        2 => FileKind::Directory,
        3 => FileKind::CharDevice,
        4 => FileKind::BlockDevice,
        5 => FileKind::Fifo,
        6 => FileKind::Socket,
        7 => FileKind::Symlink,
        _ => return None,
    })
}
