//! FAT12, FAT16, FAT32 and exFAT.

use disksmith_disk::Result;

use super::window::{Fields, Window, product, serial, text, utf16};
use super::{Content, Usage};

/// A directory entry is 32 bytes; the label is looked for in so many bytes of the root directory.
const ROOT_BYTES: u64 = 16 << 10;

struct Bpb {
    sector: u64,
    cluster: u64,
    reserved: u64,
    root_entries: u64,
    sectors: u64,
    fats: u64,
    fat_sectors: u64,
    clusters: u64,
}

/// The BIOS parameter block; `None` when the figures cannot be those of a FAT.
fn bpb(boot: &Fields<'_>) -> Option<Bpb> {
    let jump = matches!(boot.slice(0, 3), [0xeb, _, 0x90] | [0xe9, _, _]);
    let sector = boot.le16(11);
    let per_cluster = boot.u8(13);
    let media = boot.u8(21);
    let plausible = jump
        && sector.is_power_of_two()
        && (512..=4096).contains(&sector)
        && per_cluster.is_power_of_two()
        && (media == 0xf0 || media >= 0xf8)
        && boot.le16(14) > 0
        && (1..=2).contains(&boot.u8(16));
    if !plausible {
        return None;
    }
    let either =
        |small: u16, large: u32| if small != 0 { u64::from(small) } else { u64::from(large) };
    let mut bpb = Bpb {
        sector: u64::from(sector),
        cluster: u64::from(sector) * u64::from(per_cluster),
        reserved: u64::from(boot.le16(14)),
        root_entries: u64::from(boot.le16(17)),
        sectors: either(boot.le16(19), boot.le32(32)),
        fats: u64::from(boot.u8(16)),
        fat_sectors: either(boot.le16(22), boot.le32(36)),
        clusters: 0,
    };
    let data = bpb.sectors.checked_sub(bpb.data_sector())?;
    bpb.clusters = data / u64::from(per_cluster);
    (bpb.fat_sectors > 0 && bpb.clusters > 0).then_some(bpb)
}

impl Bpb {
    fn root_sector(&self) -> u64 {
        self.reserved + self.fats * self.fat_sectors
    }

    fn data_sector(&self) -> u64 {
        self.root_sector() + (self.root_entries * 32).div_ceil(self.sector)
    }
}

pub(super) fn fat(window: &Window<'_>) -> Result<Option<Content>> {
    let Some(boot) = window.superblock(0, 512, 510, &[0x55, 0xaa]) else { return Ok(None) };
    let Some(bpb) = bpb(&boot) else { return Ok(None) };
    let fat32 = boot.le16(22) == 0;
    let (version, at, root) = match bpb.clusters {
        _ if fat32 => ("FAT32", 0x43, cluster(&bpb, u64::from(boot.le32(44)))),
        ..4085 => ("FAT12", 0x27, product(bpb.root_sector(), bpb.sector)),
        _ => ("FAT16", 0x27, product(bpb.root_sector(), bpb.sector)),
    };
    // 0x28 says that only the serial number follows, 0x29 also label and type.
    let extended = matches!(boot.u8(at - 1), 0x28 | 0x29);
    let root_bytes = if fat32 { bpb.cluster } else { bpb.root_entries * 32 }.min(ROOT_BYTES);
    let label = match root {
        Some(root) => root_label(window, root, root_bytes)?,
        None => None,
    };
    let boot_label = boot.text(at + 4, 11).filter(|text| extended && text != "NO NAME");
    Ok(Some(Content {
        version: Some(version.to_string()),
        label: label.or(boot_label),
        uuid: serial(boot.le32(at)).filter(|_| extended),
        size: product(bpb.sectors, bpb.sector),
        used: match version {
            "FAT32" => used(window, &boot, &bpb)?,
            "FAT16" => counted(window, &bpb, 2)?,
            _ => counted(window, &bpb, 1)?,
        },
        // Without the signature and the jump it is neither a FAT nor bootable.
        marks: vec![(0, 3), (510, 2)],
        ..Content::new("vfat", Usage::Filesystem, (0, 3))
    }))
}

fn cluster(bpb: &Bpb, number: u64) -> Option<u64> {
    let data = product(bpb.data_sector(), bpb.sector)?;
    data.checked_add(product(number.checked_sub(2)?, bpb.cluster)?)
}

fn root_label(window: &Window<'_>, offset: u64, length: u64) -> Result<Option<String>> {
    let Some(entries) = window.bytes(offset, length)? else { return Ok(None) };
    let in_use = entries.chunks_exact(32).take_while(|entry| entry[0] != 0);
    Ok(in_use
        .filter(|entry| entry[0] != 0xe5 && entry[11] & 0x3f != 0x0f && entry[11] & 0x18 == 0x08)
        .find_map(|entry| text(&entry[..11])))
}

/// FAT32 keeps the number of free clusters in a sector of its own.
fn used(window: &Window<'_>, boot: &Fields<'_>, bpb: &Bpb) -> Result<Option<u64>> {
    let offset = u64::from(boot.le16(48)).saturating_mul(bpb.sector);
    let Some(info) = window.structure(offset, 512, 0, b"RRaA")? else { return Ok(None) };
    let known = info.slice(484, 4) == b"rrAa";
    let used = bpb.clusters.checked_sub(u64::from(info.le32(488))).filter(|_| known);
    Ok(used.and_then(|clusters| product(clusters, bpb.cluster)))
}

/// FAT12 and FAT16 keep no number: the entries of the first FAT, 128 KiB at the most, are counted.
/// `bytes` are those of one entry, rounded down; two of FAT12 share three.
fn counted(window: &Window<'_>, bpb: &Bpb, bytes: u64) -> Result<Option<u64>> {
    /// A multiple of both sizes of entry, within what is read at once.
    const STEP: u64 = 48 << 10;
    let Some(start) = product(bpb.reserved, bpb.sector) else { return Ok(None) };
    // The first two entries stand for no cluster.
    let end = bpb.clusters + 2;
    let length = if bytes == 2 { end * 2 } else { (end * 3).div_ceil(2) };
    if length > bpb.fat_sectors * bpb.sector {
        return Ok(None);
    }
    let mut entries: Vec<bool> = Vec::new();
    for at in (0..length).step_by(STEP as usize) {
        let Some(fat) = window.bytes(start + at, STEP.min(length - at))? else { return Ok(None) };
        match bytes {
            2 => entries.extend(fat.chunks(2).map(|entry| entry != [0, 0])),
            _ => entries.extend(fat.chunks(3).flat_map(|pair| {
                let [low, middle, high] = [0, 1, 2].map(|at| pair.get(at).copied().unwrap_or(0));
                [low != 0 || middle & 0xf != 0, middle >> 4 != 0 || high != 0]
            })),
        }
    }
    entries.truncate(usize::try_from(end).unwrap_or(usize::MAX));
    let used = entries.iter().skip(2).filter(|used| **used).count() as u64;
    Ok(product(used, bpb.cluster))
}

pub(super) fn exfat(window: &Window<'_>) -> Result<Option<Content>> {
    let Some(boot) = window.superblock(0, 512, 3, b"EXFAT   ") else { return Ok(None) };
    let (sector_shift, cluster_shift) = (u32::from(boot.u8(108)), u32::from(boot.u8(109)));
    if !(9..=12).contains(&sector_shift) || sector_shift + cluster_shift > 25 {
        return Ok(None);
    }
    let sector = 1u64 << sector_shift;
    let cluster = sector << cluster_shift;
    let clusters = u64::from(boot.le32(92));
    let root = product(u64::from(boot.le32(88)), sector)
        .zip(u64::from(boot.le32(96)).checked_sub(2).and_then(|number| product(number, cluster)));
    let label = match root.and_then(|(heap, at)| heap.checked_add(at)) {
        Some(root) => exfat_label(window, root, cluster.min(ROOT_BYTES))?,
        None => None,
    };
    let percent = u64::from(boot.u8(112));
    let [minor, major] = [boot.u8(104), boot.u8(105)];
    Ok(Some(Content {
        version: Some(format!("{major}.{minor}")),
        label,
        uuid: serial(boot.le32(100)),
        size: product(boot.le64(72), sector),
        used: Some(percent)
            .filter(|p| *p <= 100)
            .and_then(|p| Some(product(clusters, cluster)?.checked_mul(p)? / 100)),
        marks: vec![(3, 8), (510, 2)],
        ..Content::new("exfat", Usage::Filesystem, (3, 8))
    }))
}

fn exfat_label(window: &Window<'_>, offset: u64, length: u64) -> Result<Option<String>> {
    const LABEL_ENTRY: u8 = 0x83;
    let Some(entries) = window.bytes(offset, length)? else { return Ok(None) };
    let entry = entries
        .chunks_exact(32)
        .take_while(|entry| entry[0] != 0)
        .find(|entry| entry[0] == LABEL_ENTRY);
    Ok(entry.and_then(|entry| {
        let units = usize::from(entry[1]).min(11);
        utf16(entry[2..2 + 2 * units].chunks_exact(2).map(|b| u16::from_le_bytes([b[0], b[1]])))
    }))
}
