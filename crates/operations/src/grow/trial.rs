//! A disk as it will be, for trying out what may fail.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use disksmith_disk::{Disk, Error, Extent, Geometry, Kind, Result, ZeroMode};

/// What is written is kept in pieces of this size.
const PIECE: u64 = 4096;
/// No more than this is kept: then the trial has gone well enough.
const MEMORY: usize = 128 << 20;

/// A disk of another size: what lies behind the end of the real one reads as zero, and what is
/// written stays in memory.
#[derive(Debug)]
pub(crate) struct Trial {
    below: Arc<dyn Disk>,
    size: u64,
    pieces: RwLock<HashMap<u64, Box<[u8]>>>,
}

impl Trial {
    /// `below` as if it had `size` bytes.
    pub(crate) fn new(below: Arc<dyn Disk>, size: u64) -> Self {
        Self { below, size, pieces: RwLock::default() }
    }

    /// Whether an error means that so much was written that the trial was ended.
    pub(crate) fn was_long(error: &Error) -> bool {
        error.kind() == Kind::Cancelled
    }

    fn check(&self, offset: u64, length: u64) -> Result<()> {
        match offset.checked_add(length) {
            Some(end) if end <= self.size => Ok(()),
            _ => Err(Error::new(Kind::InvalidInput, "a request outside of the disk")),
        }
    }

    fn original(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        let there = self.below.size().saturating_sub(offset).min(buffer.len() as u64) as usize;
        let (real, beyond) = buffer.split_at_mut(there);
        beyond.fill(0);
        match real.is_empty() {
            true => Ok(()),
            false => self.below.read_at(real, offset),
        }
    }

    fn change(&self, offset: u64, length: u64, bytes: impl Fn(u64, &mut [u8])) -> Result<()> {
        self.check(offset, length)?;
        let mut at = offset;
        let end = offset + length;
        while at < end {
            let (piece, within) = (at / PIECE, at % PIECE);
            let step = (PIECE - within).min(end - at);
            let mut pieces = self.pieces.write().unwrap_or_else(PoisonError::into_inner);
            if pieces.len().saturating_mul(PIECE as usize) > MEMORY {
                return Err(Error::new(Kind::Cancelled, "the trial is long enough"));
            }
            let held = match pieces.entry(piece) {
                std::collections::hash_map::Entry::Occupied(held) => held.into_mut(),
                std::collections::hash_map::Entry::Vacant(free) => {
                    let mut content = vec![0; PIECE as usize];
                    if step < PIECE {
                        self.original(&mut content, piece * PIECE)?;
                    }
                    free.insert(content.into_boxed_slice())
                }
            };
            bytes(at - offset, &mut held[within as usize..(within + step) as usize]);
            at += step;
        }
        Ok(())
    }
}

impl Disk for Trial {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        self.check(offset, buffer.len() as u64)?;
        self.original(buffer, offset)?;
        let pieces = self.pieces.read().unwrap_or_else(PoisonError::into_inner);
        if pieces.is_empty() {
            return Ok(());
        }
        let end = offset + buffer.len() as u64;
        for piece in offset / PIECE..end.div_ceil(PIECE) {
            let Some(held) = pieces.get(&piece) else { continue };
            let (from, to) = ((piece * PIECE).max(offset), ((piece + 1) * PIECE).min(end));
            let source = (from - piece * PIECE) as usize..(to - piece * PIECE) as usize;
            buffer[(from - offset) as usize..(to - offset) as usize].copy_from_slice(&held[source]);
        }
        Ok(())
    }

    fn write_at(&self, data: &[u8], offset: u64) -> Result<()> {
        self.change(offset, data.len() as u64, |done, part| {
            let from = done as usize;
            part.copy_from_slice(&data[from..from + part.len()]);
        })
    }

    fn write_zeroes(&self, offset: u64, length: u64, _mode: ZeroMode) -> Result<()> {
        // Zeroes behind the real end are there already, unless something was written there.
        let end = offset.saturating_add(length);
        let real = self.below.size().clamp(offset, end);
        self.change(offset, real - offset, |_, part| part.fill(0))?;
        self.check(real, end - real)?;
        let mut pieces = self.pieces.write().unwrap_or_else(PoisonError::into_inner);
        for (piece, held) in pieces.iter_mut() {
            let (from, to) = ((piece * PIECE).max(real), ((piece + 1) * PIECE).min(end));
            if from < to {
                held[(from - piece * PIECE) as usize..(to - piece * PIECE) as usize].fill(0);
            }
        }
        Ok(())
    }

    fn discard(&self, offset: u64, length: u64) -> Result<()> {
        self.check(offset, length)
    }

    fn flush(&self) -> Result<()> {
        Ok(())
    }

    fn map(&self, offset: u64, length: u64) -> Result<Extent> {
        self.check(offset, 1)?;
        Ok(Extent::opaque(length.min(self.size - offset), false))
    }

    fn geometry(&self) -> Geometry {
        self.below.geometry()
    }
}

#[cfg(test)]
mod tests {
    use disksmith_disk::MemoryDisk;
    use disksmith_testkit::Rng;

    use super::*;

    #[test]
    fn a_trial_shows_what_was_done_and_changes_nothing() {
        let mut rng = Rng::new(9);
        let below = Arc::new(MemoryDisk::from_bytes(&rng.bytes(100_000)));
        let before = below.to_bytes();
        let trial = Trial::new(below.clone(), 300_000);
        let model = MemoryDisk::from_bytes(&before);
        model.set_size(300_000).unwrap();
        for _ in 0..500 {
            let offset = rng.below(290_000);
            let length = 1 + rng.below(9_000.min(300_000 - offset));
            if rng.below(3) == 0 {
                trial.write_zeroes(offset, length, ZeroMode::Keep).unwrap();
                model.write_zeroes(offset, length, ZeroMode::Keep).unwrap();
            } else {
                let bytes = rng.bytes(length as usize);
                trial.write_at(&bytes, offset).unwrap();
                model.write_at(&bytes, offset).unwrap();
            }
            let mut seen = vec![0; 300_000];
            trial.read_at(&mut seen, 0).unwrap();
            assert!(seen == model.to_bytes());
        }
        assert!(below.to_bytes() == before);
        assert!(trial.write_at(&[1], 300_000).is_err());
    }
}
