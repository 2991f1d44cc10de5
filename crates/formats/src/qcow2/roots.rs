//! The first cluster, read straight from the storage: whence all metadata is reached.
//!
//! Check, snapshots, bitmaps and amendments work on this and not on the open image's state:
//! they must cope with images whose tables are broken, and switch several roots in one write.

use disksmith_disk::{Disk, Result};

use super::layout::{self, Extensions, Header, L2Entry, Shape};
use super::open::OpenError;
use super::util::read_padded;

/// The header, its extensions, and the arithmetic that follows.
#[derive(Clone, Debug)]
pub(super) struct Roots {
    pub header: Header,
    pub shape: Shape,
    pub extensions: Extensions,
    /// The backing name as stored.
    pub backing: Option<Vec<u8>>,
}

/// What an L2 entry stands for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Cluster {
    Compressed,
    Data,
    Unallocated,
    /// Reads as zero, no storage.
    Zero,
    /// Reads as zero, storage reserved.
    ZeroKept,
}

impl Roots {
    /// Reads the header of the image on `storage`. Refuses only what makes it meaningless: a
    /// full judgement is for opening.
    pub(super) fn read(storage: &dyn Disk) -> Result<Self> {
        let mut start = vec![0; layout::HEADER_LENGTH as usize];
        read_padded(storage, &mut start, 0)?;
        let mut header = Header::parse(&start).map_err(OpenError::from)?;
        if header.refcount_order > 6 {
            return Err(OpenError::RefcountWidth.into());
        }
        let mut cluster = disksmith_disk::bytes::zeroed(1 << header.cluster_bits)?;
        read_padded(storage, &mut cluster, 0)?;
        header.take_unknown(&cluster);
        let extensions = Extensions::parse(&header, &cluster).map_err(OpenError::from)?;
        let backing = match header.backing_file_offset {
            0 => None,
            offset => {
                let end = offset.saturating_add(header.backing_file_size.into());
                cluster.get(offset as usize..end as usize).map(<[u8]>::to_vec)
            }
        };
        // The guest sees whole sectors.
        header.size -= header.size % 512;
        Ok(Self { shape: header.shape(), header, extensions, backing })
    }

    pub(super) fn has_data_file(&self) -> bool {
        self.header.has(layout::INCOMPATIBLE_DATA_FILE)
    }

    /// What an L2 entry says.
    pub(super) fn cluster(&self, entry: u64) -> Cluster {
        let offset = entry & L2Entry::OFFSET;
        if entry & L2Entry::COMPRESSED != 0 {
            Cluster::Compressed
        } else if entry & L2Entry::ZERO != 0 && !self.shape.extended {
            if offset == 0 { Cluster::Zero } else { Cluster::ZeroKept }
        } else if offset != 0 || self.has_data_file() && entry & L2Entry::COPIED != 0 {
            Cluster::Data
        } else {
            Cluster::Unallocated
        }
    }

    pub(super) fn refcount_table_bytes(&self) -> u64 {
        u64::from(self.header.refcount_table_clusters) << self.shape.cluster_bits
    }
}
