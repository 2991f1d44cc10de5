//! What other tools write, we read as they do; and what sfdisk writes from a script, we write.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail by a panic")]

mod common;

use std::fmt::Write;
use std::path::Path;
use std::process::Command;

use common::*;
use disksmith_disk::Disk;
use disksmith_partitions::{
    Label, Plan, Severity, dump_json, parse_dump, read, read_with_sector_size, render, restore,
};
use disksmith_testkit::{Rng, oracle};

const GPT_TYPES: &[&str] = &["L", "S", "H", "U", "V", "R", "21686148-6449-6E6F-744E-656564454649"];
const MBR_TYPES: &[&str] = &["83", "82", "7", "c", "ef", "8e", "fd", "1", "a5"];

/// A script with random partitions for sfdisk to place.
fn script(label: Label, rng: &mut Rng) -> String {
    let mut text = format!("label: {}\n", label.name());
    let gpt = label == Label::Gpt;
    let count = rng.below(if gpt { 12 } else { 4 });
    for _ in 0..count {
        let kind = rng.pick(if gpt { GPT_TYPES } else { MBR_TYPES });
        let _ = write!(text, "size={}, type={kind}", 1 + rng.below(150_000));
        if gpt && rng.one_in(2) {
            text.push_str(", name=\"a name, \\x24 \\x22\", attrs=\"LegacyBIOSBootable GUID:50\"");
        }
        if !gpt && rng.one_in(3) {
            text.push_str(", bootable");
        }
        text.push('\n');
    }
    if !gpt && count < 4 && rng.one_in(2) {
        text.push_str("size=500M, type=5\n");
        for _ in 0..rng.below(8) {
            let _ = writeln!(text, "size={}, type={}", 1 + rng.below(90_000), rng.pick(MBR_TYPES));
        }
    }
    text
}

fn run_parted(path: &Path, commands: &[String]) {
    let output = Command::new("/usr/sbin/parted")
        .args(["-s", "-a", "minimal", path.to_str().unwrap(), "unit", "s"])
        .args(commands.iter().flat_map(|command| command.split(' ')))
        .output()
        .expect("parted is missing: install the Debian package parted");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "parted {commands:?}: {errors}");
}

fn with_parted(path: &Path, label: Label, rng: &mut Rng) {
    let gpt = label == Label::Gpt;
    let mut commands = vec![format!("mklabel {}", if gpt { "gpt" } else { "msdos" })];
    let mut at = 2048;
    for number in 0..rng.below(4) {
        let (start, end) = (at + rng.below(5000), at + 5000 + rng.below(100_000));
        let name = if gpt { format!("name{number}") } else { "primary".to_string() };
        commands.push(format!(
            "mkpart {name} {} {start} {end}",
            rng.pick(&["ext2", "fat32", "linux-swap"])
        ));
        at = end + 1;
    }
    if !gpt && rng.one_in(2) {
        let end = at + 900_000;
        commands.push(format!("mkpart extended {at} {end}"));
        for _ in 0..rng.below(5) {
            let (start, last) = (at + 63 + rng.below(3000), at + 4000 + rng.below(90_000));
            commands.push(format!("mkpart logical ext2 {start} {last}"));
            at = last + 1;
        }
    }
    run_parted(path, &commands);
}

fn with_sgdisk(path: &Path, rng: &mut Rng) {
    let mut arguments = vec!["-o".to_string()];
    for number in 1..=1 + rng.below(10) {
        arguments.push(format!("-n {number}:0:+{}M", 1 + rng.below(60)));
        arguments.push(format!(
            "-t {number}:{}",
            rng.pick(&["8300", "8200", "ef00", "ef02", "0700", "8e00"])
        ));
        arguments.push(format!("-c {number}:part {number} ♥"));
        arguments.push(format!("-A {number}:set:{}", rng.pick(&["0", "2", "48", "63"])));
    }
    arguments.push(text(path));
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    oracle::succeed("sgdisk", &arguments);
}

fn written_by_others(label: Label, seed: u64) {
    let folder = Folder::new();
    let mut rng = Rng::new(seed);
    let path = folder.blank("disk.raw", 2 * GIB);
    match rng.below(3) {
        0 => with_parted(&path, label, &mut rng),
        1 if label == Label::Gpt => with_sgdisk(&path, &mut rng),
        _ => sfdisk_write(&path, &script(label, &mut rng)),
    }
    let table = read(&open(&path)).unwrap();
    let bad: Vec<_> = table
        .oddities
        .iter()
        .filter(|odd| odd.severity() != Severity::Note && odd.kind.name() != "boot-several")
        .collect();
    assert!(bad.is_empty(), "case {seed}: {bad:?}");
    assert_all_agree(&path, &format!("{label:?} case {seed}"));
}

#[test]
fn gpt_written_by_others() {
    (0..cases(300, 30)).for_each(|seed| written_by_others(Label::Gpt, 5000 + seed));
}

#[test]
fn mbr_written_by_others() {
    (0..cases(300, 30)).for_each(|seed| written_by_others(Label::Mbr, 6000 + seed));
}

/// The same bytes as sfdisk's, but for the cylinder address in the protective entry, which
/// sfdisk never computes, and the links of boot records.
#[test]
fn the_same_bytes_as_sfdisk() {
    for seed in 0..cases(100, 10) {
        let folder = Folder::new();
        let mut rng = Rng::new(7000 + seed);
        let label = if rng.one_in(2) { Label::Gpt } else { Label::Mbr };
        let theirs = folder.blank("theirs.raw", GIB);
        sfdisk_write(&theirs, &script(label, &mut rng));
        let dump = oracle::succeed("sfdisk", &["--dump", &text(&theirs)]);
        let ours = folder.blank("ours.raw", GIB);
        let disk = open(&ours);
        let old = read(&disk).unwrap();
        let new = restore(&old, &parse_dump(&dump).unwrap()).unwrap();
        Plan::new(&disk, &old, &new).unwrap().apply(&disk, false).unwrap();
        let bytes = |path: &Path, offset: u64, length: usize| {
            let mut bytes = vec![0; length];
            open(path).read_at(&mut bytes, offset).unwrap();
            bytes
        };
        let ranges: &[(u64, usize)] = match label {
            Label::Gpt => &[(512, 33 * 512), (GIB - 33 * 512, 33 * 512)],
            _ => &[(440, 72)],
        };
        for (offset, length) in ranges {
            assert_eq!(
                bytes(&ours, *offset, *length),
                bytes(&theirs, *offset, *length),
                "case {seed} at {offset}\n{dump}"
            );
        }
        for record in new.partitions.iter().filter(|p| p.is_logical() || p.is_extended()) {
            let at = match record.role {
                disksmith_partitions::Role::Logical { record } => record,
                _ => record.start,
            };
            // The data entry, and where the next record is.
            for (offset, length) in [(446, 16), (470, 4), (510, 2)] {
                let offset = at * 512 + offset;
                assert_eq!(
                    bytes(&ours, offset, length),
                    bytes(&theirs, offset, length),
                    "case {seed} record {at}\n{dump}"
                );
            }
        }
    }
}

/// Tables for sectors of 4096 bytes, as fdisk and blkid's partition reader see them.
#[test]
fn sectors_of_4096_bytes() {
    let folder = Folder::new();
    for seed in 0..cases(30, 4) {
        for label in [Label::Gpt, Label::Mbr] {
            let path = folder.blank("disk.raw", 8 * GIB);
            let disk = open(&path);
            let mut rng = Rng::new(8000 + seed);
            let old = read_with_sector_size(&disk, 4096).unwrap();
            let mut new = disksmith_partitions::init(&old, label).unwrap();
            for _ in 0..6 {
                new = random_edit(&new, &mut rng).unwrap_or(new);
            }
            Plan::new(&disk, &old, &new).unwrap().apply(&disk, false).unwrap();
            let back = read_with_sector_size(&disk, 4096).unwrap();
            assert_eq!(back.partitions, new.partitions);
            let name = text(&path);
            let theirs = oracle::succeed("fdisk", &["-l", "-b", "4096", &name]);
            assert_eq!(known_to_fdisk(&back, &name), theirs, "case {seed}");
            if label == Label::Gpt {
                // Found without being told the sector size, and that is said.
                let found = read(&disk).unwrap();
                assert_eq!(found.partitions, new.partitions);
                assert_eq!(found.oddities[0].kind.name(), "sector-size");
            }
        }
    }
}

/// The kernel: from its own reading of the table or, where it was built without, from what
/// libblkid's reader tells it to make nodes of.
#[test]
fn the_kernel_sees_the_same() {
    for (seed, label) in [(1, Label::Gpt), (2, Label::Mbr), (3, Label::Gpt), (4, Label::Mbr)] {
        let folder = Folder::new();
        let path = folder.blank("disk.raw", 2 * GIB);
        random_edits(&open(&path), label, &mut Rng::new(9000 + seed), 10);
        let table = read(&open(&path)).unwrap();
        let seen = kernel(&path);
        let ours: Vec<_> = table
            .partitions
            .iter()
            .filter(|p| !p.is_extended())
            .map(|p| (p.number, p.start, p.sectors))
            .collect();
        let extended = table.extended().map(|p| p.number);
        let seen: Vec<_> = seen.into_iter().filter(|(n, ..)| Some(*n) != extended).collect();
        assert_eq!(seen, ours, "{label:?} {seed}");
    }
}

/// Number, start and sectors of each partition of a loop device.
fn kernel(path: &Path) -> Vec<(u32, u64, u64)> {
    let arguments = ["--find", "--show", "--partscan", "--read-only", &text(path)];
    let device = oracle::succeed("losetup", &arguments).trim().to_string();
    let mut found = nodes(&device);
    if found.is_empty() {
        oracle::succeed("partx", &["--add", &device]);
        found = nodes(&device);
    }
    oracle::succeed("losetup", &["--detach", &device]);
    found
}

fn nodes(device: &str) -> Vec<(u32, u64, u64)> {
    let name = device.trim_start_matches("/dev/");
    let mut found = Vec::new();
    for entry in std::fs::read_dir(format!("/sys/block/{name}")).unwrap().flatten() {
        let part = entry.file_name().to_string_lossy().into_owned();
        let number = part.strip_prefix(&format!("{name}p")).and_then(|n| n.parse().ok());
        let figure = |file: &str| {
            std::fs::read_to_string(entry.path().join(file)).ok()?.trim().parse::<u64>().ok()
        };
        if let (Some(number), Some(start), Some(sectors)) =
            (number, figure("start"), figure("size"))
        {
            found.push((number, start, sectors));
        }
    }
    found.sort_unstable();
    found
}

/// The listing of cylinders and free space does not depend on who wrote the table.
#[test]
fn other_views() {
    let folder = Folder::new();
    let path = folder.blank("disk.raw", GIB);
    sfdisk_write(&path, "label: gpt\nsize=100M, type=U, name=EFI\nstart=1000000, type=S\n");
    let table = read(&open(&path)).unwrap();
    assert!(render::cylinders(&table, "d").contains("255 heads, 63 sectors/track, 130 cylinders"));
    let free = render::free(&table, "d", 2048);
    assert!(free.contains("206848 999999  793152 387.3M"), "{free}");
    let bar = render::bar(&table, 60);
    assert_eq!(bar.chars().count(), 60);
    assert!(bar.starts_with("|1 EF") && bar.contains("|....") && bar.contains("|2---"), "{bar}");
    assert_eq!(dump_json(&table, "d")["partitiontable"]["partitions"][0]["name"], "EFI");
}
