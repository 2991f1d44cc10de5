//! Making a new length real, so that a cut at any time leaves the old or the new one.

use disksmith_disk::{Disk, Result};

use crate::ext::checksum::crc32c;
use crate::ext::core::Core;
use crate::ext::features::Incompat;
use crate::ext::layout::superblock::STATE_VALID;
use crate::ext::layout::{Superblock, put, put32};
use crate::ext::mkfs::write_backups;
use crate::ext::open::write_superblock;
use crate::ext::shape::Shape;

/// Begins the record that says that a change of length is under way.
const RECORD_MAGIC: &[u8; 16] = b"disksmith resize";
/// Magic number, UUID, checksum.
const RECORD_SIZE: usize = 36;

/// Writes what `next` holds in memory and closes the filesystem as `next`.
pub(super) fn publish(core: &mut Core, mut next: Core) -> Result<()> {
    let old = core.shape;
    next.write_back_groups()?;
    let dirty = std::mem::take(&mut next.transaction.dirty);
    let (changed, new): (Vec<u64>, Vec<u64>) = dirty.into_iter().partition(|at| *at < old.blocks);
    next.write_blocks(&new)?;
    core.disk.flush()?;
    let mut blocks = Vec::new();
    let superblock = 1024 >> old.block_bits;
    for number in changed.into_iter().filter(|number| *number != superblock) {
        let Some(data) = next.cached(number) else { continue };
        if *core.block(number)? != *data {
            blocks.push((number, data));
        }
    }
    let fits =
        core.journal.as_ref().is_some_and(|journal| blocks.len() + 2 <= journal.transaction_max());
    if fits {
        for (number, data) in &blocks {
            core.modify(*number)?.copy_from_slice(data);
        }
        *core.super_mut() = next.sb.clone();
        core.commit()?;
        core.checkpoint()?;
    } else {
        without_journal(core, &mut next, &blocks)?;
    }
    core.sb = next.sb.clone();
    core.sb.set_s_state(core.sb.s_state() | STATE_VALID);
    core.shut_down()?;
    core.shape = next.shape;
    core.groups = next.groups;
    write_backups(core)?;
    core.disk.flush()
}

/// The superblock last; before that, a record by which the next run knows that it may go on.
fn without_journal(
    core: &mut Core,
    next: &mut Core,
    blocks: &[(u64, crate::ext::cache::Block)],
) -> Result<()> {
    let shape = core.shape;
    core.journal = None;
    next.sb.set_incompat(Incompat::RECOVER, false);
    next.sb.set_s_state(next.sb.s_state() & !STATE_VALID);
    let mut sb = core.sb.clone();
    sb.set_s_state(sb.s_state() & !STATE_VALID);
    begin(&*core.disk, &shape, &sb)?;
    write_superblock(&*core.disk, &mut sb)?;
    core.disk.flush()?;
    for (number, data) in blocks {
        core.disk.write_at(data, number << shape.block_bits)?;
    }
    core.disk.flush()?;
    write_superblock(&*core.disk, &mut next.sb)?;
    core.disk.flush()
}

/// In the last sector of the disk, which no new table takes but in a full last group: then there is
/// no record, and a check has to come before the next run.
fn record_place(disk: &dyn Disk) -> u64 {
    (disk.size() / 512).saturating_sub(1) * 512
}

/// Leaves the record, where the filesystem does not reach yet.
pub(super) fn begin(disk: &dyn Disk, shape: &Shape, sb: &Superblock) -> Result<()> {
    let at = record_place(disk);
    if at >> shape.block_bits < shape.blocks {
        return Ok(());
    }
    disk.write_at(&record(sb), at)?;
    disk.flush()
}

/// Removes the record.
pub(super) fn end(disk: &dyn Disk, sb: &Superblock) -> Result<()> {
    if was_begun(disk, sb)? {
        disk.write_at(&[0; RECORD_SIZE], record_place(disk))?;
    }
    Ok(())
}

fn record(sb: &Superblock) -> [u8; RECORD_SIZE] {
    let mut record = [0; RECORD_SIZE];
    put(&mut record, 0, RECORD_MAGIC);
    put(&mut record, 16, &sb.uuid());
    let sum = crc32c(!0, &record[..32]);
    put32(&mut record, 32, sum);
    record
}

/// True when a record says that a change of length was begun.
pub(super) fn was_begun(disk: &dyn Disk, sb: &Superblock) -> Result<bool> {
    let mut found = [0; RECORD_SIZE];
    disk.read_at(&mut found, record_place(disk))?;
    Ok(found == record(sb))
}

/// Nothing to change; but a run that was cut short may have left the copies behind.
pub(super) fn finish_copies(core: &mut Core) -> Result<()> {
    core.shut_down()?;
    write_backups(core)?;
    core.disk.flush()
}
