//! Changing the length of a filesystem that nobody uses.
//!
//! Growing ([`grow`]) never moves anything: the descriptor table grows into its reserve, and past that the
//! filesystem continues with `meta_bg`, whose descriptors lie in the groups they describe (what the
//! kernel does when it grows a mounted filesystem). What is new is written where nothing was; the
//! blocks of the old part that change, the superblock among them, go through the journal as one
//! transaction. Without a journal the superblock comes last: until then the old length holds, and
//! the next run does everything anew.
//!
//! Shrinking ([`shrink`]) first moves blocks and inodes out of the part to be cut off, in ordinary
//! transactions of the filesystem as it is, and then changes the superblock in the same way.

mod evacuate;
mod geometry;
mod grow;
mod minimum;
mod publish;
mod renumber;
mod shrink;

use std::sync::Arc;

use disksmith_disk::{Disk, Error, Kind, Result};

use super::core::{Core, read_superblock};
use super::features::Compat;
use super::journal::Overlay;
use super::layout::superblock::{STATE_ERROR, STATE_VALID};
use super::shape::Shape;

/// Times that a shrinking to the minimum asks for more.
const ATTEMPTS_MAX: u32 = 8;

/// To which length.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum NewSize {
    /// As long as the disk.
    Disk,
    /// So many bytes, rounded down to whole blocks.
    Bytes(u64),
    /// So many bytes, unless it is shorter already.
    AtMost(u64),
    /// So many blocks of the filesystem.
    Blocks(u64),
    /// As short as it can be.
    Minimum,
}

/// What a change of length did. The new length may be a little less than what was asked for: a last
/// group too small to be of use is left out.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Resized {
    /// Bytes in a block.
    pub block_size: u32,
    /// Length before, in blocks.
    pub old_blocks: u64,
    /// Length now, in blocks.
    pub new_blocks: u64,
}

impl Resized {
    /// Length before, in bytes.
    pub fn old_bytes(&self) -> u64 {
        self.old_blocks.saturating_mul(self.block_size.into())
    }

    /// Length now, in bytes.
    pub fn new_bytes(&self) -> u64 {
        self.new_blocks.saturating_mul(self.block_size.into())
    }
}

/// Gives the filesystem on `disk` another length. To grow, the disk must be large enough already;
/// to shrink it, the filesystem comes first and the disk after.
///
/// A journal that holds changes is replayed first. Refused, with nothing changed: a filesystem that
/// was found damaged or (without a journal) was not unmounted, and what the features forbid.
pub fn resize(disk: &Arc<dyn Disk>, size: NewSize) -> Result<Resized> {
    let first = resize_once(disk, size)?;
    let mut done = first;
    // Tables of groups that went were in the way: without them it may become shorter still.
    while size == NewSize::Minimum && done.new_blocks < done.old_blocks {
        done = resize_once(disk, size)?;
    }
    Ok(Resized { old_blocks: first.old_blocks, ..done })
}

fn resize_once(disk: &Arc<dyn Disk>, size: NewSize) -> Result<Resized> {
    let resuming = refuse_unfit(&**disk)?;
    if shrinks(disk, size)? {
        refuse_damaged(disk.clone())?;
    }
    let mut core = Core::open_writable(disk.clone())?;
    let done = resize_open(&mut core, size, resuming);
    if done.is_err() && !core.failed {
        core.shut_down()?;
    }
    if done.is_ok() || !core.failed {
        publish::end(&**disk, &core.sb)?;
    }
    disk.flush()?;
    done
}

fn resize_open(core: &mut Core, size: NewSize, resuming: bool) -> Result<Resized> {
    let shape = core.shape;
    let wanted = match size {
        NewSize::Disk => whole_pages(&shape, core.disk.size()) >> shape.block_bits,
        NewSize::Bytes(bytes) => bytes >> shape.block_bits,
        NewSize::AtMost(bytes) => (bytes >> shape.block_bits).min(shape.blocks),
        NewSize::Blocks(blocks) => blocks,
        NewSize::Minimum => return shrink_to_minimum(core),
    };
    resize_to(core, wanted, resuming)
}

/// The estimate may be a little low, as trees grow while their files move.
fn shrink_to_minimum(core: &mut Core) -> Result<Resized> {
    let mut wanted = minimum::minimum(core)?;
    for _ in 0..ATTEMPTS_MAX {
        match resize_to(core, wanted, false) {
            Err(why) if why.kind() == Kind::OutOfSpace && !core.failed => {
                wanted = (wanted + (wanted / 64).max(64)).min(core.shape.blocks);
            }
            done => return done,
        }
    }
    resize_to(core, core.shape.blocks, false)
}

fn resize_to(core: &mut Core, wanted: u64, resuming: bool) -> Result<Resized> {
    let shape = core.shape;
    let target = geometry::target(core, wanted)?;
    let done = Resized {
        block_size: shape.block_size as u32,
        old_blocks: shape.blocks,
        new_blocks: target.shape.blocks,
    };
    match done.new_blocks.cmp(&done.old_blocks) {
        std::cmp::Ordering::Equal => publish::finish_copies(core)?,
        std::cmp::Ordering::Greater => grow::grow(core, target, resuming)?,
        std::cmp::Ordering::Less => shrink::shrink(core, &target)?,
    }
    Ok(done)
}

/// The least length that [`resize`] can give the filesystem, in bytes.
pub fn minimum_size(disk: Arc<dyn Disk>) -> Result<u64> {
    let core = Core::open_read_only(disk)?;
    Ok(minimum::minimum(&core)? << core.shape.block_bits)
}

fn shrinks(disk: &Arc<dyn Disk>, size: NewSize) -> Result<bool> {
    let core = Core::open_read_only(disk.clone())?;
    Ok(match size {
        NewSize::Disk => false,
        NewSize::Bytes(bytes) | NewSize::AtMost(bytes) => {
            bytes >> core.shape.block_bits < core.shape.blocks
        }
        NewSize::Blocks(blocks) => blocks < core.shape.blocks,
        NewSize::Minimum => true,
    })
}

/// What moves must be known to the last block.
fn refuse_damaged(disk: Arc<dyn Disk>) -> Result<()> {
    let report = super::check::check(disk)?;
    match report.findings.first() {
        None => Ok(()),
        Some(finding) => Err(Error::new(
            Kind::Refused,
            format!("The filesystem is damaged, nothing can be moved in it: {finding}"),
        )
        .with_hint("Run 'disksmith fsck -y' on it first.")),
    }
}

/// Blocks smaller than a page: whole pages only, as the kernel reads them.
fn whole_pages(shape: &Shape, bytes: u64) -> u64 {
    const PAGE: u64 = 4096;
    if (shape.block_size as u64) < PAGE { bytes / PAGE * PAGE } else { bytes }
}

/// Refuses what needs a check first. True when an earlier run was cut short here. Without a journal
/// a record is left before anything else says that the filesystem is not whole.
fn refuse_unfit(disk: &dyn Disk) -> Result<bool> {
    if disk.read_only() {
        return Err(crate::errors::read_only());
    }
    let sb = read_superblock(disk, &Overlay::default(), false)?;
    let hint = "Nothing was changed. Run 'disksmith fsck -y' with the same image and partition: it mends what a power cut left. Then repeat this command.";
    if sb.s_state() & STATE_ERROR != 0 {
        return Err(
            Error::new(Kind::Refused, "The filesystem is marked as damaged").with_hint(hint)
        );
    }
    let shape = Shape::new(&sb, disk.size())?;
    let resuming = publish::was_begun(disk, &sb)?;
    if sb.s_state() & STATE_VALID != 0 || resuming {
        if !sb.has_compat(Compat::HAS_JOURNAL) {
            publish::begin(disk, &shape, &sb)?;
        }
        return Ok(resuming);
    }
    Err(Error::new(Kind::Refused, "The filesystem was not unmounted cleanly").with_hint(hint))
}
