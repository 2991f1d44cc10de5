//! Repairs of damaged images, cut: what is damaged are counts and marks, so that the content is
//! known, and stays.

use disksmith_disk::{Disk, MemoryDisk};
use disksmith_formats::{Image, Repair};

use crate::{Script, seeds};

fn be64(disk: &MemoryDisk, at: u64) -> u64 {
    let mut bytes = [0; 8];
    disk.read_at(&mut bytes, at).unwrap();
    u64::from_be_bytes(bytes)
}

fn repair(image: &dyn Image) -> disksmith_disk::Result<()> {
    image.check(Repair::All, &mut |_| {}).map(drop)
}

/// More than thirty ways: each of several counts lowered and raised, marks of L1 and L2 entries turned,
/// tables missing, the dirty bit set.
pub(crate) fn repairs() -> Vec<Script> {
    let seed = seeds::from_qemu(false);
    let table = be64(&seed, 48);
    let block = be64(&seed, table);
    let l1 = be64(&seed, 40);
    let l2 = be64(&seed, l1) & 0x00ff_ffff_ffff_fe00;
    let mut all = Vec::new();
    let mut damaged = |name: String, place: u64, bytes: &[u8]| {
        let disk = seed.clone();
        disk.write_at(bytes, place).unwrap();
        all.push(Script {
            name,
            row: "check: repair",
            initial: disk,
            data: None,
            action: repair,
            damaged: true,
            passwords: &[],
        });
    };
    for cluster in [0, 1, 2, 3, 5, 6, 9, 14, 20, 27] {
        damaged(format!("count of {cluster} is 0"), block + 2 * cluster, &[0, 0]);
        damaged(format!("count of {cluster} is 7"), block + 2 * cluster, &[0, 7]);
    }
    damaged("leaks".into(), block + 200, &[0, 1, 0, 1, 0, 1]);
    damaged("no block".into(), table, &[0; 8]);
    damaged("a broken table".into(), table, &[0, 0, 0, 0, 0, 0, 0x2a, 0]);
    damaged("a block beyond the end".into(), table, &[0, 0, 0, 1, 0, 0, 0, 0]);
    for (name, at) in [("L1", l1), ("L2", l2), ("second L2", l2 + 8), ("late L2", l2 + 0x190)] {
        let entry = be64(&seed, at);
        damaged(format!("{name} mark"), at, &(entry ^ 1 << 63).to_be_bytes());
    }
    // Nothing is mapped there, and that is how it stays.
    damaged("L2 entry with a reserved bit".into(), l2 + 8 * 40, &[0, 0, 0, 0, 0, 0, 0, 2]);
    damaged("dirty".into(), 79, &[1]);
    damaged("marked corrupt".into(), 79, &[2]);
    all.extend(l1_entries());
    all
}

/// Entries of the L1 table that lead nowhere, where nothing is mapped.
fn l1_entries() -> Vec<Script> {
    // A table of 512 bytes speaks of 32 KiB.
    let seed = seeds::filled("cluster_size=512", 256 << 10, 60_000);
    let place = be64(&seed, 40) + 7 * 8;
    assert_eq!(be64(&seed, place), 0);
    let entries =
        [("a mark alone", 1 << 63), ("reserved bits", 1), ("behind the end", 1 << 63 | 1 << 30)];
    let script = |(name, entry): (&str, u64)| {
        let disk = seed.clone();
        disk.write_at(&entry.to_be_bytes(), place).unwrap();
        Script {
            name: format!("L1 entry: {name}"),
            row: "check: repair",
            initial: disk,
            data: None,
            action: repair,
            damaged: true,
            passwords: &[],
        }
    };
    entries.into_iter().map(script).collect()
}
