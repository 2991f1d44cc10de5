//! All the states in which a power cut can leave recorded storage.
//!
//! What was done to a file before its last flush is there; of what was done after it, any
//! subset may be, and the last write may be torn at sector borders. An epoch is the time
//! between two flushes; in each, states are enumerated in full as long as the epoch is short.
//! Subsets that differ only in what a later write covers are one state.

use std::collections::HashSet;
use std::sync::Arc;

use disksmith_disk::{Disk, MemoryDisk};

use crate::{Operation, Rng};

/// Writes are torn at multiples of this; one sector is written whole or not at all.
const SECTOR: usize = 512;

/// How many states to make of an epoch.
#[derive(Clone, Copy, Debug)]
pub struct CrashLimits {
    /// Epochs of up to so many operations are enumerated in full.
    pub full_up_to: u32,
    /// Random subsets of longer ones.
    pub random_subsets: u32,
    /// Torn variants of the last write of an epoch.
    pub torn: u32,
    /// Seed of the random choices.
    pub seed: u64,
}

impl Default for CrashLimits {
    fn default() -> Self {
        Self { full_up_to: 10, random_subsets: 64, torn: 8, seed: 1 }
    }
}

/// One state after a cut.
pub struct CrashState {
    /// The contents of the files.
    pub files: Vec<MemoryDisk>,
    /// How many operations of the log had been started at most.
    pub started: usize,
    /// The guest had been told that the steps before this one are durable.
    pub durable: u64,
    /// The last step that may have begun.
    pub begun: u64,
    /// Which epoch and which state of it: with the seed, it names this state for good.
    pub name: String,
}

/// Calls `visit` with each state that a cut during `log` can leave, starting from `initial`
/// contents. Stops at the first `false`. Answers how many states were visited.
pub fn crash_states(
    initial: &[MemoryDisk],
    log: &[Operation],
    limits: CrashLimits,
    visit: &mut dyn FnMut(CrashState) -> bool,
) -> u64 {
    let mut walk = Walk {
        durable: initial.to_vec(),
        pending: Vec::new(),
        durable_step: 0,
        told: 0,
        begun: 0,
        rng: Rng::new(limits.seed),
        limits,
        count: 0,
        epoch: 0,
        covers: Vec::new(),
        seen: HashSet::new(),
        visit,
    };
    for (index, operation) in log.iter().enumerate() {
        match operation {
            Operation::Begin(step) => walk.begun = *step,
            // With operations still open, a cut may come before the guest was told; after the
            // next flush it cannot.
            Operation::Durable(step) if walk.pending.is_empty() => walk.durable_step = *step,
            Operation::Durable(step) => walk.told = *step,
            Operation::Flush { file } => {
                if !walk.epoch_states(index) {
                    return walk.count;
                }
                walk.settle(*file);
            }
            _ => walk.pending.push(operation.clone()),
        }
    }
    walk.epoch_states(log.len());
    walk.count
}

struct Walk<'a> {
    durable: Vec<MemoryDisk>,
    pending: Vec<Operation>,
    durable_step: u64,
    /// What the guest was told while operations were open.
    told: u64,
    begun: u64,
    rng: Rng,
    limits: CrashLimits,
    count: u64,
    epoch: u32,
    /// For each open operation: the later ones that cover all it did.
    covers: Vec<Vec<usize>>,
    /// The states of this epoch by what is effectively kept.
    seen: HashSet<Vec<bool>>,
    visit: &'a mut dyn FnMut(CrashState) -> bool,
}

impl Walk<'_> {
    /// A flush of one file makes its pending operations durable; those of others stay open.
    fn settle(&mut self, file: usize) {
        let (done, open): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.pending).into_iter().partition(|o| o.file() == Some(file));
        for operation in done {
            operation.apply(&self.durable);
        }
        self.pending = open;
        self.durable_step = self.durable_step.max(self.told);
        self.epoch += 1;
    }

    fn epoch_states(&mut self, started: usize) -> bool {
        let count = self.pending.len();
        self.seen.clear();
        let later = |i: usize| {
            let covering = |j: &usize| covers(&self.pending[*j], &self.pending[i]);
            (i + 1..count).filter(covering).collect()
        };
        self.covers = (0..count).map(later).collect();
        if count as u32 <= self.limits.full_up_to {
            for subset in 0..1u64 << count {
                if !self.state(started, &format!("s{subset:x}"), |i| subset >> i & 1 == 1) {
                    return false;
                }
            }
        } else if !self.sampled(started, count) {
            return false;
        }
        self.torn(started)
    }

    fn sampled(&mut self, started: usize, count: usize) -> bool {
        for kept in 0..=count {
            if !self.state(started, &format!("p{kept}"), |i| i < kept) {
                return false;
            }
        }
        for lost in 0..count {
            if !self.state(started, &format!("o{lost}"), |i| i != lost) {
                return false;
            }
        }
        for first in 0..count.min(24) {
            for second in first + 1..count.min(24) {
                let keep = |i| i == first || i == second;
                if !self.state(started, &format!("k{first}.{second}"), keep) {
                    return false;
                }
            }
        }
        for number in 0..self.limits.random_subsets {
            let kept: Vec<bool> = (0..count).map(|_| self.rng.one_in(2)).collect();
            if !self.state(started, &format!("r{number}"), |i| kept[i]) {
                return false;
            }
        }
        true
    }

    /// The last write of the epoch, in part: some of its sectors, everything else or nothing
    /// else of the epoch.
    fn torn(&mut self, started: usize) -> bool {
        let Some(at) = self
            .pending
            .iter()
            .rposition(|o| matches!(o, Operation::Write { data, .. } if data.len() > SECTOR))
        else {
            return true;
        };
        let Operation::Write { file, offset, data } = self.pending[at].clone() else { return true };
        for number in 0..self.limits.torn {
            let files = self.durable.to_vec();
            if number % 2 == 0 {
                for operation in &self.pending[..at] {
                    operation.apply(&files);
                }
            }
            // Sector borders are those of the file, wherever the write begins.
            let mut from = 0;
            while from < data.len() {
                let at = offset as usize + from;
                let to = (from + SECTOR - at % SECTOR).min(data.len());
                if self.rng.one_in(2) {
                    let piece: Arc<[u8]> = data[from..to].into();
                    let offset = offset + from as u64;
                    Operation::Write { file, offset, data: piece }.apply(&files);
                }
                from = to;
            }
            if !self.visit(started, &format!("t{number}"), files) {
                return false;
            }
        }
        true
    }

    fn state(&mut self, started: usize, name: &str, keep: impl Fn(usize) -> bool) -> bool {
        // In a third of the states, files have grown although the bytes did not arrive.
        let grow = self.rng.one_in(3) && (0..self.pending.len()).any(|i| !keep(i));
        let effective = |i: usize| keep(i) && !self.covers[i].iter().any(|later| keep(*later));
        let mut key: Vec<bool> = (0..self.pending.len()).map(effective).collect();
        key.push(grow);
        if !self.seen.insert(key) {
            return true;
        }
        let files = self.durable.to_vec();
        for (index, operation) in self.pending.iter().enumerate() {
            if keep(index) {
                operation.apply(&files);
            } else if let (true, Operation::Write { file, offset, data }) = (grow, operation) {
                let end = offset + data.len() as u64;
                if files[*file].size() < end {
                    let grown = files[*file].set_size(end);
                    debug_assert!(grown.is_ok(), "memory disks do not fail");
                }
            }
        }
        self.visit(started, name, files)
    }

    fn visit(&mut self, started: usize, name: &str, files: Vec<MemoryDisk>) -> bool {
        self.count += 1;
        (self.visit)(CrashState {
            files,
            started,
            durable: self.durable_step,
            begun: self.begun,
            name: format!("e{}{name}", self.epoch),
        })
    }
}

/// Whether `later` leaves nothing of what `earlier` did to be seen.
fn covers(later: &Operation, earlier: &Operation) -> bool {
    let range = |operation: &Operation| match operation {
        Operation::Write { offset, data, .. } => Some((*offset, *offset + data.len() as u64)),
        Operation::Zero { offset, length, .. } | Operation::Discard { offset, length, .. } => {
            Some((*offset, *offset + *length))
        }
        _ => None,
    };
    // A discard does not make a file longer, so it covers no write beyond the end.
    let whole = matches!(later, Operation::Write { .. } | Operation::Zero { .. });
    match (range(later), range(earlier)) {
        (Some(later_range), Some(range)) if whole && later.file() == earlier.file() => {
            later_range.0 <= range.0 && range.1 <= later_range.1
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Recorder;

    #[test]
    fn every_subset_of_an_open_epoch_appears() {
        let recorder = Recorder::new();
        let disk = recorder.disk(0, MemoryDisk::new(4));
        disk.write_at(&[1], 0).unwrap();
        disk.flush().unwrap();
        recorder.durable(1);
        disk.write_at(&[2], 1).unwrap();
        disk.write_at(&[3], 2).unwrap();
        let mut seen = Vec::new();
        let count = crash_states(
            &[MemoryDisk::new(4)],
            &recorder.log(),
            CrashLimits::default(),
            &mut |state| {
                assert_eq!(state.durable, u64::from(state.started == 5));
                seen.push(state.files[0].to_bytes());
                true
            },
        );
        assert_eq!(count, 2 + 4);
        for state in [[0, 0, 0, 0], [1, 0, 0, 0], [1, 2, 0, 0], [1, 0, 3, 0], [1, 2, 3, 0]] {
            assert!(seen.contains(&state.to_vec()), "{state:?}");
        }
        assert!(!seen.contains(&vec![0, 2, 0, 0]));
    }

    #[test]
    fn what_a_later_write_covers_makes_no_state_of_its_own() {
        let recorder = Recorder::new();
        let disk = recorder.disk(0, MemoryDisk::new(4));
        disk.write_at(&[1], 1).unwrap();
        disk.write_at(&[2, 2], 0).unwrap();
        let mut seen = Vec::new();
        let limits = CrashLimits::default();
        crash_states(&[MemoryDisk::new(4)], &recorder.log(), limits, &mut |state| {
            seen.push(state.files[0].to_bytes());
            true
        });
        seen.sort();
        seen.dedup();
        assert_eq!(seen, [[0, 0, 0, 0], [0, 1, 0, 0], [2, 2, 0, 0]]);
    }
}
