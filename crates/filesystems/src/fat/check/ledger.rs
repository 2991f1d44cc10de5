//! What a check has found so far, and which clusters it has met.

use std::collections::HashSet;

use super::{CheckReport, Mend};

/// Findings told one by one; of more only the number is kept.
const FINDINGS_MAX: usize = 10_000;

/// The books of one check or repair.
pub(crate) struct Ledger {
    pub(crate) fix: Option<Mend>,
    pub(crate) report: CheckReport,
    /// How many of the findings were mended.
    pub(crate) mended: u64,
    /// A bit for each cluster that belongs to something.
    claimed: Vec<u64>,
    /// First clusters of files and directories.
    pub(crate) starts: HashSet<u32>,
}

impl Ledger {
    /// For a volume of so many clusters, numbered from 2.
    pub(crate) fn new(clusters: u32, fix: Option<Mend>) -> Self {
        Self {
            fix,
            report: CheckReport::default(),
            mended: 0,
            claimed: vec![0; (clusters as usize + 2).div_ceil(64)],
            starts: HashSet::new(),
        }
    }

    /// Something that can be mended at a risk, if at all.
    pub(crate) fn found(&mut self, text: impl Into<String>, mended: bool) {
        let mended = mended && self.mends_all();
        self.tell(text, mended);
    }

    /// Something that can be mended without a doubt.
    pub(crate) fn found_safe(&mut self, text: impl Into<String>) {
        self.tell(text, self.fix.is_some());
    }

    pub(crate) fn tell(&mut self, text: impl Into<String>, mended: bool) {
        self.report.count += 1;
        self.mended += u64::from(mended);
        if self.report.findings.len() < FINDINGS_MAX {
            self.report.findings.push(text.into());
        }
    }

    pub(crate) fn mends_all(&self) -> bool {
        matches!(self.fix, Some(Mend::All(_)))
    }

    /// Everything that was found is mended.
    pub(crate) fn all_mended(&self) -> bool {
        self.mended == self.report.count
    }

    pub(crate) fn is_claimed(&self, cluster: u32) -> bool {
        let word = self.claimed.get(cluster as usize / 64).copied().unwrap_or(0);
        word >> (cluster % 64) & 1 != 0
    }

    pub(crate) fn claim(&mut self, cluster: u32) {
        if let Some(word) = self.claimed.get_mut(cluster as usize / 64) {
            *word |= 1 << (cluster % 64);
            self.report.clusters += 1;
        }
    }
}
