//! Partition tables: reading, repairing, editing; scripts; what partitions hold.

use disksmith_disk::{Disk, MemoryDisk};
use disksmith_partitions::{
    AddRequest, Align, Change, DiskId, Guid, Label, Length, Plan, Source, Table, add, convert,
    dump_json, dump_script, init, init_with_id, parse_dump, probe, read, read_with_sector_size,
    remove, repair, resize, restore, set, types,
};
use disksmith_testkit::Rng;

use crate::budget::Metered;
use crate::{Target, fields};

const SIZE: u64 = 2 << 20;

macro_rules! target {
    ($const:ident, $name:literal, $seeds:ident, $fields:expr, $fix:expr, $run:expr) => {
        pub(crate) const $const: Target =
            Target { name: $name, run: $run, seeds: $seeds, fields: $fields, fix: $fix };
    };
}

target!(MBR, "mbr", mbr, fields::tables::MBR, None, |data| look(data));
target!(GPT, "gpt", gpt, fields::tables::GPT, Some(fields::tables::fix_gpt), |data| look(data));
target!(MBR_EDIT, "mbr_edit", mbr, fields::tables::MBR, None, |data| change(data));
target!(GPT_EDIT, "gpt_edit", gpt, fields::tables::GPT, Some(fields::tables::fix_gpt), |data| {
    change(data);
});
target!(PROBE, "probe", gpt, &[], None, |data| {
    let disk = Metered::new(data);
    drop(probe(&*disk));
});

pub(crate) const SCRIPT: Target = Target {
    name: "partition_script",
    run: |data| {
        let Ok(dump) = parse_dump(&String::from_utf8_lossy(data)) else { return };
        let disk = MemoryDisk::new(64 << 20);
        let empty = read(&disk).expect("an empty disk can be read");
        let Ok(table) = restore(&empty, &dump) else { return };
        let again = parse_dump(&dump_script(&table, "/dev/x")).expect("our own script parses");
        let same = restore(&empty, &again).expect("our own script can be restored");
        assert_eq!(table.partitions, same.partitions, "a script says all there is");
        drop(dump_json(&table, "/dev/x"));
    },
    seeds: || {
        [mbr(), gpt()]
            .iter()
            .flatten()
            .filter_map(|seed| read(&MemoryDisk::from_bytes(seed)).ok())
            .map(|table| dump_script(&table, "/dev/vda").into_bytes())
            .chain([
                b"label: gpt\nunit: sectors\n\nsize=10M, type=L, bootable\n,,E\n;\n".to_vec(),
                b"{\"partitiontable\":{\"label\":\"gpt\",\"partitions\":[{\"start\":2048,\"size\":10}]}}"
                    .to_vec(),
            ])
            .collect()
    },
    fields: &[],
    fix: None,
};

fn look(data: &[u8]) {
    for sector_size in [512, 4096] {
        let disk = Metered::new(data);
        let Ok(table) = read_with_sector_size(&*disk, sector_size) else { continue };
        drop((dump_script(&table, "/dev/x"), dump_json(&table, "/dev/x")));
        for partition in table.partitions.iter().take(8) {
            if let Ok(slice) = table.slice(disk.clone(), partition.number) {
                drop(probe(&slice));
            }
        }
        mend(&disk, &table);
    }
}

/// What a repair wrote is read as it was planned, and needs no further repair.
fn mend(disk: &Metered, table: &Table) {
    for source in [Source::Auto, Source::Backup, Source::Primary] {
        let disk = Metered::over(disk.content());
        let Ok(found) = repair(&*disk, table, source) else { continue };
        if found.plan.apply(&*disk, true).is_err() {
            continue;
        }
        let sector_size = table.sector_size;
        let then = read_with_sector_size(&*disk, sector_size).expect("a repaired table is read");
        assert_eq!(then.partitions, found.plan.after.partitions, "the planned partitions");
        let Ok(again) = repair(&*disk, &then, Source::Auto) else { continue };
        assert!(again.fixed.is_empty(), "a second repair finds {:?}", again.fixed);
    }
}

/// Random edits: what is planned is what is read afterwards.
fn change(data: &[u8]) {
    let seed = data.iter().rev().take(8).fold(0u64, |seed, byte| seed << 8 | u64::from(*byte));
    let mut rng = Rng::new(seed ^ data.len() as u64);
    let disk = Metered::new(data);
    for _ in 0..4 {
        let Ok(table) = read(&*disk) else { return };
        let Some(new) = edit(&table, &mut rng) else { continue };
        let Ok(plan) = Plan::new(&*disk, &table, &new) else { continue };
        if plan.apply(&*disk, true).is_err() {
            continue;
        }
        let then = read(&*disk).expect("an edited table is read");
        assert_eq!(then.partitions, plan.after.partitions, "the planned partitions");
    }
}

fn edit(table: &Table, rng: &mut Rng) -> Option<Table> {
    let number = table
        .partitions
        .get(rng.below(table.partitions.len() as u64) as usize)
        .map_or(1, |p| p.number);
    let length = Length::Bytes((rng.below(400) + 1) * 1024);
    let align = Align::default();
    match rng.below(6) {
        0 => {
            let request =
                AddRequest { length, logical: rng.one_in(2), align, ..AddRequest::default() };
            add(table, &request).ok().map(|(new, _)| new)
        }
        1 => remove(table, number).ok(),
        2 => resize(table, number, length, align).ok(),
        3 => set(table, number, &Change::Bootable(rng.one_in(2))).ok(),
        4 => convert(table, if rng.one_in(2) { Label::Gpt } else { Label::Mbr }).ok(),
        _ => init(table, Label::Gpt).ok(),
    }
}

fn built(label: Label, requests: &[AddRequest]) -> Vec<u8> {
    let disk = MemoryDisk::new(SIZE);
    let made = || -> disksmith_disk::Result<()> {
        let empty = read(&disk)?;
        let id = match label {
            Label::Gpt => DiskId::Gpt(guid(9)?),
            _ => DiskId::Mbr(0x1234_5678),
        };
        let mut table = init_with_id(&empty, label, Some(id))?;
        for (number, request) in (1..).zip(requests) {
            let uuid = if label == Label::Gpt { Some(guid(number)?) } else { None };
            table = add(&table, &AddRequest { uuid, ..request.clone() })?.0;
        }
        Plan::new(&disk, &empty, &table)?.apply(&disk, true)
    };
    made().expect("the seed can be made");
    let mut bytes = vec![0; SIZE as usize];
    disk.read_at(&mut bytes, 0).expect("memory can be read");
    bytes
}

/// The same in every run: a regression is a mutant of a known seed.
fn guid(number: u8) -> disksmith_disk::Result<Guid> {
    format!("d61682a3-c0dc-47fe-9a64-5088{number:02x}b4b69c").parse()
}

fn request(start: u64, sectors: u64) -> AddRequest {
    AddRequest { start: Some(start), length: Length::Bytes(sectors * 512), ..AddRequest::default() }
}

fn mbr() -> Vec<Vec<u8>> {
    let kind = types::parse("extended", Label::Mbr).ok();
    let extended = AddRequest { kind, ..request(1024, 2048) };
    let logical = |start| AddRequest { logical: true, ..request(start, 100) };
    let primary = AddRequest { bootable: true, ..request(64, 200) };
    let chain = [primary.clone(), extended, logical(1025), logical(1225), logical(1425)];
    vec![built(Label::Mbr, &chain), built(Label::Mbr, &[primary, request(300, 100)])]
}

fn gpt() -> Vec<Vec<u8>> {
    let named = AddRequest { name: "root".into(), bootable: true, ..request(64, 300) };
    vec![built(Label::Gpt, &[named, request(400, 1000), request(2000, 500)])]
}
