//! Storage whose flushes wait.

use std::sync::Arc;

use disksmith_disk::{Disk, Extent, Geometry, Result, ZeroMode};

/// Passes everything on but flushes: while an image is being made, nobody relies on the order in
/// which its parts become durable. Whoever made it flushes once, at the end.
#[derive(Debug)]
pub(super) struct Unflushed(pub(super) Arc<dyn Disk>);

impl Disk for Unflushed {
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
        Ok(())
    }

    fn map(&self, offset: u64, length: u64) -> Result<Extent> {
        self.0.map(offset, length)
    }

    fn set_size(&self, size: u64) -> Result<()> {
        self.0.set_size(size)
    }

    fn geometry(&self) -> Geometry {
        self.0.geometry()
    }
}
