//! Writing transactions.
//!
//! The log is filled from its first block on; when it is half full, everything in it is written to
//! its place (checkpoint) and the log starts anew. The steps of a commit, with a flush between:
//! file content was written before; log blocks; commit block. The steps of a checkpoint: blocks to
//! their places; an empty log.

use std::collections::HashMap;

use disksmith_disk::{Context as _, Error, Kind, Result};

use super::layout::{
    COMMIT, DESCRIPTOR, JournalSuper, MAGIC, REVOKE, TAG_ESCAPE, TAG_LAST, TAG_SAME_UUID,
};
use crate::ext::cache::State;
use crate::ext::checksum::crc32c;
use crate::ext::core::Core;
use crate::ext::layout::{be32, high, low, put, put_be32};

/// Log blocks are gathered to writes of at most this many bytes.
const WRITE_BYTES: usize = 1 << 20;

/// A journal that takes transactions.
#[derive(Debug)]
pub(crate) struct Journal {
    sb: JournalSuper,
    /// (first block in the journal, first block in the filesystem, blocks), ascending.
    runs: Vec<(u32, u64, u32)>,
    sequence: u32,
    head: u32,
    /// The superblock on disk says that there is a log.
    started: bool,
    /// Where in the log the newest content of a block lies, and whether it is escaped.
    logged: HashMap<u64, (u32, bool)>,
}

impl Journal {
    /// Takes over an empty journal.
    pub(crate) fn new(sb: JournalSuper, runs: Vec<(u32, u64, u32)>) -> Self {
        let (sequence, head) = (sb.sequence(), sb.first());
        Self { sb, runs, sequence, head, started: false, logged: HashMap::new() }
    }

    /// True when the log holds content of the block.
    pub(crate) fn holds(&self, number: u64) -> bool {
        self.logged.contains_key(&number)
    }

    /// The most blocks a transaction should have.
    pub(crate) fn transaction_max(&self) -> usize {
        ((self.sb.log_end() - self.sb.first()) / 4) as usize
    }

    /// The filesystem block of a block of the journal.
    pub(crate) fn place(runs: &[(u32, u64, u32)], at: u32) -> Result<u64> {
        let index = runs.partition_point(|(first, _, _)| *first <= at);
        index
            .checked_sub(1)
            .and_then(|index| runs.get(index))
            .filter(|(first, _, count)| at - first < *count)
            .map(|(first, block, _)| block + u64::from(at - first))
            .ok_or_else(|| Error::new(Kind::Corrupt, "The journal has a hole"))
    }

    fn half_full(&self) -> bool {
        self.head - self.sb.first() > (self.sb.log_end() - self.sb.first()) / 2
    }

    fn room(&self) -> usize {
        (self.sb.log_end() - self.head) as usize
    }

    /// The revoke blocks of the running transaction.
    fn revoke_blocks(&self, revoked: &[u64], size: usize) -> Vec<Vec<u8>> {
        let width = if self.sb.wide() { 8 } else { 4 };
        let tail = if self.sb.has_checksums() { 4 } else { 0 };
        let per_block = (size - 16 - tail) / width;
        let mut blocks = Vec::new();
        for chunk in revoked.chunks(per_block) {
            let mut block = vec![0; size];
            put(&mut block, 0, &JournalSuper::header(REVOKE, self.sequence));
            put_be32(&mut block, 12, (16 + chunk.len() * width) as u32);
            for (index, number) in chunk.iter().enumerate() {
                let at = 16 + index * width;
                if width == 8 {
                    put(&mut block, at, &number.to_be_bytes());
                } else {
                    put_be32(&mut block, at, low(*number));
                }
            }
            self.seal_tail(&mut block);
            blocks.push(block);
        }
        blocks
    }

    fn seal_tail(&self, block: &mut [u8]) {
        if self.sb.has_checksums() {
            let sum = crc32c(self.sb.seed(), block);
            put_be32(block, block.len() - 4, sum);
        }
    }

    /// Tags in one descriptor block, the first of which is followed by a UUID.
    fn tags_per_block(&self, size: usize) -> usize {
        let tail = if self.sb.has_checksums() { 4 } else { 0 };
        (size - 12 - 16 - tail) / self.sb.tag_size()
    }

    fn write_tag(&self, descriptor: &mut [u8], at: usize, number: u64, flags: u32, data: &[u8]) {
        let mut sequence = [0; 4];
        put_be32(&mut sequence, 0, self.sequence);
        let sum = crc32c(crc32c(self.sb.seed(), &sequence), data);
        put_be32(descriptor, at, low(number));
        if self.sb.v3() {
            put_be32(descriptor, at + 4, flags);
            put_be32(descriptor, at + 8, high(number));
            put_be32(descriptor, at + 12, sum);
            return;
        }
        if self.sb.has_checksums() {
            put(descriptor, at + 4, &((sum & 0xffff) as u16).to_be_bytes());
        }
        put(descriptor, at + 6, &(flags as u16).to_be_bytes());
        if self.sb.wide() {
            put_be32(descriptor, at + 8, high(number));
        }
    }

    fn commit_block(&self, size: usize, now: crate::Time) -> Vec<u8> {
        let mut block = vec![0; size];
        put(&mut block, 0, &JournalSuper::header(COMMIT, self.sequence));
        put(&mut block, 0x30, &now.seconds.to_be_bytes());
        put_be32(&mut block, 0x38, now.nanoseconds);
        if self.sb.has_checksums() {
            let sum = crc32c(self.sb.seed(), &block);
            put_be32(&mut block, 16, sum);
        }
        block
    }
}

/// Collects log blocks and writes runs of them at once.
struct LogWriter<'a> {
    core: &'a Core,
    runs: &'a [(u32, u64, u32)],
    at: u32,
    first: u64,
    buffer: Vec<u8>,
}

impl LogWriter<'_> {
    fn push(&mut self, block: &[u8]) -> Result<()> {
        let number = Journal::place(self.runs, self.at)?;
        let size = self.core.shape.block_size;
        let follows = self.first + (self.buffer.len() / size) as u64 == number;
        if !follows || self.buffer.len() >= WRITE_BYTES {
            self.write()?;
        }
        if self.buffer.is_empty() {
            self.first = number;
        }
        self.buffer.extend_from_slice(block);
        self.at += 1;
        Ok(())
    }

    fn write(&mut self) -> Result<()> {
        if !self.buffer.is_empty() {
            self.core.disk.write_at(&self.buffer, self.first << self.core.shape.block_bits)?;
            self.buffer.clear();
        }
        Ok(())
    }
}

impl Core {
    /// Makes everything up to here durable and whole: one transaction.
    pub(crate) fn commit(&mut self) -> Result<()> {
        if self.failed {
            return Err(Error::from_errno(5).context("An earlier write failed"));
        }
        let done = self.try_commit();
        if done.is_err() {
            self.failed = true;
        }
        done
    }

    fn try_commit(&mut self) -> Result<()> {
        if self.transaction.is_empty() {
            return self.disk.flush();
        }
        self.write_back_groups()?;
        match self.journal.take() {
            None => self.write_in_order(),
            Some(mut journal) => {
                let done = self.commit_to(&mut journal);
                self.journal = Some(journal);
                done
            }
        }
        .context("Could not commit a transaction")?;
        self.transaction = super::super::core::Transaction::default();
        Ok(())
    }

    fn commit_to(&mut self, journal: &mut Journal) -> Result<()> {
        let size = self.shape.block_size;
        let mut revoked: Vec<u64> = self.transaction.revoked.iter().copied().collect();
        revoked.sort_unstable();
        let revokes = journal.revoke_blocks(&revoked, size);
        let dirty: Vec<u64> = self.transaction.dirty.iter().copied().collect();
        let per_block = journal.tags_per_block(size);
        let need = revokes.len() + dirty.len() + dirty.len().div_ceil(per_block) + 1;
        if need > journal.room() {
            self.checkpoint_of(journal)?;
            // The log starts at its first block again: what was revoked is gone from it.
            if need > journal.room() {
                return Err(Error::new(
                    Kind::LimitExceeded,
                    format!("a transaction of {need} blocks does not fit into the journal"),
                ));
            }
        }
        let start = journal.head;
        let mut places = Vec::with_capacity(dirty.len());
        let mut writer =
            LogWriter { core: self, runs: &journal.runs, at: start, first: 0, buffer: Vec::new() };
        for block in &revokes {
            writer.push(block)?;
        }
        for chunk in dirty.chunks(per_block) {
            let mut descriptor = vec![0; size];
            put(&mut descriptor, 0, &JournalSuper::header(DESCRIPTOR, journal.sequence));
            let mut contents = Vec::with_capacity(chunk.len());
            let mut at = 12;
            for (index, number) in chunk.iter().enumerate() {
                let mut data = self
                    .cached(*number)
                    .ok_or_else(|| Error::new(Kind::Io, "a changed block left the memory"))?;
                let escaped = be32(&data, 0) == MAGIC;
                if escaped {
                    put_be32(std::sync::Arc::make_mut(&mut data).as_mut_slice(), 0, 0);
                }
                let mut flags = if escaped { TAG_ESCAPE } else { 0 };
                flags |= if index > 0 { TAG_SAME_UUID } else { 0 };
                flags |= if index + 1 == chunk.len() { TAG_LAST } else { 0 };
                journal.write_tag(&mut descriptor, at, *number, flags, &data);
                at += journal.sb.tag_size() + if index == 0 { 16 } else { 0 };
                contents.push((*number, data, escaped));
            }
            journal.seal_tail(&mut descriptor);
            writer.push(&descriptor)?;
            for (number, data, escaped) in contents {
                places.push((number, writer.at, escaped));
                writer.push(&data)?;
            }
        }
        writer.write()?;
        let commit_at = writer.at;
        if !journal.started {
            journal.sb.set_log(start, journal.sequence);
            self.write_journal_super(journal)?;
        }
        self.disk.flush()?;
        let block = journal.commit_block(size, self.now());
        let number = Journal::place(&journal.runs, commit_at)?;
        self.disk.write_at(&block, number << self.shape.block_bits)?;
        self.disk.flush()?;
        journal.started = true;
        journal.head = commit_at + 1;
        journal.sequence = journal.sequence.wrapping_add(1);
        for number in &revoked {
            journal.logged.remove(number);
        }
        for (number, at, escaped) in places {
            journal.logged.insert(number, (at, escaped));
            self.set_block_state(number, State::Logged);
        }
        if journal.half_full() {
            self.transaction.dirty.clear();
            self.checkpoint_of(journal)?;
        }
        Ok(())
    }

    fn write_journal_super(&self, journal: &Journal) -> Result<()> {
        let number = Journal::place(&journal.runs, 0)?;
        self.disk.write_at(&journal.sb.raw, number << self.shape.block_bits)
    }

    /// Brings everything in the log to its place and empties the log.
    pub(crate) fn checkpoint(&mut self) -> Result<()> {
        let Some(mut journal) = self.journal.take() else { return Ok(()) };
        let done = self.checkpoint_of(&mut journal);
        if done.is_err() {
            self.failed = true;
        }
        self.journal = Some(journal);
        done
    }

    fn checkpoint_of(&mut self, journal: &mut Journal) -> Result<()> {
        let mut logged: Vec<(u64, (u32, bool))> = journal.logged.drain().collect();
        logged.sort_unstable();
        let mut run: (u64, Vec<u8>) = (0, Vec::new());
        for (number, (at, escaped)) in logged {
            if self.transaction.overwritten.contains(&number) {
                continue;
            }
            let kept = self.logged_block(number);
            let data = match kept {
                Some(data) => data,
                None => {
                    // The cache holds a newer version that is not committed: take the log's.
                    let mut data = vec![0; self.shape.block_size];
                    let place = Journal::place(&journal.runs, at)?;
                    self.disk.read_at(&mut data, place << self.shape.block_bits)?;
                    if escaped {
                        put_be32(&mut data, 0, MAGIC);
                    }
                    std::sync::Arc::new(data)
                }
            };
            self.gather(&mut run, number, &data)?;
            if self.logged_block(number).is_some() {
                self.settle(number);
            }
        }
        self.gather_end(&mut run)?;
        if journal.started {
            self.disk.flush()?;
            journal.sb.set_log(0, journal.sequence);
            self.write_journal_super(journal)?;
            self.disk.flush()?;
            journal.started = false;
        }
        journal.head = journal.sb.first();
        // Nothing in the log any more: nothing to revoke.
        self.transaction.revoked.clear();
        Ok(())
    }

    fn logged_block(&self, number: u64) -> Option<crate::ext::cache::Block> {
        self.cached_in(number, State::Logged)
    }

    fn gather(&self, run: &mut (u64, Vec<u8>), number: u64, data: &[u8]) -> Result<()> {
        let blocks = (run.1.len() / self.shape.block_size) as u64;
        if run.0 + blocks != number || run.1.len() >= WRITE_BYTES {
            self.gather_end(run)?;
            run.0 = number;
        }
        run.1.extend_from_slice(data);
        Ok(())
    }

    fn gather_end(&self, run: &mut (u64, Vec<u8>)) -> Result<()> {
        if !run.1.is_empty() {
            self.disk.write_at(&run.1, run.0 << self.shape.block_bits)?;
            run.1.clear();
        }
        Ok(())
    }

    /// Writes blocks in place.
    pub(crate) fn write_blocks(&mut self, numbers: &[u64]) -> Result<()> {
        let mut run: (u64, Vec<u8>) = (0, Vec::new());
        for number in numbers {
            if let Some(data) = self.cached(*number) {
                self.gather(&mut run, *number, &data)?;
            }
        }
        self.gather_end(&mut run)?;
        for number in numbers {
            self.settle(*number);
        }
        Ok(())
    }

    /// Without a journal: new blocks before the inodes that point at them, inodes before the
    /// directories that name them, bitmaps and counts (which a check can rebuild) last.
    fn write_in_order(&mut self) -> Result<()> {
        let mut phases: [Vec<u64>; 4] = Default::default();
        let mut tables: Vec<(u64, u64)> = Vec::new();
        let mut summaries = std::collections::HashSet::new();
        for group in &self.groups {
            tables.push((group.inode_table(), group.inode_table() + self.shape.table_blocks()));
            summaries.insert(group.block_bitmap());
            summaries.insert(group.inode_bitmap());
        }
        tables.sort_unstable();
        for index in 0..self.shape.descriptor_blocks() {
            summaries.insert(self.shape.descriptor_block(index));
        }
        summaries.insert(self.shape.super_block());
        for number in &self.transaction.dirty {
            let after = tables.partition_point(|(start, _)| start <= number);
            let table = after
                .checked_sub(1)
                .and_then(|index| tables.get(index))
                .is_some_and(|(_, end)| number < end);
            let phase = match () {
                () if summaries.contains(number) => 3,
                () if table => 1,
                () if self.transaction.fresh.contains(number) => 0,
                () => 2,
            };
            phases[phase].push(*number);
        }
        for phase in &phases {
            if !phase.is_empty() {
                self.write_blocks(phase)?;
                self.disk.flush()?;
            }
        }
        self.transaction.dirty.clear();
        Ok(())
    }
}
