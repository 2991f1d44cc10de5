//! Internal snapshots (digest section 9).
//!
//! A snapshot is an L1 table of its own that shares L2 tables and data with others; all shared
//! clusters are counted once per L1. Counts are raised before the header switches to a new
//! state and lowered after, active L1 and snapshot table switch in one write of the first
//! sector, and the dirty bit stands meanwhile: after a crash the content is the old or the new
//! one, and the next writer puts counts and COPIED bits right.

use std::sync::Arc;

use disksmith_disk::{Error, Kind, Result};

use super::Qcow2;
use super::editor::Editor;
use super::layout::{L1Entry, SnapshotEntry};
use super::meta::Stop;
use super::open::{self, SNAPSHOTS_MOST};
use super::util::{exclusive, lock, shared};
use crate::{Image, OpenMode, Snapshot};

impl Qcow2 {
    pub(super) fn list_snapshots(&self) -> Vec<Snapshot> {
        lock(&self.meta).snapshots.iter().map(describe).collect()
    }

    pub(super) fn take_snapshot(&self, snapshot: &Snapshot) -> Result<()> {
        self.refuse_with_data_file()?;
        self.edit_snapshots(|editor, table| create(editor, table.to_vec(), snapshot))
    }

    pub(super) fn go_to_snapshot(&self, id_or_name: &str) -> Result<()> {
        self.refuse_with_data_file()?;
        self.edit_snapshots(|editor, table| {
            let index = find(table, id_or_name).ok_or_else(|| {
                Error::new(Kind::NotFound, "Failed to load snapshot: No such file or directory")
            })?;
            if editor.roots.extensions.bitmaps.is_some() {
                return Err(Error::new(Kind::Refused, "Device has active dirty bitmaps"));
            }
            apply(editor, &table[index])
        })
    }

    pub(super) fn remove_snapshot(&self, id_or_name: &str) -> Result<()> {
        self.refuse_with_data_file()?;
        self.edit_snapshots(|editor, table| {
            let index = find(table, id_or_name)
                .ok_or_else(|| Error::new(Kind::NotFound, "snapshot not found"))?;
            delete(editor, table.to_vec(), index)
        })
    }

    /// A read-only image of what the snapshot holds. It must not be used any more once the
    /// snapshot is deleted.
    pub(super) fn snapshot_image(&self, id_or_name: &str) -> Result<Arc<dyn Image>> {
        let _gate = exclusive(&self.gate);
        let mut meta = lock(&self.meta);
        let index = find(&meta.snapshots, id_or_name)
            .ok_or_else(|| Error::new(Kind::NotFound, "Can't find snapshot"))?;
        if self.mode.writes() {
            if meta.stopped == Some(Stop::HalfDone) {
                meta.check_writable()?;
            }
            self.settle(&mut meta)?;
        }
        let entry = &meta.snapshots[index];
        let mut opened = open::open(&self.storage, OpenMode::Read)?;
        let editor = Editor::load(&*self.storage)?;
        opened.l1 = editor.read_l1(entry.l1_table_offset, entry.l1_size)?;
        opened.header.l1_table_offset = entry.l1_table_offset;
        opened.header.l1_size = entry.l1_size;
        opened.header.size = entry.disk_size.unwrap_or(opened.header.size);
        opened.snapshots = Vec::new();
        let needed = opened.shape.l1_entries(opened.header.size);
        if needed > u64::from(entry.l1_size) {
            return Err(Error::new(Kind::Corrupt, "Snapshot L1 table is too small"));
        }
        let view = self.view(meta.budgets, opened);
        let attached = shared(&self.attached);
        if let Some(backing) = attached.backing.clone() {
            view.attach_backing(Some(backing))?;
        }
        Ok(Arc::new(view))
    }

    fn refuse_with_data_file(&self) -> Result<()> {
        match lock(&self.meta).has_data_file() {
            true => Err(Error::new(Kind::Unsupported, "Operation not supported")),
            false => Ok(()),
        }
    }
}

fn describe(entry: &SnapshotEntry) -> Snapshot {
    let text = |bytes: &[u8]| String::from_utf8_lossy(until_nul(bytes)).into_owned();
    Snapshot {
        id: text(&entry.id),
        name: text(&entry.name),
        vm_state_size: entry.vm_state_size,
        date_seconds: entry.date_sec,
        date_nanoseconds: entry.date_nsec,
        vm_clock_nanoseconds: entry.vm_clock_nsec,
        instruction_count: entry.icount.filter(|count| *count != u64::MAX),
        disk_size: entry.disk_size,
    }
}

/// Ids come before names.
fn find(table: &[SnapshotEntry], id_or_name: &str) -> Option<usize> {
    let wanted = id_or_name.as_bytes();
    let by_id = table.iter().position(|entry| until_nul(&entry.id) == wanted);
    by_id.or_else(|| table.iter().position(|entry| until_nul(&entry.name) == wanted))
}

/// Names are meant to be C strings, as other programs show them.
fn until_nul(name: &[u8]) -> &[u8] {
    name.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// One above the highest decimal id.
fn new_id(table: &[SnapshotEntry]) -> String {
    let number = |entry: &SnapshotEntry| {
        let digits = entry.id.iter().take_while(|byte| byte.is_ascii_digit());
        digits.fold(0u64, |value, digit| {
            value.saturating_mul(10).saturating_add(u64::from(digit - b'0'))
        })
    };
    table.iter().map(number).max().unwrap_or(0).saturating_add(1).to_string()
}

/// Bytes of the snapshot table as it lies in the file.
pub(super) fn table_bytes(table: &[SnapshotEntry]) -> u64 {
    let size = |entry: &SnapshotEntry| {
        let bytes =
            40 + u64::from(entry.extra_data_size) + (entry.id.len() + entry.name.len()) as u64;
        bytes.next_multiple_of(8)
    };
    table.iter().map(size).sum()
}

fn create(
    editor: &mut Editor<'_>,
    mut table: Vec<SnapshotEntry>,
    snapshot: &Snapshot,
) -> Result<()> {
    if table.len() as u64 >= SNAPSHOTS_MOST {
        return Err(Error::new(Kind::LimitExceeded, "File too large"));
    }
    if snapshot.name.len() > usize::from(u16::MAX) {
        return Err(Error::new(Kind::InvalidInput, "Invalid argument"));
    }
    let old_table = (editor.roots.header.snapshots_offset, table_bytes(&table));
    let mut l1 = editor.read_active_l1()?;
    let l1_bytes = l1.len() as u64 * 8;
    editor.set_dirty(true)?;
    if let Err(error) = editor.change_references(&l1, 1) {
        editor.set_dirty(false)?;
        return Err(error);
    }
    let l1_table_offset = if l1.is_empty() { 0 } else { editor.allocate(l1_bytes)? };
    table.push(SnapshotEntry {
        l1_table_offset,
        l1_size: editor.roots.header.l1_size,
        id: new_id(&table).into_bytes(),
        name: snapshot.name.clone().into_bytes(),
        date_sec: snapshot.date_seconds,
        date_nsec: snapshot.date_nanoseconds,
        vm_clock_nsec: snapshot.vm_clock_nanoseconds,
        vm_state_size: snapshot.vm_state_size,
        disk_size: Some(editor.roots.header.size),
        icount: snapshot.instruction_count,
        ..SnapshotEntry::default()
    });
    let (offset, _) = match editor.place_snapshots(&table) {
        Ok(place) => place,
        Err(error) => {
            editor.change_references(&l1, -1)?;
            editor.release(l1_table_offset, l1_bytes)?;
            editor.set_dirty(false)?;
            return Err(error);
        }
    };
    editor.sync()?;
    editor.clear_copied(&mut l1)?;
    editor.write_l1(editor.roots.header.l1_table_offset, &l1)?;
    editor.write_l1(l1_table_offset, &l1)?;
    editor.sync()?;
    editor.roots.header.snapshots_offset = offset;
    editor.roots.header.nb_snapshots = table.len() as u32;
    editor.switch_roots()?;
    editor.release(old_table.0, old_table.1)?;
    editor.set_dirty(false)
}

fn apply(editor: &mut Editor<'_>, entry: &SnapshotEntry) -> Result<()> {
    let size = entry.disk_size.unwrap_or(editor.roots.header.size);
    let mut l1 = editor.read_l1(entry.l1_table_offset, entry.l1_size)?;
    let old = editor.read_active_l1()?;
    let old_place = editor.roots.header.l1_table_offset;
    let needed = editor.roots.shape.l1_entries(size).max(old.len() as u64);
    if needed * 8 > open::L1_MOST {
        return Err(Error::new(Kind::LimitExceeded, "Failed to load snapshot: File too large"));
    }
    let entries = l1.len().max(needed as usize);
    disksmith_disk::bytes::resize(&mut l1, entries)?;
    editor.set_dirty(true)?;
    if let Err(error) = editor.change_references(&l1, 1) {
        editor.set_dirty(false)?;
        return Err(error.context("Failed to load snapshot"));
    }
    let place = if l1.is_empty() { 0 } else { editor.allocate(l1.len() as u64 * 8)? };
    editor.sync()?;
    editor.clear_copied(&mut l1)?;
    editor.write_l1(place, &l1)?;
    editor.sync()?;
    editor.roots.header.l1_table_offset = place;
    editor.roots.header.l1_size = l1.len() as u32;
    editor.roots.header.size = size;
    editor.switch_roots()?;
    editor.change_references(&old, -1)?;
    editor.release(old_place, old.len() as u64 * 8)?;
    editor.set_dirty(false)
}

fn delete(editor: &mut Editor<'_>, mut table: Vec<SnapshotEntry>, index: usize) -> Result<()> {
    let old_table = (editor.roots.header.snapshots_offset, table_bytes(&table));
    let entry = table.remove(index);
    let l1 = editor.read_l1(entry.l1_table_offset, entry.l1_size)?;
    editor.set_dirty(true)?;
    let (offset, _) = editor.place_snapshots(&table)?;
    editor.sync()?;
    editor.roots.header.snapshots_offset = offset;
    editor.roots.header.nb_snapshots = table.len() as u32;
    editor.switch_roots()?;
    let freed = free_snapshot(editor, &l1, &entry, old_table);
    freed.map_err(|error| error.context("Failed to free the cluster and L1 table"))?;
    editor.set_copied()?;
    editor.set_dirty(false)
}

fn free_snapshot(
    editor: &mut Editor<'_>,
    l1: &[u64],
    entry: &SnapshotEntry,
    old_table: (u64, u64),
) -> Result<()> {
    editor.release(old_table.0, old_table.1)?;
    let tables: Vec<u64> =
        l1.iter().copied().filter(|entry| L1Entry(*entry).offset() != 0).collect();
    editor.change_references(&tables, -1)?;
    editor.release(entry.l1_table_offset, l1.len() as u64 * 8)?;
    editor.sync()
}
