//! Moving inodes out of the groups that are cut off: each with all its names in one transaction.

use std::collections::HashMap;

use disksmith_disk::{Error, Kind, Result};

use super::evacuate::{commit, one_step, used_inodes};
use crate::ext::check::mapping::read_whole;
use crate::ext::core::{Core, ROOT, corrupt};
use crate::ext::dirent;
use crate::ext::layout::inode::flags;
use crate::ext::layout::{Inode, Superblock, le32, put32};

/// Where an inode is named: directory, block, byte in it.
type Name = (u32, u64, usize);

/// Moves every inode of the groups behind `core.limit`.
pub(super) fn renumber(core: &mut Core) -> Result<()> {
    let shape = core.shape;
    let groups = shape.group_of(core.limit - 1) + 1;
    let last = groups * shape.inodes_per_group;
    let behind: Vec<u32> = used_inodes(core)?.into_iter().filter(|n| *n > last).collect();
    if behind.is_empty() {
        return Ok(());
    }
    let mut names = names_behind(core, last)?;
    let mut moved: HashMap<u32, u32> = HashMap::new();
    for number in behind {
        let known = names.remove(&number).unwrap_or_default();
        one_step(core, |core| {
            let new = move_inode(core, number, &known, &moved)?;
            moved.insert(number, new);
            Ok(())
        })?;
    }
    commit(core)
}

/// Every entry that names an inode behind `last`, and `..` of directories that lie in such.
fn names_behind(core: &Core, last: u32) -> Result<HashMap<u32, Vec<Name>>> {
    let mut names: HashMap<u32, Vec<Name>> = HashMap::new();
    for number in used_inodes(core)? {
        let directory = core.inode_unchecked(number)?;
        if !directory.is_directory() || number < core.shape.first_inode && number != ROOT {
            continue;
        }
        if directory.has_flag(flags::INLINE_DATA) {
            return Err(Error::new(
                Kind::Unsupported,
                "Inodes cannot be renumbered where there are directories inside their inodes",
            ));
        }
        for logical in 0..core.directory_blocks(&directory) {
            let Some(place) = core.map(&directory, logical, 1)?.data() else { continue };
            let block = core.block(place)?;
            for entry in dirent::entries(&block, core.shape.block_size) {
                let entry = entry?;
                if entry.inode > last {
                    names.entry(entry.inode).or_default().push((number, place, entry.at));
                }
            }
        }
    }
    Ok(names)
}

fn move_inode(
    core: &mut Core,
    number: u32,
    names: &[Name],
    moved: &HashMap<u32, u32>,
) -> Result<u32> {
    let old = core.inode(number)?;
    if old.has_flag(flags::EA_INODE) {
        return Err(Error::new(
            Kind::Unsupported,
            "Inodes that hold attribute values (ea_inode) cannot be renumbered",
        ));
    }
    let directory = old.is_directory();
    let new_number = core.allocate_inode(ROOT, directory)?;
    let mut new = old.clone();
    new.number = new_number;
    core.put_inode(&new)?;
    for (holder, place, at) in names {
        let block = core.modify(*place)?;
        if le32(block, *at) != number {
            return Err(corrupt("a directory changed while its names were moved"));
        }
        put32(block, *at, new_number);
        let holder = moved.get(holder).copied().unwrap_or(*holder);
        if holder != number {
            let holder = core.inode(holder)?;
            core.seal_any_directory_block(&holder, *place)?;
        }
    }
    reseal(core, &mut new)?;
    core.put_inode(&new)?;
    let sb = core.super_mut();
    for (get, set) in [
        (sb.s_usr_quota_inum(), Superblock::set_s_usr_quota_inum as fn(&mut Superblock, u32)),
        (sb.s_grp_quota_inum(), Superblock::set_s_grp_quota_inum),
        (sb.s_prj_quota_inum(), Superblock::set_s_prj_quota_inum),
        (sb.s_orphan_file_inum(), Superblock::set_s_orphan_file_inum),
    ] {
        if get == number {
            set(sb, new_number);
        }
    }
    core.free_inode(&old, directory)?;
    core.put_inode(&Inode::empty(number, core.shape.inode_size))?;
    Ok(new_number)
}

/// Checksums of what belongs to an inode begin with its number.
fn reseal(core: &mut Core, inode: &mut Inode) -> Result<()> {
    if !core.shape.checksums {
        return Ok(());
    }
    if inode.number == core.sb.s_orphan_file_inum() {
        return core.empty_orphan_file();
    }
    if !core.has_mapping(inode) {
        return Ok(());
    }
    let mapped = read_whole(core, inode)?;
    if inode.has_flag(flags::EXTENTS) && !mapped.tree.is_empty() {
        let mut spare = mapped.tree.clone();
        spare.reverse();
        core.rebuild_tree(inode, &mapped.extents(), &mut spare)?;
        if !spare.is_empty() {
            let count = spare.len() as u64;
            for block in spare {
                core.free_metadata(block)?;
            }
            core.add_sectors(inode, count << core.shape.cluster_bits, false)?;
        }
    }
    if inode.is_directory() {
        for piece in &mapped.pieces {
            for place in piece.place..piece.place + piece.length {
                core.seal_directory_part(inode, place)?;
            }
        }
    }
    Ok(())
}
