//! Storage that remembers that it failed.

use std::sync::{Arc, Mutex, PoisonError};

use disksmith_disk::{Disk, Error, Result, pass_on};

/// For checks: they take what cannot be read for damaged and go on, so as to find all there is. If
/// it was the storage that failed, nothing is known of what lies there: it must be neither called
/// sound nor mended.
#[derive(Debug)]
pub(crate) struct Watched {
    disk: Arc<dyn Disk>,
    /// The first failure: its number, and where it was.
    failed: Mutex<Option<(i32, u64)>>,
}

impl Watched {
    pub(crate) fn new(disk: Arc<dyn Disk>) -> Arc<Self> {
        Arc::new(Self { disk, failed: Mutex::default() })
    }

    /// The first failure of a read; those of writes are told to whoever writes.
    pub(crate) fn verdict(&self) -> Result<()> {
        match *self.failed.lock().unwrap_or_else(PoisonError::into_inner) {
            None => Ok(()),
            Some((errno, offset)) => {
                Err(Error::from_errno(errno)
                    .context(format!("The storage failed at byte {offset}")))
            }
        }
    }
}

impl Disk for Watched {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        self.disk.read_at(buffer, offset).inspect_err(|error| {
            // Without a number it is a place that the disk does not have: damage points there.
            if let Some(errno) = error.errno() {
                let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
                failed.get_or_insert((errno, offset));
            }
        })
    }

    pass_on!(|own| own.disk; size write_at write_zeroes discard flush map set_size read_only geometry announce host_window);
}
