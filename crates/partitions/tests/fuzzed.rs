//! What the mutators found, each as a test of its own.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail by a panic")]

mod common;

use common::*;
use disksmith_disk::{Disk, MemoryDisk};
use disksmith_partitions::gpt::layout::Header;
use disksmith_partitions::{
    AddRequest, Label, Length, OddityKind, Plan, Source, add, convert, init, read, remove, repair,
};

fn made(label: Label, mib: u64) -> MemoryDisk {
    let disk = MemoryDisk::new(64 * MIB);
    let empty = read(&disk).unwrap();
    let table = init(&empty, label).unwrap();
    let request = AddRequest { length: Length::Bytes(mib * MIB), ..AddRequest::default() };
    let table = add(&table, &request).unwrap().0;
    Plan::new(&disk, &empty, &table).unwrap().apply(&disk, true).unwrap();
    disk
}

/// Sector 0 with one entry, as a program leaves it that knows nothing of the GPT behind it.
fn put_mbr(disk: &MemoryDisk, kind: u8, start: u32, sectors: u32) {
    let mut sector = [0; 512];
    sector[446 + 4] = kind;
    sector[446 + 8..446 + 12].copy_from_slice(&start.to_le_bytes());
    sector[446 + 12..446 + 16].copy_from_slice(&sectors.to_le_bytes());
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    disk.write_at(&sector, 0).unwrap();
}

#[test]
fn a_gpt_that_was_left_over_does_not_come_back_with_the_last_partition() {
    let disk = made(Label::Gpt, 10);
    put_mbr(&disk, 0x83, 2048, 4096);
    let table = read(&disk).unwrap();
    assert!(table.oddities.iter().any(|odd| odd.kind == OddityKind::GptRemains));
    let none = remove(&table, 1).unwrap();
    Plan::new(&disk, &table, &none).unwrap().apply(&disk, true).unwrap();
    assert_eq!(read(&disk).unwrap().partitions, []);
}

/// The first entry of the primary GPT begins in sector 0, and all checksums are right.
fn begin_at_zero(disk: &MemoryDisk) {
    let mut sector = [0; 512];
    disk.read_at(&mut sector, 512).unwrap();
    let (mut header, _) = Header::parse(&sector, 1).unwrap();
    let mut entries = vec![0; header.entries_bytes() as usize];
    disk.read_at(&mut entries, 1024).unwrap();
    entries[32..40].fill(0);
    header.entries_crc = crc32fast::hash(&entries);
    disk.write_at(&entries, 1024).unwrap();
    disk.write_at(&header.encode(512), 512).unwrap();
}

#[test]
fn a_gpt_under_a_partition_is_not_converted() {
    let disk = made(Label::Gpt, 10);
    begin_at_zero(&disk);
    let table = read(&disk).unwrap();
    assert_eq!(table.partitions[0].start, 0);
    let other = convert(&table, Label::Mbr).unwrap();
    let error = Plan::new(&disk, &table, &other).unwrap_err();
    assert!(error.to_string().contains("lies over the header of the GPT in sector 1"), "{error}");
}

#[test]
fn an_extended_partition_at_sector_0_is_not_followed_into_the_table_itself() {
    let disk = MemoryDisk::new(64 * MIB);
    put_mbr(&disk, 5, 0, 10_000);
    let table = read(&disk).unwrap();
    assert_eq!(table.partitions.len(), 1);
    assert!(table.oddities.iter().any(|odd| odd.kind == OddityKind::EbrLink));
    if let Ok(found) = repair(&disk, &table, Source::Auto) {
        found.plan.apply(&disk, true).unwrap();
    }
    assert_eq!(read(&disk).unwrap().partitions, table.partitions);
}

#[test]
fn a_boot_record_where_a_gpt_had_its_header_survives_the_repair() {
    let disk = made(Label::Gpt, 10);
    put_mbr(&disk, 5, 1, 10_000);
    let table = read(&disk).unwrap();
    repair(&disk, &table, Source::Auto).unwrap().plan.apply(&disk, true).unwrap();
    let then = read(&disk).unwrap();
    let again = repair(&disk, &then, Source::Auto).unwrap();
    assert!(again.fixed.is_empty(), "{:?}", again.fixed);
}

#[test]
fn a_partition_up_to_the_last_number_keeps_its_length() {
    let disk = made(Label::Gpt, 10);
    let mut table = read(&disk).unwrap();
    table.partitions[0].sectors = u64::MAX - table.partitions[0].start + 1;
    assert_eq!(table.partitions[0].end(), u64::MAX);
}
