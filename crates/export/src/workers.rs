//! Threads for requests that wait for the disk, so that others are answered meanwhile.
//!
//! One thread takes all requests of a tree: most are answered from memory in less time than it
//! takes to wake another thread, and several would only be woken by turns.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

/// Threads beside the one that takes requests.
const THREADS: usize = 4;
/// Reads that take longer than this for each KiB do not come from memory.
const SLOW_NANOSECONDS: u64 = 1500;

type Job = Box<dyn FnOnce() + Send>;

/// The threads; they are started when they are first needed.
#[derive(Debug, Default)]
pub(crate) struct Workers(OnceLock<Option<Sender<Job>>>);

impl Workers {
    /// Has `job` done by a thread; here, if there can be none.
    pub(crate) fn run(&self, job: impl FnOnce() + Send + 'static) {
        match self.0.get_or_init(start) {
            // The threads end when the sender is gone: as long as it is here they listen.
            Some(queue) => drop(queue.send(Box::new(job))),
            None => job(),
        }
    }
}

fn start() -> Option<Sender<Job>> {
    let (sender, receiver) = channel();
    let receiver = Arc::new(Mutex::new(receiver));
    let started = (0..THREADS).filter(|number| {
        let receiver = receiver.clone();
        let thread = std::thread::Builder::new().name(format!("worker-{number}"));
        thread.spawn(move || work(&receiver)).is_ok()
    });
    (started.count() > 0).then_some(sender)
}

fn work(queue: &Mutex<Receiver<Job>>) {
    loop {
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        match next {
            Ok(job) => job(),
            Err(_) => return,
        }
    }
}

/// How fast reads are: an average of the last ones, in nanoseconds for a KiB.
#[derive(Debug, Default)]
pub(crate) struct Pace(AtomicU64);

impl Pace {
    /// Whether a read is likely to wait for the disk.
    pub(crate) fn is_slow(&self) -> bool {
        self.0.load(Ordering::Relaxed) > SLOW_NANOSECONDS
    }

    /// A read took so long.
    pub(crate) fn note(&self, bytes: usize, took: Duration) {
        let now = took.as_nanos() as u64 / (bytes as u64 / 1024).max(1);
        // Two threads that do this at once lose one of the two: it is an estimate.
        let before = self.0.load(Ordering::Relaxed);
        self.0.store((before * 7 + now) / 8, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_are_done() {
        let (workers, (done, all)) = (Workers::default(), channel());
        for number in 0..100 {
            let done = done.clone();
            workers.run(move || done.send(number).unwrap());
        }
        drop(done);
        assert_eq!(all.iter().sum::<i32>(), 4950);
    }

    #[test]
    fn pace_follows() {
        let pace = Pace::default();
        for _ in 0..40 {
            pace.note(131_072, Duration::from_micros(40));
        }
        assert!(!pace.is_slow());
        (0..10).for_each(|_| pace.note(4096, Duration::from_millis(5)));
        assert!(pace.is_slow());
        (0..90).for_each(|_| pace.note(131_072, Duration::from_micros(40)));
        assert!(!pace.is_slow());
    }
}
