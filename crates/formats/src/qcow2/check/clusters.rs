//! L1 and L2 tables: what they refer to, and whether their entries keep to the rules.

use disksmith_disk::bytes::{be64, resize};
use disksmith_disk::{Error, Kind, Result};

use super::super::layout::{L1Entry, L2Entry};
use super::super::roots::Cluster;
use super::super::util::read_padded;
use super::{Checker, VISITS_EXTRA};

/// L1 tables are read in pieces of this many bytes.
const L1_PIECE: u64 = 1 << 20;
const SUBCLUSTERS: u64 = L2Entry::ALL_ALLOCATED;

/// An L2 table while it is looked through.
struct Table {
    offset: u64,
    bytes: Vec<u8>,
    active: bool,
    /// Where the next cluster would lie if the disk were not fragmented; 0 = anywhere.
    next: u64,
}

/// One entry of it.
#[derive(Clone, Copy)]
struct Entry {
    index: usize,
    raw: u64,
    bitmap: u64,
}

/// What is to become of an entry.
enum Verdict {
    /// Nothing, or told already.
    Leave,
    /// It shall be this instead; the corruption that was counted is mended.
    Replace(u64, u64),
}

impl Checker<'_> {
    /// Counts the references of an L1 table: to itself, to L2 tables and to what they map.
    pub(super) fn count_l1(&mut self, offset: u64, entries: u64, active: bool) -> Result<()> {
        self.count(offset, entries.saturating_mul(8));
        if offset.saturating_add(entries.saturating_mul(8)) > i64::MAX as u64 {
            let error = Error::new(Kind::Io, "Input/output error");
            return self.give_up("ERROR: I/O error in check_refcounts_l1", error);
        }
        // Past the end of the file there are only zeroes.
        let bytes = entries.saturating_mul(8).min(self.storage.size().saturating_sub(offset));
        let mut visits = self.clusters.saturating_add(VISITS_EXTRA);
        let mut piece = Vec::new();
        for at in (0..bytes).step_by(L1_PIECE as usize) {
            let length = (bytes - at).next_multiple_of(8).min(L1_PIECE) as usize;
            resize(&mut piece, length)?;
            if let Err(error) = read_padded(self.storage, &mut piece, offset + at) {
                return self.give_up("ERROR: I/O error in check_refcounts_l1", error);
            }
            for (index, entry) in piece.chunks_exact(8).enumerate() {
                let entry = be64(entry, 0).unwrap_or(0);
                if entry == 0 {
                    continue;
                }
                if L1Entry(entry).offset() < self.storage.size() {
                    visits = visits.checked_sub(1).ok_or_else(too_many_visits)?;
                }
                self.count_l2(offset + at + index as u64 * 8, entry, active)?;
            }
        }
        Ok(())
    }

    /// Follows `entry`, which lies at `place`.
    fn count_l2(&mut self, place: u64, mut entry: u64, active: bool) -> Result<()> {
        if entry & L1Entry::RESERVED != 0 {
            if self.mends_errors() && !self.protected_from_table(place, 8) {
                self.say(format!("Repairing L1 entry with reserved bits set: {entry:x}"));
                entry &= !L1Entry::RESERVED;
                self.storage.write_at(&entry.to_be_bytes(), place)?;
                self.report.corruptions_fixed += 1;
            } else {
                self.corrupt(format!("ERROR found L1 entry with reserved bits set: {entry:x}"));
            }
        }
        let shape = self.roots.shape;
        let offset = L1Entry(entry).offset();
        if offset == 0 && self.mends_errors() && !self.protected_from_table(place, 8) {
            if entry != 0 {
                self.mend(format!("Repairing L1 entry without a table: {entry:x}"));
            }
            return self.storage.write_at(&[0; 8], place);
        }
        let gone = self.mends_errors()
            && self.past_end(offset, shape.cluster_size())
            && !self.lengthen(offset, shape.cluster_size())?
            && !self.protected_from_table(place, 8);
        if gone {
            // Behind the end of the file nothing is mapped, and so it stays.
            self.mend(format!(
                "Repairing L1 entry that points behind the end of the file: {entry:x}"
            ));
            return self.storage.write_at(&[0; 8], place);
        }
        self.count(offset, shape.cluster_size());
        if !shape.aligned(offset) {
            self.corrupt(format!(
                "ERROR l2_offset={offset:x}: Table is not cluster aligned; L1 entry corrupted"
            ));
        }
        // Beyond the file there is nothing to look at.
        if offset >= self.storage.size() {
            return Ok(());
        }
        let mut bytes = std::mem::take(&mut self.buffer);
        resize(&mut bytes, shape.cluster_size() as usize)?;
        if let Err(error) = read_padded(self.storage, &mut bytes, offset) {
            return self.give_up("ERROR: I/O error in check_refcounts_l2", error);
        }
        let mut table = Table { offset, bytes, active, next: 0 };
        let result = self.count_entries(&mut table);
        self.buffer = table.bytes;
        result
    }

    fn count_entries(&mut self, table: &mut Table) -> Result<()> {
        let size = self.roots.shape.entry_size() as usize;
        for index in 0..table.bytes.len() / size {
            let raw = be64(&table.bytes, index * size).unwrap_or(0);
            let bitmap = match size {
                16 => be64(&table.bytes, index * size + 8).unwrap_or(0),
                _ => 0,
            };
            if raw == 0 && bitmap & SUBCLUSTERS == 0 {
                continue;
            }
            let mut entry = Entry { index, raw, bitmap };
            // An entry that was mended is looked at again as it is now.
            while let Verdict::Replace(raw, bitmap) = self.count_entry(table, entry)? {
                if !self.replace(table, index, raw, bitmap)? {
                    // Something is seriously wrong with this table.
                    return Ok(());
                }
                entry = Entry { index, raw, bitmap };
            }
        }
        Ok(())
    }

    fn count_entry(&mut self, table: &mut Table, entry: Entry) -> Result<Verdict> {
        let kind = self.roots.cluster(entry.raw);
        let raw = entry.raw;
        if kind != Cluster::Compressed && raw & L2Entry::RESERVED != 0 {
            if self.mends_errors() {
                self.mend(format!("Repairing l2 entry with reserved bits set: {raw:x}"));
                return Ok(Verdict::Replace(raw & !L2Entry::RESERVED, entry.bitmap));
            }
            self.corrupt(format!("ERROR found l2 entry with reserved bits set: {raw:x}"));
        }
        match kind {
            Cluster::Compressed => self.count_compressed(table, entry),
            Cluster::Data | Cluster::ZeroKept => self.count_data(table, entry),
            Cluster::Zero => Ok(Verdict::Leave),
            Cluster::Unallocated if entry.bitmap & SUBCLUSTERS != 0 => {
                let told = "Unallocated cluster has non-zero subcluster allocation map";
                if self.mends_errors() {
                    self.mend(format!("Repairing: {told}"));
                    return Ok(Verdict::Replace(raw, entry.bitmap & !SUBCLUSTERS));
                }
                self.corrupt(format!("ERROR: {told}"));
                Ok(Verdict::Leave)
            }
            Cluster::Unallocated => Ok(Verdict::Leave),
        }
    }

    fn count_compressed(&mut self, table: &Table, entry: Entry) -> Result<Verdict> {
        let Entry { index, mut raw, bitmap } = entry;
        if raw & L2Entry::COPIED != 0 {
            let coffset = L2Entry { raw, bitmap }.compressed_range(&self.roots.shape).offset;
            let told = format!(
                "coffset=0x{coffset:x}: copied flag must never be set for compressed clusters"
            );
            raw &= !L2Entry::COPIED;
            if self.mends_errors() {
                self.mend(format!("Repairing {told}"));
                return Ok(Verdict::Replace(raw, bitmap));
            }
            self.corrupt(format!("ERROR: {told}"));
        }
        if self.roots.has_data_file() {
            self.corrupt(format!(
                "ERROR compressed cluster {index} with data file, entry=0x{raw:x}"
            ));
            return Ok(Verdict::Leave);
        }
        if bitmap != 0 {
            let told = format!(
                "compressed cluster {index} with non-zero subcluster allocation bitmap, entry=0x{raw:x}"
            );
            if self.mends_errors() {
                self.mend(format!("Repairing {told}"));
                return Ok(Verdict::Replace(raw, 0));
            }
            self.corrupt(format!("ERROR {told}"));
            return Ok(Verdict::Leave);
        }
        let range = L2Entry { raw, bitmap }.compressed_range(&self.roots.shape);
        self.count(range.offset, range.length);
        if table.active {
            self.report.allocated_clusters += 1;
            self.report.compressed_clusters += 1;
            // Compressed clusters share sectors: reading neighbours reads sectors twice.
            self.report.fragmented_clusters += 1;
        }
        Ok(Verdict::Leave)
    }

    fn count_data(&mut self, table: &mut Table, entry: Entry) -> Result<Verdict> {
        let Entry { raw, bitmap, .. } = entry;
        let shape = self.roots.shape;
        let offset = raw & L2Entry::OFFSET;
        if (bitmap >> 32) & bitmap != 0 {
            let told = format!(
                "offset={offset:x}: Allocated cluster has corrupted subcluster allocation bitmap"
            );
            if self.mends_errors() {
                // What may be data is kept.
                self.mend(format!("Repairing {told}"));
                return Ok(Verdict::Replace(raw, bitmap & !(bitmap << 32)));
            }
            self.corrupt(format!("ERROR {told}"));
        }
        if !shape.aligned(offset) {
            let data =
                if shape.extended { bitmap & SUBCLUSTERS != 0 } else { raw & L2Entry::ZERO == 0 };
            if !data && self.mends_errors() {
                self.mend(format!(
                    "Repairing offset={offset:x}: Preallocated cluster is not properly aligned; L2 entry corrupted."
                ));
                return Ok(match shape.extended {
                    true => Verdict::Replace(0, (bitmap | bitmap << 32) & L2Entry::ALL_ZERO),
                    false => Verdict::Replace(L2Entry::ZERO, 0),
                });
            }
            let what = if data { "Data" } else { "Preallocated" };
            self.corrupt(format!(
                "ERROR offset={offset:x}: {what} cluster is not properly aligned; L2 entry corrupted."
            ));
        }
        if let Some(verdict) = self.beyond(raw, bitmap, offset)? {
            return Ok(verdict);
        }
        if table.active {
            self.report.allocated_clusters += 1;
            if table.next != 0 && offset != table.next {
                self.report.fragmented_clusters += 1;
            }
            table.next = offset + shape.cluster_size();
        }
        if !self.roots.has_data_file() {
            self.count(offset, shape.cluster_size());
        }
        Ok(Verdict::Leave)
    }

    /// Data that lies nowhere in the file reads as zero: a repair makes that lasting. Not where
    /// the clusters are counted as used: then the file was cut and is made longer.
    fn beyond(&mut self, raw: u64, bitmap: u64, offset: u64) -> Result<Option<Verdict>> {
        let shape = self.roots.shape;
        let size = shape.cluster_size();
        let can = shape.version >= 3 || self.roots.backing.is_none();
        if !self.mends_errors()
            || !can
            || self.roots.has_data_file()
            || !self.past_end(offset, size)
            || self.lengthen(offset, size)?
        {
            return Ok(None);
        }
        self.mend(format!("Repairing l2 entry that points behind the end of the file: {raw:x}"));
        Ok(Some(match (shape.extended, shape.version) {
            (true, _) => Verdict::Replace(0, (bitmap | bitmap << 32) & L2Entry::ALL_ZERO),
            (false, 3..) => Verdict::Replace(L2Entry::ZERO, 0),
            (false, _) => Verdict::Replace(0, 0),
        }))
    }

    /// Tells and counts what is mended right away.
    pub(super) fn mend(&mut self, text: String) {
        self.report.corruptions_fixed += 1;
        self.say(text);
    }

    /// Writes an entry. `false`: it would overwrite other metadata, nothing was written.
    fn replace(&mut self, table: &mut Table, index: usize, raw: u64, bitmap: u64) -> Result<bool> {
        let size = self.roots.shape.entry_size() as usize;
        let place = table.offset + (index * size) as u64;
        if self.protected_from_table(place, size as u64) {
            self.report.corruptions_fixed -= 1;
            self.report.corruptions += 1;
            self.report.check_errors += 1;
            self.say("ERROR: Overlap check failed");
            return Ok(false);
        }
        let mut bytes = raw.to_be_bytes().to_vec();
        if size == 16 {
            bytes.extend_from_slice(&bitmap.to_be_bytes());
        }
        self.storage.write_at(&bytes, place)?;
        if let Some(entry) = table.bytes.get_mut(index * size..(index + 1) * size) {
            entry.copy_from_slice(&bytes);
        }
        Ok(true)
    }
}

fn too_many_visits() -> Error {
    Error::new(Kind::LimitExceeded, "L1 table refers to the same L2 tables again and again")
}
