//! Changing the size, reserving storage, and emptying.

use disksmith_disk::{Disk, Error, Kind, Result, ZeroMode};

use super::Qcow2;
use super::layout::{L1Entry, L2Entry, put};
use super::meta::{Meta, decode_entry};
use super::open::L1_MOST;
use super::util::{exclusive, lock};
use crate::{Preallocation, ResizeRequest};

/// Clusters that are linked between two looks at the caches.
const LINK_STEP: u64 = 4096;
/// Written at once for full preallocation, in bytes.
const WRITE_STEP: u64 = 1 << 20;
const SECTOR: u64 = 512;
/// Parts of refcount blocks that are looked through for the end of the file.
const SEARCH_MOST: u32 = 4096;

impl Qcow2 {
    /// Changes the guest-visible size.
    pub(super) fn change_size(&self, request: ResizeRequest) -> Result<()> {
        let _gate = exclusive(&self.gate);
        self.check_resize(request)?;
        let old = lock(&self.meta).header.size;
        let data_file = if self.has_data_file { Some(self.attached_data_file()?) } else { None };
        self.whole_or_forgotten(|| match request.size < old {
            true => self.shrink(request.size, data_file.as_deref()),
            false => self.grow(old, request, data_file.as_deref()),
        })
    }

    /// Refuses what cannot be, before anything is changed.
    pub(super) fn check_resize(&self, request: ResizeRequest) -> Result<()> {
        let meta = lock(&self.meta);
        meta.check_writable()?;
        refuse(&meta, request)
    }

    fn shrink(&self, size: u64, data_file: Option<&dyn Disk>) -> Result<()> {
        let mut meta = lock(&self.meta);
        meta.shrink(size)?;
        self.write_back(&mut meta)?;
        if let Some(data) = data_file {
            data.set_size(size)?;
        }
        meta.write_size(size)?;
        meta.drop_empty_blocks()?;
        meta.truncate_storage()
    }

    fn grow(&self, old: u64, request: ResizeRequest, data_file: Option<&dyn Disk>) -> Result<()> {
        let size = request.size;
        lock(&self.meta).grow_l1(size)?;
        self.zero_tail(old)?;
        if let Some(data) = data_file {
            data.set_size(size)?;
        }
        if size > old {
            let mut meta = lock(&self.meta);
            let mode = match request.preallocation {
                Preallocation::Off if meta.data_file_raw() => Preallocation::Metadata,
                mode => mode,
            };
            // The tables beyond the old size say nothing to a reader until the size is written.
            meta.header.size = size;
            self.preallocate(&mut meta, old, size, mode)?;
            drop(meta);
            self.hide_backing(old, size)?;
            self.write_back(&mut lock(&self.meta))?;
        }
        lock(&self.meta).write_size(size)
    }

    /// A backing image that is longer than this image was must not show in what is added.
    fn hide_backing(&self, old: u64, size: u64) -> Result<()> {
        let backing = self.backing_disk().map_or(0, |disk| disk.size());
        let end = backing.next_multiple_of(self.cluster_size).min(size);
        match end > old {
            true => self.zero_locked(old, end - old, ZeroMode::Keep),
            false => Ok(()),
        }
    }

    /// What lies in the last cluster behind the old end must not show up when the image grows.
    fn zero_tail(&self, old: u64) -> Result<()> {
        let (unit, known) = {
            let meta = lock(&self.meta);
            (meta.shape.cluster_size(), meta.mode.writes())
        };
        let end = old.next_multiple_of(unit);
        if old == end || !known {
            return Ok(());
        }
        let length = end - old;
        let place = lock(&self.meta).run(old, length)?;
        if matches!(place.place, super::map::Place::Absent)
            && place.length >= length
            && !self.has_backing()
        {
            return Ok(());
        }
        // For the time of the write the tail counts as a part of the image.
        let shown = std::mem::replace(&mut lock(&self.meta).header.size, end);
        let result = self.zero_locked(old, length, ZeroMode::Keep);
        lock(&self.meta).header.size = shown;
        result
    }

    /// Links storage to every cluster of the range that has none.
    fn preallocate(
        &self,
        meta: &mut Meta,
        start: u64,
        end: u64,
        mode: Preallocation,
    ) -> Result<()> {
        if mode == Preallocation::Off {
            return Ok(());
        }
        let shape = meta.shape;
        let data_file = meta.has_data_file();
        let mut behind = 0;
        let mut at = shape.start(start);
        if matches!(mode, Preallocation::Falloc | Preallocation::Full) {
            // Tables first, so that the data is one run.
            for index in shape.l1_index(at)..shape.l1_entries(end) {
                meta.own_entry_place(index << shape.l1_shift())?;
            }
        }
        while at < end {
            meta.relieve()?;
            let run = meta.run(at, shape.cluster_size())?;
            let entry = meta.guest_entry(at)?;
            if entry.is_compressed() || entry.host(data_file).is_some() {
                at += run.length.max(shape.cluster_size()) / shape.cluster_size()
                    * shape.cluster_size();
                continue;
            }
            let most = (shape.clusters(end - at)).min(LINK_STEP);
            at += meta.link_run(at, most, mode, &mut behind)?;
            if at < end {
                self.reach(behind)?;
            }
        }
        if data_file {
            let data = self.attached_data_file()?;
            return reserve(&*data, start, end - start, mode);
        }
        // Of the last cluster, only the units that the guest can see.
        let unseen = (shape.cluster_size() - shape.within(end)) % shape.cluster_size();
        behind -= (unseen / shape.unit_size() * shape.unit_size()).min(behind);
        self.reach(behind)
    }

    /// Storage that was not reserved exists nevertheless, and before tables refer to it: readers
    /// need not care.
    fn reach(&self, end: u64) -> Result<()> {
        match end > self.storage.size() {
            true => self.storage.set_size(end),
            false => Ok(()),
        }
    }

    /// Forgets all guest data.
    pub(super) fn empty(&self) -> Result<()> {
        let _gate = exclusive(&self.gate);
        lock(&self.meta).check_writable()?;
        self.whole_or_forgotten(|| {
            let mut meta = lock(&self.meta);
            meta.note_change()?;
            for index in 0..meta.l1.len() as u64 {
                meta.relieve()?;
                meta.drop_table(index)?;
            }
            self.write_back(&mut meta)?;
            meta.truncate_storage()
        })
    }
}

fn refuse(meta: &Meta, request: ResizeRequest) -> Result<()> {
    let size = request.size;
    if !size.is_multiple_of(SECTOR) {
        return Err(invalid(format!("The new size must be a multiple of {SECTOR}")));
    }
    if !meta.snapshots.is_empty() && meta.shape.version < 3 {
        return Err(Error::new(Kind::Unsupported, "Can't resize a v2 image which has snapshots"));
    }
    let entries = meta.shape.l1_entries(size);
    if entries.saturating_mul(8) > L1_MOST || i64::try_from(size).is_err() {
        return Err(Error::new(Kind::LimitExceeded, "Failed to grow the L1 table: File too large"));
    }
    match size < meta.header.size && request.preallocation != Preallocation::Off {
        true => {
            Err(Error::new(Kind::Unsupported, "Preallocation can't be used for shrinking an image"))
        }
        false => Ok(()),
    }
}

fn invalid(text: String) -> Error {
    Error::new(Kind::InvalidInput, text)
}

/// Reserves a range of storage in the way of `mode`.
pub(super) fn reserve(
    disk: &dyn Disk,
    offset: u64,
    length: u64,
    mode: Preallocation,
) -> Result<()> {
    match mode {
        Preallocation::Off | Preallocation::Metadata => Ok(()),
        Preallocation::Falloc => disk.write_zeroes(offset, length, ZeroMode::Keep),
        Preallocation::Full => {
            let zeroes = vec![0; length.min(WRITE_STEP) as usize];
            let mut done = 0;
            while done < length {
                let step = (length - done).min(WRITE_STEP);
                disk.write_at(zeroes.get(..step as usize).unwrap_or_default(), offset + done)?;
                done += step;
            }
            Ok(())
        }
    }
}

impl Meta {
    /// Writes the size into the header, durably.
    fn write_size(&mut self, size: u64) -> Result<()> {
        self.storage.write_at(&size.to_be_bytes(), 24)?;
        self.storage.flush()?;
        self.header.size = size;
        Ok(())
    }

    /// Makes the L1 table long enough for `size` bytes.
    pub(super) fn grow_l1(&mut self, size: u64) -> Result<()> {
        let entries = self.shape.l1_entries(size);
        let old_entries = self.l1.len() as u64;
        if entries <= old_entries {
            return Ok(());
        }
        let bytes_size = entries * 8;
        let place = self.allocate_exact(self.shape.clusters(bytes_size), "L1 table")?;
        // The copy must not name anything that is not in the file yet.
        self.write_back()?;
        let mut l1 = self.l1.clone();
        l1.resize(entries as usize, 0);
        self.storage.write_at(&table_bytes(&l1), place)?;
        self.storage.flush()?;
        self.switch_l1(place, entries as u32)?;
        let old_place = self.header.l1_table_offset;
        self.l1 = l1;
        self.header.l1_table_offset = place;
        self.header.l1_size = entries as u32;
        if old_entries > 0 {
            self.free_clusters(old_place, self.shape.clusters(old_entries * 8));
        }
        self.forget_guard();
        Ok(())
    }

    /// Points the header to another L1 table, durably.
    pub(super) fn switch_l1(&mut self, place: u64, entries: u32) -> Result<()> {
        let mut bytes = [0; 12];
        put(&mut bytes, 0, &entries.to_be_bytes());
        put(&mut bytes, 4, &place.to_be_bytes());
        self.storage.write_at(&bytes, 36)?;
        self.storage.flush()
    }

    /// Unmaps everything from `size` on. The L1 table keeps its length.
    fn shrink(&mut self, size: u64) -> Result<()> {
        let shape = self.shape;
        let start = size.next_multiple_of(shape.cluster_size());
        let first_table = start.div_ceil(shape.l2_coverage());
        let mut at = start;
        while at < first_table * shape.l2_coverage() && shape.l1_index(at) < self.l1.len() as u64 {
            self.relieve()?;
            let old = self.guest_entry(at)?;
            if old != L2Entry::default() {
                let place = self.own_entry_place(at)?;
                self.set_entry(place, L2Entry::default())?;
                self.drop_old(old, L2Entry::default());
            }
            at += shape.cluster_size();
        }
        for index in first_table..self.l1.len() as u64 {
            self.relieve()?;
            self.drop_table(index)?;
        }
        Ok(())
    }

    /// Unmaps all that one L1 entry stands for, the L2 table included.
    pub(super) fn drop_table(&mut self, index: u64) -> Result<()> {
        let entry = L1Entry(self.l1.get(index as usize).copied().unwrap_or(0));
        if entry.offset() == 0 {
            return Ok(());
        }
        // Refuses an unaligned table.
        self.entry_place(index << self.shape.l1_shift())?;
        let shape = self.shape;
        let mut done = 0;
        while done < shape.cluster_size() {
            let part = self.l2.read(&*self.storage, entry.offset() + done)?.to_vec();
            for bytes in part.chunks_exact(shape.entry_size() as usize) {
                self.drop_old(decode_entry(bytes, shape.extended), L2Entry::default());
            }
            done += part.len() as u64;
        }
        if let Some(slot) = self.l1.get_mut(index as usize) {
            *slot = 0;
        }
        self.l1_dirty.insert(index);
        self.free_clusters(entry.offset(), 1);
        Ok(())
    }

    /// Cuts the file behind the last cluster that is in use.
    pub(super) fn truncate_storage(&mut self) -> Result<()> {
        let size = self.storage.size();
        let Some(last) = self.last_used()? else { return Ok(()) };
        let used = (last + 1) * self.shape.cluster_size();
        if used < size {
            // Counts of what is cut off must be in the file first.
            self.storage.flush()?;
            self.storage.set_size(used)?;
        }
        Ok(())
    }

    /// The last cluster that is counted; nothing if that takes too long to find out.
    fn last_used(&mut self) -> Result<Option<u64>> {
        let order = self.shape.refcount_order;
        let slice = self.blocks.slice_size();
        let mut budget = SEARCH_MOST;
        for index in (0..self.table.len() as u64).rev() {
            let first = index << self.shape.block_bits();
            let Some(block) = self.block_place(first)? else { continue };
            for part in (0..self.shape.cluster_size() / slice).rev() {
                let start = part * slice;
                budget -= 1;
                if budget == 0 {
                    return Ok(None);
                }
                let bytes = self.blocks.read(&*self.storage, block + start)?;
                let Some(at) = bytes.iter().rposition(|byte| *byte != 0) else { continue };
                let highest = bytes.get(at).map_or(0, |byte| 7 - byte.leading_zeros());
                let bit = (start + at as u64) * 8 + if order < 3 { u64::from(highest) } else { 0 };
                return Ok(Some(first + (bit >> order)));
            }
        }
        Ok(None)
    }

    /// Links storage to up to `most` clusters from `guest` on that have none, as far as they
    /// lie in one L2 table; answers the guest bytes done. `behind` becomes the end of the
    /// storage that was used.
    fn link_run(
        &mut self,
        guest: u64,
        most: u64,
        mode: Preallocation,
        behind: &mut u64,
    ) -> Result<u64> {
        let shape = self.shape;
        let data_file = self.has_data_file();
        let most = most.min(shape.l2_entries() - shape.l2_index(guest));
        self.own_entry_place(guest)?;
        let mut count = 0;
        while count < most {
            let entry = self.guest_entry(guest + count * shape.cluster_size())?;
            if entry.is_compressed() || entry.host(data_file).is_some() {
                break;
            }
            count += 1;
        }
        let count = count.max(1);
        let (host, count) = match data_file {
            true => (guest, count),
            false => {
                let fresh_from = self.fresh_from;
                let (first, count) = self.allocate(count)?;
                let (host, length) = (first * shape.cluster_size(), count * shape.cluster_size());
                *behind = (*behind).max(host + length);
                if host < fresh_from && mode == Preallocation::Metadata {
                    self.storage.write_zeroes(host, length, ZeroMode::Keep)?;
                }
                reserve(&*self.storage, host, length, mode)?;
                (host, count)
            }
        };
        for index in 0..count {
            let at = guest + index * shape.cluster_size();
            let old = self.guest_entry(at)?;
            let place = self.own_entry_place(at)?;
            let mut entry = L2Entry::data(&shape, host + index * shape.cluster_size());
            if shape.extended {
                // Reserved only: what the backing image has goes on showing.
                entry.bitmap = old.bitmap;
            }
            self.set_entry(place, entry)?;
        }
        Ok(count * shape.cluster_size())
    }
}

/// A table as it lies in the file.
pub(super) fn table_bytes(table: &[u64]) -> Vec<u8> {
    table.iter().flat_map(|entry| entry.to_be_bytes()).collect()
}
