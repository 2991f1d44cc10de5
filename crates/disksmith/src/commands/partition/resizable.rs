//! An image as a disk whose size can be changed.

use disksmith_disk::{Disk, Result, pass_on};
use disksmith_formats::{Image, Preallocation, ResizeRequest};

/// An image whose size can be changed through the disk interface.
#[derive(Debug)]
pub(super) struct Resizable<'i>(pub(super) &'i dyn Image);

impl Disk for Resizable<'_> {
    pass_on!(
        |own| own.0;
        size read_at write_at write_zeroes discard flush map read_only geometry announce
    );

    fn set_size(&self, size: u64) -> Result<()> {
        self.0.resize(ResizeRequest { size, preallocation: Preallocation::Off })
    }
}
