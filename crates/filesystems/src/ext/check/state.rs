//! What a check knows so far.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use disksmith_disk::Result;

use super::known::KnownInodes;
use super::{BLOCKS_MAX, CheckReport, FINDINGS_MAX, Repair};
use crate::ext::bitmap;
use crate::ext::core::Core;
use crate::ext::layout::Inode;

/// What is known of a directory.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Folder {
    pub(super) dotdot: u32,
    pub(super) named_in: u32,
    pub(super) subfolders: u32,
}

/// What waits until space can be given out.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    /// Inodes that claim blocks of others.
    pub(super) copies: BTreeSet<u32>,
    /// Directories to be built anew.
    pub(super) rebuild: BTreeSet<u32>,
    /// Inodes without a name.
    pub(super) connect: Vec<u32>,
    /// Directories whose `..` is wrong, and their parent.
    pub(super) parents: Vec<(u32, u32)>,
    /// The root directory is gone.
    pub(super) root: bool,
    pub(super) resize_inode: bool,
    pub(super) journal: bool,
}

/// A check, which mends when it may.
pub(super) struct Fsck {
    pub(super) core: Core,
    repair: Option<Repair>,
    pub(super) report: CheckReport,
    /// Changes made or put off until late.
    pub(super) mended: u64,
    /// A bit for each cluster.
    pub(super) used: Vec<u8>,
    /// Clusters claimed more than once.
    pub(super) twice: BTreeSet<u64>,
    /// A bit for each inode in use.
    pub(super) inodes: Vec<u8>,
    pub(super) folders: BTreeMap<u32, Folder>,
    pub(super) known: KnownInodes,
    /// Attribute blocks: users found.
    pub(super) shared: HashMap<u64, u32>,
    pub(super) orphans: HashSet<u32>,
    /// Encryption contexts without their nonces.
    pub(super) policies: HashMap<u32, Vec<u8>>,
    /// Some file is over 2 GiB.
    pub(super) large_files: bool,
    /// Bitmaps that lie on something else: group, and whether it is that of inodes.
    pub(super) displaced: BTreeSet<(u32, bool)>,
    pub(super) waiting: Waiting,
}

impl Fsck {
    pub(super) fn new(core: Core, repair: Option<Repair>) -> Result<Self> {
        if core.shape.blocks > BLOCKS_MAX {
            return Err(
                crate::errors::not_supported().context("The filesystem is too large to check")
            );
        }
        let clusters = core.shape.blocks >> core.shape.cluster_bits;
        let (used, inodes) =
            (vec![0; (clusters / 8 + 1) as usize], vec![0; (core.shape.inodes / 8 + 1) as usize]);
        let known = KnownInodes::new(core.shape.inodes);
        Ok(Self {
            report: CheckReport { journal: !core.overlay.is_empty(), ..CheckReport::default() },
            core,
            repair,
            mended: 0,
            used,
            twice: BTreeSet::new(),
            inodes,
            folders: BTreeMap::new(),
            known,
            shared: HashMap::new(),
            orphans: HashSet::new(),
            policies: HashMap::new(),
            large_files: false,
            displaced: BTreeSet::new(),
            waiting: Waiting::default(),
        })
    }

    pub(super) fn passes(&mut self) -> Result<()> {
        self.superblock()?;
        self.groups()?;
        self.inodes()?;
        self.directories()?;
        self.connections();
        self.link_counts()?;
        self.quotas()?;
        self.summaries()
    }

    /// Notes a finding.
    pub(super) fn found(&mut self, text: impl Into<String>) {
        self.report.count += 1;
        if self.report.findings.len() < FINDINGS_MAX {
            self.report.findings.push(text.into());
        }
    }

    /// Notes a finding whose remedy may lose something; true when it is to be mended.
    pub(super) fn problem(&mut self, text: impl Into<String>) -> bool {
        self.found(text);
        self.mends(self.repair == Some(Repair::All))
    }

    /// Notes a finding whose remedy is beyond doubt; true when it is to be mended.
    pub(super) fn slip(&mut self, text: impl Into<String>) -> bool {
        self.found(text);
        self.mends(self.repair.is_some())
    }

    fn mends(&mut self, yes: bool) -> bool {
        self.mended += u64::from(yes);
        yes
    }

    /// True when a repair of any kind is going on.
    pub(super) fn repairing(&self) -> bool {
        self.repair.is_some()
    }

    /// Writes what was changed so far.
    pub(super) fn save(&mut self) -> Result<()> {
        self.core.commit()
    }

    /// Keeps the memory bounded: writes when much was changed.
    pub(super) fn save_if_much(&mut self) -> Result<()> {
        if self.core.transaction.dirty.len() > 4096 { self.save() } else { Ok(()) }
    }

    pub(super) fn cluster(&self, block: u64) -> u64 {
        block.saturating_sub(self.core.shape.first_block) >> self.core.shape.cluster_bits
    }

    /// Accounts for blocks inside the filesystem; false when somebody has one of them already.
    pub(super) fn claim(&mut self, start: u64, count: u64, what: &dyn Fn() -> String) -> bool {
        let (from, to) = (self.cluster(start), self.cluster(start + count - 1));
        let mut fine = true;
        if !self.shares_blocks() {
            let mut at = from;
            while let Some(twice) = bitmap::find(&self.used, at, to + 1, true) {
                let block = (twice << self.core.shape.cluster_bits) + self.core.shape.first_block;
                if self.twice.insert(twice) {
                    self.found(format!(
                        "Block {block} is used twice, the second time by {}",
                        what()
                    ));
                } else {
                    self.report.count += 1;
                }
                fine = false;
                at = twice + 1;
            }
        }
        bitmap::set_range(&mut self.used, from, to - from + 1, true);
        fine
    }

    /// Accounts for blocks of a group's tables, which may share clusters.
    pub(super) fn claim_table(
        &mut self,
        start: u64,
        count: u64,
        what: &dyn Fn() -> String,
    ) -> bool {
        if self.core.shape.cluster_bits == 0 {
            return self.claim(start, count, what);
        }
        let (from, to) = (self.cluster(start), self.cluster(start + count - 1));
        bitmap::set_range(&mut self.used, from, to - from + 1, true);
        true
    }

    fn shares_blocks(&self) -> bool {
        self.core.shape.has_ro(crate::ext::features::RoCompat::SHARED_BLOCKS)
    }

    /// A run of `count` blocks between two blocks that nobody claimed.
    pub(super) fn unclaimed_in(&mut self, from: u64, to: u64, count: u64) -> Option<u64> {
        let shape = self.core.shape;
        let clusters = count.div_ceil(1 << shape.cluster_bits);
        let end = (to - shape.first_block) >> shape.cluster_bits;
        let mut at = self.cluster(from);
        while let Some(start) = bitmap::find(&self.used, at, end, false) {
            let limit = (start + clusters).min(end);
            match bitmap::find(&self.used, start, limit, true) {
                Some(taken) => at = taken + 1,
                None if start + clusters > end => return None,
                None => {
                    bitmap::set_range(&mut self.used, start, clusters, true);
                    return Some(shape.first_block + (start << shape.cluster_bits));
                }
            }
        }
        None
    }

    /// Stores an inode if it differs from `before`.
    pub(super) fn store(&mut self, inode: &Inode, before: &[u8]) -> Result<()> {
        if self.repairing() && inode.raw != before {
            self.core.put_inode(inode)?;
        }
        Ok(())
    }

    /// True when the inode was found in use.
    pub(super) fn is_used(&self, number: u32) -> bool {
        number != 0
            && number <= self.core.shape.inodes
            && bitmap::get(&self.inodes, u64::from(number - 1))
    }
}
