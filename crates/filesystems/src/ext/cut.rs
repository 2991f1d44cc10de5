//! Cutting large files in several transactions. The file is an orphan meanwhile, so that whoever
//! opens the filesystem after a crash goes on.

use disksmith_disk::Result;

use super::core::Core;
use super::handle::Ext;
use super::layout::Inode;
use crate::Fallocate;

impl Ext {
    /// Cuts a file to `size`. The caller keeps others from its content.
    pub(super) fn cut(&self, number: u32, size: u64) -> Result<()> {
        self.change(|core| {
            let mut inode = core.live_inode(number.into())?;
            core.begin_cut(&mut inode, size)
        })?;
        loop {
            let done = self.change(|core| {
                let mut inode = core.inode(number)?;
                let from = size.div_ceil(core.shape.block_size as u64);
                let done = shorten(core, &mut inode, from)?;
                if done {
                    core.remove_orphan(&mut inode)?;
                }
                core.put_inode(&inode)?;
                Ok(done)
            })?;
            if done {
                return Ok(());
            }
        }
    }

    /// Frees an inode of the orphan list.
    pub(super) fn reap(&self, number: u32) -> Result<()> {
        loop {
            let done = self.change(|core| {
                let mut inode = core.inode(number)?;
                if !core.is_small(&inode) && core.has_mapping(&inode) {
                    shorten(core, &mut inode, 0)?;
                    core.put_inode(&inode)?;
                    return Ok(false);
                }
                core.remove_orphan(&mut inode)?;
                core.destroy_inode(&mut inode)?;
                Ok(true)
            })?;
            if done {
                return Ok(());
            }
        }
    }
}

impl Core {
    /// Prepares a cut in several steps: the new size, the inode on the orphan list.
    fn begin_cut(&mut self, inode: &mut Inode, size: u64) -> Result<()> {
        self.cut_tail(inode, size)?;
        inode.set_size(size);
        let now = self.now();
        inode.set_modified(now);
        inode.set_changed(now);
        self.add_orphan(inode)
    }

    /// Zeroes what is behind the new end in its block.
    fn cut_tail(&mut self, inode: &mut Inode, size: u64) -> Result<()> {
        let block = self.shape.block_size as u64;
        let end = size.next_multiple_of(block).min(inode.size());
        if end > size {
            let mut part = inode.clone();
            // Only the last block: everything after it is unmapped step by step.
            part.set_size(end);
            self.allocate_content(inode, size, end - size, Fallocate::PunchHole)?;
            self.note_truncated(inode.number);
        }
        Ok(())
    }
}

/// Unmaps some of the last blocks of a file, not below `from`; true when nothing is left there.
fn shorten(core: &mut Core, inode: &mut Inode, from: u64) -> Result<bool> {
    let end = core.mapped_end(inode)?;
    let (mut at, mut count) = (from, 0);
    let step = core.step_blocks();
    // Find where the last `step` mapped blocks begin: walk forward, keep the tail.
    let mut runs = std::collections::VecDeque::new();
    while at < end {
        let run = core.map(inode, at, end - at)?;
        if run.place.is_some() {
            runs.push_back((run.start, run.length));
            count += run.length;
            while runs.front().is_some_and(|(_, length)| count - length >= step) {
                count -= runs.pop_front().map_or(0, |run| run.1);
            }
        }
        at += run.length;
    }
    let Some((start, length)) = runs.front().copied() else { return Ok(true) };
    let start = (start + length.min((count.saturating_sub(step)).min(length))).max(from);
    core.unmap(inode, start, end)?;
    let first = core.map(inode, from, end - from)?;
    Ok(first.place.is_none() && first.start + first.length >= end)
}
