//! The table as `fdisk -l` of util-linux prints it.

use super::columns::{Column, left, right, table as columns};
use super::device_name;
use super::size::{long_size, short_size};
use crate::{Label, Partition, Table};

/// The disk and its partitions in sectors; `device` is the name of the image.
pub fn fdisk(table: &Table, device: &str) -> String {
    let mut text = header(table, device);
    if table.label == Label::None {
        return text;
    }
    text.push_str(&format!("Disklabel type: {}\n", table.label.name()));
    if let Some(id) = table.id {
        text.push_str(&format!("Disk identifier: {id}\n"));
    }
    if !table.partitions.is_empty() {
        text.push('\n');
        text.push_str(&partitions(table, device));
    }
    if !in_disk_order(table) {
        text.push_str("\nPartition table entries are not in disk order.\n");
    }
    text
}

fn header(table: &Table, device: &str) -> String {
    let unit = table.sector_size;
    let bytes = table.disk_sectors.saturating_mul(u64::from(unit));
    format!(
        "Disk {device}: {}, {bytes} bytes, {} sectors\n\
         Units: sectors of 1 * {unit} = {unit} bytes\n\
         Sector size (logical/physical): {unit} bytes / {unit} bytes\n\
         I/O size (minimum/optimal): {unit} bytes / {unit} bytes\n",
        long_size(bytes),
        table.disk_sectors
    )
}

fn partitions(table: &Table, device: &str) -> String {
    const MBR: &[Column] = &[
        left("Device", 10),
        left("Boot", 4),
        right("Start", 5),
        right("End", 5),
        right("Sectors", 5),
        right("Size", 5),
        right("Id", 2),
        left("Type", 0),
    ];
    const GPT: &[Column] = &[
        left("Device", 10),
        right("Start", 5),
        right("End", 5),
        right("Sectors", 5),
        right("Size", 5),
        left("Type", 0),
    ];
    let rows: Vec<Vec<String>> = table.partitions.iter().map(|p| row(table, p, device)).collect();
    columns(if table.label == Label::Mbr { MBR } else { GPT }, &rows)
}

fn row(table: &Table, p: &Partition, device: &str) -> Vec<String> {
    let mut cells = vec![device_name(device, p.number)];
    if table.label == Label::Mbr {
        cells.push(if p.bootable { "*" } else { "" }.to_string());
    }
    cells.extend([
        p.start.to_string(),
        p.end().to_string(),
        p.sectors.to_string(),
        short_size(p.length_bytes(table.sector_size)),
    ]);
    if table.label == Label::Mbr {
        cells.push(p.kind.to_string());
    }
    cells.push(p.kind.name().to_string());
    cells
}

/// fdisk compares each start with the one before, extended partition and logical ones alike.
fn in_disk_order(table: &Table) -> bool {
    table.partitions.is_sorted_by_key(|p| p.start)
}
