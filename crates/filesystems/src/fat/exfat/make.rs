//! Making empty exFAT volumes.

use disksmith_disk::{Disk, Error, Kind, Result, ZeroMode};

use super::super::make::new_serial;
use super::super::name::upper;
use super::label;
use super::layout::{BOOT_SECTORS, ENTRY, Geometry, boot_checksum, entry_type, table_checksum};
use crate::Time;
use crate::raw::{put, put32, put64};

/// How an exFAT volume is to be made. `None`: as mkfs.exfat would choose.
#[derive(Clone, Debug, Default)]
pub struct ExfatOptions {
    /// Bytes in a sector: 512 to 4096. The disk's own when absent.
    pub sector_size: Option<u32>,
    /// Bytes in a cluster: up to 32 MiB.
    pub cluster_size: Option<u32>,
    /// At most 11 UTF-16 units, in UTF-8.
    pub label: Vec<u8>,
    /// Made from `time` when absent, or random.
    pub serial: Option<u32>,
    /// Sectors before the partition that the volume lies in.
    pub hidden_sectors: u64,
    /// Names that exFAT cannot hold are changed instead of refused.
    pub map_names: bool,
    /// The time of making: no file is newer, and the serial number is made from it.
    pub time: Option<Time>,
}

/// FAT and clusters begin at multiples of this, on volumes that are large enough.
const ALIGN: u64 = 1 << 20;

/// Makes an empty volume on `disk`.
pub fn make(disk: &dyn Disk, options: &ExfatOptions) -> Result<()> {
    let label = label::encode(&options.label)?;
    let upcase = upcase_table();
    let (mut geometry, bitmap_length) = plan(options, disk.size(), disk.geometry().sector)?;
    let clusters_for = |length: u64| length.div_ceil(geometry.cluster) as u32;
    let (bitmap_clusters, upcase_clusters) =
        (clusters_for(bitmap_length), clusters_for(upcase.len() as u64));
    let (bitmap, table) = (2, 2 + bitmap_clusters);
    geometry.root = table + upcase_clusters;
    let used = bitmap_clusters + upcase_clusters + 1;
    if used > geometry.clusters {
        return Err(too_small());
    }
    // What was there must not be taken for a volume while the new one is incomplete.
    let sector = geometry.sector;
    disk.write_zeroes(0, geometry.fat(), ZeroMode::Unmap)?;
    disk.flush()?;
    let heap = u64::from(geometry.heap_offset) * sector;
    disk.write_zeroes(geometry.fat(), heap - geometry.fat(), ZeroMode::Unmap)?;
    disk.write_zeroes(heap, u64::from(used) * geometry.cluster, ZeroMode::Unmap)?;
    let mut fat = vec![0; (u64::from(used + 2) * 4) as usize];
    put32(&mut fat, 0, 0xFFFF_FFF8);
    put32(&mut fat, 4, 0xFFFF_FFFF);
    for (start, count) in [(bitmap, bitmap_clusters), (table, upcase_clusters), (geometry.root, 1)]
    {
        for cluster in start..start + count {
            let next = if cluster + 1 < start + count { cluster + 1 } else { 0xFFFF_FFFF };
            put32(&mut fat, cluster as usize * 4, next);
        }
    }
    disk.write_at(&fat, geometry.fat())?;
    let mut bits = vec![0_u8; used.div_ceil(8) as usize];
    for cluster in 0..used as usize {
        bits[cluster / 8] |= 1 << (cluster % 8);
    }
    disk.write_at(&bits, geometry.place(bitmap))?;
    disk.write_at(&upcase, geometry.place(table))?;
    disk.write_at(
        &root(&label, (bitmap, bitmap_length), (table, &upcase)),
        geometry.place(geometry.root),
    )?;
    let percent = (u64::from(used) * 100 / u64::from(geometry.clusters)) as u8;
    let region = boot_region(&geometry, options.hidden_sectors, percent);
    disk.write_at(&region, BOOT_SECTORS * sector)?;
    disk.flush()?;
    disk.write_at(&region, 0)?;
    disk.flush()
}

/// The geometry, its root directory still open, and the length of the bitmap in bytes.
pub(super) fn plan(options: &ExfatOptions, size: u64, own_sector: u32) -> Result<(Geometry, u64)> {
    let sector = u64::from(options.sector_size.unwrap_or(own_sector.max(512)));
    if !sector.is_power_of_two() || !(512..=4096).contains(&sector) {
        return Err(invalid(&format!("sectors of {sector} bytes are not possible (512 to 4096)")));
    }
    let size = size / sector * sector;
    let cluster = options.cluster_size.map_or_else(|| default_cluster(size), u64::from).max(sector);
    if !cluster.is_power_of_two() || cluster > 32 << 20 {
        return Err(invalid(&format!("clusters of {cluster} bytes are not possible")));
    }
    // At most a hundredth of the volume is spent on beginning at round places.
    let align = if size >= 100 * ALIGN { ALIGN } else { sector };
    let fat_offset = (2 * BOOT_SECTORS * sector).next_multiple_of(align);
    let room = size.checked_sub(fat_offset).ok_or_else(too_small)?;
    let fat_length = ((room / cluster + 2) * 4).next_multiple_of(sector);
    let heap = (fat_offset + fat_length).next_multiple_of(align);
    let clusters = size.checked_sub(heap).ok_or_else(too_small)? / cluster;
    let clusters = u32::try_from(clusters).ok().filter(|count| *count <= 0xFFFF_FFF5);
    let clusters = clusters.ok_or_else(|| invalid("exFAT cannot number that many clusters"))?;
    let sectors =
        |bytes: u64| u32::try_from(bytes / sector).map_err(|_| invalid("the volume is too large"));
    let geometry = Geometry {
        sector,
        cluster,
        volume_length: size / sector,
        fat_offset: sectors(fat_offset)?,
        fat_length: sectors(fat_length)?,
        fats: 1,
        heap_offset: sectors(heap)?,
        clusters,
        root: 0,
        serial: options.serial.unwrap_or_else(|| new_serial(options.time)),
        flags: 0,
    };
    Ok((geometry, u64::from(clusters).div_ceil(8)))
}

fn default_cluster(size: u64) -> u64 {
    match size {
        _ if size <= 256 << 20 => 4 << 10,
        _ if size <= 32 << 30 => 32 << 10,
        _ => 128 << 10,
    }
}

/// The entries of the root directory: label, bitmap, up-case table.
fn root(label: &[u16], bitmap: (u32, u64), (table, upcase): (u32, &[u8])) -> Vec<u8> {
    let mut entries = vec![0; 3 * ENTRY];
    let (first, rest) = entries.split_at_mut(ENTRY);
    let (second, third) = rest.split_at_mut(ENTRY);
    put(first, 0, &label::entry(label));
    put(second, 0, &[entry_type::BITMAP]);
    put32(second, 20, bitmap.0);
    put64(second, 24, bitmap.1);
    put(third, 0, &[entry_type::UPCASE]);
    put32(third, 4, table_checksum(upcase));
    put32(third, 20, table);
    put64(third, 24, upcase.len() as u64);
    entries
}

/// The 12 sectors before each of the two copies' end.
fn boot_region(geometry: &Geometry, hidden: u64, percent: u8) -> Vec<u8> {
    let sector = geometry.sector as usize;
    let mut region = vec![0; sector * BOOT_SECTORS as usize];
    put(&mut region, 0, &geometry.encode(hidden, percent));
    for number in 1..9 {
        put(&mut region, (number + 1) * sector - 4, &[0, 0, 0x55, 0xAA]);
    }
    let end = 11 * sector;
    let sum = boot_checksum(region.get(..end).unwrap_or(&[]));
    for at in (end..12 * sector).step_by(4) {
        put32(&mut region, at, sum);
    }
    region
}

/// The up-case table: runs of units that are their own upper case as 0xFFFF and their number.
pub(super) fn upcase_table() -> Vec<u8> {
    let mut units: Vec<u16> = Vec::new();
    let mut at = 0_u32;
    while at < 0x1_0000 {
        let same = (at..0x1_0000).take_while(|unit| u32::from(upper(*unit as u16)) == *unit).count()
            as u32;
        // The first 128 are always written out; short runs are not worth two units.
        if at >= 128 && same > 2 {
            units.extend([0xFFFF, same.min(0xFFFF) as u16]);
            at += same;
        } else {
            units.push(upper(at as u16));
            at += 1;
        }
    }
    units.iter().flat_map(|unit| unit.to_le_bytes()).collect()
}

fn invalid(what: &str) -> Error {
    Error::new(Kind::InvalidInput, what)
}

fn too_small() -> Error {
    invalid("the disk is too small for exFAT with clusters of that size")
}
