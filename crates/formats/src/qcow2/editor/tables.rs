//! The snapshot table.

use disksmith_disk::{Error, Kind, Result};

use super::super::layout::SnapshotEntry;
use super::super::open::SNAPSHOT_TABLE_MOST;
use super::Editor;

impl Editor<'_> {
    /// Replaces the snapshot table, which lies at `old` (offset, bytes): the new one is durable
    /// before the header switches to it, with whatever else changed in `roots`.
    pub(in super::super) fn write_snapshots(
        &mut self,
        snapshots: &[SnapshotEntry],
        old: (u64, u64),
    ) -> Result<()> {
        let (offset, _) = self.place_snapshots(snapshots)?;
        self.sync()?;
        self.roots.header.snapshots_offset = offset;
        self.roots.header.nb_snapshots = snapshots.len() as u32;
        self.switch_roots()?;
        self.release_counted(old.0, old.1)?;
        self.sync()
    }

    /// Writes a snapshot table to fresh clusters: its offset and size. No entries, no table.
    pub(in super::super) fn place_snapshots(
        &mut self,
        snapshots: &[SnapshotEntry],
    ) -> Result<(u64, u64)> {
        let size = self.roots.header.size;
        let bytes: Vec<u8> = snapshots.iter().flat_map(|s| s.encode(size)).collect();
        if bytes.is_empty() {
            return Ok((0, 0));
        }
        if bytes.len() as u64 > SNAPSHOT_TABLE_MOST {
            return Err(Error::new(Kind::LimitExceeded, "File too large"));
        }
        let offset = self.allocate(bytes.len() as u64)?;
        self.storage.write_at(&bytes, offset)?;
        Ok((offset, bytes.len() as u64))
    }
}
