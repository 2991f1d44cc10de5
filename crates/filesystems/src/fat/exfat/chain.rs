//! Where the bytes of files and directories lie: in one piece, or as the FAT says.

use std::sync::{Arc, PoisonError};

use disksmith_disk::Result;

use super::super::chain::{Circle, Run, append, at, length, split, tail};
use super::corrupt;
use super::layout::{CHAIN_END, ENTRY};
use super::pages::Stage;
use super::set::Stream;
use super::volume::Volume;
use crate::errors;
use crate::raw::le32;

impl Volume {
    /// Clusters for so many bytes.
    pub(crate) fn clusters_for(&self, size: u64) -> Result<u32> {
        u32::try_from(size.div_ceil(self.geometry.cluster)).map_err(|_| errors::too_big())
    }

    /// The runs of a stream: as many clusters as its size needs, or fewer if the chain ends early.
    pub(crate) fn runs(&self, stream: Stream) -> Result<Arc<Vec<Run>>> {
        let wanted = self.clusters_for(stream.size)?;
        if wanted == 0 {
            return Ok(Arc::default());
        }
        if !self.geometry.is_cluster(stream.start) {
            return Err(corrupt(format!("something begins at cluster {}", stream.start)));
        }
        if stream.contiguous {
            if wanted > self.end() - stream.start {
                return Err(corrupt("a file reaches beyond the volume"));
            }
            let run = Run { index: 0, cluster: stream.start, count: wanted };
            return Ok(Arc::new(vec![run]));
        }
        let known = self.chains.lock().unwrap_or_else(PoisonError::into_inner).get(stream.start);
        if let Some(runs) = known
            && self.reaches(&runs, wanted)?
        {
            return Ok(runs);
        }
        let runs = Arc::new(self.follow(stream.start, wanted)?);
        self.keep_chain(stream.start, runs.clone());
        Ok(runs)
    }

    /// True if a chain that is known is long enough, or whole. It was followed as far as a stream
    /// needs; a file that was moving when the power failed may have another one, that is longer.
    fn reaches(&self, runs: &[Run], wanted: u32) -> Result<bool> {
        Ok(length(runs) >= wanted
            || match tail(runs) {
                Some(last) => self.fat_entry(last)? == CHAIN_END,
                None => false,
            })
    }

    /// Remembers a chain that changed.
    pub(crate) fn keep_chain(&self, start: u32, runs: Arc<Vec<Run>>) {
        self.chains.lock().unwrap_or_else(PoisonError::into_inner).keep(start, runs);
    }

    pub(crate) fn forget_chain(&self, start: u32) {
        self.chains.lock().unwrap_or_else(PoisonError::into_inner).forget(start);
    }

    fn fat_place(&self, cluster: u32) -> u64 {
        self.geometry.fat() + u64::from(cluster) * 4
    }

    /// The entry of a cluster in the FAT.
    pub(crate) fn fat_entry(&self, cluster: u32) -> Result<u32> {
        let (page, within) = self.pages.page(self.fat_place(cluster))?;
        Ok(le32(&page, within))
    }

    /// Changes the entry of a cluster in the FAT.
    pub(crate) fn set_fat(&mut self, stage: Stage, cluster: u32, next: u32) -> Result<()> {
        self.pages.store(stage, self.fat_place(cluster), &next.to_le_bytes())
    }

    /// Chains runs of clusters in the FAT; the last one gets `last`.
    pub(crate) fn chain_up(&mut self, stage: Stage, runs: &[Run], last: u32) -> Result<()> {
        for (number, run) in runs.iter().enumerate() {
            let behind = runs.get(number + 1).map_or(last, |next| next.cluster);
            let mut entries: Vec<u8> =
                (run.cluster + 1..run.cluster + run.count).flat_map(u32::to_le_bytes).collect();
            entries.extend(behind.to_le_bytes());
            self.pages.store(stage, self.fat_place(run.cluster), &entries)?;
        }
        Ok(())
    }

    fn follow(&self, start: u32, most: u32) -> Result<Vec<Run>> {
        let mut runs: Vec<Run> = Vec::new();
        let mut cluster = start;
        let mut circle = Circle::new(start);
        for _ in 0..most.min(self.geometry.clusters) {
            if !self.geometry.is_cluster(cluster) {
                return Err(corrupt(format!(
                    "a chain leads to cluster {cluster}, which is not there"
                )));
            }
            append(&mut runs, &[Run { index: 0, cluster, count: 1 }]);
            let next = self.fat_entry(cluster)?;
            if next == CHAIN_END {
                break;
            }
            if circle.closes(next) {
                return Err(corrupt(format!("the chain from cluster {start} goes in a circle")));
            }
            cluster = next;
        }
        Ok(runs)
    }

    /// Where the byte `offset` of a chain lies, and how many follow it directly.
    pub(crate) fn locate(&self, runs: &[Run], offset: u64) -> Option<(u64, u64)> {
        let size = self.geometry.cluster;
        let (cluster, count) = at(runs, u32::try_from(offset / size).ok()?)?;
        let within = offset % size;
        Some((self.geometry.place(cluster) + within, u64::from(count) * size - within))
    }

    /// Where a slot of a directory lies.
    pub(crate) fn slot_place(&self, runs: &[Run], slot: u32) -> Result<u64> {
        let found = self.locate(runs, u64::from(slot) * ENTRY as u64);
        Ok(found.ok_or_else(errors::stale)?.0)
    }

    /// Gives a stream clusters for `size` bytes; `stream` is changed, not stored. It stays in one
    /// piece as long as what follows it is free, else it becomes a chain.
    pub(crate) fn grow(&mut self, stream: &mut Stream, size: u64) -> Result<Arc<Vec<Run>>> {
        let runs = self.runs(*stream)?;
        let (there, wanted) = (length(&runs), self.clusters_for(size)?);
        if there < self.clusters_for(stream.size)? {
            return Err(corrupt("a file's chain is shorter than the file"));
        }
        stream.size = stream.size.max(size);
        if wanted <= there {
            return Ok(runs);
        }
        let end = tail(&runs);
        if end.is_some_and(|end| self.cuts.contains(&end)) {
            self.commit()?;
        }
        let new = self.allocate(wanted - there, end.map_or(0, |end| end + 1))?;
        let first = new.first().map_or(0, |run| run.cluster);
        let mut longer = (*runs).clone();
        append(&mut longer, &new);
        let whole = longer.len() == 1 && (end.is_none() || stream.contiguous);
        if !whole {
            self.join(stream, &runs, &new)?;
            stream.contiguous = false;
        } else if end.is_none() {
            stream.contiguous = true;
        }
        if end.is_none() {
            stream.start = first;
        }
        let longer = Arc::new(longer);
        if !stream.contiguous {
            self.keep_chain(stream.start, longer.clone());
        }
        Ok(longer)
    }

    /// Chains new clusters, behind those that are there.
    fn join(&mut self, stream: &Stream, there: &[Run], new: &[Run]) -> Result<()> {
        let first = new.first().map_or(CHAIN_END, |run| run.cluster);
        self.chain_up(Stage::Allocate, new, CHAIN_END)?;
        match tail(there) {
            None => Ok(()),
            // Nobody looks at these entries before the file says that it is a chain.
            Some(_) if stream.contiguous => self.chain_up(Stage::Allocate, there, first),
            Some(end) => self.set_fat(Stage::Link, end, first),
        }
    }

    /// Takes from a stream the clusters that `size` bytes do not need.
    pub(crate) fn shorten(&mut self, stream: &mut Stream, size: u64) -> Result<()> {
        let runs = self.runs(*stream)?;
        let (kept, rest) = split(&runs, self.clusters_for(size)?);
        stream.size = size;
        if rest.is_empty() {
            return Ok(());
        }
        match tail(&kept) {
            Some(end) if !stream.contiguous => {
                self.cuts.insert(end);
                self.keep_chain(stream.start, Arc::new(kept));
            }
            Some(_) => {}
            None => {
                self.forget_chain(stream.start);
                *stream = Stream::default();
            }
        }
        self.free_runs(&rest);
        Ok(())
    }
}
