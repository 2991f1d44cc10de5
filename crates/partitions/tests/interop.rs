//! What we write, the partition tools read alike and without complaint; what they write, we do.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail by a panic")]

mod common;

use std::path::Path;

use common::*;
use disksmith_disk::Disk;
use disksmith_partitions::{Label, Plan, Table, dump_json, dump_script, parse_dump, read, restore};
use disksmith_testkit::{Rng, oracle};

fn size(rng: &mut Rng) -> u64 {
    let sizes = [1 << 30, 3 << 30, 10 * GIB + 512 * 77, 500 * GIB, 64 << 20];
    *rng.pick(&sizes)
}

fn written_by_us(label: Label, seed: u64) {
    let folder = Folder::new();
    let mut rng = Rng::new(seed);
    let path = folder.blank("disk.raw", size(&mut rng));
    let edits = 2 + rng.below(10);
    random_edits(&open(&path), label, &mut rng, edits);
    assert_all_agree(&path, &format!("{label:?} case {seed}"));
    dumps_travel(&folder, &path, seed);
}

/// Our dump through sfdisk, and sfdisk's dump through us, give the same table again.
fn dumps_travel(folder: &Folder, path: &Path, seed: u64) {
    let disk = open(path);
    let table = read(&disk).unwrap();
    let expected = dump_json(&table, "x");
    let theirs = folder.blank("theirs.raw", disk.size());
    if sfdisk_can_place(&table) {
        sfdisk_write(&theirs, &dump_script(&table, "x"));
        let back = dump_json(&read(&open(&theirs)).unwrap(), "x");
        assert_eq!(back, expected, "case {seed}: sfdisk from our dump");
    }
    for (name, arguments) in [("script", ["--dump"]), ("json", ["--json"])] {
        let dump = oracle::succeed("sfdisk", &[arguments[0], &text(path)]);
        let blank = folder.blank("ours.raw", disk.size());
        let ours = open(&blank);
        let old = read(&ours).unwrap();
        let new = restore(&old, &parse_dump(&dump).unwrap()).unwrap();
        Plan::new(&ours, &old, &new).unwrap().apply(&ours, false).unwrap();
        assert_eq!(
            dump_json(&read(&ours).unwrap(), "x"),
            expected,
            "case {seed}: we from their {name}"
        );
        assert_eq!(
            sfdisk_json(&blank)["partitiontable"]["partitions"].as_array().map(Vec::len),
            expected["partitiontable"]["partitions"].as_array().map(Vec::len)
        );
    }
}

/// sfdisk reads boot records wherever they are, but places them 2048 sectors before a partition
/// only.
fn sfdisk_can_place(table: &Table) -> bool {
    let logical: Vec<_> = table.partitions.iter().filter(|p| p.is_logical()).collect();
    let base = table.extended().map_or(0, |p| p.start);
    logical.iter().all(|p| {
        let before = logical.iter().filter(|q| q.start < p.start).map(|q| q.end() + 1);
        p.start >= before.max().unwrap_or(base) + 2048
    })
}

#[test]
fn gpt_written_by_us() {
    (0..cases(300, 40)).for_each(|seed| written_by_us(Label::Gpt, seed));
}

#[test]
fn mbr_written_by_us() {
    (0..cases(300, 40)).for_each(|seed| written_by_us(Label::Mbr, 1000 + seed));
}
