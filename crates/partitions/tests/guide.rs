//! The facts of the guide's chapter 2, examples 2.1 to 2.4, in our output.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail by a panic")]

mod common;

use common::*;
use disksmith_disk::{Disk, MemoryDisk};
use disksmith_partitions::{
    AddRequest, Align, DiskId, Geometry, Label, Length, Plan, Table, add, dump_json, init_with_id,
    parse_dump, probe, read, render, restore, types,
};

fn apply_new(disk: &MemoryDisk, table: &Table) {
    let old = read(disk).unwrap();
    Plan::new(disk, &old, table).unwrap().apply(disk, false).unwrap();
}

fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

/// Example 2.1: a drive of 320 GB with an extended partition.
#[test]
fn example_2_1_a_regular_drive() {
    let disk = MemoryDisk::new(320_071_851_520);
    let script = "label: dos\nlabel-id: 0x12031202\n\
        sda1 : start=63, size=409593177, type=7\n\
        sda2 : start=409593240, size=102398310, type=83\n\
        sda3 : start=511991550, size=19535040, type=82\n\
        sda4 : start=531526590, size=93610755, type=5\n\
        sda5 : start=531526653, size=93610692, type=83, bootable\n";
    let table = restore(&read(&disk).unwrap(), &parse_dump(script).unwrap()).unwrap();
    apply_new(&disk, &table);
    let table = read(&disk).unwrap();
    let text = render::cylinders(&table, "/dev/sda");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        lines[..4],
        [
            "Disk /dev/sda: 320.1 GB, 320071851520 bytes",
            "255 heads, 63 sectors/track, 38913 cylinders",
            "Units = cylinders of 16065 * 512 = 8225280 bytes",
            "Disk identifier: 0x12031202",
        ]
    );
    let rows = [
        "/dev/sda1 1 25496 204796588+ 7 HPFS/NTFS/exFAT",
        "/dev/sda2 25497 31870 51199155 83 Linux",
        "/dev/sda3 31871 33086 9767520 82 Linux swap / Solaris",
        "/dev/sda4 33087 38913 46805377+ 5 Extended",
        "/dev/sda5 * 33087 38913 46805346 83 Linux",
    ];
    assert_eq!(words(lines[5]), ["Device", "Boot", "Start", "End", "Blocks", "Id", "System"]);
    for (line, row) in lines[6..].iter().zip(rows) {
        assert_eq!(words(line), words(row));
    }
    assert_eq!(lines.len(), 11);
    assert_eq!(lines[6], "/dev/sda1               1       25496   204796588+   7  HPFS/NTFS/exFAT");
}

/// Examples 2.2 and 2.3: a file of 2097152 blocks of zeroes, then an empty table.
#[test]
fn example_2_3_a_label() {
    let disk = MemoryDisk::new(512 * 2_097_152);
    let blank = read(&disk).unwrap();
    assert_eq!((blank.label, blank.disk_sectors), (Label::None, 2_097_152));
    assert!(
        render::cylinders(&blank, "disk1.raw").contains("doesn't contain a valid partition table")
    );
    assert!(!probe::has_boot_signature(&disk).unwrap());
    let table = init_with_id(&blank, Label::Mbr, Some(DiskId::Mbr(0x000e_44e8))).unwrap();
    let plan = Plan::new(&disk, &blank, &table).unwrap();
    // One sector changes: that is all that a label is.
    assert_eq!(plan.ranges(), [(0, 512)]);
    plan.apply(&disk, false).unwrap();
    assert!(probe::has_boot_signature(&disk).unwrap());
    let text = render::cylinders(&read(&disk).unwrap(), "/dev/loop0");
    let expected = "Disk /dev/loop0: 1073 MB, 1073741824 bytes\n\
        255 heads, 63 sectors/track, 130 cylinders\n\
        Units = cylinders of 16065 * 512 = 8225280 bytes\n\
        Disk identifier: 0x000e44e8\n\n";
    assert!(text.starts_with(expected), "{text}");
}

/// Example 2.4: one partition from the first cylinder to the last.
#[test]
fn example_2_4_a_partition() {
    let disk = MemoryDisk::new(1 << 30);
    let blank = read(&disk).unwrap();
    let table = init_with_id(&blank, Label::Mbr, Some(DiskId::Mbr(0x000e_44e8))).unwrap();
    let request = AddRequest {
        align: Align::Cylinder(Geometry::default()),
        kind: Some(types::parse("83", Label::Mbr).unwrap()),
        ..AddRequest::default()
    };
    let (table, number) = add(&table, &request).unwrap();
    apply_new(&disk, &table);
    let table = read(&disk).unwrap();
    let partition = table.partition(number).unwrap();
    assert_eq!((partition.start, partition.end(), partition.sectors), (63, 2_088_449, 2_088_387));
    assert_eq!(partition.start_bytes(512), 32_256);
    let text = render::cylinders(&table, "/dev/loop0");
    let row = text.lines().last().unwrap();
    assert_eq!(words(row), words("/dev/loop0p1 1 130 1044193+ 83 Linux"));
    assert_eq!(row, "/dev/loop0p1               1         130     1044193+  83  Linux");
    let sectors = render::fdisk(&table, "/dev/loop0");
    assert_eq!(
        words(sectors.lines().last().unwrap()),
        words("/dev/loop0p1 63 2088449 2088387 1019.7M 83 Linux")
    );
    let json = dump_json(&table, "disk.raw");
    assert_eq!(json["partitiontable"]["id"], "0x000e44e8");
    assert_eq!(json["partitiontable"]["partitions"][0]["node"], "disk.raw1");
    // And the tools of today read the same facts.
    let folder = Folder::new();
    let path = folder.path("disk.raw");
    save(&disk, &path);
    assert_all_agree(&path, "example 2.4");
}

/// Several cylinders-aligned partitions, logical ones too, come out as fdisk in DOS mode made
/// them: on cylinders, the first and each logical one a track later.
#[test]
fn cylinders_throughout() {
    let disk = MemoryDisk::new(1 << 30);
    let mut table = init_with_id(&read(&disk).unwrap(), Label::Mbr, None).unwrap();
    let align = Align::Cylinder(Geometry::default());
    let kind = |text| Some(types::parse(text, Label::Mbr).unwrap());
    let bytes = |mib: u64| Length::Bytes(mib * MIB);
    for (length, kind) in [
        (bytes(100), kind("83")),
        (Length::Rest, kind("extended")),
        (bytes(100), kind("82")),
        (bytes(100), kind("83")),
    ] {
        let logical = table.extended().is_some();
        let request = AddRequest { length, kind, align, logical, ..AddRequest::default() };
        table = add(&table, &request).unwrap().0;
    }
    apply_new(&disk, &table);
    let back = read(&disk).unwrap();
    let starts: Vec<_> = back.partitions.iter().map(|p| p.start).collect();
    assert_eq!(starts, [63, 13 * 16065, 13 * 16065 + 63, 26 * 16065 + 63]);
    assert!(back.partitions.iter().all(|p| (p.end() + 1) % 16065 == 0));
    assert!(back.oddities.iter().all(|odd| odd.kind.name() == "misaligned"), "{:?}", back.oddities);
    assert_eq!(disk.size(), 1 << 30);
}
