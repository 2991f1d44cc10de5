//! Storage under which threads meet.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex};
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

/// How long a read of [`Slow`] takes: others get as far as they can meanwhile.
const PAUSE: Duration = Duration::from_millis(100);

/// A disk in memory whose reads take a while, and tell that they began.
#[derive(Debug)]
pub(crate) struct Slow {
    disk: MemoryDisk,
    begun: (Mutex<bool>, Condvar),
}

impl Slow {
    pub(crate) fn new(bytes: &[u8]) -> Self {
        Self { disk: MemoryDisk::from_bytes(bytes), begun: Default::default() }
    }

    /// Waits until somebody reads.
    pub(crate) fn being_read(&self) {
        let mut begun = self.begun.0.lock().unwrap();
        while !*begun {
            begun = self.begun.1.wait(begun).unwrap();
        }
    }
}

impl Disk for Slow {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        *self.begun.0.lock().unwrap() = true;
        self.begun.1.notify_all();
        std::thread::sleep(PAUSE);
        self.disk.read_at(buffer, offset)
    }

    pass_on!(|own| own.disk; size write_at write_zeroes discard map flush);
}
