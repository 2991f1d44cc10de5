//! Quota files: what they say that users, groups and projects have, against what these have.
//!
//! The format is the kernel's "vfsv1": blocks of 1024 bytes; a tree of four levels over the id leads to
//! blocks of entries. Source: include/uapi and fs/quota/quotaio_v2.h as described in Linux's
//! quota documentation.

use std::collections::{BTreeMap, HashSet};

use disksmith_disk::Result;

use super::state::Fsck;
use crate::ext::bitmap;
use crate::ext::core::ROOT;
use crate::ext::features::RoCompat;
use crate::ext::layout::{Inode, le32, put};

/// Bytes of a block of the tree.
const BLOCK: u64 = 1024;
/// Bytes before the entries of a block, and of an entry.
const HEAD: usize = 16;
const ENTRY: usize = 72;
/// Levels of the tree.
const DEPTH: u32 = 4;
/// Where an entry counts inodes and bytes.
const INODES_AT: usize = 24;
const SPACE_AT: usize = 48;

/// Bytes and inodes.
type Usage = BTreeMap<u32, (u64, u64)>;

/// What an entry says, and where it lies in the file.
struct Entry {
    space: u64,
    inodes: u64,
    at: u64,
}

impl Fsck {
    pub(super) fn quotas(&mut self) -> Result<()> {
        if !self.core.sb.has_ro(RoCompat::QUOTA) || self.report.journal {
            return Ok(());
        }
        let sb = &self.core.sb;
        let files = [
            ("user", sb.s_usr_quota_inum()),
            ("group", sb.s_grp_quota_inum()),
            ("project", sb.s_prj_quota_inum()),
        ];
        let usage = self.usage();
        for ((what, number), usage) in files.into_iter().zip(usage) {
            if number != 0 && self.is_used(number) {
                self.quota(what, number, &usage)?;
            }
        }
        Ok(())
    }

    /// What each user, group and project has.
    fn usage(&self) -> [Usage; 3] {
        let mut usage: [Usage; 3] = Default::default();
        let (shape, sb) = (self.core.shape, &self.core.sb);
        let hidden = [sb.s_usr_quota_inum(), sb.s_grp_quota_inum(), sb.s_prj_quota_inum()];
        let used = |number: &u32| bitmap::get(&self.inodes, u64::from(number - 1));
        for number in std::iter::once(ROOT).chain(shape.first_inode..=shape.inodes).filter(used) {
            let Ok(inode) = self.core.inode_unchecked(number) else { continue };
            if hidden.contains(&number) {
                continue;
            }
            let space = self.core.sectors(&inode) * 512;
            let project = if inode.reaches(0xA0) { inode.i_projid() } else { 0 };
            for (usage, id) in usage.iter_mut().zip([inode.uid(), inode.gid(), project]) {
                let sum = usage.entry(id).or_default();
                *sum = (sum.0 + space, sum.1 + 1);
            }
        }
        usage
    }

    fn quota(&mut self, what: &str, number: u32, usage: &Usage) -> Result<()> {
        let Ok(file) = self.core.inode_unchecked(number) else { return Ok(()) };
        let mut entries = BTreeMap::new();
        let mut seen = HashSet::new();
        self.quota_tree(&file, 1, DEPTH, &mut seen, &mut entries);
        let ids: std::collections::BTreeSet<u32> =
            usage.keys().chain(entries.keys()).copied().collect();
        for id in ids {
            let (space, inodes) = usage.get(&id).copied().unwrap_or_default();
            // Who has no entry yet gets one from the kernel when files change.
            let Some(entry) = entries.get(&id) else { continue };
            let text = format!(
                "The {what} quota of {id} counts {} bytes and {} inodes, not {space} and {inodes}",
                entry.space, entry.inodes
            );
            if (entry.space, entry.inodes) != (space, inodes) && self.slip(text) {
                self.put_quota(&file, entry.at + INODES_AT as u64, inodes)?;
                self.put_quota(&file, entry.at + SPACE_AT as u64, space)?;
            }
        }
        Ok(())
    }

    /// A block of the quota file.
    fn quota_block(&self, file: &Inode, number: u64) -> Option<Vec<u8>> {
        let mut block = vec![0; BLOCK as usize];
        let at = number.checked_mul(BLOCK)?;
        let (logical, within) = (at >> self.core.shape.block_bits, at as usize);
        let place = self.core.map(file, logical, 1).ok()?.data()?;
        let data = self.core.block(place).ok()?;
        let within = within % self.core.shape.block_size;
        block.copy_from_slice(data.get(within..within + BLOCK as usize)?);
        Some(block)
    }

    fn quota_tree(
        &self,
        file: &Inode,
        number: u64,
        levels: u32,
        seen: &mut HashSet<(u64, u32)>,
        entries: &mut BTreeMap<u32, Entry>,
    ) {
        // A block may stand for several ranges of ids, but is read once.
        if !seen.insert((number, levels)) {
            return;
        }
        let Some(block) = self.quota_block(file, number) else { return };
        if levels > 0 {
            for below in block.chunks_exact(4).map(|bytes| le32(bytes, 0)).filter(|b| *b != 0) {
                self.quota_tree(file, below.into(), levels - 1, seen, entries);
            }
            return;
        }
        let word = |entry: &[u8], at: usize| {
            u64::from(le32(entry, at + 4)) << 32 | u64::from(le32(entry, at))
        };
        for (index, entry) in block[HEAD..].chunks_exact(ENTRY).enumerate() {
            if !disksmith_disk::is_zero(entry) {
                let at = number * BLOCK + (HEAD + index * ENTRY) as u64;
                let (space, inodes) = (word(entry, SPACE_AT), word(entry, INODES_AT));
                entries.insert(le32(entry, 0), Entry { space, inodes, at });
            }
        }
    }

    fn put_quota(&mut self, file: &Inode, at: u64, value: u64) -> Result<()> {
        let shape = self.core.shape;
        let Some(place) = self.core.map(file, at >> shape.block_bits, 1)?.data() else {
            return Ok(());
        };
        let within = at as usize & (shape.block_size - 1);
        put(self.core.modify(place)?, within, &value.to_le_bytes());
        Ok(())
    }
}
