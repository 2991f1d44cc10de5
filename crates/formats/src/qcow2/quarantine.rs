//! Clusters on their way from unmapped to free.
//!
//! A cluster that was unmapped keeps its refcount until the unmapping is durable: were it used
//! again before that, a crash could show the new content at the old place. And while a request
//! that looked the cluster up before it was unmapped still runs, it must not be used again
//! either.

use std::collections::VecDeque;
use std::sync::Arc;

/// More runs than this are worth a flush.
const RUNS_MOST: usize = 1 << 16;

/// Held by every request that knows where data lies, for as long as it does.
pub(super) type Token = Arc<()>;

/// A run of clusters of which one reference is gone: number of the first, how many.
pub(super) type Freed = (u64, u64);

#[derive(Debug, Default)]
pub(super) struct Quarantine {
    /// Unmapped in memory, perhaps not in the file.
    open: Vec<Freed>,
    /// Unmapped in the file too; oldest first, each with the token of its time.
    ripe: VecDeque<(Vec<Freed>, Token)>,
    token: Token,
}

impl Quarantine {
    /// Notes that one reference to each of `count` clusters is gone.
    pub(super) fn add(&mut self, first: u64, count: u64) {
        match self.open.last_mut() {
            Some((start, length)) if *start + *length == first => *length += count,
            _ => self.open.push((first, count)),
        }
    }

    /// A token of this moment.
    pub(super) fn token(&self) -> Token {
        Arc::clone(&self.token)
    }

    /// All unmapping so far is durable.
    pub(super) fn ripen(&mut self) {
        if !self.open.is_empty() {
            let batch = std::mem::take(&mut self.open);
            self.ripe.push_back((batch, std::mem::take(&mut self.token)));
        }
    }

    /// The oldest batch whose time's requests have all ended.
    pub(super) fn take_ripe(&mut self) -> Option<Vec<Freed>> {
        match self.ripe.front() {
            Some((_, token)) if Arc::strong_count(token) == 1 => {
                self.ripe.pop_front().map(|(batch, _)| batch)
            }
            _ => None,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty() && self.ripe.is_empty()
    }

    pub(super) fn crowded(&self) -> bool {
        self.open.len() > RUNS_MOST
    }
}
