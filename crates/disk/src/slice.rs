//! A window on a disk: a partition, an embedded image.

use crate::disk::check_range;
use crate::{Disk, Error, Extent, Geometry, Kind, Result, ZeroMode};

/// `length` bytes of a disk from `start` on, as a disk of their own.
#[derive(Debug)]
pub struct Slice<D> {
    disk: D,
    start: u64,
    length: u64,
}

impl<D: Disk> Slice<D> {
    /// The window must lie within the disk.
    pub fn new(disk: D, start: u64, length: u64) -> Result<Self> {
        check_range(start, length, disk.size())?;
        Ok(Self { disk, start, length })
    }

    /// Where the window begins in the disk below, in bytes.
    pub fn start(&self) -> u64 {
        self.start
    }

    fn place(&self, offset: u64, length: u64) -> Result<u64> {
        check_range(offset, length, self.length)?;
        Ok(self.start + offset)
    }
}

impl<D: Disk> Disk for Slice<D> {
    fn size(&self) -> u64 {
        self.length
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        self.disk.read_at(buffer, self.place(offset, buffer.len() as u64)?)
    }

    fn write_at(&self, data: &[u8], offset: u64) -> Result<()> {
        self.disk.write_at(data, self.place(offset, data.len() as u64)?)
    }

    fn write_zeroes(&self, offset: u64, length: u64, mode: ZeroMode) -> Result<()> {
        self.disk.write_zeroes(self.place(offset, length)?, length, mode)
    }

    fn discard(&self, offset: u64, length: u64) -> Result<()> {
        self.disk.discard(self.place(offset, length)?, length)
    }

    fn flush(&self) -> Result<()> {
        self.disk.flush()
    }

    fn map(&self, offset: u64, length: u64) -> Result<Extent> {
        let length = length.min(self.length.saturating_sub(offset));
        if length == 0 {
            return Err(Error::new(Kind::InvalidInput, "nothing to map at the end of the disk"));
        }
        // The bytes lie plainly in the layer below: the disk that this is a window on.
        let place = self.start + offset;
        let below = self.disk.map(place, length)?;
        Ok(match below.state {
            crate::State::Data => Extent::data(below.length, place),
            _ => Extent { place: Some(place), ..below },
        })
    }

    fn read_only(&self) -> bool {
        self.disk.read_only()
    }

    fn geometry(&self) -> Geometry {
        self.disk.geometry()
    }

    fn host_window(&self) -> Option<(std::os::fd::BorrowedFd<'_>, u64)> {
        let (file, start) = self.disk.host_window()?;
        Some((file, start + self.start))
    }
}
