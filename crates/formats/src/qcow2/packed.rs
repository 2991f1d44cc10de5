//! Writing compressed clusters.

use disksmith_disk::{Disk, Error, Kind, Result};

use super::Qcow2;
use super::layout::L2Entry;
use super::util::{lock, shared};

impl Qcow2 {
    /// Stores one whole cluster in packed form.
    pub(super) fn write_packed_cluster(&self, offset: u64, packed: &[u8]) -> Result<()> {
        let length = packed.len() as u64;
        if !offset.is_multiple_of(self.cluster_size) || length == 0 || length >= self.cluster_size {
            return Err(Error::new(
                Kind::InvalidInput,
                format!("{length} bytes for guest offset {offset} are no compressed cluster"),
            ));
        }
        let _gate = shared(&self.gate);
        let mut meta = self.wait_for(offset, self.cluster_size)?;
        meta.check_writable()?;
        if meta.has_data_file() || meta.header.crypt_method != 0 {
            return Err(Error::new(Kind::Unsupported, "Operation not supported"));
        }
        meta.relieve()?;
        let size = meta.header.size;
        self.note_write(&mut meta, offset, self.cluster_size.min(size - offset))?;
        let shape = meta.shape;
        // Refuses broken tables before anything is allocated.
        meta.run(offset, self.cluster_size)?;
        meta.own_entry_place(offset)?;
        let place = meta.allocate_bytes(length)?;
        self.unpacked.clear();
        let _token = meta.quarantine.token();
        let range = (shape.cluster(offset), shape.cluster(offset) + 1);
        meta.in_flight.push(range);
        drop(meta);

        self.storage.announce("write_compressed");
        let written = self.storage.write_at(packed, place);
        let mut meta = lock(&self.meta);
        let result = written.and_then(|()| {
            let new = L2Entry::compressed(&shape, place, length)
                .ok_or_else(|| Error::new(Kind::OutOfSpace, "File too large"))?;
            let at = meta.own_entry_place(offset)?;
            let old = meta.entry(at)?;
            meta.set_entry(at, new)?;
            meta.drop_old(old, new);
            Ok(())
        });
        if result.is_err() {
            let first = shape.cluster(place);
            let last = shape.cluster(place + length - 1);
            // Failing to free leaks the space; the write's own error is the one to tell.
            let _ = meta.release(first, last - first + 1);
        }
        self.landed(&mut meta, Some(range));
        result
    }
}
