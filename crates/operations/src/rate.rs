//! Keeping to a rate.

use std::time::{Duration, Instant};

/// Slows writing down to so many bytes per second.
#[derive(Debug)]
pub(crate) struct RateLimit {
    bytes_per_second: u64,
    started: Instant,
    bytes: u64,
}

impl RateLimit {
    /// `None` or 0: no limit.
    pub(crate) fn new(bytes_per_second: Option<u64>) -> Option<Self> {
        let bytes_per_second = bytes_per_second.filter(|rate| *rate > 0)?;
        Some(Self { bytes_per_second, started: Instant::now(), bytes: 0 })
    }

    /// Waits until `bytes` more are due.
    pub(crate) fn spend(&mut self, bytes: u64) {
        let due = Duration::from_secs_f64(self.bytes as f64 / self.bytes_per_second as f64);
        self.bytes = self.bytes.saturating_add(bytes);
        if let Some(wait) = due.checked_sub(self.started.elapsed()) {
            std::thread::sleep(wait);
        }
    }
}
