//! What a whole chain says about a range: the question behind `map`, `convert` and `compare`.

use disksmith_disk::{Disk, Extent, Result, State};

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
    let size = top.image.size();
    let mut length = length.min(size.saturating_sub(offset));
    let mut depth = 0;
    for (index, node) in top.chain().enumerate() {
        depth = index;
        if offset >= node.image.size() {
            // A shorter backing image: zeroes past its end, decided here.
            return Ok(ChainExtent {
                start: offset,
                length,
                depth: index,
                present: false,
                zero: true,
                data: false,
                compressed: false,
                place: None,
            });
        }
        let extent = node.image.map(offset, length)?;
        length = extent.length.min(length);
        if extent.state != State::Absent {
            return decided(node, extent.cut(length), offset, index);
        }
    }
    Ok(ChainExtent {
        start: offset,
        length,
        depth,
        present: false,
        zero: true,
        data: false,
        compressed: false,
        place: None,
    })
}

/// A layer has the range. Data that lies in a hole of the file below reads as zero.
fn decided(node: &Node, extent: Extent, offset: u64, depth: usize) -> Result<ChainExtent> {
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
    let (State::Data, Some(place)) = (extent.state, extent.place) else { return Ok(run) };
    let below: &dyn Disk = match &node.data_file {
        Some((_, data)) => &**data,
        None => &**node.image.storage(),
    };
    if node.image.format() == "raw" {
        return Ok(run);
    }
    if place >= below.size() {
        run.zero = true;
        return Ok(run);
    }
    let under = below.map(place, extent.length)?;
    run.length = run.length.min(under.length);
    run.zero = under.state == State::Zero;
    Ok(run)
}

/// All runs from `offset` on for `length` bytes, equal neighbours joined.
pub fn chain_extents(
    top: &Node,
    offset: u64,
    length: u64,
) -> impl Iterator<Item = Result<ChainExtent>> + '_ {
    let end = offset.saturating_add(length).min(top.image.size());
    let mut at = offset;
    let mut pending: Option<ChainExtent> = None;
    std::iter::from_fn(move || {
        while at < end {
            let next = match chain_map(top, at, end - at) {
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
