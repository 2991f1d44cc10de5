//! How much space an image will need.

use disksmith_disk::{Disk, Error, Kind, Result};
use disksmith_open::{Node, chain_map};

/// What `measure` tells, in bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Measured {
    /// The size of the file that a convert makes.
    pub required: u64,
    /// Its size once all guest data is stored.
    pub fully_allocated: u64,
    /// What persistent bitmaps add; `None` where source or target cannot have any.
    pub bitmaps: Option<u64>,
}

/// A raw target: the guest's size, in whole sectors.
pub fn measure_raw(size: u64) -> Result<Measured> {
    let size = size
        .checked_next_multiple_of(512)
        .ok_or_else(|| Error::new(Kind::InvalidInput, "The image size is too large"))?;
    Ok(Measured { required: size, fully_allocated: size, bitmaps: None })
}

/// How many bytes of guest data, in clusters of `cluster_size`, a target without backing image
/// must store to take over what `source` holds: zero and absent ranges need none.
///
/// A cluster counts when a run of data begins in it or reaches into it; a run that begins in a
/// cluster counted already does not count it again.
pub fn data_bytes(source: &Node, cluster_size: u64) -> Result<u64> {
    let size = source.image.size();
    let mut at = 0;
    let mut bytes = 0u64;
    while at < size {
        let extent = chain_map(source, at, size - at)?;
        let mut end = at + extent.length;
        if extent.present && extent.data && !extent.zero {
            // The rest of the last cluster is stored with it.
            end = end.next_multiple_of(cluster_size);
            bytes = bytes.saturating_add(end - at + at % cluster_size);
        }
        at = end;
    }
    Ok(bytes)
}
