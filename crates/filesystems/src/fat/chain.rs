//! Chains of clusters, kept as runs.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};

use disksmith_disk::Result;

use super::core::Core;
use super::shape::{Shape, corrupt};

/// Runs of all chains that are kept; 12 bytes each.
const RUNS_MAX: usize = 2 << 20;
/// No file is longer.
pub(crate) const FILE_MAX: u64 = 0xFFFF_FFFF;

/// Clusters one after the other.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Run {
    /// Which cluster of the chain the first one is, from 0.
    pub(crate) index: u32,
    /// The first one.
    pub(crate) cluster: u32,
    pub(crate) count: u32,
}

/// Chains that are known, by their first cluster.
#[derive(Debug, Default)]
pub(crate) struct Chains {
    known: HashMap<u32, Arc<Vec<Run>>>,
    runs: usize,
}

impl Chains {
    pub(crate) fn get(&self, start: u32) -> Option<Arc<Vec<Run>>> {
        self.known.get(&start).cloned()
    }

    pub(crate) fn forget(&mut self, start: u32) {
        if let Some(runs) = self.known.remove(&start) {
            self.runs -= runs.len();
        }
    }

    /// Remembers a chain.
    pub(crate) fn keep(&mut self, start: u32, runs: Arc<Vec<Run>>) {
        if self.runs + runs.len() > RUNS_MAX {
            self.known.clear();
            self.runs = 0;
        }
        self.forget(start);
        self.runs += runs.len();
        self.known.insert(start, runs);
    }
}

/// Clusters of a chain.
pub(crate) fn length(runs: &[Run]) -> u32 {
    runs.last().map_or(0, |run| run.index + run.count)
}

/// The last cluster of a chain.
pub(crate) fn tail(runs: &[Run]) -> Option<u32> {
    runs.last().map(|run| run.cluster + run.count - 1)
}

/// The chain from its `index`th cluster on: the cluster, and how many follow it directly (itself
/// included).
pub(crate) fn at(runs: &[Run], index: u32) -> Option<(u32, u32)> {
    let after = runs.partition_point(|run| run.index <= index);
    let run = runs.get(after.checked_sub(1)?)?;
    let skip = index - run.index;
    (skip < run.count).then(|| (run.cluster + skip, run.count - skip))
}

/// Divides a chain: the first `count` clusters, and the rest.
pub(crate) fn split(runs: &[Run], count: u32) -> (Vec<Run>, Vec<Run>) {
    let (mut kept, mut rest) = (Vec::new(), Vec::new());
    for run in runs {
        let here = count.saturating_sub(run.index).min(run.count);
        if here > 0 {
            kept.push(Run { count: here, ..*run });
        }
        if here < run.count {
            rest.push(Run {
                index: run.index + here,
                cluster: run.cluster + here,
                count: run.count - here,
            });
        }
    }
    (kept, rest)
}

/// Adds clusters to the end of a chain.
pub(crate) fn append(runs: &mut Vec<Run>, more: &[Run]) {
    for run in more {
        let index = length(runs);
        match runs.last_mut() {
            Some(last) if last.cluster + last.count == run.cluster => last.count += run.count,
            _ => runs.push(Run { index, ..*run }),
        }
    }
}

/// The most clusters that the chain of a file can have.
fn clusters_max(shape: &Shape) -> u32 {
    let file = FILE_MAX / shape.cluster_size() + 1;
    u32::try_from(file).unwrap_or(u32::MAX).min(shape.clusters)
}

impl Core {
    /// The chain that begins at `start` (0: none). Cut at the length that a file can have.
    pub(crate) fn chain(&self, start: u32) -> Result<Arc<Vec<Run>>> {
        if start == 0 {
            return Ok(Arc::default());
        }
        let chains = self.chains.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(runs) = chains.get(start) {
            return Ok(runs);
        }
        drop(chains);
        let runs = Arc::new(self.follow(self.check_start(start)?)?);
        self.keep_chain(start, runs.clone());
        Ok(runs)
    }

    /// Remembers a chain that changed.
    pub(crate) fn keep_chain(&self, start: u32, runs: Arc<Vec<Run>>) {
        self.chains.lock().unwrap_or_else(PoisonError::into_inner).keep(start, runs);
    }

    pub(crate) fn forget_chain(&self, start: u32) {
        self.chains.lock().unwrap_or_else(PoisonError::into_inner).forget(start);
    }

    fn follow(&self, start: u32) -> Result<Vec<Run>> {
        let mut reader = self.table.reader(&*self.disk, &self.shape);
        let mut runs: Vec<Run> = Vec::new();
        let (mut cluster, most) = (start, clusters_max(&self.shape));
        let mut circle = Circle::new(start);
        for index in 0..most {
            match runs.last_mut() {
                Some(last) if last.cluster + last.count == cluster => last.count += 1,
                _ => runs.push(Run { index, cluster, count: 1 }),
            }
            let next = match self.pending_next(cluster) {
                Some(next) => next,
                None => reader.get(cluster)?,
            };
            if next > self.shape.kind.bad() {
                return Ok(runs);
            }
            if !self.shape.is_cluster(next) {
                return Err(corrupt(format!("cluster {cluster} leads to {next}, which is none")));
            }
            if circle.closes(next) {
                return Err(corrupt(format!("the chain from cluster {start} goes in a circle")));
            }
            cluster = next;
        }
        Ok(runs)
    }
}

/// Notices a chain that goes in a circle: it comes back to where it was at some power of two.
pub(crate) struct Circle {
    marked: u32,
    mark_at: u32,
    steps: u32,
}

impl Circle {
    pub(crate) fn new(start: u32) -> Self {
        Self { marked: start, mark_at: 1, steps: 0 }
    }

    /// True if the next cluster is one where the chain was before.
    pub(crate) fn closes(&mut self, next: u32) -> bool {
        if next == self.marked {
            return true;
        }
        self.steps = self.steps.saturating_add(1);
        if self.steps == self.mark_at {
            (self.marked, self.mark_at) = (next, self.mark_at.saturating_mul(2));
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_found_split_and_joined() {
        let mut runs = Vec::new();
        append(
            &mut runs,
            &[Run { index: 0, cluster: 5, count: 3 }, Run { index: 3, cluster: 9, count: 2 }],
        );
        append(&mut runs, &[Run { index: 0, cluster: 11, count: 1 }]);
        assert_eq!((runs.len(), length(&runs), tail(&runs)), (2, 6, Some(11)));
        assert_eq!(
            (at(&runs, 0), at(&runs, 2), at(&runs, 3)),
            (Some((5, 3)), Some((7, 1)), Some((9, 3)))
        );
        assert_eq!(at(&runs, 6), None);
        let (kept, rest) = split(&runs, 4);
        assert_eq!((length(&kept), tail(&kept)), (4, Some(9)));
        assert_eq!(rest, [Run { index: 4, cluster: 10, count: 2 }]);
    }
}
