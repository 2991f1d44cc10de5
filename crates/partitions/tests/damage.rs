//! Damaged tables: each fault named, then repaired or refused; never a panic, never worse.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail by a panic")]

mod common;

use common::*;
use disksmith_disk::{Disk, MemoryDisk};
use disksmith_partitions::{
    AddRequest, Label, Length, OddityKind, Plan, Severity, Source, Table, add, init, mbr,
    parse_dump, read, repair, restore, types,
};
use disksmith_testkit::Rng;

const SIZE: u64 = 64 * MIB;
const LAST: u64 = SIZE / 512 - 1;

fn gpt() -> MemoryDisk {
    let disk = MemoryDisk::new(SIZE);
    let old = read(&disk).unwrap();
    let mut table = init(&old, Label::Gpt).unwrap();
    for (mib, name) in [(10, "one"), (20, "two"), (8, "three")] {
        let request = AddRequest {
            length: Length::Bytes(mib * MIB),
            name: name.into(),
            ..AddRequest::default()
        };
        table = add(&table, &request).unwrap().0;
    }
    Plan::new(&disk, &old, &table).unwrap().apply(&disk, false).unwrap();
    disk
}

fn from_script(script: &str) -> MemoryDisk {
    let disk = MemoryDisk::new(SIZE);
    let old = read(&disk).unwrap();
    let table = restore(&old, &parse_dump(script).unwrap()).unwrap();
    Plan::new(&disk, &old, &table).unwrap().apply(&disk, false).unwrap();
    disk
}

/// Two primary partitions and an extended one with three logical ones.
fn mbr_disk() -> MemoryDisk {
    from_script(
        "label: dos\n1: start=2048, size=8192, type=83, bootable\n2: start=20480, size=4096, type=82\n\
         3: start=40960, size=61440, type=5\n5: start=43008, size=4096\n6: start=51200, size=8192\n7: start=65536, size=2048\n",
    )
}

/// The boot records of [`mbr_disk`].
const RECORDS: [u64; 3] = [40960, 49152, 63488];

fn sector(disk: &MemoryDisk, lba: u64) -> Vec<u8> {
    let mut bytes = vec![0; 512];
    disk.read_at(&mut bytes, lba * 512).unwrap();
    bytes
}

fn put(disk: &MemoryDisk, lba: u64, at: u64, bytes: &[u8]) {
    disk.write_at(bytes, lba * 512 + at).unwrap();
}

/// Makes the checksums of a copy right again after a change.
fn mend_checksums(disk: &MemoryDisk, header: u64) {
    let mut bytes = sector(disk, header);
    let entries = u64::from_le_bytes(bytes[72..80].try_into().unwrap());
    if entries < LAST - 32 || header == LAST && entries < LAST {
        let mut array = vec![0; 16384];
        if disk.read_at(&mut array, entries * 512).is_ok() {
            bytes[88..92].copy_from_slice(&crc32fast::hash(&array).to_le_bytes());
        }
    }
    bytes[16..20].fill(0);
    let length = u32::from_le_bytes(bytes[12..16].try_into().unwrap()) as usize;
    let crc = crc32fast::hash(bytes.get(..length).unwrap_or(&bytes[..92]));
    bytes[16..20].copy_from_slice(&crc.to_le_bytes());
    put(disk, header, 0, &bytes);
}

/// What is to become of a case.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Fate {
    /// Repaired: no errors and no warnings are left.
    Mended,
    /// Repaired, but only with force, as something unreadable is given up.
    Forced,
    /// Repair refuses, or leaves what needs a decision.
    Left,
}

use Fate::{Forced, Left, Mended};

struct Case {
    name: String,
    disk: MemoryDisk,
    expected: OddityKind,
    fate: Fate,
}

#[derive(Default)]
struct Cases(Vec<Case>);

impl Cases {
    fn add(&mut self, name: impl Into<String>, disk: MemoryDisk, expected: OddityKind, fate: Fate) {
        self.0.push(Case { name: name.into(), disk, expected, fate });
    }

    /// A GPT with bytes of one sector changed; `mend` makes the checksum fit.
    fn gpt(
        &mut self,
        name: &str,
        (lba, at): (u64, u64),
        bytes: &[u8],
        mend: Option<u64>,
        expected: OddityKind,
        fate: Fate,
    ) {
        let disk = gpt();
        put(&disk, lba, at, bytes);
        if let Some(header) = mend {
            mend_checksums(&disk, header);
        }
        self.add(name, disk, expected, fate);
    }

    fn mbr(
        &mut self,
        name: &str,
        lba: u64,
        at: u64,
        bytes: &[u8],
        expected: OddityKind,
        fate: Fate,
    ) {
        let disk = mbr_disk();
        put(&disk, lba, at, bytes);
        self.add(name, disk, expected, fate);
    }
}

fn header_fields(cases: &mut Cases) {
    use OddityKind as K;
    for (which, lba) in [("primary", 1), ("backup", LAST)] {
        let fields: &[(&str, u64, &[u8], bool, OddityKind)] = &[
            (
                "signature",
                0,
                b"EFI PARX",
                false,
                if lba == 1 { K::HeaderSignature } else { K::BackupMissing },
            ),
            ("revision", 8, &[0, 0, 2, 0], true, K::HeaderRevision),
            ("header size 0", 12, &[0; 4], true, K::HeaderSize),
            ("header size 513", 12, &[1, 2, 0, 0], true, K::HeaderSize),
            ("header crc", 16, &[1, 2, 3, 4], false, K::HeaderCrc),
            ("reserved", 20, &[1], true, K::HeaderReserved),
            ("own place", 24, &[7], true, K::HeaderLocation),
            ("place of the other", 32, &[9, 9], true, K::BackupMismatch),
            ("first usable", 40, &[60], true, K::BackupMismatch),
            ("first usable behind last", 40, &[0xff; 7], true, K::UsableRange),
            ("last usable", 48, &[0x11], true, K::BackupMismatch),
            ("last usable off the disk", 48, &[0xff; 6], true, K::UsableRange),
            ("disk id", 56, &[1, 2, 3], true, K::BackupMismatch),
            ("place of entries", 72, &[0xff; 6], true, K::EntriesLocation),
            ("entries at 0", 72, &[0; 8], true, K::EntriesLocation),
            ("no entries", 80, &[0; 4], true, K::EntriesSize),
            ("many entries", 80, &[0xff; 4], true, K::EntriesSize),
            ("entries of 0 bytes", 84, &[0; 4], true, K::EntriesSize),
            ("entries of 127 bytes", 84, &[127], true, K::EntriesSize),
            ("entries crc", 88, &[5, 5, 5, 5], false, K::HeaderCrc),
        ];
        for (name, at, bytes, mend, expected) in fields {
            cases.gpt(
                &format!("{which} {name}"),
                (lba, *at),
                bytes,
                mend.then_some(lba),
                *expected,
                Mended,
            );
        }
        let entries = if lba == 1 { 2 } else { LAST - 32 };
        cases.gpt(
            &format!("{which} entries"),
            (entries, 130),
            &[0x77],
            None,
            K::EntriesCrc,
            Mended,
        );
        cases.gpt(
            &format!("{which} other entries"),
            (entries, 56),
            b"x",
            Some(lba),
            K::BackupMismatch,
            Mended,
        );
        let disk = gpt();
        put(&disk, lba, 0, &[0; 512]);
        let kind = if lba == 1 { K::PrimaryDamaged } else { K::BackupMissing };
        cases.add(format!("{which} header gone"), disk, kind, Mended);
    }
}

fn both_copies(cases: &mut Cases) {
    use OddityKind as K;
    let both = |at: u64, bytes: &[u8]| {
        let disk = gpt();
        put(&disk, 1, at, bytes);
        put(&disk, LAST, at, bytes);
        disk
    };
    cases.add("both header checksums", both(16, &[0; 4]), K::GptUnreadable, Left);
    cases.add("both header sizes", both(12, &[0; 4]), K::GptUnreadable, Left);
    let disk = gpt();
    put(&disk, 2, 40, &[0xee]);
    put(&disk, LAST - 32, 300, &[0xee]);
    cases.add("both entries", disk, K::GptUnreadable, Left);
    // One's header and the other's entries.
    for (header, entries) in [(1, 2), (LAST, LAST - 32)] {
        let disk = gpt();
        put(&disk, header, 60, &[0xee]);
        put(&disk, if entries == 2 { LAST - 32 } else { 2 }, 40, &[0xee]);
        cases.add(
            format!("header {header} and the other's entries"),
            disk,
            K::PrimaryDamaged,
            Mended,
        );
    }
    let disk = gpt();
    put(&disk, 1, 0, &[0; 512]);
    put(&disk, LAST, 0, &[0; 512]);
    cases.add("both headers gone", disk, K::GptUnreadable, Left);
}

fn sizes(cases: &mut Cases) {
    use OddityKind as K;
    let disk = gpt();
    disk.set_size(SIZE * 2).unwrap();
    cases.add("grown", disk, K::BackupNotAtEnd, Mended);
    let disk = gpt();
    put(&disk, 1, 60, &[9]);
    disk.set_size(SIZE * 2).unwrap();
    cases.add("grown, primary damaged", disk, K::PrimaryDamaged, Mended);
    let disk = gpt();
    put(&disk, 1, 0, &[0; 512]);
    disk.set_size(SIZE * 2).unwrap();
    cases.add("grown, primary gone", disk, K::GptUnreadable, Left);
    let disk = gpt();
    disk.set_size(SIZE - 8 * MIB).unwrap();
    cases.add("shrunk", disk, K::BackupMissing, Mended);
    let disk = gpt();
    disk.set_size(SIZE - 30 * MIB).unwrap();
    cases.add("shrunk into a partition", disk, K::OutOfBounds, Left);
    let disk = MemoryDisk::new(8 * GIB);
    let old = disksmith_partitions::read_with_sector_size(&disk, 4096).unwrap();
    let table = add(&init(&old, Label::Gpt).unwrap(), &AddRequest::default()).unwrap().0;
    Plan::new(&disk, &old, &table).unwrap().apply(&disk, false).unwrap();
    cases.add("for sectors of 4096", disk, K::SectorSize, Left);
}

fn sector_zero_of_a_gpt(cases: &mut Cases) {
    use OddityKind as K;
    cases.gpt("protective type", (0, 450), &[0x83], None, K::GptRemains, Left);
    cases.gpt("protective entry gone", (0, 446), &[0; 16], None, K::ProtectiveMissing, Mended);
    cases.gpt("protective start", (0, 454), &[5], None, K::ProtectiveStart, Mended);
    cases.gpt("protective size", (0, 458), &[1, 2], None, K::ProtectiveSize, Mended);
    cases.gpt("protective signature", (0, 510), &[0, 0], None, K::ProtectiveMissing, Mended);
    cases.gpt("sector 0 gone", (0, 0), &[0; 512], None, K::ProtectiveMissing, Mended);
    let hybrid = [0x80, 0, 2, 0, 0x83, 0, 0, 0, 0, 8, 0, 0, 0, 0x50, 0, 0];
    cases.gpt("hybrid", (0, 462), &hybrid, None, K::HybridMbr, Mended);
}

fn entries(cases: &mut Cases) {
    use OddityKind as K;
    // Entry `n` of both copies.
    let mut entry = |name: &str, n: u64, at: u64, bytes: &[u8], kind, fate| {
        let disk = gpt();
        for (header, entries) in [(1, 2), (LAST, LAST - 32)] {
            put(&disk, entries, n * 128 + at, bytes);
            mend_checksums(&disk, header);
        }
        cases.add(name, disk, kind, fate);
    };
    entry("overlap", 1, 32, &2048_u64.to_le_bytes(), K::Overlap, Left);
    entry("ends before it starts", 1, 40, &100_u64.to_le_bytes(), K::Empty, Mended);
    entry("starts in the table", 0, 32, &3_u64.to_le_bytes(), K::OutsideUsable, Left);
    entry("starts at 0", 0, 32, &0_u64.to_le_bytes(), K::OutOfBounds, Left);
    entry("ends in the backup", 2, 40, &(LAST - 5).to_le_bytes(), K::OutsideUsable, Left);
    entry("ends off the disk", 2, 40, &(LAST + 5).to_le_bytes(), K::OutOfBounds, Left);
    entry("ends at the end of numbers", 2, 40, &u64::MAX.to_le_bytes(), K::OutOfBounds, Left);
    entry("all of the numbers", 2, 32, &[[0; 8], [0xff; 8]].concat(), K::Empty, Mended);
    entry("no id", 1, 16, &[0; 16], K::ZeroId, Mended);
    entry("name", 1, 56, &[0, 0xd8, 0x41, 0], K::NameInvalid, Mended);
    entry("misaligned", 0, 32, &2049_u64.to_le_bytes(), K::Misaligned, Mended);
    let disk = gpt();
    let id = sector(&disk, 2)[16..32].to_vec();
    for (header, entries) in [(1, 2), (LAST, LAST - 32)] {
        put(&disk, entries, 128 + 16, &id);
        mend_checksums(&disk, header);
    }
    cases.add("the same id twice", disk, K::DuplicateId, Mended);
    let disk = gpt();
    for header in [1, LAST] {
        put(&disk, header, 56, &[0; 16]);
        mend_checksums(&disk, header);
    }
    cases.add("no disk id", disk, K::ZeroId, Mended);
}

fn mbr_entries(cases: &mut Cases) {
    use OddityKind as K;
    cases.mbr("signature", 0, 510, &[0, 0], K::SignatureMissing, Mended);
    cases.mbr("boot flag", 0, 462, &[0x42], K::BootFlag, Mended);
    cases.mbr("boot flags", 0, 462, &[0x80], K::BootSeveral, Left);
    cases.mbr("cylinders", 0, 447, &[9, 9, 9], K::ChsMismatch, Mended);
    cases.mbr("no type", 0, 466, &[0], K::TypeMissing, Mended);
    cases.mbr("no length", 0, 474, &[0; 4], K::Empty, Mended);
    cases.mbr("start 0", 0, 454, &[0; 4], K::OutOfBounds, Left);
    cases.mbr("overlap", 0, 458, &30_000_u32.to_le_bytes(), K::Overlap, Left);
    cases.mbr("off the disk", 0, 474, &[0, 0, 0, 1], K::OutOfBounds, Left);
    cases.mbr("end of numbers", 0, 470, &[0xff; 8], K::OutOfBounds, Left);
    cases.mbr("second extended", 0, 466, &[0x0f], K::ExtendedSeveral, Left);
    cases.mbr("extended off the disk", 0, 490, &[0, 0, 0, 1], K::OutOfBounds, Left);
    cases.mbr("a GPT announced", 0, 450, &[0xee], K::GptUnreadable, Left);
    let disk = gpt();
    put(&disk, 0, 440, &sector(&mbr_disk(), 0)[440..]);
    // Its extended partition has no boot record here.
    cases.add("over a GPT", disk, K::GptRemains, Forced);
    let disk = mbr_disk();
    disk.set_size(30 * MIB).unwrap();
    cases.add("truncated in a logical partition", disk, K::OutOfBounds, Left);
    let disk = mbr_disk();
    disk.set_size(25 * MIB - 512).unwrap();
    cases.add("truncated in the chain", disk, K::EbrLink, Left);
}

fn chains(cases: &mut Cases) {
    use OddityKind as K;
    let relative = |record: u64| ((record - RECORDS[0]) as u32).to_le_bytes();
    for (n, record) in RECORDS.into_iter().enumerate() {
        cases.mbr(&format!("record {n} signature"), record, 510, &[0, 0], K::EbrSignature, Forced);
        cases.mbr(&format!("record {n} gone"), record, 0, &[0; 512], K::EbrSignature, Forced);
        let link = [[0, 0, 0, 0, 5, 0, 0, 0], [1, 0, 0, 0, 1, 0, 0, 0]].concat();
        for (to, target) in RECORDS.into_iter().enumerate().take(n + 1) {
            let mut link = link.clone();
            link[8..12].copy_from_slice(&relative(target));
            cases.mbr(&format!("record {n} links to {to}"), record, 462, &link, K::EbrLoop, Forced);
        }
        for (what, sector) in
            [("behind the extended partition", 70_000_u32), ("off the disk", u32::MAX)]
        {
            let mut link = link.clone();
            link[8..12].copy_from_slice(&sector.to_le_bytes());
            cases.mbr(&format!("record {n} links {what}"), record, 462, &link, K::EbrLink, Forced);
        }
        let extra = sector(&mbr_disk(), record)[446..462].to_vec();
        cases.mbr(
            &format!("record {n} with a third entry"),
            record,
            478,
            &extra,
            K::EbrExtra,
            Mended,
        );
    }
    cases.mbr(
        "logical behind the extended",
        RECORDS[2],
        458,
        &90_000_u32.to_le_bytes(),
        K::LogicalOutside,
        Left,
    );
    cases.mbr("logical overlap", RECORDS[0], 458, &20_000_u32.to_le_bytes(), K::Overlap, Left);
    cases.mbr("record in data", RECORDS[0], 458, &7_000_u32.to_le_bytes(), K::EbrOverlap, Left);
    cases.mbr(
        "logical a little behind",
        RECORDS[2],
        458,
        &40_000_u32.to_le_bytes(),
        K::LogicalOutside,
        Mended,
    );
    let disk = mbr_disk();
    let (mut at, mut next) = (RECORDS[0], RECORDS[0] + 1);
    for _ in 0..=mbr::MAX_LOGICAL {
        let mut record = vec![0; 512];
        record[466] = 5;
        record[470..474].copy_from_slice(&relative(next));
        record[474] = 1;
        record[510..].copy_from_slice(&[0x55, 0xaa]);
        put(&disk, at, 0, &record);
        (at, next) = (next, next + 1);
    }
    cases.add("a chain without end", disk, K::EbrTooMany, Forced);
}

fn all() -> Vec<Case> {
    let mut cases = Cases::default();
    header_fields(&mut cases);
    both_copies(&mut cases);
    sizes(&mut cases);
    sector_zero_of_a_gpt(&mut cases);
    entries(&mut cases);
    mbr_entries(&mut cases);
    chains(&mut cases);
    cases.0
}

fn bad(table: &Table) -> Vec<String> {
    let bad = table.oddities.iter().filter(|odd| odd.severity() > Severity::Note);
    bad.map(|odd| format!("{} {:?}", odd.kind.name(), odd.partition)).collect()
}

fn errors(table: &Table) -> usize {
    table.oddities.iter().filter(|odd| odd.severity() == Severity::Error).count()
}

/// Repairs; answers whether something was written. Whatever happens, nothing gets worse.
fn try_repair(disk: &MemoryDisk, what: &str, force: bool) -> bool {
    let before = read(disk).unwrap();
    let bytes = checksum(disk);
    let done = match repair(disk, &before, Source::Auto) {
        Ok(repair) => {
            assert!(repair.plan.apply(disk, force).is_ok() || !force, "{what}");
            checksum(disk) != bytes
        }
        Err(_) => false,
    };
    let after = read(disk).unwrap();
    if !done {
        assert_eq!(checksum(disk), bytes, "{what}: refused and yet written");
    }
    assert!(
        errors(&after) <= errors(&before),
        "{what}: {:?} became {:?}",
        bad(&before),
        bad(&after)
    );
    for old in &before.partitions {
        let kept =
            after.partitions.iter().any(|p| p.start == old.start && p.sectors >= old.sectors);
        assert!(kept, "{what}: partition {} is gone", old.number);
    }
    done
}

fn checksum(disk: &MemoryDisk) -> (u64, u32) {
    let mut hasher = crc32fast::Hasher::new();
    let mut at = 0;
    while at < disk.size() {
        let extent = disk.map(at, u64::MAX).unwrap();
        if extent.state == disksmith_disk::State::Data {
            let mut bytes = vec![0; extent.length as usize];
            disk.read_at(&mut bytes, at).unwrap();
            for (n, sector) in
                (0_u64..).zip(bytes.chunks(512)).filter(|(_, s)| s.iter().any(|b| *b != 0))
            {
                hasher.update(&(at + n * 512).to_le_bytes());
                hasher.update(sector);
            }
        }
        at += extent.length;
    }
    (disk.size(), hasher.finalize())
}

#[test]
fn each_named_and_repaired_or_refused() {
    let cases = all();
    assert!(cases.len() >= 100, "{} cases", cases.len());
    let mut wrong = Vec::new();
    for Case { name, disk, expected, fate } in cases {
        let table = read(&disk).unwrap();
        if !table.oddities.iter().any(|odd| odd.kind == expected) {
            wrong.push(format!("{name}: expected {}, found {:?}", expected.name(), table.oddities));
            continue;
        }
        let quietly = try_repair(&disk, &name, false);
        let after = read(&disk).unwrap();
        let whole = bad(&after).is_empty();
        let found = match (quietly, whole) {
            (_, true) => Mended,
            _ if try_repair(&disk, &name, true) && bad(&read(&disk).unwrap()).is_empty() => Forced,
            _ => Left,
        };
        let named_only =
            expected.severity() == Severity::Note || expected == OddityKind::NameInvalid;
        if found != fate && !named_only {
            wrong.push(format!(
                "{name}: {found:?}, not {fate:?}; left {:?}",
                read(&disk).unwrap().oddities
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Bytes changed at random where tables live.
#[test]
fn random_damage() {
    let mut rng = Rng::new(77);
    for round in 0..cases(3000, 300) {
        let disk = if round % 2 == 0 { gpt() } else { mbr_disk() };
        for _ in 0..1 + rng.below(4) {
            let lba = match round % 2 {
                0 => *rng.pick(&[0, 1, 2, LAST, LAST - 32]),
                _ => *rng.pick(&[0, RECORDS[0], RECORDS[1], RECORDS[2]]),
            };
            let at = if round % 2 == 0 { rng.below(400) } else { 440 + rng.below(72) };
            let length = 1 + rng.below(4) as usize;
            let bytes = rng.bytes(length);
            put(&disk, lba, at.min(508), &bytes[..]);
            if rng.one_in(2) && round % 2 == 0 {
                mend_checksums(&disk, *rng.pick(&[1, LAST]));
            }
        }
        let what = format!("round {round}");
        try_repair(&disk, &what, false);
        // An edit is done or refused, and what is read then has no new errors.
        let table = read(&disk).unwrap();
        let request = AddRequest { length: Length::Bytes(MIB), ..AddRequest::default() };
        if let Ok((new, _)) = add(&table, &request)
            && let Ok(plan) = Plan::new(&disk, &table, &new)
        {
            let _ = plan.apply(&disk, rng.one_in(2));
            let after = read(&disk).unwrap();
            assert!(
                errors(&after) <= errors(&table),
                "{what}: {:?}, {:?}",
                bad(&table),
                bad(&after)
            );
        }
        try_repair(&disk, &what, true);
    }
}

/// What is recognised is not destroyed without force.
#[test]
fn content_is_protected() {
    let folder = Folder::new();
    let path = folder.blank("fs", 16 * MIB);
    disksmith_testkit::oracle::succeed("mkfs.ext4", &["-q", "-F", "-L", "precious", &text(&path)]);
    let mut filesystem = vec![0; (16 * MIB) as usize];
    open(&path).read_at(&mut filesystem, 0).unwrap();
    // On the whole disk.
    let disk = MemoryDisk::from_bytes(&filesystem);
    let old = read(&disk).unwrap();
    let plan = Plan::new(&disk, &old, &init(&old, Label::Gpt).unwrap()).unwrap();
    assert!(plan.losses[0].detail.contains("ext4 'precious' of 16 MiB"), "{:?}", plan.losses);
    let bytes = checksum(&disk);
    assert!(plan.apply(&disk, false).is_err());
    assert_eq!(checksum(&disk), bytes);
    plan.apply(&disk, true).unwrap();
    assert!(disksmith_partitions::probe(&disk).unwrap().is_none());
    // In a partition.
    let disk = gpt();
    let table = read(&disk).unwrap();
    disk.write_at(&filesystem, table.partition(2).unwrap().start * 512).unwrap();
    let size = |bytes| {
        disksmith_partitions::resize(&table, 2, Length::Bytes(bytes), Default::default()).unwrap()
    };
    for (new, lost) in [
        (disksmith_partitions::remove(&table, 2).unwrap(), true),
        (disksmith_partitions::remove(&table, 1).unwrap(), false),
        (size(15 * MIB), true),
        (size(16 * MIB), false),
        (init(&table, Label::Mbr).unwrap(), true),
        (disksmith_partitions::convert(&table, Label::Mbr).unwrap(), false),
    ] {
        let plan = Plan::new(&disk, &table, &new).unwrap();
        assert_eq!(plan.permit(false).is_err(), lost, "{:?}", plan.losses);
        assert!(plan.permit(true).is_ok());
    }
    let kind = types::parse("linux", Label::Gpt).unwrap();
    assert_eq!(table.partition(2).unwrap().kind, kind);
}
