//! Shared by the integration tests: image files, tools, random edits.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "each test program uses a part of it"
)]

pub mod crafted;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use disksmith_disk::{Disk, MemoryDisk, State};
use disksmith_host::{FileDisk, OpenOptions};
use disksmith_partitions::{
    AddRequest, Align, Change, Guid, Label, Length, Partition, PartitionType, Plan, Severity,
    Table, add, init, read, remove, resize, set, types,
};
use disksmith_testkit::{Rng, oracle};
use serde_json::Value;

pub const MIB: u64 = 1 << 20;
pub const GIB: u64 = 1 << 30;

/// How many of the full number of cases to run: all with DISKSMITH_LONG=1.
pub fn cases(full: u64, quick: u64) -> u64 {
    if std::env::var_os("DISKSMITH_LONG").is_some_and(|v| v == "1") { full } else { quick }
}

/// A folder with files in it, gone at the end of the test.
pub struct Folder(tempfile::TempDir);

impl Folder {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A new sparse file.
    pub fn blank(&self, name: &str, size: u64) -> PathBuf {
        let path = self.path(name);
        File::create(&path).unwrap().set_len(size).unwrap();
        path
    }
}

pub fn open(path: &Path) -> FileDisk {
    FileDisk::open(path, OpenOptions { write: true, ..OpenOptions::default() }).unwrap()
}

/// Writes a memory disk to a sparse file.
pub fn save(disk: &MemoryDisk, path: &Path) {
    let file = File::create(path).unwrap();
    file.set_len(disk.size()).unwrap();
    let mut at = 0;
    while at < disk.size() {
        let extent = disk.map(at, 1 << 20).unwrap();
        if extent.state == State::Data {
            let mut bytes = vec![0; extent.length as usize];
            disk.read_at(&mut bytes, at).unwrap();
            file.write_all_at(&bytes, at).unwrap();
        }
        at += extent.length;
    }
}

pub fn text(path: &Path) -> String {
    path.to_str().unwrap().to_string()
}

/// The table as sfdisk reads it.
pub fn sfdisk_json(path: &Path) -> Value {
    let output = oracle::succeed("sfdisk", &["--json", &text(path)]);
    serde_json::from_str(&output).unwrap_or_else(|error| panic!("{error}: {output}"))
}

/// One of sfdisk's names for a type is in lower case.
fn same_case(mut json: Value) -> Value {
    let list = json.pointer_mut("/partitiontable/partitions").and_then(Value::as_array_mut);
    for partition in list.into_iter().flatten() {
        partition["type"] = partition["type"].as_str().unwrap().to_uppercase().into();
    }
    json
}

/// Lets sfdisk write a table from a script.
pub fn sfdisk_write(path: &Path, script: &str) {
    let (done, errors) = sfdisk_try(path, script);
    assert!(done, "sfdisk refused:\n{script}\n{errors}");
}

/// As [`sfdisk_write`]; answers whether it did, and what it complained about.
pub fn sfdisk_try(path: &Path, script: &str) -> (bool, String) {
    let mut child = Command::new("/usr/sbin/sfdisk")
        .args(["-q", "--no-reread", "--no-tell-kernel", "-w", "never"])
        .arg(path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("sfdisk is missing: install the Debian package fdisk");
    std::io::Write::write_all(child.stdin.as_mut().unwrap(), script.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Number, start and sectors of each partition as `partx` (libblkid) sees them.
pub fn partx(path: &Path) -> Vec<(u32, u64, u64)> {
    let output = oracle::run("partx", &["-s", "-g", "-o", "NR,START,SECTORS", &text(path)]);
    let lines = String::from_utf8(output.stdout).unwrap();
    lines
        .lines()
        .map(|line| line.split_whitespace().map(|n| n.parse().unwrap()).collect::<Vec<u64>>())
        .map(|n| (n[0] as u32, n[1], n[2]))
        .collect()
}

/// Number, start, end and name of each partition as parted reads them.
pub fn parted(path: &Path) -> Vec<(u32, u64, u64, String)> {
    let output = Command::new("/usr/sbin/parted")
        .args(["-m", "-s", &text(path), "unit", "s", "print"])
        .env("LC_ALL", "C.UTF-8")
        .output()
        .expect("parted is missing: install the Debian package parted");
    let errors = String::from_utf8_lossy(&output.stderr);
    let errors: Vec<&str> = errors.lines().filter(|line| !line.contains("udevadm")).collect();
    let lines = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && errors.is_empty(), "parted complains: {errors:?}\n{lines}");
    let record = |line: &str| {
        let fields: Vec<&str> = line.split(':').collect();
        let sector = |n: usize| fields[n].trim_end_matches('s').parse().unwrap();
        let name = fields.get(5).unwrap_or(&"").replace(r"\\", r"\");
        (fields[0].parse().unwrap(), sector(1), sector(2), name)
    };
    lines.lines().skip(2).map(record).collect()
}

/// Checks that every tool reads what is in the file as we do, without complaint.
pub fn assert_all_agree(path: &Path, case: &str) {
    let table = read(&open(path)).unwrap();
    let name = text(path);
    let ours = disksmith_partitions::dump_json(&table, &name);
    assert_eq!(same_case(ours), same_case(sfdisk_json(path)), "{case}");
    let fdisk = oracle::succeed("fdisk", &["-l", &name]);
    assert_eq!(known_to_fdisk(&table, &name), fdisk, "{case}");
    // libblkid cuts extended partitions down to their boot record.
    let extended = table.extended().map(|p| p.number);
    let ours: Vec<_> = table
        .partitions
        .iter()
        .filter(|p| !p.is_extended())
        .map(|p| (p.number, p.start, p.sectors))
        .collect();
    let mut theirs = partx(path);
    theirs.retain(|(number, ..)| Some(*number) != extended);
    assert_eq!(ours, theirs, "{case}: partx");
    let mut ours: Vec<_> =
        table.partitions.iter().map(|p| (p.number, p.start, p.end(), p.name.clone())).collect();
    let mut theirs = parted(path);
    ours.sort();
    theirs.sort();
    assert_eq!(ours, theirs, "{case}: parted");
    if table.label == Label::Gpt {
        let verdict = oracle::succeed("sgdisk", &["-v", &name]);
        assert!(verdict.contains("No problems found"), "{case}: {verdict}");
    }
}

/// Our text, with `unknown` for the types that fdisk 2.38 does not know yet.
pub fn known_to_fdisk(table: &Table, name: &str) -> String {
    const NEWER: &[&str] = &[
        "(PA-RISC)",
        "(MIPS-32 BE)",
        "(MIPS-64 BE)",
        "Linux LUKS",
        "Linux dm-crypt",
        "Android",
        "SoftRAID",
    ];
    let mut table = table.clone();
    for p in &mut table.partitions {
        if NEWER.iter().any(|newer| p.kind.name().contains(newer)) {
            p.kind = PartitionType::Gpt(Guid::from_u128(1));
        }
    }
    disksmith_partitions::render::fdisk(&table, name)
}

/// A random table by random edits, each applied to `disk` as a plan of its own.
pub fn random_edits(disk: &dyn Disk, label: Label, rng: &mut Rng, edits: u64) -> Table {
    let blank = read(disk).unwrap();
    apply(disk, &blank, &init(&blank, label).unwrap());
    for _ in 0..edits {
        let table = read(disk).unwrap();
        assert!(
            table.oddities.iter().all(|o| o.severity() == Severity::Note),
            "{:?}",
            table.oddities
        );
        if let Some(new) = random_edit(&table, rng) {
            apply(disk, &table, &new);
        }
    }
    read(disk).unwrap()
}

/// Applies an edit and checks that the same table is read back.
pub fn apply(disk: &dyn Disk, old: &Table, new: &Table) {
    let plan = Plan::new(disk, old, new).unwrap();
    plan.apply(disk, true).unwrap();
    let back = read(disk).unwrap();
    assert_eq!(back.partitions, new.partitions);
    assert_eq!((back.label, back.id), (new.label, new.id));
    assert!(Plan::new(disk, &back, new).unwrap().is_empty());
}

pub fn random_edit(table: &Table, rng: &mut Rng) -> Option<Table> {
    let any = |rng: &mut Rng| -> Option<Partition> {
        let count = table.partitions.len() as u64;
        (count > 0).then(|| table.partitions[rng.below(count) as usize].clone())
    };
    match rng.below(10) {
        0..=5 => Some(add(table, &random_request(table, rng)).ok()?.0),
        6 => remove(table, any(rng)?.number).ok(),
        7 | 8 => {
            let p = any(rng)?;
            let length = match rng.below(3) {
                0 => Length::Rest,
                1 => Length::Sectors(p.sectors / 2 + 1),
                _ => Length::Bytes(p.sectors * 512 + rng.below(64) * MIB),
            };
            resize(table, p.number, length, Align::default()).ok()
        }
        _ => set(table, any(rng)?.number, &random_change(table, rng)).ok(),
    }
}

fn random_kind(label: Label, rng: &mut Rng) -> PartitionType {
    let all = types::all(label);
    loop {
        let (kind, _) = *rng.pick(&all);
        // Types that mean more than a word: nothing, GPT, extended.
        let special = matches!(kind, PartitionType::Mbr(0 | 0xee))
            || matches!(kind, PartitionType::Mbr(code) if types::is_extended(code));
        if !special {
            return kind;
        }
    }
}

fn random_name(rng: &mut Rng) -> String {
    // No colon, which parted's machine-readable output does not escape, and nothing outside of
    // the basic plane, which it cannot translate.
    let names = ["", "root", "EFI System", "ünïcode ♥", "a,b=c", "with \"quotes\"", "back\\slash"];
    (*rng.pick(&names)).to_string()
}

fn random_request(table: &Table, rng: &mut Rng) -> AddRequest {
    let mut request = AddRequest {
        length: match rng.below(8) {
            0 => Length::Rest,
            1 => Length::Sectors(1 + rng.below(100_000)),
            _ => Length::Bytes((1 + rng.below(200)) * MIB),
        },
        kind: Some(random_kind(table.label, rng)),
        bootable: rng.one_in(4),
        ..AddRequest::default()
    };
    if rng.one_in(4) {
        request.start = Some(rng.below(table.disk_sectors));
    }
    if table.label == Label::Gpt {
        request.name = random_name(rng);
        request.attributes = rng.next_u64() & 0xffff_0000_0000_0003 & rng.next_u64();
        if rng.one_in(3) {
            request.number = Some(1 + rng.below(128) as u32);
        }
    } else if table.extended().is_none() && rng.one_in(3) {
        request.kind = Some(PartitionType::Mbr(*rng.pick(&[0x05, 0x0f])));
        request.length = Length::Bytes((200 + rng.below(800)) * MIB);
        request.bootable = false;
    } else {
        request.logical = table.extended().is_some() && !rng.one_in(4);
    }
    request
}

fn random_change(table: &Table, rng: &mut Rng) -> Change {
    match rng.below(5) {
        0 => Change::Bootable(rng.one_in(2)),
        1 => Change::Name(random_name(rng)),
        2 => Change::Uuid(Guid::random()),
        3 => Change::Attributes(rng.next_u64() & 0xffff_0000_0000_0007),
        _ => Change::Type(random_kind(table.label, rng)),
    }
}

/// Of the disks that edits are tried on.
pub const SIZE: u64 = 64 * MIB;

pub fn sized(mib: u64) -> AddRequest {
    AddRequest { length: Length::Bytes(mib * MIB), ..AddRequest::default() }
}

pub fn applied(disk: &MemoryDisk, new: &Table) {
    Plan::new(disk, &read(disk).unwrap(), new).unwrap().apply(disk, true).unwrap();
}

/// Three partitions.
pub fn gpt() -> MemoryDisk {
    let disk = MemoryDisk::new(SIZE);
    let mut table = init(&read(&disk).unwrap(), Label::Gpt).unwrap();
    for mib in [10, 20, 8] {
        table = add(&table, &sized(mib)).unwrap().0;
    }
    applied(&disk, &table);
    disk
}

/// A primary and three logical partitions.
pub fn mbr() -> MemoryDisk {
    let disk = MemoryDisk::new(SIZE);
    let mut table = init(&read(&disk).unwrap(), Label::Mbr).unwrap();
    table = add(&table, &sized(8)).unwrap().0;
    let kind = Some(types::parse("extended", Label::Mbr).unwrap());
    table = add(&table, &AddRequest { kind, ..sized(46) }).unwrap().0;
    for mib in [4, 5, 6] {
        table = add(&table, &AddRequest { logical: true, ..sized(mib) }).unwrap().0;
    }
    applied(&disk, &table);
    disk
}
