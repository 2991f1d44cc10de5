//! A source that is read once, carefully.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use disksmith_disk::{Disk, Error, Extent, Geometry, Kind, Result, State, ZeroMode};
use sha2::{Digest, Sha256};

/// A sector that cannot be read is tried so often.
const ATTEMPTS: usize = 3;

/// The hash of a range that was handed out.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Hashed {
    pub(crate) offset: u64,
    pub(crate) length: u64,
    pub(crate) hash: [u8; 16],
}

/// A disk as the source of a copy.
#[derive(Debug)]
pub struct Reader {
    disk: Arc<dyn Disk>,
    /// What need not be copied, ascending.
    free: Vec<Range<u64>>,
    /// What cannot be read is zeroes, and noted; small pieces are read from here, past any cache.
    rescue: Option<Arc<dyn Disk>>,
    bad: Mutex<Vec<Range<u64>>>,
    hashes: Option<Mutex<Vec<Hashed>>>,
    read: AtomicU64,
    placed: AtomicU64,
}

impl Reader {
    /// All of a disk.
    pub fn new(disk: Arc<dyn Disk>) -> Self {
        Self {
            disk,
            free: Vec::new(),
            rescue: None,
            bad: Mutex::default(),
            hashes: None,
            read: AtomicU64::new(0),
            placed: AtomicU64::new(0),
        }
    }

    /// Without what is free (ascending).
    #[must_use]
    pub fn without(mut self, free: Vec<Range<u64>>) -> Self {
        self.free = free;
        self
    }

    /// Past what cannot be read: it is zeroes, and noted after the ranges `known` from an earlier
    /// run. Pieces that failed are read again from `again`, in sectors.
    #[must_use]
    pub fn rescuing(mut self, again: Arc<dyn Disk>, known: Vec<Range<u64>>) -> Self {
        self.rescue = Some(again);
        self.bad = Mutex::new(known);
        self
    }

    /// Keeping hashes for [`verify`](super::verify()).
    #[must_use]
    pub fn hashing(mut self) -> Self {
        self.hashes = Some(Mutex::default());
        self
    }

    /// What is free.
    pub fn free(&self) -> &[Range<u64>] {
        &self.free
    }

    /// What could not be read, ascending.
    pub fn bad(&self) -> Vec<Range<u64>> {
        let mut bad = self.bad.lock().unwrap_or_else(PoisonError::into_inner).clone();
        bad.sort_unstable_by_key(|range| range.start);
        let mut joined: Vec<Range<u64>> = Vec::with_capacity(bad.len());
        for range in bad {
            match joined.last_mut() {
                Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
                _ => joined.push(range),
            }
        }
        joined
    }

    /// Bytes read so far.
    pub fn bytes_read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    pub(crate) fn placed(&self) -> u64 {
        self.placed.load(Ordering::Acquire)
    }

    pub(crate) fn note_placed(&self, done: u64) {
        self.placed.fetch_max(done, Ordering::AcqRel);
    }

    pub(crate) fn hashes(&self) -> Vec<Hashed> {
        let hashes = self.hashes.as_ref();
        let mut all = hashes.map_or_else(Vec::new, |hashes| {
            hashes.lock().unwrap_or_else(PoisonError::into_inner).clone()
        });
        all.sort_unstable_by_key(|hashed| hashed.offset);
        all
    }

    /// The range of free space at or behind `offset`.
    fn free_at(&self, offset: u64) -> Option<&Range<u64>> {
        self.free.get(self.free.partition_point(|range| range.end <= offset))
    }

    /// Reads what can be read, sector by sector where it must be.
    fn recover(&self, again: &dyn Disk, buffer: &mut [u8], offset: u64) -> Result<()> {
        let sector = again.geometry().sector.max(512) as usize;
        let mut todo = vec![(0, buffer.len())];
        while let Some((from, length)) = todo.pop() {
            let part = buffer.get_mut(from..from + length).unwrap_or(&mut []);
            let attempts = if length <= sector { ATTEMPTS } else { 1 };
            let read = (0..attempts).any(|_| again.read_at(part, offset + from as u64).is_ok());
            if read {
                continue;
            }
            if length <= sector {
                part.fill(0);
                let start = offset + from as u64;
                let mut bad = self.bad.lock().unwrap_or_else(PoisonError::into_inner);
                bad.push(start..start + length as u64);
                continue;
            }
            let half = (length / 2).next_multiple_of(sector);
            todo.push((from + half, length - half));
            todo.push((from, half));
        }
        Ok(())
    }
}

pub(crate) fn hash(bytes: &[u8]) -> [u8; 16] {
    let digest: [u8; 32] = Sha256::digest(bytes).into();
    let mut hash = [0; 16];
    hash.copy_from_slice(&digest[..16]);
    hash
}

impl Disk for Reader {
    fn size(&self) -> u64 {
        self.disk.size()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        match (self.disk.read_at(buffer, offset), &self.rescue) {
            (Ok(()), _) => {}
            (Err(_), Some(again)) => self.recover(again, buffer, offset)?,
            (Err(error), None) => {
                return Err(error.with_hint(
                    "With --rescue MAPFILE what cannot be read is left out, and listed.",
                ));
            }
        }
        self.read.fetch_add(buffer.len() as u64, Ordering::Relaxed);
        if let Some(hashes) = &self.hashes {
            let hashed = Hashed { offset, length: buffer.len() as u64, hash: hash(buffer) };
            hashes.lock().unwrap_or_else(PoisonError::into_inner).push(hashed);
        }
        Ok(())
    }

    fn write_at(&self, _data: &[u8], _offset: u64) -> Result<()> {
        Err(read_only())
    }

    fn write_zeroes(&self, _offset: u64, _length: u64, _mode: ZeroMode) -> Result<()> {
        Err(read_only())
    }

    fn discard(&self, _offset: u64, _length: u64) -> Result<()> {
        Err(read_only())
    }

    fn flush(&self) -> Result<()> {
        Ok(())
    }

    fn map(&self, offset: u64, length: u64) -> Result<Extent> {
        let length = length.min(self.size().saturating_sub(offset));
        let length = match self.free_at(offset) {
            Some(free) if free.start <= offset => {
                return Ok(Extent::zero((free.end - offset).min(length)));
            }
            Some(free) => length.min(free.start - offset),
            None => length,
        };
        match self.disk.map(offset, length) {
            Ok(extent) if extent.state == State::Data => Ok(Extent::opaque(extent.length, false)),
            Ok(extent) => Ok(Extent { place: None, ..extent }),
            // What is there cannot be told: it is tried.
            Err(_) if self.rescue.is_some() => Ok(Extent::opaque(length, false)),
            Err(error) => Err(error),
        }
    }

    fn read_only(&self) -> bool {
        true
    }

    fn geometry(&self) -> Geometry {
        self.disk.geometry()
    }
}

fn read_only() -> Error {
    Error::new(Kind::Refused, "the source of a copy is not written to")
}

#[cfg(test)]
mod tests {
    use disksmith_disk::MemoryDisk;

    use super::*;

    #[test]
    fn free_space_is_not_there() {
        let disk = MemoryDisk::from_bytes(&[7; 65536]);
        let reader = Reader::new(Arc::new(disk)).without(vec![4096..8192, 16384..20480]);
        let runs: Vec<(u64, State)> = std::iter::successors(Some((0, 0)), |(at, _)| {
            (*at < 65536).then(|| {
                let run = reader.map(*at, 65536).unwrap();
                (*at + run.length, run.length)
            })
        })
        .skip(1)
        .map(|(end, length)| (length, reader.map(end - length, 1).unwrap().state))
        .collect();
        assert_eq!(
            runs,
            [
                (4096, State::Data),
                (4096, State::Zero),
                (8192, State::Data),
                (4096, State::Zero),
                (45056, State::Data)
            ]
        );
    }
}
