//! Swap space.

use super::window::{Window, product};
use super::{Content, Usage};

const PAGES: [u64; 5] = [4096, 8192, 16384, 32768, 65536];
/// The first page's end tells: swap space, or memory suspended to it.
const MARKS: &[(&[u8; 10], &str, &str)] = &[
    (b"SWAPSPACE2", "swap", "1"),
    (b"SWAP-SPACE", "swap", "0"),
    (b"S1SUSPEND\0", "swsuspend", "s1suspend"),
    (b"S2SUSPEND\0", "swsuspend", "s2suspend"),
    (b"ULSUSPEND\0", "swsuspend", "ulsuspend"),
    (b"LINHIB0001", "swsuspend", "linhib0001"),
];

pub(super) fn probe(window: &Window<'_>) -> Option<Content> {
    for page in PAGES {
        let Some(end) = window.start(page - 10, 10) else { continue };
        let Some((_, kind, version)) = MARKS.iter().find(|(mark, ..)| end[..] == mark[..]) else {
            continue;
        };
        let mut content = Content::new(kind, Usage::Other, (page - 10, 10));
        content.version = Some((*version).to_string());
        if let Some(header) = window.superblock(1024, 512, 0, &[]).filter(|_| *version == "1") {
            content.label = header.text(28, 16);
            content.uuid = header.uuid(12);
            content.size = product(u64::from(header.le32(4)) + 1, page);
        }
        return Some(content);
    }
    None
}
