//! The log: transactions one after the other, from its first block on, until it is emptied.
//!
//! The steps of writing a transaction, with a flush between: file content was written before; log
//! blocks; commit block.

use std::sync::Arc;

use disksmith_disk::{Disk, Error, Kind, Result};

use super::commit::Frozen;
use super::layout::{
    COMMIT, DESCRIPTOR, JournalSuper, MAGIC, REVOKE, TAG_ESCAPE, TAG_LAST, TAG_SAME_UUID,
};
use crate::ext::cache::Block;
use crate::ext::checksum::crc32c;
use crate::ext::layout::{be32, high, low, put, put_be32};

/// Log blocks are gathered to writes of at most this many bytes.
const WRITE_BYTES: usize = 1 << 20;

/// Where in the log the newest content of a block lies.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LogPlace {
    at: u32,
    /// Its first four bytes were the magic number and are stored as zeroes.
    escaped: bool,
}

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
}

impl Journal {
    /// Takes over an empty journal.
    pub(crate) fn new(sb: JournalSuper, runs: Vec<(u32, u64, u32)>) -> Self {
        let (sequence, head) = (sb.sequence(), sb.first());
        Self { sb, runs, sequence, head, started: false }
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

    /// True when it is time to empty the log.
    pub(super) fn half_full(&self) -> bool {
        self.head - self.sb.first() > (self.sb.log_end() - self.sb.first()) / 2
    }

    /// Blocks that can still be logged.
    pub(super) fn room(&self) -> usize {
        (self.sb.log_end() - self.head) as usize
    }

    /// Blocks of the log that a transaction takes.
    pub(super) fn need(&self, blocks: usize, revoked: usize, size: usize) -> usize {
        let revokes = revoked.div_ceil(self.revokes_per_block(size));
        revokes + blocks + blocks.div_ceil(self.tags_per_block(size)) + 1
    }

    /// Writes a transaction: after this it is durable. Answers where its blocks lie.
    pub(super) fn write(
        &mut self,
        disk: &dyn Disk,
        size: usize,
        transaction: &Frozen,
    ) -> Result<Vec<(u64, LogPlace)>> {
        let start = self.head;
        let mut places = Vec::with_capacity(transaction.blocks.len());
        let mut writer = LogWriter {
            disk,
            block_size: size,
            runs: &self.runs,
            at: start,
            first: 0,
            buffer: Vec::new(),
        };
        for block in self.revoke_blocks(&transaction.revoked, size) {
            writer.push(&block)?;
        }
        for chunk in transaction.blocks.chunks(self.tags_per_block(size)) {
            let mut descriptor = vec![0; size];
            put(&mut descriptor, 0, &JournalSuper::header(DESCRIPTOR, self.sequence));
            let mut contents = Vec::with_capacity(chunk.len());
            let mut at = 12;
            for (index, (number, data)) in chunk.iter().enumerate() {
                let mut data = data.clone();
                let escaped = be32(&data, 0) == MAGIC;
                if escaped {
                    put_be32(Arc::make_mut(&mut data).as_mut_slice(), 0, 0);
                }
                let mut flags = if escaped { TAG_ESCAPE } else { 0 };
                flags |= if index > 0 { TAG_SAME_UUID } else { 0 };
                flags |= if index + 1 == chunk.len() { TAG_LAST } else { 0 };
                self.write_tag(&mut descriptor, at, *number, flags, &data);
                at += self.sb.tag_size() + if index == 0 { 16 } else { 0 };
                contents.push((*number, data, escaped));
            }
            self.seal_tail(&mut descriptor);
            writer.push(&descriptor)?;
            for (number, data, escaped) in contents {
                places.push((number, LogPlace { at: writer.at, escaped }));
                writer.push(&data)?;
            }
        }
        writer.write()?;
        let commit_at = writer.at;
        if !self.started {
            self.sb.set_log(start, self.sequence);
            self.write_super(disk, size)?;
        }
        disk.flush()?;
        let block = self.commit_block(size, transaction.time);
        let number = Self::place(&self.runs, commit_at)?;
        disk.write_at(&block, number * size as u64)?;
        disk.flush()?;
        self.started = true;
        self.head = commit_at + 1;
        self.sequence = self.sequence.wrapping_add(1);
        Ok(places)
    }

    /// Reads a block's content back out of the log.
    pub(super) fn read(&self, disk: &dyn Disk, size: usize, place: LogPlace) -> Result<Block> {
        let mut data = vec![0; size];
        let number = Self::place(&self.runs, place.at)?;
        disk.read_at(&mut data, number * size as u64)?;
        if place.escaped {
            put_be32(&mut data, 0, MAGIC);
        }
        Ok(Arc::new(data))
    }

    /// Empties the log, all of which is in its place now.
    pub(super) fn empty(&mut self, disk: &dyn Disk, size: usize) -> Result<()> {
        if self.started {
            disk.flush()?;
            self.sb.set_log(0, self.sequence);
            self.write_super(disk, size)?;
            disk.flush()?;
            self.started = false;
        }
        self.head = self.sb.first();
        Ok(())
    }

    fn write_super(&self, disk: &dyn Disk, size: usize) -> Result<()> {
        disk.write_at(&self.sb.raw, Self::place(&self.runs, 0)? * size as u64)
    }

    fn revoke_width(&self) -> usize {
        if self.sb.wide() { 8 } else { 4 }
    }

    fn revokes_per_block(&self, size: usize) -> usize {
        let tail = if self.sb.has_checksums() { 4 } else { 0 };
        (size - 16 - tail) / self.revoke_width()
    }

    /// The revoke blocks of a transaction.
    fn revoke_blocks(&self, revoked: &[u64], size: usize) -> Vec<Vec<u8>> {
        let width = self.revoke_width();
        let mut blocks = Vec::new();
        for chunk in revoked.chunks(self.revokes_per_block(size)) {
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
    disk: &'a dyn Disk,
    block_size: usize,
    runs: &'a [(u32, u64, u32)],
    at: u32,
    first: u64,
    buffer: Vec<u8>,
}

impl LogWriter<'_> {
    fn push(&mut self, block: &[u8]) -> Result<()> {
        let number = Journal::place(self.runs, self.at)?;
        let follows = self.first + (self.buffer.len() / self.block_size) as u64 == number;
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
            self.disk.write_at(&self.buffer, self.first * self.block_size as u64)?;
            self.buffer.clear();
        }
        Ok(())
    }
}
