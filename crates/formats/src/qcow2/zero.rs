//! Making guest ranges zero, and giving up what they hold.

use disksmith_disk::{Disk, Result, ZeroMode};

use super::Qcow2;
use super::layout::{L2Entry, Unit};
use super::map::Place;
use super::meta::Meta;
use super::util::{exclusive, lock, shared};

/// Guest clusters that are changed under one lock.
const CLUSTERS_STEP: u64 = 4096;
/// Written as data at once, in bytes, where tables cannot say zero.
const WRITE_STEP: u64 = 1 << 20;
/// L2 tables that may be made to mark as zero what is absent.
const MARKED_TABLES_MOST: u64 = 64;

impl Qcow2 {
    /// Makes a range of the image read as zero: of a raw data file as well, alone as for
    /// [`discard_guest`](Self::discard_guest).
    pub(super) fn zero_guest(&self, offset: u64, length: u64, mode: ZeroMode) -> Result<()> {
        if lock(&self.meta).data_file_raw() {
            let _alone = exclusive(&self.gate);
            return self.zero_locked(offset, length, mode);
        }
        let _gate = shared(&self.gate);
        self.zero_locked(offset, length, mode)
    }

    /// As [`zero_guest`](Self::zero_guest), for callers that hold the gate.
    pub(super) fn zero_locked(&self, offset: u64, length: u64, mode: ZeroMode) -> Result<()> {
        let (unit, size) = {
            let meta = lock(&self.meta);
            meta.check_writable()?;
            (meta.shape.unit_size(), meta.header.size)
        };
        let end = offset + length;
        // The end of the image counts as the end of its last unit.
        let aligned_end = if end == size { end.next_multiple_of(unit) } else { end };
        let first = offset.next_multiple_of(unit);
        let last = aligned_end - aligned_end % unit;
        if first > last {
            return self.zero_part(offset, end, mode, unit);
        }
        if offset < first {
            self.zero_part(offset, first.min(end), mode, unit)?;
        }
        self.zero_units(first, last, mode)?;
        match last < end {
            true => self.zero_part(last, end, mode, unit),
            false => Ok(()),
        }
    }

    /// Makes a part of one unit zero: as a whole unit if the rest of it is zero already.
    fn zero_part(&self, start: u64, end: u64, mode: ZeroMode, unit: u64) -> Result<()> {
        if self.reads_zero(start, end - start)? || self.zero_around(start, end, mode, unit)? {
            return Ok(());
        }
        self.write_zero_bytes(start, end)
    }

    /// Makes the unit around a range zero if the rest of it is, and answers whether. Nobody may
    /// write to the rest in between: one lock is held all the time.
    fn zero_around(&self, start: u64, end: u64, mode: ZeroMode, unit: u64) -> Result<bool> {
        let (first, last) = (start - start % unit, start - start % unit + unit);
        let (backing, backed) = (self.backing_size(), self.has_backing());
        let mut meta = self.wait_for(first, unit)?;
        meta.check_writable()?;
        meta.relieve()?;
        let drops = meta.shape.version < 3;
        if drops && (backed || mode == ZeroMode::Keep)
            || !meta.reads_zero(first, start - first, backing)?
            || !meta.reads_zero(end, last - end, backing)?
            || meta.guest_entry(start)?.is_compressed()
            || meta.data_file_raw()
        {
            return Ok(false);
        }
        let length = end.min(meta.header.size) - start;
        self.note_write(&mut meta, start, length)?;
        match drops {
            true => discard_step(&mut meta, first, last, true)?,
            false => zero_step(&mut meta, first, last, mode, false).map(drop)?,
        }
        Ok(true)
    }

    fn write_zero_bytes(&self, start: u64, end: u64) -> Result<()> {
        let end = end.min(lock(&self.meta).header.size);
        let zeroes = vec![0; (end - start).min(WRITE_STEP) as usize];
        let mut at = start;
        while at < end {
            let step = (end - at).min(WRITE_STEP);
            // Sectors of encrypted images are written whole; units consist of whole sectors.
            self.write_aligned(zeroes.get(..step as usize).unwrap_or_default(), at)?;
            at += step;
        }
        Ok(())
    }

    fn write_aligned(&self, data: &[u8], offset: u64) -> Result<()> {
        let aligned = offset.is_multiple_of(512) && (data.len() as u64).is_multiple_of(512);
        if self.cipher.is_none() || aligned {
            return self.write_locked(data, offset);
        }
        let start = offset - offset % 512;
        let end = (offset + data.len() as u64).next_multiple_of(512);
        let mut sectors = vec![0; (end - start) as usize];
        self.read_guest(&mut sectors, start)?;
        super::layout::put(&mut sectors, (offset - start) as usize, data);
        self.write_locked(&sectors, start)
    }

    /// Makes whole units zero: `start` and `end` are multiples of the unit size.
    fn zero_units(&self, start: u64, end: u64, mode: ZeroMode) -> Result<()> {
        if start >= end {
            return Ok(());
        }
        let version = lock(&self.meta).shape.version;
        if version < 3 {
            // No zero clusters: what has no backing may be dropped, the rest is written.
            return match self.has_backing() {
                false if mode == ZeroMode::Unmap => self.discard_clusters(start, end),
                _ => self.write_zero_bytes_where_needed(start, end),
            };
        }
        if lock(&self.meta).data_file_raw() {
            let size = lock(&self.meta).header.size;
            self.data_disk()?.write_zeroes(start, end.min(size) - start, mode)?;
        }
        // What reads as zero already is marked so nevertheless, as qemu-img does; but not where
        // that would cost more tables than it is worth.
        let coverage = lock(&self.meta).shape.l2_coverage();
        let step_over = !self.has_backing() && (end - start) / coverage > MARKED_TABLES_MOST;
        let mut packed = Vec::new();
        self.each_step(start, end, |meta, start, end| {
            packed.extend(zero_step(meta, start, end, mode, step_over)?);
            Ok(())
        })?;
        packed.into_iter().try_for_each(|(from, to)| self.write_zero_bytes(from, to))
    }

    fn write_zero_bytes_where_needed(&self, start: u64, end: u64) -> Result<()> {
        let end = end.min(lock(&self.meta).header.size);
        let mut at = start;
        while at < end {
            let run = lock(&self.meta).run(at, end - at)?;
            if !self.reads_zero(at, run.length)? {
                self.write_zero_bytes(at, at + run.length)?;
            }
            at += run.length;
        }
        Ok(())
    }

    /// Gives up whole clusters within the range. Data file and tables change one after the other:
    /// what is written between the two would be there and gone again.
    pub(super) fn discard_guest(&self, offset: u64, length: u64) -> Result<()> {
        if self.has_data_file {
            let _alone = exclusive(&self.gate);
            return self.discard_locked(offset, length);
        }
        let _gate = shared(&self.gate);
        self.discard_locked(offset, length)
    }

    fn discard_locked(&self, offset: u64, length: u64) -> Result<()> {
        let (cluster, size) = {
            let meta = lock(&self.meta);
            meta.check_writable()?;
            (meta.shape.cluster_size(), meta.header.size)
        };
        let end = offset + length;
        let aligned_end = if end == size { end.next_multiple_of(cluster) } else { end };
        let first = offset.next_multiple_of(cluster);
        let last = aligned_end - aligned_end % cluster;
        // Version 2 cannot say "zero": a dropped cluster would show what the backing has.
        let shows_backing = lock(&self.meta).shape.version < 3 && self.has_backing();
        if first >= last || shows_backing {
            return Ok(());
        }
        self.discard_clusters(first, last)
    }

    fn discard_clusters(&self, start: u64, end: u64) -> Result<()> {
        let (data_file, raw, size) = {
            let meta = lock(&self.meta);
            (meta.has_data_file(), meta.data_file_raw(), meta.header.size)
        };
        if data_file {
            let (data, length) = (self.data_disk()?, end.min(size).saturating_sub(start));
            match raw {
                true => data.write_zeroes(start, length, ZeroMode::Unmap)?,
                false => data.discard(start, length)?,
            }
        }
        let absent_is_zero = !self.has_backing();
        self.each_step(start, end, |meta, start, end| {
            discard_step(meta, start, end, absent_is_zero)
        })
    }

    /// Changes tables step by step, each under a lock of its own, when nobody else allocates
    /// there.
    fn each_step(
        &self,
        start: u64,
        end: u64,
        mut change: impl FnMut(&mut Meta, u64, u64) -> Result<()>,
    ) -> Result<()> {
        let mut at = start;
        while at < end {
            let step = CLUSTERS_STEP << lock(&self.meta).shape.cluster_bits;
            let stop = end.min((at / step + 1) * step);
            let mut meta = self.wait_for(at, stop - at)?;
            meta.check_writable()?;
            meta.relieve()?;
            let size = meta.header.size;
            self.note_write(&mut meta, at, stop.min(size).saturating_sub(at))?;
            change(&mut meta, at, stop)?;
            at = stop;
        }
        Ok(())
    }

    /// Whether the image has or names a backing image: then what is absent need not be zero.
    pub(super) fn has_backing(&self) -> bool {
        self.backing_disk().is_some() || lock(&self.meta).backing.is_some()
    }
}

/// Calls `change` for each part of the range that lies in one cluster: its guest start, first
/// unit, unit behind the last. Runs without L2 table are stepped over if `skip_absent`.
fn each_cluster(
    meta: &mut Meta,
    start: u64,
    end: u64,
    skip_absent: bool,
    mut change: impl FnMut(&mut Meta, u64, u32, u32) -> Result<()>,
) -> Result<()> {
    let shape = meta.shape;
    let mut at = start;
    while at < end {
        let run = meta.run(at, end - at)?;
        if skip_absent && run.place == Place::Absent {
            at += run.length;
            continue;
        }
        let cluster = shape.start(at);
        let stop = end.min(cluster + shape.cluster_size());
        let first = (shape.within(at) / shape.unit_size()) as u32;
        let behind = ((stop - cluster) / shape.unit_size()) as u32;
        change(meta, cluster, first, behind)?;
        at = stop;
    }
    Ok(())
}

/// Marks units as zero. Answers the parts of compressed clusters that can only be zeroed by
/// writing them.
fn zero_step(
    meta: &mut Meta,
    start: u64,
    end: u64,
    mode: ZeroMode,
    step_over: bool,
) -> Result<Vec<(u64, u64)>> {
    let mut packed = Vec::new();
    each_cluster(meta, start, end, step_over, |meta, guest, first, behind| {
        let shape = meta.shape;
        let old = meta.guest_entry(guest)?;
        let data_file = meta.has_data_file();
        let whole = behind - first == shape.units();
        if !whole && old.is_compressed() {
            let at = |unit: u32| guest + u64::from(unit) * shape.unit_size();
            packed.push((at(first), at(behind)));
            return Ok(());
        }
        let new = match old.host(data_file) {
            Some(_) if whole && mode == ZeroMode::Unmap => L2Entry::zero(&shape),
            Some(_) if !shape.extended => L2Entry { raw: old.raw | L2Entry::ZERO, bitmap: 0 },
            None if whole => L2Entry::zero(&shape),
            _ => {
                let mask = unit_mask(first, behind);
                L2Entry { raw: old.raw, bitmap: old.bitmap & !mask | mask << 32 }
            }
        };
        replace(meta, guest, old, new)
    })?;
    Ok(packed)
}

fn unit_mask(first: u32, behind: u32) -> u64 {
    ((1u64 << behind) - 1) & !((1u64 << first) - 1)
}

fn discard_step(meta: &mut Meta, start: u64, end: u64, absent_is_zero: bool) -> Result<()> {
    each_cluster(meta, start, end, true, |meta, guest, _, _| {
        let shape = meta.shape;
        let old = meta.guest_entry(guest)?;
        let data_file = meta.has_data_file();
        let stored = old.is_compressed() || old.host(data_file).is_some();
        let any_absent = (0..shape.units())
            .any(|unit| !old.is_compressed() && old.unit(&shape, unit, data_file) == Unit::Absent);
        let new = match () {
            () if !stored && (absent_is_zero || !any_absent) => return Ok(()),
            () if shape.version < 3 => L2Entry::default(),
            () => L2Entry::zero(&shape),
        };
        replace(meta, guest, old, new)
    })
}

fn replace(meta: &mut Meta, guest: u64, old: L2Entry, new: L2Entry) -> Result<()> {
    if old == new {
        return Ok(());
    }
    let place = meta.own_entry_place(guest)?;
    meta.set_entry(place, new)?;
    meta.drop_old(old, new);
    Ok(())
}
