//! What a failed flush means.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::{Error, Kind, Result};

/// Whether a flush of a disk has failed. The system cannot be trusted then: what it lost may later
/// read as written. All later flushes and changes have to fail, until the disk is opened anew.
#[derive(Debug, Default)]
pub struct FailedFlush(AtomicBool);

impl FailedFlush {
    /// Whether one has failed.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    /// Before a change.
    ///
    /// # Errors
    /// One has failed.
    pub fn check(&self) -> Result<()> {
        match self.is_set() {
            false => Ok(()),
            true => Err(Error::new(
                Kind::Io,
                "an earlier flush failed; what was written since the one before it may be lost",
            )
            .with_hint("close the image, check it, and open it again")),
        }
    }

    /// Remembers if `flushed` is a failure.
    pub fn note(&self, flushed: Result<()>) -> Result<()> {
        self.0.fetch_or(flushed.is_err(), Ordering::AcqRel);
        flushed
    }
}
