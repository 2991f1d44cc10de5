//! What edits do and refuse, without other tools but for hybrid tables.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail by a panic")]

mod common;

use common::*;
use disksmith_disk::{Kind, MemoryDisk};
use disksmith_partitions::{
    AddRequest, Align, Change, DiskId, Guid, Label, Length, OddityKind, PartitionType, Plan,
    Source, Table, add, attributes_text, convert, dump_script, find, free_space, init, minimise,
    parse_attributes, parse_dump, read, remove, render, repair, resize, restore, set, types,
};
use disksmith_testkit::oracle;

fn table(label: Label, size: u64) -> Table {
    init(&read(&MemoryDisk::new(size)).unwrap(), label).unwrap()
}

fn sized(mib: u64) -> AddRequest {
    AddRequest { length: Length::Bytes(mib * MIB), ..AddRequest::default() }
}

fn kind(text: &str, label: Label) -> Option<PartitionType> {
    Some(types::parse(text, label).unwrap())
}

#[test]
fn adding() {
    let mut t = table(Label::Gpt, GIB);
    t = add(&t, &AddRequest { name: "root".into(), bootable: true, ..sized(100) }).unwrap().0;
    t = add(&t, &AddRequest { number: Some(7), start: Some(500_001), ..sized(1) }).unwrap().0;
    let (t, number) = add(&t, &AddRequest::default()).unwrap();
    assert_eq!(number, 2);
    let rest = t.partition(2).unwrap();
    assert_eq!((rest.start, rest.end()), (503_808, 2_095_103), "the largest region, aligned");
    assert!(t.partition(1).unwrap().boots());
    for (request, expected) in [
        (sized(2000), Kind::OutOfSpace),
        (AddRequest { start: Some(2048), ..sized(1) }, Kind::InvalidInput),
        (AddRequest { start: Some(33), ..sized(1) }, Kind::InvalidInput),
        (AddRequest { number: Some(7), ..sized(1) }, Kind::AlreadyExists),
        (AddRequest { number: Some(129), ..sized(1) }, Kind::InvalidInput),
        (AddRequest { name: "x".repeat(37), ..sized(1) }, Kind::InvalidInput),
        (AddRequest { logical: true, ..sized(1) }, Kind::InvalidInput),
        (AddRequest { kind: Some(PartitionType::Mbr(0x83)), ..sized(1) }, Kind::InvalidInput),
        (sized(0), Kind::InvalidInput),
    ] {
        assert_eq!(add(&t, &request).unwrap_err().kind(), expected, "{request:?}");
    }
    let none = read(&MemoryDisk::new(GIB)).unwrap();
    assert_eq!(add(&none, &sized(1)).unwrap_err().kind(), Kind::NotFound);
}

#[test]
fn primary_and_logical() {
    let mut t = table(Label::Mbr, GIB);
    let (with, number) = add(&t, &AddRequest { logical: true, ..sized(1) }).unwrap();
    assert_eq!((number, with.extended().map(|p| p.number)), (5, Some(1)), "it brings its own");
    for _ in 0..3 {
        t = add(&t, &sized(10)).unwrap().0;
    }
    t = add(&t, &AddRequest { kind: kind("extended", Label::Mbr), ..AddRequest::default() })
        .unwrap()
        .0;
    let (t, number) = add(&t, &sized(20)).unwrap();
    assert_eq!(number, 5, "with four primary partitions the next is logical");
    assert!(add(&t, &AddRequest { name: "x".into(), ..sized(1) }).is_err());
    assert!(set(&t, 5, &Change::Name("x".into())).is_err());
    assert!(set(&t, 4, &Change::Type(PartitionType::Mbr(0x83))).is_err());
    let t = set(&t, 2, &Change::Bootable(true)).unwrap();
    let t = set(&t, 3, &Change::Bootable(true)).unwrap();
    assert!(!t.partition(2).unwrap().bootable && t.partition(3).unwrap().bootable);
    // Shrinking the extended partition under its logical one.
    assert!(resize(&t, 4, Length::Bytes(5 * MIB), Align::default()).is_err());
    let without = remove(&t, 4).unwrap();
    assert_eq!(without.partitions.len(), 3, "the logical one goes too");
    assert!(remove(&t, 9).is_err());
}

#[test]
fn resizing() {
    let mut t = table(Label::Gpt, GIB);
    t = add(&t, &sized(100)).unwrap().0;
    t = add(&t, &AddRequest { start: Some(1_000_000), ..sized(100) }).unwrap().0;
    let rest = resize(&t, 1, Length::Rest, Align::default()).unwrap();
    assert_eq!(rest.partition(1).unwrap().end(), 1_000_000 / 2048 * 2048 - 1);
    let rest = resize(&t, 1, Length::Rest, Align::None).unwrap();
    assert_eq!(rest.partition(1).unwrap().end(), 999_999);
    assert!(resize(&t, 1, Length::Bytes(600 * MIB), Align::default()).is_err());
    assert!(resize(&t, 1, Length::Sectors(0), Align::default()).is_err());
    assert_eq!(
        resize(&t, 2, Length::Sectors(1), Align::default()).unwrap().partition(2).unwrap().sectors,
        1
    );
}

#[test]
fn finding() {
    let mut t = table(Label::Gpt, GIB);
    for name in ["root", "twice", "twice", "1"] {
        t = add(&t, &AddRequest { name: name.into(), ..sized(1) }).unwrap().0;
    }
    let number = |text: &str| find(&t, text).unwrap().map(|p| p.number);
    assert_eq!((number("3"), number("root"), number("nothing")), (Some(3), Some(1), None));
    assert_eq!(number("1"), Some(1), "a number counts before a name");
    assert!(find(&t, "twice").is_err());
    let uuid = t.partition(2).unwrap().uuid.unwrap();
    assert_eq!(number(&uuid.to_string().to_lowercase()), Some(2));
    let mut m = set(&table(Label::Mbr, GIB), 0, &Change::DiskId(DiskId::Mbr(0xe44e8))).unwrap();
    m = add(&m, &sized(1)).unwrap().0;
    assert_eq!(find(&m, "000e44e8-01").unwrap().map(|p| p.number), Some(1));
    assert!(set(&m, 0, &Change::DiskId(DiskId::Gpt(Guid::random()))).is_err());
}

#[test]
fn converting() {
    let script = "label: dos\n1: start=2048, size=2048, type=7, bootable\n2: start=4096, size=2048, type=ef\n\
        3: start=8192, size=100000, type=5\n5: start=10240, size=2048, type=82\n6: start=20480, size=2048, type=fb\n";
    let old = read(&MemoryDisk::new(GIB)).unwrap();
    let mbr = restore(&old, &parse_dump(script).unwrap()).unwrap();
    let gpt = convert(&mbr, Label::Gpt).unwrap();
    let summary: Vec<_> =
        gpt.partitions.iter().map(|p| (p.number, p.start, p.kind.name())).collect();
    assert_eq!(
        summary,
        [
            (1, 2048, "Microsoft basic data"),
            (2, 4096, "EFI System"),
            (5, 10240, "Linux swap"),
            (6, 20480, "VMware VMFS")
        ]
    );
    assert!(gpt.partition(1).unwrap().boots());
    // Back again: with a number above 4 they are numbered anew.
    let back = convert(&gpt, Label::Mbr).unwrap();
    assert_eq!(
        back.partitions.iter().map(|p| p.start).collect::<Vec<_>>(),
        [2048, 4096, 10240, 20480]
    );
    assert!(back.partition(1).unwrap().bootable);
    // More than four: the last ones become logical, if there is room for their records.
    let more = add(&gpt, &AddRequest { start: Some(40960), ..sized(1) }).unwrap().0;
    let back = convert(&more, Label::Mbr).unwrap();
    assert_eq!(back.partitions.iter().filter(|p| p.is_logical()).count(), 2);
    assert_eq!(back.partition(6).unwrap().start, 40960);
    let tight = add(
        &more,
        &AddRequest { start: Some(22528), length: Length::Sectors(18432), ..AddRequest::default() },
    );
    assert!(convert(&tight.unwrap().0, Label::Mbr).is_err());
    // No room for the GPT itself.
    let low = restore(&old, &parse_dump("label: dos\nstart=20, size=100\n").unwrap()).unwrap();
    assert_eq!(convert(&low, Label::Gpt).unwrap_err().kind(), Kind::Refused);
    // Behind what an MBR can name.
    let mut far = table(Label::Gpt, 4 << 40);
    far = add(&far, &AddRequest { start: Some(5 << 30), ..sized(1) }).unwrap().0;
    assert_eq!(convert(&far, Label::Mbr).unwrap_err().kind(), Kind::Unsupported);
}

#[test]
fn minimising() {
    let t = add(&table(Label::Gpt, GIB), &sized(10)).unwrap().0;
    let small = minimise(&t).unwrap();
    assert_eq!(small.disk_sectors * 512, 12 * MIB);
    assert_eq!(minimise(&small).unwrap(), small);
    let m = add(&table(Label::Mbr, GIB), &sized(10)).unwrap().0;
    assert_eq!(minimise(&m).unwrap().disk_sectors * 512, 11 * MIB);
}

#[test]
fn copies_to_believe() {
    let disk = MemoryDisk::new(GIB);
    let old = read(&disk).unwrap();
    let first = add(&init(&old, Label::Gpt).unwrap(), &sized(10)).unwrap().0;
    Plan::new(&disk, &old, &first).unwrap().apply(&disk, false).unwrap();
    // A change that only reaches the backup, as after a cut.
    let second = set(&first, 1, &Change::Name("later".into())).unwrap();
    let plan = Plan::new(&disk, &first, &second).unwrap();
    let mut half = plan.clone();
    half.steps.truncate(3);
    half.apply(&disk, false).unwrap();
    let torn = read(&disk).unwrap();
    assert!(torn.oddities.iter().any(|odd| odd.kind == OddityKind::BackupMismatch));
    for (source, name) in [(Source::Auto, ""), (Source::Primary, ""), (Source::Backup, "later")] {
        let repair = repair(&disk, &torn, source).unwrap();
        assert_eq!(repair.plan.after.partitions[0].name, name, "{source:?}");
        assert!(repair.fixed.iter().any(|odd| odd.kind == OddityKind::BackupMismatch));
    }
}

#[test]
fn texts() {
    let bits = 0x8001_0000_0000_0005;
    assert_eq!(attributes_text(bits), "RequiredPartition LegacyBIOSBootable GUID:48,63");
    assert_eq!(parse_attributes(&attributes_text(bits)).unwrap(), bits);
    assert_eq!(parse_attributes("0x4").unwrap(), 4);
    assert!(parse_attributes("bogus").is_err() && parse_attributes("GUID:64").is_err());
    let t = add(&table(Label::Gpt, GIB), &AddRequest { name: "𝄞 \"$`\\".into(), ..sized(10) })
        .unwrap()
        .0;
    let again = restore(&t, &parse_dump(&dump_script(&t, "disk0")).unwrap()).unwrap();
    assert_eq!(again.partitions, t.partitions);
    assert!(dump_script(&t, "disk0").contains("disk0p1 : start="));
    for width in [0, 9, 10, 11, 40, 200] {
        let bar = render::bar(&t, width);
        assert_eq!(bar.chars().count(), if width < 10 { 0 } else { width });
    }
    assert!(render::bar(&read(&MemoryDisk::new(GIB)).unwrap(), 80).is_empty());
    assert_eq!(free_space(&t).len(), 2);
}

/// A hybrid table of sgdisk's is read, kept by edits that leave its partitions, and dropped when
/// they move.
#[test]
fn hybrid() {
    let folder = Folder::new();
    let path = folder.blank("disk.raw", GIB);
    oracle::succeed("sgdisk", &["-n 1:0:+10M", "-n 2:0:+10M", "-h 1:2", &text(&path)]);
    let disk = open(&path);
    let t = read(&disk).unwrap();
    assert_eq!((t.label, t.partitions.len(), t.hybrid.len()), (Label::Gpt, 2, 2));
    assert!(t.oddities.iter().any(|odd| odd.kind == OddityKind::HybridMbr));
    apply(&disk, &t, &add(&t, &sized(5)).unwrap().0);
    let t = read(&disk).unwrap();
    assert_eq!(t.hybrid.len(), 2);
    apply(&disk, &t, &remove(&t, 1).unwrap());
    let t = read(&disk).unwrap();
    assert!(t.hybrid.is_empty() && t.oddities.is_empty(), "{:?}", t.oddities);
}
