//! Reading past the page cache, so that one bad sector does not take its neighbours along.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::Path;

use disksmith_disk::{Disk, Error, Extent, Geometry, Kind, Result, ZeroMode};

use crate::device;

/// Memory that devices can write into begins at a multiple of this.
const MEMORY: usize = 4096;

/// A block device, for reading whole sectors as the device has them.
#[derive(Debug)]
pub struct DirectDisk {
    file: File,
    size: u64,
    geometry: Geometry,
}

impl DirectDisk {
    /// Opens a block device. Anything else is refused.
    pub fn open(path: &Path) -> Result<Self> {
        let flags = libc::O_CLOEXEC | libc::O_DIRECT;
        let file = File::options().read(true).custom_flags(flags).open(path)?;
        if !file.metadata()?.file_type().is_block_device() {
            return Err(Error::new(Kind::InvalidInput, "it is no block device"));
        }
        let (size, geometry) = (device::size(file.as_fd())?, device::geometry(file.as_fd()));
        Ok(Self { file, size, geometry })
    }
}

impl Disk for DirectDisk {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        let sector = u64::from(self.geometry.sector);
        let end = offset.saturating_add(buffer.len() as u64);
        if end > self.size {
            return Err(Error::new(Kind::InvalidInput, "a request behind the end of the device"));
        }
        let (start, length) = (offset / sector * sector, end.next_multiple_of(sector));
        let length = usize::try_from(length - start)
            .map_err(|_| Error::new(Kind::LimitExceeded, "a request that is too large"))?;
        let mut memory = vec![0u8; length + MEMORY];
        let shift = memory.as_ptr().align_offset(MEMORY).min(MEMORY);
        let aligned = &mut memory[shift..shift + length];
        self.file.read_exact_at(aligned, start)?;
        let from = (offset - start) as usize;
        buffer.copy_from_slice(&aligned[from..from + buffer.len()]);
        Ok(())
    }

    fn write_at(&self, _data: &[u8], _offset: u64) -> Result<()> {
        Err(read_only())
    }

    fn write_zeroes(&self, _offset: u64, _length: u64, _mode: ZeroMode) -> Result<()> {
        Err(read_only())
    }

    fn discard(&self, _offset: u64, _length: u64) -> Result<()> {
        Err(read_only())
    }

    fn flush(&self) -> Result<()> {
        Ok(())
    }

    fn map(&self, offset: u64, length: u64) -> Result<Extent> {
        Ok(Extent::data(length.min(self.size.saturating_sub(offset)).max(1), offset))
    }

    fn read_only(&self) -> bool {
        true
    }

    fn geometry(&self) -> Geometry {
        self.geometry
    }
}

fn read_only() -> Error {
    Error::new(Kind::Refused, "the device is open for reading only")
}
