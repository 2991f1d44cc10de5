//! Making volumes, empty. The geometry is that of mkfs.fat 4.2.

use disksmith_disk::{Disk, Error, Kind, Result, ZeroMode};

use super::layout::{BootSector, DirEntry, EXTENDED_BOOT_SIGNATURE, Info, NO_NAME, attribute};
use super::shape::{FatKind, Shape};
use super::{label, time};
use crate::Time;
use crate::raw::put;

/// How a volume is to be made. `None`: as mkfs.fat would choose.
#[derive(Clone, Debug)]
pub struct FatOptions {
    /// FAT12, FAT16 or FAT32.
    pub kind: Option<FatKind>,
    /// Bytes in a sector: 512 to 4096. The disk's own when absent.
    pub sector_size: Option<u32>,
    /// Bytes in a cluster: 1 to 128 sectors.
    pub cluster_size: Option<u32>,
    /// The label, at most 11 characters; empty for none.
    pub label: Vec<u8>,
    /// The serial number, shown as `XXXX-XXXX`. Made from `time` where that is given, else random.
    pub serial: Option<u32>,
    /// Sectors before the first FAT.
    pub reserved_sectors: Option<u16>,
    /// The sector in which FAT32 keeps a copy of the boot sector.
    pub backup_boot: Option<u16>,
    /// The medium's byte: 0xF8 for disks, 0xF0 for floppies.
    pub media: Option<u8>,
    /// Sectors before the partition that the volume lies in.
    pub hidden_sectors: u32,
    /// FATs: 1 or 2.
    pub fats: u8,
    /// Entries in the root directory of FAT12 and FAT16.
    pub root_entries: Option<u16>,
    /// Let FATs and clusters begin at multiples of the cluster size, and the volume end with a track.
    pub align: bool,
    /// Names that FAT cannot hold are changed rather than refused, when it is made with files.
    pub map_names: bool,
    /// Bytes; the whole disk.
    pub size: Option<u64>,
    /// The time of making.
    pub time: Option<Time>,
}

impl Default for FatOptions {
    fn default() -> Self {
        Self {
            kind: None,
            sector_size: None,
            cluster_size: None,
            label: Vec::new(),
            serial: None,
            reserved_sectors: None,
            backup_boot: None,
            media: None,
            hidden_sectors: 0,
            fats: 2,
            root_entries: None,
            align: true,
            map_names: false,
            size: None,
            time: None,
        }
    }
}

/// Makes an empty volume on `disk`.
pub fn make(disk: &dyn Disk, options: &FatOptions) -> Result<()> {
    let boot = plan(options, &disk.size(), disk.geometry().sector)?;
    let shape = Shape::parse(&boot)?;
    // What was there must not be taken for a volume while the new one is incomplete.
    let sector = shape.sector as usize;
    disk.write_zeroes(0, shape.byte(shape.fat_start), ZeroMode::Unmap)?;
    disk.flush()?;
    let tables = shape.byte(shape.data_start) - shape.byte(shape.fat_start);
    disk.write_zeroes(shape.byte(shape.fat_start), tables, ZeroMode::Unmap)?;
    for fat in 0..shape.fats {
        let start = shape.byte(shape.fat_start + fat * shape.fat_sectors);
        disk.write_at(&first_entries(&shape, boot.bpb_media()), start)?;
    }
    let root = match shape.kind {
        FatKind::Fat32 => {
            let root = shape.place(shape.root_cluster);
            disk.write_zeroes(root, shape.cluster_size(), ZeroMode::Unmap)?;
            root
        }
        _ => shape.byte(shape.root_start),
    };
    if !options.label.is_empty() {
        let name = label::encode(&options.label)?;
        let mut entry = DirEntry::new(&name, attribute::VOLUME_ID);
        let time = options.time.unwrap_or_else(Time::now);
        entry.set_modified(time);
        entry.set_created(time);
        entry.set_accessed(time);
        disk.write_at(&entry.raw, root)?;
    }
    let mut first = vec![0; sector];
    put(&mut first, 0, &boot.raw);
    if shape.kind == FatKind::Fat32 {
        let info = Info { free: shape.clusters - 1, next: shape.root_cluster };
        let info = info.encode(sector);
        for base in [0, shape.backup_boot] {
            if shape.info_sector != 0 && base + shape.info_sector < shape.fat_start {
                disk.write_at(&info, shape.byte(base + shape.info_sector))?;
            }
        }
        if shape.backup_boot != 0 {
            disk.write_at(&first, shape.byte(shape.backup_boot))?;
        }
    }
    disk.flush()?;
    disk.write_at(&first, 0)?;
    disk.flush()
}

/// The entries of clusters 0 and 1, and that of FAT32's root directory.
fn first_entries(shape: &Shape, media: u8) -> Vec<u8> {
    match shape.kind {
        FatKind::Fat12 => vec![media, 0xFF, 0xFF],
        FatKind::Fat16 => vec![media, 0xFF, 0xFF, 0xFF],
        FatKind::Fat32 => {
            vec![media, 0xFF, 0xFF, 0x0F, 0xFF, 0xFF, 0xFF, 0x0F, 0xF8, 0xFF, 0xFF, 0x0F]
        }
    }
}

/// What a floppy disk of so many KiB is like: sectors in a cluster, root entries, medium, sectors
/// on a track.
const FLOPPIES: [(u64, u32, u16, u8, u16); 5] = [
    (360, 2, 112, 0xFD, 9),
    (720, 2, 112, 0xF9, 9),
    (1200, 1, 224, 0xF9, 15),
    (1440, 1, 224, 0xF0, 18),
    (2880, 2, 224, 0xF0, 36),
];

/// FAT32 is chosen from here on, in bytes (before rounding to tracks).
const FAT32_FROM: u64 = 512 << 20;
/// Smaller volumes are not aligned, in sectors.
const ALIGN_FROM: u64 = 8192;
/// FAT16 must have more clusters than FAT12 can; some programs count a few less.
const FAT16_CLUSTERS_MIN: u32 = 4087;
/// The most clusters that all programs accept on FAT32.
const FAT32_CLUSTERS_MAX: u32 = 0x0FFF_FFF0;

/// The boot sector of the volume that `options` ask for on a disk of `size` bytes.
pub(crate) fn plan(options: &FatOptions, size: &u64, disk_sector: u32) -> Result<BootSector> {
    let size = options.size.unwrap_or(*size).min(*size);
    let sector = options.sector_size.unwrap_or(disk_sector.max(512));
    if !sector.is_power_of_two() || !(512..=4096).contains(&sector) {
        return invalid(format!("sectors of {sector} bytes are not possible (512 to 4096)"));
    }
    if !(1..=2).contains(&options.fats) {
        return invalid(format!("{} FATs are not possible (1 or 2)", options.fats));
    }
    let floppy = FLOPPIES.iter().find(|floppy| {
        floppy.0 << 10 == size && sector == 512 && options.kind != Some(FatKind::Fat32)
    });
    let whole = size / u64::from(sector);
    let (heads, track) = match floppy {
        Some(floppy) => (2, floppy.4),
        None => chs(whole),
    };
    let sectors = if options.align { whole - whole % u64::from(track) } else { whole };
    let Ok(sectors) = u32::try_from(sectors) else {
        return invalid(format!("FAT volumes have at most 2^32 - 1 sectors; these are {sectors}"));
    };
    let fixed = Fixed {
        sector,
        sectors,
        fats: options.fats.into(),
        reserved: options.reserved_sectors.map(u32::from),
        root_entries: options.root_entries.or(floppy.map(|floppy| floppy.2)).unwrap_or(512),
        align: options.align && whole > ALIGN_FROM && floppy.is_none(),
        backup: options.backup_boot.unwrap_or(6),
    };
    let per_cluster = match options.cluster_size {
        Some(bytes)
            if bytes % sector != 0
                || !(bytes / sector).is_power_of_two()
                || bytes / sector > 128 =>
        {
            return invalid(format!(
                "clusters of {bytes} bytes are not possible: 1 to 128 sectors of {sector} bytes"
            ));
        }
        Some(bytes) => Some(bytes / sector),
        None => floppy.map(|floppy| floppy.1),
    };
    let kind = options.kind.or((size >= FAT32_FROM).then_some(FatKind::Fat32));
    let layout = choose(&fixed, kind, per_cluster)?;
    let mut boot = layout.boot(&fixed);
    boot.set_bpb_media(options.media.or(floppy.map(|floppy| floppy.3)).unwrap_or(0xF8));
    boot.set_bpb_sec_per_trk(track);
    boot.set_bpb_num_heads(heads);
    boot.set_bpb_hidd_sec(options.hidden_sectors);
    let at = boot.extended_at();
    put(&mut boot.raw, at, &[if floppy.is_some() { 0 } else { 0x80 }, 0, EXTENDED_BOOT_SIGNATURE]);
    boot.set_serial(options.serial.unwrap_or_else(|| new_serial(options.time)));
    let label = if options.label.is_empty() { *NO_NAME } else { label::encode(&options.label)? };
    boot.set_label(&label);
    put(&mut boot.raw, at + 18, format!("{:<8}", layout.kind.name()).as_bytes());
    put_boot_code(&mut boot, at + 26);
    Ok(boot)
}

/// What does not depend on the kind and the size of clusters.
struct Fixed {
    sector: u32,
    sectors: u32,
    fats: u32,
    reserved: Option<u32>,
    root_entries: u16,
    align: bool,
    backup: u16,
}

/// One possible layout.
struct Layout {
    kind: FatKind,
    per_cluster: u32,
    reserved: u32,
    fat_sectors: u32,
    root_entries: u32,
    clusters: u32,
}

impl Layout {
    /// `None` if there is no room.
    fn new(fixed: &Fixed, kind: FatKind, per_cluster: u32) -> Option<Self> {
        let align = if fixed.align { per_cluster } else { 1 };
        let fat32 = kind == FatKind::Fat32;
        let reserved = fixed.reserved.unwrap_or(if fat32 { 32 } else { 1 });
        let reserved = reserved.max(1).next_multiple_of(align);
        let per_sector = fixed.sector / 32;
        let root_sectors =
            u32::from(fixed.root_entries).div_ceil(per_sector).next_multiple_of(align);
        let root_sectors = if fat32 { 0 } else { root_sectors };
        let room = fixed.sectors.checked_sub(reserved.checked_add(root_sectors)?)?;
        // Each cluster takes its sectors and its part of each FAT; then a few steps upwards.
        let clusters =
            |fat: u32| Some(room.checked_sub(fat.checked_mul(fixed.fats)?)? / per_cluster);
        let needed = |clusters: u32| {
            ((u64::from(clusters) + 2) * kind.bits()).div_ceil(8 * u64::from(fixed.sector))
        };
        let bits = 8 * u64::from(fixed.sector);
        let share = bits * u64::from(per_cluster) + u64::from(fixed.fats) * kind.bits();
        let mut fat = (u64::from(room) * kind.bits() / share).max(1) as u32;
        while u64::from(fat) < needed(clusters(fat)?) {
            fat = fat.checked_add(1)?;
        }
        let fat_sectors = fat.next_multiple_of(align);
        let layout = Self {
            kind,
            per_cluster,
            reserved,
            fat_sectors,
            root_entries: root_sectors * per_sector,
            clusters: clusters(fat_sectors)?,
        };
        let info_fits = !fat32 || reserved > 2;
        (layout.clusters > 0 && reserved <= 0xFFFF && layout.root_entries <= 0xFFFF && info_fits)
            .then_some(layout)
    }

    /// Told apart by their number of clusters: it must be one of this kind.
    fn is_proper(&self, forced: bool) -> bool {
        match self.kind {
            FatKind::Fat12 => self.clusters <= FatKind::Fat12.clusters_max(),
            FatKind::Fat16 => {
                (FAT16_CLUSTERS_MIN..=FatKind::Fat16.clusters_max()).contains(&self.clusters)
                    && self.fat_sectors <= 0xFFFF
            }
            // Linux and others go by the boot sector; Windows counts.
            FatKind::Fat32 => {
                self.clusters <= FAT32_CLUSTERS_MAX && (forced || self.clusters > 65_524)
            }
        }
    }

    fn boot(&self, fixed: &Fixed) -> BootSector {
        let mut boot = BootSector::empty();
        let fat32 = self.kind == FatKind::Fat32;
        put(&mut boot.raw, 0, &[0xEB, if fat32 { 0x58 } else { 0x3C }, 0x90]);
        put(&mut boot.raw, 3, b"mkfs.fat");
        boot.set_bpb_byts_per_sec(fixed.sector as u16);
        boot.set_bpb_sec_per_clus(self.per_cluster as u8);
        boot.set_bpb_rsvd_sec_cnt(self.reserved as u16);
        boot.set_bpb_num_fats(fixed.fats as u8);
        boot.set_bpb_root_ent_cnt(self.root_entries as u16);
        if fat32 {
            boot.set_bpb_fat_sz32(self.fat_sectors);
            boot.set_bpb_root_clus(2);
            boot.set_bpb_fs_info(1);
            let fits = u32::from(fixed.backup) + 1 < self.reserved && fixed.backup > 1;
            boot.set_bpb_bk_boot_sec(if fits { fixed.backup } else { 0 });
        } else {
            boot.set_bpb_fat_sz16(self.fat_sectors as u16);
        }
        boot.set_total_sectors(fixed.sectors);
        put(&mut boot.raw, 510, &[0x55, 0xAA]);
        boot
    }
}

/// The layout for a kind and cluster size, given or chosen.
fn choose(fixed: &Fixed, kind: Option<FatKind>, per_cluster: Option<u32>) -> Result<Layout> {
    let kinds: &[FatKind] = match kind {
        Some(FatKind::Fat12) => &[FatKind::Fat12],
        Some(FatKind::Fat16) => &[FatKind::Fat16],
        Some(FatKind::Fat32) => &[FatKind::Fat32],
        None => &[FatKind::Fat12, FatKind::Fat16],
    };
    let preferred = fat32_cluster(fixed) / fixed.sector;
    let sizes: Vec<u32> = match (per_cluster, kind) {
        (Some(size), _) => vec![size],
        (None, Some(FatKind::Fat32)) => {
            // The usual size; others where that gives no proper number of clusters.
            let usual = preferred.clamp(1, 128);
            let larger = (0..8).map(|bit| 1 << bit).filter(|size| *size > usual);
            std::iter::once(usual).chain(larger).collect()
        }
        (None, _) => vec![4, 8, 16, 32, 64, 128, 2, 1],
    };
    let forced = kind == Some(FatKind::Fat32);
    for size in sizes {
        let fitting = kinds
            .iter()
            .filter_map(|kind| Layout::new(fixed, *kind, size))
            .filter(|layout| layout.is_proper(forced));
        if let Some(layout) = fitting.max_by_key(|layout| layout.clusters) {
            return Ok(layout);
        }
    }
    let name = kind.map_or("FAT12 or FAT16", FatKind::name);
    let clusters = match per_cluster {
        Some(size) => format!(" with clusters of {} bytes", size * fixed.sector),
        None => String::new(),
    };
    Err(Error::new(
        Kind::InvalidInput,
        format!(
            "{} bytes cannot be divided into clusters as {name} demands{clusters}",
            u64::from(fixed.sectors) * u64::from(fixed.sector)
        ),
    )
    .with_hint("Choose another type or cluster size, or leave the choice to us."))
}

/// Bytes in a cluster of FAT32 by the size of the volume, as Microsoft's formatter chooses them.
fn fat32_cluster(fixed: &Fixed) -> u32 {
    let size = u64::from(fixed.sectors) * u64::from(fixed.sector);
    const MIB: u64 = 1 << 20;
    match size {
        _ if size <= 260 * MIB => 512,
        _ if size <= 8192 * MIB => 4096,
        _ if size <= 16_384 * MIB => 8192,
        _ if size <= 32_768 * MIB => 16_384,
        _ => 32_768,
    }
}

/// Heads and sectors on a track, as SD cards and BIOSes count them.
fn chs(sectors: u64) -> (u16, u16) {
    match sectors {
        _ if sectors <= 4096 => (2, 16),
        _ if sectors <= 32_768 => (2, 32),
        _ if sectors <= 65_536 => (4, 32),
        _ if sectors <= 262_144 => (8, 32),
        _ if sectors <= 524_288 => (16, 32),
        _ if sectors <= 1_032_192 => (16, 63),
        _ if sectors <= 2_064_384 => (32, 63),
        _ if sectors <= 4_128_768 => (64, 63),
        _ if sectors <= 8_257_536 => (128, 63),
        _ => (255, 63),
    }
}

pub(crate) fn new_serial(time: Option<Time>) -> u32 {
    match time {
        Some(time) => {
            let (date, clock, _) = time::encode(time);
            u32::from(date) << 16 | u32::from(clock)
        }
        None => (uuid::Uuid::new_v4().as_u128() & 0xFFFF_FFFF) as u32,
    }
}

const MESSAGE: &[u8] =
    b"This disk holds files, but no operating system.\r\nRemove it, then press any key.\r\n\0";

/// A program for whoever boots from the volume: it prints a message, waits for a key and lets
/// the BIOS go on.
fn put_boot_code(boot: &mut BootSector, at: usize) {
    #[rustfmt::skip]
    let mut code = vec![
        0xFC,               // cld
        0x0E, 0x1F,         // push cs; pop ds
        0xBE, 0x00, 0x00,   // mov si, MESSAGE
        0xAC,               // next: lodsb
        0x84, 0xC0,         // test al, al
        0x74, 0x09,         // jz done
        0xB4, 0x0E,         // mov ah, 14
        0xBB, 0x07, 0x00,   // mov bx, 7
        0xCD, 0x10,         // int 10h: print
        0xEB, 0xF2,         // jmp next
        0x31, 0xC0,         // done: xor ax, ax
        0xCD, 0x16,         // int 16h: wait for a key
        0xCD, 0x19,         // int 19h: boot from elsewhere
        0xF4, 0xEB, 0xFD,   // hlt, for ever
    ];
    // The BIOS loads the sector to 0x7C00.
    let message = (0x7C00 + at + code.len()) as u16;
    put(&mut code, 4, &message.to_le_bytes());
    put(&mut boot.raw, at, &code);
    put(&mut boot.raw, at + code.len(), MESSAGE);
}

fn invalid<T>(what: String) -> Result<T> {
    Err(Error::new(Kind::InvalidInput, what))
}
