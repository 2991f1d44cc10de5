//! What a whole chain says about a range: the question behind `map`, `convert` and `compare`.

use disksmith_disk::{Disk, Extent, Result, State};
use disksmith_nbd::NbdDisk;

use crate::Node;

/// One run of a chain in one state.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ChainExtent {
    /// Guest offset in bytes.
    pub start: u64,
    /// Bytes.
    pub length: u64,
    /// How many images down the one lies that decided (0 = the top).
    pub depth: usize,
    /// Some layer has this range.
    pub present: bool,
    /// Reads as zero.
    pub zero: bool,
    /// Has storage that holds it.
    pub data: bool,
    /// Stored compressed.
    pub compressed: bool,
    /// Where it lies plainly in that layer's file.
    pub place: Option<u64>,
}

impl ChainExtent {
    fn continues(&self, next: &Self) -> bool {
        (self.depth, self.present, self.zero, self.data, self.compressed)
            == (next.depth, next.present, next.zero, next.data, next.compressed)
            && match (self.place, next.place) {
                (Some(a), Some(b)) => a.checked_add(self.length) == Some(b),
                (None, None) => true,
                _ => false,
            }
    }
}

/// What is at `offset`, at most `length` bytes on. Runs may come in pieces; see
/// [`chain_extents`] for joined ones.
pub fn chain_map(top: &Node, offset: u64, length: u64) -> Result<ChainExtent> {
    map_through(top, usize::MAX, &LookBelow::All, offset, length)
}

/// As [`chain_map`], but only the first `layers` images of the chain are asked: what none of
/// them has is answered as not present at the depth `layers`, whatever lies there.
pub fn chain_map_above(top: &Node, layers: usize, offset: u64, length: u64) -> Result<ChainExtent> {
    map_through(top, layers, &LookBelow::All, offset, length)
}

/// Below which images of a chain holes of the file count as zeroes.
enum LookBelow {
    All,
    /// By depth.
    Only(Vec<bool>),
}

impl LookBelow {
    fn at(&self, depth: usize) -> bool {
        match self {
            Self::All => true,
            Self::Only(list) => list.get(depth) == Some(&true),
        }
    }
}

fn map_through(
    top: &Node,
    layers: usize,
    looks_below: &LookBelow,
    offset: u64,
    length: u64,
) -> Result<ChainExtent> {
    let size = top.image.size();
    let mut length = length.min(size.saturating_sub(offset));
    let mut depth = 0;
    for (index, node) in top.chain().enumerate() {
        if index == layers {
            // Not ours to ask: it may be data.
            let nothing = nothing(offset, length, layers);
            return Ok(ChainExtent { zero: false, ..nothing });
        }
        depth = index;
        if offset >= node.image.size() {
            // A shorter backing image: zeroes past its end, decided by the one above it.
            return Ok(nothing(offset, length, index.saturating_sub(1)));
        }
        let extent = node.image.map(offset, length)?;
        length = extent.length.min(length);
        if extent.state != State::Absent {
            return decided(node, looks_below, extent.cut(length), offset, index);
        }
    }
    Ok(nothing(offset, length, depth))
}

/// No layer has it: zeroes.
fn nothing(start: u64, length: u64, depth: usize) -> ChainExtent {
    ChainExtent {
        start,
        length,
        depth,
        present: false,
        zero: true,
        data: false,
        compressed: false,
        place: None,
    }
}

/// A layer has the range. Data that lies in a hole of the file below reads as zero.
fn decided(
    node: &Node,
    looks_below: &LookBelow,
    extent: Extent,
    offset: u64,
    depth: usize,
) -> Result<ChainExtent> {
    let mut run = ChainExtent {
        start: offset,
        length: extent.length,
        depth,
        present: true,
        zero: extent.state == State::Zero,
        data: extent.state == State::Data,
        compressed: extent.compressed,
        place: extent.place,
    };
    if let (Some(export), LookBelow::Only(_)) = (&node.export, looks_below)
        && export.has_context()
    {
        return in_context(export, run);
    }
    let (State::Data, Some(place)) = (extent.state, extent.place) else { return Ok(run) };
    if node.image.format() == "raw" || !looks_below.at(depth) {
        return Ok(run);
    }
    let file = node.data_file.as_ref().map(|(_, data)| data).or(node.file.as_ref());
    let below: &dyn Disk = match &node.data_file {
        Some((_, data)) => &**data,
        None => &**node.image.storage(),
    };
    if place >= below.size() {
        run.zero = true;
        return Ok(run);
    }
    if file.is_some_and(|file| !file.may_have_holes()) {
        return Ok(run);
    }
    let under = below.map(place, extent.length)?;
    run.length = run.length.min(under.length);
    run.zero = under.state == State::Zero;
    Ok(run)
}

/// What the context says that the user chose of an export, in the place of what is there: the
/// way in which qemu-img's `map` shows dirty bitmaps. Bit 0 counts as a hole, bit 1 as zero.
fn in_context(export: &NbdDisk, run: ChainExtent) -> Result<ChainExtent> {
    let (length, flags) = export.context_status(run.start, run.length)?;
    // Depths of allocation beyond 2 are told as 2.
    let flags = if flags > 3 { 2 } else { flags };
    let (data, zero) = (flags & 1 == 0, flags & 2 != 0);
    let place = run.place.filter(|_| data || zero);
    Ok(ChainExtent { length, data, zero, present: data || zero, place, ..run })
}

/// All runs from `offset` on for `length` bytes, equal neighbours joined.
pub fn chain_extents(
    top: &Node,
    offset: u64,
    length: u64,
) -> impl Iterator<Item = Result<ChainExtent>> + '_ {
    extents_through(top, LookBelow::All, offset, length)
}

/// As [`chain_extents`], but as qemu-img answers: holes of a file below an image that stores its
/// own allocation are looked for only when the image seems to be preallocated, that is when its
/// file takes much less room than its clusters would.
pub fn chain_extents_like_qemu(
    top: &Node,
    offset: u64,
    length: u64,
) -> impl Iterator<Item = Result<ChainExtent>> + '_ {
    let top = top.without_filters();
    let preallocated = top.chain().map(seems_preallocated).collect();
    extents_through(top, LookBelow::Only(preallocated), offset, length)
}

fn seems_preallocated(node: &Node) -> bool {
    let (Some(file), Some(cluster)) = (&node.file, node.image.cluster_size()) else { return false };
    let (Ok(allocated), cluster) = (file.allocated(), cluster.max(1)) else { return false };
    let real = allocated / cluster;
    file.size().div_ceil(cluster) >= (real * 10 / 9).max(real + 2)
}

fn extents_through<'a>(
    top: &'a Node,
    looks_below: LookBelow,
    offset: u64,
    length: u64,
) -> impl Iterator<Item = Result<ChainExtent>> + 'a {
    let end = offset.saturating_add(length).min(top.image.size());
    let mut at = offset;
    let mut pending: Option<ChainExtent> = None;
    std::iter::from_fn(move || {
        while at < end {
            let next = match map_through(top, usize::MAX, &looks_below, at, end - at) {
                Ok(next) => next,
                Err(error) => {
                    at = end;
                    pending = None;
                    return Some(Err(error));
                }
            };
            at += next.length;
            match &mut pending {
                Some(run) if run.continues(&next) => run.length += next.length,
                Some(run) => return Some(Ok(std::mem::replace(run, next))),
                None => pending = Some(next),
            }
        }
        pending.take().map(Ok)
    })
}
