//! Every request fails once while a table is read or written, or while somebody looks what a
//! partition holds: whoever asked is told, and the table is the old or the new one.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail by a panic")]

mod common;

use std::sync::Arc;

use common::*;
use disksmith_disk::{Disk, Error, MemoryDisk, Result};
use disksmith_partitions::probe::{has_boot_code, probe_all};
use disksmith_partitions::{Align, Label, Length, Plan, Table, convert, read, remove, resize};
use disksmith_testkit::{FailingDisk, Fault, Injector};

const EIO: i32 = 5;

/// Lets each request of `job` on a copy of `disk` fail, with nothing or half of it done; shows what
/// it said and left.
fn fail_each<T>(
    disk: &MemoryDisk,
    job: &dyn Fn(&dyn Disk) -> Result<T>,
    judge: &dyn Fn(Result<T>, &MemoryDisk, &str),
) -> u64 {
    let mut failed = 0;
    for fault in [Fault::Errno(EIO), Fault::Half(EIO)] {
        for n in 1.. {
            let injector = Injector::new(n, fault, false);
            let failing = FailingDisk::new(disk.clone(), Arc::clone(&injector));
            let result = job(&failing);
            if injector.met() == 0 {
                assert!(result.is_ok());
                break;
            }
            judge(result, failing.inner(), &format!("request {n}, {fault:?}"));
            failed += 1;
        }
    }
    failed
}

fn told<T>(result: &Result<T>) -> bool {
    result.as_ref().err().and_then(Error::errno) == Some(EIO)
}

#[test]
fn a_table_that_cannot_be_read_is_not_taken_for_another() {
    for disk in [gpt(), mbr()] {
        let whole = read(&disk).unwrap();
        fail_each(&disk, &|disk| read(disk), &|result, _, what| match result {
            // The other copy of a GPT says as much, and the one that failed is named.
            Ok(table) => {
                assert_eq!(table.partitions, whole.partitions, "{what}");
                assert!(!table.oddities.is_empty(), "{what}");
            }
            result => assert!(told(&result), "{what}: {result:?}"),
        });
    }
}

#[test]
fn what_cannot_be_read_is_not_taken_for_nothing() {
    // Noise is nothing that anybody knows, and is looked at by all.
    let noise = MemoryDisk::new(4 * MIB);
    noise.write_at(&disksmith_testkit::Rng::new(3).bytes(1 << 20), 0).unwrap();
    for disk in [noise, gpt(), MemoryDisk::new(4 * MIB)] {
        let failed = fail_each(&disk, &|disk| probe_all(disk), &|result, _, what| {
            assert!(told(&result), "{what}: {result:?}");
        });
        assert!(failed > 0);
        fail_each(&disk, &|disk| has_boot_code(disk), &|result, _, what| {
            assert!(told(&result), "{what}: {result:?}");
        });
    }
}

#[test]
fn an_edit_that_fails_leaves_the_old_table_or_the_new_one() {
    let (gpt, mbr) = (gpt(), mbr());
    let (of_gpt, of_mbr) = (read(&gpt).unwrap(), read(&mbr).unwrap());
    let edits = [
        (&gpt, remove(&of_gpt, 2).unwrap()),
        (&gpt, resize(&of_gpt, 3, Length::Rest, Align::default()).unwrap()),
        (&gpt, convert(&of_gpt, Label::Mbr).unwrap()),
        (&mbr, remove(&of_mbr, 6).unwrap()),
        (&mbr, remove(&of_mbr, 2).unwrap()),
        (&mbr, convert(&of_mbr, Label::Gpt).unwrap()),
    ];
    for (disk, new) in &edits {
        let old = read(*disk).unwrap();
        let plan = Plan::new(*disk, &old, new).unwrap();
        fail_each(disk, &|disk| plan.apply(disk, true), &|result, left, what| {
            assert!(told(&result), "{what}: {result:?}");
            let now = read(left).unwrap();
            let is = |table: &Table| now.partitions == table.partitions && now.label == table.label;
            assert!(is(&old) || is(&plan.after), "{what}: {:?}", now.oddities);
            Plan::new(left, &now, new).unwrap().apply(left, true).unwrap();
            assert_eq!(read(left).unwrap().partitions, plan.after.partitions, "{what}");
        });
    }
}
