//! What a crash left in the journal.

use std::collections::HashMap;

use disksmith_disk::{Disk, Error, Kind, Result, bytes};

use super::layout::{
    COMMIT, COMPAT_CHECKSUM, DESCRIPTOR, JournalSuper, MAGIC, REVOKE, TAG_DELETED, TAG_ESCAPE,
    TAG_LAST, TAG_SAME_UUID,
};
use super::{Overlay, Place};
use crate::ext::checksum::crc32c;
use crate::ext::layout::{be16, be32, put_be32};

/// A block number in the journal to a block number of the filesystem.
pub(crate) type Map<'a> = dyn Fn(u32) -> Result<u64> + 'a;

/// The outcome of reading the log.
#[derive(Debug)]
pub(crate) struct Replay {
    /// The newest committed content of each block.
    pub(crate) overlay: Overlay,
    /// The number for the next transaction.
    pub(crate) next_sequence: u32,
    /// Blocks left out because their checksum was wrong.
    pub(crate) damaged: u64,
    /// Transactions found whole.
    pub(crate) transactions: u32,
    /// The fast-commit area holds changes that are newer than the log.
    pub(crate) fast_commits: bool,
}

struct Reader<'a> {
    disk: &'a dyn Disk,
    map: &'a Map<'a>,
    sb: &'a JournalSuper,
    block_size: usize,
    seed: u32,
}

/// Is told a block's place in the journal, its kind, its transaction and what is in it.
type Visit<'a> = dyn FnMut(u32, u32, u32, &[u8]) -> Result<()> + 'a;

/// One described block.
struct Tag {
    block: u64,
    flags: u32,
    checksum: u32,
}

/// Reads the log from its start. Nothing is written.
pub(crate) fn scan<'a>(
    disk: &'a dyn Disk,
    block_size: usize,
    sb: &'a JournalSuper,
    map: &'a Map<'a>,
) -> Result<Replay> {
    let reader = Reader { disk, map, sb, block_size, seed: sb.seed() };
    let mut replay = Replay {
        overlay: Overlay { block_size, blocks: HashMap::new() },
        next_sequence: sb.sequence(),
        damaged: 0,
        transactions: 0,
        fast_commits: false,
    };
    if sb.start() != 0 {
        let end = reader.find_end()?;
        let revoked = reader.revocations(end)?;
        reader.collect(end, &revoked, &mut replay)?;
        replay.transactions = end.wrapping_sub(sb.sequence());
        // One number is skipped, so that nothing stale is ever taken for new.
        replay.next_sequence = end.wrapping_add(1);
    }
    replay.fast_commits = reader.has_fast_commits(replay.next_sequence)?;
    Ok(replay)
}

impl Reader<'_> {
    fn read(&self, at: u32) -> Result<Vec<u8>> {
        let mut block = vec![0; self.block_size];
        let number = (self.map)(at)?;
        let offset = number
            .checked_mul(self.block_size as u64)
            .ok_or_else(|| Error::new(Kind::Corrupt, "The journal lies outside of the disk"))?;
        self.disk.read_at(&mut block, offset)?;
        Ok(block)
    }

    fn next(&self, at: u32) -> u32 {
        if at + 1 >= self.sb.log_end() { self.sb.first() } else { at + 1 }
    }

    fn skip(&self, at: u32, count: usize) -> u32 {
        let length = u64::from(self.sb.log_end() - self.sb.first()).max(1);
        let moved = (u64::from(at - self.sb.first()) + count as u64) % length;
        self.sb.first() + moved as u32
    }

    /// Blocks in the log: no walk is longer.
    fn steps(&self) -> u32 {
        self.sb.log_end() - self.sb.first()
    }

    /// The sequence number after the last whole transaction.
    fn find_end(&self) -> Result<u32> {
        let (mut at, mut sequence) = (self.sb.start(), self.sb.sequence());
        let mut left = u64::from(self.steps());
        let mut sum = !0;
        while left > 0 {
            let block = self.read(at)?;
            if be32(&block, 0) != MAGIC || be32(&block, 8) != sequence {
                break;
            }
            match be32(&block, 4) {
                DESCRIPTOR => {
                    if !self.tail_is_right(&block) {
                        break;
                    }
                    let tags = self.tags(&block)?;
                    if self.sb.compat() & COMPAT_CHECKSUM != 0 {
                        sum = crc32_be(sum, &block);
                        for step in 1..=tags.len() {
                            sum = crc32_be(sum, &self.read(self.skip(at, step))?);
                        }
                    }
                    left = left.saturating_sub(tags.len() as u64 + 1);
                    at = self.skip(at, tags.len() + 1);
                }
                COMMIT => {
                    if !self.commit_is_right(&block, sum) {
                        break;
                    }
                    sum = !0;
                    sequence = sequence.wrapping_add(1);
                    left -= 1;
                    at = self.next(at);
                }
                REVOKE => {
                    if !self.tail_is_right(&block) {
                        break;
                    }
                    left -= 1;
                    at = self.next(at);
                }
                _ => break,
            }
        }
        Ok(sequence)
    }

    /// For each revoked block the newest transaction that revokes it.
    fn revocations(&self, end: u32) -> Result<HashMap<u64, u32>> {
        let mut revoked = HashMap::new();
        self.walk(end, &mut |_, kind, sequence, block| {
            if kind == REVOKE {
                let used = (be32(block, 12) as usize).min(block.len());
                let width = if self.sb.wide() { 8 } else { 4 };
                for entry in block.get(16..used).unwrap_or(&[]).chunks_exact(width) {
                    let number = match bytes::be64(entry, 0) {
                        Some(number) => number,
                        None => be32(entry, 0).into(),
                    };
                    let newest = revoked.entry(number).or_insert(sequence);
                    if after(sequence, *newest) {
                        *newest = sequence;
                    }
                }
            }
            Ok(())
        })?;
        Ok(revoked)
    }

    fn collect(&self, end: u32, revoked: &HashMap<u64, u32>, replay: &mut Replay) -> Result<()> {
        self.walk(end, &mut |at, kind, sequence, block| {
            if kind != DESCRIPTOR {
                return Ok(());
            }
            for (step, tag) in self.tags(block)?.into_iter().enumerate() {
                let dead = revoked.get(&tag.block).is_some_and(|newest| !after(sequence, *newest));
                if dead || tag.flags & TAG_DELETED != 0 {
                    continue;
                }
                let place = (self.map)(self.skip(at, step + 1))?;
                if !self.data_is_right(&tag, sequence, self.skip(at, step + 1))? {
                    replay.damaged += 1;
                    continue;
                }
                let escaped = tag.flags & TAG_ESCAPE != 0;
                replay.overlay.blocks.insert(tag.block, Place { block: place, escaped });
            }
            Ok(())
        })
    }

    /// Visits the descriptor and revoke blocks of the whole transactions.
    fn walk(&self, end: u32, visit: &mut Visit<'_>) -> Result<()> {
        let (mut at, mut sequence) = (self.sb.start(), self.sb.sequence());
        let mut left = u64::from(self.steps()) + 1;
        while sequence != end && left > 0 {
            left -= 1;
            let block = self.read(at)?;
            if be32(&block, 0) != MAGIC || be32(&block, 8) != sequence {
                break;
            }
            let kind = be32(&block, 4);
            visit(at, kind, sequence, &block)?;
            at = match kind {
                DESCRIPTOR => self.skip(at, self.tags(&block)?.len() + 1),
                COMMIT => {
                    sequence = sequence.wrapping_add(1);
                    self.next(at)
                }
                _ => self.next(at),
            };
        }
        Ok(())
    }

    fn tags(&self, block: &[u8]) -> Result<Vec<Tag>> {
        let size = self.sb.tag_size();
        let tail = if self.sb.has_checksums() { 4 } else { 0 };
        let mut tags = Vec::new();
        let mut at = 12;
        while let Some(bytes) = block.get(at..at + size).filter(|_| at + size <= block.len() - tail)
        {
            let high = if self.sb.wide() { be32(bytes, 8) } else { 0 };
            let (flags, checksum) = if self.sb.v3() {
                (be32(bytes, 4), be32(bytes, 12))
            } else {
                (be16(bytes, 6).into(), be16(bytes, 4).into())
            };
            tags.push(Tag {
                block: u64::from(high) << 32 | u64::from(be32(bytes, 0)),
                flags,
                checksum,
            });
            at += size;
            if flags & TAG_SAME_UUID == 0 {
                at += 16;
            }
            if flags & TAG_LAST != 0 {
                break;
            }
        }
        Ok(tags)
    }

    fn data_is_right(&self, tag: &Tag, sequence: u32, at: u32) -> Result<bool> {
        if !self.sb.has_checksums() {
            return Ok(true);
        }
        let mut number = [0; 4];
        put_be32(&mut number, 0, sequence);
        let sum = crc32c(crc32c(self.seed, &number), &self.read(at)?);
        Ok(if self.sb.v3() { sum == tag.checksum } else { sum & 0xffff == tag.checksum })
    }

    fn tail_is_right(&self, block: &[u8]) -> bool {
        if !self.sb.has_checksums() {
            return true;
        }
        let mut copy = block.to_vec();
        put_be32(&mut copy, block.len() - 4, 0);
        crc32c(self.seed, &copy) == be32(block, block.len() - 4)
    }

    fn commit_is_right(&self, block: &[u8], sum: u32) -> bool {
        if self.sb.has_checksums() {
            let mut copy = block.to_vec();
            put_be32(&mut copy, 16, 0);
            return crc32c(self.seed, &copy) == be32(block, 16);
        }
        if self.sb.compat() & COMPAT_CHECKSUM == 0 {
            return true;
        }
        let (kind, size) = (block.get(12).copied(), block.get(13).copied());
        let stored = be32(block, 16);
        match (kind, size) {
            (Some(1), Some(4)) => stored == sum,
            // Not filled in: an older kernel, or no checksum asked for.
            (Some(0), Some(0)) => stored == 0,
            _ => !self.sb.async_commit(),
        }
    }

    /// True when the fast-commit area begins with a head of the transaction after the log.
    fn has_fast_commits(&self, next: u32) -> Result<bool> {
        const TAG_HEAD: u16 = 0x000A;
        if self.sb.fast_commit_blocks() == 0 || self.sb.log_end() >= self.sb.length() {
            return Ok(false);
        }
        let block = self.read(self.sb.log_end())?;
        let tid = super::super::layout::le32(&block, 8);
        let tag = super::super::layout::le16(&block, 0);
        Ok(tag == TAG_HEAD && (tid == next || tid.wrapping_add(1) == next))
    }
}

/// Sequence numbers wrap.
fn after(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) > 0
}

/// CRC-32 with polynomial 0x04C11DB7, most significant bit first.
pub(super) fn crc32_be(seed: u32, bytes: &[u8]) -> u32 {
    const fn table() -> [u32; 256] {
        let mut table = [0; 256];
        let mut i = 0;
        while i < 256 {
            let mut value = (i as u32) << 24;
            let mut bit = 0;
            while bit < 8 {
                value =
                    if value & 0x8000_0000 != 0 { value << 1 ^ 0x04C1_1DB7 } else { value << 1 };
                bit += 1;
            }
            table[i] = value;
            i += 1;
        }
        table
    }
    const TABLE: [u32; 256] = table();
    bytes.iter().fold(seed, |sum, byte| sum << 8 ^ TABLE[(sum >> 24 ^ u32::from(*byte)) as usize])
}
