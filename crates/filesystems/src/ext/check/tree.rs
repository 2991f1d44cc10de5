//! The tree: every directory leads to the root, every inode has as many names as it counts.

use std::collections::HashSet;

use disksmith_disk::Result;

use super::known::Known;
use super::state::Fsck;
use crate::FileKind;
use crate::ext::core::{JOURNAL_INODE, ROOT};
use crate::ext::features::{Incompat, RoCompat};
use crate::ext::layout::inode::flags;

/// A directory with more subdirectories counts one link.
const LINKS_MAX: u32 = 65_000;

impl Fsck {
    pub(super) fn connections(&mut self) {
        if !self.folders.contains_key(&ROOT) {
            self.waiting.root = self.problem("There is no root directory");
        }
        let numbers: Vec<u32> = self.folders.keys().copied().collect();
        let mut reached: HashSet<u32> = HashSet::from([ROOT]);
        for number in numbers {
            let folder = self.folders.get(&number).copied().unwrap_or_default();
            let parent = if number == ROOT { ROOT } else { folder.named_in };
            let unlinked = self.known.get(number).links == Some(0)
                || number < self.core.shape.first_inode && number != ROOT;
            if parent != 0
                && folder.dotdot != 0
                && folder.dotdot != parent
                && self.problem(format!(
                    "'..' of directory {number} is {}, not {parent}",
                    folder.dotdot
                ))
            {
                self.waiting.parents.push((number, parent));
            }
            let mut way = Vec::new();
            let mut on_way = HashSet::new();
            let mut at = number;
            while !reached.contains(&at) && !unlinked {
                let up = self.folders.get(&at).map_or(0, |folder| folder.named_in);
                if up == 0 || !on_way.insert(at) {
                    let text = format!("Directory {at} is not connected to the root");
                    if self.problem(text) {
                        self.waiting.connect.push(at);
                    }
                    break;
                }
                way.push(at);
                at = up;
            }
            reached.extend(way);
            reached.insert(at);
        }
    }

    /// Numbers of inodes that have no names by design.
    fn is_hidden(&self, number: u32) -> bool {
        let sb = &self.core.sb;
        number < self.core.shape.first_inode && number != ROOT
            || [
                sb.s_usr_quota_inum(),
                sb.s_grp_quota_inum(),
                sb.s_prj_quota_inum(),
                sb.s_orphan_file_inum(),
                JOURNAL_INODE,
            ]
            .contains(&number)
    }

    pub(super) fn link_counts(&mut self) -> Result<()> {
        for number in self.known.in_use() {
            if self.is_hidden(number) || self.orphans.contains(&number) {
                continue;
            }
            let Known { kind, links, names } = self.known.get(number);
            let links = links.map_or(0, u32::from);
            if kind == Some(FileKind::Directory) {
                let folder = self.folders.get(&number).copied().unwrap_or_default();
                let expected = folder.subfolders + 2;
                let many = links == 1
                    && (self.core.shape.has_ro(RoCompat::DIR_NLINK) || expected > LINKS_MAX);
                if expected > LINKS_MAX
                    && !self.core.sb.has_ro(RoCompat::DIR_NLINK)
                    && self.slip("There are directories that need the feature dir_nlink")
                {
                    self.core.super_mut().set_ro(RoCompat::DIR_NLINK, true);
                }
                let text = format!("Directory {number} counts {links} links, it has {expected}");
                if links != expected && !many && self.slip(text) {
                    let most = if expected > LINKS_MAX { 1 } else { expected };
                    self.set_links(number, most)?;
                }
            } else if names == 0 {
                self.nameless(number)?;
            } else if links != names && kind.is_some() {
                let holder =
                    self.core.inode_unchecked(number).is_ok_and(|i| i.has_flag(flags::EA_INODE));
                let text = format!("Inode {number} counts {links} links, it has {names}");
                if !holder && self.slip(text) {
                    self.set_links(number, names)?;
                }
            }
            self.value_users(number, names)?;
        }
        self.attribute_users()
    }

    /// An inode that holds a value counts its users in fields that are times elsewhere.
    fn value_users(&mut self, number: u32, users: u32) -> Result<()> {
        if !self.core.shape.has_incompat(Incompat::EA_INODE) || users == 0 {
            return Ok(());
        }
        let Ok(mut inode) = self.core.inode_unchecked(number) else { return Ok(()) };
        let counted = u64::from(inode.i_ctime()) << 32 | u64::from(inode.i_version());
        let text = format!("Inode {number} holds a value for {counted} users, it has {users}");
        if inode.has_flag(flags::EA_INODE) && counted != u64::from(users) && self.slip(text) {
            inode.set_i_ctime(0);
            inode.set_i_version(users);
            self.core.put_inode(&inode)?;
        }
        Ok(())
    }

    fn set_links(&mut self, number: u32, links: u32) -> Result<()> {
        let mut inode = self.core.inode_unchecked(number)?;
        inode.set_i_links_count(links.min(LINKS_MAX) as u16);
        self.core.put_inode(&inode)
    }

    /// In use, but nothing names it: connected, or freed when there is nothing in it.
    fn nameless(&mut self, number: u32) -> Result<()> {
        if !self.problem(format!("Inode {number} is in use but has no name")) {
            return Ok(());
        }
        let mut inode = self.core.inode_unchecked(number)?;
        let holder = inode.has_flag(flags::EA_INODE);
        let empty = inode.size() == 0 && inode.blocks_raw() == 0 && inode.file_acl() == 0;
        if holder || empty {
            inode.raw.fill(0);
            return self.core.put_inode(&inode);
        }
        self.waiting.connect.push(number);
        Ok(())
    }
}
