//! Storage under which threads meet at every request.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use disksmith_disk::{Disk, Extent, MemoryDisk, Result, ZeroMode, pass_on};

/// A disk in memory that lets others go first, now and then for a while.
#[derive(Debug)]
pub(crate) struct Jitter {
    pub(crate) disk: MemoryDisk,
    requests: AtomicU64,
}

impl Jitter {
    pub(crate) fn new(seed: u64) -> Self {
        Self { disk: MemoryDisk::new(0), requests: AtomicU64::new(seed << 32) }
    }

    fn pause(&self) {
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        match number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 57 {
            0 => std::thread::sleep(Duration::from_micros(50)),
            1..40 => std::thread::yield_now(),
            _ => {}
        }
    }
}

impl Disk for Jitter {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        self.pause();
        self.disk.read_at(buffer, offset)
    }

    fn write_at(&self, data: &[u8], offset: u64) -> Result<()> {
        self.pause();
        self.disk.write_at(data, offset)
    }

    fn write_zeroes(&self, offset: u64, length: u64, mode: ZeroMode) -> Result<()> {
        self.pause();
        self.disk.write_zeroes(offset, length, mode)
    }

    fn discard(&self, offset: u64, length: u64) -> Result<()> {
        self.pause();
        self.disk.discard(offset, length)
    }

    fn map(&self, offset: u64, length: u64) -> Result<Extent> {
        self.disk.map(offset, length)
    }

    pass_on!(|own| own.disk; size flush set_size);
}
