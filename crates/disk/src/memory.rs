//! A sparse disk in memory.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use crate::disk::check_range;
use crate::{Disk, Error, Extent, Kind, Result, State, ZeroMode};

/// Stored in pieces of this size; a piece that was never written takes no memory.
const PIECE: u64 = 4096;

/// A growable disk in memory. Writing past the end grows it. Clones are cheap: they share what
/// neither has written since.
#[derive(Debug, Default)]
pub struct MemoryDisk {
    content: RwLock<Content>,
}

#[derive(Clone, Debug, Default)]
struct Content {
    size: u64,
    /// Shared between clones until one of them writes.
    pieces: BTreeMap<u64, Arc<[u8; PIECE as usize]>>,
}

impl MemoryDisk {
    /// `size` bytes of zeroes.
    pub fn new(size: u64) -> Self {
        Self { content: RwLock::new(Content { size, pieces: BTreeMap::new() }) }
    }

    /// A disk that holds `bytes`.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let mut content = Content { size: bytes.len() as u64, pieces: BTreeMap::new() };
        content.write(bytes, 0);
        Self { content: RwLock::new(content) }
    }

    /// All bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let content = self.read();
        let mut bytes = vec![0; content.size as usize];
        content.fill(&mut bytes, 0);
        bytes
    }

    /// How many bytes of memory hold content.
    pub fn allocated(&self) -> u64 {
        self.read().pieces.len() as u64 * PIECE
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Content> {
        self.content.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Content> {
        self.content.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clone for MemoryDisk {
    fn clone(&self) -> Self {
        Self { content: RwLock::new(self.read().clone()) }
    }
}

impl Content {
    fn fill(&self, buffer: &mut [u8], offset: u64) {
        each_piece(offset, buffer.len() as u64, |piece, within, range| {
            let target = &mut buffer[range];
            match self.pieces.get(&piece) {
                Some(bytes) => target.copy_from_slice(&bytes[within..within + target.len()]),
                None => target.fill(0),
            }
        });
    }

    fn write(&mut self, data: &[u8], offset: u64) {
        each_piece(offset, data.len() as u64, |piece, within, range| {
            let source = &data[range];
            let bytes = self.pieces.entry(piece).or_insert_with(|| Arc::new([0; PIECE as usize]));
            Arc::make_mut(bytes)[within..within + source.len()].copy_from_slice(source);
        });
        self.size = self.size.max(offset + data.len() as u64);
    }

    fn clear(&mut self, offset: u64, length: u64) {
        let end = offset + length;
        let inside: Vec<u64> =
            self.pieces.range(offset / PIECE..end.div_ceil(PIECE)).map(|(n, _)| *n).collect();
        for piece in inside {
            let start = piece * PIECE;
            if start >= offset && start + PIECE <= end {
                self.pieces.remove(&piece);
            } else if let Some(bytes) = self.pieces.get_mut(&piece) {
                let from = offset.saturating_sub(start) as usize;
                let to = (end - start).min(PIECE) as usize;
                Arc::make_mut(bytes)[from..to].fill(0);
            }
        }
    }
}

/// Calls `visit(piece, offset within it, range of the request)` for each piece touched.
fn each_piece(offset: u64, length: u64, mut visit: impl FnMut(u64, usize, std::ops::Range<usize>)) {
    let mut done = 0;
    while done < length {
        let at = offset + done;
        let within = at % PIECE;
        let step = (PIECE - within).min(length - done);
        visit(at / PIECE, within as usize, done as usize..(done + step) as usize);
        done += step;
    }
}

impl Disk for MemoryDisk {
    fn size(&self) -> u64 {
        self.read().size
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        let content = self.read();
        check_range(offset, buffer.len() as u64, content.size)?;
        content.fill(buffer, offset);
        Ok(())
    }

    fn write_at(&self, data: &[u8], offset: u64) -> Result<()> {
        self.write().write(data, offset);
        Ok(())
    }

    fn write_zeroes(&self, offset: u64, length: u64, _mode: ZeroMode) -> Result<()> {
        let mut content = self.write();
        content.clear(offset, length);
        content.size = content.size.max(offset + length);
        Ok(())
    }

    fn discard(&self, offset: u64, length: u64) -> Result<()> {
        self.write().clear(offset, length);
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        Ok(())
    }

    fn map(&self, offset: u64, length: u64) -> Result<Extent> {
        let content = self.read();
        let length = length.min(content.size.saturating_sub(offset));
        if length == 0 {
            return Err(Error::new(Kind::InvalidInput, "nothing to map at the end of the disk"));
        }
        let first = offset / PIECE;
        let held = content.pieces.contains_key(&first);
        let last = (offset + length).div_ceil(PIECE);
        let end = (first..last)
            .find(|piece| content.pieces.contains_key(piece) != held)
            .map_or(offset + length, |piece| piece * PIECE);
        let run = end.min(offset + length) - offset;
        let state = if held { State::Data } else { State::Zero };
        Ok(Extent { length: run, state, place: Some(offset), compressed: false })
    }

    fn set_size(&self, size: u64) -> Result<()> {
        let mut content = self.write();
        if size < content.size {
            let old = content.size;
            content.clear(size, old - size);
        }
        content.size = size;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_reads_and_clears() {
        let disk = MemoryDisk::new(10);
        disk.write_at(b"hello", 8190).unwrap();
        assert_eq!(disk.size(), 8195);
        let mut buffer = [1; 7];
        disk.read_at(&mut buffer, 8188).unwrap();
        assert_eq!(&buffer, b"\0\0hello");
        disk.write_zeroes(8191, 2, ZeroMode::Unmap).unwrap();
        disk.read_at(&mut buffer, 8188).unwrap();
        assert_eq!(&buffer, b"\0\0h\0\0lo");
        assert!(disk.read_at(&mut buffer, 8190).is_err());
        assert_eq!(disk.map(0, u64::MAX).unwrap().length, 4096);
    }
}
