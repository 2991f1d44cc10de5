//! Repairs that fail: whoever asked is told, and the next repair mends the rest. What is damaged are
//! counts and marks, so that the content is known.

use disksmith_disk::{Disk, Error, MemoryDisk, Result};
use disksmith_formats::{CheckReport, Image, OpenMode, Repair};

use crate::common::views::views;
use crate::kinds::{KINDS, Kind};
use crate::sweep::{EIO, Files, Run, WHOLE_AND_HALF, fail_each, is_told, shared};

const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;

fn be64(disk: &MemoryDisk, at: u64) -> u64 {
    let mut bytes = [0; 8];
    disk.read_at(&mut bytes, at).unwrap();
    u64::from_be_bytes(bytes)
}

/// Where the tables of an image lie.
struct Places {
    l1: u64,
    l2: u64,
    table: u64,
    block: u64,
}

impl Places {
    fn of(disk: &MemoryDisk) -> Self {
        let (l1, table) = (be64(disk, 40), be64(disk, 48));
        Self { l1, l2: be64(disk, l1) & OFFSET, table, block: be64(disk, table) }
    }
}

type Damage = (&'static str, fn(&MemoryDisk, &Places));

fn flip(disk: &MemoryDisk, at: u64, mask: u64) {
    disk.write_at(&(be64(disk, at) ^ mask).to_be_bytes(), at).unwrap();
}

const DAMAGES: &[Damage] = &[
    ("counts too low", |disk, places| disk.write_at(&[0; 64], places.block + 16).unwrap()),
    ("counts too high", |disk, places| {
        let mut counts = [0; 64];
        disk.read_at(&mut counts, places.block).unwrap();
        // The lowest byte of each count that there may be.
        counts.iter_mut().skip(7).step_by(8).for_each(|byte| *byte |= 1);
        disk.write_at(&counts, places.block).unwrap();
        disk.write_at(&[0xff], places.block + 511).unwrap();
    }),
    ("no block", |disk, places| disk.write_at(&[0; 8], places.table).unwrap()),
    ("a block between clusters", |disk, places| flip(disk, places.table, 0x2a00)),
    ("a block behind the end", |disk, places| flip(disk, places.table, 1 << 24)),
    ("marks", |disk, places| {
        flip(disk, places.l1, 1 << 63);
        flip(disk, places.l2 + 8 * 8, 1 << 63);
    }),
    ("reserved bits", |disk, places| flip(disk, places.l1, 1)),
    ("dirty", |disk, _| flip(disk, 72, 1)),
];

fn repair(image: &dyn Image) -> Result<CheckReport> {
    let report = image.check(Repair::All, &mut |_| {})?.unwrap();
    image.close()?;
    match report.check_errors {
        0 => Ok(report),
        // What could not be looked at was told.
        _ => Err(Error::from_errno(EIO)),
    }
}

fn damaged(kind: &Kind, damage: &Damage) -> Vec<MemoryDisk> {
    let seed = kind.seed();
    damage.1(&seed[0], &Places::of(&seed[0]));
    seed
}

fn is_chosen(kind: &Kind, damage: &Damage) -> bool {
    let v3 = !kind.version_2() || damage.0 != "dirty";
    v3 && !kind.locked && !kind.options.contains("extended") && kind.name != "raw data file"
}

#[test]
fn a_repair_that_fails_is_told_and_the_next_one_mends() {
    for kind in KINDS {
        let truth = {
            let files: Vec<_> = kind.seed().into_iter().map(shared).collect();
            views(&*kind.open(&files, OpenMode::Read).unwrap()).unwrap()
        };
        for damage in DAMAGES.iter().filter(|damage| is_chosen(kind, damage)) {
            let name = format!("{}: {}", kind.name, damage.0);
            let job = |files: Files<'_>| repair(&*kind.open(files, OpenMode::Repair)?);
            let judge = |run: Run<CheckReport>| {
                // Corruptions that are left were told, too.
                assert!(
                    run.result.is_ok() || is_told(&run.result),
                    "{}: {:?}",
                    run.what,
                    run.result
                );
                let whole = run.result.as_ref().is_ok_and(|report| report.corruptions == 0);
                let files: Vec<_> = run.files.iter().cloned().map(shared).collect();
                let again = repair(&*kind.open(&files, OpenMode::Repair).unwrap());
                let again = again.unwrap_or_else(|error| panic!("{}: again: {error}", run.what));
                assert_eq!(again.corruptions, 0, "{}: is left", run.what);
                assert!(!whole || again.corruptions_fixed == 0, "{}: was not whole", run.what);
                let image = kind.open(&files, OpenMode::Read).unwrap();
                assert!(views(&*image).unwrap() == truth, "{}: other content", run.what);
            };
            fail_each(&damaged(kind, damage), &name, WHOLE_AND_HALF, &job, &judge);
        }
    }
}
