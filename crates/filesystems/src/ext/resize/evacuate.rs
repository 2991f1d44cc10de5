//! Moving blocks out of the part that is cut off: file by file, each in a transaction of its own.

use std::collections::{BTreeMap, HashMap};

use disksmith_disk::{PageBuffer, Result};

use crate::ext::check::mapping::{Mapped, edit_pointers, read_whole};
use crate::ext::core::{Core, RESIZE_INODE};
use crate::ext::extents::Extent;
use crate::ext::journal::Journal;
use crate::ext::layout::Inode;
use crate::ext::layout::inode::flags;
use crate::ext::layout::superblock::STATE_VALID;

/// File content is copied in pieces of this many bytes.
const COPY_BYTES: u64 = 1 << 20;
/// The longest extent that is surely allowed, written or not.
const EXTENT_MAX: u64 = 32767;
/// Changed blocks after which a transaction ends.
const DIRTY_MAX: usize = 256;

/// Moves every block at or behind `core.limit` that a file has.
pub(super) fn evacuate(core: &mut Core) -> Result<()> {
    let mut shared: BTreeMap<u64, Vec<u32>> = BTreeMap::new();
    move_journal(core)?;
    for number in used_inodes(core)? {
        let inode = core.inode_unchecked(number)?;
        if number == RESIZE_INODE {
            one_step(core, |core| move_resize_inode(core, inode))?;
            continue;
        }
        if inode.file_acl() >= core.limit {
            shared.entry(inode.file_acl()).or_default().push(number);
        }
        if maps_blocks(core, &inode) {
            one_step(core, |core| move_mapping(core, inode))?;
        }
    }
    for (block, users) in shared {
        one_step(core, |core| move_attributes(core, block, &users))?;
    }
    commit(core)
}

/// Does something whole or not at all; ends the transaction when it has become large.
pub(super) fn one_step(core: &mut Core, act: impl FnOnce(&mut Core) -> Result<()>) -> Result<()> {
    core.begin();
    if let Err(why) = act(core) {
        core.rollback();
        return Err(why);
    }
    core.finish();
    if core.transaction.dirty.len() > DIRTY_MAX { commit(core) } else { Ok(()) }
}

/// Ends the transaction; copies of content are durable before anything leads to them.
pub(super) fn commit(core: &mut Core) -> Result<()> {
    core.disk.flush()?;
    core.commit()
}

/// The journal moves while it is empty and not in use.
fn move_journal(core: &mut Core) -> Result<()> {
    let number = journal_inode(core);
    if number == 0 || core.journal.is_none() {
        return Ok(());
    }
    let inode = core.inode(number)?;
    let mapped = read_whole(core, &inode)?;
    let limit = core.limit;
    if mapped.tree.iter().all(|block| *block < limit)
        && mapped.pieces.iter().all(|piece| piece.place + piece.length <= limit)
    {
        return Ok(());
    }
    core.commit()?;
    core.checkpoint()?;
    core.journal = None;
    // A cut from here on asks for a check.
    let state = core.sb.s_state();
    core.super_mut().set_s_state(state & !STATE_VALID);
    core.commit()?;
    one_step(core, |core| move_mapping(core, inode))?;
    commit(core)?;
    core.super_mut().set_s_state(state);
    core.commit()?;
    if let Some((sb, runs)) = core.journal_place()? {
        core.journal = Some(Journal::new(sb, runs));
    }
    Ok(())
}

/// Its double indirect block; the blocks that that points to lie at the start.
fn move_resize_inode(core: &mut Core, mut inode: Inode) -> Result<()> {
    let double = u64::from(inode.block_pointer(13));
    if double < core.limit || !inode.is_regular() {
        return Ok(());
    }
    let data = core.block(double)?;
    let (new, _) = core.allocate_blocks(0, 1)?;
    core.fresh(new)?.copy_from_slice(&data);
    inode.set_block_pointer(13, new as u32);
    core.put_inode(&inode)?;
    core.free_metadata(double)
}

fn maps_blocks(core: &Core, inode: &Inode) -> bool {
    // The list of bad blocks is a map without a file.
    core.has_mapping(inode) && inode.number != 1
}

/// The numbers of all inodes in use.
pub(super) fn used_inodes(core: &Core) -> Result<Vec<u32>> {
    let shape = core.shape;
    let mut numbers = Vec::new();
    for group in 0..shape.groups {
        let bits = core.inode_bitmap(group)?;
        let mut at = 0;
        let end = u64::from(shape.inodes_per_group);
        while let Some(index) = crate::ext::bitmap::find(&bits, at, end, true) {
            numbers.push(group * shape.inodes_per_group + index as u32 + 1);
            at = index + 1;
        }
    }
    Ok(numbers)
}

fn move_mapping(core: &mut Core, mut inode: Inode) -> Result<()> {
    let limit = core.limit;
    let mapped = read_whole(core, &inode)?;
    let behind = mapped.tree.iter().any(|block| *block >= limit)
        || mapped.pieces.iter().any(|piece| piece.place + piece.length > limit);
    if !behind {
        return Ok(());
    }
    if inode.has_flag(flags::EXTENTS) {
        move_extents(core, &mut inode)?;
    } else {
        move_pointers(core, &mut inode)?;
    }
    core.put_inode(&inode)?;
    if inode.number == journal_inode(core) {
        let area: Vec<u8> = inode.block_area().to_vec();
        core.super_mut().set_journal_backup(&area, inode.size());
    }
    Ok(())
}

fn journal_inode(core: &Core) -> u32 {
    match core.sb.has_compat(crate::ext::features::Compat::HAS_JOURNAL) {
        true => core.sb.s_journal_inum(),
        false => 0,
    }
}

fn move_extents(core: &mut Core, inode: &mut Inode) -> Result<()> {
    let limit = core.limit;
    let mapped = read_whole(core, inode)?;
    let mut extents: Vec<Extent> = Vec::new();
    let mut freed = Vec::new();
    let clusters = core.shape.cluster_bits > 0;
    if clusters {
        move_clusters(core, inode, &mapped, &mut extents, &mut freed)?;
    }
    for piece in mapped.pieces.iter().filter(|_| !clusters) {
        let stays = limit.saturating_sub(piece.place).min(piece.length);
        if stays > 0 {
            push(&mut extents, piece.start, piece.place, stays, piece.unwritten);
        }
        let mut done = stays;
        while done < piece.length {
            let want = (piece.length - done).min(EXTENT_MAX);
            let (place, count) = core.allocate_blocks(0, want)?;
            copy(core, inode, piece.place + done, place, count, piece.unwritten)?;
            push(&mut extents, piece.start + done, place, count, piece.unwritten);
            done += count;
        }
        if stays < piece.length {
            freed.push((piece.place + stays, piece.length - stays));
        }
    }
    let (mut spare, behind): (Vec<u64>, Vec<u64>) =
        mapped.tree.iter().copied().partition(|block| *block < limit);
    spare.reverse();
    let unit = core.shape.block_size as u64 / 512;
    let each = 1_u64 << core.shape.cluster_bits;
    let content = (core.sectors(inode) / unit).saturating_sub(mapped.tree.len() as u64 * each);
    core.rebuild_tree(inode, &extents, &mut spare)?;
    for block in spare.into_iter().chain(behind) {
        core.free_metadata(block)?;
    }
    let tree = read_whole(core, inode)?.tree.len() as u64;
    inode.set_blocks_raw(0);
    core.add_sectors(inode, content + tree * each, true)?;
    free_all(core, inode, &freed)
}

/// With bigalloc whole clusters move, within which blocks keep their places.
fn move_clusters(
    core: &mut Core,
    inode: &Inode,
    mapped: &Mapped,
    extents: &mut Vec<Extent>,
    freed: &mut Vec<(u64, u64)>,
) -> Result<()> {
    let shape = core.shape;
    let (each, limit) = (1_u64 << shape.cluster_bits, core.limit);
    let mut places: HashMap<u64, u64> = HashMap::new();
    for piece in &mapped.pieces {
        let mut done = 0;
        while done < piece.length {
            let old = piece.place + done;
            let within = (old - shape.first_block) & (each - 1);
            let count = (each - within).min(piece.length - done);
            let cluster = old - within;
            let mut new = cluster;
            if cluster + each > limit {
                new = match places.get(&cluster) {
                    Some(place) => *place,
                    None => {
                        let (place, _) = core.allocate_blocks(0, each)?;
                        places.insert(cluster, place);
                        freed.push((cluster, each.min(shape.blocks - cluster)));
                        place
                    }
                };
                copy(core, inode, old, new + within, count, piece.unwritten)?;
            }
            push(extents, piece.start + done, new + within, count, piece.unwritten);
            done += count;
        }
    }
    Ok(())
}

fn push(extents: &mut Vec<Extent>, start: u64, place: u64, count: u64, unwritten: bool) {
    if let Some(last) = extents.last_mut() {
        let joins = last.end() == start
            && last.place + u64::from(last.length) == place
            && last.unwritten == unwritten
            && u64::from(last.length) + count <= EXTENT_MAX;
        if joins {
            last.length += count as u32;
            return;
        }
    }
    let (start, length) = (start as u32, count as u32);
    extents.push(Extent { start, length, place, unwritten });
}

fn move_pointers(core: &mut Core, inode: &mut Inode) -> Result<()> {
    let (limit, whole) = (core.limit, inode.clone());
    let mut failed = None;
    let mut freed = Vec::new();
    let mut goal = 0;
    edit_pointers(core, inode, &mut |core, _, _, level, pointer| {
        let old = u64::from(pointer);
        if old < limit || failed.is_some() {
            return pointer;
        }
        let mut act = || -> Result<u64> {
            let (new, _) = core.allocate_blocks(goal, 1)?;
            goal = new + 1;
            if level == 0 {
                copy(core, &whole, old, new, 1, false)?;
                freed.push((old, 1));
            } else {
                let data = core.block(old)?;
                core.fresh(new)?.copy_from_slice(&data);
                core.free_metadata(old)?;
            }
            Ok(new)
        };
        match act() {
            Ok(new) => new as u32,
            Err(why) => {
                failed = Some(why);
                pointer
            }
        }
    })?;
    match failed {
        Some(why) => Err(why),
        None => free_all(core, &whole, &freed),
    }
}

/// Copies content: that of directories and symlinks is metadata, and goes with the transaction.
fn copy(core: &mut Core, inode: &Inode, from: u64, to: u64, count: u64, skip: bool) -> Result<()> {
    if !inode.is_regular() {
        for step in 0..count {
            let data = core.block(from + step)?;
            core.fresh(to + step)?.copy_from_slice(&data);
        }
        return Ok(());
    }
    if skip {
        return Ok(());
    }
    core.note_overwritten(to, count)?;
    let bits = core.shape.block_bits;
    let (mut at, end) = (0, count << bits);
    while at < end {
        let mut buffer = PageBuffer::zeroed(COPY_BYTES.min(end - at) as usize);
        core.disk.read_at(&mut buffer, (from << bits) + at)?;
        core.disk.write_at(&buffer, (to << bits) + at)?;
        at += buffer.len() as u64;
    }
    Ok(())
}

fn free_all(core: &mut Core, inode: &Inode, runs: &[(u64, u64)]) -> Result<()> {
    for (start, count) in runs {
        if inode.is_regular() {
            core.free_blocks(*start, *count)?;
        } else {
            for block in *start..start + count {
                core.free_metadata(block)?;
            }
        }
    }
    Ok(())
}

fn move_attributes(core: &mut Core, block: u64, users: &[u32]) -> Result<()> {
    let data = core.block(block)?;
    let new = core.allocate_metadata(0)?;
    core.fresh(new)?.copy_from_slice(&data);
    core.seal_attributes(new)?;
    for number in users {
        let mut inode = core.inode(*number)?;
        inode.set_file_acl(new);
        core.put_inode(&inode)?;
    }
    core.free_metadata(block)
}
