//! Storage that counts, so that endless loops and amplification show as failures.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use disksmith_disk::{Disk, Extent, MemoryDisk, Result, ZeroMode};

/// Requests that one input may cause.
pub const MAX_STEPS: u64 = 400_000;
/// Bytes that one input may cause to be read and written, together.
pub const MAX_BYTES: u64 = 1 << 30;
/// Memory that one input may use, in bytes (held by the test that runs the targets).
pub const MAX_MEMORY: usize = 64 << 20;
/// A file that grows past this has gone astray. A repair may make it long (and sparse), up to a
/// block that the image claims to have: as qemu-img does.
const MAX_FILE: u64 = 1 << 56;

/// A memory disk with a budget.
#[derive(Debug)]
pub struct Metered {
    disk: MemoryDisk,
    steps: AtomicU64,
    bytes: AtomicU64,
}

impl Metered {
    /// A disk that holds `data`.
    pub fn new(data: &[u8]) -> Arc<Self> {
        Self::over(MemoryDisk::from_bytes(data))
    }

    /// That disk, metered anew.
    pub fn over(disk: MemoryDisk) -> Arc<Self> {
        Arc::new(Self { disk, steps: AtomicU64::new(0), bytes: AtomicU64::new(0) })
    }

    /// The content, for a second look.
    pub fn content(&self) -> MemoryDisk {
        self.disk.clone()
    }

    fn spend(&self, bytes: u64) {
        let steps = self.steps.fetch_add(1, Ordering::Relaxed);
        assert!(steps < MAX_STEPS, "more than {MAX_STEPS} requests");
        let all = self.bytes.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        assert!(all < MAX_BYTES, "more than {MAX_BYTES} bytes moved");
    }

    fn check_end(end: u64) {
        assert!(end < MAX_FILE, "the file would grow to {end} bytes");
    }
}

impl Disk for Metered {
    fn size(&self) -> u64 {
        self.disk.size()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        self.spend(buffer.len() as u64);
        self.disk.read_at(buffer, offset)
    }

    fn write_at(&self, data: &[u8], offset: u64) -> Result<()> {
        self.spend(data.len() as u64);
        Self::check_end(offset.saturating_add(data.len() as u64));
        self.disk.write_at(data, offset)
    }

    fn write_zeroes(&self, offset: u64, length: u64, mode: ZeroMode) -> Result<()> {
        self.spend(0);
        Self::check_end(offset.saturating_add(length));
        self.disk.write_zeroes(offset, length, mode)
    }

    fn discard(&self, offset: u64, length: u64) -> Result<()> {
        self.spend(0);
        Self::check_end(offset.saturating_add(length));
        self.disk.discard(offset, length)
    }

    fn flush(&self) -> Result<()> {
        self.spend(0);
        Ok(())
    }

    fn map(&self, offset: u64, length: u64) -> Result<Extent> {
        self.spend(0);
        self.disk.map(offset, length)
    }

    fn set_size(&self, size: u64) -> Result<()> {
        Self::check_end(size);
        self.disk.set_size(size)
    }
}
