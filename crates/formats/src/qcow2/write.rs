//! Writing guest data.
//!
//! A write is planned under the lock (clusters are allocated there), carried out without it,
//! and published under it: L2 entries change only when what they point to has been written.

use std::sync::MutexGuard;

use disksmith_disk::{Disk, PageBuffer, Result};

use super::Qcow2;
use super::layout::{L2Entry, Shape, Unit};
use super::map::Place;
use super::meta::Meta;
use super::quarantine::Token;
use super::util::{lock, shared};

/// Guest bytes that are planned at once.
const STEP: u64 = 4 << 20;
/// Old content is copied in steps of this many bytes.
const COPY_STEP: u64 = 1 << 20;
const SECTOR: u64 = 512;

/// Bytes of the request and where they go.
struct Segment {
    guest: u64,
    host: u64,
    length: u64,
}

/// Guest bytes that must be brought along from their old place: what stands beside the request
/// in a newly allocated unit.
struct Fill {
    guest: u64,
    host: u64,
    length: u64,
    /// The destination reads as zero already.
    fresh: bool,
}

/// A change of an L2 entry.
struct Link {
    place: u64,
    old: L2Entry,
    new: L2Entry,
}

struct Plan {
    segments: Vec<Segment>,
    fills: Vec<Fill>,
    links: Vec<Link>,
    /// Newly allocated: number of the first, how many.
    allocated: Vec<(u64, u64)>,
    /// What is marked as in flight.
    range: Option<(u64, u64)>,
    _token: Token,
}

/// What is to happen to one cluster.
struct Target {
    guest: u64,
    place: u64,
    entry: L2Entry,
    /// Storage that is written in place.
    host: Option<u64>,
    fresh: bool,
}

impl Qcow2 {
    /// Writes guest data; see [`write_in_turn`](crate::Image::write_in_turn). The range lies
    /// within the image.
    pub(super) fn write_guest(
        &self,
        data: &[u8],
        offset: u64,
        placed: &mut dyn FnMut(),
    ) -> Result<()> {
        let aligned = offset.is_multiple_of(SECTOR) && (data.len() as u64).is_multiple_of(SECTOR);
        if self.cipher.is_some() && !aligned {
            return self.write_part_of_sector(data, offset);
        }
        let _gate = shared(&self.gate);
        self.write_steps(data, offset, placed)
    }

    /// An encrypted sector can only be written whole, and nobody may write its other bytes
    /// meanwhile.
    fn write_part_of_sector(&self, data: &[u8], offset: u64) -> Result<()> {
        let _gate = super::util::exclusive(&self.gate);
        let start = offset - offset % SECTOR;
        let end = (offset + data.len() as u64).next_multiple_of(SECTOR);
        let mut sectors = vec![0; (end - start) as usize];
        self.read_guest(&mut sectors, start)?;
        super::layout::put(&mut sectors, (offset - start) as usize, data);
        self.write_locked(&sectors, start)
    }

    /// As [`write_guest`](Self::write_guest), for callers that hold the gate.
    pub(super) fn write_locked(&self, data: &[u8], offset: u64) -> Result<()> {
        self.write_steps(data, offset, &mut || {})
    }

    fn write_steps(&self, data: &[u8], offset: u64, placed: &mut dyn FnMut()) -> Result<()> {
        let mut rest = data;
        let mut at = offset;
        while !rest.is_empty() {
            let limit = (at / STEP + 1) * STEP - at;
            let (part, left) = rest.split_at((limit as usize).min(rest.len()));
            let plan = self.plan_write(at, part.len() as u64)?;
            if left.is_empty() {
                placed();
            }
            self.write_planned(&plan, part, at)?;
            at += part.len() as u64;
            rest = left;
        }
        Ok(())
    }

    fn write_planned(&self, plan: &Plan, data: &[u8], offset: u64) -> Result<()> {
        let written = self.carry_out(plan, data, offset);
        let mut meta = lock(&self.meta);
        let result = match written {
            Ok(()) => publish(&mut meta, plan),
            Err(error) => {
                abandon(&mut meta, plan);
                Err(error)
            }
        };
        self.landed(&mut meta, plan.range);
        result
    }

    fn plan_write(&self, offset: u64, length: u64) -> Result<Plan> {
        let mut meta = self.wait_for(offset, length)?;
        meta.check_writable()?;
        meta.relieve()?;
        self.note_write(&mut meta, offset, length)?;
        let mut plan = Plan {
            segments: Vec::new(),
            fills: Vec::new(),
            links: Vec::new(),
            allocated: Vec::new(),
            range: None,
            _token: meta.quarantine.token(),
        };
        if let Err(error) = fill_plan(&mut meta, &mut plan, offset, length) {
            abandon(&mut meta, &plan);
            return Err(error);
        }
        if !plan.links.is_empty() {
            let range = cluster_range(&meta.shape, offset, length);
            meta.in_flight.push(range);
            plan.range = Some(range);
        }
        Ok(plan)
    }

    /// Waits until no cluster of the range is being allocated by somebody else.
    pub(super) fn wait_for(&self, offset: u64, length: u64) -> Result<MutexGuard<'_, Meta>> {
        let mut meta = lock(&self.meta);
        let (first, end) = cluster_range(&meta.shape, offset, length);
        while meta.in_flight.iter().any(|(start, stop)| *start < end && first < *stop) {
            meta = self.landing.wait(meta).unwrap_or_else(std::sync::PoisonError::into_inner);
        }
        Ok(meta)
    }

    /// Ends what [`wait_for`](Self::wait_for) waits for.
    pub(super) fn landed(&self, meta: &mut Meta, range: Option<(u64, u64)>) {
        if let Some(at) = range.and_then(|r| meta.in_flight.iter().position(|other| *other == r)) {
            meta.in_flight.swap_remove(at);
            self.landing.notify_all();
        }
    }

    fn carry_out(&self, plan: &Plan, data: &[u8], offset: u64) -> Result<()> {
        for fill in &plan.fills {
            self.fill(fill)?;
        }
        let disk = self.data_disk()?;
        for segment in &plan.segments {
            let from = (segment.guest - offset) as usize;
            let part = data.get(from..from + segment.length as usize).unwrap_or_default();
            self.storage.announce("write_aio");
            self.write_data(&*disk, part, segment.guest, segment.host)?;
        }
        Ok(())
    }

    /// Writes guest data to its host place, encrypted if the image is.
    pub(super) fn write_data(
        &self,
        disk: &dyn Disk,
        part: &[u8],
        guest: u64,
        host: u64,
    ) -> Result<()> {
        match &self.cipher {
            None => disk.write_at(part, host),
            Some(cipher) => cipher.write(disk, part, guest, host),
        }
    }

    fn fill(&self, fill: &Fill) -> Result<()> {
        let zero =
            fill.fresh && self.cipher.is_none() && self.reads_zero(fill.guest, fill.length)?;
        if zero {
            return Ok(());
        }
        let disk = self.data_disk()?;
        let mut done = 0;
        let mut buffer = PageBuffer::zeroed(fill.length.min(COPY_STEP) as usize);
        while done < fill.length {
            let step = (fill.length - done).min(COPY_STEP);
            let part = buffer.get_mut(..step as usize).unwrap_or_default();
            self.storage.announce("cow_read");
            self.read_whole(part, fill.guest + done)?;
            self.storage.announce("cow_write");
            self.write_data(&*disk, part, fill.guest + done, fill.host + done)?;
            done += step;
        }
        Ok(())
    }

    /// Reads guest data; what lies past the end of the image (in its last cluster) is zero.
    fn read_whole(&self, part: &mut [u8], guest: u64) -> Result<()> {
        let size = lock(&self.meta).header.size;
        let have = size.saturating_sub(guest).min(part.len() as u64) as usize;
        let (inside, past) = part.split_at_mut(have);
        past.fill(0);
        self.read_guest(inside, guest)
    }

    /// Whether a range reads as zero by what the tables say. Bytes past the end of the image
    /// count as zero.
    pub(super) fn reads_zero(&self, offset: u64, length: u64) -> Result<bool> {
        let backing = self.backing_size();
        lock(&self.meta).reads_zero(offset, length, backing)
    }

    /// Where the backing image ends: what is absent from there on is zero.
    pub(super) fn backing_size(&self) -> u64 {
        self.backing_disk().map_or(0, |disk| disk.size())
    }
}

/// The clusters that a range touches: first, behind the last.
pub(super) fn cluster_range(shape: &Shape, offset: u64, length: u64) -> (u64, u64) {
    (shape.cluster(offset), shape.cluster(offset + length - 1) + 1)
}

fn fill_plan(meta: &mut Meta, plan: &mut Plan, offset: u64, length: u64) -> Result<()> {
    let mut targets = find_targets(meta, offset, length)?;
    give_storage(meta, plan, &mut targets)?;
    let shape = meta.shape;
    let data_file = meta.has_data_file();
    for target in &targets {
        let Some(host) = target.host else { continue };
        let start = offset.max(target.guest);
        let end = (offset + length).min(target.guest + shape.cluster_size());
        add_segment(plan, start, host + shape.within(start), end - start);
        let moved = target.entry.host(data_file) != Some(host);
        plan_cluster(&shape, plan, target, host, (start, end), (moved, data_file));
    }
    Ok(())
}

/// Looks up every cluster of the range, and which of them can be written where they are.
fn find_targets(meta: &mut Meta, offset: u64, length: u64) -> Result<Vec<Target>> {
    let shape = meta.shape;
    let data_file = meta.has_data_file();
    let mut targets = Vec::new();
    let mut guest = shape.start(offset);
    while guest < offset + length {
        // Refuses broken entries.
        meta.run(guest, shape.cluster_size())?;
        let place = meta.own_entry_place(guest)?;
        let entry = meta.entry(place)?;
        let host = match entry.host(data_file) {
            _ if data_file => Some(guest),
            Some(host) if entry.copied() => {
                meta.check_overlap(shape.cluster(host), 1)?;
                Some(host)
            }
            _ => None,
        };
        targets.push(Target { guest, place, entry, host, fresh: false });
        guest += shape.cluster_size();
    }
    Ok(targets)
}

/// Allocates clusters where none can be written in place: as few runs as possible.
fn give_storage(meta: &mut Meta, plan: &mut Plan, targets: &mut [Target]) -> Result<()> {
    let size = meta.shape.cluster_size();
    let mut needed: Vec<&mut Target> =
        targets.iter_mut().filter(|target| target.host.is_none()).collect();
    let mut rest = needed.as_mut_slice();
    while !rest.is_empty() {
        let fresh_from = meta.fresh_from;
        let (first, count) = meta.allocate(rest.len() as u64)?;
        plan.allocated.push((first, count));
        let (now, later) = rest.split_at_mut(count as usize);
        for (target, cluster) in now.iter_mut().zip(first..) {
            target.host = Some(cluster * size);
            target.fresh = cluster * size >= fresh_from;
        }
        rest = later;
    }
    Ok(())
}

fn add_segment(plan: &mut Plan, guest: u64, host: u64, length: u64) {
    match plan.segments.last_mut() {
        Some(last) if last.guest + last.length == guest && last.host + last.length == host => {
            last.length += length;
        }
        _ => plan.segments.push(Segment { guest, host, length }),
    }
}

/// What must be brought along, and the entry that results.
fn plan_cluster(
    shape: &Shape,
    plan: &mut Plan,
    target: &Target,
    host: u64,
    (start, end): (u64, u64),
    (moved, data_file): (bool, bool),
) {
    let unit_size = shape.unit_size();
    let first = (shape.within(start) / unit_size) as u32;
    let behind = (end - target.guest).div_ceil(unit_size) as u32;
    let old = target.entry;
    let kind = |unit| match old.is_compressed() {
        true => Unit::Data,
        false => old.unit(shape, unit, data_file),
    };
    let in_place = |unit| !moved && kind(unit) == Unit::Data;
    if (first..behind).all(in_place) {
        return;
    }
    let mut allocated = 0u64;
    let fill = |plan: &mut Plan, from: u64, to: u64| {
        if from < to {
            let host = host + (from - target.guest);
            plan.fills.push(Fill { guest: from, host, length: to - from, fresh: target.fresh });
        }
    };
    for unit in 0..shape.units() {
        let unit_start = target.guest + u64::from(unit) * unit_size;
        let unit_end = unit_start + unit_size;
        let touched = (first..behind).contains(&unit);
        if touched || kind(unit) == Unit::Data {
            allocated |= 1 << unit;
        }
        if in_place(unit) {
            continue;
        }
        if touched {
            fill(plan, unit_start, start.clamp(unit_start, unit_end));
            fill(plan, end.clamp(unit_start, unit_end), unit_end);
        } else if kind(unit) == Unit::Data {
            fill(plan, unit_start, unit_end);
        }
    }
    let mut new = L2Entry::data(shape, host);
    if shape.extended {
        let zeroes = if old.is_compressed() { 0 } else { old.bitmap >> 32 };
        new.bitmap = (zeroes & !allocated) << 32 | allocated;
    }
    plan.links.push(Link { place: target.place, old, new });
}

/// Makes the tables point to what was written.
fn publish(meta: &mut Meta, plan: &Plan) -> Result<()> {
    for link in &plan.links {
        // On failure, entries that were changed stay: what they point to is written. The
        // storage of the others is lost until the next check.
        meta.set_entry(link.place, link.new)?;
    }
    for link in &plan.links {
        meta.drop_old(link.old, link.new);
    }
    Ok(())
}

/// Gives back what a failed write allocated: nothing points to it.
fn abandon(meta: &mut Meta, plan: &Plan) {
    for (first, count) in &plan.allocated {
        // Failing to free leaks the clusters; the write's own error is the one to tell.
        let _ = meta.release(*first, *count);
    }
}

impl Meta {
    /// See [`Qcow2::reads_zero`].
    pub(super) fn reads_zero(&mut self, offset: u64, length: u64, backing: u64) -> Result<bool> {
        let end = (offset + length).min(self.header.size);
        let mut at = offset;
        while at < end {
            let run = self.run(at, end - at)?;
            match run.place {
                Place::Zero(_) => {}
                Place::Absent if at >= backing => {}
                _ => return Ok(false),
            }
            at += run.length;
        }
        Ok(true)
    }

    /// Frees what `old` refers to, unless `new` goes on using it.
    pub(super) fn drop_old(&mut self, old: L2Entry, new: L2Entry) {
        if old.is_compressed() {
            let place = old.compressed_range(&self.shape);
            self.free_bytes(place.offset, place.length);
        } else if !self.has_data_file()
            && old.offset() != 0
            && old.offset() != new.offset()
            // Nobody can tell which cluster a misaligned offset means.
            && self.shape.aligned(old.offset())
        {
            self.free_clusters(old.offset(), 1);
        }
    }
}
