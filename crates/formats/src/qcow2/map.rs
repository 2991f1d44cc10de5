//! Where guest bytes lie.

use disksmith_disk::{Extent, Result};

use super::layout::{L1Entry, L2Entry, Unit};
use super::meta::{Meta, decode_entry};

/// A look-up stops after this many slices of L2 tables, so that it holds the lock for a short
/// time only. The next one goes on from there.
const SLICES_MOST: u32 = 16;

/// What a run of guest bytes is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Place {
    /// Decided by the backing layer.
    Absent,
    /// Reads as zero; with storage kept at that host offset.
    Zero(Option<u64>),
    /// Stored plainly (or encrypted) from this host offset on.
    Data(u64),
    /// The rest of one compressed cluster.
    Compressed(L2Entry),
}

/// A run of guest bytes of one kind.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Run {
    pub place: Place,
    pub length: u64,
}

impl Place {
    /// The same place, `bytes` further on.
    fn advanced(self, bytes: u64) -> Self {
        match self {
            Self::Zero(Some(host)) => Self::Zero(Some(host + bytes)),
            Self::Data(host) => Self::Data(host + bytes),
            other => other,
        }
    }
}

impl Meta {
    /// The run at `guest`, at most `length` bytes (at least 1), which must lie within what the
    /// L1 table covers.
    pub(super) fn run(&mut self, guest: u64, length: u64) -> Result<Run> {
        let mut total: Option<Run> = None;
        let mut budget = SLICES_MOST;
        loop {
            let done = total.map_or(0, |run| run.length);
            if done >= length || budget == 0 {
                break;
            }
            let part = self.run_in_table(guest + done, length - done, &mut budget)?;
            total = match total {
                None => Some(part),
                Some(run)
                    if run.place.advanced(run.length) == part.place
                        && !matches!(part.place, Place::Compressed(_)) =>
                {
                    Some(Run { length: run.length + part.length, ..run })
                }
                some => {
                    return Ok(some.unwrap_or(part));
                }
            };
        }
        let run = total.unwrap_or(Run { place: Place::Absent, length });
        Ok(Run { length: run.length.min(length), ..run })
    }

    /// The run at `guest` as far as one slice, or a missing table, tells.
    fn run_in_table(&mut self, guest: u64, length: u64, budget: &mut u32) -> Result<Run> {
        let shape = self.shape;
        let Some(place) = self.entry_place(guest)? else {
            return Ok(Run { place: Place::Absent, length: self.missing_tables(guest, length) });
        };
        *budget -= 1;
        let data_file = self.has_data_file();
        let cluster_size = shape.cluster_size();
        let entry_size = shape.entry_size() as usize;
        let bytes = self.l2.read(&*self.storage, place)?;
        let entries = bytes.chunks_exact(entry_size);
        let within = shape.within(guest);
        let first_unit = (within / shape.unit_size()) as u32;
        let mut run: Option<Run> = None;
        let mut trouble = None;
        let mut start = guest - within;
        for (index, bytes) in entries.enumerate() {
            let entry = decode_entry(bytes, shape.extended);
            let skipped = if index == 0 { first_unit } else { 0 };
            let (part, whole) = match piece(entry, &shape, skipped, data_file, start) {
                Ok(found) => found,
                Err(what) => {
                    trouble = Some((what, entry, place + (index * entry_size) as u64));
                    break;
                }
            };
            let offset =
                if index == 0 { within - u64::from(skipped) * shape.unit_size() } else { 0 };
            let part = Run { place: part.place.advanced(offset), length: part.length - offset };
            match &mut run {
                None => run = Some(part),
                Some(run)
                    if run.place.advanced(run.length) == part.place
                        && !matches!(part.place, Place::Compressed(_)) =>
                {
                    run.length += part.length;
                }
                Some(_) => break,
            }
            start += cluster_size;
            if !whole || run.is_some_and(|run| run.length >= length) {
                break;
            }
        }
        match (run, trouble) {
            (Some(run), _) => Ok(run),
            (None, Some((what, entry, at))) => {
                let (table, index) = (shape.start(at), shape.within(at) / shape.entry_size());
                Err(self.damaged(&what.describe(entry, table, index)))
            }
            (None, None) => Ok(Run { place: Place::Absent, length: cluster_size - within }),
        }
    }

    /// How far no L2 table exists, from `guest` on.
    fn missing_tables(&self, guest: u64, length: u64) -> u64 {
        let shape = self.shape;
        let index = shape.l1_index(guest);
        let last = shape.l1_index(guest + (length - 1));
        let rest = self.l1.get(index as usize..).unwrap_or_default();
        let missing = rest
            .iter()
            .take((last - index + 1) as usize)
            .take_while(|entry| L1Entry(**entry).offset() == 0)
            .count() as u64;
        let past_table = index + missing >= self.l1.len() as u64;
        match past_table || index + missing > last {
            true => length,
            false => ((index + missing.max(1)) << shape.l1_shift()) - guest,
        }
    }
}

/// What is wrong with an entry.
enum Trouble {
    Unaligned,
    ZeroInV2,
    Subclusters,
    CompressedWithDataFile,
    DataFilePlace(u64),
}

impl Trouble {
    fn describe(&self, entry: L2Entry, table: u64, index: u64) -> String {
        let offset = entry.offset();
        let at = format!("L2 offset: {table:#x}, L2 index: {index:#x})");
        match self {
            Self::Unaligned => format!("Cluster allocation offset {offset:#x} unaligned ({at}"),
            Self::ZeroInV2 => format!("Zero cluster entry found in pre-v3 image ({at}"),
            Self::Subclusters => format!("Invalid cluster entry found  ({at}"),
            Self::CompressedWithDataFile => {
                format!("Compressed cluster entry found in image with external data file ({at}")
            }
            Self::DataFilePlace(guest) => format!(
                "External data file host cluster offset {offset:#x} does not match guest cluster offset: {guest:#x}, L2 index: {index:#x})"
            ),
        }
    }
}

/// The run of units of one kind at unit `first` of an entry, and whether it reaches the end of
/// the cluster.
fn piece(
    entry: L2Entry,
    shape: &super::layout::Shape,
    first: u32,
    data_file: bool,
    guest: u64,
) -> std::result::Result<(Run, bool), Trouble> {
    let unit_size = shape.unit_size();
    let units = shape.units();
    let skipped = u64::from(first) * unit_size;
    if entry.is_compressed() {
        if data_file {
            return Err(Trouble::CompressedWithDataFile);
        }
        if entry.bitmap != 0 {
            return Err(Trouble::Subclusters);
        }
        let length = shape.cluster_size() - skipped;
        return Ok((Run { place: Place::Compressed(entry), length }, true));
    }
    let host = entry.host(data_file);
    if let Some(host) = host {
        if !shape.aligned(host) {
            return Err(Trouble::Unaligned);
        }
        if data_file && host != guest {
            return Err(Trouble::DataFilePlace(guest));
        }
    }
    let kind = entry.unit(shape, first, data_file);
    let mut end = first + 1;
    while end < units && entry.unit(shape, end, data_file) == kind {
        end += 1;
    }
    let place = match (kind, host) {
        (Unit::Absent, _) => Place::Absent,
        (Unit::Zero, host) => Place::Zero(host.map(|host| host + skipped)),
        (Unit::Data, Some(host)) => Place::Data(host + skipped),
        (Unit::Invalid, _) if !shape.extended => return Err(Trouble::ZeroInV2),
        _ => return Err(Trouble::Subclusters),
    };
    let length = u64::from(end - first) * unit_size;
    Ok((Run { place, length }, end == units))
}

/// A run as callers of `map` see it.
pub(super) fn extent(run: Run, encrypted: bool) -> Extent {
    match run.place {
        Place::Absent => Extent::absent(run.length),
        Place::Zero(place) => Extent { place, ..Extent::zero(run.length) },
        Place::Data(_) if encrypted => Extent::opaque(run.length, false),
        Place::Data(host) => Extent::data(run.length, host),
        Place::Compressed(_) => Extent::opaque(run.length, true),
    }
}
