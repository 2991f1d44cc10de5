//! Small helpers.

use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use disksmith_disk::{Disk, Result};

/// Reads from `offset`; what lies past the end of the storage is zero.
pub(super) fn read_padded(storage: &dyn Disk, buffer: &mut [u8], offset: u64) -> Result<()> {
    let have = storage.size().saturating_sub(offset).min(buffer.len() as u64) as usize;
    let (stored, past) = buffer.split_at_mut(have);
    past.fill(0);
    if stored.is_empty() {
        return Ok(());
    }
    storage.read_at(stored, offset)
}

/// A panic elsewhere must not turn into panics everywhere: the state behind a poisoned lock is
/// still whole, because it changes in steps that cannot fail half way.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// As [`lock`].
pub(super) fn shared<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

/// As [`lock`].
pub(super) fn exclusive<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}
