//! Looking for damage: every structure is read, every block and every inode is accounted for.
//! Nothing is written; a journal that holds changes is followed in memory.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use disksmith_disk::{Disk, Result};

use super::bitmap;
use super::core::{Core, JOURNAL_INODE, RESIZE_INODE, ROOT};
use super::dirent;
use super::features::{Compat, Incompat, RoCompat};
use super::layout::group::{BLOCK_UNINIT, INODE_UNINIT};
use super::layout::inode::flags;
use super::layout::superblock::STATE_ERROR;
use super::layout::{Inode, le32};
use crate::FileKind;

/// Findings told one by one; of more only the number is kept.
const FINDINGS_MAX: usize = 10_000;
/// The most blocks that are accounted for: a bit each.
const BLOCKS_MAX: u64 = 1 << 36;

/// What a check found.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct CheckReport {
    /// One line each.
    pub findings: Vec<String>,
    /// All findings, also those that are not told.
    pub count: u64,
    /// Inodes in use.
    pub files: u64,
    /// Blocks in use.
    pub blocks: u64,
    /// The journal held changes; they were taken into account.
    pub journal: bool,
}

/// Checks the filesystem on `disk`. An error means that it could not even be begun.
pub fn check(disk: Arc<dyn Disk>) -> Result<CheckReport> {
    let core = Core::open_read_only(disk)?;
    if core.shape.blocks > BLOCKS_MAX {
        return Err(crate::errors::not_supported().context("The filesystem is too large to check"));
    }
    let mut checker = Checker::new(&core);
    checker.groups();
    checker.inodes();
    checker.directories();
    checker.connections();
    checker.links();
    checker.summaries();
    Ok(checker.report)
}

/// What is known of a directory.
#[derive(Clone, Copy, Debug, Default)]
struct Folder {
    dotdot: u32,
    named_in: u32,
    subfolders: u32,
}

struct Checker<'a> {
    core: &'a Core,
    report: CheckReport,
    /// A bit for each cluster.
    used: Vec<u8>,
    inodes: Vec<u8>,
    folders: HashMap<u32, Folder>,
    /// Names found of each inode.
    names: HashMap<u32, u32>,
    kinds: HashMap<u32, FileKind>,
    links: HashMap<u32, u16>,
    /// Attribute blocks: users found.
    shared: HashMap<u64, u32>,
    orphans: HashSet<u32>,
}

impl<'a> Checker<'a> {
    fn new(core: &'a Core) -> Self {
        let clusters = core.shape.blocks >> core.shape.cluster_bits;
        Self {
            core,
            report: CheckReport { journal: !core.overlay.is_empty(), ..CheckReport::default() },
            used: vec![0; (clusters / 8 + 1) as usize],
            inodes: vec![0; (core.shape.inodes / 8 + 1) as usize],
            folders: HashMap::new(),
            names: HashMap::new(),
            kinds: HashMap::new(),
            links: HashMap::new(),
            shared: HashMap::new(),
            orphans: HashSet::new(),
        }
    }

    fn found(&mut self, text: impl Into<String>) {
        self.report.count += 1;
        if self.report.findings.len() < FINDINGS_MAX {
            self.report.findings.push(text.into());
        }
    }

    fn cluster(&self, block: u64) -> u64 {
        block.saturating_sub(self.core.shape.first_block) >> self.core.shape.cluster_bits
    }

    /// Accounts for blocks; `what` claims them.
    fn claim(&mut self, start: u64, count: u64, what: &dyn Fn() -> String) -> bool {
        if count == 0 || !self.core.shape.valid_range(start, count) {
            self.found(format!("{} lies outside of the filesystem, at block {start}", what()));
            return false;
        }
        let (from, to) = (self.cluster(start), self.cluster(start + count - 1));
        if let Some(twice) = bitmap::find(&self.used, from, to + 1, true) {
            // With clusters, neighbours of one file may share one.
            if self.core.shape.cluster_bits == 0 {
                let block = twice + self.core.shape.first_block;
                self.found(format!("Block {block} is used twice, the second time by {}", what()));
            }
        }
        bitmap::set_range(&mut self.used, from, to - from + 1, true);
        true
    }

    // ---- superblock and groups -------------------------------------------------------------

    fn groups(&mut self) {
        let core = self.core;
        let shape = core.shape;
        if core.sb.s_state() & STATE_ERROR != 0 {
            self.found("The superblock says that errors were found");
        }
        if core.sb.reserved_blocks() > shape.blocks / 2 {
            self.found("The superblock reserves more than half of the blocks");
        }
        let reserved = u64::from(core.sb.s_reserved_gdt_blocks());
        let sizes = u64::from(core.sb.s_reserved_gdt_blocks()) > shape.block_size as u64 / 4;
        if sizes {
            self.found("The superblock reserves too many descriptor blocks");
        }
        for group in 0..shape.groups {
            let first = shape.group_first_block(group);
            let base = shape.group_base_blocks(group, reserved).min(shape.group_blocks(group));
            if base > 0 {
                let (from, to) = (self.cluster(first), self.cluster(first + base - 1));
                bitmap::set_range(&mut self.used, from, to - from + 1, true);
            }
        }
        for group in 0..shape.groups {
            let Ok(descriptor) = core.group(group).copied() else { continue };
            if shape.lazy_groups {
                let stored = descriptor.bg_checksum();
                let tail = self.descriptor_tail(group);
                let uuid = core.sb.uuid();
                let sum =
                    super::core::group_checksum(&shape, &uuid, group, &descriptor, tail.as_deref());
                if stored != sum {
                    self.found(format!("The descriptor of group {group} has a wrong checksum"));
                }
            }
            let table = shape.table_blocks();
            for (what, start, count) in [
                ("block bitmap", descriptor.block_bitmap(), 1),
                ("inode bitmap", descriptor.inode_bitmap(), 1),
                ("inode table", descriptor.inode_table(), table),
            ] {
                self.claim(start, count, &|| format!("The {what} of group {group}"));
            }
        }
    }

    fn descriptor_tail(&self, group: u32) -> Option<Vec<u8>> {
        let shape = self.core.shape;
        if shape.descriptor_size <= 64 {
            return None;
        }
        let per_block = shape.descriptors_per_block();
        let block = self.core.block(shape.descriptor_block(u64::from(group) / per_block)).ok()?;
        let at = (u64::from(group) % per_block) as usize * shape.descriptor_size;
        block.get(at + 64..at + shape.descriptor_size).map(<[u8]>::to_vec)
    }

    // ---- inodes ----------------------------------------------------------------------------

    fn inodes(&mut self) {
        let core = self.core;
        self.orphan_list();
        for group in 0..core.shape.groups {
            let Ok(descriptor) = core.group(group).copied() else { continue };
            let lazy = core.shape.lazy_groups;
            let used = match lazy {
                true if descriptor.has_flag(INODE_UNINIT) => 0,
                true => core.shape.inodes_per_group.saturating_sub(descriptor.itable_unused()),
                false => core.shape.inodes_per_group,
            };
            if !core.shape.valid_range(descriptor.inode_table(), core.shape.table_blocks()) {
                continue;
            }
            for index in 0..used {
                let number = group * core.shape.inodes_per_group + index + 1;
                if index % (core.shape.inodes_per_block() * 16) == 0 {
                    let block =
                        descriptor.inode_table() + u64::from(index / core.shape.inodes_per_block());
                    let left = descriptor.inode_table() + core.shape.table_blocks() - block;
                    // A failing read shows again below, by its inode.
                    let _ = core.prefetch(block, left.min(16));
                }
                match core.inode_unchecked(number) {
                    Ok(inode) => self.inode(&inode),
                    Err(error) => self.found(format!("Inode {number} cannot be read: {error}")),
                }
            }
        }
    }

    fn orphan_list(&mut self) {
        let mut number = self.core.sb.s_last_orphan();
        while number != 0 {
            if number > self.core.shape.inodes || !self.orphans.insert(number) {
                self.found("The orphan list is bad");
                return;
            }
            number = match self.core.inode_unchecked(number) {
                Ok(inode) => inode.i_dtime(),
                Err(_) => 0,
            };
        }
    }

    fn inode(&mut self, inode: &Inode) {
        let core = self.core;
        let number = inode.number;
        let reserved = number < core.shape.first_inode && number != ROOT;
        if reserved {
            bitmap::set(&mut self.inodes, u64::from(number - 1), true);
        }
        let blank = disksmith_disk::is_zero(&inode.raw);
        if core.shape.checksums && !blank && inode.checksum() != core.inode_checksum(inode) {
            let in_use = inode.i_links_count() > 0 || reserved;
            self.found(format!("Inode {number} has a wrong checksum"));
            if !in_use {
                return;
            }
        }
        if reserved && blank {
            return;
        }
        if inode.i_links_count() == 0 && !reserved && !self.orphans.contains(&number) {
            if inode.i_dtime() == 0 && inode.i_mode() != 0 {
                self.found(format!("Inode {number} was deleted but has no time of deletion"));
            }
            if number == ROOT {
                self.found("There is no root directory");
            }
            return;
        }
        if !reserved
            && inode.i_links_count() > 0
            && inode.i_dtime() != 0
            && !self.orphans.contains(&number)
        {
            self.found(format!("Inode {number} is in use but has a time of deletion"));
        }
        bitmap::set(&mut self.inodes, u64::from(number - 1), true);
        self.report.files += u64::from(!reserved);
        self.links.insert(number, inode.i_links_count());
        if number == RESIZE_INODE {
            return self.resize_inode(inode);
        }
        let Some(kind) = inode.kind() else {
            if !reserved || inode.i_mode() != 0 {
                self.found(format!("Inode {number} is of no known kind"));
            }
            return self.content(inode, FileKind::Regular);
        };
        self.kinds.insert(number, kind);
        if number == ROOT && kind != FileKind::Directory {
            self.found("The root inode is no directory");
        }
        if core.shape.inode_size > 128 {
            let extra = usize::from(inode.i_extra_isize());
            if extra % 4 != 0 || 128 + extra > core.shape.inode_size || (1..4).contains(&extra) {
                self.found(format!("Inode {number} has a bad i_extra_isize"));
            }
        }
        let known = flags::EXTENTS | flags::INLINE_DATA;
        if inode.i_flags() & known == known {
            self.found(format!("Inode {number} has both extents and inline data"));
        }
        if inode.has_flag(flags::EXTENTS) && !core.shape.has_incompat(Incompat::EXTENTS) {
            self.found(format!("Inode {number} has extents, the filesystem has not"));
        }
        if inode.has_flag(flags::IMAGIC) && !core.shape.has_compat(Compat::IMAGIC_INODES) {
            self.found(format!("Inode {number} has the flag imagic"));
        }
        if inode.has_flag(flags::INDEX) && kind != FileKind::Directory {
            self.found(format!("Inode {number} has an index but is no directory"));
        }
        match kind {
            FileKind::Directory => {
                self.folders.insert(number, Folder::default());
            }
            FileKind::Symlink => self.symlink(inode),
            FileKind::CharDevice | FileKind::BlockDevice | FileKind::Fifo | FileKind::Socket => {
                if inode.size() != 0 {
                    self.found(format!("Inode {number} is a special file with a length"));
                }
                if inode.has_flag(flags::EXTENTS) {
                    self.found(format!("Inode {number} is a special file with extents"));
                }
            }
            FileKind::Regular => {}
        }
        self.content(inode, kind);
    }

    fn symlink(&mut self, inode: &Inode) {
        match self.core.link_target(inode) {
            Err(error) if error.errno() == Some(126) => {}
            Err(error) => self.found(format!("Symlink {} is bad: {error}", inode.number)),
            Ok(target) if target.is_empty() || target.contains(&0) => {
                self.found(format!("Symlink {} is bad", inode.number));
            }
            Ok(_) => {}
        }
    }

    /// Accounts for everything that an inode has.
    fn content(&mut self, inode: &Inode, kind: FileKind) {
        let core = self.core;
        let number = inode.number;
        let who = move || format!("inode {number}");
        let mut clusters: u64 = 0;
        let per_cluster = 1_u64 << core.shape.cluster_bits;
        if core.has_mapping(inode) {
            let (blocks, pieces) = match self.pieces(inode) {
                Ok(found) => found,
                Err(error) => {
                    self.found(format!("The mapping of inode {number} is bad: {error}"));
                    return;
                }
            };
            for block in &blocks {
                self.claim(*block, 1, &who);
            }
            clusters += blocks.len() as u64;
            let mut last_cluster = None;
            let mut end = 0;
            let mut before = 0;
            for (start, place, length, unwritten) in &pieces {
                if *start < before || *length == 0 {
                    self.found(format!("The extents of inode {number} are out of order"));
                }
                before = start + length;
                if !self.claim(*place, *length, &who) {
                    return;
                }
                let (from, to) = (self.cluster(*place), self.cluster(place + length - 1));
                clusters += to - from + 1 - u64::from(last_cluster == Some(from));
                last_cluster = Some(to);
                if !unwritten {
                    end = start + length;
                }
            }
            self.length(inode, kind, end, pieces.last().map_or(0, |p| p.0 + p.2));
        }
        if inode.file_acl() != 0 {
            clusters += u64::from(self.attribute_block(inode));
        }
        clusters += self.values(inode, per_cluster);
        let expected = clusters * per_cluster * (core.shape.block_size as u64 / 512);
        if core.sectors(inode) != expected {
            self.found(format!(
                "Inode {number} counts {} blocks of 512 bytes, it has {expected}",
                core.sectors(inode)
            ));
        }
    }

    /// Blocks of the mapping itself, and (logical, place, length, unwritten) of what it maps.
    #[allow(clippy::type_complexity, reason = "used once")]
    fn pieces(&self, inode: &Inode) -> Result<(Vec<u64>, Vec<(u64, u64, u64, bool)>)> {
        if inode.has_flag(flags::EXTENTS) {
            let blocks = self.core.tree_blocks(inode)?;
            let extents = self.core.all_extents(inode)?;
            let pieces = extents
                .iter()
                .map(|e| (e.start.into(), e.place, e.length.into(), e.unwritten))
                .collect();
            return Ok((blocks, pieces));
        }
        let blocks = self.core.pointer_blocks(inode)?;
        let end = self.core.mapped_end(inode)?;
        let runs = self.core.mapped_runs(inode, end)?;
        let pieces = runs
            .iter()
            .filter_map(|run| Some((run.start, run.place?, run.length, false)))
            .collect();
        Ok((blocks, pieces))
    }

    fn length(&mut self, inode: &Inode, kind: FileKind, written_end: u64, mapped_end: u64) {
        let size = self.core.shape.block_size as u64;
        let number = inode.number;
        match kind {
            FileKind::Directory => {
                if inode.size() % size != 0 || inode.size() / size != mapped_end {
                    self.found(format!(
                        "Directory {number} has {} bytes in {mapped_end} blocks",
                        inode.size()
                    ));
                }
            }
            _ => {
                let blocks = inode.size().div_ceil(size);
                // Within a cluster, blocks behind the end are no harm.
                let mask = (1_u64 << self.core.shape.cluster_bits) - 1;
                if written_end > (blocks + mask) & !mask && !inode.has_flag(flags::VERITY) {
                    self.found(format!(
                        "Inode {number} has {} bytes but {written_end} blocks",
                        inode.size()
                    ));
                }
                if !inode.has_flag(flags::EXTENTS) && mapped_end > blocks {
                    self.found(format!("Inode {number} has blocks behind its end"));
                }
            }
        }
    }

    fn attribute_block(&mut self, inode: &Inode) -> bool {
        let block = inode.file_acl();
        let users = self.shared.entry(block).or_insert(0);
        *users += 1;
        if *users > 1 {
            return true;
        }
        if !self.core.shape.has_compat(Compat::EXT_ATTR) {
            self.found(format!("Inode {} has attributes, the filesystem has not", inode.number));
        }
        let who = || format!("the attributes of inode {}", inode.number);
        if !self.claim(block, 1, &who) {
            return false;
        }
        true
    }

    fn values(&mut self, inode: &Inode, per_cluster: u64) -> u64 {
        match self.core.attributes_of(inode) {
            Err(error) => {
                self.found(format!("The attributes of inode {} are bad: {error}", inode.number));
                0
            }
            Ok(all) => {
                let mut clusters = 0;
                for attribute in all.iter().filter(|attribute| attribute.value_inode != 0) {
                    *self.names.entry(attribute.value_inode).or_insert(0) += 1;
                    let size = self.core.shape.block_size as u64;
                    clusters += (attribute.value.len() as u64).div_ceil(size).div_ceil(per_cluster);
                }
                clusters
            }
        }
    }

    /// Its double indirect block; what that points to lies in the groups' reserved blocks.
    fn resize_inode(&mut self, inode: &Inode) {
        let core = self.core;
        if !core.shape.has_compat(Compat::RESIZE_INODE) {
            if !disksmith_disk::is_zero(inode.block_area()) {
                self.found("The resize inode is in use without its feature");
            }
            return;
        }
        let double = u64::from(inode.block_pointer(13));
        if !self.claim(double, 1, &|| "the resize inode".into()) {
            return;
        }
        let Ok(block) = core.block(double) else { return };
        let pointers = core.shape.block_size / 4;
        let first = core.shape.super_block() + 1;
        let old = core.shape.descriptor_blocks();
        for index in 0..u64::from(core.sb.s_reserved_gdt_blocks()) {
            let slot = ((old + index) % pointers as u64) as usize;
            if u64::from(le32(&block, slot * 4)) != first + old + index {
                return self.found("The resize inode does not point to the reserved blocks");
            }
        }
    }

    // ---- directories -----------------------------------------------------------------------

    fn directories(&mut self) {
        let mut numbers: Vec<u32> = self.folders.keys().copied().collect();
        numbers.sort_unstable();
        for number in numbers {
            let Ok(directory) = self.core.inode_unchecked(number) else { continue };
            if directory.has_flag(flags::ENCRYPT) {
                continue;
            }
            self.directory(&directory);
        }
    }

    fn directory(&mut self, directory: &Inode) {
        let core = self.core;
        let number = directory.number;
        let mut names = HashSet::new();
        let mut position = 0;
        if directory.has_flag(flags::INLINE_DATA) {
            let mut entries = Vec::new();
            let listed = core.list(directory, 0, &mut |inode, kind, name, _| {
                entries.push((inode, kind, name.to_vec()));
                true
            });
            if let Err(error) = listed {
                self.found(format!("Directory {number} is bad: {error}"));
            }
            for (inode, kind, name) in entries {
                self.entry(directory, inode, kind, &name, position, &mut names);
                position += 1;
            }
            return;
        }
        for logical in 0..core.directory_blocks(directory) {
            let block = match core.directory_block(directory, logical) {
                Ok(Some((_, block))) => block,
                Ok(None) => {
                    self.found(format!("Directory {number} has a hole at block {logical}"));
                    continue;
                }
                Err(error) => {
                    self.found(format!("Directory {number} is bad: {error}"));
                    continue;
                }
            };
            let index = core.is_indexed(directory)
                && (logical == 0 || dirent::fills_block(&block, core.shape.block_size));
            if core.shape.checksums && !index && !dirent::has_tail(&block) {
                self.found(format!("Block {logical} of directory {number} has no checksum"));
            }
            let mut inside = Vec::new();
            for entry in dirent::entries(&block, core.shape.block_size) {
                match entry {
                    Ok(entry) => inside.push((entry.inode, entry.kind, entry.name.to_vec())),
                    Err(error) => {
                        self.found(format!("Directory {number}, block {logical}: {error}"))
                    }
                }
            }
            for (inode, kind, name) in inside {
                if inode != 0 || position < 2 {
                    self.entry(directory, inode, kind, &name, position, &mut names);
                    if position >= 2 && core.is_indexed(directory) {
                        let leaves = core.index_leaves(directory, &name);
                        if !matches!(leaves, Ok(Some(leaves)) if leaves.contains(&logical)) {
                            self.found(format!(
                                "The index of directory {number} does not lead to a name"
                            ));
                        }
                    }
                    position += 1;
                }
            }
        }
        if position < 2 {
            self.found(format!("Directory {number} lacks '.' or '..'"));
        }
    }

    fn entry(
        &mut self,
        directory: &Inode,
        inode: u32,
        kind: u8,
        name: &[u8],
        position: usize,
        names: &mut HashSet<Vec<u8>>,
    ) {
        let number = directory.number;
        let shown = String::from_utf8_lossy(name).into_owned();
        match position {
            0 if name != b"." || inode != number => {
                self.found(format!("Directory {number} does not begin with '.'"));
            }
            1 if name != b".." => self.found(format!("Directory {number} has no '..'")),
            1 => {
                self.folders.entry(number).or_default().dotdot = inode;
                return;
            }
            _ => {}
        }
        if position == 0 {
            return;
        }
        if name.is_empty()
            || name == b"."
            || name == b".."
            || name.contains(&0)
            || name.contains(&b'/')
        {
            self.found(format!("Directory {number} has the name '{shown}'"));
        }
        if !names.insert(name.to_vec()) {
            self.found(format!("Directory {number} has the name '{shown}' twice"));
        }
        let used = inode != 0
            && inode <= self.core.shape.inodes
            && bitmap::get(&self.inodes, u64::from(inode - 1))
            && (inode >= self.core.shape.first_inode || inode == ROOT);
        if !used {
            return self.found(format!(
                "'{shown}' in directory {number} names inode {inode}, which is not in use"
            ));
        }
        *self.names.entry(inode).or_insert(0) += 1;
        let Some(actual) = self.kinds.get(&inode).copied() else { return };
        if self.core.shape.has_incompat(Incompat::FILETYPE) && kind != dirent::kind_code(actual) {
            self.found(format!("'{shown}' in directory {number} is given a wrong file type"));
        }
        if actual == FileKind::Directory {
            let folder = self.folders.entry(inode).or_default();
            let first = std::mem::replace(&mut folder.named_in, number);
            self.folders.entry(number).or_default().subfolders += 1;
            if first != 0 || inode == ROOT {
                self.found(format!("Directory {inode} has two names"));
            }
        }
    }

    // ---- connections, counts ---------------------------------------------------------------

    fn connections(&mut self) {
        let mut numbers: Vec<u32> = self.folders.keys().copied().collect();
        numbers.sort_unstable();
        let mut reached: HashSet<u32> = HashSet::from([ROOT]);
        for number in numbers {
            let folder = self.folders.get(&number).copied().unwrap_or_default();
            let parent = if number == ROOT { ROOT } else { folder.named_in };
            let unlinked = self.links.get(&number) == Some(&0)
                || number < self.core.shape.first_inode && number != ROOT;
            if parent != 0 && folder.dotdot != 0 && folder.dotdot != parent {
                self.found(format!(
                    "'..' of directory {number} is {}, not {parent}",
                    folder.dotdot
                ));
            }
            let mut way = Vec::new();
            let mut at = number;
            while !reached.contains(&at) && !unlinked {
                let up = self.folders.get(&at).map_or(0, |folder| folder.named_in);
                if up == 0 || way.contains(&at) || way.len() > 100_000 {
                    self.found(format!("Directory {number} is not connected to the root"));
                    break;
                }
                way.push(at);
                at = up;
            }
            reached.extend(way);
        }
    }

    fn links(&mut self) {
        let sb = &self.core.sb;
        let hidden = [
            sb.s_usr_quota_inum(),
            sb.s_grp_quota_inum(),
            sb.s_prj_quota_inum(),
            sb.s_orphan_file_inum(),
            JOURNAL_INODE,
        ];
        let mut all: Vec<(u32, u16)> = self.links.iter().map(|(n, l)| (*n, *l)).collect();
        all.sort_unstable();
        for (number, links) in all {
            if number < self.core.shape.first_inode && number != ROOT || hidden.contains(&number) {
                continue;
            }
            if self.orphans.contains(&number) {
                continue;
            }
            let names = self.names.get(&number).copied().unwrap_or(0);
            if self.kinds.get(&number) == Some(&FileKind::Directory) {
                let folder = self.folders.get(&number).copied().unwrap_or_default();
                let expected = folder.subfolders + 2;
                let many = links == 1 && self.core.shape.has_ro(RoCompat::DIR_NLINK);
                if u32::from(links) != expected && !many {
                    self.found(format!(
                        "Directory {number} counts {links} links, it has {expected}"
                    ));
                }
            } else if names == 0 {
                self.found(format!("Inode {number} is in use but has no name"));
            } else if u32::from(links) != names && self.kinds.contains_key(&number) {
                let holder =
                    self.core.inode_unchecked(number).is_ok_and(|i| i.has_flag(flags::EA_INODE));
                if !holder {
                    self.found(format!("Inode {number} counts {links} links, it has {names}"));
                }
            }
        }
        let mut shared: Vec<(u64, u32)> = self.shared.iter().map(|(b, n)| (*b, *n)).collect();
        shared.sort_unstable();
        for (block, users) in shared {
            match self.core.attribute_block(block) {
                Ok(bytes) if le32(&bytes, 4) != users => {
                    self.found(format!(
                        "Attribute block {block} counts {} users, it has {users}",
                        le32(&bytes, 4)
                    ));
                }
                _ => {}
            }
        }
    }

    /// Bitmaps and counts against what was found in use.
    fn summaries(&mut self) {
        let core = self.core;
        let shape = core.shape;
        let (mut free_all, mut inodes_all) = (0, 0);
        for group in 0..shape.groups {
            let Ok(descriptor) = core.group(group).copied() else { continue };
            let clusters = shape.group_clusters(group);
            let first = self.cluster(shape.group_first_block(group));
            match core.block_bitmap(group) {
                Err(error) => self.found(error.to_string()),
                Ok(bits) => {
                    let wrong = (0..clusters)
                        .filter(|bit| {
                            bitmap::get(&bits, *bit) != bitmap::get(&self.used, first + bit)
                        })
                        .count();
                    if wrong > 0 {
                        self.found(format!(
                            "The block bitmap of group {group} is wrong in {wrong} places"
                        ));
                    }
                    let end = shape.block_size as u64 * 8;
                    let padded = bitmap::find(
                        &bits,
                        clusters,
                        end.min(shape.clusters_per_group.max(clusters)),
                        false,
                    );
                    if padded.is_some() && !descriptor.has_flag(BLOCK_UNINIT) {
                        self.found(format!("The block bitmap of group {group} is not padded"));
                    }
                }
            }
            let free =
                (0..clusters).filter(|bit| !bitmap::get(&self.used, first + bit)).count() as u64;
            free_all += free;
            if u64::from(descriptor.free_blocks()) != free {
                self.found(format!(
                    "Group {group} counts {} free blocks, it has {free}",
                    descriptor.free_blocks()
                ));
            }
            let start = u64::from(group) * u64::from(shape.inodes_per_group);
            let count = u64::from(shape.inodes_per_group);
            match core.inode_bitmap(group) {
                Err(error) => self.found(error.to_string()),
                Ok(bits) => {
                    let wrong = (0..count)
                        .filter(|bit| {
                            bitmap::get(&bits, *bit) != bitmap::get(&self.inodes, start + bit)
                        })
                        .count();
                    if wrong > 0 {
                        self.found(format!(
                            "The inode bitmap of group {group} is wrong in {wrong} places"
                        ));
                    }
                    if bitmap::find(&bits, count, bits.len() as u64 * 8, false).is_some() {
                        self.found(format!("The inode bitmap of group {group} is not padded"));
                    }
                }
            }
            let free =
                (0..count).filter(|bit| !bitmap::get(&self.inodes, start + bit)).count() as u64;
            inodes_all += free;
            if u64::from(descriptor.free_inodes()) != free {
                self.found(format!(
                    "Group {group} counts {} free inodes, it has {free}",
                    descriptor.free_inodes()
                ));
            }
            let folders = (start + 1..=start + count)
                .filter(|n| self.folders.contains_key(&(*n as u32)))
                .count();
            if descriptor.used_dirs() as usize != folders {
                self.found(format!(
                    "Group {group} counts {} directories, it has {folders}",
                    descriptor.used_dirs()
                ));
            }
        }
        let free_blocks = free_all << shape.cluster_bits;
        self.report.blocks = shape.blocks.saturating_sub(free_blocks);
        // The kernel brings these two up to date when it unmounts only.
        if !self.report.journal {
            if core.sb.free_blocks() != free_blocks {
                self.found(format!(
                    "The superblock counts {} free blocks, there are {free_blocks}",
                    core.sb.free_blocks()
                ));
            }
            if u64::from(core.sb.s_free_inodes_count()) != inodes_all {
                self.found(format!(
                    "The superblock counts {} free inodes, there are {inodes_all}",
                    core.sb.s_free_inodes_count()
                ));
            }
        }
    }
}
