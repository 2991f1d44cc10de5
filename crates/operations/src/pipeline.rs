//! Several threads work, one at a time places, in order.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use disksmith_disk::Result;

use crate::pool::{Order, Shape};

/// The parts of a pipeline. `B` is a piece's buffer; how many there are bounds the memory and
/// how far workers run ahead of placing.
pub(crate) struct Pipeline<'a, S, B, P, R> {
    pub(crate) shape: Shape,
    /// Makes what a worker keeps between pieces.
    pub(crate) state: &'a (dyn Fn() -> S + Sync),
    /// The next piece; `None` at the end. Called by one thread at a time.
    pub(crate) next: &'a mut (dyn FnMut() -> Result<Option<P>> + Send),
    /// Reads and transforms a piece; several at once.
    pub(crate) work: &'a (dyn Fn(&mut S, P, &mut B) -> Result<R> + Sync),
    /// Takes the result, when the shape's order says. In [`Order::InTurn`] it may call its last
    /// argument to let the next piece be placed beside what it still has to do.
    pub(crate) place: Place<'a, R, B>,
}

type Place<'a, R, B> = &'a (dyn Fn(R, &mut B, &mut dyn FnMut()) -> Result<()> + Sync);

/// Runs until all pieces are placed or one failed. Of several failures the one of the first
/// piece is told, and nothing behind it is placed (unless in [`Order::Any`], or let in early).
pub(crate) fn run<S, B: Default + Send, P: Send, R: Send>(
    pipeline: Pipeline<'_, S, B, P, R>,
) -> Result<()> {
    let Pipeline { shape, state, next, work, place } = pipeline;
    let source = Mutex::new(Source { next, index: 0, ended: false });
    let shared = Shared {
        line: Mutex::new(Line {
            buffers: (0..shape.buffers).map(|_| B::default()).collect(),
            finished: BTreeMap::new(),
            turn: 0,
            placing: false,
            sleepers: 0,
            stopped: false,
            failure: None,
        }),
        enough: shape.buffers.div_ceil(2),
        buffers_freed: Condvar::new(),
        turn_changed: Condvar::new(),
    };
    std::thread::scope(|scope| {
        for _ in 0..shape.workers.max(1) {
            scope.spawn(|| {
                let _guard = StopOnPanic(&shared);
                let mut state = state();
                while let Some(mut buffer) = shared.take_buffer() {
                    let Some((index, piece)) = take_piece(&source) else {
                        shared.give_back(buffer);
                        break;
                    };
                    let result = piece.and_then(|piece| work(&mut state, piece, &mut buffer));
                    match shape.order {
                        Order::Handed => shared.finish(index, result, buffer, place),
                        Order::InTurn => shared.place_in_turn(index, result, buffer, place),
                        Order::Alone => {
                            let place = &|result, buffer: &mut B, _: &mut dyn FnMut()| {
                                place(result, buffer, &mut || {})
                            };
                            shared.place_in_turn(index, result, buffer, place);
                        }
                        Order::Any => {
                            let placed =
                                result.and_then(|result| place(result, &mut buffer, &mut || {}));
                            shared.done(index, placed, buffer);
                        }
                    }
                }
            });
        }
    });
    match lock(&shared.line).failure.take() {
        Some((_, error)) => Err(error),
        None => Ok(()),
    }
}

struct Source<'a, P> {
    next: &'a mut (dyn FnMut() -> Result<Option<P>> + Send),
    index: u64,
    ended: bool,
}

/// The next piece with its number. A failure to plan takes its place in the order.
fn take_piece<P>(source: &Mutex<Source<'_, P>>) -> Option<(u64, Result<P>)> {
    let mut source = lock(source);
    if source.ended {
        return None;
    }
    let piece = (source.next)().transpose();
    source.ended = !matches!(piece, Some(Ok(_)));
    let index = source.index;
    source.index += 1;
    piece.map(|piece| (index, piece))
}

struct Shared<B, R> {
    line: Mutex<Line<B, R>>,
    /// Sleeping workers are woken when so many buffers are free: waking costs more than the
    /// work on one piece may take.
    enough: usize,
    buffers_freed: Condvar,
    turn_changed: Condvar,
}

/// Finished pieces waiting for their turn, and free buffers.
struct Line<B, R> {
    buffers: Vec<B>,
    finished: BTreeMap<u64, (Result<R>, B)>,
    turn: u64,
    placing: bool,
    /// Workers that wait for a buffer and were not woken yet.
    sleepers: usize,
    stopped: bool,
    /// With the number of its piece.
    failure: Option<(u64, disksmith_disk::Error)>,
}

impl<B, R> Line<B, R> {
    /// Stops all. The failure of the earliest piece is the one that is told: pieces are taken in
    /// order, so those before a failed one are at work already and come to their end.
    fn fail(&mut self, index: u64, error: disksmith_disk::Error) {
        self.stopped = true;
        if self.failure.as_ref().is_none_or(|(first, _)| index < *first) {
            self.failure = Some((index, error));
        }
    }
}

impl<B, R> Shared<B, R> {
    /// A buffer is taken before a piece, so that the piece whose turn is next always has one.
    fn take_buffer(&self) -> Option<B> {
        let mut line = lock(&self.line);
        loop {
            if line.stopped {
                return None;
            }
            if let Some(buffer) = line.buffers.pop() {
                return Some(buffer);
            }
            line.sleepers += 1;
            line = self.buffers_freed.wait(line).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn give_back(&self, buffer: B) {
        self.put(&mut lock(&self.line), buffer);
    }

    /// In the end all buffers come back, so that nobody sleeps for ever.
    fn put(&self, line: &mut Line<B, R>, buffer: B) {
        line.buffers.push(buffer);
        let awake = line.sleepers == 0;
        if !awake && (line.buffers.len() >= self.enough || line.stopped) {
            line.sleepers = 0;
            self.buffers_freed.notify_all();
        }
    }

    fn done(&self, index: u64, placed: Result<()>, buffer: B) {
        let mut line = lock(&self.line);
        if let Err(error) = placed {
            line.fail(index, error);
        }
        self.put(&mut line, buffer);
    }

    /// Waits until all pieces before this one are placed or have passed the turn on, then places
    /// it.
    fn place_in_turn(&self, index: u64, result: Result<R>, mut buffer: B, place: Place<'_, R, B>) {
        let mut line = lock(&self.line);
        while line.turn != index && !line.stopped {
            line = self.turn_changed.wait(line).unwrap_or_else(PoisonError::into_inner);
        }
        if line.stopped {
            self.put(&mut line, buffer);
            return;
        }
        drop(line);
        let mut passed = false;
        let mut pass = || {
            if !std::mem::replace(&mut passed, true) {
                lock(&self.line).turn = index + 1;
                self.turn_changed.notify_all();
            }
        };
        let placed = result.and_then(|result| place(result, &mut buffer, &mut pass));
        self.done(index, placed, buffer);
        pass();
    }

    /// Places the piece whose turn it is, alone.
    fn place_next(
        &self,
        result: Result<R>,
        mut buffer: B,
        place: Place<'_, R, B>,
    ) -> MutexGuard<'_, Line<B, R>> {
        let placed = result.and_then(|result| place(result, &mut buffer, &mut || {}));
        let mut line = lock(&self.line);
        if let Err(error) = placed {
            let turn = line.turn;
            line.fail(turn, error);
        }
        line.turn += 1;
        self.put(&mut line, buffer);
        line
    }

    /// Hands in a result. If nobody is placing, this thread places all whose turn it is.
    fn finish(&self, index: u64, result: Result<R>, buffer: B, place: Place<'_, R, B>) {
        let mut line = lock(&self.line);
        line.finished.insert(index, (result, buffer));
        if line.placing {
            return;
        }
        line.placing = true;
        while !line.stopped {
            let turn = line.turn;
            let Some((result, buffer)) = line.finished.remove(&turn) else { break };
            drop(line);
            line = self.place_next(result, buffer, place);
        }
        line.placing = false;
    }
}

/// A worker that dies of a bug must not leave the others waiting for its buffer.
struct StopOnPanic<'a, B, R>(&'a Shared<B, R>);

impl<B, R> Drop for StopOnPanic<'_, B, R> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            lock(&self.0.line).stopped = true;
            self.0.buffers_freed.notify_all();
            self.0.turn_changed.notify_all();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
