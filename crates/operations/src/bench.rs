//! Many equal requests, and how long they take.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use disksmith_disk::{Disk, Error, Kind, Result};

use crate::Observer;
use crate::observer::{Meter, check_cancelled};

/// Threads at most, whatever depth is asked for.
const MAX_THREADS: u64 = 64;
/// Memory at most for all requests in flight.
const MAX_MEMORY: u64 = 1 << 30;

/// What the requests do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum BenchDirection {
    /// Read.
    Read,
    /// Write this byte.
    Write(u8),
}

/// What to measure.
#[derive(Clone, Copy, Debug)]
pub struct BenchRequest {
    /// How many requests.
    pub count: u64,
    /// How many at once.
    pub depth: u64,
    /// Bytes per request.
    pub buffer_size: u64,
    /// From one request to the next, in bytes.
    pub step: u64,
    /// Of the first request.
    pub offset: u64,
    /// Read or write.
    pub direction: BenchDirection,
    /// Flush after so many requests; 0: not at all.
    pub flush_interval: u64,
    /// Wait for all requests before a flush (otherwise they go on meanwhile).
    pub drain_on_flush: bool,
}

impl Default for BenchRequest {
    fn default() -> Self {
        Self {
            count: 75000,
            depth: 64,
            buffer_size: 4096,
            step: 4096,
            offset: 0,
            direction: BenchDirection::Read,
            flush_interval: 0,
            drain_on_flush: true,
        }
    }
}

/// Sends the requests and answers how long all took. Requests that would reach past the end
/// of the disk wrap around.
pub fn bench(disk: &dyn Disk, request: &BenchRequest, observer: &dyn Observer) -> Result<Duration> {
    let size = disk.size();
    let invalid = |text: &str| Err(Error::new(Kind::InvalidInput, text));
    if request.buffer_size == 0 || request.buffer_size > size || request.depth == 0 {
        return invalid("the buffer is empty or larger than the image");
    }
    let threads = request.depth.min(MAX_THREADS).min(request.count.max(1));
    if threads.saturating_mul(request.buffer_size) > MAX_MEMORY {
        return invalid("depth times buffer size is too large");
    }
    let run = Run {
        disk,
        request,
        observer,
        meter: Meter::start(observer, request.count),
        next: AtomicU64::new(0),
        stopped: AtomicBool::new(false),
        failure: Mutex::new(None),
        barrier: std::sync::RwLock::new(()),
    };
    let started = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| run.worker());
        }
    });
    let elapsed = started.elapsed();
    if let Some(error) = run.failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(error);
    }
    run.meter.finish();
    Ok(elapsed)
}

struct Run<'a> {
    disk: &'a dyn Disk,
    request: &'a BenchRequest,
    observer: &'a dyn Observer,
    meter: Meter<'a>,
    next: AtomicU64,
    stopped: AtomicBool,
    failure: Mutex<Option<Error>>,
    /// Held for reading by requests, for writing by a flush that waits for them.
    barrier: std::sync::RwLock<()>,
}

impl Run<'_> {
    fn worker(&self) {
        let fill = match self.request.direction {
            BenchDirection::Read => 0,
            BenchDirection::Write(pattern) => pattern,
        };
        let mut buffer = vec![fill; self.request.buffer_size as usize];
        while !self.stopped.load(Ordering::Relaxed) {
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            if index >= self.request.count {
                break;
            }
            if let Err(error) = self.one(index, &mut buffer) {
                self.stopped.store(true, Ordering::Relaxed);
                let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
                failure.get_or_insert(error);
            }
        }
    }

    fn one(&self, index: u64, buffer: &mut [u8]) -> Result<()> {
        let offset = self.offset(index);
        {
            let _shared = self.barrier.read().unwrap_or_else(PoisonError::into_inner);
            match self.request.direction {
                BenchDirection::Read => self.disk.read_at(buffer, offset)?,
                BenchDirection::Write(_) => self.disk.write_at(buffer, offset)?,
            }
        }
        let interval = self.request.flush_interval;
        if interval > 0 && (index + 1).is_multiple_of(interval) {
            let _alone = self
                .request
                .drain_on_flush
                .then(|| self.barrier.write().unwrap_or_else(PoisonError::into_inner));
            self.disk.flush()?;
        }
        if index.is_multiple_of(64) {
            check_cancelled(self.observer)?;
        }
        self.meter.advance(1)
    }

    /// Where the request of that number goes.
    fn offset(&self, index: u64) -> u64 {
        let room = self.disk.size() - self.request.buffer_size;
        let far =
            u128::from(self.request.offset) + u128::from(index) * u128::from(self.request.step);
        if room == 0 { 0 } else { (far % u128::from(room)) as u64 }
    }
}
