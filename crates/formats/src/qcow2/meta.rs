//! The metadata of an open image: everything behind its one lock.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use disksmith_disk::{Disk, Error, Kind, Result};

use super::allocate::TableKind;
use super::cache::SliceCache;
use super::layout::{self, Extensions, Header, L1Entry, L2Entry, Shape, SnapshotEntry, put};
use super::open::Opened;
use super::quarantine::Quarantine;
use crate::{OpenMode, Options};

/// Memory for tables, in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Budgets {
    pub(super) l2: u64,
    pub(super) blocks: u64,
}

impl Budgets {
    const MOST: Self = Self { l2: 32 << 20, blocks: 8 << 20 };

    /// What QEMU's options ask for, where it is less than ours.
    pub(super) fn new(options: &Options) -> Result<Self> {
        let least = |name, most: u64| -> Result<u64> {
            Ok(options.size(name)?.map_or(most, |size| size.min(most)))
        };
        Ok(Self {
            l2: least("l2-cache-size", Self::MOST.l2)?,
            blocks: least("refcount-cache-size", Self::MOST.blocks)?,
        })
    }
}

/// Entries of the L1 or refcount table that are written together.
const TABLE_STEP: u64 = 64;

/// The state of an open image.
///
/// What is in memory is newer than what is in the file until [`write_back`](Self::write_back),
/// which writes it in the order that keeps every instant consistent (digest section 8).
#[derive(Debug)]
pub(super) struct Meta {
    pub(super) storage: Arc<dyn Disk>,
    pub(super) mode: OpenMode,
    pub(super) budgets: Budgets,
    pub(super) shape: Shape,
    pub(super) header: Header,
    pub(super) extensions: Extensions,
    /// The backing name as stored.
    pub(super) backing: Option<Vec<u8>>,
    pub(super) snapshots: Vec<SnapshotEntry>,
    /// The active L1 table.
    pub(super) l1: Vec<u64>,
    /// L1 entries that the file does not have yet.
    pub(super) l1_dirty: BTreeSet<u64>,
    /// L2 tables, by slices.
    pub(super) l2: SliceCache,
    /// L2 tables that no L1 entry in the file points to yet.
    pub(super) unlinked: BTreeSet<u64>,
    /// The refcount table.
    pub(super) table: Vec<u64>,
    /// Refcount table entries that the file does not have yet.
    pub(super) table_dirty: BTreeSet<u64>,
    /// Refcount blocks, by slices.
    pub(super) blocks: SliceCache,
    /// No cluster below this one is free.
    pub(super) hint: u64,
    /// Storage from here on was never used since opening, and lies past the end of the file:
    /// it reads as zero.
    pub(super) fresh_from: u64,
    /// Where the next compressed cluster may go: right behind the last one.
    pub(super) packed_end: Option<u64>,
    /// Clusters that are freed once that is safe.
    pub(super) quarantine: Quarantine,
    /// Clusters of tables that guest data must never be written to, by number.
    pub(super) guarded: Option<HashSet<u64>>,
    /// Tables that were found to lie where no other table does.
    pub(super) verified: HashSet<(u64, TableKind)>,
    /// Guest clusters (first, behind the last) that are being allocated.
    pub(super) in_flight: Vec<(u64, u64)>,
    /// Why nothing is written any more.
    pub(super) stopped: Option<Stop>,
}

/// Why an open image is not written any more.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Stop {
    /// Damage was met.
    Damaged,
    /// A change failed in such a way that the file may be in a state that memory does not know.
    /// It is one that a power cut could leave, too: opening the image again mends it.
    HalfDone,
}

impl Meta {
    pub(super) fn new(
        storage: Arc<dyn Disk>,
        mode: OpenMode,
        budgets: Budgets,
        opened: Opened,
    ) -> Self {
        let shape = opened.shape;
        let size = storage.size();
        Self {
            storage,
            mode,
            budgets,
            shape,
            header: opened.header,
            extensions: opened.extensions,
            backing: opened.backing,
            snapshots: opened.snapshots,
            l1: opened.l1,
            l1_dirty: BTreeSet::new(),
            l2: SliceCache::new(shape.cluster_size(), budgets.l2),
            unlinked: BTreeSet::new(),
            table: opened.refcount_table,
            table_dirty: BTreeSet::new(),
            blocks: SliceCache::new(shape.cluster_size(), budgets.blocks),
            hint: 0,
            fresh_from: size,
            packed_end: None,
            quarantine: Quarantine::default(),
            guarded: None,
            verified: HashSet::new(),
            in_flight: Vec::new(),
            stopped: None,
        }
    }

    /// Guest data lies in another file.
    pub(super) fn has_data_file(&self) -> bool {
        self.header.has(layout::INCOMPATIBLE_DATA_FILE)
    }

    /// The data file must stay a valid raw image.
    pub(super) fn data_file_raw(&self) -> bool {
        self.has_data_file()
            && self.header.autoclear_features & layout::AUTOCLEAR_DATA_FILE_RAW != 0
    }

    /// Where the L2 entry for a guest offset lies; `None` if there is no table.
    pub(super) fn entry_place(&mut self, guest: u64) -> Result<Option<u64>> {
        let index = self.shape.l1_index(guest);
        let entry = L1Entry(self.l1.get(index as usize).copied().unwrap_or(0));
        if entry.offset() == 0 {
            return Ok(None);
        }
        if !self.shape.aligned(entry.offset()) {
            let text =
                format!("L2 table offset {:#x} unaligned (L1 index: {index:#x})", entry.offset());
            return Err(self.damaged(&text));
        }
        Ok(Some(entry.offset() + self.shape.l2_index(guest) * self.shape.entry_size()))
    }

    /// The L2 entry at `place`.
    pub(super) fn entry(&mut self, place: u64) -> Result<L2Entry> {
        let extended = self.shape.extended;
        let bytes = self.l2.read(&*self.storage, place)?;
        Ok(decode_entry(bytes, extended))
    }

    /// The L2 entry for a guest offset; all zero if there is no table.
    pub(super) fn guest_entry(&mut self, guest: u64) -> Result<L2Entry> {
        match self.entry_place(guest)? {
            Some(place) => self.entry(place),
            None => Ok(L2Entry::default()),
        }
    }

    /// Changes the L2 entry at `place`.
    pub(super) fn set_entry(&mut self, place: u64, entry: L2Entry) -> Result<()> {
        let mut bytes = [0; 16];
        put(&mut bytes, 0, &entry.raw.to_be_bytes());
        put(&mut bytes, 8, &entry.bitmap.to_be_bytes());
        let size = self.shape.entry_size() as usize;
        self.storage.announce("l2_update");
        self.l2.write(&*self.storage, place, bytes.get(..size).unwrap_or_default())
    }

    /// Where the L2 entry for a guest offset lies, in a table that belongs to the active L1
    /// alone: made, or copied from a shared one, where needed.
    pub(super) fn own_entry_place(&mut self, guest: u64) -> Result<u64> {
        let index = self.shape.l1_index(guest);
        let within = self.shape.l2_index(guest) * self.shape.entry_size();
        let entry = L1Entry(self.l1.get(index as usize).copied().unwrap_or(0));
        // Refuses an unaligned table.
        self.entry_place(guest)?;
        if entry.copied() && entry.offset() != 0 {
            self.check_table_place(entry.offset(), TableKind::L2)?;
            return Ok(entry.offset() + within);
        }
        let table = self.new_l2(entry.offset())?;
        let slot = self.l1.get_mut(index as usize).ok_or_else(|| {
            Error::new(Kind::InvalidInput, format!("the L1 table has no entry {index}"))
        })?;
        *slot = L1Entry::new(table, true).0;
        self.l1_dirty.insert(index);
        if entry.offset() != 0 {
            self.free_clusters(entry.offset(), 1);
        }
        Ok(table + within)
    }

    /// A new L2 table: a copy of the one at `old`, empty if that is 0.
    fn new_l2(&mut self, old: u64) -> Result<u64> {
        let cluster_size = self.shape.cluster_size();
        let table = self.allocate_exact(1, "L2 table")?;
        self.l2.insert_zeroes(table, cluster_size);
        self.unlinked.insert(table);
        self.guard(table, 1);
        if old != 0
            && let Err(error) = self.copy_l2(old, table)
        {
            // Failing to free leaks the table; the error that there is says more.
            let _ = self.release(self.shape.cluster(table), 1);
            return Err(error);
        }
        Ok(table)
    }

    fn copy_l2(&mut self, old: u64, table: u64) -> Result<()> {
        let mut done = 0;
        while done < self.shape.cluster_size() {
            let part = self.l2.read(&*self.storage, old + done)?.to_vec();
            self.l2.write(&*self.storage, table + done, &part)?;
            done += part.len() as u64;
        }
        Ok(())
    }

    /// Writes everything that waits, in order, and makes it durable; then frees what was
    /// unmapped. The caller has seen to it that an external data file is durable.
    pub(super) fn write_back(&mut self) -> Result<()> {
        self.check_writable()?;
        self.write_refcounts()?;
        let unlinked = std::mem::take(&mut self.unlinked);
        let result = self.write_mappings(&unlinked);
        if result.is_err() {
            self.unlinked = unlinked;
            return result;
        }
        self.quarantine.ripen();
        self.release_ripe()?;
        self.blocks.write_dirty(&*self.storage, |_| true)?;
        Ok(())
    }

    /// Whether [`write_back`](Self::write_back) would write anything.
    pub(super) fn is_dirty(&self) -> bool {
        self.l2.is_dirty()
            || self.blocks.is_dirty()
            || !self.l1_dirty.is_empty()
            || !self.table_dirty.is_empty()
            || !self.quarantine.is_empty()
    }

    /// Writes back early when the caches are full of unwritten parts.
    pub(super) fn relieve(&mut self) -> Result<()> {
        match self.l2.crowded() || self.blocks.crowded() || self.quarantine.crowded() {
            true => self.write_back(),
            false => Ok(()),
        }
    }

    /// Refcounts must be durable before anything refers to what they count, and a refcount
    /// block before the table names it.
    fn write_refcounts(&mut self) -> Result<()> {
        let storage = Arc::clone(&self.storage);
        self.blocks.write_dirty(&*storage, |_| true)?;
        if self.table_dirty.is_empty() {
            return Ok(());
        }
        storage.flush()?;
        let place = self.header.refcount_table_offset;
        write_entries(&*storage, place, &self.table, &mut self.table_dirty)
    }

    /// Data, refcounts and new L2 tables first; then what points to them.
    fn write_mappings(&mut self, unlinked: &BTreeSet<u64>) -> Result<()> {
        let storage = Arc::clone(&self.storage);
        let cluster_mask = !(self.shape.cluster_size() - 1);
        self.l2.write_dirty(&*storage, |base| unlinked.contains(&(base & cluster_mask)))?;
        storage.flush()?;
        let linked = self.l2.write_dirty(&*storage, |_| true)?;
        let roots = !self.l1_dirty.is_empty();
        write_entries(&*storage, self.header.l1_table_offset, &self.l1, &mut self.l1_dirty)?;
        match linked || roots {
            true => storage.flush(),
            false => Ok(()),
        }
    }

    /// Meets damage: from now on nothing is written, and the header says so. Answers the error
    /// to return.
    pub(super) fn damaged(&mut self, text: &str) -> Error {
        if self.mode.writes() && self.stopped.is_none() {
            self.stopped = Some(Stop::Damaged);
            if self.shape.version >= 3 {
                self.header.incompatible_features |= layout::INCOMPATIBLE_CORRUPT;
                let features = self.header.incompatible_features.to_be_bytes();
                // The damage is the error to tell; that it could not be noted adds nothing.
                let _ = self.storage.write_at(&features, 72).and_then(|()| self.storage.flush());
            }
            return Error::new(Kind::Corrupt, format!("Marking image as corrupt: {text}"));
        }
        Error::new(Kind::Corrupt, format!("Image is corrupt: {text}"))
    }

    /// Refuses writing after damage was met, or a change failed half way.
    pub(super) fn check_writable(&self) -> Result<()> {
        if !self.mode.writes() {
            return Err(Error::new(Kind::Refused, "Image is read-only"));
        }
        match self.stopped {
            None => Ok(()),
            Some(Stop::Damaged) => {
                Err(Error::new(Kind::Corrupt, "the image is damaged and no longer written"))
            }
            Some(Stop::HalfDone) => Err(Error::new(
                Kind::Refused,
                "the image is no longer written: an earlier change of it failed half way",
            )
            .with_hint("Open the image again: that mends what was left.")),
        }
    }
}

/// Writes the dirty entries of a table in aligned groups.
fn write_entries(
    storage: &dyn Disk,
    place: u64,
    table: &[u64],
    dirty: &mut BTreeSet<u64>,
) -> Result<()> {
    while let Some(first) = dirty.first().copied() {
        let start = first - first % TABLE_STEP;
        let mut end = start;
        for index in dirty.iter() {
            if *index >= end + TABLE_STEP {
                break;
            }
            end = index - index % TABLE_STEP + TABLE_STEP;
        }
        let end = end.min(table.len() as u64);
        let group = table.get(start as usize..end as usize).unwrap_or_default();
        let bytes: Vec<u8> = group.iter().flat_map(|entry| entry.to_be_bytes()).collect();
        storage.write_at(&bytes, place + start * 8)?;
        *dirty = dirty.split_off(&end);
    }
    Ok(())
}

/// The L2 entry at the front of `bytes`.
pub(super) fn decode_entry(bytes: &[u8], extended: bool) -> L2Entry {
    use disksmith_disk::bytes::be64;
    let bitmap = if extended { be64(bytes, 8).unwrap_or(0) } else { 0 };
    L2Entry { raw: be64(bytes, 0).unwrap_or(0), bitmap }
}
