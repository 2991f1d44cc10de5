//! References of persistent bitmaps.

use disksmith_disk::{Error, Kind, Result};

use super::super::header::Head;
use super::super::layout::{BitmapEntry, BitmapTableEntry, parse_bitmap_directory};
use super::super::open::read_table;
use super::super::util::read_padded;
use super::Checker;

/// The largest table of one bitmap, in entries.
const TABLE_MOST: u32 = 1 << 27;

impl Checker<'_> {
    pub(super) fn count_bitmaps(&mut self) -> Result<()> {
        let Some(bitmaps) = self.roots.extensions.bitmaps else { return Ok(()) };
        self.count(bitmaps.directory_offset, bitmaps.directory_size);
        let there = self.storage.size().saturating_sub(bitmaps.directory_offset);
        let length = bitmaps.directory_size.min(there) as usize;
        let mut directory = disksmith_disk::bytes::zeroed(length)?;
        read_padded(self.storage, &mut directory, bitmaps.directory_offset)?;
        let Some(entries) = parse_bitmap_directory(&directory, bitmaps.nb_bitmaps) else {
            self.report.corruptions += 1;
            return Err(Error::new(Kind::Corrupt, "Invalid argument"));
        };
        for entry in entries {
            let (offset, size) = (entry.bitmap_table_offset, entry.bitmap_table_size);
            self.count(offset, u64::from(size) * 8);
            if size > TABLE_MOST || !self.roots.shape.aligned(offset) {
                self.report.corruptions += 1;
                return Err(Error::new(Kind::Corrupt, "Invalid argument"));
            }
            self.check_bitmap_size(&entry);
            let there = self.storage.size().saturating_sub(offset).div_ceil(8);
            for entry in read_table(self.storage, offset, there.min(size.into()))? {
                self.count_bitmap_cluster(BitmapTableEntry(entry));
            }
        }
        Ok(())
    }

    /// A bitmap of another disk's size keeps qemu-img from opening the image; left in use, it is
    /// not looked at.
    fn check_bitmap_size(&mut self, entry: &BitmapEntry) {
        let disk = self.roots.header.size - self.roots.header.size % 512;
        let bits = disk.div_ceil(1 << entry.granularity_bits.min(63));
        let needed = self.roots.shape.clusters(bits.div_ceil(8));
        let table = u64::from(entry.bitmap_table_size);
        if entry.flags & BitmapEntry::IN_USE == 0 && table != needed {
            let name = String::from_utf8_lossy(&entry.name);
            self.corrupt(format!(
                "ERROR bitmap '{name}' has a table of {table} entries, and the disk needs {needed}"
            ));
        }
    }

    fn count_bitmap_cluster(&mut self, entry: BitmapTableEntry) {
        let offset = entry.offset();
        let rules = entry.0 & BitmapTableEntry::RESERVED == 0
            && (offset == 0 || !entry.all_ones() && self.roots.shape.aligned(offset));
        if !rules {
            self.report.corruptions += 1;
        } else if offset != 0 {
            self.count(offset, self.roots.shape.cluster_size());
        }
    }

    /// Removes an extension whose data is void. Its clusters have been given back as leaks.
    pub(super) fn drop_void_bitmaps(&mut self) -> Result<()> {
        self.roots.extensions.void_bitmaps = false;
        let backing = self.roots.backing.clone();
        match Head::new(&self.roots.extensions, &mut self.roots.header, backing.as_deref()) {
            Some(head) => head.write(self.storage, self.roots.shape.cluster_size()),
            None => Ok(()),
        }
    }
}
