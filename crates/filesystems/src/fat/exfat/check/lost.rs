//! The bitmap against what was met: clusters marked as free that are in use, and the reverse.

use disksmith_disk::{Kind, Result};

use super::super::super::check::{Lost, Mend};
use super::super::super::layout::attribute;
use super::super::ROOT;
use super::super::layout::CHAIN_BAD;
use super::super::pages::Stage;
use super::super::set::{FileSet, Stream};
use super::Checker;

/// Runs without a name that are given one; the rest is freed.
const RESCUED_MAX: usize = 10_000;

/// Runs of clusters: first and count.
type Runs = Vec<(u32, u32)>;

impl Checker {
    pub(super) fn lost(&mut self) -> Result<()> {
        let (lost, unmarked) = self.differences()?;
        let count = |runs: &Runs| runs.iter().map(|run| u64::from(run.1)).sum::<u64>();
        if !unmarked.is_empty() {
            let clusters = count(&unmarked);
            self.ledger.found(format!("{clusters} clusters in use are marked as free"), true);
            for run in
                unmarked.iter().filter(|_| self.ledger.mends_all()).copied().collect::<Runs>()
            {
                self.volume.mark(Stage::Allocate, run, true)?;
            }
        }
        if lost.is_empty() {
            return Ok(());
        }
        let clusters = count(&lost);
        let bytes = clusters * self.volume.geometry.cluster;
        self.ledger.found(format!("{clusters} clusters ({bytes} bytes) belong to no file"), true);
        let Some(Mend::All(how)) = self.ledger.fix else { return Ok(()) };
        // The free clusters are counted from the bitmap as it is now.
        *self.volume.free.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner) = None;
        let mut number = 0;
        for (index, run) in lost.into_iter().enumerate() {
            if how == Lost::Free || index >= RESCUED_MAX || !self.rescue(run, &mut number)? {
                self.volume.frees.push(run);
            }
        }
        Ok(())
    }

    /// Clusters that are marked but belong to nothing, and those that belong to something but are
    /// not marked.
    fn differences(&mut self) -> Result<(Runs, Runs)> {
        let end = self.volume.end();
        let (mut lost, mut unmarked) = (Runs::new(), Runs::new());
        let (mut at, mut used) = (2, false);
        while at < end {
            let next = self.volume.find_bit(at, end, used)?.unwrap_or(end);
            for cluster in at..next {
                if self.ledger.is_claimed(cluster) != used {
                    note(if used { &mut lost } else { &mut unmarked }, cluster);
                }
            }
            (at, used) = (next, !used);
        }
        // What is marked as bad belongs to nobody, and stays so.
        let mut kept = Runs::new();
        for (first, count) in lost {
            for cluster in first..first + count {
                if self.volume.fat_entry(cluster)? != CHAIN_BAD {
                    note(&mut kept, cluster);
                }
            }
        }
        Ok((kept, unmarked))
    }

    /// Gives clusters a name in the root directory; false if there is no room for it.
    fn rescue(&mut self, (start, count): (u32, u32), number: &mut u32) -> Result<bool> {
        let root = self.volume.root_stream();
        let name = loop {
            let name: Vec<u16> = format!("FSCK{number:04}.REC").encode_utf16().collect();
            *number += 1;
            if self.volume.find(ROOT, root, &name)?.is_none() {
                break name;
            }
        };
        let now = self.volume.now();
        let upper = self.volume.upcase.fold(&name);
        let mut set = FileSet::new(&name, &upper, attribute::ARCHIVE, now);
        let size = u64::from(count) * self.volume.geometry.cluster;
        set.set_stream(Stream { start, size, contiguous: true }, size);
        match self.volume.add_set(ROOT, &set) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == Kind::OutOfSpace => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// Adds a cluster to runs in ascending order.
fn note(runs: &mut Runs, cluster: u32) {
    match runs.last_mut() {
        Some((first, count)) if *first + *count == cluster => *count += 1,
        _ => runs.push((cluster, 1)),
    }
}
