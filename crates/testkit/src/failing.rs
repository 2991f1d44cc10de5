//! Storage that fails on command.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use disksmith_disk::{Disk, Error, Extent, Result, ZeroMode};

const SECTOR: u64 = 512;

/// How an operation fails.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fault {
    /// With this error number, nothing done.
    Errno(i32),
    /// A write stores the sectors of its first half, then fails with this error number.
    Half(i32),
    /// Of flushes alone the n-th fails; as the interface wants it, so does every change after it.
    Flush(i32),
}

/// Decides which operation fails: the n-th of all disks that share it.
#[derive(Debug)]
pub struct Injector {
    countdown: AtomicI64,
    fault: Fault,
    /// Fail every operation from then on, too.
    forever: bool,
    met: AtomicU64,
    asked: AtomicU64,
}

impl Injector {
    /// The `n`-th operation (from 1) fails; with `forever`, all later ones too.
    pub fn new(n: u64, fault: Fault, forever: bool) -> Arc<Self> {
        let countdown = AtomicI64::new(i64::try_from(n).unwrap_or(i64::MAX));
        Arc::new(Self {
            countdown,
            fault,
            forever,
            met: AtomicU64::new(0),
            asked: AtomicU64::new(0),
        })
    }

    /// How often it struck.
    pub fn met(&self) -> u64 {
        self.met.load(Ordering::Relaxed)
    }

    /// How many operations it has seen.
    pub fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }

    fn strike(&self) -> Option<Fault> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let left = self.countdown.fetch_sub(1, Ordering::Relaxed);
        if left == 1 || (left < 1 && self.forever) {
            self.met.fetch_add(1, Ordering::Relaxed);
            return Some(self.fault);
        }
        None
    }
}

/// A disk whose operations fail as the injector says.
#[derive(Debug)]
pub struct FailingDisk<D> {
    disk: D,
    injector: Arc<Injector>,
}

impl<D: Disk> FailingDisk<D> {
    /// Wraps a disk.
    pub fn new(disk: D, injector: Arc<Injector>) -> Self {
        Self { disk, injector }
    }

    /// The disk inside.
    pub fn inner(&self) -> &D {
        &self.disk
    }

    fn read(&self) -> Result<()> {
        match self.injector.fault {
            Fault::Flush(_) => Ok(()),
            _ => failure(self.injector.strike()),
        }
    }

    fn change(&self) -> Option<Fault> {
        match self.injector.fault {
            fault @ Fault::Flush(_) => (self.injector.met() > 0).then_some(fault),
            _ => self.injector.strike(),
        }
    }
}

fn failure(fault: Option<Fault>) -> Result<()> {
    match fault {
        None => Ok(()),
        Some(Fault::Errno(errno) | Fault::Half(errno) | Fault::Flush(errno)) => {
            Err(Error::from_errno(errno))
        }
    }
}

impl<D: Disk> Disk for FailingDisk<D> {
    fn size(&self) -> u64 {
        self.disk.size()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        self.read()?;
        self.disk.read_at(buffer, offset)
    }

    fn write_at(&self, data: &[u8], offset: u64) -> Result<()> {
        let fault = self.change();
        match fault {
            None => self.disk.write_at(data, offset)?,
            Some(Fault::Half(_)) => {
                // A sector is written whole or not at all.
                let half = offset + data.len() as u64 / 2;
                let length = (half - half % SECTOR).saturating_sub(offset) as usize;
                self.disk.write_at(&data[..length], offset)?;
            }
            Some(_) => {}
        }
        failure(fault)
    }

    fn write_zeroes(&self, offset: u64, length: u64, mode: ZeroMode) -> Result<()> {
        failure(self.change())?;
        self.disk.write_zeroes(offset, length, mode)
    }

    fn discard(&self, offset: u64, length: u64) -> Result<()> {
        failure(self.change())?;
        self.disk.discard(offset, length)
    }

    fn flush(&self) -> Result<()> {
        failure(self.change())?;
        if let Fault::Flush(_) = self.injector.fault {
            failure(self.injector.strike())?;
        }
        self.disk.flush()
    }

    fn map(&self, offset: u64, length: u64) -> Result<Extent> {
        self.read()?;
        self.disk.map(offset, length)
    }

    fn set_size(&self, size: u64) -> Result<()> {
        failure(self.change())?;
        self.disk.set_size(size)
    }

    fn read_only(&self) -> bool {
        self.disk.read_only()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use disksmith_disk::MemoryDisk;

    #[test]
    fn the_nth_operation_fails() {
        let injector = Injector::new(2, Fault::Half(5), false);
        let disk = FailingDisk::new(MemoryDisk::new(8), injector.clone());
        disk.write_at(&[1; 4], 0).unwrap();
        assert_eq!(disk.write_at(&[2; 4], 4).unwrap_err().errno(), Some(5));
        disk.flush().unwrap();
        assert_eq!(disk.inner().to_bytes(), [1, 1, 1, 1, 0, 0, 0, 0]);
        assert_eq!(injector.met(), 1);
    }

    #[test]
    fn after_the_nth_flush_failed_nothing_changes() {
        let disk = FailingDisk::new(MemoryDisk::new(8), Injector::new(2, Fault::Flush(5), false));
        disk.write_at(&[1; 4], 0).unwrap();
        disk.flush().unwrap();
        disk.write_at(&[2; 4], 4).unwrap();
        assert!(disk.flush().is_err() && disk.flush().is_err());
        assert!(disk.write_at(&[3; 4], 0).is_err() && disk.set_size(1).is_err());
        let mut bytes = [0; 8];
        disk.read_at(&mut bytes, 0).unwrap();
        assert_eq!(bytes, [1, 1, 1, 1, 2, 2, 2, 2]);
    }
}
