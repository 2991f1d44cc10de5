//! Persistent bitmaps on the storage (digest section 10).
//!
//! A bitmap is changed by writing a new table, new data where it differs, and a new directory
//! beside the old ones; the header's extension then switches. What is replaced is freed last.

use disksmith_disk::{Disk, Error, Kind, Result, is_zero};

use super::super::layout::{
    AUTOCLEAR_BITMAPS, BitmapEntry, BitmapTableEntry, BitmapsExtension, parse_bitmap_directory,
};
use super::super::marks::{Marks, clear_from};
use super::super::open::read_table;
use super::super::roots::Roots;
use super::super::util::read_padded;
use super::Editor;

/// Most bytes of one bitmap's data.
const DATA_MOST: u64 = 512 << 20;
/// Largest directory.
const DIRECTORY_MOST: u64 = 1024 * 65_535;

/// The bitmap directory, empty without bitmaps.
pub(in super::super) fn read_bitmap_directory(
    storage: &dyn Disk,
    roots: &Roots,
) -> Result<Vec<BitmapEntry>> {
    let Some(extension) = roots.extensions.bitmaps else { return Ok(Vec::new()) };
    let there = storage.size().saturating_sub(extension.directory_offset);
    let length = extension.directory_size.min(DIRECTORY_MOST).min(there) as usize;
    let mut bytes = disksmith_disk::bytes::zeroed(length)?;
    read_padded(storage, &mut bytes, extension.directory_offset)?;
    parse_bitmap_directory(&bytes, extension.nb_bitmaps).ok_or_else(|| {
        Error::new(Kind::Corrupt, "Could not read bitmaps: the bitmap directory is broken")
    })
}

/// What becomes of the bits that a bitmap has stored.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in super::super) enum Stored {
    /// They are forgotten.
    Dropped,
    /// They stay where they lie, as far as nothing is added to them.
    Kept,
    /// They are kept in new clusters.
    Moved,
}

impl Editor<'_> {
    /// The directory, empty without bitmaps.
    pub(in super::super) fn bitmap_directory(&self) -> Result<Vec<BitmapEntry>> {
        read_bitmap_directory(self.storage, &self.roots)
    }

    /// The table of a bitmap, every entry checked.
    pub(in super::super) fn bitmap_table(&self, entry: &BitmapEntry) -> Result<Vec<u64>> {
        let shape = self.roots.shape;
        let bytes = u64::from(entry.bitmap_table_size) << shape.cluster_bits;
        let sound = |entry: &u64| {
            let entry = BitmapTableEntry(*entry);
            entry.0 & BitmapTableEntry::RESERVED == 0
                && (entry.offset() == 0 || !entry.all_ones() && shape.aligned(entry.offset()))
        };
        let table = match bytes <= DATA_MOST.max(shape.cluster_size()) {
            true => {
                read_table(self.storage, entry.bitmap_table_offset, entry.bitmap_table_size.into())?
            }
            false => Vec::new(),
        };
        if table.len() != entry.bitmap_table_size as usize || !table.iter().all(sound) {
            let name = String::from_utf8_lossy(&entry.name);
            return Err(Error::new(
                Kind::Corrupt,
                format!("the table of bitmap '{name}' is broken"),
            ));
        }
        Ok(table)
    }

    /// Reads the cluster of bits that a table entry stands for.
    pub(in super::super) fn bitmap_cluster(&self, entry: u64) -> Result<Vec<u8>> {
        let entry = BitmapTableEntry(entry);
        let fill = if entry.offset() == 0 && entry.all_ones() { 0xff } else { 0 };
        let mut bytes = vec![fill; self.roots.shape.cluster_size() as usize];
        if entry.offset() != 0 {
            read_padded(self.storage, &mut bytes, entry.offset())?;
        }
        Ok(bytes)
    }

    /// How many clusters of data a bitmap for the present size has.
    pub(in super::super) fn bitmap_clusters(&self, granularity_bits: u8) -> Result<u64> {
        let bits = self.roots.header.size.div_ceil(1 << granularity_bits.min(63));
        let bytes = bits.div_ceil(8);
        if bytes > DATA_MOST {
            return Err(Error::new(
                Kind::LimitExceeded,
                "Too much space will be occupied by the bitmap. Use larger granularity",
            ));
        }
        Ok(self.roots.shape.clusters(bytes))
    }

    /// Puts a new table for `entry` beside the old one: with the bits of `marks` added to those
    /// stored, for the present size. Old clusters which the new table does not use go to
    /// `freed` as (offset, bytes).
    pub(in super::super) fn renew_bitmap(
        &mut self,
        entry: &mut BitmapEntry,
        stored: Stored,
        marks: Option<&Marks>,
        freed: &mut Vec<(u64, u64)>,
    ) -> Result<()> {
        let cluster_size = self.roots.shape.cluster_size();
        let old = self.bitmap_table(entry)?;
        let clusters = self.bitmap_clusters(entry.granularity_bits)?;
        let bits = self.roots.header.size.div_ceil(1 << entry.granularity_bits.min(63));
        let mut table = Vec::new();
        for number in 0..clusters {
            let old = old.get(number as usize).copied();
            let old = old.filter(|_| stored != Stored::Dropped).unwrap_or(0);
            let start = number * cluster_size * 8;
            let cut = (bits - start < cluster_size * 8).then_some(bits - start);
            let added = marks.and_then(|marks| marks.chunk(number));
            table.push(self.renew_cluster(old, added, cut, stored == Stored::Moved)?);
        }
        for (number, entry) in old.iter().enumerate() {
            let offset = BitmapTableEntry(*entry).offset();
            if offset != 0 && table.get(number) != Some(entry) {
                freed.push((offset, cluster_size));
            }
        }
        freed.push((entry.bitmap_table_offset, u64::from(entry.bitmap_table_size) * 8));
        entry.bitmap_table_offset = self.allocate(clusters * 8)?;
        entry.bitmap_table_size = clusters as u32;
        let bytes: Vec<u8> = table.iter().flat_map(|entry| entry.to_be_bytes()).collect();
        self.storage.write_at(&bytes, entry.bitmap_table_offset)
    }

    /// Stores all bitmaps anew that can be relied on, as QEMU does with each image that it
    /// closes after it could have written to it, so that files grow alike. Nothing is gained by
    /// it otherwise.
    pub(in super::super) fn move_bitmaps(
        &mut self,
        entries: &mut [BitmapEntry],
        freed: &mut Vec<(u64, u64)>,
    ) -> Result<()> {
        let sound = |entry: &&mut BitmapEntry| entry.flags & BitmapEntry::IN_USE == 0;
        for entry in entries.iter_mut().filter(sound) {
            self.renew_bitmap(entry, Stored::Moved, None, freed)?;
        }
        Ok(())
    }

    /// The table entry for a cluster of bits: the stored one where nothing differs, unless it
    /// shall move.
    fn renew_cluster(
        &mut self,
        stored: u64,
        added: Option<&[u8]>,
        cut: Option<u64>,
        moves: bool,
    ) -> Result<u64> {
        let moves = moves && BitmapTableEntry(stored).offset() != 0;
        if !moves && added.is_none() && (cut.is_none() || stored == 0) {
            return Ok(stored);
        }
        let old = self.bitmap_cluster(stored)?;
        let mut bytes = old.clone();
        for (byte, more) in bytes.iter_mut().zip(added.unwrap_or_default()) {
            *byte |= more;
        }
        if let Some(from) = cut {
            clear_from(&mut bytes, from);
        }
        if bytes == old && !moves {
            return Ok(stored);
        }
        if is_zero(&bytes) {
            return Ok(0);
        }
        let offset = self.allocate(bytes.len() as u64)?;
        self.storage.write_at(&bytes, offset)?;
        Ok(offset)
    }

    /// Switches to a directory of `entries`; then frees the old one and `freed`.
    pub(in super::super) fn replace_directory(
        &mut self,
        entries: &[BitmapEntry],
        freed: &[(u64, u64)],
    ) -> Result<()> {
        let old = self.roots.extensions.bitmaps;
        let bytes: Vec<u8> = entries.iter().flat_map(BitmapEntry::encode).collect();
        if bytes.len() as u64 > DIRECTORY_MOST {
            return Err(Error::new(
                Kind::LimitExceeded,
                "Not enough space in the bitmap directory",
            ));
        }
        if bytes.is_empty() {
            // The bit vouches for an extension: it goes first and comes last.
            self.roots.header.autoclear_features &= !AUTOCLEAR_BITMAPS;
            self.write_features()?;
            self.roots.extensions.bitmaps = None;
            self.write_header()?;
        } else {
            let directory_offset = self.allocate(bytes.len() as u64)?;
            self.storage.write_at(&bytes, directory_offset)?;
            self.roots.extensions.bitmaps = Some(BitmapsExtension {
                nb_bitmaps: entries.len() as u32,
                directory_size: bytes.len() as u64,
                directory_offset,
            });
            self.roots.extensions.void_bitmaps = false;
            self.write_header()?;
            if self.roots.header.autoclear_features & AUTOCLEAR_BITMAPS == 0 {
                self.roots.header.autoclear_features |= AUTOCLEAR_BITMAPS;
                self.write_features()?;
            }
        }
        if let Some(old) = old {
            self.release(old.directory_offset, old.directory_size)?;
        }
        for (offset, bytes) in freed {
            self.release(*offset, *bytes)?;
        }
        self.sync()
    }

    /// Writes the flags of all entries in place, durably; each write lies in one sector.
    pub(in super::super) fn write_bitmap_flags(&self, entries: &[BitmapEntry]) -> Result<()> {
        let Some(extension) = self.roots.extensions.bitmaps else { return Ok(()) };
        let mut place = extension.directory_offset;
        for entry in entries {
            self.storage.write_at(&entry.flags.to_be_bytes(), place + 12)?;
            place += entry.encode().len() as u64;
        }
        self.storage.flush()
    }
}
