//! Pieces of directories in memory: at most 64 sectors each, so that a bit for each sector tells
//! which ones differ from the disk.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use disksmith_disk::{Context, Disk, Result};

use super::layout::{DirEntry, ENTRY, FREE};
use super::shape::Shape;
use super::table::runs_of_bits;
use crate::raw::put;

/// Sectors in a chunk.
const SECTORS: u64 = 64;
/// Bytes of unchanged chunks that are kept.
const BYTES_MAX: usize = 64 << 20;

/// A piece of a directory.
#[derive(Clone, Debug, Default)]
pub(crate) struct Chunk {
    pub(crate) bytes: Vec<u8>,
    dirty: u64,
    /// A bit for each slot that is to be freed at the next commit; empty when there is none.
    dead: Vec<u64>,
}

impl Chunk {
    pub(crate) fn entry(&self, slot: usize) -> Option<DirEntry> {
        DirEntry::read(self.bytes.get(slot * ENTRY..)?)
    }

    pub(crate) fn is_dead(&self, slot: usize) -> bool {
        self.dead.get(slot / 64).is_some_and(|word| word >> (slot % 64) & 1 != 0)
    }

    fn kill(&mut self, slot: usize) {
        if self.dead.is_empty() {
            self.dead = vec![0; (self.bytes.len() / ENTRY).div_ceil(64)];
        }
        if let Some(word) = self.dead.get_mut(slot / 64) {
            *word |= 1 << (slot % 64);
        }
    }

    /// Frees the slots that wait for it.
    fn bury(&mut self, sector: u32) {
        for (index, word) in std::mem::take(&mut self.dead).into_iter().enumerate() {
            for bit in 0..64 {
                if word >> bit & 1 != 0 {
                    self.store((index * 64 + bit) * ENTRY, &[FREE], sector);
                }
            }
        }
    }

    fn store(&mut self, at: usize, bytes: &[u8], sector: u32) {
        put(&mut self.bytes, at, bytes);
        self.dirty |= 1 << ((at / sector as usize) & 63);
    }
}

/// The pieces that are in memory, by where they begin on the disk.
#[derive(Debug, Default)]
pub(crate) struct Chunks {
    held: RwLock<HashMap<u64, Arc<Chunk>>>,
}

/// Bytes in a piece of a directory that lies in clusters.
pub(crate) fn chunk_size(shape: &Shape) -> u64 {
    shape.cluster_size().min(SECTORS * u64::from(shape.sector))
}

/// Where the piece begins that has the byte `at` of the disk, and its length. `None` where no
/// directory can lie.
pub(crate) fn chunk_at(shape: &Shape, at: u64) -> Option<(u64, u64)> {
    let (start, end, size) = match shape.fixed_root() {
        Some(root) if root.contains(&at) => {
            (root.start, root.end, SECTORS * u64::from(shape.sector))
        }
        _ => {
            let start = shape.byte(shape.data_start);
            let end = start + u64::from(shape.clusters) * shape.cluster_size();
            (start, end, chunk_size(shape))
        }
    };
    if !(start..end).contains(&at) {
        return None;
    }
    let begin = start + (at - start) / size * size;
    Some((begin, size.min(end - begin)))
}

impl Chunks {
    /// The piece that begins at `start`.
    pub(crate) fn get(&self, disk: &dyn Disk, shape: &Shape, start: u64) -> Result<Arc<Chunk>> {
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(chunk) = held.get(&start) {
            return Ok(chunk.clone());
        }
        drop(held);
        let (_, length) = chunk_at(shape, start)
            .ok_or_else(|| super::shape::corrupt("a directory lies outside of the volume"))?;
        let mut chunk = Chunk { bytes: vec![0; length as usize], ..Chunk::default() };
        disk.read_at(&mut chunk.bytes, start).context("Could not read a directory")?;
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        if held.len() * length as usize > BYTES_MAX {
            held.retain(|_, chunk| chunk.dirty != 0 || !chunk.dead.is_empty());
        }
        Ok(held.entry(start).or_insert_with(|| Arc::new(chunk)).clone())
    }

    fn change(
        &mut self,
        disk: &dyn Disk,
        shape: &Shape,
        start: u64,
        work: &mut dyn FnMut(&mut Chunk),
    ) -> Result<()> {
        self.get(disk, shape, start)?;
        let held = self.held.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(chunk) = held.get_mut(&start) {
            work(Arc::make_mut(chunk));
        }
        Ok(())
    }

    /// Stores bytes within one piece, in memory; answers where the piece begins.
    pub(crate) fn store(
        &mut self,
        disk: &dyn Disk,
        shape: &Shape,
        at: u64,
        bytes: &[u8],
    ) -> Result<u64> {
        let (start, _) = chunk_at(shape, at).ok_or_else(crate::errors::stale)?;
        self.change(disk, shape, start, &mut |chunk| {
            chunk.store((at - start) as usize, bytes, shape.sector);
        })?;
        Ok(start)
    }

    /// Lets the slot at `at` be free from the next commit on; answers where the piece begins.
    pub(crate) fn kill(&mut self, disk: &dyn Disk, shape: &Shape, at: u64) -> Result<u64> {
        let (start, _) = chunk_at(shape, at).ok_or_else(crate::errors::stale)?;
        self.change(disk, shape, start, &mut |chunk| {
            chunk.kill((at - start) as usize / ENTRY);
        })?;
        Ok(start)
    }

    /// Frees the slots of a piece that wait for it.
    pub(crate) fn bury(&mut self, disk: &dyn Disk, shape: &Shape, start: u64) -> Result<()> {
        self.change(disk, shape, start, &mut |chunk| chunk.bury(shape.sector))
    }

    /// A piece of a new cluster, empty; not read from the disk.
    pub(crate) fn insert(&mut self, start: u64, length: u64) {
        let chunk = Chunk { bytes: vec![0; length as usize], ..Chunk::default() };
        let held = self.held.get_mut().unwrap_or_else(PoisonError::into_inner);
        held.insert(start, Arc::new(chunk));
    }

    /// Forgets pieces of clusters that are freed.
    pub(crate) fn forget(&mut self, start: u64, length: u64, size: u64) {
        let held = self.held.get_mut().unwrap_or_else(PoisonError::into_inner);
        for at in (start..start + length).step_by(size.max(1) as usize) {
            held.remove(&at);
        }
    }

    /// Writes the sectors of a piece that differ.
    pub(crate) fn write_back(
        &mut self,
        disk: &dyn Disk,
        shape: &Shape,
        start: u64,
    ) -> Result<bool> {
        let held = self.held.get_mut().unwrap_or_else(PoisonError::into_inner);
        let Some(chunk) = held.get_mut(&start).filter(|chunk| chunk.dirty != 0) else {
            return Ok(false);
        };
        let chunk = Arc::make_mut(chunk);
        for (from, to) in runs_of_bits(chunk.dirty.into()) {
            let (from, to) = ((from * shape.sector) as usize, (to * shape.sector) as usize);
            let bytes = chunk.bytes.get(from..to.min(chunk.bytes.len())).unwrap_or(&[]);
            disk.write_at(bytes, start + from as u64).context("Could not write a directory")?;
        }
        chunk.dirty = 0;
        Ok(true)
    }

    /// Writes a whole piece. `masked`: with every slot in use marked as free, for clusters that
    /// become part of a directory before what they name is there.
    pub(crate) fn write_whole(&mut self, disk: &dyn Disk, start: u64, masked: bool) -> Result<()> {
        let held = self.held.get_mut().unwrap_or_else(PoisonError::into_inner);
        let Some(chunk) = held.get_mut(&start) else { return Ok(()) };
        if masked {
            let mut bytes = chunk.bytes.clone();
            for slot in bytes.chunks_mut(ENTRY).filter(|slot| slot.first() != Some(&0)) {
                slot.fill(0);
                put(slot, 0, &[FREE]);
            }
            return disk.write_at(&bytes, start).context("Could not write a directory");
        }
        let chunk = Arc::make_mut(chunk);
        disk.write_at(&chunk.bytes, start).context("Could not write a directory")?;
        chunk.dirty = 0;
        Ok(())
    }

    /// Writes one sector of a piece as it is on the disk, but with its never used slots marked as
    /// free where they are in use in memory: names behind this sector become visible whether or
    /// not its new content is there.
    pub(crate) fn write_without_end(
        &mut self,
        disk: &dyn Disk,
        shape: &Shape,
        sector_at: u64,
    ) -> Result<()> {
        let Some((start, _)) = chunk_at(shape, sector_at) else { return Ok(()) };
        let held = self.held.get_mut().unwrap_or_else(PoisonError::into_inner);
        let Some(chunk) = held.get(&start) else { return Ok(()) };
        let mut sector = vec![0; shape.sector as usize];
        disk.read_at(&mut sector, sector_at)?;
        let from = (sector_at - start) as usize;
        let ours = chunk.bytes.get(from..).unwrap_or(&[]);
        for (slot, ours) in sector.chunks_mut(ENTRY).zip(ours.chunks(ENTRY)) {
            if slot.first() == Some(&0) && ours.first() != Some(&0) {
                slot.fill(0);
                put(slot, 0, &[FREE]);
            }
        }
        disk.write_at(&sector, sector_at).context("Could not write a directory")
    }
}
