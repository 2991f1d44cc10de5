//! The journal (jbd2): reading what a crash left in it, and writing transactions.
//!
//! A transaction is: revoke blocks, descriptor blocks each followed by the blocks it describes,
//! and one commit block. Numbers are big-endian.

mod commit;
mod layout;
mod log;
mod replay;

use std::collections::HashMap;

use disksmith_disk::{Disk, Result};

pub(crate) use commit::InFlight;
pub(crate) use layout::{JournalSuper, encode_superblock};
pub(crate) use log::{Journal, LogPlace};
pub(crate) use replay::{Replay, scan};

/// Blocks whose newest content lies in the journal.
#[derive(Clone, Debug, Default)]
pub(crate) struct Overlay {
    block_size: usize,
    blocks: HashMap<u64, Place>,
}

/// Where in the journal a block's content lies.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    /// The filesystem block that holds it.
    pub(crate) block: u64,
    /// Its first four bytes were the journal's magic number and are stored as zeroes.
    pub(crate) escaped: bool,
}

impl Overlay {
    pub(crate) fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    pub(crate) fn block_size(&self) -> Option<usize> {
        (!self.is_empty()).then_some(self.block_size)
    }

    pub(crate) fn contains(&self, number: u64) -> bool {
        self.blocks.contains_key(&number)
    }

    /// Reads one block, from the journal if it is newer there.
    pub(crate) fn read(
        &self,
        disk: &dyn Disk,
        buffer: &mut [u8],
        number: u64,
        size: usize,
    ) -> Result<()> {
        match self.blocks.get(&number) {
            None => disk.read_at(buffer, number * size as u64),
            Some(place) => {
                disk.read_at(buffer, place.block * size as u64)?;
                if place.escaped {
                    super::layout::put_be32(buffer, 0, layout::MAGIC);
                }
                Ok(())
            }
        }
    }

    /// The numbers of all blocks, ascending.
    pub(crate) fn numbers(&self) -> Vec<u64> {
        let mut numbers: Vec<u64> = self.blocks.keys().copied().collect();
        numbers.sort_unstable();
        numbers
    }
}
