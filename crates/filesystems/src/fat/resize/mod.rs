//! Another length for a volume, offline.
//!
//! While the FAT is large enough, only the boot sector changes; what lies behind the new end is
//! moved first ([`vacate`]), each chain as any change is made: no cut leaves damage. Where the FAT
//! must grow, everything that numbers clusters is written anew in places that the old volume does
//! not use ([`tables`]); then the boot sector, one sector, changes from the old volume to the new.

mod tables;
mod vacate;

use std::sync::Arc;

use disksmith_disk::{Disk, Error, Kind, Result};

use super::check::refuse_damaged;
use super::core::Core;
use super::shape::{FatKind, Shape};

/// What a change of length did, in bytes. The new length may be a little less than what was asked
/// for: it is whole sectors.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Resized {
    /// Before.
    pub old_bytes: u64,
    /// Now.
    pub new_bytes: u64,
}

/// Gives the volume on `disk` a length of `new_size` bytes. To grow, the disk must be large enough
/// already; to shrink it, the volume comes first and the disk after.
///
/// Refused, with nothing changed: a damaged volume, and what its kind of FAT cannot be.
pub fn resize(disk: Arc<dyn Disk>, new_size: u64) -> Result<Resized> {
    const WHAT: &str = "Could not resize the FAT filesystem";
    if new_size > disk.size() {
        return Err(Error::new(
            Kind::InvalidInput,
            format!("its disk has only {} bytes, not {new_size}", disk.size()),
        )
        .context(WHAT)
        .with_hint("Enlarge the disk or the partition first."));
    }
    refuse_damaged(disk.clone(), WHAT)?;
    let mut core = Core::open(disk, false)?;
    let old = core.shape.clone();
    let sectors = u32::try_from(new_size / u64::from(old.sector)).map_err(|_| {
        Error::new(Kind::InvalidInput, "FAT has at most 2^32 - 1 sectors").context(WHAT)
    })?;
    let resized = Resized { old_bytes: old.size(), new_bytes: old.byte(sectors) };
    if sectors == old.sectors {
        return Ok(resized);
    }
    let done = match sectors > old.sectors {
        true => grow(&mut core, sectors),
        false => shrink(&mut core, sectors),
    };
    if done.is_err() && !core.failed {
        // What was moved so far is well where it is.
        core.allowed = None;
        core.shut_down()?;
    }
    done.map_err(|error| error.context(WHAT))?;
    Ok(resized)
}

/// The least length that [`resize`] can give the volume, in bytes.
pub fn minimum_size(disk: Arc<dyn Disk>) -> Result<u64> {
    let core = Core::open(disk, true)?;
    let used = core.shape.clusters - core.recount_free()?.min(core.shape.clusters);
    let clusters = used.max(clusters_min(&core.shape));
    Ok(size_for(&core.shape, clusters).min(core.shape.size()))
}

fn size_for(shape: &Shape, clusters: u32) -> u64 {
    shape.byte(shape.data_start) + u64::from(clusters) * shape.cluster_size()
}

/// With fewer clusters, the volume would be taken for one of another kind.
fn clusters_min(shape: &Shape) -> u32 {
    match shape.kind {
        FatKind::Fat12 => 1,
        FatKind::Fat16 => FatKind::Fat12.clusters_max() + 3,
        FatKind::Fat32 if shape.clusters > FatKind::Fat16.clusters_max() => {
            FatKind::Fat16.clusters_max() + 1
        }
        FatKind::Fat32 => 1,
    }
}

/// Clusters of a volume of so many sectors.
fn clusters_of(shape: &Shape, sectors: u32) -> u32 {
    sectors.saturating_sub(shape.data_start) / shape.per_cluster
}

fn grow(core: &mut Core, sectors: u32) -> Result<()> {
    let clusters = clusters_of(&core.shape, sectors);
    let most = core.shape.kind.clusters_max();
    if clusters > most {
        return Err(Error::new(
            Kind::Unsupported,
            format!(
                "{} with clusters of {} bytes has at most {} bytes",
                core.shape.kind.name(),
                core.shape.cluster_size(),
                size_for(&core.shape, most)
            ),
        )
        .with_hint("Make a new filesystem with larger clusters, or FAT32, and copy the files."));
    }
    let bits = (u64::from(clusters) + 2) * core.shape.kind.bits();
    if bits <= core.shape.byte(core.shape.fat_sectors) * 8 {
        return grow_in_place(core, sectors, clusters);
    }
    // As far as the FAT goes first: what it needs to grow are free clusters.
    let entries = core.shape.byte(core.shape.fat_sectors) * 8 / core.shape.kind.bits() - 2;
    let entries = u32::try_from(entries).unwrap_or(u32::MAX);
    if entries > core.shape.clusters {
        let most = core.shape.data_start + entries.min(clusters) * core.shape.per_cluster;
        core.begin()?;
        clear_entries(core, entries.min(clusters))?;
        write_length(core, most)?;
    }
    tables::grow(core, sectors)
}

/// The FAT has room: its new entries say "free", then the boot sector says "longer".
fn grow_in_place(core: &mut Core, sectors: u32, clusters: u32) -> Result<()> {
    core.begin()?;
    clear_entries(core, clusters)?;
    set_length(core, sectors)
}

/// Lets the entries of clusters to come say "free".
fn clear_entries(core: &mut Core, clusters: u32) -> Result<()> {
    for cluster in core.shape.clusters + 2..clusters + 2 {
        core.table.set(&*core.disk, &core.shape, cluster, 0)?;
    }
    core.commit()
}

/// Changes the boot sector, and with it the volume.
fn write_length(core: &mut Core, sectors: u32) -> Result<()> {
    core.boot.set_total_sectors(sectors);
    core.shape = Shape::parse(&core.boot)?;
    core.put_boot(0)?;
    core.disk.flush()?;
    core.put_backup()?;
    core.recount_free()?;
    Ok(())
}

/// The last step.
fn set_length(core: &mut Core, sectors: u32) -> Result<()> {
    write_length(core, sectors)?;
    core.shut_down()
}

fn shrink(core: &mut Core, sectors: u32) -> Result<()> {
    let clusters = clusters_of(&core.shape, sectors);
    let used = core.shape.clusters - core.recount_free()?.min(core.shape.clusters);
    let least = used.max(clusters_min(&core.shape));
    if clusters < least {
        return Err(Error::new(
            Kind::InvalidInput,
            format!(
                "it cannot have less than {} bytes: {used} clusters are in use, and {} is told by their number",
                size_for(&core.shape, least),
                core.shape.kind.name()
            ),
        ));
    }
    core.begin()?;
    core.allowed = Some(2..clusters + 2);
    vacate::vacate(core, clusters + 2..core.shape.clusters + 2)?;
    core.allowed = None;
    set_length(core, sectors)
}
