//! Block maps: twelve direct pointers in the inode, then trees of one, two and three levels.

use disksmith_disk::Result;

use super::core::{Core, corrupt};
use super::layout::{Inode, le32, put32};
use super::mapping::Run;
use crate::errors;

/// Pointers in the inode that are direct.
const DIRECT: u64 = 12;

impl Core {
    fn pointers(&self) -> u64 {
        (self.shape.block_size / 4) as u64
    }

    /// For a logical block: the slot in the inode and the indexes in each level below it.
    fn indirect_path(&self, logical: u64) -> Result<(usize, Vec<usize>)> {
        if logical < DIRECT {
            return Ok((logical as usize, Vec::new()));
        }
        let per_block = self.pointers();
        let mut rest = logical - DIRECT;
        let mut span = per_block;
        for level in 1..=3_usize {
            if rest < span {
                let mut path = Vec::with_capacity(level);
                let mut below = span;
                for _ in 0..level {
                    below /= per_block;
                    path.push((rest / below) as usize);
                    rest %= below;
                }
                return Ok((11 + level, path));
            }
            rest -= span;
            span *= per_block;
        }
        Err(errors::too_big())
    }

    fn pointer_block(&self, inode: &Inode, block: u64) -> Result<super::cache::Block> {
        if !self.shape.valid_range(block, 1) {
            return Err(corrupt(format!("inode {} points to block {block}", inode.number)));
        }
        self.block(block)
    }

    /// What lies at `logical`: a run of at most `most` blocks.
    pub(crate) fn map_indirect(&self, inode: &Inode, logical: u64, most: u64) -> Result<Run> {
        let Ok((slot, path)) = self.indirect_path(logical) else {
            return Ok(Run::hole(logical, most));
        };
        let mut pointer = inode.block_pointer(slot);
        let Some((last, upper)) = path.split_last() else {
            let pointers: Vec<u32> = (slot..12).map(|index| inode.block_pointer(index)).collect();
            return Ok(run_of(&pointers, logical, most));
        };
        // A missing pointer block means a hole over all that is below it.
        let mut span = self.pointers().pow(path.len() as u32);
        let mut offset: u64 = path.iter().fold(0, |all, at| all * self.pointers() + *at as u64);
        for index in upper {
            if pointer == 0 {
                return Ok(Run::hole(logical, (span - offset).min(most)));
            }
            let block = self.pointer_block(inode, pointer.into())?;
            pointer = le32(&block, index * 4);
            span /= self.pointers();
            offset %= span;
        }
        if pointer == 0 {
            return Ok(Run::hole(logical, (span - offset).min(most)));
        }
        let block = self.pointer_block(inode, pointer.into())?;
        let end = (*last as u64 + most.min(self.pointers())).min(self.pointers()) as usize;
        let pointers: Vec<u32> = (*last..end).map(|index| le32(&block, index * 4)).collect();
        Ok(run_of(&pointers, logical, most))
    }

    /// Points `logical..logical + count` to `place` and following blocks.
    pub(crate) fn set_indirect(
        &mut self,
        inode: &mut Inode,
        logical: u64,
        place: u64,
        count: u64,
    ) -> Result<()> {
        for step in 0..count {
            let value = u32::try_from(place + step).map_err(|_| errors::too_big())?;
            let (slot, path) = self.indirect_path(logical + step)?;
            let mut pointer = inode.block_pointer(slot);
            let Some((last, upper)) = path.split_last() else {
                inode.set_block_pointer(slot, value);
                continue;
            };
            if pointer == 0 {
                pointer = self.new_pointer_block(inode)?;
                inode.set_block_pointer(slot, pointer);
            }
            for index in upper {
                let block = self.pointer_block(inode, pointer.into())?;
                let mut below = le32(&block, index * 4);
                drop(block);
                if below == 0 {
                    below = self.new_pointer_block(inode)?;
                    self.note_pointing(pointer.into());
                    put32(self.modify(pointer.into())?, index * 4, below);
                }
                pointer = below;
            }
            self.pointer_block(inode, pointer.into())?;
            self.note_pointing(pointer.into());
            put32(self.modify(pointer.into())?, last * 4, value);
        }
        Ok(())
    }

    fn new_pointer_block(&mut self, inode: &mut Inode) -> Result<u32> {
        let goal = self.inode_goal(inode);
        let block = self.allocate_metadata(goal)?;
        let number = u32::try_from(block).map_err(|_| errors::no_space())?;
        self.fresh(block)?;
        self.add_sectors(inode, 1, true)?;
        Ok(number)
    }

    /// Removes the pointers of `from..to` and the pointer blocks that become empty. Answers the
    /// runs that were mapped.
    pub(crate) fn clear_indirect(
        &mut self,
        inode: &mut Inode,
        from: u64,
        to: u64,
    ) -> Result<Vec<(u64, u64)>> {
        let mut freed = Vec::new();
        for slot in from.min(DIRECT)..to.min(DIRECT) {
            let pointer = inode.block_pointer(slot as usize);
            if pointer != 0 {
                push_run(&mut freed, pointer.into());
                inode.set_block_pointer(slot as usize, 0);
            }
        }
        let mut base = DIRECT;
        for level in 1..=3_u32 {
            let span = self.pointers().pow(level);
            let slot = 11 + level as usize;
            let pointer = inode.block_pointer(slot);
            if pointer != 0 && from < base + span && to > base {
                let range = (from.max(base) - base, to.min(base + span) - base);
                if self.prune(inode, pointer.into(), level, range, &mut freed)? {
                    inode.set_block_pointer(slot, 0);
                }
            }
            base += span;
        }
        Ok(freed)
    }

    /// Clears a range below a pointer block; true when the block itself was freed.
    fn prune(
        &mut self,
        inode: &mut Inode,
        block: u64,
        level: u32,
        range: (u64, u64),
        freed: &mut Vec<(u64, u64)>,
    ) -> Result<bool> {
        let below = self.pointers().pow(level - 1);
        let content = self.pointer_block(inode, block)?;
        let mut cleared = Vec::new();
        for index in range.0 / below..range.1.div_ceil(below) {
            let pointer = le32(&content, index as usize * 4);
            if pointer == 0 {
                continue;
            }
            let base = index * below;
            if level == 1 {
                push_run(freed, pointer.into());
                cleared.push(index as usize);
            } else {
                let inner = (range.0.max(base) - base, range.1.min(base + below) - base);
                if self.prune(inode, pointer.into(), level - 1, inner, freed)? {
                    cleared.push(index as usize);
                }
            }
        }
        drop(content);
        if cleared.is_empty() {
            return Ok(false);
        }
        let bytes = self.modify(block)?;
        for index in cleared {
            put32(bytes, index * 4, 0);
        }
        if !disksmith_disk::is_zero(bytes) {
            return Ok(false);
        }
        self.free_metadata(block)?;
        self.add_sectors(inode, 1, false)?;
        Ok(true)
    }
}

/// The run that a list of pointers begins with.
fn run_of(pointers: &[u32], logical: u64, most: u64) -> Run {
    let first = pointers.first().copied().unwrap_or(0);
    let same = |(step, pointer): (usize, &u32)| {
        if first == 0 {
            *pointer == 0
        } else {
            u64::from(*pointer) == u64::from(first) + step as u64
        }
    };
    let length =
        pointers.iter().enumerate().take_while(|(step, pointer)| same((*step, *pointer))).count();
    let length = (length as u64).min(most).max(1);
    let place = (first != 0).then_some(u64::from(first));
    Run { start: logical, length, place, unwritten: false }
}

fn push_run(runs: &mut Vec<(u64, u64)>, block: u64) {
    match runs.last_mut() {
        Some((start, count)) if *start + *count == block => *count += 1,
        _ => runs.push((block, 1)),
    }
}
