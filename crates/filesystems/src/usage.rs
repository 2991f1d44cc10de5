//! Which parts of a disk a filesystem uses.

use std::ops::Range;
use std::sync::Arc;

use disksmith_disk::{Disk, Result};

use crate::ext::Ext;

/// The ranges of `disk`, in bytes and ascending, that the filesystem of this type (as blkid names
/// it) uses: a copy of them is a copy of the filesystem. What lies behind the end of the filesystem
/// counts as used, since nothing is known of it. `None`: the type is not known here, and all of the
/// disk has to be taken as used.
pub fn used_ranges(disk: &Arc<dyn Disk>, kind: &str) -> Result<Option<Vec<Range<u64>>>> {
    let mut used = match kind {
        "ext2" | "ext3" | "ext4" => {
            let filesystem = Ext::open(disk.clone(), true)?;
            if filesystem.has_errors() {
                return Ok(None);
            }
            filesystem.used_ranges()?
        }
        "vfat" => crate::fat::used_ranges(disk.clone())?,
        "exfat" => crate::fat::exfat::used_ranges(disk.clone())?,
        "swap" => crate::swap::used_ranges(&**disk)?,
        _ => return Ok(None),
    };
    used.retain_mut(|range| {
        range.end = range.end.min(disk.size());
        range.start < range.end
    });
    Ok(Some(used))
}
