//! Edits of all kinds, as jobs on the disk that they are made for.

use disksmith_disk::{Disk, MemoryDisk, Result};
use disksmith_partitions::{
    AddRequest, Align, Change, Label, Length, Plan, Source, Table, add, convert, dump_script,
    fit_disk, init, minimise, move_partition, parse_dump, read, remove, repair, resize, restore,
    set,
};
use disksmith_testkit::tagged;

use crate::common::*;

pub(crate) type Planner = fn(&dyn Disk, &Table) -> Result<Plan>;

pub(crate) struct Job {
    pub(crate) name: &'static str,
    pub(crate) disk: MemoryDisk,
    pub(crate) plan: Planner,
}

fn job(name: &'static str, disk: &MemoryDisk, plan: Planner) -> Job {
    Job { name, disk: disk.clone(), plan }
}

/// The disk with other bytes in places.
fn with(disk: &MemoryDisk, pieces: &[(u64, &[u8])]) -> MemoryDisk {
    let disk = disk.clone();
    for (at, bytes) in pieces {
        disk.write_at(bytes, *at).unwrap();
    }
    disk
}

/// A GPT and, over sector 0, the MBR of another disk.
fn remains() -> MemoryDisk {
    let mut sector = [0; 512];
    mbr().read_at(&mut sector, 0).unwrap();
    let disk = mbr();
    let of_gpt = gpt();
    let mut bytes = vec![0; 33 * 512];
    of_gpt.read_at(&mut bytes, 512).unwrap();
    disk.write_at(&bytes, 512).unwrap();
    of_gpt.read_at(&mut bytes, SIZE - 33 * 512).unwrap();
    disk.write_at(&bytes, SIZE - 33 * 512).unwrap();
    disk
}

/// Small partitions with data in them and room beside them.
fn movable(label: Label) -> MemoryDisk {
    let disk = MemoryDisk::new(4 * MIB);
    let mut table = init(&read(&disk).unwrap(), label).unwrap();
    let request = |start| AddRequest {
        start: Some(start),
        length: Length::Sectors(100),
        align: Align::Bytes(512),
        ..AddRequest::default()
    };
    table = add(&table, &request(200)).unwrap().0;
    if label == Label::Mbr {
        let length = Length::Sectors(3000);
        let kind = Some(disksmith_partitions::types::parse("extended", label).unwrap());
        table = add(&table, &AddRequest { kind, length, ..request(1000) }).unwrap().0;
        table = add(&table, &AddRequest { logical: true, ..request(1100) }).unwrap().0;
    }
    applied(&disk, &table);
    for partition in read(&disk).unwrap().partitions.iter().filter(|p| !p.is_extended()) {
        disk.write_at(&tagged(partition.number, 0, 100 * 512), partition.start * 512).unwrap();
    }
    disk
}

pub(crate) fn edits() -> Vec<Job> {
    let (gpt, mbr) = (gpt(), mbr());
    vec![
        job("GPT: remove", &gpt, |d, t| Plan::new(d, t, &remove(t, 2)?)),
        job("GPT: resize", &gpt, |d, t| {
            Plan::new(d, t, &resize(t, 3, Length::Rest, Align::default())?)
        }),
        job("GPT: name", &gpt, |d, t| Plan::new(d, t, &set(t, 1, &Change::Name("x".into()))?)),
        job("GPT: to MBR", &gpt, |d, t| Plan::new(d, t, &convert(t, Label::Mbr)?)),
        job("GPT: less disk", &gpt, |d, t| Plan::new(d, t, &minimise(t)?)),
        job("GPT: more disk", &gpt, |d, t| Plan::new(d, t, &fit_disk(t, SIZE + 8 * MIB)?)),
        job("MBR: remove logical", &mbr, |d, t| Plan::new(d, t, &remove(t, 6)?)),
        job("MBR: remove extended", &mbr, |d, t| Plan::new(d, t, &remove(t, 2)?)),
        job("MBR: longer extended", &mbr, |d, t| {
            let longer = resize(t, 2, Length::Rest, Align::default())?;
            let request = AddRequest { logical: true, ..sized(2) };
            Plan::new(d, t, &add(&longer, &request)?.0)
        }),
        job("MBR: to GPT", &mbr, |d, t| Plan::new(d, t, &convert(t, Label::Gpt)?)),
        job("MBR: less disk", &mbr, |d, t| Plan::new(d, t, &minimise(t)?)),
        job("init over content", &crafted::md_old(), |d, t| Plan::new(d, t, &init(t, Label::Gpt)?)),
        job("init MBR over content", &crafted::lvm(), |d, t| {
            Plan::new(d, t, &init(t, Label::Mbr)?)
        }),
        job("dump restored", &MemoryDisk::new(SIZE), |d, t| {
            let dump = dump_script(&read(&crate::common::mbr())?, "/dev/x");
            Plan::new(d, t, &restore(t, &parse_dump(&dump)?)?)
        }),
    ]
}

pub(crate) fn repairs() -> Vec<Job> {
    let gpt = gpt();
    let auto: Planner = |d, t| Ok(repair(d, t, Source::Auto)?.plan);
    let zero: &[u8] = &[0; 512];
    vec![
        job("no primary", &with(&gpt, &[(512, zero)]), auto),
        job("no backup", &with(&gpt, &[(SIZE - 512, zero)]), auto),
        job("broken entries", &with(&gpt, &[(1024 + 32, &[1])]), auto),
        job("no protective MBR", &with(&gpt, &[(0, zero)]), auto),
        job("from the backup", &with(&gpt, &[(1024 + 56, b"x")]), |d, t| {
            Ok(repair(d, t, Source::Backup)?.plan)
        }),
        job("GPT under an MBR", &remains(), auto),
        job("extended too short", &with(&mbr(), &[(446 + 16 + 12, &[0, 0x40, 0, 0])]), auto),
        job("grown disk", &grown(&gpt), auto),
    ]
}

fn grown(disk: &MemoryDisk) -> MemoryDisk {
    let disk = disk.clone();
    disk.set_size(SIZE + 4 * MIB).unwrap();
    disk
}

pub(crate) fn moves() -> Vec<Job> {
    let (gpt, mbr) = (movable(Label::Gpt), movable(Label::Mbr));
    vec![
        job("up, overlapping", &gpt, |d, t| move_partition(d, t, 1, 230)),
        job("down, overlapping", &gpt, |d, t| move_partition(d, t, 1, 170)),
        job("far", &gpt, |d, t| move_partition(d, t, 1, 4000)),
        job("logical", &mbr, |d, t| move_partition(d, t, 5, 1150)),
        job("primary of an MBR", &mbr, |d, t| move_partition(d, t, 1, 260)),
    ]
}
