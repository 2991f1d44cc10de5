//! After a power cut at any write of an edit, the table is the old or the new one, and moved
//! data is whole.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail by a panic")]

mod common;

use common::*;
use disksmith_disk::{Disk, MemoryDisk};
use disksmith_partitions::{
    AddRequest, Align, Label, Length, OddityKind, Plan, Table, add, convert, init, minimise,
    move_partition, pending_move, read, remove, repair, resize, set,
};
use disksmith_testkit::{CrashLimits, Recorder, Rng, crash_states, tagged};

/// Applies a plan on a recorded disk and shows each state of a cut to `check`.
fn cut_anywhere(disk: &MemoryDisk, plan: &Plan, check: &mut dyn FnMut(&MemoryDisk, &str)) -> u64 {
    let recorder = Recorder::new();
    let recorded = recorder.disk(0, disk.clone());
    plan.apply(&recorded, true).unwrap();
    let limits = CrashLimits { random_subsets: 24, torn: 8, ..CrashLimits::default() };
    crash_states(std::slice::from_ref(disk), &recorder.log(), limits, &mut |state| {
        check(&state.files[0], &state.name);
        true
    })
}

fn old_or_new(what: &str, disk: &MemoryDisk, new: &Table) -> u64 {
    let old = read(disk).unwrap();
    let plan = Plan::new(disk, &old, new).unwrap();
    assert!(!plan.is_empty(), "{what}");
    cut_anywhere(disk, &plan, &mut |state, name| {
        let now = read(state).unwrap();
        let is = |t: &Table| {
            now.partitions == t.partitions
                && now.label == t.label
                && (now.id == t.id || t.id.is_none())
        };
        assert!(is(&old) || is(&plan.after), "{what}, {name}: {:?}", now.oddities);
        // A second try ends with the new table, whatever the first left.
        if !is(&plan.after) || now.oddities != plan.after.oddities {
            Plan::new(state, &now, new).unwrap().apply(state, true).unwrap();
        }
        let then = read(state).unwrap();
        assert_eq!(then.partitions, plan.after.partitions, "{what}, {name}");
        // A GPT that was to be erased last may be left; a repair erases it.
        let mut left = then.oddities.clone();
        left.retain(|odd| odd.kind != OddityKind::GptRemains);
        assert_eq!(left, plan.after.oddities, "{what}, {name}");
    })
}

#[test]
fn every_edit_of_a_gpt() {
    let disk = gpt();
    let table = read(&disk).unwrap();
    let mut states = 0;
    let name = disksmith_partitions::Change::Name("new".into());
    for (what, new) in [
        ("add", add(&table, &sized(5)).unwrap().0),
        ("remove", remove(&table, 2).unwrap()),
        ("resize", resize(&table, 3, Length::Rest, Align::default()).unwrap()),
        ("set", set(&table, 1, &name).unwrap()),
        ("init", init(&table, Label::Gpt).unwrap()),
        ("to MBR", convert(&table, Label::Mbr).unwrap()),
    ] {
        states += old_or_new(what, &disk, &new);
    }
    assert!(states > 100, "{states}");
}

#[test]
fn every_edit_of_an_mbr() {
    let disk = mbr();
    let table = read(&disk).unwrap();
    let logical = AddRequest { logical: true, ..sized(3) };
    for (what, new) in [
        ("add", add(&table, &sized(5)).unwrap().0),
        ("add logical", add(&table, &logical).unwrap().0),
        ("remove", remove(&table, 1).unwrap()),
        ("remove first logical", remove(&table, 5).unwrap()),
        ("remove middle logical", remove(&table, 6).unwrap()),
        ("remove last logical", remove(&table, 7).unwrap()),
        ("remove all logical", remove(&table, 2).unwrap()),
        ("resize logical", resize(&table, 7, Length::Bytes(7 * MIB), Align::default()).unwrap()),
        ("to GPT", convert(&table, Label::Gpt).unwrap()),
    ] {
        old_or_new(what, &disk, &new);
    }
    let blank = MemoryDisk::new(SIZE);
    let table = init(&read(&blank).unwrap(), Label::Mbr).unwrap();
    old_or_new("init", &blank, &table);
}

/// With one copy damaged, the other is the only one: the order of writes has to heed that.
#[test]
fn edits_and_repairs_of_a_damaged_gpt() {
    for (what, offset) in
        [("primary", 512 + 60), ("backup", SIZE - 512 + 60), ("primary entries", 1024 + 40)]
    {
        let disk = gpt();
        let whole = read(&disk).unwrap();
        disk.write_at(&[0xa5; 3], offset).unwrap();
        let damaged = read(&disk).unwrap();
        assert_eq!(damaged.partitions, whole.partitions);
        let new = add(&damaged, &sized(5)).unwrap().0;
        let plan = Plan::new(&disk, &damaged, &new).unwrap();
        cut_anywhere(&disk, &plan, &mut |state, name| {
            let now = read(state).unwrap();
            assert!(
                now.partitions == whole.partitions || now.partitions == new.partitions,
                "{what} damaged, {name}: {:?}",
                now.oddities
            );
        });
        let repair = repair(&disk, &damaged, disksmith_partitions::Source::Auto).unwrap();
        cut_anywhere(&disk, &repair.plan, &mut |state, name| {
            assert_eq!(read(state).unwrap().partitions, whole.partitions, "{what}, {name}");
        });
    }
}

/// Disks that grow or shrink around their table.
#[test]
fn the_backup_moves() {
    let disk = gpt();
    let table = read(&disk).unwrap();
    disk.set_size(SIZE + 40 * MIB).unwrap();
    let grown = read(&disk).unwrap();
    assert!(grown.oddities.iter().any(|odd| odd.kind == OddityKind::BackupNotAtEnd));
    let plan = repair(&disk, &grown, disksmith_partitions::Source::Auto).unwrap().plan;
    cut_anywhere(&disk, &plan, &mut |state, name| {
        assert_eq!(read(state).unwrap().partitions, table.partitions, "{name}");
    });
    plan.apply(&disk, false).unwrap();
    let whole = read(&disk).unwrap();
    assert!(whole.oddities.is_empty(), "{:?}", whole.oddities);
    assert_eq!(whole.last_usable, (SIZE + 40 * MIB) / 512 - 34);

    let plan = Plan::new(&disk, &whole, &minimise(&whole).unwrap()).unwrap();
    cut_anywhere(&disk, &plan, &mut |state, name| {
        assert_eq!(read(state).unwrap().partitions, table.partitions, "{name}");
    });
    plan.apply(&disk, false).unwrap();
    assert_eq!(disk.size(), 40 * MIB);
    let small = read(&disk).unwrap();
    assert!(small.oddities.is_empty(), "{:?}", small.oddities);
    assert_eq!(small.partitions, table.partitions);
}

/// Fills a partition with data that tells its place.
fn fill(disk: &MemoryDisk, number: u32) -> Vec<u8> {
    let table = read(disk).unwrap();
    let p = table.partition(number).unwrap();
    let data = tagged(number, 0, p.sectors * 512);
    disk.write_at(&data, p.start * 512).unwrap();
    // A hole, to see that holes move too.
    let hole = data.len() / 2 / 4096 * 4096;
    disk.discard(p.start * 512 + hole as u64, 16 * 4096).unwrap();
    let mut data = vec![0; data.len()];
    disk.read_at(&mut data, p.start * 512).unwrap();
    data
}

fn content(disk: &MemoryDisk, number: u32) -> Vec<u8> {
    let table = read(disk).unwrap();
    let p = table.partition(number).unwrap();
    let mut bytes = vec![0; (p.sectors * 512) as usize];
    disk.read_at(&mut bytes, p.start * 512).unwrap();
    bytes
}

/// After each cut the move is finished as a user would, and all partitions have their data.
fn moves_safely(disk: &MemoryDisk, number: u32, to: u64) -> u64 {
    let numbers: Vec<u32> = read(disk)
        .unwrap()
        .partitions
        .iter()
        .filter(|p| !p.is_extended())
        .map(|p| p.number)
        .collect();
    let data: Vec<(u32, Vec<u8>)> = numbers.iter().map(|n| (*n, fill(disk, *n))).collect();
    let table = read(disk).unwrap();
    let plan = move_partition(disk, &table, number, to).unwrap();
    assert!(plan.losses.is_empty());
    let states = cut_anywhere(disk, &plan, &mut |state, name| {
        let now = read(state).unwrap();
        if pending_move(state).unwrap().is_some() {
            let refused = Plan::new(state, &now, &remove(&now, number).unwrap());
            assert!(refused.is_err(), "{name}: an edit in the middle of a move");
            repair(state, &now, disksmith_partitions::Source::Auto)
                .unwrap()
                .plan
                .apply(state, false)
                .unwrap();
        } else {
            move_partition(state, &now, number, to).unwrap().apply(state, false).unwrap();
        }
        let then = read(state).unwrap();
        assert_eq!(then.partition(number).unwrap().start, to, "{name}");
        assert!(
            then.oddities.iter().all(|odd| odd.kind == OddityKind::Misaligned),
            "{name}: {:?}",
            then.oddities
        );
        for (number, data) in &data {
            assert!(content(state, *number) == *data, "move of {number}, {name}: data differ");
        }
    });
    plan.apply(disk, false).unwrap();
    assert!(pending_move(disk).unwrap().is_none());
    states
}

#[test]
fn moves_of_a_gpt_partition() {
    // Overlapping by far and by little, to both sides, and to where nothing overlaps.
    for (to, before) in
        [(2048 + 64, 34), (2048 - 8, 34), (2048 + 700, 34), (2048 + 6000, 34), (40, 34)]
    {
        let disk = MemoryDisk::new(16 * MIB);
        let mut table = init(&read(&disk).unwrap(), Label::Gpt).unwrap();
        let length = Length::Sectors(1500);
        table = add(&table, &AddRequest { length, start: Some(2048), ..AddRequest::default() })
            .unwrap()
            .0;
        table = add(
            &table,
            &AddRequest {
                length: Length::Sectors(64),
                start: Some(12000),
                ..AddRequest::default()
            },
        )
        .unwrap()
        .0;
        applied(&disk, &table);
        assert_eq!(read(&disk).unwrap().first_usable, before);
        assert!(moves_safely(&disk, 1, to) > 5);
    }
}

#[test]
fn moves_of_mbr_partitions() {
    for (number, to) in [
        (1, 100),
        (1, 2048),
        (5, 4450),
        (6, 5240),
        (6, 5050),
        (6, 6000),
        (6, 9000),
        (7, 7900),
        (7, 14000),
    ] {
        let disk = MemoryDisk::new(16 * MIB);
        let script = "label: dos\n1: start=63, size=1000\n2: start=4096, size=20000, type=5\n\
            5: start=4500, size=500\n6: start=5200, size=700\n7: start=8000, size=600\n";
        let old = read(&disk).unwrap();
        let dump = disksmith_partitions::parse_dump(script).unwrap();
        applied(&disk, &disksmith_partitions::restore(&old, &dump).unwrap());
        moves_safely(&disk, number, to);
    }
}

#[test]
fn moves_that_cannot_be() {
    let disk = gpt();
    let table = read(&disk).unwrap();
    for (number, to) in [(1, 20), (1, 30_000), (3, SIZE / 512 - 100), (9, 5000)] {
        assert!(move_partition(&disk, &table, number, to).is_err(), "{number} to {to}");
    }
    assert!(move_partition(&disk, &table, 1, 2048).unwrap().is_empty());
}

/// A write that fails is an error, and the table is the old or the new one.
#[test]
fn failing_writes() {
    use disksmith_testkit::{FailingDisk, Fault, Injector};
    let mut rng = Rng::new(3);
    for nth in 1..12 {
        let disk = gpt();
        let old = read(&disk).unwrap();
        let Some(new) = random_edit(&old, &mut rng) else { continue };
        let plan = Plan::new(&disk, &old, &new).unwrap();
        let fault = if nth % 2 == 0 { Fault::Half(5) } else { Fault::Errno(5) };
        let failing = FailingDisk::new(disk, Injector::new(nth, fault, true));
        let result = plan.apply(&failing, true);
        let now = read(failing.inner()).unwrap();
        match result {
            Ok(()) => assert_eq!(now.partitions, new.partitions),
            Err(_) => assert!(now.partitions == old.partitions || now.partitions == new.partitions),
        }
    }
}
