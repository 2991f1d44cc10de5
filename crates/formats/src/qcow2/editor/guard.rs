//! What fresh clusters must not lie on, whatever the refcounts of a damaged image say.

use disksmith_disk::{Error, Kind, Result};

use super::super::layout::L1Entry;
use super::Editor;

/// Ranges of the storage that hold metadata, as (start, end) in bytes.
pub(super) type Occupied = Vec<(u64, u64)>;

impl Editor<'_> {
    /// Refuses to write fresh structures over the header, the roots' tables, refcount blocks
    /// or active L2 tables.
    pub(super) fn guard(&mut self, offset: u64, bytes: u64) -> Result<()> {
        if self.occupied.is_none() {
            self.occupied = Some(self.metadata()?);
        }
        let end = offset.saturating_add(bytes);
        let hit = |range: &(u64, u64)| offset < range.1 && range.0 < end;
        if self.occupied.iter().flatten().any(hit) {
            return Err(Error::new(
                Kind::Corrupt,
                "Preventing invalid write on metadata (the refcounts call it free)",
            )
            .with_hint("Repair the image with 'check -r all' first."));
        }
        Ok(())
    }

    /// Taken before anything is allocated: what comes later has refcounts that are right.
    fn metadata(&self) -> Result<Occupied> {
        let header = &self.roots.header;
        let cluster = self.roots.shape.cluster_size();
        let range = |start: u64, bytes: u64| (start, start.saturating_add(bytes));
        let mut all = vec![
            range(0, cluster),
            range(header.refcount_table_offset, self.roots.refcount_table_bytes()),
            range(header.l1_table_offset, u64::from(header.l1_size) * 8),
        ];
        if header.nb_snapshots > 0 {
            all.push(range(header.snapshots_offset, cluster));
        }
        if let Some(bitmaps) = self.roots.extensions.bitmaps {
            all.push(range(bitmaps.directory_offset, bitmaps.directory_size));
        }
        let tables = self.read_active_l1()?.into_iter().map(|entry| L1Entry(entry).offset());
        let blocks = self.table.iter().copied();
        all.extend(tables.chain(blocks).filter(|o| *o != 0).map(|o| range(o, cluster)));
        Ok(all)
    }
}
