//! Changing what a filesystem says of itself: label, UUID, reserved blocks, how it is mounted and
//! checked; and its features.
//!
//! Most changes are in the superblock alone. Where all checksums change (`metadata_csum`, a UUID that
//! they begin with), or structures everywhere (`filetype`), the superblock is changed and marked as in
//! need of a check, and a repair brings the rest into line: a cut in between leaves a filesystem that
//! 'fsck -y' completes.

use std::sync::Arc;

use disksmith_disk::{Disk, Error, Kind, Result};

use super::check::{Repair, repair};
use super::checksum::crc32c;
use super::core::{Core, JOURNAL_INODE, RESIZE_INODE};
use super::features::{Compat, FeatureSet, Incompat, RoCompat};
use super::journal::Overlay;
use super::layout::Inode;
use super::layout::superblock::{STATE_ERROR, STATE_VALID};
use super::mkfs::{add_journal, default_journal_blocks, write_backups};
use super::open::write_superblock;
use super::shape::Shape;

/// Mount options that the superblock can hold (`s_default_mount_opts`), as tune2fs spells them.
const MOUNT_OPTIONS: &[(&str, u32)] = &[
    ("debug", 0x1),
    ("bsdgroups", 0x2),
    ("user_xattr", 0x4),
    ("acl", 0x8),
    ("uid16", 0x10),
    ("journal_data", 0x20),
    ("journal_data_ordered", 0x40),
    ("journal_data_writeback", 0x60),
    ("nobarrier", 0x100),
    ("block_validity", 0x200),
    ("discard", 0x400),
    ("nodelalloc", 0x800),
];
/// The bits of `s_default_mount_opts` that say how data are journaled: one of three.
const JOURNAL_MODE: u32 = 0x60;
/// Journals have so many blocks.
const JOURNAL_BLOCKS: std::ops::RangeInclusive<u32> = 1024..=10_240_000;

/// What Linux does when it meets damage (`s_errors`).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum OnError {
    /// Goes on.
    Continue,
    /// Mounts it read-only.
    ReadOnly,
    /// Stops the system.
    Panic,
}

/// Changes to make; `None` leaves things as they are.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tune {
    /// At most 16 bytes.
    pub label: Option<Vec<u8>>,
    /// Where checksums begin with the UUID, all of them are written anew.
    pub uuid: Option<[u8; 16]>,
    /// Blocks kept for root, at most half of all.
    pub reserved_blocks: Option<u64>,
    /// The same, as per cent of the blocks.
    pub reserved_percent: Option<f64>,
    /// Give a filesystem without a journal one of so many blocks (0: the usual number): ext2 becomes
    /// ext3.
    pub journal_blocks: Option<u32>,
    /// Features on and off, as `tune2fs -O`: `metadata_csum,^has_journal`.
    pub features: Option<String>,
    /// Mounts after which a check is due; 0 or less: never.
    pub max_mounts: Option<i16>,
    /// Mounts since the last check.
    pub mounts: Option<u16>,
    /// Seconds after which a check is due; 0: never.
    pub check_interval: Option<u32>,
    /// What Linux does when it meets damage.
    pub on_error: Option<OnError>,
    /// User who may use reserved blocks.
    pub reserved_uid: Option<u16>,
    /// Group whose members may use reserved blocks.
    pub reserved_gid: Option<u16>,
    /// Default mount options on and off: `acl,^user_xattr`.
    pub mount_options: Option<String>,
}

/// Applies changes to the filesystem on `disk`, to the superblock's copies too.
pub fn tune(disk: &Arc<dyn Disk>, changes: &Tune) -> Result<()> {
    let mut core = Core::open_writable(disk.clone())?;
    core.begin();
    let rest = match apply(&mut core, changes) {
        Ok(rest) => rest,
        Err(error) => {
            core.rollback();
            core.shut_down()?;
            return Err(error);
        }
    };
    if rest.is_needed()
        && let Err(error) = refuse_deep(&core.sb)
    {
        core.rollback();
        core.shut_down()?;
        return Err(error);
    }
    core.finish();
    core.shut_down()?;
    if rest.is_needed() {
        // The superblock has what could be set at once; the rest follows.
        return bring_into_line(disk, core.sb, &rest);
    }
    write_backups(&core)?;
    core.disk.flush()
}

/// What has to follow everywhere in the filesystem.
#[derive(Clone, Debug, Default)]
struct Rest {
    features: Option<FeatureSet>,
    uuid: Option<[u8; 16]>,
}

impl Rest {
    fn is_needed(&self) -> bool {
        self.features.is_some() || self.uuid.is_some()
    }
}

fn invalid<T>(text: impl Into<String>) -> Result<T> {
    Err(Error::new(Kind::InvalidInput, text.into()))
}

fn apply(core: &mut Core, changes: &Tune) -> Result<Rest> {
    let mut rest = Rest::default();
    if let Some(label) = &changes.label {
        if label.len() > 16 {
            return invalid("A label has at most 16 bytes");
        }
        core.super_mut().set_label(label);
    }
    apply_numbers(core, changes)?;
    if let Some(list) = &changes.features {
        apply_features(core, list, &mut rest)?;
    }
    if let Some(blocks) = changes.journal_blocks {
        if core.sb.has_compat(Compat::HAS_JOURNAL) && changes.features.is_none() {
            return Err(Error::new(Kind::AlreadyExists, "There is a journal already"));
        }
        give_journal(core, blocks)?;
    }
    if let Some(uuid) = &changes.uuid {
        if core.shape.has_compat(Compat::STABLE_INODES) {
            return invalid("The feature stable_inodes forbids a change of the UUID");
        }
        if core.shape.lazy_groups && !core.sb.has_incompat(Incompat::CSUM_SEED) {
            rest.uuid = Some(*uuid);
        } else {
            core.super_mut().set_uuid(uuid);
        }
    }
    Ok(rest)
}

fn apply_numbers(core: &mut Core, changes: &Tune) -> Result<()> {
    let all = core.shape.blocks;
    let percent = match changes.reserved_percent {
        Some(percent) if !(0.0..=50.0).contains(&percent) => {
            return invalid("At most half of the blocks can be reserved");
        }
        Some(percent) => Some((all as f64 * percent / 100.0) as u64),
        None => None,
    };
    if let Some(blocks) = changes.reserved_blocks.or(percent) {
        if blocks > all / 2 {
            return invalid("At most half of the blocks can be reserved");
        }
        core.super_mut().set_reserved_blocks(blocks);
    }
    let sb = core.super_mut();
    if let Some(count) = changes.max_mounts {
        sb.set_s_max_mnt_count(count as u16);
    }
    if let Some(count) = changes.mounts {
        sb.set_s_mnt_count(count);
    }
    if let Some(seconds) = changes.check_interval {
        sb.set_s_checkinterval(seconds);
    }
    if let Some(what) = changes.on_error {
        sb.set_s_errors(match what {
            OnError::Continue => 1,
            OnError::ReadOnly => 2,
            OnError::Panic => 3,
        });
    }
    if let Some(uid) = changes.reserved_uid {
        sb.set_s_def_resuid(uid);
    }
    if let Some(gid) = changes.reserved_gid {
        sb.set_s_def_resgid(gid);
    }
    if let Some(list) = &changes.mount_options {
        let options = mount_options(sb.s_default_mount_opts(), list)?;
        sb.set_s_default_mount_opts(options);
    }
    Ok(())
}

fn mount_options(mut bits: u32, list: &str) -> Result<u32> {
    for word in list.split([',', ' ']).filter(|word| !word.is_empty()) {
        let (name, on) = match word.strip_prefix(['^', '-']) {
            Some(name) => (name, false),
            None => (word, true),
        };
        let Some((_, bit)) = MOUNT_OPTIONS.iter().find(|(known, _)| *known == name) else {
            let names: Vec<&str> = MOUNT_OPTIONS.iter().map(|(name, _)| *name).collect();
            return Err(Error::new(
                Kind::InvalidInput,
                format!("There is no default mount option '{name}'"),
            )
            .with_hint(format!("There are: {}.", names.join(", "))));
        };
        bits &= !if bit & JOURNAL_MODE != 0 { JOURNAL_MODE } else { *bit };
        bits |= if on { *bit } else { 0 };
    }
    Ok(bits)
}

// ---- features ------------------------------------------------------------------------------

/// Features of which only the bit changes.
const PLAIN: FeatureSet = FeatureSet {
    compat: Compat::DIR_INDEX.union(Compat::EXT_ATTR).union(Compat::STABLE_INODES),
    incompat: Incompat::EXTENTS
        .union(Incompat::EA_INODE)
        .union(Incompat::LARGEDIR)
        .union(Incompat::ENCRYPT),
    ro_compat: RoCompat::LARGE_FILE
        .union(RoCompat::HUGE_FILE)
        .union(RoCompat::DIR_NLINK)
        .union(RoCompat::EXTRA_ISIZE)
        .union(RoCompat::VERITY)
        .union(RoCompat::READONLY),
};

/// Features after whose change a repair brings structures into line.
const DEEP: FeatureSet = FeatureSet {
    compat: Compat::RESIZE_INODE,
    incompat: Incompat::FILETYPE.union(Incompat::CSUM_SEED),
    ro_compat: RoCompat::METADATA_CSUM.union(RoCompat::GDT_CSUM),
};

fn apply_features(core: &mut Core, list: &str, rest: &mut Rest) -> Result<()> {
    let old = FeatureSet {
        compat: core.sb.compat(),
        incompat: core.sb.incompat(),
        ro_compat: core.sb.ro_compat(),
    };
    let mut new = old;
    new.apply(list)?;
    let changed = FeatureSet {
        compat: old.compat ^ new.compat,
        incompat: old.incompat ^ new.incompat,
        ro_compat: old.ro_compat ^ new.ro_compat,
    };
    let unknown = FeatureSet {
        compat: changed.compat - PLAIN.compat - DEEP.compat - Compat::HAS_JOURNAL,
        incompat: changed.incompat - PLAIN.incompat - DEEP.incompat,
        ro_compat: changed.ro_compat - PLAIN.ro_compat - DEEP.ro_compat,
    };
    if let Some(name) = unknown.names().first() {
        return Err(Error::new(
            Kind::Unsupported,
            format!("The feature '{name}' cannot be changed once a filesystem is made"),
        ));
    }
    let gone = |bit: Incompat| changed.incompat.contains(bit) && !new.incompat.contains(bit);
    for (bit, name) in [
        (Incompat::EXTENTS, "extent"),
        (Incompat::EA_INODE, "ea_inode"),
        (Incompat::LARGEDIR, "large_dir"),
        (Incompat::ENCRYPT, "encrypt"),
    ] {
        if gone(bit) {
            return invalid(format!("The feature '{name}' cannot be taken away: files may use it"));
        }
    }
    if changed.compat.contains(Compat::RESIZE_INODE) && new.compat.contains(Compat::RESIZE_INODE) {
        return invalid("The feature 'resize_inode' can only be taken away");
    }
    if changed.compat.contains(Compat::HAS_JOURNAL) {
        if new.compat.contains(Compat::HAS_JOURNAL) {
            give_journal(core, 0)?;
        } else {
            take_journal(core)?;
        }
    }
    // The bit of the journal was just dealt with, and that of replay is in use.
    let sb = core.super_mut();
    let kept = sb.compat() & Compat::HAS_JOURNAL;
    let deep = |bits: FeatureSet| FeatureSet {
        compat: bits.compat & DEEP.compat,
        incompat: bits.incompat & DEEP.incompat,
        ro_compat: bits.ro_compat & DEEP.ro_compat,
    };
    let (before, after) = (deep(old), deep(new));
    sb.set_s_feature_compat(
        ((new.compat - DEEP.compat - Compat::HAS_JOURNAL) | before.compat | kept).bits(),
    );
    sb.set_s_feature_incompat(((new.incompat - DEEP.incompat) | before.incompat).bits());
    sb.set_s_feature_ro_compat(((new.ro_compat - DEEP.ro_compat) | before.ro_compat).bits());
    if !sb.has_compat(Compat::HAS_JOURNAL) {
        sb.set_incompat(Incompat::RECOVER, false);
    }
    if changed.compat.contains(Compat::DIR_INDEX) {
        // Indexes without the feature, or directories without one: a repair tells.
        rest.features = Some(after);
    }
    if before != after {
        rest.features = Some(after);
    }
    Ok(())
}

fn give_journal(core: &mut Core, blocks: u32) -> Result<()> {
    if core.sb.has_compat(Compat::HAS_JOURNAL) {
        return Ok(());
    }
    let blocks = match blocks {
        0 => default_journal_blocks(core.shape.blocks),
        blocks => blocks,
    };
    if !JOURNAL_BLOCKS.contains(&blocks) || u64::from(blocks) > core.sb.free_blocks() / 2 {
        return invalid(format!("A journal of {blocks} blocks is not possible"));
    }
    if core.inode_unchecked(JOURNAL_INODE)?.i_links_count() > 0 {
        return invalid("The journal's inode is in use");
    }
    add_journal(core, blocks)?;
    core.super_mut().set_compat(Compat::HAS_JOURNAL, true);
    Ok(())
}

/// Gives the journal's blocks back. The changes that do so do not go through it any more.
fn take_journal(core: &mut Core) -> Result<()> {
    let number = core.sb.s_journal_inum();
    if number == 0 {
        return Err(Error::new(Kind::Unsupported, "The journal lies on another device"));
    }
    core.checkpoint()?;
    core.journal = None;
    let mut inode = core.inode(number)?;
    let end = core.mapped_end(&inode)?;
    core.unmap(&mut inode, 0, end)?;
    core.put_inode(&Inode::empty(number, core.shape.inode_size))?;
    let sb = core.super_mut();
    sb.set_compat(Compat::HAS_JOURNAL, false);
    sb.set_incompat(Incompat::RECOVER, false);
    sb.set_s_journal_inum(0);
    sb.clear_journal_backup();
    Ok(())
}

/// Two features have checksums of their own, which nothing here writes anew.
fn refuse_deep(sb: &super::layout::Superblock) -> Result<()> {
    for (bit, name) in [(Incompat::MMP, "mmp"), (Incompat::EA_INODE, "ea_inode")] {
        if sb.has_incompat(bit) {
            return Err(Error::new(
                Kind::Unsupported,
                format!("All checksums would change, which is not done with the feature '{name}'"),
            ));
        }
    }
    Ok(())
}

/// Changes what checksums and structures everywhere depend on, and mends these.
fn bring_into_line(
    disk: &Arc<dyn Disk>,
    mut sb: super::layout::Superblock,
    rest: &Rest,
) -> Result<()> {
    let old_uuid = sb.uuid();
    if let Some(after) = rest.features {
        sb.set_s_feature_compat(((sb.compat() - DEEP.compat) | after.compat).bits());
        sb.set_s_feature_incompat(((sb.incompat() - DEEP.incompat) | after.incompat).bits());
        let mut ro = (sb.ro_compat() - DEEP.ro_compat) | after.ro_compat;
        if ro.contains(RoCompat::METADATA_CSUM) {
            ro.remove(RoCompat::GDT_CSUM);
            sb.set_s_checksum_type(1);
        } else if sb.has_ro(RoCompat::METADATA_CSUM) {
            // Groups that are not initialised need checksums of one kind or the other.
            ro.insert(RoCompat::GDT_CSUM);
            sb.set_incompat(Incompat::CSUM_SEED, false);
        }
        sb.set_s_feature_ro_compat(ro.bits());
        if !after.compat.contains(Compat::RESIZE_INODE) {
            sb.set_s_reserved_gdt_blocks(0);
        }
        if sb.has_incompat(Incompat::CSUM_SEED) {
            if !sb.has_ro(RoCompat::METADATA_CSUM) {
                return invalid("The feature metadata_csum_seed needs metadata_csum");
            }
            sb.set_s_checksum_seed(crc32c(!0, &old_uuid));
        }
    }
    if let Some(uuid) = &rest.uuid {
        sb.set_uuid(uuid);
    }
    sb.set_s_state(sb.s_state() & !STATE_VALID | STATE_ERROR);
    let before = Core::load(disk.clone(), Overlay::default(), false)?;
    let shape = Shape::new(&sb, disk.size())?;
    let mut core = Core::bare(disk.clone(), Overlay::default(), false, sb, shape);
    core.groups = before.groups;
    write_superblock(&**disk, &mut core.sb)?;
    disk.flush()?;
    for group in 0..shape.groups {
        let descriptor = *core.group(group)?;
        // Read once, so that their checksums are made.
        for place in [descriptor.block_bitmap(), descriptor.inode_bitmap()] {
            core.mark_checked(place);
            core.block(place)?;
        }
        core.group_mut(group)?;
        if core.transaction.dirty_groups.len() > 1024 {
            core.write_back_groups()?;
        }
    }
    if core.sb.has_compat(Compat::ORPHAN_FILE) {
        let file = core.inode_unchecked(core.sb.s_orphan_file_inum())?;
        core.put_inode(&file)?;
        core.empty_orphan_file()?;
    }
    if !shape.has_compat(Compat::RESIZE_INODE) {
        core.put_inode(&Inode::empty(RESIZE_INODE, shape.inode_size))?;
    }
    core.super_mut();
    core.commit()?;
    drop(core);
    let report = repair(disk.clone(), Repair::All)?;
    match report.last.findings.first() {
        None => Ok(()),
        Some(finding) => Err(Error::new(
            Kind::Corrupt,
            format!("The change was made, but the filesystem is damaged: {finding}"),
        )
        .with_hint("Run 'disksmith fsck -y' on it.")),
    }
}
