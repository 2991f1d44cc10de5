//! How an operation talks to its caller while it works.

use std::sync::{Mutex, PoisonError};

use disksmith_disk::{Error, Kind, Result};

/// What an operation tells and asks while it works. Called from several threads, but never
/// from two at once for one operation's progress; implementations return quickly.
pub trait Observer: Sync {
    /// `done` of `total` bytes are dealt with. Called with `done` = 0 first and with `done` =
    /// `total` last, in ascending order.
    fn progress(&self, done: u64, total: u64) {
        let _ = (done, total);
    }

    /// Something went wrong that did not stop the work, in qemu-img's words without a prefix:
    /// `error while reading offset 512: Input/output error`.
    fn warning(&self, text: &str) {
        let _ = text;
    }

    /// Asked between steps: whether to stop. The operation then fails with
    /// [`Kind::Cancelled`].
    fn cancelled(&self) -> bool {
        false
    }
}

/// An observer that does not care.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Observer for Silent {}

/// Counts bytes and passes them on.
pub(crate) struct Meter<'a> {
    observer: &'a dyn Observer,
    done: Mutex<u64>,
    total: u64,
}

impl<'a> Meter<'a> {
    pub(crate) fn start(observer: &'a dyn Observer, total: u64) -> Self {
        observer.progress(0, total);
        Self { observer, done: Mutex::new(0), total }
    }

    /// `bytes` more are done. Refuses to go on when the user wants to stop.
    pub(crate) fn advance(&self, bytes: u64) -> Result<()> {
        {
            let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
            *done = done.saturating_add(bytes);
            if bytes > 0 && *done < self.total {
                self.observer.progress(*done, self.total);
            }
        }
        check_cancelled(self.observer)
    }

    pub(crate) fn finish(&self) {
        self.observer.progress(self.total, self.total);
    }
}

/// Fails when the user wants to stop.
pub(crate) fn check_cancelled(observer: &dyn Observer) -> Result<()> {
    match observer.cancelled() {
        true => Err(Error::new(Kind::Cancelled, "stopped by the user")),
        false => Ok(()),
    }
}
