//! Every request fails once while a table is read, planned or written, or while somebody looks what
//! a partition holds: whoever asked is told, and the table is the old or the new one.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail by a panic")]

#[path = "../common/mod.rs"]
mod common;
mod jobs;

use std::fmt::Debug;

use common::*;
use disksmith_disk::{Disk, MemoryDisk, Result};
use disksmith_partitions::probe::{has_boot_code, has_boot_signature, probe_all};
use disksmith_partitions::{
    OddityKind, Partition, Plan, Table, pending_move, probe, read, read_with_sector_size,
};
use disksmith_testkit::sweep::{self, EIO, Run, WHOLE, WHOLE_AND_HALF, is_told};
use disksmith_testkit::{FailingDisk, Fault, Injector, tagged};
use jobs::Job;

/// Lets each request of `job` on a copy of `disk` fail, in the ways of `faults`.
fn fail_each<T: Debug>(
    disk: &MemoryDisk,
    name: &str,
    faults: &[Fault],
    job: &dyn Fn(&dyn Disk) -> Result<T>,
    judge: &dyn Fn(Run<T>),
) {
    let start = std::slice::from_ref(disk);
    sweep::fail_each(start, name, faults, u64::MAX, &|files| job(&*files[0]), judge);
}

/// Partitions without the ids that are chosen at random.
fn shown(table: &Table) -> Vec<Partition> {
    let mut partitions = table.partitions.clone();
    partitions.iter_mut().for_each(|partition| partition.uuid = None);
    partitions
}

#[test]
fn a_table_that_cannot_be_read_is_not_taken_for_another() {
    for disk in [gpt(), mbr()].into_iter().chain(jobs::repairs().into_iter().map(|job| job.disk)) {
        let whole = read(&disk).unwrap();
        fail_each(&disk, "a table", WHOLE, &|disk| read(disk), &|run| match &run.result {
            // The other copy of a GPT says as much, and the one that failed is named.
            Ok(table) => {
                assert_eq!(table.partitions, whole.partitions, "{}", run.what);
                assert!(!table.oddities.is_empty(), "{}", run.what);
            }
            Err(_) => run.told(),
        });
        let large = |disk: &dyn Disk| read_with_sector_size(disk, 4096);
        fail_each(&disk, "large sectors", WHOLE, &large, &|run| run.told());
    }
}

#[test]
fn what_cannot_be_read_is_not_taken_for_nothing() {
    // Noise is nothing that anybody knows, and is looked at by all.
    let noise = MemoryDisk::new(4 * MIB);
    noise.write_at(&disksmith_testkit::Rng::new(3).bytes(1 << 20), 0).unwrap();
    let crafted = crafted::all().into_iter().map(|(_, disk, _)| disk).chain(crafted::far());
    for disk in [noise, gpt(), MemoryDisk::new(4 * MIB)].into_iter().chain(crafted) {
        let looks: [fn(&dyn Disk) -> Result<String>; 4] = [
            |disk| Ok(format!("{:?}", probe_all(disk)?)),
            |disk| Ok(format!("{:?}", probe(disk)?)),
            |disk| Ok(format!("{:?}", has_boot_code(disk)?)),
            |disk| Ok(format!("{:?}", has_boot_signature(disk)?)),
        ];
        for look in looks {
            fail_each(&disk, "a look", WHOLE, &look, &|run| run.told());
        }
    }
}

/// Plans and applies.
fn carry_out(job: &Job, disk: &dyn Disk) -> Result<Plan> {
    let plan = (job.plan)(disk, &read(disk)?)?;
    plan.apply(disk, true)?;
    Ok(plan)
}

/// The extended partition becomes longer before there is something in what is added.
fn is_lengthened(now: &Table, old: &Table, after: &Table) -> bool {
    let others = |table: &Table| -> Vec<Partition> {
        table.partitions.iter().filter(|p| !p.is_extended()).cloned().collect()
    };
    others(now) == others(old) && now.extended() == after.extended()
}

#[test]
fn an_edit_that_fails_leaves_the_old_table_or_the_new_one() {
    for job in jobs::edits().into_iter().chain(jobs::repairs()) {
        let old = read(&job.disk).unwrap();
        let after = carry_out(&job, &job.disk.clone()).unwrap().after;
        let work = |disk: &dyn Disk| carry_out(&job, disk);
        fail_each(&job.disk, job.name, WHOLE_AND_HALF, &work, &|run| {
            run.told();
            let (left, what) = (&run.files[0], &run.what);
            let now = read(left).unwrap();
            let is = |table: &Table| shown(&now) == shown(table) && now.label == table.label;
            assert!(is(&old) || is(&after) || is_lengthened(&now, &old, &after), "{what}: {now:?}");
            let again = Plan::new(left, &now, &after);
            let again = again.or_else(|_| (job.plan)(left, &now)).unwrap();
            again.apply(left, true).unwrap();
            assert_eq!(shown(&read(left).unwrap()), shown(&after), "{what}");
        });
    }
}

/// What the losses of a plan are is looked up on the disk.
#[test]
fn a_plan_knows_what_would_be_lost_or_is_not_made() {
    for job in jobs::edits().into_iter().chain(jobs::repairs()).chain(jobs::moves()) {
        let table = read(&job.disk).unwrap();
        let work = |disk: &dyn Disk| {
            let plan = (job.plan)(disk, &table)?;
            Ok((plan.losses, plan.steps.len()))
        };
        let truth = work(&job.disk).unwrap();
        fail_each(&job.disk, job.name, WHOLE, &work, &|run| {
            let same = run.result.as_ref().is_ok_and(|found| *found == truth);
            assert!(same || is_told(&run.result), "{}: {:?}", run.what, run.result);
        });
    }
}

#[test]
fn a_move_that_fails_is_finished_later() {
    for job in jobs::moves() {
        let after = carry_out(&job, &job.disk.clone()).unwrap().after;
        let work = |disk: &dyn Disk| carry_out(&job, disk);
        fail_each(&job.disk, job.name, WHOLE_AND_HALF, &work, &|run| {
            run.told();
            let (left, what) = (&run.files[0], &run.what);
            resume(left, what);
            check_content(left, what);
            let now = read(left).unwrap();
            (job.plan)(left, &now).unwrap().apply(left, true).unwrap();
            assert_eq!(shown(&read(left).unwrap()), shown(&after), "{what}");
            check_content(left, what);
        });
    }
}

/// Goes on with a move that was begun, with requests that fail as well.
fn resume(disk: &MemoryDisk, what: &str) {
    let begun = |disk: &dyn Disk| -> Result<bool> {
        let table = read(disk)?;
        let begun = pending_move(disk)?.is_some();
        assert_eq!(begun, table.oddities.iter().any(|o| o.kind == OddityKind::MoveInterrupted));
        if begun {
            disksmith_partitions::resume_move(disk, &table)?.apply(disk, true)?;
        }
        Ok(begun)
    };
    for n in [3, 9, 12, 15, 20, 31] {
        let failing = FailingDisk::new(disk.clone(), Injector::new(n, Fault::Errno(EIO), false));
        if let Err(error) = begun(&failing) {
            assert_eq!(error.errno(), Some(EIO), "{what}, resumed, {n}: {error}");
        }
        begun(failing.inner()).unwrap();
        check_content(failing.inner(), what);
    }
    begun(disk).unwrap();
}

fn check_content(disk: &MemoryDisk, what: &str) {
    for partition in read(disk).unwrap().partitions.iter().filter(|p| !p.is_extended()) {
        let mut bytes = vec![0; 100 * 512];
        disk.read_at(&mut bytes, partition.start * 512).unwrap();
        let right = bytes == tagged(partition.number, 0, 100 * 512);
        assert!(right, "{what}: partition {} has other data", partition.number);
    }
}
