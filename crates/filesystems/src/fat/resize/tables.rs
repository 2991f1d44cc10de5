//! A larger FAT. Clusters are numbered from the end of the FATs on, so that with a longer FAT each
//! one has another number: the FATs and all directories are written anew.
//!
//! The new FATs lie either between the boot sector and the old ones, where a former change of
//! length left room, or behind the old ones, in clusters that are emptied first. Directories are
//! copied to clusters that neither volume uses. The old volume is whole until the boot sector
//! changes; the new one is whole from then on.

use std::collections::{BTreeMap, HashMap};

use disksmith_disk::{Error, Kind, Result};

use super::super::chain::length;
use super::super::core::Core;
use super::super::layout::{DirEntry, ENTRY};
use super::super::shape::{FatKind, Shape, corrupt};
use super::super::table::Page;
use super::vacate::vacate;
use crate::errors;
use crate::raw::put;

/// Directories of a volume whose FAT can be enlarged.
const FOLDERS_MAX: usize = 4 << 20;

/// The new geometry.
#[derive(Clone, Debug)]
struct Plan {
    reserved: u32,
    fat_sectors: u32,
    data_start: u32,
    sectors: u32,
    clusters: u32,
    /// Cluster `c` becomes cluster `c - shift`.
    shift: i64,
}

pub(super) fn grow(core: &mut Core, sectors: u32) -> Result<()> {
    let plan = plan(&core.shape, sectors)?;
    core.begin()?;
    if plan.shift > 0 {
        let first = 2 + plan.shift as u32;
        let end = core.shape.clusters + 2;
        if first >= end {
            return Err(no_room(plan.shift));
        }
        core.allowed = Some(first..end);
        vacate(core, 2..first).map_err(|error| match error.kind() {
            Kind::OutOfSpace => no_room(plan.shift),
            _ => error,
        })?;
        core.allowed = None;
    }
    core.commit()?;
    let folders = folders(core)?;
    let mut work = Work { core, plan: &plan, copies: Vec::new(), starts: HashMap::new() };
    work.place_copies(&folders)?;
    work.write_copies(&folders)?;
    work.write_fixed_root()?;
    work.write_tables(&folders)?;
    let root = work.starts.get(&work.core.shape.root_cluster).copied();
    core.disk.flush()?;
    switch(core, &plan, root)
}

fn no_room(clusters: i64) -> Error {
    Error::new(
        Kind::OutOfSpace,
        format!(
            "the FAT must grow, for which {clusters} clusters must be free in the volume as it is"
        ),
    )
    .with_hint("Remove or move away some files, resize, and put them back.")
}

/// Finds a place for the FATs.
fn plan(shape: &Shape, sectors: u32) -> Result<Plan> {
    let least = match shape.kind {
        FatKind::Fat32 => (shape.backup_boot + shape.info_sector + 1).max(32),
        _ => 1,
    };
    let before = plan_at(shape, sectors, least).filter(|plan| plan.data_start <= shape.fat_start);
    let behind = || plan_at(shape, sectors, shape.data_start);
    let fits = |plan: &Plan| plan.reserved <= 0xFFFF && plan.clusters <= shape.kind.clusters_max();
    before.or_else(behind).filter(fits).ok_or_else(|| {
        Error::new(Kind::Unsupported, "its FAT cannot be made that much longer in place")
            .with_hint("Make a new filesystem of that size and copy the files.")
    })
}

/// The geometry with at least `reserved` sectors before the FATs, its clusters in step with the
/// old ones.
fn plan_at(shape: &Shape, sectors: u32, reserved: u32) -> Option<Plan> {
    let mut fat_sectors = shape.fat_sectors;
    loop {
        let tables = shape.fats.checked_mul(fat_sectors)?.checked_add(shape.root_sectors)?;
        let raw = i64::from(reserved) + i64::from(tables) - i64::from(shape.data_start);
        let pad = (-raw).rem_euclid(i64::from(shape.per_cluster));
        let reserved = reserved.checked_add(pad as u32)?;
        let data_start = reserved.checked_add(tables)?;
        let clusters = sectors.checked_sub(data_start)? / shape.per_cluster;
        let bits = (u64::from(clusters) + 2) * shape.kind.bits();
        let needed = u32::try_from(bits.div_ceil(8 * u64::from(shape.sector))).ok()?;
        if needed <= fat_sectors {
            let shift = (raw + pad) / i64::from(shape.per_cluster);
            return Some(Plan { reserved, fat_sectors, data_start, sectors, clusters, shift });
        }
        fat_sectors = needed;
    }
}

/// A directory of the old volume.
struct Folder {
    /// Its clusters, in order.
    clusters: Vec<u32>,
    /// Which one it lies in.
    parent: usize,
}

impl Folder {
    fn start(&self) -> u32 {
        self.clusters.first().copied().unwrap_or(0)
    }
}

/// All directories, the root first.
fn folders(core: &Core) -> Result<Vec<Folder>> {
    let clusters = |start: u32| -> Result<Vec<u32>> {
        let runs = core.chain(start)?;
        let mut all = Vec::with_capacity(length(&runs) as usize);
        for run in runs.iter() {
            all.extend(run.cluster..run.cluster + run.count);
        }
        Ok(all)
    };
    let mut folders = vec![Folder { clusters: clusters(core.shape.root_cluster)?, parent: 0 }];
    let mut next = 0;
    while next < folders.len() {
        let mut inside = Vec::new();
        let start = folders.get(next).map_or(0, Folder::start);
        core.scan(start, 0, &mut |found| {
            if found.entry.is_directory() {
                inside.push(found.entry.start(core.is_fat32()));
            }
            true
        })?;
        for start in inside {
            if folders.len() >= FOLDERS_MAX {
                return Err(errors::too_many_links());
            }
            folders.push(Folder { clusters: clusters(start)?, parent: next });
        }
        next += 1;
    }
    Ok(folders)
}

struct Work<'a> {
    core: &'a mut Core,
    plan: &'a Plan,
    /// New clusters of each directory's copy.
    copies: Vec<Vec<u32>>,
    /// Old first clusters of directories to new ones.
    starts: HashMap<u32, u32>,
}

impl Work<'_> {
    /// A cluster's old number; `None` where the old volume had none.
    fn old(&self, new: u32) -> Option<u32> {
        let old = u32::try_from(i64::from(new) + self.plan.shift).ok()?;
        self.core.shape.is_cluster(old).then_some(old)
    }

    fn renumbered(&self, old: u32) -> u32 {
        u32::try_from(i64::from(old) - self.plan.shift).unwrap_or(0)
    }

    fn new_place(&self, new: u32) -> u64 {
        let sector = u64::from(self.plan.data_start)
            + u64::from(new.saturating_sub(2)) * u64::from(self.core.shape.per_cluster);
        sector * u64::from(self.core.shape.sector)
    }

    /// Neither volume has anything there.
    fn is_unused(&self, new: u32) -> Result<bool> {
        let old_end = i64::from(self.core.shape.clusters) + 2;
        match self.old(new) {
            Some(old) => Ok(self.core.table.get(&*self.core.disk, &self.core.shape, old)? == 0),
            // Before the old clusters lie the old tables.
            None => Ok(i64::from(new) + self.plan.shift >= old_end),
        }
    }

    /// Chooses clusters for the copies of directories.
    fn place_copies(&mut self, folders: &[Folder]) -> Result<()> {
        let end = self.plan.clusters + 2;
        let behind = self.renumbered(self.core.shape.clusters + 2).clamp(2, end);
        let mut candidates = (behind..end).chain(2..behind);
        for folder in folders {
            let mut copy = Vec::with_capacity(folder.clusters.len());
            while copy.len() < folder.clusters.len() {
                let Some(cluster) = candidates.next() else { return Err(errors::no_space()) };
                if self.is_unused(cluster)? {
                    copy.push(cluster);
                }
            }
            if let Some(first) = copy.first() {
                self.starts.insert(folder.start(), *first);
            }
            self.copies.push(copy);
        }
        Ok(())
    }

    /// Entries with the new numbers.
    fn renumber(&self, bytes: &mut [u8], own: u32, up: u32) -> Result<()> {
        let fat32 = self.core.is_fat32();
        for slot in bytes.chunks_exact_mut(ENTRY) {
            let Some(mut entry) = DirEntry::read(slot) else { break };
            if entry.is_end() {
                break;
            }
            let start = entry.start(fat32);
            if entry.is_free()
                || entry.is_long_part()
                || entry.is_volume_id() && !entry.is_directory()
            {
                continue;
            }
            let new = match &entry.name() {
                b".          " => own,
                b"..         " => up,
                _ if start == 0 => 0,
                _ if entry.is_directory() => {
                    *self.starts.get(&start).ok_or_else(|| corrupt("a directory was not met"))?
                }
                _ => self.renumbered(start),
            };
            entry.set_start(new);
            put(slot, 0, &entry.raw);
        }
        Ok(())
    }

    fn write_copies(&mut self, folders: &[Folder]) -> Result<()> {
        let size = self.core.shape.cluster_size() as usize;
        let mut bytes = vec![0; size];
        for (index, folder) in folders.iter().enumerate() {
            let own = self.starts.get(&folder.start()).copied().unwrap_or(0);
            let parent = folders.get(folder.parent).map_or(0, Folder::start);
            let up =
                if folder.parent == 0 { 0 } else { self.starts.get(&parent).copied().unwrap_or(0) };
            let copy = self.copies.get(index).cloned().unwrap_or_default();
            for (from, to) in folder.clusters.iter().zip(copy) {
                self.core.disk.read_at(&mut bytes, self.core.shape.place(*from))?;
                self.renumber(&mut bytes, own, up)?;
                self.core.disk.write_at(&bytes, self.new_place(to))?;
            }
        }
        Ok(())
    }

    /// The root directory of FAT12 and FAT16 lies behind the FATs.
    fn write_fixed_root(&self) -> Result<()> {
        let Some(root) = self.core.shape.fixed_root() else { return Ok(()) };
        let mut bytes = vec![0; self.core.shape.byte(self.core.shape.root_sectors) as usize];
        self.core.disk.read_at(&mut bytes, root.start)?;
        self.renumber(&mut bytes, 0, 0)?;
        let at = self.plan.reserved + self.core.shape.fats * self.plan.fat_sectors;
        self.core.disk.write_at(&bytes, self.core.shape.byte(at))
    }

    fn write_tables(&self, folders: &[Folder]) -> Result<()> {
        let shape = &self.core.shape;
        let end = shape.kind.end();
        let mut changed: BTreeMap<u32, u32> = BTreeMap::new();
        for folder in folders {
            changed.extend(folder.clusters.iter().map(|old| (self.renumbered(*old), 0)));
        }
        for copy in &self.copies {
            let next = copy.iter().skip(1).copied().chain([end]);
            changed.extend(copy.iter().copied().zip(next));
        }
        let mut reader = self.core.table.reader(&*self.core.disk, shape);
        let length = shape.byte(self.plan.fat_sectors);
        let entries = u64::from(self.plan.clusters) + 2;
        for number in 0..length.div_ceil(Page::SIZE) {
            let start = number * Page::SIZE;
            let mut page = Page::empty(Page::SIZE.min(length - start) as usize);
            let per_page = Page::SIZE * 8 / shape.kind.bits();
            let first = number * per_page;
            for cluster in first..(first + per_page).min(entries) {
                let cluster = cluster as u32;
                let value = match (cluster, changed.get(&cluster)) {
                    (0 | 1, _) => reader.get(cluster)?,
                    (_, Some(value)) => *value,
                    _ => match self.old(cluster) {
                        Some(old) => match reader.get(old)? {
                            0 => 0,
                            next if next >= shape.kind.bad() => next,
                            next => self.renumbered(next),
                        },
                        None => 0,
                    },
                };
                let value = if cluster == 1 { value | self.core.clean_bit() } else { value };
                if value != 0 {
                    page.set(shape.kind, cluster, value, shape.sector);
                }
            }
            for fat in 0..shape.fats {
                let base = shape.byte(self.plan.reserved + fat * self.plan.fat_sectors);
                self.core.disk.write_at(&page.bytes, base + start)?;
            }
        }
        Ok(())
    }
}

/// From the old volume to the new one.
fn switch(core: &mut Core, plan: &Plan, root: Option<u32>) -> Result<()> {
    let mut boot = core.boot.clone();
    boot.set_bpb_rsvd_sec_cnt(plan.reserved as u16);
    match core.shape.kind {
        FatKind::Fat32 => {
            boot.set_bpb_fat_sz32(plan.fat_sectors);
            boot.set_bpb_ext_flags(0);
            let root = root.ok_or_else(|| corrupt("the root directory has no cluster"))?;
            boot.set_bpb_root_clus(root);
        }
        _ => boot.set_bpb_fat_sz16(u16::try_from(plan.fat_sectors).map_err(|_| errors::too_big())?),
    }
    boot.set_total_sectors(plan.sectors);
    boot.set_dirty(false);
    let shape = Shape::parse(&boot)?;
    if shape.kind != core.shape.kind || shape.data_start != plan.data_start {
        return Err(corrupt("the new boot sector does not say what it should"));
    }
    core.boot = boot;
    core.put_boot(0)?;
    core.disk.flush()?;
    let disk = core.disk.clone();
    *core = Core::open(disk, false)?;
    core.put_backup()?;
    core.settle_info()
}
