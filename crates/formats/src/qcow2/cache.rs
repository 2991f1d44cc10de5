//! A bounded write-back cache of metadata in slices.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;

use disksmith_disk::{Disk, Result};

use super::util::read_padded;

/// Tables larger than this are cached in parts.
const SLICE_MOST: u64 = 64 << 10;
/// Written parts are rounded to this.
const SECTOR: usize = 512;
/// Neighbouring slices are written together up to this many bytes.
const WRITE_MOST: usize = 1 << 20;
/// However small the budget: one to copy from and one to copy to.
const SLICES_LEAST: u64 = 2;

/// Parts of tables by their place in the storage.
#[derive(Debug)]
pub(super) struct SliceCache {
    size: u64,
    /// How many slices to keep. Dirty ones are kept beyond it; the owner writes them when
    /// [`crowded`](Self::crowded) says so.
    limit: usize,
    slices: HashMap<u64, Slice>,
    dirty: BTreeSet<u64>,
    clock: u64,
}

#[derive(Debug)]
struct Slice {
    bytes: Box<[u8]>,
    used: u64,
    dirty: Range<usize>,
}

impl SliceCache {
    /// A cache of at most `budget` bytes for tables of `table_size` bytes.
    pub(super) fn new(table_size: u64, budget: u64) -> Self {
        let size = table_size.min(SLICE_MOST);
        Self {
            size,
            limit: (budget / size).max(SLICES_LEAST) as usize,
            slices: HashMap::new(),
            dirty: BTreeSet::new(),
            clock: 0,
        }
    }

    /// Bytes per slice.
    pub(super) fn slice_size(&self) -> u64 {
        self.size
    }

    /// The bytes at `offset` up to the end of their slice.
    pub(super) fn read(&mut self, storage: &dyn Disk, offset: u64) -> Result<&[u8]> {
        let within = (offset % self.size) as usize;
        let slice = self.slice(storage, offset)?;
        Ok(slice.bytes.get(within..).unwrap_or_default())
    }

    /// Changes bytes that do not cross a slice's end.
    pub(super) fn write(&mut self, storage: &dyn Disk, offset: u64, data: &[u8]) -> Result<()> {
        let within = (offset % self.size) as usize;
        let base = offset - within as u64;
        let slice = self.slice(storage, offset)?;
        let end = within + data.len();
        super::layout::put(&mut slice.bytes, within, data);
        slice.dirty = match slice.dirty.is_empty() {
            true => within..end,
            false => slice.dirty.start.min(within)..slice.dirty.end.max(end),
        };
        self.dirty.insert(base);
        Ok(())
    }

    /// Takes over a table of zeroes at `offset`, without looking at the storage.
    pub(super) fn insert_zeroes(&mut self, offset: u64, length: u64) {
        let mut base = offset;
        while base < offset + length {
            self.make_room();
            let size = self.size as usize;
            let slice =
                Slice { bytes: vec![0; size].into_boxed_slice(), used: self.clock, dirty: 0..size };
            self.slices.insert(base, slice);
            self.dirty.insert(base);
            base += self.size;
        }
    }

    /// Drops what is known of a range, written or not.
    pub(super) fn forget(&mut self, offset: u64, length: u64) {
        let mut base = offset - offset % self.size;
        while base < offset + length {
            self.slices.remove(&base);
            self.dirty.remove(&base);
            base += self.size;
        }
    }

    /// Whether anything waits to be written.
    pub(super) fn is_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// Whether so much waits to be written that it had better be.
    pub(super) fn crowded(&self) -> bool {
        self.dirty.len() > self.limit / 2
    }

    /// Writes what waits to be written and `wanted` accepts (asked by offset of the slice), in
    /// ascending order. Tells whether anything was.
    pub(super) fn write_dirty(
        &mut self,
        storage: &dyn Disk,
        wanted: impl Fn(u64) -> bool,
    ) -> Result<bool> {
        let bases: Vec<u64> = self.dirty.iter().copied().filter(|base| wanted(*base)).collect();
        let mut rest = bases.as_slice();
        while !rest.is_empty() {
            let (offset, data, taken) = self.gather(rest);
            storage.write_at(&data, offset)?;
            let (written, left) = rest.split_at(taken);
            for base in written {
                self.dirty.remove(base);
                if let Some(slice) = self.slices.get_mut(base) {
                    slice.dirty = 0..0;
                }
            }
            rest = left;
        }
        Ok(!bases.is_empty())
    }

    /// The bytes to write for the first of `bases` and those that adjoin it.
    fn gather(&self, bases: &[u64]) -> (u64, Vec<u8>, usize) {
        let mut data = Vec::new();
        let mut start = 0;
        let mut taken = 0;
        for base in bases {
            let Some(slice) = self.slices.get(base) else { break };
            let from = slice.dirty.start / SECTOR * SECTOR;
            let to = slice.dirty.end.next_multiple_of(SECTOR).min(slice.bytes.len());
            let adjoins = start + data.len() as u64 == base + from as u64;
            if taken > 0 && (!adjoins || data.len() >= WRITE_MOST) {
                break;
            }
            if taken == 0 {
                start = base + from as u64;
            }
            data.extend_from_slice(slice.bytes.get(from..to).unwrap_or_default());
            taken += 1;
        }
        // A base without a slice cannot be; stepping over it keeps the caller's loop finite.
        (start, data, taken.max(1))
    }

    fn slice(&mut self, storage: &dyn Disk, offset: u64) -> Result<&mut Slice> {
        let base = offset - offset % self.size;
        self.clock += 1;
        if !self.slices.contains_key(&base) {
            let mut bytes = vec![0; self.size as usize].into_boxed_slice();
            read_padded(storage, &mut bytes, base)?;
            self.make_room();
            self.slices.insert(base, Slice { bytes, used: 0, dirty: 0..0 });
        }
        let clock = self.clock;
        let slice = self.slices.entry(base).or_insert_with(|| Slice {
            bytes: Box::default(),
            used: 0,
            dirty: 0..0,
        });
        slice.used = clock;
        Ok(slice)
    }

    /// Evicts the older quarter of the clean slices when the cache is full.
    fn make_room(&mut self) {
        if self.slices.len() < self.limit {
            return;
        }
        let mut clean: Vec<(u64, u64)> = self
            .slices
            .iter()
            .filter(|(base, _)| !self.dirty.contains(base))
            .map(|(base, slice)| (slice.used, *base))
            .collect();
        let quarter = (clean.len() / 4).max(1).min(clean.len());
        if quarter == 0 {
            return;
        }
        clean.select_nth_unstable(quarter - 1);
        for (_, base) in clean.iter().take(quarter) {
            self.slices.remove(base);
        }
    }
}
