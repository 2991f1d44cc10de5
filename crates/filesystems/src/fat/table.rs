//! The file allocation table, in pages that are read when needed.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, PoisonError, RwLock};

use disksmith_disk::{Context, Disk, Result};

use super::shape::{FatKind, Shape};
use crate::raw::{le16, le32, put16, put32};

/// Bytes of a page: 128 sectors at most, one for each bit of [`Page::dirty`]. All of FAT12 fits
/// into one, so that no entry crosses a border.
const PAGE: u64 = 64 << 10;
/// Unchanged pages are dropped when there are more: 64 MiB.
const PAGES_MAX: usize = 1024;

/// The pages that are in memory.
#[derive(Debug, Default)]
pub(crate) struct Table {
    pages: RwLock<HashMap<u32, Arc<Page>>>,
    dirty: BTreeSet<u32>,
}

/// A piece of the table.
#[derive(Clone, Debug)]
pub(crate) struct Page {
    pub(crate) bytes: Vec<u8>,
    /// A bit for each sector that differs from the disk.
    dirty: u128,
}

/// Where the entry of a cluster begins: page and byte in it.
fn place(kind: FatKind, cluster: u32) -> (u32, usize) {
    let at = u64::from(cluster) * kind.bits() / 8;
    ((at / PAGE) as u32, (at % PAGE) as usize)
}

/// How many clusters have their entries in one page.
fn per_page(kind: FatKind) -> u32 {
    match kind {
        FatKind::Fat12 => u32::MAX,
        kind => (PAGE * 8 / kind.bits()) as u32,
    }
}

impl Page {
    /// Bytes of all pages but the last.
    pub(crate) const SIZE: u64 = PAGE;

    /// A page of zeroes.
    pub(crate) fn empty(length: usize) -> Self {
        Self { bytes: vec![0; length], dirty: 0 }
    }

    fn get(&self, kind: FatKind, cluster: u32) -> u32 {
        let at = place(kind, cluster).1;
        match kind {
            FatKind::Fat12 => {
                let pair = u32::from(le16(&self.bytes, at));
                if cluster.is_multiple_of(2) { pair & 0xFFF } else { pair >> 4 }
            }
            FatKind::Fat16 => le16(&self.bytes, at).into(),
            FatKind::Fat32 => le32(&self.bytes, at) & 0x0FFF_FFFF,
        }
    }

    pub(crate) fn set(&mut self, kind: FatKind, cluster: u32, value: u32, sector: u32) {
        let at = place(kind, cluster).1;
        let length = match kind {
            FatKind::Fat12 => {
                let pair = u32::from(le16(&self.bytes, at));
                let pair = if cluster.is_multiple_of(2) {
                    pair & 0xF000 | value & 0xFFF
                } else {
                    pair & 0x000F | value << 4
                };
                put16(&mut self.bytes, at, (pair & 0xFFFF) as u16);
                2
            }
            FatKind::Fat16 => {
                put16(&mut self.bytes, at, (value & 0xFFFF) as u16);
                2
            }
            FatKind::Fat32 => {
                // The upper four bits are not ours.
                let kept = le32(&self.bytes, at) & 0xF000_0000;
                put32(&mut self.bytes, at, kept | value & 0x0FFF_FFFF);
                4
            }
        };
        let sector = sector as usize;
        for number in at / sector..=(at + length - 1) / sector {
            self.dirty |= 1 << (number & 127);
        }
    }
}

/// An entry of FAT12 that lies in two sectors cannot be changed at once.
pub(crate) fn is_split(shape: &Shape, cluster: u32) -> bool {
    shape.kind == FatKind::Fat12 && {
        let at = cluster + cluster / 2;
        at % shape.sector == shape.sector - 1
    }
}

impl Table {
    /// The page `number`.
    fn page(&self, disk: &dyn Disk, shape: &Shape, number: u32) -> Result<Arc<Page>> {
        let pages = self.pages.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(page) = pages.get(&number) {
            return Ok(page.clone());
        }
        drop(pages);
        let start = u64::from(number) * PAGE;
        let length = PAGE.min(shape.byte(shape.fat_sectors).saturating_sub(start));
        let mut bytes = vec![0; length as usize];
        let fat = shape.byte(shape.fat_start + shape.active_fat * shape.fat_sectors);
        disk.read_at(&mut bytes, fat + start).context("Could not read the FAT")?;
        let page = Arc::new(Page { bytes, dirty: 0 });
        let mut pages = self.pages.write().unwrap_or_else(PoisonError::into_inner);
        if pages.len() >= PAGES_MAX {
            pages.retain(|_, page| page.dirty != 0);
        }
        Ok(pages.entry(number).or_insert(page).clone())
    }

    /// A reader that remembers the page it read last.
    pub(crate) fn reader<'a>(&'a self, disk: &'a dyn Disk, shape: &'a Shape) -> Reader<'a> {
        Reader { table: self, disk, shape, page: None }
    }

    /// The entry of a cluster.
    pub(crate) fn get(&self, disk: &dyn Disk, shape: &Shape, cluster: u32) -> Result<u32> {
        self.reader(disk, shape).get(cluster)
    }

    /// Changes the entry of a cluster, in memory.
    pub(crate) fn set(
        &mut self,
        disk: &dyn Disk,
        shape: &Shape,
        cluster: u32,
        value: u32,
    ) -> Result<()> {
        let number = place(shape.kind, cluster).0;
        self.page(disk, shape, number)?;
        let pages = self.pages.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(page) = pages.get_mut(&number) {
            Arc::make_mut(page).set(shape.kind, cluster, value, shape.sector);
            self.dirty.insert(number);
        }
        Ok(())
    }

    /// Chains `count` clusters from `first` on one after the other; the last one gets `last`.
    pub(crate) fn chain(
        &mut self,
        disk: &dyn Disk,
        shape: &Shape,
        (first, count): (u32, u32),
        last: u32,
    ) -> Result<()> {
        for cluster in first..first + count {
            let value = if cluster + 1 < first + count { cluster + 1 } else { last };
            self.set(disk, shape, cluster, value)?;
        }
        Ok(())
    }

    /// True when memory and disk differ.
    pub(crate) fn is_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// Writes what was changed, to all copies of the FAT.
    pub(crate) fn write_back(&mut self, disk: &dyn Disk, shape: &Shape) -> Result<()> {
        let pages = self.pages.get_mut().unwrap_or_else(PoisonError::into_inner);
        let fats =
            if shape.mirrored { 0..shape.fats } else { shape.active_fat..shape.active_fat + 1 };
        for fat in fats {
            let start = shape.byte(shape.fat_start + fat * shape.fat_sectors);
            for number in &self.dirty {
                let Some(page) = pages.get(number) else { continue };
                for (from, to) in runs_of_bits(page.dirty) {
                    let (from, to) = (from * shape.sector, to * shape.sector);
                    let bytes = page.bytes.get(from as usize..(to as usize).min(page.bytes.len()));
                    let at = start + u64::from(*number) * PAGE + u64::from(from);
                    disk.write_at(bytes.unwrap_or(&[]), at).context("Could not write the FAT")?;
                }
            }
        }
        for number in std::mem::take(&mut self.dirty) {
            if let Some(page) = pages.get_mut(&number) {
                Arc::make_mut(page).dirty = 0;
            }
        }
        Ok(())
    }
}

/// Runs of bits that are set: first, and the one behind the last.
pub(crate) fn runs_of_bits(mut bits: u128) -> Vec<(u32, u32)> {
    let mut runs = Vec::new();
    while bits != 0 {
        let from = bits.trailing_zeros();
        let length = (bits >> from).trailing_ones();
        runs.push((from, from + length));
        let to = from + length;
        bits = if to >= 128 { 0 } else { bits >> to << to };
    }
    runs
}

/// Reads entries, the page at hand.
pub(crate) struct Reader<'a> {
    table: &'a Table,
    disk: &'a dyn Disk,
    shape: &'a Shape,
    page: Option<(u32, Arc<Page>)>,
}

impl Reader<'_> {
    /// The entry of a cluster.
    pub(crate) fn get(&mut self, cluster: u32) -> Result<u32> {
        let number = place(self.shape.kind, cluster).0;
        if let Some((at, page)) = &self.page
            && *at == number
        {
            return Ok(page.get(self.shape.kind, cluster));
        }
        let page = self.table.page(self.disk, self.shape, number)?;
        let value = page.get(self.shape.kind, cluster);
        self.page = Some((number, page));
        Ok(value)
    }

    /// The first cluster from `from` on, below `to`, whose entry is free or not.
    pub(crate) fn find(&mut self, from: u32, to: u32, free: bool) -> Result<Option<u32>> {
        let mut at = from;
        while at < to {
            self.get(at)?;
            let Some((_, page)) = &self.page else { break };
            let last =
                (at / per_page(self.shape.kind) + 1).saturating_mul(per_page(self.shape.kind));
            let end = last.min(to);
            let found =
                (at..end).find(|cluster| (page.get(self.shape.kind, *cluster) == 0) == free);
            if found.is_some() {
                return Ok(found);
            }
            at = end;
        }
        Ok(None)
    }
}
