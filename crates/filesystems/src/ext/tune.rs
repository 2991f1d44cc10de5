//! Changing what a filesystem says of itself: label, UUID, reserved blocks; giving it a journal.

use std::sync::Arc;

use disksmith_disk::{Disk, Error, Kind, Result};

use super::core::{Core, JOURNAL_INODE};
use super::features::{Compat, Incompat};
use super::mkfs::{add_journal, write_backups};

/// Changes to make; `None` leaves things as they are.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Tune {
    /// At most 16 bytes.
    pub label: Option<Vec<u8>>,
    /// With metadata checksums only where the seed is kept in the superblock, because all
    /// checksums depend on it otherwise.
    pub uuid: Option<[u8; 16]>,
    /// Blocks kept for root, at most half of all.
    pub reserved_blocks: Option<u64>,
    /// Give a filesystem without a journal one of so many blocks: ext2 becomes ext3.
    pub journal_blocks: Option<u32>,
}

/// Applies changes to the filesystem on `disk`, to the superblock's copies too.
pub fn tune(disk: Arc<dyn Disk>, changes: &Tune) -> Result<()> {
    let mut core = Core::open_writable(disk)?;
    core.begin();
    if let Err(error) = apply(&mut core, changes) {
        core.rollback();
        core.shut_down()?;
        return Err(error);
    }
    core.finish();
    core.shut_down()?;
    write_backups(&core)?;
    core.disk.flush()
}

fn apply(core: &mut Core, changes: &Tune) -> Result<()> {
    let invalid = |text: &str| Err(Error::new(Kind::InvalidInput, text));
    if let Some(label) = &changes.label {
        if label.len() > 16 {
            return invalid("A label has at most 16 bytes");
        }
        core.super_mut().set_label(label);
    }
    if let Some(uuid) = &changes.uuid {
        if core.shape.lazy_groups && !core.shape.has_incompat(Incompat::CSUM_SEED) {
            return Err(Error::new(
                Kind::Unsupported,
                "All checksums depend on the UUID: it cannot be changed without metadata_csum_seed",
            ));
        }
        if core.shape.has_compat(Compat::STABLE_INODES) {
            return invalid("The feature stable_inodes forbids a change of the UUID");
        }
        core.super_mut().set_uuid(uuid);
    }
    if let Some(blocks) = changes.reserved_blocks {
        if blocks > core.shape.blocks / 2 {
            return invalid("At most half of the blocks can be reserved");
        }
        core.super_mut().set_reserved_blocks(blocks);
    }
    if let Some(blocks) = changes.journal_blocks {
        if core.shape.has_compat(Compat::HAS_JOURNAL) {
            return Err(Error::new(Kind::AlreadyExists, "There is a journal already"));
        }
        if !(1024..=10_240_000).contains(&blocks) || u64::from(blocks) > core.sb.free_blocks() / 2 {
            return invalid("A journal of that size is not possible");
        }
        if core.inode_unchecked(JOURNAL_INODE)?.i_links_count() > 0 {
            return invalid("The journal's inode is in use");
        }
        add_journal(core, blocks)?;
        core.super_mut().set_compat(Compat::HAS_JOURNAL, true);
    }
    Ok(())
}
