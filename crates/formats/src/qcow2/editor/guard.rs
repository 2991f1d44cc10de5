//! What fresh clusters must not lie on, whatever the refcounts of a damaged image say.

use disksmith_disk::{Error, Kind, Result};

use super::super::open::read_snapshots;
use super::super::places::{Place, Places};
use super::super::snapshots::table_bytes;
use super::Editor;

impl Editor<'_> {
    /// Refuses to write fresh structures over what the image has.
    pub(super) fn guard(&mut self, offset: u64, bytes: u64) -> Result<()> {
        if self.occupied.is_none() {
            self.check_table()?;
            self.occupied = Some(self.metadata()?);
        }
        if self.occupied.iter().flatten().any(|place| place.meets(offset, bytes)) {
            return Err(Error::new(
                Kind::Corrupt,
                "Preventing invalid write on metadata (the refcounts call it free)",
            )
            .with_hint("Repair the image with 'check -r all' first."));
        }
        Ok(())
    }

    /// Refuses a refcount table that refers to one block twice or to places between clusters:
    /// with such counts nothing can be allocated.
    pub(super) fn check_table(&self) -> Result<()> {
        let mut blocks: Vec<u64> = self.table.iter().copied().filter(|o| *o != 0).collect();
        let unaligned = blocks.iter().any(|offset| !self.roots.shape.aligned(*offset));
        blocks.sort_unstable();
        if unaligned || blocks.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(Error::new(Kind::Corrupt, "the refcount table is broken")
                .with_hint("Repair the image with 'check -r all' first."));
        }
        Ok(())
    }

    /// Taken before anything is allocated: what comes later has refcounts that are right.
    fn metadata(&self) -> Result<Vec<Place>> {
        let header = &self.roots.header;
        let snapshots = match read_snapshots(self.storage, header) {
            Err(error) if error.kind() == Kind::Io => return Err(error),
            // A broken table names nothing that could be kept.
            read => read.unwrap_or_default(),
        };
        let places = Places {
            header,
            bitmaps: self.roots.extensions.bitmaps,
            l1: &self.read_active_l1()?,
            table: &self.table,
            snapshots: &snapshots,
            snapshots_length: table_bytes(&snapshots),
        };
        Ok(places.all().collect())
    }
}
