//! What is refused, is refused in words, and nothing is written.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod common;

use common::*;
use disksmith_disk::{Disk, MemoryDisk, Result};
use disksmith_partitions::{
    AddRequest, Align, Change, DiskId, Guid, Label, Length, PartitionType, Plan, Source, Table,
    add, convert, init, init_with_id, minimise, move_partition, parse_attributes, parse_dump, read,
    read_with_sector_size, remove, repair, resize, restore, resume_move, set, types,
};

#[track_caller]
fn refused<T>(result: Result<T>, words: &str) {
    let error = result.err().unwrap_or_else(|| panic!("not refused: {words}"));
    assert!(error.to_string().contains(words), "{error}, not: {words}");
}

fn table(disk: &MemoryDisk) -> Table {
    read(disk).unwrap()
}

fn kind(code: u8) -> Option<PartitionType> {
    Some(PartitionType::Mbr(code))
}

#[test]
fn new_partitions() {
    let (gpt, mbr) = (table(&gpt()), table(&mbr()));
    let base = AddRequest::default;
    let at = |start| AddRequest { start: Some(start), ..base() };
    let sectors = |n| AddRequest { length: Length::Sectors(n), ..base() };
    for (request, words) in [
        (AddRequest { logical: true, ..base() }, "no logical partitions"),
        (AddRequest { name: "n".repeat(40), ..base() }, "name"),
        (AddRequest { number: Some(129), ..base() }, "not from 1 to 128"),
        (AddRequest { number: Some(0), ..base() }, "not from 1 to 128"),
        (AddRequest { number: Some(2), ..base() }, "a partition 2 already"),
        (AddRequest { kind: kind(0x83), ..base() }, "not a GPT partition type"),
        (AddRequest { kind: Some(PartitionType::Gpt(Guid::ZERO)), ..base() }, "not a GPT"),
        (sectors(0), "of no length"),
        (sectors(u64::MAX), "there is no room"),
        (at(1), "cannot be used"),
        (at(u64::MAX), "cannot be used"),
        (at(3000), "is in partition 1"),
        (AddRequest { start: Some(gpt.last_usable), ..sectors(2) }, "there is no room"),
    ] {
        refused(add(&gpt, &request), words);
    }
    let linux = PartitionType::Gpt(types::GPT_LINUX);
    for (request, words) in [
        (AddRequest { name: "n".into(), ..base() }, "have no names"),
        (AddRequest { uuid: Some(Guid::ZERO), ..base() }, "have no names"),
        (AddRequest { attributes: 1, ..base() }, "have no names"),
        (AddRequest { kind: Some(linux), ..base() }, "not an MBR partition type"),
        (AddRequest { kind: kind(0), ..base() }, "type 0"),
        (AddRequest { kind: kind(5), ..base() }, "an extended partition already"),
        (AddRequest { number: Some(9), ..base() }, "next logical partition has number 8"),
        (AddRequest { number: Some(1), ..base() }, "a partition 1 already"),
    ] {
        refused(add(&mbr, &request), words);
    }
    let none = table(&MemoryDisk::new(SIZE));
    refused(add(&none, &base()), "no partition table");
    let mut small = init(&none, Label::Mbr).unwrap();
    refused(add(&small, &AddRequest { number: Some(5), ..base() }), "");
    for _ in 0..4 {
        small = add(&small, &sized(4)).unwrap().0;
    }
    refused(add(&small, &sized(4)), "all 4 places");
    refused(remove(&none, 1), "");
    refused(resize(&none, 1, Length::Rest, Align::default()), "no partition table");
}

#[test]
fn changes_of_partitions() {
    let (gpt, mbr) = (table(&gpt()), table(&mbr()));
    let linux = PartitionType::Gpt(types::GPT_LINUX);
    for (table, number, change, words) in [
        (&gpt, 9, Change::Bootable(true), "9"),
        (&gpt, 1, Change::Name("n".repeat(40)), "name"),
        (&gpt, 1, Change::Type(PartitionType::Mbr(0x83)), "not a GPT partition type"),
        (&gpt, 1, Change::Uuid(Guid::ZERO), "all zeroes"),
        (&gpt, 1, Change::DiskId(DiskId::Mbr(5)), "no disk id"),
        (&mbr, 1, Change::DiskId(DiskId::Gpt(Guid::ZERO)), "no disk id"),
        (&mbr, 1, Change::Type(linux), "not an MBR partition type"),
        (&mbr, 1, Change::Type(PartitionType::Mbr(0)), "not an MBR partition type"),
        (&mbr, 1, Change::Type(PartitionType::Mbr(5)), "made extended"),
        (&mbr, 1, Change::Name("n".into()), "have no names"),
        (&mbr, 99, Change::Bootable(true), "99"),
    ] {
        refused(set(table, number, &change), words);
    }
    let align = Align::default();
    refused(resize(&gpt, 9, Length::Rest, align), "9");
    refused(resize(&gpt, 1, Length::Sectors(0), align), "0 sectors");
    refused(resize(&gpt, 1, Length::Sectors(u64::MAX), align), "sectors");
    refused(resize(&gpt, 1, Length::Bytes(30 * MIB), align), "can have at most");
    refused(resize(&mbr, 2, Length::Bytes(MIB), align), "within the extended partition");
    refused(convert(&gpt, Label::None), "no sort of table");
    refused(init(&gpt, Label::None), "no sort of table");
    refused(init_with_id(&gpt, Label::Gpt, Some(DiskId::Mbr(1))), "does not suit");
    refused(minimise(&table(&MemoryDisk::new(SIZE))), "no partition table");
    for size in [512, 20 * 512] {
        refused(init(&table(&MemoryDisk::new(size)), Label::Gpt), "too small");
    }
    refused(init(&table(&MemoryDisk::new(512)), Label::Mbr), "too small");
}

#[test]
fn disks_without_a_table() {
    let none = table(&MemoryDisk::new(SIZE));
    refused(convert(&none, Label::Gpt), "no partition table");
    refused(set(&none, 1, &Change::Bootable(true)), "no partition table");
    refused(disksmith_partitions::fit_disk(&none, SIZE), "no partition table");
    let logical = AddRequest { logical: true, ..sized(100) };
    refused(add(&init(&none, Label::Mbr).unwrap(), &logical), "there is no room");
    let mut tiny = table(&MemoryDisk::new(20 * 512));
    tiny = init(&tiny, Label::Mbr).unwrap();
    refused(convert(&tiny, Label::Gpt), "too small");
    let mut far = table(&gpt());
    far.partitions[0].sectors = u64::MAX;
    refused(minimise(&far), "behind all disks");
}

#[test]
fn conversions() {
    let disk = MemoryDisk::new(SIZE);
    let mut full = init(&table(&disk), Label::Mbr).unwrap();
    let all = AddRequest { start: Some(1), align: Align::Bytes(512), ..AddRequest::default() };
    full = add(&full, &all).unwrap().0;
    refused(convert(&full, Label::Gpt), "leaves no room for a GPT");
    let mut many = init(&table(&disk), Label::Gpt).unwrap();
    let tight = AddRequest {
        length: Length::Sectors(100),
        align: Align::Bytes(512),
        ..AddRequest::default()
    };
    for _ in 0..6 {
        many = add(&many, &tight).unwrap().0;
    }
    refused(convert(&many, Label::Mbr), "");
}

#[test]
fn moves_and_repairs() {
    let (gpt_disk, mbr_disk) = (gpt(), mbr());
    let (gpt, mbr) = (table(&gpt_disk), table(&mbr_disk));
    refused(move_partition(&gpt_disk, &gpt, 9, 5000), "9");
    refused(move_partition(&gpt_disk, &gpt, 1, 23_000), "");
    refused(move_partition(&gpt_disk, &gpt, 1, u64::MAX), "");
    refused(move_partition(&mbr_disk, &mbr, 2, 5000), "extended partition cannot be moved");
    refused(move_partition(&mbr_disk, &mbr, 6, 3), "no room for logical partition 6");
    refused(resume_move(&gpt_disk, &gpt), "no move was interrupted");
    let blank = MemoryDisk::new(SIZE);
    let none = table(&blank);
    refused(repair(&blank, &none, Source::Auto), "no partition table to repair");
    refused(move_partition(&blank, &none, 1, 5000), "no partition table");
    for (at, source) in [(512, Source::Primary), (SIZE - 512, Source::Backup)] {
        let disk = gpt_disk.clone();
        disk.write_at(&[0; 512], at).unwrap();
        refused(repair(&disk, &table(&disk), source), "not whole");
    }
    let cut = gpt_disk.clone();
    cut.set_size(20 * MIB).unwrap();
    refused(repair(&cut, &table(&cut), Source::Auto), "does not fit on this disk");
    let plan = Plan::new(&gpt_disk, &gpt, &remove(&gpt, 1).unwrap()).unwrap();
    refused(plan.apply_with(&ReadOnly(gpt_disk), true, &mut |_| Ok(())), "for reading only");
    for size in [0, 100, 513, 1 << 20] {
        refused(read_with_sector_size(&mbr_disk, size), "sectors of");
    }
}

#[derive(Debug)]
struct ReadOnly(MemoryDisk);

impl Disk for ReadOnly {
    disksmith_disk::pass_on!(|own| own.0; size read_at write_at write_zeroes discard flush map set_size);

    fn read_only(&self) -> bool {
        true
    }
}

/// What is made of a table, and the words of the refusal.
type Broken = (fn(&mut Table), &'static str);

/// Tables that nobody can write, made by hand.
#[test]
fn tables_that_cannot_be() {
    let (gpt_disk, mbr_disk) = (gpt(), mbr());
    let (gpt, mbr) = (table(&gpt_disk), table(&mbr_disk));
    let of = |table: &Table, change: fn(&mut Table)| {
        let mut new = table.clone();
        change(&mut new);
        new
    };
    let gpts: [Broken; 8] = [
        (|t| t.id = None, "neither copy"),
        (|t| t.id = Some(DiskId::Mbr(1)), "a disk id that is a GUID"),
        (|t| t.capacity = u32::MAX, ""),
        (|t| t.partitions[0].number = 500, ""),
        (|t| t.partitions[0].name = "n".repeat(50), ""),
        (|t| t.partitions[0].kind = PartitionType::Mbr(5), ""),
        (|t| t.partitions[0].start = 5000, ""),
        (|t| t.disk_sectors = 40, ""),
    ];
    for (change, words) in gpts {
        refused(Plan::new(&gpt_disk, &gpt, &of(&gpt, change)), words);
    }
    let mbrs: [Broken; 8] = [
        (|t| t.id = Some(DiskId::Gpt(Guid::ZERO)), "32-bit disk id"),
        (|t| t.id = None, "32-bit disk id"),
        (|t| t.partitions[0].number = 4000, ""),
        (|t| t.partitions[0].number = 0, ""),
        (|t| t.partitions[0].kind = PartitionType::Gpt(Guid::ZERO), ""),
        (|t| t.partitions[0].start = 1 << 33, ""),
        (|t| t.partitions.retain(|p| !p.is_extended()), ""),
        (|t| t.partitions.last_mut().unwrap().start = 1 << 34, ""),
    ];
    for (change, words) in mbrs {
        refused(Plan::new(&mbr_disk, &mbr, &of(&mbr, change)), words);
    }
}

#[test]
fn scripts() {
    for (text, words) in [
        ("unit: cylinders", "unit"),
        ("sector-size: x", "not a number"),
        ("sector-size: 5000000000", "too large"),
        ("table-length: x", "not a number"),
        ("table-length: 5000000000", "too large"),
        ("last-lba: x", "not a number"),
        ("grain: x", "x"),
        ("size=1, bogus=2", "not a known field"),
        ("size=1, name=\"a", "quotation mark"),
        ("size=x", "x"),
        (",x", "x"),
        ("x", "x"),
        (",,,?", "not understood"),
        ("name=\\xff", "not valid UTF-8"),
        ("type=\\xff", "not valid UTF-8"),
        ("uuid=\\xff", "not valid UTF-8"),
        ("attrs=\\xff", "not valid UTF-8"),
        (",,\\xff", "not valid UTF-8"),
        ("/dev/x1 : size=y", "y"),
        ("{", "not valid JSON"),
        ("{}", "no 'partitiontable'"),
        ("{\"partitiontable\":{\"unit\":\"m\"}}", "unit"),
        ("{\"partitiontable\":{\"partitions\":[{\"start\":\"x\"}]}}", "x"),
        ("{\"partitiontable\":{\"partitions\":[{\"size\":[]}]}}", "not a number of sectors"),
    ] {
        refused(parse_dump(text), words);
    }
    refused(parse_dump(&"#".repeat((16 << 20) + 1)), "more than 16 MiB");
    let disk = table(&MemoryDisk::new(SIZE));
    for (text, words) in [
        ("sector-size: 4096", "sectors of 4096 bytes"),
        ("label: sun", "sort 'sun'"),
        ("label: gpt\nlabel-id: x", ""),
        ("label: dos\nlabel-id: x", ""),
        ("table-length: 0", "0 entries"),
        ("table-length: 4000000", "entries"),
        ("first-lba: 100000\nlast-lba: 50000", "no usable sectors"),
        ("size=1,attrs=\"bogus\"", "not a partition attribute"),
        ("size=1,type=bogus", ""),
        ("size=1,uuid=bogus", ""),
        ("size=100G", "there is no room"),
        ("label: dos\n/dev/x5 : size=5", ""),
    ] {
        refused(restore(&disk, &parse_dump(text).unwrap()), words);
    }
    for text in ["0xzz", "GUID:64", "64", "bogus"] {
        refused(parse_attributes(text), "not a partition attribute");
    }
}
