//! A set of directory entries: what a file is on exFAT (specification, sections 7.4, 7.6, 7.7).

use super::super::layout::attribute;
use super::super::node::Stamp;
use super::super::time;
use super::layout::{
    ALLOCATION_POSSIBLE, ENTRY, NO_FAT_CHAIN, entry_type, name_hash, set_checksum,
};
use crate::Time;
use crate::raw::{byte, le16, le32, le64, put, put16, put32, put64};

/// UTF-16 units in an entry of a name.
const UNITS: usize = 15;
/// `UtcOffset` of times in UTC: valid, and no quarters of an hour.
const UTC: u8 = 0x80;

/// Clusters that belong to somebody.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Stream {
    /// The first one; 0: there are none.
    pub(crate) start: u32,
    /// Bytes.
    pub(crate) size: u64,
    /// One after the other: the FAT says nothing of them.
    pub(crate) contiguous: bool,
}

/// The entries of a file: one `File`, one `Stream Extension`, those of the name, and others that
/// are kept as they are.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct FileSet {
    raw: Vec<u8>,
}

impl FileSet {
    /// Reads a whole set, its first entry first; `None` if it is none.
    pub(crate) fn parse(raw: &[u8]) -> Option<Self> {
        let set = Self::parse_loosely(raw)?;
        (le16(raw, 2) == set_checksum(raw)).then_some(set)
    }

    /// Reads a set whose checksum may be wrong.
    pub(crate) fn parse_loosely(raw: &[u8]) -> Option<Self> {
        if byte(raw, 0) != entry_type::FILE
            || byte(raw, ENTRY) != entry_type::STREAM
            || raw.len() != (usize::from(byte(raw, 1)) + 1) * ENTRY
        {
            return None;
        }
        let set = Self { raw: raw.to_vec() };
        let names = set.name_entries();
        let named = raw.chunks_exact(ENTRY).skip(2).take(names);
        let others = raw.chunks_exact(ENTRY).skip(2 + names);
        let whole = named.clone().count() == names
            && names > 0
            && named.clone().all(|entry| byte(entry, 0) == entry_type::NAME)
            // What is in a set and must be understood, but is not, makes all of it unknown.
            && others.clone().all(|entry| byte(entry, 0) & 0xE0 == 0xE0);
        whole.then_some(set)
    }

    /// A set for a new, empty file. `upper`: the name in upper case.
    pub(crate) fn new(name: &[u16], upper: &[u16], attributes: u8, now: Time) -> Self {
        let mut raw = vec![0; 2 * ENTRY];
        put(&mut raw, 0, &[entry_type::FILE]);
        put(&mut raw, ENTRY, &[entry_type::STREAM, ALLOCATION_POSSIBLE]);
        let mut set = Self { raw };
        set.set_attributes(attributes.into());
        for stamp in [Stamp::Created, Stamp::Modified, Stamp::Accessed] {
            set.set_time(stamp, now);
        }
        set.rename(name, upper);
        set
    }

    /// The bytes, their checksum right.
    pub(crate) fn sealed(&self) -> Vec<u8> {
        let mut raw = self.raw.clone();
        let sum = set_checksum(&raw);
        put16(&mut raw, 2, sum);
        raw
    }

    /// How many entries there are.
    pub(crate) fn entries(&self) -> u32 {
        (self.raw.len() / ENTRY) as u32
    }

    fn name_entries(&self) -> usize {
        usize::from(byte(&self.raw, ENTRY + 3)).div_ceil(UNITS)
    }

    /// The name in UTF-16.
    pub(crate) fn name(&self) -> Vec<u16> {
        let entries = self.raw.chunks_exact(ENTRY).skip(2).take(self.name_entries());
        let mut name: Vec<u16> =
            entries.flat_map(|entry| (0..UNITS).map(|index| le16(entry, 2 + 2 * index))).collect();
        name.truncate(byte(&self.raw, ENTRY + 3).into());
        name
    }

    /// `NameHash`.
    pub(crate) fn hash(&self) -> u16 {
        le16(&self.raw, ENTRY + 4)
    }

    /// Gives it another name; entries behind the name stay.
    pub(crate) fn rename(&mut self, name: &[u16], upper: &[u16]) {
        let others = self.raw.get((2 + self.name_entries()) * ENTRY..).unwrap_or(&[]).to_vec();
        self.raw.truncate(2 * ENTRY);
        for part in name.chunks(UNITS) {
            let mut entry = [0; ENTRY];
            put(&mut entry, 0, &[entry_type::NAME]);
            for (index, unit) in part.iter().enumerate() {
                put16(&mut entry, 2 + 2 * index, *unit);
            }
            self.raw.extend(entry);
        }
        self.raw.extend(others);
        let count = self.entries() - 1;
        put(&mut self.raw, 1, &[count as u8]);
        put(&mut self.raw, ENTRY + 3, &[name.len() as u8]);
        put16(&mut self.raw, ENTRY + 4, name_hash(upper));
    }

    /// True if there are entries behind the name, which others put there.
    pub(crate) fn has_extras(&self) -> bool {
        self.raw.len() > (2 + self.name_entries()) * ENTRY
    }

    /// Takes all from another file but the name.
    pub(crate) fn take_file(&mut self, other: &Self) {
        let (name, length) = (self.hash(), byte(&self.raw, ENTRY + 3));
        let count = byte(&self.raw, 1);
        put(&mut self.raw, 0, other.raw.get(..2 * ENTRY).unwrap_or(&[]));
        put(&mut self.raw, 1, &[count]);
        put(&mut self.raw, ENTRY + 3, &[length]);
        put16(&mut self.raw, ENTRY + 4, name);
    }

    pub(crate) fn attributes(&self) -> u16 {
        le16(&self.raw, 4)
    }

    pub(crate) fn set_attributes(&mut self, attributes: u16) {
        put16(&mut self.raw, 4, attributes);
    }

    pub(crate) fn is_directory(&self) -> bool {
        self.attributes() & u16::from(attribute::DIRECTORY) != 0
    }

    /// Where the content is.
    pub(crate) fn stream(&self) -> Stream {
        stream_of(self.raw.get(ENTRY..2 * ENTRY).unwrap_or(&[]))
    }

    /// Sets where the content is, and up to where it means something.
    pub(crate) fn set_stream(&mut self, stream: Stream, valid: u64) {
        let chain = if stream.contiguous && stream.start != 0 { NO_FAT_CHAIN } else { 0 };
        put(&mut self.raw, ENTRY + 1, &[ALLOCATION_POSSIBLE | chain]);
        put64(&mut self.raw, ENTRY + 8, valid);
        put32(&mut self.raw, ENTRY + 20, stream.start);
        put64(&mut self.raw, ENTRY + 24, stream.size);
    }

    pub(crate) fn size(&self) -> u64 {
        le64(&self.raw, ENTRY + 24)
    }

    /// `ValidDataLength`: behind that, the content reads as zero.
    pub(crate) fn valid(&self) -> u64 {
        self.stored_valid().min(self.size())
    }

    /// `ValidDataLength` as it stands there.
    pub(crate) fn stored_valid(&self) -> u64 {
        le64(&self.raw, ENTRY + 8)
    }

    /// Clusters of entries behind the name.
    pub(crate) fn extra_streams(&self) -> impl Iterator<Item = Stream> + '_ {
        let others = self.raw.chunks_exact(ENTRY).skip(2 + self.name_entries());
        let with = others.filter(|entry| byte(entry, 1) & ALLOCATION_POSSIBLE != 0);
        with.map(stream_of).filter(|stream| stream.start != 0)
    }

    pub(crate) fn time(&self, which: Stamp) -> Option<Time> {
        let (at, hundredths, zone) = places(which);
        let hundredths = hundredths.map_or(0, |at| byte(&self.raw, at));
        let local = time::decode(le16(&self.raw, at + 2), le16(&self.raw, at), hundredths)?;
        Some(Time { seconds: local.seconds - offset(byte(&self.raw, zone)), ..local })
    }

    /// Sets a time, in UTC.
    pub(crate) fn set_time(&mut self, which: Stamp, time: Time) {
        let (at, hundredths, zone) = places(which);
        let (date, clock, rest) = time::encode(time);
        put16(&mut self.raw, at, clock);
        put16(&mut self.raw, at + 2, date);
        if let Some(at) = hundredths {
            put(&mut self.raw, at, &[rest]);
        }
        put(&mut self.raw, zone, &[UTC]);
    }
}

/// Where time, hundredths and zone stand.
fn places(which: Stamp) -> (usize, Option<usize>, usize) {
    match which {
        Stamp::Created => (8, Some(20), 22),
        Stamp::Modified => (12, Some(21), 23),
        Stamp::Accessed => (16, None, 24),
    }
}

fn stream_of(entry: &[u8]) -> Stream {
    Stream {
        start: le32(entry, 20),
        size: le64(entry, 24),
        contiguous: byte(entry, 1) & NO_FAT_CHAIN != 0,
    }
}

/// Seconds east of UTC: quarters of an hour in 7 bits with a sign, if the upper bit is set.
fn offset(zone: u8) -> i64 {
    let quarters = i64::from(zone & 0x7F);
    let quarters = if quarters >= 64 { quarters - 128 } else { quarters };
    if zone & 0x80 == 0 { 0 } else { quarters * 900 }
}
