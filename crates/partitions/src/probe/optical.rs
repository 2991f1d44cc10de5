//! ISO 9660.

use super::window::{Fields, Window, product};
use super::{Content, Usage};

const DESCRIPTORS: u64 = 32 << 10;
const DESCRIPTOR_LENGTH: u64 = 2048;
/// Volume descriptors are few; the list ends with one of type 255.
const MAX_DESCRIPTORS: u64 = 16;

pub(super) fn iso9660(window: &Window<'_>) -> Option<Content> {
    for index in 0..MAX_DESCRIPTORS {
        let at = DESCRIPTORS + index * DESCRIPTOR_LENGTH;
        let Some(descriptor) = window.superblock(at, DESCRIPTOR_LENGTH, 1, b"CD001") else { break };
        match descriptor.u8(0) {
            1 => return Some(primary(&descriptor, at)),
            255 => break,
            _ => {}
        }
    }
    None
}

fn primary(descriptor: &Fields<'_>, at: u64) -> Content {
    let size = product(u64::from(descriptor.le32(80)), u64::from(descriptor.le16(128)));
    Content {
        label: descriptor.text(40, 32),
        uuid: date(descriptor.slice(830, 16)).or_else(|| date(descriptor.slice(813, 16))),
        size,
        used: size,
        ..Content::new("iso9660", Usage::Filesystem, (at + 1, 5))
    }
}

/// The date of modification stands in for an id: `2024-01-31-23-59-58-00`.
fn date(digits: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(digits).ok().filter(|_| digits.len() == 16)?;
    if !text.bytes().all(|b| b.is_ascii_digit()) || text.bytes().all(|b| b == b'0') {
        return None;
    }
    let pairs: Vec<&str> = (4..16).step_by(2).filter_map(|at| text.get(at..at + 2)).collect();
    Some(format!("{}-{}", text.get(..4)?, pairs.join("-")))
}
