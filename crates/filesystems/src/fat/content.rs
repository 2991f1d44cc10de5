//! Files by number: their entries, and their content.

use std::sync::Arc;

use disksmith_disk::{Result, ZeroMode};

use super::chain::{FILE_MAX, Run, append, at, length, split, tail};
use super::core::Core;
use super::identity::{ROOT, Whereabouts};
use super::layout::{DirEntry, ENTRY, attribute};
use super::shape::{FatKind, corrupt};
use crate::errors;

/// A file and its entry.
pub(crate) type Node = super::node::Node<DirEntry>;

impl Core {
    pub(crate) fn is_fat32(&self) -> bool {
        self.shape.kind == FatKind::Fat32
    }

    /// The file with that number. The root directory has no entry: one is made up for it.
    pub(crate) fn node(&self, number: u64) -> Result<Node> {
        if number == ROOT {
            let mut entry = DirEntry::new(b"           ", attribute::DIRECTORY);
            entry.set_start(self.shape.root_cluster);
            return Ok(Node { number, entry, place: None });
        }
        let whereabouts = self.identities().find(number);
        match whereabouts {
            Whereabouts::Unlinked(entry) => Ok(Node { number, entry, place: None }),
            Whereabouts::Place(place) => {
                let entry = self.entry_at(place)?;
                Ok(Node { number, entry, place: Some(place) })
            }
        }
    }

    fn entry_at(&self, place: u64) -> Result<DirEntry> {
        let at = place.checked_mul(ENTRY as u64).ok_or_else(errors::stale)?;
        let (start, _) = super::chunk::chunk_at(&self.shape, at).ok_or_else(errors::stale)?;
        let chunk = self.chunks.get(&*self.disk, &self.shape, start)?;
        let slot = (at - start) as usize / ENTRY;
        let entry = chunk.entry(slot).ok_or_else(errors::stale)?;
        let gone = entry.is_free() || chunk.is_dead(slot);
        if gone || entry.is_long_part() || entry.is_volume_id() {
            return Err(errors::stale());
        }
        Ok(entry)
    }

    /// Changes a file's entry, in memory.
    pub(crate) fn put_node(&mut self, node: &Node) -> Result<()> {
        match node.place {
            Some(place) => {
                let at = place * ENTRY as u64;
                let chunk = self.chunks.store(&*self.disk, &self.shape, at, &node.entry.raw)?;
                self.transaction.chunks.insert(chunk);
            }
            None if node.number == ROOT => {}
            None => self.identities().put_unlinked(node.number, node.entry),
        }
        Ok(())
    }

    /// The first cluster of a directory; 0 for the root of FAT12 and FAT16.
    pub(crate) fn directory_start(&self, node: &Node) -> Result<u32> {
        if !node.entry.is_directory() {
            return Err(errors::not_a_directory());
        }
        let start = node.entry.start(self.is_fat32());
        match node.number {
            ROOT => Ok(start),
            _ => self.check_start(start),
        }
    }

    /// The start of the directory with that number.
    pub(crate) fn directory_of(&self, number: u64) -> Result<u32> {
        self.directory_start(&self.node(number)?)
    }

    fn check_file(node: &Node) -> Result<()> {
        if node.entry.is_directory() { Err(errors::is_a_directory()) } else { Ok(()) }
    }

    /// Fills `buffer` from `offset` on; short only at the end of the file.
    pub(crate) fn read_content(
        &self,
        node: &Node,
        offset: u64,
        buffer: &mut [u8],
    ) -> Result<usize> {
        Self::check_file(node)?;
        let left = u64::from(node.entry.size()).saturating_sub(offset);
        let want = (buffer.len() as u64).min(left) as usize;
        let buffer = buffer.get_mut(..want).unwrap_or(&mut []);
        if want == 0 {
            return Ok(0);
        }
        let runs = self.chain(node.entry.start(self.is_fat32()))?;
        let mut done = 0;
        while done < want {
            let (place, room) = self.content_at(&runs, offset + done as u64)?;
            let step = (want - done).min(usize::try_from(room).unwrap_or(usize::MAX));
            self.disk.read_at(buffer.get_mut(done..done + step).unwrap_or(&mut []), place)?;
            done += step;
        }
        Ok(want)
    }

    /// Where the byte `offset` of a file lies, and how many follow it directly.
    fn content_at(&self, runs: &[Run], offset: u64) -> Result<(u64, u64)> {
        let size = self.shape.cluster_size();
        let index = u32::try_from(offset / size).unwrap_or(u32::MAX);
        let (cluster, count) =
            at(runs, index).ok_or_else(|| corrupt("a file's chain is shorter than the file"))?;
        let within = offset % size;
        Ok((self.shape.place(cluster) + within, u64::from(count) * size - within))
    }

    /// Writes over content that is there; nothing else changes.
    pub(crate) fn overwrite(&self, runs: &[Run], offset: u64, data: &[u8]) -> Result<()> {
        let mut done = 0;
        while done < data.len() {
            let (place, room) = self.content_at(runs, offset + done as u64)?;
            let step = (data.len() - done).min(usize::try_from(room).unwrap_or(usize::MAX));
            self.disk.write_at(data.get(done..done + step).unwrap_or(&[]), place)?;
            done += step;
        }
        Ok(())
    }

    fn clear(&self, runs: &[Run], offset: u64, to: u64) -> Result<()> {
        let mut from = offset;
        while from < to {
            let (place, room) = self.content_at(runs, from)?;
            let step = (to - from).min(room);
            self.disk.write_zeroes(place, step, ZeroMode::Unmap)?;
            from += step;
        }
        Ok(())
    }

    /// Makes a range within a file zero.
    pub(crate) fn zero_content(&mut self, node: &Node, offset: u64, to: u64) -> Result<()> {
        Self::check_file(node)?;
        let runs = self.chain(node.entry.start(self.is_fat32()))?;
        self.transaction.content = true;
        self.clear(&runs, offset, to)
    }

    /// Writes all of `data` at `offset`; the file grows as needed.
    pub(crate) fn write_content(
        &mut self,
        node: &mut Node,
        offset: u64,
        data: &[u8],
    ) -> Result<()> {
        Self::check_file(node)?;
        let end = offset.checked_add(data.len() as u64).filter(|end| *end <= FILE_MAX);
        let end = end.ok_or_else(too_big)?;
        let size = u64::from(node.entry.size());
        let runs = self.grow_chain(node, end.max(size))?;
        self.transaction.content = true;
        if offset > size {
            self.clear(&runs, size, offset)?;
        }
        self.overwrite(&runs, offset, data)?;
        if end > size {
            node.entry.set_size(end as u32);
        }
        Ok(())
    }

    /// Gives a file clusters for `size` bytes; its entry in `node` is changed, not stored.
    fn grow_chain(&mut self, node: &mut Node, size: u64) -> Result<Arc<Vec<Run>>> {
        let start = node.entry.start(self.is_fat32());
        let runs = self.chain(start)?;
        let wanted = size.div_ceil(self.shape.cluster_size());
        let wanted = u32::try_from(wanted).map_err(|_| too_big())?;
        let there = length(&runs);
        if wanted <= there {
            return Ok(runs);
        }
        let end = tail(&runs);
        let new = self.allocate(wanted - there, end.map_or(0, |end| end + 1))?;
        let mut longer = (*runs).clone();
        drop(runs);
        append(&mut longer, &new);
        let first = new.first().map_or(0, |run| run.cluster);
        let start = match end {
            Some(end) => {
                self.link(end, first)?;
                start
            }
            None => {
                node.entry.set_start(first);
                first
            }
        };
        let longer = Arc::new(longer);
        self.keep_chain(start, longer.clone());
        Ok(longer)
    }

    /// Changes a file's length; what is added is zero.
    pub(crate) fn resize_content(&mut self, node: &mut Node, size: u64) -> Result<()> {
        Self::check_file(node)?;
        if size > FILE_MAX {
            return Err(too_big());
        }
        let old = u64::from(node.entry.size());
        if size >= old {
            let runs = self.grow_chain(node, size)?;
            if size > old {
                self.transaction.content = true;
                self.clear(&runs, old, size)?;
            }
        } else {
            self.shorten(node, size)?;
        }
        node.entry.set_size(size as u32);
        Ok(())
    }

    fn shorten(&mut self, node: &mut Node, size: u64) -> Result<()> {
        let start = node.entry.start(self.is_fat32());
        let runs = self.chain(start)?;
        let wanted = size.div_ceil(self.shape.cluster_size()) as u32;
        let (kept, rest) = split(&runs, wanted);
        if rest.is_empty() {
            return Ok(());
        }
        match tail(&kept) {
            Some(end) => {
                self.cut(end, &rest)?;
                self.keep_chain(start, Arc::new(kept));
            }
            None => {
                node.entry.set_start(0);
                self.forget_chain(start);
                self.free_runs(&rest);
            }
        }
        Ok(())
    }

    /// Frees all clusters of a file or directory that has no name any more.
    pub(crate) fn free_content(&mut self, entry: &DirEntry) -> Result<()> {
        let start = entry.start(self.is_fat32());
        if start == 0 {
            return Ok(());
        }
        let runs = self.chain(start)?;
        self.forget_chain(start);
        if entry.is_directory() {
            self.forget_directory(start);
        }
        self.free_runs(&runs);
        Ok(())
    }
}

fn too_big() -> disksmith_disk::Error {
    errors::too_big().context("A file on FAT has at most 4294967295 bytes")
}
