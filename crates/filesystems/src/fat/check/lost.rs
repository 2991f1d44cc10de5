//! Clusters in use that belong to no file.

use disksmith_disk::{Kind, Result};

use super::super::chain::{FILE_MAX, Run};
use super::super::layout::{DirEntry, attribute};
use super::super::name::short_text;
use super::{Checker, Lost, Mend, RESCUED_MAX};
use crate::raw::put;

impl Checker {
    /// Clusters in use that belong to no file.
    pub(super) fn lost(&mut self) -> Result<()> {
        let end = self.core.shape.clusters + 2;
        let bad = self.core.shape.kind.bad();
        let mut led_to = vec![0_u64; (end as usize).div_ceil(64)];
        let (mut clusters, mut lost) = (0_u64, Vec::new());
        let mut reader = self.core.table.reader(&*self.core.disk, &self.core.shape);
        let mut at = 2;
        while let Some(cluster) = reader.find(at, end, false)? {
            at = cluster + 1;
            let next = reader.get(cluster)?;
            if next == bad || self.ledger.is_claimed(cluster) {
                continue;
            }
            clusters += 1;
            if lost.len() < 1 << 22 {
                lost.push(cluster);
            }
            if self.core.shape.is_cluster(next)
                && next != cluster
                && let Some(word) = led_to.get_mut(next as usize / 64)
            {
                *word |= 1 << (next % 64);
            }
        }
        if clusters == 0 {
            return Ok(());
        }
        let bytes = clusters * self.core.shape.cluster_size();
        self.ledger.found(format!("{clusters} clusters ({bytes} bytes) belong to no file"), true);
        let Some(Mend::All(how)) = self.ledger.fix else { return Ok(()) };
        let heads = lost.iter().filter(|c| {
            led_to.get(**c as usize / 64).is_none_or(|word| word >> (**c % 64) & 1 == 0)
        });
        let heads: Vec<u32> = heads.copied().collect();
        let mut number = 0;
        if how == Lost::Keep {
            for head in heads {
                if self.ledger.is_claimed(head) || number >= RESCUED_MAX {
                    continue;
                }
                self.rescue(head, &mut number)?;
            }
        }
        // What could not be kept, and what goes in circles.
        for cluster in lost {
            if !self.ledger.is_claimed(cluster) {
                self.core.free_runs(&[Run { index: 0, cluster, count: 1 }]);
            }
        }
        Ok(())
    }

    /// Gives a chain a name in the root directory.
    fn rescue(&mut self, head: u32, number: &mut u32) -> Result<()> {
        let most = (FILE_MAX / self.core.shape.cluster_size()) as u32;
        let walked = self.walk(head, most)?;
        let Some(last) = walked.last else { return Ok(()) };
        if walked.fault.is_some() {
            self.set(last, self.core.shape.kind.end())?;
        }
        let root = self.core.shape.root_cluster;
        let directory = self.core.directory(root)?;
        let mut name = *b"FSCK0000REC";
        while *number < RESCUED_MAX {
            put(&mut name, 4, format!("{number:04}").as_bytes());
            *number += 1;
            if self.core.short_owner(&directory, &name).is_none() {
                break;
            }
        }
        let mut entry = DirEntry::new(&name, attribute::ARCHIVE);
        entry.set_start(head);
        let size = u64::from(walked.clusters) * self.core.shape.cluster_size();
        entry.set_size(size.min(FILE_MAX) as u32);
        let now = self.core.now();
        entry.set_created(now);
        entry.set_modified(now);
        entry.set_accessed(now);
        let hash = self.core.name_hash(&short_text(&name, 0));
        match self.core.add_entries(root, &[entry.raw], &[hash]) {
            Ok(_) => Ok(()),
            // No room for the name: free it after all.
            Err(error) if error.kind() == Kind::OutOfSpace => {
                let chain = self.core.chain(head)?;
                self.core.free_runs(&chain);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}
