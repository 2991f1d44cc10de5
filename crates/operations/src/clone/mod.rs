//! Copying a whole disk: only what is used, past what cannot be read, with proof, and from where
//! an earlier run stopped.
//!
//! The copying itself is [`convert`]'s. What is special lies in the source that it is given
//! ([`Reader`]): it calls free space zero, retries and notes what cannot be read, and keeps the
//! hashes of what it hands out.

mod mapfile;
mod reader;
mod usage;
mod verify;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use disksmith_disk::{Disk, Error, Kind, Result};
use disksmith_open::{Node, disk_node};

use crate::{ConvertRequest, Observer, Offload, WriteOrder, convert};

pub use mapfile::{MapFile, Status};
pub use reader::Reader;
pub use usage::{PartUse, free_space_of};
pub use verify::{holds_beginning, verify};

/// The copy is made durable, and the progress recorded, this often: as much work is lost at the
/// most. Everybody waits meanwhile.
const CHECKPOINT_TIME: Duration = Duration::from_secs(10);
/// A copy goes on from a multiple of this.
const GRAIN: u64 = 2 << 20;

/// What to copy, and how.
pub struct CloneRequest<'a> {
    /// The source.
    pub reader: Arc<Reader>,
    /// The image behind it.
    pub source: Arc<Node>,
    /// The target: made, opened for writing.
    pub target: &'a Node,
    /// The target reads as zero now, behind `start`.
    pub target_is_zero: bool,
    /// Where to go on from; see [`MapFile::resumable`].
    pub start: u64,
    /// Where progress and bad areas are recorded.
    pub record: Option<Record>,
}

/// A map file that is kept while copying.
#[derive(Clone, Debug)]
pub struct Record {
    /// Where it is.
    pub path: PathBuf,
    /// What it says of the copy as a whole, in a line of its own.
    pub identity: String,
    /// The user wants it: the copy fails when it cannot be written, and in the end it tells of all.
    /// Otherwise it only serves to go on after an interruption.
    pub wanted: bool,
}

/// Copies. When it returns, everything is written and durable.
pub fn clone(request: &CloneRequest<'_>, observer: &dyn Observer) -> Result<()> {
    let disk: Arc<dyn Disk> = request.reader.clone();
    let source = disk_node(disk, request.source.clone(), &request.source.shown);
    let keeper = Keeper {
        observer,
        request,
        total: source.image.size(),
        state: Mutex::new(State { done: request.start, at: Instant::now(), failure: None }),
    };
    let sources = [&source];
    let result = convert(
        &ConvertRequest {
            target_is_zero: request.target_is_zero,
            start: request.start,
            offload: Offload::Never,
            writes: WriteOrder::InOrder,
            ..ConvertRequest::new(&sources, request.target)
        },
        &keeper,
    );
    let failure = keeper.lock().failure.take();
    match (result, failure) {
        (_, Some(failure)) => Err(failure),
        (Ok(()), None) if keeper.is_wanted() => keeper.record(keeper.total),
        (Ok(()), None) => Ok(()),
        (Err(error), None) => {
            keeper.stopped(error.kind() == Kind::OutOfSpace);
            Err(error)
        }
    }
}

/// Makes checkpoints on the way.
struct Keeper<'a> {
    observer: &'a dyn Observer,
    request: &'a CloneRequest<'a>,
    total: u64,
    state: Mutex<State>,
}

struct State {
    /// Up to here the copy is durable.
    done: u64,
    at: Instant,
    failure: Option<Error>,
}

impl Keeper<'_> {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_wanted(&self) -> bool {
        self.request.record.as_ref().is_some_and(|record| record.wanted)
    }

    /// Records that everything before `done` is in the target.
    fn record(&self, done: u64) -> Result<()> {
        let Some(record) = &self.request.record else { return Ok(()) };
        self.request.target.image.flush()?;
        let map = MapFile::of_copy(&self.request.reader, done, self.total, &record.identity);
        match map.write(&record.path) {
            Err(error) if record.wanted => Err(error),
            _ => Ok(()),
        }
    }

    /// After an error: what was placed so far is kept, as far as it can be made durable. Where the
    /// host is `full`, the last of it makes room for the record.
    fn stopped(&self, full: bool) {
        let mut state = self.lock();
        let mut reached = state.done.max(self.request.reader.placed()) / GRAIN * GRAIN;
        if full {
            reached = reached.saturating_sub(GRAIN);
            // Advice only; if it makes no room, nothing is recorded.
            let _ = self.request.target.image.discard(reached, self.total - reached);
        }
        if reached > 0 && self.record(reached).is_ok() {
            state.done = reached;
        }
    }
}

impl Observer for Keeper<'_> {
    fn progress(&self, done: u64, total: u64) {
        self.request.reader.note_placed(done);
        let mut state = self.lock();
        let grown = done.saturating_sub(state.done);
        if grown >= GRAIN && state.at.elapsed() >= CHECKPOINT_TIME {
            let done = done / GRAIN * GRAIN;
            match self.record(done) {
                Ok(()) => state.done = done,
                Err(error) => state.failure = Some(error.context("Could not record the progress")),
            }
            state.at = Instant::now();
        }
        drop(state);
        self.observer.progress(done, total);
    }

    fn warning(&self, text: &str) {
        self.observer.warning(text);
    }

    fn cancelled(&self) -> bool {
        self.observer.cancelled() || self.lock().failure.is_some()
    }
}

/// Where the copy that `path` tells of can go on.
pub fn resumable(path: &Path, identity: &str, size: u64) -> Result<Option<MapFile>> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let map = MapFile::parse(&text)?;
    if map.identity.as_deref() != Some(identity) || map.size() != size {
        return Err(Error::new(
            Kind::Refused,
            format!("'{}' is the map file of another copy", path.display()),
        )
        .with_hint("Name another map file, or remove it; --force ignores what it says."));
    }
    Ok(Some(map))
}
