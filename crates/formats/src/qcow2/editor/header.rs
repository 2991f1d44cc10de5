//! Roots in the header. Each switch is one write within the first sector, so that it happens
//! whole or not at all, and is durable when it returns.

use disksmith_disk::{Error, Kind, Result};

use super::super::header::Head;
use super::super::layout;
use super::Editor;

/// From the size to the end of the snapshot pointer: everything that a snapshot changes.
const ROOTS: std::ops::Range<usize> = 24..72;

impl Editor<'_> {
    pub(in super::super) fn set_refcount_table(
        &mut self,
        offset: u64,
        clusters: u32,
    ) -> Result<()> {
        self.roots.header.refcount_table_offset = offset;
        self.roots.header.refcount_table_clusters = clusters;
        let mut pointer = offset.to_be_bytes().to_vec();
        pointer.extend_from_slice(&clusters.to_be_bytes());
        self.storage.write_at(&pointer, 48)?;
        self.storage.flush()
    }

    /// Switches size, active L1 and snapshot table as they stand in `roots`, at once.
    pub(in super::super) fn switch_roots(&mut self) -> Result<()> {
        let bytes = self.roots.header.encode();
        let roots = bytes.get(ROOTS).unwrap_or_default();
        self.storage.write_at(roots, ROOTS.start as u64)?;
        self.storage.flush()
    }

    /// Sets or clears the dirty bit, where the version has one. What was written before is
    /// durable before the bit changes, and the bit before this returns.
    pub(in super::super) fn set_dirty(&mut self, dirty: bool) -> Result<()> {
        self.half_done |= dirty;
        let header = &mut self.roots.header;
        if header.version < 3 || header.has(layout::INCOMPATIBLE_DIRTY) == dirty {
            self.sync()?;
        } else {
            header.incompatible_features ^= layout::INCOMPATIBLE_DIRTY;
            self.write_features()?;
        }
        self.half_done = dirty;
        Ok(())
    }

    /// Writes the feature words as they stand in `roots`, durably and after all else.
    pub(in super::super) fn write_features(&mut self) -> Result<()> {
        self.sync()?;
        let header = &self.roots.header;
        let words =
            [header.incompatible_features, header.compatible_features, header.autoclear_features];
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
        self.storage.write_at(&bytes, 72)?;
        self.storage.flush()
    }

    /// Writes the whole first cluster: header, extensions, backing name. Durable and after all
    /// else.
    pub(in super::super) fn write_header(&mut self) -> Result<()> {
        self.sync()?;
        let backing = self.roots.backing.clone();
        let head = Head::new(&self.roots.extensions, &mut self.roots.header, backing.as_deref())
            .ok_or_else(|| Error::new(Kind::OutOfSpace, "No space left on device"))?;
        head.write(self.storage, self.roots.shape.cluster_size())
    }
}
