//! The filesystem interface over an open ext filesystem.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use disksmith_disk::{Disk, Error, Kind, Result};

use super::core::{Core, ROOT};
use super::dirent;
use super::features::{Compat, Incompat, RoCompat};
use super::layout::Inode;
use super::layout::inode::flags;
use super::xattr;
use crate::{
    Attributes, Changes, Entry, Fallocate, FileKind, Filesystem, NewFile, Rename, Seek, Statistics,
    Time, errors,
};

/// A transaction is committed when it is this old and something happens.
const COMMIT_AGE: Duration = Duration::from_secs(5);
/// Large writes are split into operations of this many bytes.
const WRITE_STEP: usize = 4 << 20;

/// An open ext2, ext3 or ext4 filesystem.
#[derive(Debug)]
pub struct Ext {
    core: RwLock<Open>,
}

#[derive(Debug)]
struct Open {
    core: Core,
    committed: Instant,
}

impl Ext {
    /// Opens the filesystem on `disk`. Read-only, nothing is written: a journal that holds
    /// changes is followed in memory. Otherwise it is replayed first, orphans are freed, and the
    /// filesystem is marked as in use until [`close`](Filesystem::close).
    pub fn open(disk: Arc<dyn Disk>, read_only: bool) -> Result<Self> {
        let core = if read_only { Core::open_read_only(disk)? } else { Core::open_writable(disk)? };
        Ok(Self::from_core(core))
    }

    pub(crate) fn from_core(core: Core) -> Self {
        Self { core: RwLock::new(Open { core, committed: Instant::now() }) }
    }

    /// Lets every change bear this time instead of the clock's.
    pub fn set_clock(&self, time: Option<Time>) {
        self.write_lock().core.clock = time;
    }

    fn read_lock(&self) -> RwLockReadGuard<'_, Open> {
        self.core.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_lock(&self) -> RwLockWriteGuard<'_, Open> {
        self.core.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at what is open.
    pub(crate) fn with_core<T>(&self, look: impl FnOnce(&Core) -> Result<T>) -> Result<T> {
        look(&self.read_lock().core)
    }

    /// Runs a change: whole or not at all.
    fn change<T>(&self, mut work: impl FnMut(&mut Core) -> Result<T>) -> Result<T> {
        let mut open = self.write_lock();
        open.change(&mut work)
    }
}

impl Open {
    fn change<T>(&mut self, work: &mut dyn FnMut(&mut Core) -> Result<T>) -> Result<T> {
        if self.core.read_only {
            return Err(errors::read_only());
        }
        if self.core.failed {
            return Err(Error::from_errno(5).context("An earlier write failed"));
        }
        let mut tried = false;
        loop {
            self.core.begin();
            match work(&mut self.core) {
                Ok(value) => {
                    self.core.finish();
                    self.commit_when_due()?;
                    return Ok(value);
                }
                Err(error) => {
                    self.core.rollback();
                    let full = error.kind() == Kind::OutOfSpace;
                    if !full || tried || !self.core.has_pending_space() {
                        return Err(error);
                    }
                    // Space freed in this transaction can be used after the commit.
                    tried = true;
                    self.commit()?;
                }
            }
        }
    }

    fn commit_when_due(&mut self) -> Result<()> {
        let most = self.core.journal.as_ref().map_or(16384, |journal| journal.transaction_max());
        let size = self.core.transaction.dirty.len() + self.core.transaction.revoked.len() / 64;
        if size * 2 > most || self.committed.elapsed() > COMMIT_AGE {
            self.commit()?;
        }
        Ok(())
    }

    fn commit(&mut self) -> Result<()> {
        self.core.commit()?;
        self.committed = Instant::now();
        Ok(())
    }

    /// Frees an inode of the orphan list step by step.
    fn reap(&mut self, number: u32) -> Result<()> {
        loop {
            let done = self.change(&mut |core| {
                let mut inode = core.inode(number)?;
                if !core.is_small(&inode) && core.has_mapping(&inode) {
                    shorten(core, &mut inode, 0)?;
                    core.put_inode(&inode)?;
                    return Ok(false);
                }
                core.remove_orphan(&mut inode)?;
                core.destroy_inode(&mut inode)?;
                Ok(true)
            })?;
            if done {
                return Ok(());
            }
        }
    }

    /// Cuts a file to `size` in several transactions; it is an orphan meanwhile.
    fn cut(&mut self, number: u32, size: u64) -> Result<()> {
        self.change(&mut |core| {
            let mut inode = core.live_inode(number.into())?;
            core.begin_cut(&mut inode, size)
        })?;
        loop {
            let done = self.change(&mut |core| {
                let mut inode = core.inode(number)?;
                let from = size.div_ceil(core.shape.block_size as u64);
                let done = shorten(core, &mut inode, from)?;
                if done {
                    core.remove_orphan(&mut inode)?;
                }
                core.put_inode(&inode)?;
                Ok(done)
            })?;
            if done {
                return Ok(());
            }
        }
    }
}

/// Unmaps some of the last blocks of a file, not below `from`; true when nothing is left there.
fn shorten(core: &mut Core, inode: &mut Inode, from: u64) -> Result<bool> {
    let end = core.mapped_end(inode)?;
    let (mut at, mut count) = (from, 0);
    let step = core.step_blocks();
    // Find where the last `step` mapped blocks begin: walk forward, keep the tail.
    let mut runs = std::collections::VecDeque::new();
    while at < end {
        let run = core.map(inode, at, end - at)?;
        if run.place.is_some() {
            runs.push_back((run.start, run.length));
            count += run.length;
            while runs.front().is_some_and(|(_, length)| count - length >= step) {
                count -= runs.pop_front().map_or(0, |run| run.1);
            }
        }
        at += run.length;
    }
    let Some((start, length)) = runs.front().copied() else { return Ok(true) };
    let start = (start + length.min((count.saturating_sub(step)).min(length))).max(from);
    core.unmap(inode, start, end)?;
    let first = core.map(inode, from, end - from)?;
    Ok(first.place.is_none() && first.start + first.length >= end)
}

/// What an inode says, in the interface's terms.
pub(crate) fn attributes_of(core: &Core, inode: &Inode) -> Result<Attributes> {
    let kind = inode.kind().ok_or_else(|| {
        super::core::corrupt(format!("inode {} is of no known kind", inode.number))
    })?;
    // As the kernel: who copies files must not take inline content for a hole.
    let inline = if kind == FileKind::Regular && inode.has_flag(flags::INLINE_DATA) {
        inode.size().div_ceil(512)
    } else {
        0
    };
    Ok(Attributes {
        inode: inode.number.into(),
        kind,
        mode: inode.i_mode() & 0o7777,
        links: inode.i_links_count().into(),
        uid: inode.uid(),
        gid: inode.gid(),
        size: if kind.is_device() { 0 } else { inode.size() },
        blocks: core.sectors(inode) + inline,
        device: if kind.is_device() { inode.device() } else { crate::Device::default() },
        accessed: inode.accessed(),
        modified: inode.modified(),
        changed: inode.changed(),
        created: inode.created(),
        flags: inode.i_flags(),
        generation: inode.i_generation(),
        project: if inode.reaches(0xA0) { inode.i_projid() } else { 0 },
    })
}

impl Core {
    /// Prepares a cut in several steps: the new size, the inode on the orphan list.
    fn begin_cut(&mut self, inode: &mut Inode, size: u64) -> Result<()> {
        self.cut_tail(inode, size)?;
        inode.set_size(size);
        let now = self.now();
        inode.set_modified(now);
        inode.set_changed(now);
        self.add_orphan(inode)
    }

    /// Zeroes what is behind the new end in its block.
    fn cut_tail(&mut self, inode: &mut Inode, size: u64) -> Result<()> {
        let block = self.shape.block_size as u64;
        let end = size.next_multiple_of(block).min(inode.size());
        if end > size {
            let mut part = inode.clone();
            // Only the last block: everything after it is unmapped step by step.
            part.set_size(end);
            self.allocate_content(inode, size, end - size, Fallocate::PunchHole)?;
            self.note_truncated(inode.number);
        }
        Ok(())
    }

    pub(crate) fn apply_changes(&mut self, inode: &mut Inode, changes: &Changes) -> Result<()> {
        let now = self.now();
        if let Some(mode) = changes.mode {
            inode.set_i_mode(inode.i_mode() & 0o170_000 | mode & 0o7777);
        }
        if let Some(uid) = changes.uid {
            inode.set_uid(uid);
        }
        if let Some(gid) = changes.gid {
            inode.set_gid(gid);
        }
        if let Some(size) = changes.size {
            match inode.kind() {
                Some(FileKind::Regular) => {}
                Some(FileKind::Directory) => return Err(errors::is_a_directory()),
                _ => return Err(errors::invalid()),
            }
            self.check_unsealed(inode)?;
            self.resize_content(inode, size)?;
            inode.set_modified(now);
        }
        if let Some(time) = changes.accessed {
            inode.set_accessed(time);
        }
        if let Some(time) = changes.modified {
            inode.set_modified(time);
        }
        if let Some(time) = changes.created {
            inode.set_created(time);
        }
        if let Some(flags) = changes.flags {
            let kept = inode.i_flags() & !flags::USER;
            inode.set_i_flags(kept | flags & flags::USER);
        }
        if let Some(project) = changes.project {
            if !inode.reaches(0xA0) || !self.shape.has_ro(RoCompat::PROJECT) {
                return Err(errors::not_supported());
            }
            inode.set_i_projid(project);
        }
        inode.set_changed(changes.changed.unwrap_or(now));
        Ok(())
    }

    /// Refuses to change the content of files with a Merkle tree, and of immutable ones.
    fn check_unsealed(&self, inode: &Inode) -> Result<()> {
        if inode.has_flag(flags::VERITY | flags::IMMUTABLE) {
            return Err(errors::not_permitted());
        }
        Ok(())
    }

    fn overhead(&self) -> u64 {
        match u64::from(self.sb.s_overhead_blocks()) {
            0 => {
                let reserved = self.sb.s_reserved_gdt_blocks().into();
                let tables = self.shape.table_blocks() + 2;
                let base: u64 = (0..self.shape.groups)
                    .map(|group| self.shape.group_base_blocks(group, reserved) + tables)
                    .sum();
                let journal = self
                    .inode(self.sb.s_journal_inum())
                    .map_or(0, |inode| inode.size() >> self.shape.block_bits);
                base + self.shape.first_block + journal
            }
            known => known << self.shape.cluster_bits,
        }
    }

    fn statistics(&self) -> Statistics {
        let shape = &self.shape;
        let free = self.sb.free_blocks();
        let mut kept = self.sb.reserved_blocks();
        if shape.has_incompat(Incompat::EXTENTS) {
            // The kernel keeps 2 %, at most 4096 clusters, for splitting extents.
            kept +=
                (shape.blocks >> shape.cluster_bits).div_euclid(50).min(4096) << shape.cluster_bits;
        }
        Statistics {
            block_size: shape.block_size as u32,
            blocks: shape.blocks.saturating_sub(self.overhead()),
            free,
            available: free.saturating_sub(kept),
            inodes: shape.inodes.into(),
            free_inodes: self.sb.s_free_inodes_count().into(),
            name_length: 255,
        }
    }
}

impl Filesystem for Ext {
    fn type_name(&self) -> &'static str {
        let open = self.read_lock();
        let shape = &open.core.shape;
        if shape.has_incompat(Incompat::EXTENTS) || shape.checksums {
            "ext4"
        } else if shape.has_compat(Compat::HAS_JOURNAL) {
            "ext3"
        } else {
            "ext2"
        }
    }

    fn label(&self) -> Vec<u8> {
        self.read_lock().core.sb.label()
    }

    fn uuid(&self) -> String {
        uuid::Uuid::from_bytes(self.read_lock().core.sb.uuid()).to_string()
    }

    fn root(&self) -> u64 {
        ROOT.into()
    }

    fn read_only(&self) -> bool {
        self.read_lock().core.read_only
    }

    fn statistics(&self) -> Result<Statistics> {
        Ok(self.read_lock().core.statistics())
    }

    fn lookup(&self, directory: u64, name: &[u8]) -> Result<Attributes> {
        let open = self.read_lock();
        let core = &open.core;
        let directory = core.live_inode(directory)?;
        let found = core.find(&directory, name)?.ok_or_else(errors::not_found)?;
        attributes_of(core, &core.live_inode(found.inode.into())?)
    }

    fn attributes(&self, inode: u64) -> Result<Attributes> {
        let open = self.read_lock();
        attributes_of(&open.core, &open.core.live_inode(inode)?)
    }

    fn read_directory(
        &self,
        directory: u64,
        cookie: u64,
        visit: &mut dyn FnMut(Entry) -> bool,
    ) -> Result<()> {
        let open = self.read_lock();
        let directory = open.core.live_inode(directory)?;
        open.core.list(&directory, cookie, &mut |inode, kind, name, cookie| {
            visit(Entry {
                inode: inode.into(),
                kind: dirent::kind_of(kind),
                name: name.to_vec(),
                cookie,
            })
        })
    }

    fn read(&self, inode: u64, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        let open = self.read_lock();
        let inode = open.core.live_inode(inode)?;
        match inode.kind() {
            Some(FileKind::Regular) => open.core.read_content(&inode, offset, buffer),
            Some(FileKind::Directory) => Err(errors::is_a_directory()),
            _ => Err(errors::invalid()),
        }
    }

    fn read_link(&self, inode: u64) -> Result<Vec<u8>> {
        let open = self.read_lock();
        open.core.link_target(&open.core.live_inode(inode)?)
    }

    fn xattr(&self, inode: u64, name: &[u8]) -> Result<Vec<u8>> {
        let (index, short) = xattr::split_name(name)?;
        let open = self.read_lock();
        let inode = open.core.live_inode(inode)?;
        let found = open
            .core
            .attributes_of(&inode)?
            .into_iter()
            .find(|attribute| attribute.index == index && attribute.name == short)
            .filter(|attribute| attribute.full_name().is_some());
        xattr::to_linux(index, found.ok_or_else(errors::no_data)?.value)
    }

    fn xattrs(&self, inode: u64) -> Result<Vec<Vec<u8>>> {
        let open = self.read_lock();
        let inode = open.core.live_inode(inode)?;
        let all = open.core.attributes_of(&inode)?;
        Ok(all.iter().filter_map(xattr::Attribute::full_name).collect())
    }

    fn seek(&self, inode: u64, offset: u64, what: Seek) -> Result<u64> {
        let open = self.read_lock();
        open.core.seek_content(&open.core.live_inode(inode)?, offset, what)
    }

    fn hold(&self, inode: u64) {
        if let Ok(number) = u32::try_from(inode) {
            *self.read_lock().core.held().entry(number).or_insert(0) += 1;
        }
    }

    fn release(&self, inode: u64, count: u64) -> Result<()> {
        let Ok(number) = u32::try_from(inode) else { return Ok(()) };
        {
            let open = self.read_lock();
            let mut held = open.core.held();
            let Some(uses) = held.get_mut(&number) else { return Ok(()) };
            *uses = uses.saturating_sub(count);
            if *uses > 0 {
                return Ok(());
            }
            held.remove(&number);
        }
        let mut open = self.write_lock();
        if open.core.read_only || open.core.is_held(number) {
            return Ok(());
        }
        let gone = open.core.inode(number).is_ok_and(|inode| {
            inode.i_mode() != 0 && inode.i_links_count() == 0 && open.core.inode_is_used(number)
        });
        if gone { open.reap(number) } else { Ok(()) }
    }

    fn write(&self, inode: u64, offset: u64, data: &[u8]) -> Result<()> {
        let mut open = self.write_lock();
        let mut done = 0;
        while done < data.len() {
            let part = &data[done..data.len().min(done + WRITE_STEP)];
            let number = u32::try_from(inode).map_err(|_| errors::stale())?;
            if open.core.transaction.truncated.contains(&number) {
                // What the file lost must not be overwritten before that is committed.
                open.commit()?;
            }
            open.change(&mut |core| {
                let mut inode = core.live_inode(inode)?;
                if !inode.is_regular() {
                    return Err(errors::invalid());
                }
                core.check_unsealed(&inode)?;
                core.write_content(&mut inode, offset + done as u64, part)?;
                let now = core.now();
                inode.set_modified(now);
                inode.set_changed(now);
                core.put_inode(&inode)
            })?;
            done += part.len();
        }
        Ok(())
    }

    fn create(&self, directory: u64, name: &[u8], file: &NewFile) -> Result<Attributes> {
        if file.kind == FileKind::Symlink {
            return Err(errors::invalid());
        }
        self.change(|core| {
            let inode = core.create(directory, name, file)?;
            attributes_of(core, &inode)
        })
    }

    fn symlink(
        &self,
        directory: u64,
        name: &[u8],
        target: &[u8],
        uid: u32,
        gid: u32,
    ) -> Result<Attributes> {
        self.change(|core| {
            let inode = core.create_link(directory, name, target, (uid, gid))?;
            attributes_of(core, &inode)
        })
    }

    fn link(&self, inode: u64, directory: u64, name: &[u8]) -> Result<Attributes> {
        self.change(|core| {
            let inode = core.add_name(inode, directory, name)?;
            attributes_of(core, &inode)
        })
    }

    fn unlink(&self, directory: u64, name: &[u8]) -> Result<()> {
        let mut open = self.write_lock();
        match open.change(&mut |core| core.remove_name(directory, name, false))? {
            Some(number) => open.reap(number),
            None => Ok(()),
        }
    }

    fn remove_directory(&self, directory: u64, name: &[u8]) -> Result<()> {
        let mut open = self.write_lock();
        match open.change(&mut |core| core.remove_name(directory, name, true))? {
            Some(number) => open.reap(number),
            None => Ok(()),
        }
    }

    fn rename(&self, from: u64, old: &[u8], to: u64, new: &[u8], how: Rename) -> Result<()> {
        let mut open = self.write_lock();
        match open.change(&mut |core| core.rename(from, old, to, new, how))? {
            Some(number) => open.reap(number),
            None => Ok(()),
        }
    }

    fn set_attributes(&self, inode: u64, changes: &Changes) -> Result<Attributes> {
        let mut open = self.write_lock();
        let mut changes = *changes;
        if let Some(size) = changes.size {
            let current = open.core.live_inode(inode)?;
            let large = !open.core.is_small(&current) && size < current.size();
            if current.is_regular() && large && !open.core.read_only {
                open.core.check_unsealed(&current)?;
                open.cut(current.number, size)?;
            }
            if open.core.transaction.truncated.contains(&current.number) {
                open.commit()?;
            }
            changes.size = Some(size);
        }
        open.change(&mut |core| {
            let mut inode = core.live_inode(inode)?;
            core.apply_changes(&mut inode, &changes)?;
            core.put_inode(&inode)?;
            attributes_of(core, &inode)
        })
    }

    fn set_xattr(&self, inode: u64, name: &[u8], value: &[u8], exists: Option<bool>) -> Result<()> {
        let (index, short) = xattr::split_name(name)?;
        if index == xattr::INLINE_DATA.0 && short == xattr::INLINE_DATA.1 {
            return Err(errors::not_permitted());
        }
        let stored = xattr::to_disk(index, value)?;
        self.change(|core| {
            let mut inode = core.live_inode(inode)?;
            if let Some(wanted) = exists {
                let all = core.attributes_of(&inode)?;
                let there = all.iter().any(|a| a.index == index && a.name == short);
                match (there, wanted) {
                    (true, false) => return Err(errors::exists()),
                    (false, true) => return Err(errors::no_data()),
                    _ => {}
                }
            }
            core.set_attribute(&mut inode, index, short, Some(&stored))?;
            inode.set_changed(core.now());
            core.put_inode(&inode)
        })
    }

    fn remove_xattr(&self, inode: u64, name: &[u8]) -> Result<()> {
        let (index, short) = xattr::split_name(name)?;
        self.change(|core| {
            let mut inode = core.live_inode(inode)?;
            let all = core.attributes_of(&inode)?;
            if !all.iter().any(|a| a.index == index && a.name == short && a.full_name().is_some()) {
                return Err(errors::no_data());
            }
            core.set_attribute(&mut inode, index, short, None)?;
            inode.set_changed(core.now());
            core.put_inode(&inode)
        })
    }

    fn fallocate(&self, inode: u64, offset: u64, length: u64, how: Fallocate) -> Result<()> {
        let mut open = self.write_lock();
        let number = u32::try_from(inode).map_err(|_| errors::stale())?;
        if open.core.transaction.truncated.contains(&number) {
            open.commit()?;
        }
        open.change(&mut |core| {
            let mut inode = core.live_inode(inode)?;
            core.check_unsealed(&inode)?;
            core.allocate_content(&mut inode, offset, length, how)?;
            let now = core.now();
            inode.set_modified(now);
            inode.set_changed(now);
            core.put_inode(&inode)
        })
    }

    fn sync(&self) -> Result<()> {
        let mut open = self.write_lock();
        if open.core.read_only { Ok(()) } else { open.commit() }
    }

    fn close(&self) -> Result<()> {
        self.write_lock().core.shut_down()
    }
}
