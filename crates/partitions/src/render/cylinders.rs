//! The table in cylinders, as fdisk printed it when disks had some.

use super::device_name;
use crate::{Label, Table};

/// The disk and its partitions in cylinders. Blocks are of 1 KiB; a `+` marks a partition that
/// has half a block more.
pub fn cylinders(table: &Table, device: &str) -> String {
    let unit = u64::from(table.sector_size);
    let bytes = table.disk_sectors.saturating_mul(unit);
    let geometry = table.geometry;
    let mut text = format!(
        "Disk {device}: {}, {bytes} bytes\n\
         {} heads, {} sectors/track, {} cylinders\n\
         Units = cylinders of {} * {unit} = {} bytes\n",
        decimal_size(bytes),
        geometry.heads,
        geometry.sectors,
        geometry.cylinders(table.disk_sectors),
        geometry.cylinder(),
        geometry.cylinder() * unit,
    );
    let Some(id) = table.id.filter(|_| table.label != Label::None) else {
        text.push_str(&format!("\nDisk {device} doesn't contain a valid partition table\n"));
        return text;
    };
    text.push_str(&format!("Disk identifier: {id}\n\n"));
    let longest = table.partitions.iter().map(|p| device_name(device, p.number).chars().count());
    let width = longest.max().unwrap_or(0).max(device.chars().count() + 1).max(6);
    text.push_str(&format!(
        "{:>width$} Boot      Start         End      Blocks   Id  System\n",
        "Device"
    ));
    for p in &table.partitions {
        let (blocks, odd) = blocks(p.sectors, unit);
        text.push_str(&format!(
            "{:<width$}   {} {:>11} {:>11} {:>11}{}  {:>2}  {}\n",
            device_name(device, p.number),
            if p.boots() { '*' } else { ' ' },
            p.start / geometry.cylinder() + 1,
            p.end() / geometry.cylinder() + 1,
            blocks,
            if odd { '+' } else { ' ' },
            code(p.kind),
            p.kind.name(),
        ));
    }
    text
}

/// MBR codes are what the column is for; of a GPT type there is its counterpart at best.
fn code(kind: crate::PartitionType) -> String {
    match kind {
        crate::PartitionType::Mbr(_) => kind.to_string(),
        crate::PartitionType::Gpt(_) => {
            crate::types::counterpart(kind).map_or_else(|| "-".to_string(), |k| k.to_string())
        }
    }
}

/// Whole blocks of 1 KiB, and whether there is more.
fn blocks(sectors: u64, unit: u64) -> (u64, bool) {
    let bytes = u128::from(sectors) * u128::from(unit);
    (u64::try_from(bytes / 1024).unwrap_or(u64::MAX), bytes % 1024 != 0)
}

/// Megabytes of a million bytes, from ten thousand on gigabytes with a decimal.
fn decimal_size(bytes: u64) -> String {
    match bytes / 1_000_000 {
        megabytes @ 0..10_000 => format!("{megabytes} MB"),
        megabytes => {
            let tenths = (megabytes + 50) / 100;
            format!("{}.{} GB", tenths / 10, tenths % 10)
        }
    }
}
