//! Which bytes of a volume mean something.

use std::ops::Range;
use std::sync::Arc;

use disksmith_disk::{Disk, Result};

use super::core::Core;

/// The ranges of `disk`, in bytes and in order, that hold the volume's structures or clusters in
/// use. What is not in them need not be copied. Clusters marked as bad count as unused.
pub fn used_ranges(disk: Arc<dyn Disk>) -> Result<Vec<Range<u64>>> {
    let core = Core::open(disk, true)?;
    let shape = &core.shape;
    let size = shape.cluster_size();
    let structures = 0..shape.byte(shape.data_start);
    let mut ranges = vec![structures];
    let mut reader = core.table.reader(&*core.disk, shape);
    let (mut at, end) = (2, shape.clusters + 2);
    while let Some(first) = reader.find(at, end, false)? {
        at = reader.find(first, end, true)?.unwrap_or(end);
        let start = shape.place(first);
        let range = start..start + u64::from(at - first) * size;
        match ranges.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => ranges.push(range),
        }
    }
    let disk_size = core.disk.size();
    ranges.retain(|range| range.start < disk_size);
    for range in &mut ranges {
        range.end = range.end.min(disk_size);
    }
    Ok(ranges)
}
