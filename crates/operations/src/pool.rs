//! How many threads and how large buffers an operation takes, and who writes when.

/// Memory for the buffers of one pipeline, all together.
const MEMORY: u64 = 32 << 20;
/// Pieces are no larger: they shall still be in the processor's cache when they are written.
const LARGEST_STEP: u64 = 512 << 10;
/// Bytes per piece of a plain copy.
const COPY_STEP: u64 = 1 << 20;
/// Nor smaller: less costs system calls.
const SMALLEST_STEP: u64 = 128 << 10;
/// Most worker threads.
pub(crate) const MAX_WORKERS: usize = 64;

/// Who places when.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Order {
    /// One at a time, in the order of the pieces; a worker whose piece is not next leaves it to
    /// the one that is placing and goes on. For work that takes longer than placing.
    Handed,
    /// In the order of the pieces; each worker waits for its turn and places its own piece, while
    /// that is still in its processor's cache. It passes the turn on once it is settled where the
    /// piece goes. For plain copies.
    InTurn,
    /// The same, but the turn is kept to the end: when a piece is placed, so are all before it.
    Alone,
    /// As they come, several at once.
    Any,
}

/// The shape of a pipeline.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Shape {
    /// Threads, at least one.
    pub(crate) workers: usize,
    /// At least as many as workers.
    pub(crate) buffers: usize,
    /// Bytes per piece.
    pub(crate) step: u64,
    pub(crate) order: Order,
}

impl Shape {
    /// For work that takes longer than placing, in pieces of whole `unit`s (a power of two) and so many threads. Buffers are twice as
    /// many as threads and some more, so that the threads need not wait for each other at every
    /// piece.
    pub(crate) fn new(workers: usize, unit: u64) -> Self {
        let most = usize::try_from(MEMORY / unit.max(SMALLEST_STEP)).unwrap_or(MAX_WORKERS);
        let workers = workers.clamp(1, MAX_WORKERS.min(most.saturating_sub(2).max(1)));
        let buffers = (2 * workers + 12).min(most.max(workers + 2));
        let share = MEMORY / buffers as u64;
        let step = (1 << share.max(1).ilog2()).clamp(SMALLEST_STEP, LARGEST_STEP).max(unit);
        Self { workers, buffers, step, order: Order::Handed }
    }

    /// For work that mostly waits for the kernel: a thread for each core, so that one reads while
    /// another writes, and a buffer for each.
    pub(crate) fn copying(workers: Option<usize>, unit: u64) -> Self {
        let workers = workers.unwrap_or_else(|| cores().clamp(2, 8));
        let step = COPY_STEP.max(unit);
        let most = usize::try_from(MEMORY / step).unwrap_or(MAX_WORKERS);
        let workers = workers.clamp(1, most.clamp(2, MAX_WORKERS));
        Self { workers, buffers: workers, step, order: Order::InTurn }
    }
}

/// How many threads to work with. More than cores: where other programs keep the cores busy,
/// one thread that has to wait for its turn shall not hold up all.
pub(crate) fn threads() -> usize {
    (2 * cores()).max(4)
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from)
}
