//! Emptying a range of clusters: what lies there is copied elsewhere, then pointed to.

use std::ops::Range;

use disksmith_disk::{Kind, PageBuffer, Result, ZeroMode};

use super::super::chain::{Run, append};
use super::super::core::Core;
use super::super::layout::{DirEntry, ENTRY};
use super::super::table::is_split;
use crate::errors;

/// Copied at once.
const STEP: u64 = 1 << 20;
/// Changes that wait for a commit.
const WEIGHT_MAX: usize = 4096;
/// Directories nested deeper are taken for a loop.
const DEPTH_MAX: usize = 4096;

/// A directory being looked through.
struct Folder {
    start: u32,
    /// Where its entry lies, in bytes; 0 for the root.
    place: u64,
    /// Directories in it: place of the entry, first cluster.
    children: Vec<(u64, u32)>,
    /// How many of them are done.
    done: usize,
}

/// Moves everything out of the clusters `leave`. Where the new clusters may lie is said by
/// [`Core::allowed`].
pub(super) fn vacate(core: &mut Core, leave: Range<u32>) -> Result<()> {
    let mut stack = vec![open(core, core.shape.root_cluster, 0, &leave)?];
    while let Some(folder) = stack.last_mut() {
        if let Some((place, start)) = folder.children.get(folder.done).copied() {
            if stack.len() >= DEPTH_MAX {
                return Err(errors::too_many_symlinks());
            }
            let child = open(core, start, place, &leave)?;
            stack.push(child);
            continue;
        }
        let Some(folder) = stack.pop() else { break };
        let start = move_folder(core, &folder, &leave)?;
        if let Some(parent) = stack.last_mut() {
            if let Some(child) = parent.children.get_mut(parent.done) {
                child.1 = start;
            }
            parent.done += 1;
        }
    }
    core.commit()
}

/// Moves the files in a directory, and notes the directories in it.
fn open(core: &mut Core, start: u32, place: u64, leave: &Range<u32>) -> Result<Folder> {
    let (mut files, mut children) = (Vec::new(), Vec::new());
    let fat32 = core.is_fat32();
    core.scan(start, 0, &mut |found| {
        let at = found.place * ENTRY as u64;
        match (found.entry.is_directory(), found.entry.start(fat32)) {
            (_, 0) => {}
            (true, start) => children.push((at, start)),
            (false, _) => files.push((at, found.entry)),
        }
        true
    })?;
    for (at, entry) in files {
        if let Some(moved) = move_chain(core, entry.start(fat32), leave)? {
            put_start(core, at, entry, moved.start)?;
            core.free_runs(&moved.left);
        }
        if core.transaction.weight() > WEIGHT_MAX {
            core.commit()?;
        }
    }
    Ok(Folder { start, place, children, done: 0 })
}

/// Moves a directory whose children are where they will stay; answers its first cluster.
fn move_folder(core: &mut Core, folder: &Folder, leave: &Range<u32>) -> Result<u32> {
    if folder.start == 0 {
        return Ok(0);
    }
    // What is copied are the bytes on the disk.
    core.commit()?;
    let Some(moved) = move_chain(core, folder.start, leave)? else { return Ok(folder.start) };
    core.forget_directory(folder.start);
    if folder.place == 0 {
        move_root(core, &moved)?;
        return Ok(moved.start);
    }
    let entry = entry_at(core, folder.place)?;
    put_start(core, folder.place, entry, moved.start)?;
    if moved.start != folder.start {
        // Its own entry for itself lies in its new first cluster; its children point up to it.
        let own = core.shape.place(moved.start);
        let dot = entry_at(core, own)?;
        put_start(core, own, dot, moved.start)?;
        core.transaction.unreached.insert(own);
        for (_, child) in &folder.children {
            let up = core.shape.place(*child) + ENTRY as u64;
            let dots = entry_at(core, up)?;
            put_start(core, up, dots, moved.start)?;
        }
    }
    core.free_runs(&moved.left);
    core.commit()?;
    Ok(moved.start)
}

/// The root directory's entry is the boot sector.
fn move_root(core: &mut Core, moved: &Moved) -> Result<()> {
    core.commit()?;
    if moved.start != core.shape.root_cluster {
        core.boot.set_bpb_root_clus(moved.start);
        core.shape.root_cluster = moved.start;
        core.put_boot(0)?;
        core.disk.flush()?;
        core.put_backup()?;
    }
    core.free_runs(&moved.left);
    core.commit()
}

fn entry_at(core: &Core, at: u64) -> Result<DirEntry> {
    let (start, _) = super::super::chunk::chunk_at(&core.shape, at).ok_or_else(errors::stale)?;
    let chunk = core.chunks.get(&*core.disk, &core.shape, start)?;
    chunk.entry((at - start) as usize / ENTRY).ok_or_else(errors::stale)
}

fn put_start(core: &mut Core, at: u64, mut entry: DirEntry, start: u32) -> Result<()> {
    if entry.start(core.is_fat32()) == start {
        return Ok(());
    }
    entry.set_start(start);
    let chunk = core.chunks.store(&*core.disk, &core.shape, at, &entry.raw)?;
    core.transaction.chunks.insert(chunk);
    Ok(())
}

/// A chain that has other clusters now.
struct Moved {
    start: u32,
    /// The clusters that it left, to be freed when nothing points to them any more.
    left: Vec<Run>,
}

/// A piece of a chain: first cluster, count, and whether it moves.
type Piece = (u32, u32, bool);

/// Copies the part of a chain that lies in `leave`, and lets the rest of the chain lead there.
fn move_chain(core: &mut Core, start: u32, leave: &Range<u32>) -> Result<Option<Moved>> {
    let runs = core.chain(start)?;
    let pieces = divide(&runs, leave);
    if !pieces.iter().any(|piece| piece.2) {
        return Ok(None);
    }
    let (pieces, new) = allocate_for(core, pieces)?;
    let mut left: Vec<Run> = Vec::new();
    for (cluster, count, _) in pieces.iter().filter(|piece| piece.2) {
        append(&mut left, &[Run { index: 0, cluster: *cluster, count: *count }]);
    }
    let sequence = copy_pieces(core, pieces, new)?;
    core.transaction.content = true;
    let whole = chain_up(core, &sequence)?;
    let first = sequence.first().map_or(0, |piece| piece.0);
    core.forget_chain(start);
    core.keep_chain(first, std::sync::Arc::new(whole));
    Ok(Some(Moved { start: first, left }))
}

/// Each run divides into what lies before, in and behind the range.
fn divide(runs: &[Run], leave: &Range<u32>) -> Vec<Piece> {
    let mut pieces = Vec::new();
    for run in runs {
        let end = run.cluster + run.count;
        let (from, to) = (leave.start.clamp(run.cluster, end), leave.end.clamp(run.cluster, end));
        for (first, last, moves) in [(run.cluster, from, false), (from, to, true), (to, end, false)]
        {
            if last > first {
                pieces.push((first, last - first, moves));
            }
        }
    }
    pieces
}

/// Takes clusters for the pieces that move. What is led to them by an entry that cannot be changed
/// at once moves too, if there is room for it.
fn allocate_for(core: &mut Core, pieces: Vec<Piece>) -> Result<(Vec<Piece>, Vec<Run>)> {
    let count = |pieces: &[Piece]| pieces.iter().filter(|p| p.2).map(|p| p.1).sum::<u32>();
    let safe = with_split_ones(core, &pieces);
    match allocate(core, count(&safe)) {
        Err(error) if error.kind() == Kind::OutOfSpace && safe != pieces => {
            let new = allocate(core, count(&pieces))?;
            Ok((pieces, new))
        }
        new => Ok((safe, new?)),
    }
}

/// Takes clusters; those too that what was moved before has left.
fn allocate(core: &mut Core, count: u32) -> Result<Vec<Run>> {
    match core.allocate(count, 0) {
        Err(error) if error.kind() == Kind::OutOfSpace && core.transaction.frees_space() => {
            core.commit()?;
            core.allocate(count, 0)
        }
        done => done,
    }
}

/// Lets a piece that stays, but must lead elsewhere and whose last entry lies in two sectors, lose
/// its last cluster to what moves.
fn with_split_ones(core: &Core, pieces: &[Piece]) -> Vec<Piece> {
    let mut backwards = Vec::with_capacity(pieces.len());
    let mut next_moves = false;
    for (first, count, moves) in pieces.iter().rev().copied() {
        let last = first + count - 1;
        let loses_last = !moves && next_moves && is_split(&core.shape, last);
        if loses_last {
            backwards.push((last, 1, true));
        }
        let kept = count - u32::from(loses_last);
        if kept > 0 {
            backwards.push((first, kept, moves));
        }
        next_moves = moves || kept == 0;
    }
    backwards.reverse();
    backwards
}

/// Copies what moves to its new clusters; answers the new chain, and what of it is new.
fn copy_pieces(core: &Core, pieces: Vec<Piece>, new: Vec<Run>) -> Result<Vec<Piece>> {
    let mut new = new.into_iter();
    let mut room = new.next();
    let mut sequence: Vec<Piece> = Vec::new();
    for (mut cluster, mut count, moves) in pieces {
        if !moves {
            sequence.push((cluster, count, false));
            continue;
        }
        while count > 0 {
            let Some(run) = &mut room else { return Err(errors::no_space()) };
            let step = count.min(run.count);
            copy(core, cluster, run.cluster, step)?;
            sequence.push((run.cluster, step, true));
            (cluster, count) = (cluster + step, count - step);
            (run.cluster, run.count) = (run.cluster + step, run.count - step);
            if run.count == 0 {
                room = new.next();
            }
        }
    }
    Ok(sequence)
}

/// Lets each piece lead to the next one.
fn chain_up(core: &mut Core, sequence: &[Piece]) -> Result<Vec<Run>> {
    let end = core.shape.kind.end();
    let mut whole: Vec<Run> = Vec::new();
    for (index, (cluster, count, is_new)) in sequence.iter().enumerate() {
        let last = cluster + count - 1;
        match (is_new, sequence.get(index + 1)) {
            (true, next) => {
                let next = next.map_or(end, |next| next.0);
                core.table.set(&*core.disk, &core.shape, last, next)?;
            }
            (false, Some((next, _, true))) => core.link(last, *next)?,
            // Where something new ended between them, both pieces are as they were.
            (false, _) => {}
        }
        append(&mut whole, &[Run { index: 0, cluster: *cluster, count: *count }]);
    }
    Ok(whole)
}

/// Copies clusters; zeroes stay zeroes.
fn copy(core: &Core, from: u32, to: u32, count: u32) -> Result<()> {
    let length = u64::from(count) * core.shape.cluster_size();
    let (from, to) = (core.shape.place(from), core.shape.place(to));
    let mut buffer = PageBuffer::zeroed(length.min(STEP) as usize);
    let mut at = 0;
    while at < length {
        let step = (length - at).min(STEP) as usize;
        let part = &mut buffer[..step];
        core.disk.read_at(part, from + at)?;
        if disksmith_disk::is_zero(part) {
            core.disk.write_zeroes(to + at, step as u64, ZeroMode::Unmap)?;
        } else {
            core.disk.write_at(part, to + at)?;
        }
        at += step as u64;
    }
    Ok(())
}
