//! Persistent bitmaps from one image to another.

use disksmith_disk::{Context, Error, Kind, Result};
use disksmith_formats::{Bitmap, Image};

use crate::Observer;

/// Copies all persistent bitmaps of `source` to `target`, which has none of these names.
///
/// A bitmap that cannot be trusted (left in use by a crash) is an error, or with
/// `skip_broken` left out with a warning.
pub fn copy_bitmaps(
    source: &dyn Image,
    target: &dyn Image,
    skip_broken: bool,
    observer: &dyn Observer,
) -> Result<()> {
    let bitmaps = source.bitmaps()?;
    // The last one first, as qemu-img warns.
    for bitmap in bitmaps.iter().rev().filter(|bitmap| bitmap.in_use && skip_broken) {
        observer.warning(&format!("Skipping inconsistent bitmap '{}'", bitmap.name));
    }
    for bitmap in bitmaps.iter().filter(|bitmap| !(bitmap.in_use && skip_broken)) {
        check_usable(bitmap)?;
        copy_bitmap(source, target, bitmap)?;
    }
    Ok(())
}

/// Refuses a source whose bitmaps [`copy_bitmaps`] could not copy; to be called before the
/// long work of copying data starts.
pub(crate) fn check_bitmaps(source: &dyn Image) -> Result<()> {
    // The last one first, as qemu-img complains.
    source.bitmaps()?.iter().rev().try_for_each(check_usable)
}

/// Marks dirty in `target`'s bitmap `target_name` what is dirty in `source`'s bitmap
/// `source_name`. The images may be one and the same.
pub fn merge_bitmaps(
    source: &dyn Image,
    source_name: &str,
    target: &dyn Image,
    target_name: &str,
) -> Result<()> {
    let dirty = source.dirty_ranges(source_name)?;
    target.merge_bitmap(target_name, &dirty)
}

fn check_usable(bitmap: &Bitmap) -> Result<()> {
    if bitmap.in_use {
        return Err(Error::new(
            Kind::Corrupt,
            format!("Cannot copy inconsistent bitmap '{}'", bitmap.name),
        )
        .with_hint("Try --skip-broken-bitmaps, or use 'qemu-img bitmap --remove' to delete it"));
    }
    Ok(())
}

fn copy_bitmap(source: &dyn Image, target: &dyn Image, bitmap: &Bitmap) -> Result<()> {
    let name = &bitmap.name;
    target
        .add_bitmap(name, Some(bitmap.granularity), bitmap.enabled)
        .with_context(|| format!("Failed to create bitmap {name}"))?;
    merge_bitmaps(source, name, target, name)
        .with_context(|| format!("Failed to populate bitmap {name}"))
}
