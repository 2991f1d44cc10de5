//! Making transactions durable.
//!
//! A commit has three parts, so that the filesystem can be used meanwhile: the running
//! transaction is frozen ([`Core::freeze`]), written without looking at the filesystem
//! ([`Frozen::write`]), and concluded ([`Core::conclude`]). Blocks that are changed in between are
//! copied. When the log is half full, everything in it is brought to its place in the same three
//! parts ([`Checkpoint`]) and the log starts anew.

use std::collections::{HashMap, HashSet};

use disksmith_disk::{Context as _, Disk, Error, Kind, Result};

use super::log::{Journal, LogPlace};
use crate::ext::cache::{Block, State};
use crate::ext::core::Core;
use crate::ext::order::Phases;

/// Blocks are gathered to writes of at most this many bytes.
const WRITE_BYTES: usize = 1 << 20;
/// The log is emptied when more than this waits in memory to be brought to its place.
const LOGGED_BYTES: usize = 64 << 20;

/// A transaction that takes no more changes, on its way to the disk.
#[derive(Debug)]
pub(crate) struct Frozen {
    /// Ascending.
    pub(super) blocks: Vec<(u64, Block)>,
    pub(super) revoked: Vec<u64>,
    pub(super) time: crate::Time,
    /// The log, which is with the transaction until it is concluded.
    journal: Option<Journal>,
    /// Without a journal: the blocks in the order in which they are safely written.
    phases: Phases,
    places: Vec<(u64, LogPlace)>,
}

/// What of a frozen transaction still matters to changes that come after it.
#[derive(Debug, Default)]
pub(crate) struct InFlight {
    /// The log is with it.
    pub(crate) journaled: bool,
    /// Blocks that the log is about to hold.
    pub(crate) blocks: HashSet<u64>,
    /// Bits of clusters freed there, by group: not to be given out before it is durable.
    pub(crate) freed: HashMap<u32, Vec<u8>>,
    /// Files cut there in the middle of a block.
    pub(crate) truncated: HashSet<u32>,
}

/// Blocks of the log on their way to their places.
#[derive(Debug)]
pub(crate) struct Checkpoint {
    blocks: Vec<(u64, Content)>,
    journal: Journal,
}

#[derive(Debug)]
enum Content {
    Known(Block),
    /// The cache holds a newer version, or none: the log's counts.
    Logged(LogPlace),
}

impl Frozen {
    /// Writes everything; after this it is durable.
    pub(crate) fn write(&mut self, disk: &dyn Disk, block_size: usize) -> Result<()> {
        if let Some(mut journal) = self.journal.take() {
            let written = journal.write(disk, block_size, self);
            self.journal = Some(journal);
            self.places = written.context("Could not commit a transaction")?;
            return Ok(());
        }
        // File content first: nothing may lead to blocks that still hold what was there before.
        disk.flush().context("Could not commit a transaction")?;
        for phase in self.phases.iter().filter(|phase| !phase.is_empty()) {
            write_runs(disk, block_size, phase).context("Could not commit a transaction")?;
            disk.flush().context("Could not commit a transaction")?;
        }
        Ok(())
    }
}

impl Checkpoint {
    /// Writes the blocks in place and empties the log.
    pub(crate) fn write(&mut self, disk: &dyn Disk, block_size: usize) -> Result<()> {
        self.write_blocks(disk, block_size)
            .and_then(|()| self.journal.empty(disk, block_size))
            .context("Could not empty the journal")
    }

    fn write_blocks(&self, disk: &dyn Disk, block_size: usize) -> Result<()> {
        let mut run = Run::default();
        for (number, content) in &self.blocks {
            match content {
                Content::Known(data) => run.push(disk, block_size, *number, data)?,
                Content::Logged(place) => {
                    let data = self.journal.read(disk, block_size, *place)?;
                    run.push(disk, block_size, *number, &data)?;
                }
            }
        }
        run.write(disk, block_size)
    }
}

/// Blocks that lie one after the other, written at once.
#[derive(Default)]
struct Run {
    first: u64,
    bytes: Vec<u8>,
}

impl Run {
    fn push(&mut self, disk: &dyn Disk, size: usize, number: u64, data: &[u8]) -> Result<()> {
        let follows = self.first + (self.bytes.len() / size) as u64 == number;
        if !follows || self.bytes.len() >= WRITE_BYTES {
            self.write(disk, size)?;
            self.first = number;
        }
        self.bytes.extend_from_slice(data);
        Ok(())
    }

    fn write(&mut self, disk: &dyn Disk, size: usize) -> Result<()> {
        if !self.bytes.is_empty() {
            disk.write_at(&self.bytes, self.first * size as u64)?;
            self.bytes.clear();
        }
        Ok(())
    }
}

fn write_runs(disk: &dyn Disk, size: usize, blocks: &[(u64, Block)]) -> Result<()> {
    let mut run = Run::default();
    for (number, data) in blocks {
        run.push(disk, size, *number, data)?;
    }
    run.write(disk, size)
}

impl Core {
    /// Makes everything up to here durable and whole: one transaction.
    pub(crate) fn commit(&mut self) -> Result<()> {
        self.check_alive()?;
        let done = self.try_commit();
        self.failed |= done.is_err();
        done
    }

    fn try_commit(&mut self) -> Result<()> {
        let Some(mut frozen) = self.freeze()? else { return self.disk.flush() };
        let done = frozen.write(&*self.disk.clone(), self.shape.block_size);
        if self.conclude(frozen, done)? {
            self.checkpoint()?;
        }
        Ok(())
    }

    /// Brings everything in the log to its place and empties the log.
    pub(crate) fn checkpoint(&mut self) -> Result<()> {
        let Some(mut checkpoint) = self.begin_checkpoint()? else { return Ok(()) };
        let done = checkpoint.write(&*self.disk.clone(), self.shape.block_size);
        self.end_checkpoint(checkpoint, done)
    }

    /// True when changes go through a journal.
    pub(crate) fn is_journaled(&self) -> bool {
        self.journal.is_some()
            || self.checkpointing
            || self.in_flight.as_ref().is_some_and(|flight| flight.journaled)
    }

    /// Refuses to go on after a write failed.
    pub(crate) fn check_alive(&self) -> Result<()> {
        if self.failed {
            return Err(Error::from_errno(5).context("An earlier write failed"));
        }
        Ok(())
    }

    /// Takes the running transaction out; `None` when it is empty. [`conclude`](Self::conclude)
    /// must follow before the next one is frozen.
    pub(crate) fn freeze(&mut self) -> Result<Option<Frozen>> {
        if self.transaction.is_empty() {
            return Ok(None);
        }
        self.write_back_groups()?;
        self.make_log_room()?;
        let mut transaction = std::mem::take(&mut self.transaction);
        let mut blocks = Vec::with_capacity(transaction.dirty.len());
        for number in &transaction.dirty {
            let data = self
                .cached(*number)
                .ok_or_else(|| Error::new(Kind::Io, "a changed block left the memory"))?;
            blocks.push((*number, data));
        }
        for (number, _) in &blocks {
            self.set_block_state(*number, State::Frozen);
        }
        let journal = self.journal.take();
        let phases = match journal {
            Some(_) => Vec::new(),
            None => self.in_order(&blocks, &transaction.order)?,
        };
        let mut revoked: Vec<u64> = transaction.revoked.drain().collect();
        revoked.sort_unstable();
        self.in_flight = Some(InFlight {
            journaled: journal.is_some(),
            blocks: if journal.is_some() {
                transaction.dirty.into_iter().collect()
            } else {
                HashSet::new()
            },
            freed: transaction.freed,
            truncated: transaction.truncated,
        });
        let time = self.now();
        Ok(Some(Frozen { blocks, revoked, time, journal, phases, places: Vec::new() }))
    }

    /// Empties the log if the running transaction would not fit into it.
    fn make_log_room(&mut self) -> Result<()> {
        let (blocks, revoked) = (self.transaction.dirty.len(), self.transaction.revoked.len());
        let size = self.shape.block_size;
        let fits = |journal: &Journal| journal.need(blocks, revoked, size) <= journal.room();
        if self.journal.as_ref().is_none_or(fits) {
            return Ok(());
        }
        self.checkpoint()?;
        if self.journal.as_ref().is_none_or(fits) {
            return Ok(());
        }
        Err(Error::new(
            Kind::LimitExceeded,
            format!("a transaction of {blocks} blocks does not fit into the journal"),
        ))
    }

    /// Notes what became of a frozen transaction. True: the log is to be emptied.
    pub(crate) fn conclude(&mut self, frozen: Frozen, written: Result<()>) -> Result<bool> {
        let in_flight = self.in_flight.take();
        self.journal = frozen.journal;
        if let Err(error) = written {
            self.failed = true;
            self.in_flight = in_flight;
            return Err(error);
        }
        for number in &frozen.revoked {
            self.logged.remove(number);
        }
        if self.journal.is_none() {
            for (number, _) in &frozen.blocks {
                self.settle(*number, State::Frozen);
            }
            return Ok(false);
        }
        for (number, place) in frozen.places {
            self.logged.insert(number, place);
            if self.block_state(number) == Some(State::Frozen) {
                self.set_block_state(number, State::Logged);
            }
        }
        let full = self.logged.len() > LOGGED_BYTES / self.shape.block_size;
        Ok(full || self.journal.as_ref().is_some_and(Journal::half_full))
    }

    /// Takes out what the log holds. [`end_checkpoint`](Self::end_checkpoint) must follow.
    pub(crate) fn begin_checkpoint(&mut self) -> Result<Option<Checkpoint>> {
        let Some(journal) = self.journal.take() else { return Ok(None) };
        let mut logged: Vec<(u64, LogPlace)> =
            self.logged.iter().map(|(number, place)| (*number, *place)).collect();
        logged.sort_unstable_by_key(|(number, _)| *number);
        let mut checkpoint = Checkpoint { blocks: Vec::with_capacity(logged.len()), journal };
        let mut at_once = Vec::new();
        for (number, place) in logged {
            if self.transaction.overwritten.contains(&number) {
                continue;
            }
            let content = match self.cached_in(number, State::Logged) {
                Some(data) => Content::Known(data),
                None => Content::Logged(place),
            };
            if self.transaction.revoked.contains(&number) {
                // It may be written in place at any time from now on, and must not be undone then.
                at_once.push((number, content));
            } else {
                checkpoint.blocks.push((number, content));
            }
        }
        let later = std::mem::replace(&mut checkpoint.blocks, at_once);
        let disk = self.disk.clone();
        let done = checkpoint.write_blocks(&*disk, self.shape.block_size);
        checkpoint.blocks = later;
        self.checkpointing = true;
        match done {
            Ok(()) => Ok(Some(checkpoint)),
            Err(error) => self.end_checkpoint(checkpoint, Err(error)).map(|()| None),
        }
    }

    /// Notes that the log is empty.
    pub(crate) fn end_checkpoint(
        &mut self,
        checkpoint: Checkpoint,
        written: Result<()>,
    ) -> Result<()> {
        self.checkpointing = false;
        self.journal = Some(checkpoint.journal);
        self.failed |= written.is_err();
        written?;
        for number in std::mem::take(&mut self.logged).into_keys() {
            self.settle(number, State::Logged);
        }
        // Nothing in the log any more: nothing to revoke.
        self.transaction.revoked.clear();
        Ok(())
    }

    /// True when the log holds content of the block, or is about to.
    pub(crate) fn log_holds(&self, number: u64) -> bool {
        self.logged.contains_key(&number)
            || self.in_flight.as_ref().is_some_and(|flight| flight.blocks.contains(&number))
    }

    /// Writes blocks in place.
    pub(crate) fn write_blocks(&mut self, numbers: &[u64]) -> Result<()> {
        let mut run = Run::default();
        for number in numbers {
            if let Some(data) = self.cached(*number) {
                run.push(&*self.disk, self.shape.block_size, *number, &data)?;
            }
        }
        run.write(&*self.disk, self.shape.block_size)?;
        for number in numbers {
            self.settle(*number, State::Dirty);
        }
        Ok(())
    }
}
