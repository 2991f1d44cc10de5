//! What is in files: bytes up to `ValidDataLength`, behind that zeroes up to `DataLength`.

use disksmith_disk::Result;

use super::super::chain::Run;
use super::corrupt;
use super::node::Node;
use super::set::{FileSet, Stream};
use super::volume::Volume;
use crate::errors;

/// Bytes of a buffer's part.
fn part(length: usize, done: usize, room: u64) -> usize {
    (length - done).min(usize::try_from(room).unwrap_or(usize::MAX))
}

impl Volume {
    fn check_file(node: &Node) -> Result<()> {
        if node.entry.is_directory() { Err(errors::is_a_directory()) } else { Ok(()) }
    }

    fn content_at(&self, runs: &[Run], offset: u64) -> Result<(u64, u64)> {
        let found = self.locate(runs, offset);
        found.ok_or_else(|| corrupt("a file's chain is shorter than the file"))
    }

    /// Fills `buffer` from `offset` on; short only at the end of the file.
    pub(crate) fn read_content(
        &self,
        node: &Node,
        offset: u64,
        buffer: &mut [u8],
    ) -> Result<usize> {
        Self::check_file(node)?;
        let left = node.entry.size().saturating_sub(offset);
        let want = (buffer.len() as u64).min(left) as usize;
        let stored = (want as u64).min(node.entry.valid().saturating_sub(offset)) as usize;
        let buffer = buffer.get_mut(..want).unwrap_or(&mut []);
        let (data, zeroes) = buffer.split_at_mut(stored);
        zeroes.fill(0);
        if stored == 0 {
            return Ok(want);
        }
        let runs = self.runs(node.entry.stream())?;
        let mut done = 0;
        while done < stored {
            let (place, room) = self.content_at(&runs, offset + done as u64)?;
            let step = part(stored, done, room);
            let piece = data.get_mut(done..done + step).unwrap_or(&mut []);
            self.pages.disk().read_at(piece, place)?;
            done += step;
        }
        Ok(want)
    }

    fn overwrite(&mut self, runs: &[Run], offset: u64, data: &[u8]) -> Result<()> {
        let mut done = 0;
        while done < data.len() {
            let (place, room) = self.content_at(runs, offset + done as u64)?;
            let step = part(data.len(), done, room);
            let piece = data.get(done..done + step).unwrap_or(&[]);
            self.pages.write_content(place, piece)?;
            done += step;
        }
        Ok(())
    }

    fn clear(&mut self, runs: &[Run], offset: u64, to: u64) -> Result<()> {
        let mut from = offset;
        while from < to {
            let (place, room) = self.content_at(runs, from)?;
            let step = (to - from).min(room);
            self.pages.clear_content(place, step)?;
            from += step;
        }
        Ok(())
    }

    /// Makes a range within a file zero.
    pub(crate) fn zero_content(&mut self, node: &Node, offset: u64, to: u64) -> Result<()> {
        Self::check_file(node)?;
        let to = to.min(node.entry.valid());
        if offset < to {
            let runs = self.runs(node.entry.stream())?;
            self.clear(&runs, offset, to)?;
        }
        Ok(())
    }

    /// Writes all of `data` at `offset`; the file grows as needed. The set in `node` is changed,
    /// not stored.
    pub(crate) fn write_content(
        &mut self,
        node: &mut Node,
        offset: u64,
        data: &[u8],
    ) -> Result<()> {
        Self::check_file(node)?;
        if data.is_empty() {
            return Ok(());
        }
        let end = offset.checked_add(data.len() as u64).ok_or_else(too_big)?;
        let valid = node.entry.valid();
        let mut stream = node.entry.stream();
        let size = end.max(stream.size);
        let runs = self.grow(&mut stream, size)?;
        if offset > valid {
            self.clear(&runs, valid, offset)?;
        }
        self.overwrite(&runs, offset, data)?;
        node.entry.set_stream(stream, valid.max(end));
        Ok(())
    }

    /// Changes a file's length; what is added is zero.
    pub(crate) fn resize_content(&mut self, node: &mut Node, size: u64) -> Result<()> {
        Self::check_file(node)?;
        let mut stream = node.entry.stream();
        if size > stream.size {
            self.grow(&mut stream, size)?;
        } else if size < stream.size {
            self.shorten(&mut stream, size)?;
        }
        let valid = node.entry.valid().min(stream.size);
        node.entry.set_stream(stream, valid);
        Ok(())
    }

    /// All clusters of a file or directory, and of what others attached to it.
    pub(crate) fn all_runs(&self, set: &FileSet) -> Result<Vec<Run>> {
        let mut all = Vec::new();
        for stream in std::iter::once(set.stream()).chain(set.extra_streams()) {
            all.extend(self.runs(stream)?.iter());
        }
        Ok(all)
    }

    /// Frees all clusters of a file or directory that has no name any more.
    pub(crate) fn free_content(&mut self, set: &FileSet) -> Result<()> {
        let runs = self.all_runs(set)?;
        let streams: Vec<Stream> =
            std::iter::once(set.stream()).chain(set.extra_streams()).collect();
        for stream in streams {
            self.forget_chain(stream.start);
        }
        if set.is_directory() {
            self.forget_index(set.stream().start);
        }
        self.free_runs(&runs);
        Ok(())
    }
}

fn too_big() -> disksmith_disk::Error {
    errors::too_big().context("The file would be too large for exFAT")
}
