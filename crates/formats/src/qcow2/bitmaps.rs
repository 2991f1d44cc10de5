//! Persistent dirty bitmaps: keeping them up to date, and changing them.
//!
//! Before the first write of guest data, each bitmap that records is flagged in use in the
//! directory; what is written is noted in memory. Saving adds these marks to what is stored and
//! takes the flag off. After a crash in between the flag tells that bits may be missing.

use disksmith_disk::{Error, Kind, Result};

use super::Qcow2;
use super::editor::{Editor, Stored, read_bitmap_directory};
use super::layout::BitmapEntry;
use super::marks::{Marks, each_run};
use super::meta::Meta;
use super::roots::Roots;
use super::util::lock;
use crate::{Bitmap, ResizeRequest};

const NAME_MOST: usize = 1023;
const BITMAPS_MOST: usize = 65_535;
const GRANULARITY_LEAST: u64 = 512;
const GRANULARITY_MOST: u64 = 1 << 31;
/// Bounds of the granularity that is taken from the cluster size.
const DEFAULT_GRANULARITY: std::ops::RangeInclusive<u64> = 4096..=65536;

/// What the guest wrote since the bitmaps were flagged.
#[derive(Debug, Default)]
pub(super) struct Tracker {
    /// The flags are set. Without bitmaps that record, there is nothing else to it.
    started: bool,
    marks: Vec<(Vec<u8>, Marks)>,
}

impl Tracker {
    /// Something is noted that is not stored yet.
    pub(super) fn is_waiting(&self) -> bool {
        !self.marks.is_empty()
    }
}

impl Qcow2 {
    /// Notes that guest data is about to change.
    pub(super) fn record(&self, meta: &Meta, offset: u64, length: u64) -> Result<()> {
        if meta.extensions.bitmaps.is_none() {
            return Ok(());
        }
        let mut tracker = lock(&self.tracker);
        if !tracker.started {
            self.start_recording(&mut tracker)?;
        }
        for (_, marks) in &mut tracker.marks {
            marks.mark(offset, length);
        }
        Ok(())
    }

    fn start_recording(&self, tracker: &mut Tracker) -> Result<()> {
        let editor = Editor::load(&*self.storage)?;
        let cluster_size = self.cluster_size;
        let mut entries = editor.bitmap_directory()?;
        let records = |e: &BitmapEntry| {
            e.flags & (BitmapEntry::AUTO | BitmapEntry::IN_USE) == BitmapEntry::AUTO
        };
        for entry in entries.iter_mut().filter(|entry| records(entry)) {
            entry.flags |= BitmapEntry::IN_USE;
            tracker
                .marks
                .push((entry.name.clone(), Marks::new(entry.granularity_bits, cluster_size)));
        }
        if !tracker.marks.is_empty() {
            editor.write_bitmap_flags(&entries)?;
        }
        tracker.started = true;
        Ok(())
    }

    /// Stores what was noted, and takes the flags off.
    pub(super) fn save_bitmaps(&self) -> Result<()> {
        let recorded = std::mem::take(&mut *lock(&self.tracker));
        if recorded.marks.is_empty() {
            return Ok(());
        }
        self.edit(|editor| {
            let mut entries = editor.bitmap_directory()?;
            let mut freed = Vec::new();
            for entry in &mut entries {
                let recorded = recorded.marks.iter().find(|(name, _)| entry.name == *name);
                if recorded.is_none() && entry.flags & BitmapEntry::IN_USE != 0 {
                    continue;
                }
                entry.flags &= !BitmapEntry::IN_USE;
                let marks = recorded.map(|(_, marks)| marks);
                editor.renew_bitmap(entry, Stored::Moved, marks, &mut freed)?;
            }
            editor.replace_directory(&entries, &freed)
        })
        .map_err(|error| error.context("Lost persistent bitmaps"))
    }

    pub(super) fn list_bitmaps(&self) -> Result<Vec<Bitmap>> {
        let roots = Roots::read(&*self.storage)?;
        let directory = match read_bitmap_directory(&*self.storage, &roots) {
            Err(error) if error.kind() == Kind::Corrupt => Vec::new(),
            read => read?,
        };
        let tracker = lock(&self.tracker);
        // Flagged by ourselves is not left in use.
        let ours = |entry: &BitmapEntry| tracker.marks.iter().any(|(name, _)| *name == entry.name);
        let describe = |entry: BitmapEntry| Bitmap {
            name: String::from_utf8_lossy(&entry.name).into_owned(),
            granularity: 1u64.checked_shl(entry.granularity_bits.into()).unwrap_or(0),
            enabled: entry.flags & BitmapEntry::AUTO != 0,
            in_use: entry.flags & BitmapEntry::IN_USE != 0 && !ours(&entry),
        };
        Ok(directory.into_iter().map(describe).collect())
    }

    pub(super) fn new_bitmap(
        &self,
        name: &str,
        granularity: Option<u64>,
        enabled: bool,
    ) -> Result<()> {
        let granularity = self.granularity(granularity)?;
        if name.is_empty() {
            return Err(Error::new(Kind::InvalidInput, "Bitmap name cannot be empty"));
        }
        let persistent = |text: &str| {
            Error::new(Kind::Unsupported, format!("Can't make bitmap '{name}' persistent: {text}"))
        };
        if name.len() > NAME_MOST {
            return Err(persistent("Bitmap name is too long"));
        }
        self.save_bitmaps()?;
        if lock(&self.meta).shape.version < 3 {
            return Err(persistent("Cannot store dirty bitmaps in qcow2 v2 files"));
        }
        self.edit(|editor| {
            let mut entries = editor.bitmap_directory()?;
            if entries.iter().any(|entry| entry.name == name.as_bytes()) {
                return Err(Error::new(
                    Kind::AlreadyExists,
                    format!("Bitmap already exists: {name}"),
                ));
            }
            if entries.len() >= BITMAPS_MOST {
                return Err(persistent("Maximum number of persistent bitmaps is already reached"));
            }
            let mut entry = BitmapEntry {
                flags: if enabled { BitmapEntry::AUTO } else { 0 },
                kind: BitmapEntry::DIRTY_TRACKING,
                granularity_bits: granularity.trailing_zeros() as u8,
                name: name.as_bytes().to_vec(),
                ..BitmapEntry::default()
            };
            if editor.roots.header.size == 0 {
                return Err(persistent("the disk has no size"));
            }
            let mut freed = Vec::new();
            editor.move_bitmaps(&mut entries, &mut freed)?;
            editor
                .renew_bitmap(&mut entry, Stored::Dropped, None, &mut Vec::new())
                .map_err(|error| error.context(format!("Can't make bitmap '{name}' persistent")))?;
            entries.push(entry);
            editor.replace_directory(&entries, &freed)
        })
    }

    fn granularity(&self, wanted: Option<u64>) -> Result<u64> {
        let granularity = wanted.unwrap_or_else(|| {
            self.cluster_size.clamp(*DEFAULT_GRANULARITY.start(), *DEFAULT_GRANULARITY.end())
        });
        let range = GRANULARITY_LEAST..=GRANULARITY_MOST;
        match granularity.is_power_of_two() && range.contains(&granularity) {
            true => Ok(granularity),
            false => Err(Error::new(
                Kind::InvalidInput,
                "Granularity must be power of 2 and at least 512",
            )),
        }
    }

    pub(super) fn drop_bitmap(&self, name: &str) -> Result<()> {
        self.save_bitmaps()?;
        self.edit(|editor| {
            let mut entries = editor.bitmap_directory()?;
            let index = find(&entries, name)?;
            let entry = entries.remove(index);
            let cluster_size = editor.roots.shape.cluster_size();
            let table = editor.bitmap_table(&entry)?;
            let clusters = table.iter().map(|e| super::layout::BitmapTableEntry(*e).offset());
            let mut freed: Vec<_> = clusters
                .filter(|offset| *offset != 0)
                .map(|offset| (offset, cluster_size))
                .collect();
            freed.push((entry.bitmap_table_offset, u64::from(entry.bitmap_table_size) * 8));
            editor.move_bitmaps(&mut entries, &mut freed)?;
            editor.replace_directory(&entries, &freed)
        })
    }

    pub(super) fn empty_bitmap(&self, name: &str) -> Result<()> {
        self.change_bitmap(name, |editor, entry, freed| {
            editor.renew_bitmap(entry, Stored::Dropped, None, freed)
        })
    }

    pub(super) fn switch_bitmap(&self, name: &str, enabled: bool) -> Result<()> {
        self.change_bitmap(name, |editor, entry, freed| {
            entry.flags &= !BitmapEntry::AUTO;
            entry.flags |= if enabled { BitmapEntry::AUTO } else { 0 };
            editor.renew_bitmap(entry, Stored::Moved, None, freed)
        })
    }

    pub(super) fn add_to_bitmap(&self, name: &str, ranges: &[(u64, u64)]) -> Result<()> {
        let size = lock(&self.meta).header.size;
        self.change_bitmap(name, |editor, entry, freed| {
            let mut marks = Marks::new(entry.granularity_bits, editor.roots.shape.cluster_size());
            for (offset, length) in ranges.iter().filter(|(offset, _)| *offset < size) {
                marks.mark(*offset, (*length).min(size - offset));
            }
            editor.renew_bitmap(entry, Stored::Moved, Some(&marks), freed)
        })
    }

    pub(super) fn bitmap_ranges(&self, name: &str) -> Result<Vec<(u64, u64)>> {
        self.save_bitmaps()?;
        let editor = Editor::load(&*self.storage)?;
        let entries = editor.bitmap_directory()?;
        let index = find_usable(&entries, name)?;
        let Some(entry) = entries.get(index) else { return Ok(Vec::new()) };
        let bits = entry.granularity_bits.min(63);
        let size = editor.roots.header.size;
        let per_cluster = (editor.roots.shape.cluster_size() * 8) << bits;
        let mut ranges: Vec<(u64, u64)> = Vec::new();
        for (stored, start) in
            editor.bitmap_table(entry)?.into_iter().zip((0u64..).map(|n| n * per_cluster))
        {
            if stored == 0 {
                continue;
            }
            each_run(&editor.bitmap_cluster(stored)?, |first, count| {
                let offset = start + (first << bits);
                let length = (count << bits).min(size.saturating_sub(offset));
                match ranges.last_mut() {
                    _ if length == 0 => {}
                    Some(last) if last.0 + last.1 == offset => last.1 += length,
                    _ => ranges.push((offset, length)),
                }
            });
        }
        Ok(ranges)
    }

    /// Changes the size with all bitmaps: what is added to the disk is clean.
    pub(super) fn resize_with_bitmaps(&self, request: ResizeRequest) -> Result<()> {
        if lock(&self.meta).extensions.bitmaps.is_none() {
            return self.change_size(request);
        }
        self.check_resize(request)?;
        self.save_bitmaps()?;
        // A crash on the way leaves them flagged.
        self.edit(|editor| {
            let mut entries = editor.bitmap_directory()?;
            entries.iter().try_for_each(check_usable)?;
            entries.iter_mut().for_each(|entry| entry.flags |= BitmapEntry::IN_USE);
            editor.write_bitmap_flags(&entries)
        })?;
        let resized = self.change_size(request);
        let fitted = self.edit(|editor| {
            let mut entries = editor.bitmap_directory()?;
            let mut freed = Vec::new();
            for entry in &mut entries {
                entry.flags &= !BitmapEntry::IN_USE;
                editor.renew_bitmap(entry, Stored::Kept, None, &mut freed)?;
            }
            editor.replace_directory(&entries, &freed)
        });
        // What the resize itself wrote was noted for bitmaps that are flagged, that is for none.
        *lock(&self.tracker) = Tracker::default();
        resized.and(fitted)
    }

    fn change_bitmap(
        &self,
        name: &str,
        change: impl FnOnce(&mut Editor<'_>, &mut BitmapEntry, &mut Vec<(u64, u64)>) -> Result<()>,
    ) -> Result<()> {
        self.save_bitmaps()?;
        self.edit(|editor| {
            let mut entries = editor.bitmap_directory()?;
            let index = find_usable(&entries, name)?;
            let mut freed = Vec::new();
            let (before, rest) = entries.split_at_mut(index);
            editor.move_bitmaps(before, &mut freed)?;
            if let Some((entry, after)) = rest.split_first_mut() {
                change(editor, entry, &mut freed)?;
                editor.move_bitmaps(after, &mut freed)?;
            }
            editor.replace_directory(&entries, &freed)
        })
    }
}

fn find(entries: &[BitmapEntry], name: &str) -> Result<usize> {
    entries
        .iter()
        .position(|entry| entry.name == name.as_bytes())
        .ok_or_else(|| Error::new(Kind::NotFound, format!("Dirty bitmap '{name}' not found")))
}

fn find_usable(entries: &[BitmapEntry], name: &str) -> Result<usize> {
    let index = find(entries, name)?;
    entries.get(index).map_or(Ok(()), check_usable)?;
    Ok(index)
}

fn check_usable(entry: &BitmapEntry) -> Result<()> {
    if entry.flags & BitmapEntry::IN_USE == 0 {
        return Ok(());
    }
    let name = String::from_utf8_lossy(&entry.name);
    Err(Error::new(Kind::Corrupt, format!("Bitmap '{name}' is inconsistent and cannot be used"))
        .with_hint("Try block-dirty-bitmap-remove to delete this bitmap from disk"))
}
