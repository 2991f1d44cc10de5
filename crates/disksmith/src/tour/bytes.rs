//! Which bytes of a raw disk a command changed.

use std::collections::BTreeMap;
use std::path::Path;

use disksmith_disk::{Disk, State};
use disksmith_host::{FileDisk, OpenOptions};

/// Disks with more data than this are not compared.
const MOST: u64 = 16 << 20;
/// So many ranges are told; of more, how many.
const SHOWN: usize = 6;
/// Bytes are compared in pieces of this size, the least that a hole can have.
const PIECE: u64 = 4096;

/// The data of a disk, by offset; what is not in it is zero.
#[derive(Debug, Default)]
pub(super) struct Bytes(BTreeMap<u64, Vec<u8>>);

impl Bytes {
    /// Reads the data; `None` where there is too much of it, or it cannot be read.
    pub(super) fn read(path: &Path) -> Option<Self> {
        let disk = FileDisk::open(path, OpenOptions::default()).ok()?;
        let (mut pieces, mut at, mut total) = (BTreeMap::new(), 0, 0);
        while at < disk.size() {
            let extent = disk.map(at, disk.size() - at).ok()?;
            if extent.state == State::Data {
                total += extent.length;
                if total > MOST {
                    return None;
                }
                read_pieces(&disk, at, extent.length, &mut pieces)?;
            }
            at += extent.length.max(1);
        }
        Some(Self(pieces))
    }

    /// The ranges that differ, as text: `bytes 440 to 443, 510 to 511`.
    pub(super) fn changes_since(&self, before: &Self) -> Option<String> {
        let ranges = self.ranges(before);
        if ranges.is_empty() {
            return None;
        }
        let text = |(from, to): &(u64, u64)| format!("{from} to {to}");
        let shown: Vec<String> = ranges.iter().take(SHOWN).map(text).collect();
        let more = match ranges.len().saturating_sub(SHOWN) {
            0 => String::new(),
            n => format!(" and {n} more ranges"),
        };
        Some(format!("bytes {}{more}", shown.join(", ")))
    }

    fn ranges(&self, before: &Self) -> Vec<(u64, u64)> {
        let zeroes = vec![0; PIECE as usize];
        let mut places: Vec<u64> = self.0.keys().chain(before.0.keys()).copied().collect();
        places.sort_unstable();
        places.dedup();
        let mut ranges: Vec<(u64, u64)> = Vec::new();
        for place in places {
            let old = before.0.get(&place).unwrap_or(&zeroes);
            let new = self.0.get(&place).unwrap_or(&zeroes);
            let differ = (place..).zip(old.iter().zip(new)).filter(|(_, (a, b))| a != b);
            for (at, _) in differ {
                match ranges.last_mut() {
                    Some((_, to)) if *to + 1 == at => *to = at,
                    _ => ranges.push((at, at)),
                }
            }
        }
        ranges
    }
}

fn read_pieces(
    disk: &FileDisk,
    start: u64,
    length: u64,
    pieces: &mut BTreeMap<u64, Vec<u8>>,
) -> Option<()> {
    let end = start + length;
    let mut at = start / PIECE * PIECE;
    while at < end {
        let mut bytes = vec![0; PIECE as usize];
        let there = PIECE.min(disk.size() - at) as usize;
        disk.read_at(&mut bytes[..there], at).ok()?;
        pieces.insert(at, bytes);
        at += PIECE;
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changed_ranges_are_told() {
        let piece = |at: u64, bytes: &[u8]| {
            let mut piece = vec![0; PIECE as usize];
            piece[..bytes.len()].copy_from_slice(bytes);
            (at, piece)
        };
        let old = Bytes([piece(0, &[1, 2, 3])].into());
        let new = Bytes([piece(0, &[1, 9, 9, 0, 5]), piece(4096, &[7])].into());
        let told = new.changes_since(&old).unwrap();
        assert_eq!(told, "bytes 1 to 2, 4 to 4, 4096 to 4096");
        assert!(new.changes_since(&new).is_none());
    }
}
