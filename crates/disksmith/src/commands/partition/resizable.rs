//! An image as a disk whose size can be changed.

use disksmith_disk::{Disk, Extent, Geometry, Result, ZeroMode};
use disksmith_formats::{Image, Preallocation, ResizeRequest};

/// An image whose size can be changed through the disk interface.
#[derive(Debug)]
pub(super) struct Resizable<'i>(pub(super) &'i dyn Image);

impl Disk for Resizable<'_> {
    fn size(&self) -> u64 {
        self.0.size()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        self.0.read_at(buffer, offset)
    }

    fn write_at(&self, data: &[u8], offset: u64) -> Result<()> {
        self.0.write_at(data, offset)
    }

    fn write_zeroes(&self, offset: u64, length: u64, mode: ZeroMode) -> Result<()> {
        self.0.write_zeroes(offset, length, mode)
    }

    fn discard(&self, offset: u64, length: u64) -> Result<()> {
        self.0.discard(offset, length)
    }

    fn flush(&self) -> Result<()> {
        self.0.flush()
    }

    fn map(&self, offset: u64, length: u64) -> Result<Extent> {
        self.0.map(offset, length)
    }

    fn set_size(&self, size: u64) -> Result<()> {
        self.0.resize(ResizeRequest { size, preallocation: Preallocation::Off })
    }

    fn read_only(&self) -> bool {
        self.0.read_only()
    }

    fn geometry(&self) -> Geometry {
        self.0.geometry()
    }
}
