//! The superblock, its copies, the journal, and the groups' descriptors.

use std::sync::Arc;

use disksmith_disk::{Disk, Error, Kind, Result};

use super::Repair;
use super::state::Fsck;
use crate::ext::bitmap;
use crate::ext::core::{Core, corrupt, group_checksum};
use crate::ext::features::{Compat, Incompat, RoCompat};
use crate::ext::journal::{Journal, Overlay};
use crate::ext::layout::group::{BLOCK_UNINIT, INODE_UNINIT};
use crate::ext::layout::superblock::{MAGIC, STATE_ERROR, STATE_VALID, SUPERBLOCK_SIZE};
use crate::ext::layout::{GroupDescriptor, Superblock, put};
use crate::ext::open::{recover, write_superblock};
use crate::ext::shape::Shape;

/// `s_creator_os` of the Hurd, which uses some fields in its own way.
const HURD: u32 = 1;
/// Byte of the superblock.
const SUPERBLOCK_AT: u64 = 1024;

/// Opens for a check; answers what is to be told of the superblock and the journal.
pub(super) fn open_to_look(disk: Arc<dyn Disk>) -> Result<(Core, Vec<String>)> {
    let why = match Core::open_read_only(disk.clone()) {
        Ok(core) => return Ok((core, Vec::new())),
        Err(why) if !is_damage(&why) => return Err(why),
        Err(why) => why,
    };
    if let Ok(core) = Core::load(disk.clone(), Overlay::default(), true) {
        return Ok((core, vec![format!("The journal cannot be followed: {why}")]));
    }
    let Some((place, sb)) = find_copy(&disk).or_else(|| unsealed(&disk)) else { return Err(why) };
    let shape = Shape::new(&sb, disk.size())?;
    let core = Core::with_superblock(disk, Overlay::default(), true, sb, shape)?;
    Ok((core, vec![format!("{why}; the copy at byte {place} is whole")]))
}

fn is_damage(error: &Error) -> bool {
    matches!(error.kind(), Kind::Corrupt | Kind::NotFound)
}

/// The first copy of the superblock that makes sense, and where it lies.
fn find_copy(disk: &Arc<dyn Disk>) -> Option<(u64, Superblock)> {
    for log in [2, 0, 1, 3, 4, 5, 6] {
        let size = 1024_u64 << log;
        let first = u64::from(log == 0);
        for group in [1, 3, 5, 7, 9, 25, 27, 49, 81] {
            let place = (group * size * 8 + first) * size;
            let mut sb = Superblock::empty();
            if place + SUPERBLOCK_SIZE as u64 > disk.size()
                || disk.read_at(&mut sb.raw, place).is_err()
            {
                break;
            }
            let sound = sb.s_magic() == MAGIC
                && sb.s_log_block_size() == log
                && u64::from(sb.s_block_group_nr()) == group
                && crate::ext::core::superblock_is_right(&sb);
            if sound && Shape::new(&sb, disk.size()).is_ok() {
                sb.set_s_block_group_nr(0);
                return Some((place, sb));
            }
        }
    }
    None
}

/// Makes the filesystem one that can be opened, and brings the journal's content to its place.
/// Answers what was found.
pub(super) fn prepare(
    disk: &Arc<dyn Disk>,
    what: Repair,
    journal: &mut bool,
) -> Result<Vec<String>> {
    let mut found = Vec::new();
    if disk.read_only() {
        return Err(crate::errors::read_only());
    }
    let core = match Core::load(disk.clone(), Overlay::default(), true) {
        Ok(core) => core,
        Err(_) if what == Repair::All && first_meta_bg_reset(disk).unwrap_or(false) => {
            found.push("The superblock's s_first_meta_bg was too large".into());
            Core::load(disk.clone(), Overlay::default(), true)?
        }
        Err(why) if is_damage(&why) && what == Repair::All => {
            let Some((place, mut sb)) = find_copy(disk).or_else(|| unsealed(disk)) else {
                return Err(why);
            };
            found.push(format!("{why}; it was replaced by the copy at byte {place}"));
            sb.set_s_state(sb.s_state() & !STATE_VALID | STATE_ERROR);
            write_superblock(&**disk, &mut sb)?;
            disk.flush()?;
            Core::load(disk.clone(), Overlay::default(), true)?
        }
        Err(why) => return Err(why),
    };
    core.shape.features.check_repairable()?;
    if core.sb.has_incompat(Incompat::RECOVER) {
        match recover(disk) {
            Ok(done) => *journal |= done,
            Err(why) if !is_damage(&why) => return Err(why),
            Err(why) => {
                found.push(format!("The journal cannot be brought to its place: {why}"));
                if what == Repair::Safe {
                    return Err(why);
                }
                forget_log(&core)?;
                let mut sb = core.sb.clone();
                sb.set_incompat(Incompat::RECOVER, false);
                sb.set_s_state(sb.s_state() | STATE_ERROR);
                write_superblock(&**disk, &mut sb)?;
                disk.flush()?;
            }
        }
    }
    Ok(found)
}

/// Says that the journal holds nothing, where it can be said.
fn forget_log(core: &Core) -> Result<()> {
    let Ok(Some((mut journal, runs))) = core.journal_place() else { return Ok(()) };
    journal.set_log(0, journal.sequence().wrapping_add(1));
    let place = Journal::place(&runs, 0)?;
    core.disk.write_at(&journal.raw, place << core.shape.block_bits)?;
    core.disk.flush()
}

/// Resets the number of the first group whose descriptors lie with it, if only that is wrong.
fn first_meta_bg_reset(disk: &Arc<dyn Disk>) -> Result<bool> {
    let mut sb = crate::ext::core::read_superblock(&**disk, &Overlay::default(), true)?;
    if !sb.has_incompat(Incompat::META_BG) || sb.s_first_meta_bg() == 0 {
        return Ok(false);
    }
    sb.set_s_first_meta_bg(0);
    if Shape::new(&sb, disk.size()).is_err() {
        return Ok(false);
    }
    write_superblock(&**disk, &mut sb)?;
    disk.flush()?;
    Ok(true)
}

/// Opens what [`prepare`] left, for changes in place.
pub(super) fn open_to_mend(disk: Arc<dyn Disk>) -> Result<Core> {
    Core::load(disk, Overlay::default(), false)
}

/// The superblock itself, when all is well with it but its checksum: the last resort.
fn unsealed(disk: &Arc<dyn Disk>) -> Option<(u64, Superblock)> {
    let mut sb = Superblock::empty();
    disk.read_at(&mut sb.raw, SUPERBLOCK_AT).ok()?;
    Shape::new(&sb, disk.size()).ok()?;
    Some((SUPERBLOCK_AT, sb))
}

/// Marks the end of a repair in the superblock and its copies.
pub(super) fn conclude(disk: Arc<dyn Disk>, clean: bool, changed: bool) -> Result<()> {
    let mut core = Core::load(disk, Overlay::default(), false)?;
    let state = core.sb.s_state();
    if clean {
        core.sb.set_s_state(state & !STATE_ERROR | STATE_VALID);
        core.sb.set_s_mnt_count(0);
        let now = core.now().seconds;
        core.sb.set_s_lastcheck((now & 0xffff_ffff) as u32);
        core.sb.set_s_lastcheck_hi((now >> 32 & 0xff) as u8);
    } else {
        core.sb.set_s_state(state & !STATE_VALID | STATE_ERROR);
    }
    write_superblock(&*core.disk, &mut core.sb)?;
    core.disk.flush()?;
    if clean && changed {
        crate::ext::mkfs::write_backups(&core)?;
    }
    core.disk.flush()
}

impl Fsck {
    /// What the superblock says of itself.
    pub(super) fn superblock(&mut self) -> Result<()> {
        let (shape, sb) = (self.core.shape, self.core.sb.clone());
        if sb.s_state() & STATE_ERROR != 0 && !self.repairing() {
            self.found("The superblock says that errors were found");
        }
        if sb.reserved_blocks() > shape.blocks / 2
            && self.problem("The superblock reserves more than half of the blocks")
        {
            self.core.super_mut().set_reserved_blocks(shape.blocks / 20);
        }
        if u64::from(sb.s_reserved_gdt_blocks()) > shape.block_size as u64 / 4
            && self.problem("The superblock reserves too many descriptor blocks")
        {
            self.core.super_mut().set_s_reserved_gdt_blocks(0);
            self.waiting.resize_inode = true;
        }
        self.sizes(&sb);
        self.quota_numbers();
        self.journal(&sb)
    }

    /// Room for inode fields, and features that exclude each other.
    fn sizes(&mut self, sb: &Superblock) {
        let shape = self.core.shape;
        let room = (shape.inode_size - 128) as u16;
        let bad = |value: u16| value > room || !value.is_multiple_of(4);
        if shape.inode_size > 128 {
            if bad(sb.s_min_extra_isize())
                && self.problem("The superblock asks for a bad i_extra_isize (s_min_extra_isize)")
            {
                self.core.super_mut().set_s_min_extra_isize(32.min(room));
            }
            if bad(sb.s_want_extra_isize())
                && self
                    .problem("The superblock wishes for a bad i_extra_isize (s_want_extra_isize)")
            {
                self.core.super_mut().set_s_want_extra_isize(32.min(room));
            }
        }
        let clash = sb.has_compat(Compat::RESIZE_INODE) && sb.has_incompat(Incompat::META_BG);
        if clash && self.problem("The features resize_inode and meta_bg exclude each other") {
            let sb = self.core.super_mut();
            sb.set_compat(Compat::RESIZE_INODE, false);
            sb.set_s_reserved_gdt_blocks(0);
        }
        let featured = sb.s_feature_compat() | sb.s_feature_incompat() | sb.s_feature_ro_compat();
        let text = "The filesystem has features, but is of revision 0, which knows none";
        if sb.s_rev_level() == 0 && featured != 0 && self.slip(text) {
            let sb = self.core.super_mut();
            sb.set_s_rev_level(1);
            sb.set_s_first_ino(11);
            sb.set_s_inode_size(128);
        }
    }

    fn quota_numbers(&mut self) {
        let sb = &self.core.sb;
        let numbers = [
            ("user", sb.s_usr_quota_inum(), 3),
            ("group", sb.s_grp_quota_inum(), 4),
            ("project", sb.s_prj_quota_inum(), 0),
        ];
        if !sb.has_ro(RoCompat::QUOTA) {
            return;
        }
        let (inodes, first) = (self.core.shape.inodes, self.core.shape.first_inode);
        for (what, number, usual) in numbers {
            let sound = number == 0 || number == usual || (first..=inodes).contains(&number);
            if sound || !self.problem(format!("The {what} quota's inode is given as {number}")) {
                continue;
            }
            let sb = self.core.super_mut();
            match what {
                "user" => sb.set_s_usr_quota_inum(0),
                "group" => sb.set_s_grp_quota_inum(0),
                _ => sb.set_s_prj_quota_inum(0),
            }
        }
    }

    /// A journal's inode that is no file comes back from the superblock's copy of it.
    fn journal_inode(&mut self, sb: &Superblock) -> Result<()> {
        let Ok(inode) = self.core.inode_unchecked(sb.s_journal_inum()) else { return Ok(()) };
        if inode.is_regular() && inode.i_links_count() > 0 {
            return Ok(());
        }
        if self.problem("The journal's inode is no file") {
            let inode = sb.journal_backup(inode);
            self.core.put_inode(&inode)?;
        }
        Ok(())
    }

    /// The journal's inode and superblock against the features.
    fn journal(&mut self, sb: &Superblock) -> Result<()> {
        if sb.has_compat(Compat::HAS_JOURNAL) {
            if sb.s_journal_dev() != 0 && sb.s_journal_inum() == 0 {
                return Ok(());
            }
            self.journal_inode(sb)?;
            match self.core.journal_place() {
                Ok(Some((mut journal, runs))) => {
                    let mapped: u64 = runs.iter().map(|run| u64::from(run.2)).sum();
                    let whole = mapped >= u64::from(journal.length());
                    if !whole && self.problem("The journal has holes") {
                        self.waiting.journal = true;
                    }
                    let text =
                        "The journal's superblock is of version 1, but has fields of version 2";
                    if journal.has_odd_fields() && self.problem(text) {
                        self.waiting.journal = true;
                    }
                    if journal.error() != 0 && self.slip("The journal has noted an error") {
                        journal.clear_error();
                        let place = Journal::place(&runs, 0)?;
                        put(self.core.modify(place)?, 0, &journal.raw);
                    }
                }
                Ok(None) => {}
                Err(why) => {
                    if self.problem(format!("The journal is bad: {why}")) {
                        self.waiting.journal = true;
                    }
                }
            }
            return Ok(());
        }
        if sb.has_incompat(Incompat::RECOVER)
            && self.problem("A journal is to be replayed, but there is none")
        {
            self.core.super_mut().set_incompat(Incompat::RECOVER, false);
        }
        let number = sb.s_journal_inum();
        let there = number != 0 && self.core.inode(number).is_ok_and(|i| i.i_links_count() > 0);
        if there && self.problem("There is a journal, but the superblock has no has_journal") {
            self.core.super_mut().set_compat(Compat::HAS_JOURNAL, true);
        }
        Ok(())
    }

    /// Accounts for the groups' own blocks.
    pub(super) fn groups(&mut self) -> Result<()> {
        let shape = self.core.shape;
        let reserved = u64::from(self.core.sb.s_reserved_gdt_blocks());
        for group in 0..shape.groups {
            let first = shape.group_first_block(group);
            let base = shape.group_base_blocks(group, reserved).min(shape.group_blocks(group));
            if base > 0 {
                let (from, to) = (self.cluster(first), self.cluster(first + base - 1));
                bitmap::set_range(&mut self.used, from, to - from + 1, true);
            }
        }
        for group in 0..shape.groups {
            self.group(group)?;
        }
        Ok(())
    }

    fn group(&mut self, group: u32) -> Result<()> {
        let shape = self.core.shape;
        let mut descriptor = *self.core.group(group)?;
        if shape.lazy_groups {
            let tail = self.descriptor_tail(group);
            let uuid = self.core.sb.uuid();
            let sum = group_checksum(&shape, &uuid, group, &descriptor, tail.as_deref());
            let text = format!("The descriptor of group {group} has a wrong checksum");
            if descriptor.bg_checksum() != sum && self.problem(text) {
                if let Some(copy) = self.copied_descriptor(group) {
                    self.take_places(&mut descriptor, &copy);
                }
                descriptor.set_flag(INODE_UNINIT | BLOCK_UNINIT, false);
                descriptor.set_itable_unused(0);
                *self.core.group_mut(group)? = descriptor;
            }
        }
        if !shape.lazy_groups
            && (descriptor.has_flag(INODE_UNINIT | BLOCK_UNINIT) || descriptor.itable_unused() != 0)
            && self.slip(format!("Group {group} is said to be not initialised, which it cannot be"))
        {
            descriptor.set_flag(INODE_UNINIT | BLOCK_UNINIT, false);
            descriptor.set_itable_unused(0);
            *self.core.group_mut(group)? = descriptor;
        }
        if !self.places_are_sound(&descriptor)
            && self.repairing()
            && let Some(copy) = self.copied_descriptor(group)
        {
            self.take_places(&mut descriptor, &copy);
            *self.core.group_mut(group)? = descriptor;
        }
        let table = shape.table_blocks();
        for (what, start, count) in [
            ("block bitmap", descriptor.block_bitmap(), 1),
            ("inode bitmap", descriptor.inode_bitmap(), 1),
            ("inode table", descriptor.inode_table(), table),
        ] {
            if !shape.valid_range(start, count) {
                self.problem(format!(
                    "The {what} of group {group} lies outside of the filesystem, at block {start}"
                ));
                continue;
            }
            let inside =
                shape.group_of(start) == group && shape.group_of(start + count - 1) == group;
            if !inside
                && !shape.has_incompat(Incompat::FLEX_BG)
                && self.problem(format!("The {what} of group {group} lies in another group"))
            {
                self.displaced.insert((group, what.starts_with("inode")));
            }
            if !self.claim_table(start, count, &|| format!("the {what} of group {group}"))
                && count == 1
            {
                self.displaced.insert((group, what.starts_with("inode")));
            }
        }
        Ok(())
    }

    fn places_are_sound(&self, descriptor: &GroupDescriptor) -> bool {
        let shape = &self.core.shape;
        shape.valid_range(descriptor.block_bitmap(), 1)
            && shape.valid_range(descriptor.inode_bitmap(), 1)
            && shape.valid_range(descriptor.inode_table(), shape.table_blocks())
    }

    /// The places of bitmaps and table from a copy, where the copy's are sound.
    fn take_places(&self, descriptor: &mut GroupDescriptor, copy: &GroupDescriptor) {
        if self.places_are_sound(copy) {
            descriptor.set_block_bitmap(copy.block_bitmap());
            descriptor.set_inode_bitmap(copy.inode_bitmap());
            descriptor.set_inode_table(copy.inode_table());
        }
    }

    /// The descriptor as the first copy of the table has it.
    fn copied_descriptor(&self, group: u32) -> Option<GroupDescriptor> {
        let shape = &self.core.shape;
        if shape.meta_bg {
            return None;
        }
        let holder = (1..shape.groups).find(|holder| shape.has_super(*holder))?;
        let index = u64::from(group) / shape.descriptors_per_block();
        let block = self.core.block(shape.group_first_block(holder) + 1 + index).ok()?;
        let at =
            (u64::from(group) % shape.descriptors_per_block()) as usize * shape.descriptor_size;
        let mut copy = GroupDescriptor::parse(block.get(at..at + shape.descriptor_size)?);
        copy.wide = shape.wide();
        Some(copy)
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

    /// Finds places for bitmaps and tables that lie nowhere, once it is known what is in use.
    pub(super) fn relocate(&mut self) -> Result<()> {
        if !self.repairing() {
            return Ok(());
        }
        let shape = self.core.shape;
        for group in 0..shape.groups {
            let mut descriptor = *self.core.group(group)?;
            let displaced = [false, true].map(|inode| self.displaced.contains(&(group, inode)));
            if self.places_are_sound(&descriptor) && displaced == [false, false] {
                continue;
            }
            let flexible = shape.has_incompat(Incompat::FLEX_BG);
            let first = shape.group_first_block(group).max(1);
            let end = shape.group_first_block(group) + shape.group_blocks(group);
            let (first, end) = if flexible { (1, shape.blocks) } else { (first, end) };
            let no_space = || corrupt(format!("there is no place for the tables of group {group}"));
            if displaced[0] || !shape.valid_range(descriptor.block_bitmap(), 1) {
                let place = self.unclaimed_in(first, end, 1).ok_or_else(no_space)?;
                self.core.fresh(place)?;
                descriptor.set_block_bitmap(place);
            }
            if displaced[1] || !shape.valid_range(descriptor.inode_bitmap(), 1) {
                let place = self.unclaimed_in(first, end, 1).ok_or_else(no_space)?;
                self.core.fresh(place)?;
                descriptor.set_inode_bitmap(place);
            }
            let blocks = shape.table_blocks();
            let old = descriptor.inode_table();
            let sound = shape.valid_range(old, blocks);
            let astray = sound
                && !flexible
                && (shape.group_of(old) != group || shape.group_of(old + blocks - 1) != group);
            if !sound || astray {
                let table = self.unclaimed_in(first, end, blocks).ok_or_else(no_space)?;
                descriptor.set_inode_table(table);
                for index in 0..blocks {
                    let data = if sound { Some(self.core.block(old + index)?) } else { None };
                    let block = self.core.fresh(table + index)?;
                    if let Some(data) = data {
                        block.copy_from_slice(&data);
                    }
                }
            }
            *self.core.group_mut(group)? = descriptor;
            self.core.mark_checked(descriptor.block_bitmap());
            self.core.mark_checked(descriptor.inode_bitmap());
        }
        Ok(())
    }

    /// True when the filesystem was made for another system, which reads some fields otherwise.
    pub(super) fn is_foreign(&self) -> bool {
        self.core.sb.s_creator_os() == HURD
    }
}
