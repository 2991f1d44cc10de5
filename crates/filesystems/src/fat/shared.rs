//! An open volume that several threads use, and when its changes are committed.

use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use disksmith_disk::{Error, Kind, Result};

use crate::errors;

/// Changes are committed when they are this old and something happens.
const COMMIT_AGE: Duration = Duration::from_secs(5);
/// Or when there are so many pieces of directories and tables.
const COMMIT_WEIGHT: usize = 4096;

/// What collects changes and writes them together.
pub(crate) trait Committed {
    fn check_writable(&self) -> Result<()>;

    /// Space was freed that can be used after the next commit.
    fn has_pending_space(&self) -> bool;

    /// Roughly how many pieces wait.
    fn weight(&self) -> usize;

    /// Memory may hold half a change: nothing is written any more.
    fn give_up(&mut self);

    fn commit(&mut self) -> Result<()>;
}

/// Refuses changes where none can be made.
pub(crate) fn check_writable(read_only: bool, failed: bool) -> Result<()> {
    match (read_only, failed) {
        (true, _) => Err(errors::read_only()),
        (_, true) => Err(Error::from_errno(5).context("An earlier write failed")),
        _ => Ok(()),
    }
}

/// The volume behind its lock.
#[derive(Debug)]
pub(crate) struct Shared<V> {
    open: RwLock<Open<V>>,
}

#[derive(Debug)]
pub(crate) struct Open<V> {
    pub(crate) volume: V,
    committed: Instant,
    age: Duration,
}

impl<V: Committed> Shared<V> {
    pub(crate) fn new(volume: V) -> Self {
        let open = Open { volume, committed: Instant::now(), age: COMMIT_AGE };
        Self { open: RwLock::new(open) }
    }

    /// Commits only when told: for filling a volume that nobody relies on yet.
    pub(crate) fn commit_rarely(&self) {
        self.write().age = Duration::MAX;
    }

    pub(crate) fn read(&self) -> RwLockReadGuard<'_, Open<V>> {
        self.open.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, Open<V>> {
        self.open.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn change<T>(&self, mut work: impl FnMut(&mut V) -> Result<T>) -> Result<T> {
        self.write().change(&mut work)
    }
}

impl<V: Committed> Open<V> {
    /// Carries out a change, twice where the first time lacked space that a commit gives.
    pub(crate) fn change<T>(&mut self, work: &mut dyn FnMut(&mut V) -> Result<T>) -> Result<T> {
        self.volume.check_writable()?;
        let mut done = work(&mut self.volume);
        let full = done.as_ref().is_err_and(|error| error.kind() == Kind::OutOfSpace);
        if full && self.volume.has_pending_space() {
            self.commit()?;
            done = work(&mut self.volume);
        }
        if done.as_ref().is_err_and(|error| error.kind() == Kind::Io) {
            self.volume.give_up();
        }
        let heavy = self.volume.weight() > COMMIT_WEIGHT;
        if done.is_ok()
            && (heavy && self.age != Duration::MAX || self.committed.elapsed() > self.age)
        {
            self.commit()?;
        }
        done
    }

    pub(crate) fn commit(&mut self) -> Result<()> {
        self.volume.commit()?;
        self.committed = Instant::now();
        Ok(())
    }
}
