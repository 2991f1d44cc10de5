//! An open filesystem that many threads use: changes one at a time, and commits beside them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{
    Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
};
use std::time::{Duration, Instant};

use disksmith_disk::{Disk, Kind, Result};

use super::core::{Core, Obstacle};
use crate::{Time, errors};

/// A transaction is committed when it is this old and something happens.
const COMMIT_AGE: Duration = Duration::from_secs(5);
/// Locks for the content of files, shared out by inode number.
const CONTENT_LOCKS: usize = 64;

/// An open ext2, ext3 or ext4 filesystem.
///
/// Locks are taken in the order in which they stand here.
#[derive(Debug)]
pub struct Ext {
    /// One is held by whoever changes the content or length of a file.
    content: [Mutex<()>; CONTENT_LOCKS],
    /// Held by whoever writes a transaction; the changes that are durable.
    durable: Mutex<u64>,
    core: RwLock<Core>,
    /// Somebody calls [`wait_until_due`](crate::Filesystem::wait_until_due) again and again.
    attended: AtomicBool,
    due: Mutex<bool>,
    told: Condvar,
}

/// How urgent a commit is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Urgency {
    /// There is time.
    None,
    /// It should be made soon.
    Soon,
    /// The transaction must not become much larger.
    Now,
}

impl Ext {
    /// Opens the filesystem on `disk`. Read-only, nothing is written: a journal that holds
    /// changes is followed in memory. Otherwise it is replayed first, orphans are freed, and the
    /// filesystem is marked as in use until [`close`](crate::Filesystem::close).
    pub fn open(disk: Arc<dyn Disk>, read_only: bool) -> Result<Self> {
        let core = if read_only { Core::open_read_only(disk)? } else { Core::open_writable(disk)? };
        Ok(Self::from_core(core))
    }

    pub(crate) fn from_core(core: Core) -> Self {
        Self {
            content: [const { Mutex::new(()) }; CONTENT_LOCKS],
            durable: Mutex::new(0),
            core: RwLock::new(core),
            attended: AtomicBool::new(false),
            due: Mutex::new(false),
            told: Condvar::new(),
        }
    }

    /// Lets every change bear this time instead of the clock's.
    pub fn set_clock(&self, time: Option<Time>) {
        self.write_lock().clock = time;
    }

    pub(super) fn read_lock(&self) -> RwLockReadGuard<'_, Core> {
        self.core.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn write_lock(&self) -> RwLockWriteGuard<'_, Core> {
        self.core.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at what is open.
    pub(crate) fn with_core<T>(&self, look: impl FnOnce(&Core) -> Result<T>) -> Result<T> {
        look(&self.read_lock())
    }

    /// Runs a change: whole or not at all. `work` runs again if it had to wait for something.
    pub(super) fn change<T>(&self, mut work: impl FnMut(&mut Core) -> Result<T>) -> Result<T> {
        let mut committed = false;
        loop {
            let mut core = self.write_lock();
            if core.read_only {
                return Err(errors::read_only());
            }
            core.check_alive()?;
            core.begin();
            match work(&mut core) {
                Ok(value) => {
                    core.finish();
                    let urgency = urgency(&mut core);
                    drop(core);
                    self.commit_if(urgency)?;
                    return Ok(value);
                }
                Err(error) => {
                    core.rollback();
                    let obstacle = core.obstacle.take();
                    let freed = core.has_pending_space();
                    drop(core);
                    let full = error.kind() == Kind::OutOfSpace && freed && !committed;
                    match obstacle {
                        Some(Obstacle::UnderWay) => drop(self.durable()),
                        Some(Obstacle::Running) => self.commit()?,
                        None if full => {
                            // What was freed can be used after the commit.
                            committed = true;
                            self.commit()?;
                        }
                        None => return Err(error),
                    }
                }
            }
        }
    }

    /// Keeps others from the content of a file. What it lost is committed first, and not
    /// overwritten before.
    pub(super) fn content(&self, inode: u64) -> Result<MutexGuard<'_, ()>> {
        let number = u32::try_from(inode).map_err(|_| errors::stale())?;
        let lock = &self.content[inode as usize % CONTENT_LOCKS];
        let guard = lock.lock().unwrap_or_else(PoisonError::into_inner);
        self.commit_cut(number)?;
        Ok(guard)
    }

    /// Commits a cut in the middle of a block; the caller keeps others from the content.
    pub(super) fn commit_cut(&self, number: u32) -> Result<()> {
        while self.read_lock().is_truncated(number) {
            self.commit()?;
        }
        Ok(())
    }

    fn durable(&self) -> MutexGuard<'_, u64> {
        self.durable.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn commit_if(&self, urgency: Urgency) -> Result<()> {
        match urgency {
            Urgency::None => Ok(()),
            Urgency::Soon if self.attended.load(Ordering::Acquire) => {
                *self.due.lock().unwrap_or_else(PoisonError::into_inner) = true;
                self.told.notify_one();
                Ok(())
            }
            Urgency::Soon | Urgency::Now => self.commit(),
        }
    }

    /// Returns when a commit is due, at latest after `most`.
    pub(super) fn wait_for_due(&self, most: Duration) {
        self.attended.store(true, Ordering::Release);
        let due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.told.wait_timeout_while(due, most, |due| !*due);
        *waited.unwrap_or_else(PoisonError::into_inner).0 = false;
    }

    /// Makes everything up to here durable. Others go on changing things meanwhile.
    pub(super) fn commit(&self) -> Result<()> {
        let wanted = self.read_lock().changes;
        let mut durable = self.durable();
        if wanted > 0 && *durable >= wanted {
            // Somebody did it while we waited.
            return self.read_lock().check_alive();
        }
        let mut core = self.write_lock();
        core.check_alive()?;
        let (disk, size, changes) = (core.disk.clone(), core.shape.block_size, core.changes);
        let frozen = core.freeze();
        core.failed |= frozen.is_err();
        drop(core);
        let Some(mut frozen) = frozen? else { return disk.flush() };
        let written = frozen.write(&*disk, size);
        let full = self.write_lock().conclude(frozen, written)?;
        *durable = changes;
        if full {
            self.checkpoint(&*disk, size)?;
        }
        Ok(())
    }

    fn checkpoint(&self, disk: &dyn Disk, size: usize) -> Result<()> {
        let Some(mut checkpoint) = self.write_lock().begin_checkpoint()? else { return Ok(()) };
        let written = checkpoint.write(disk, size);
        self.write_lock().end_checkpoint(checkpoint, written)
    }

    /// Ends the use: everything in its place, the filesystem marked clean.
    pub(super) fn shut_down(&self) -> Result<()> {
        let _durable = self.durable();
        self.write_lock().shut_down()
    }
}

fn urgency(core: &mut Core) -> Urgency {
    let size = core.transaction.dirty.len() + core.transaction.revoked.len() / 64;
    let since = *core.transaction.since.get_or_insert_with(Instant::now);
    match () {
        () if size >= core.transaction_max => Urgency::Now,
        () if size * 2 > core.transaction_max || since.elapsed() > COMMIT_AGE => Urgency::Soon,
        () => Urgency::None,
    }
}
