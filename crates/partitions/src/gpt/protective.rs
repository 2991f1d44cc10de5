//! Sector 0 of a GPT disk: the protective entry, and hybrid MBRs.

use crate::mbr::layout::{Entry, Record};
use crate::types::MBR_PROTECTIVE;
use crate::{Geometry, Oddity, OddityKind, Partition, PartitionType, Role, Table};

/// Judges sector 0 of a disk that has a GPT. Returns the other entries of a hybrid MBR.
pub(crate) fn inspect(
    record: &Record,
    disk_sectors: u64,
    oddities: &mut Vec<Oddity>,
) -> Vec<Partition> {
    let mut odd = |kind, detail: String| oddities.push(Oddity::new(kind, detail));
    let protective = record.entries.iter().find(|e| e.kind == MBR_PROTECTIVE);
    match protective {
        Some(_) if !record.signed => {
            odd(
                OddityKind::ProtectiveMissing,
                "sector 0 has a protective entry and no signature".into(),
            );
        }
        None => {
            odd(OddityKind::ProtectiveMissing, "sector 0 has no protective entry (type ee)".into())
        }
        Some(entry) => {
            if entry.start != 1 {
                odd(
                    OddityKind::ProtectiveStart,
                    format!("the protective entry starts at sector {}, not 1", entry.start),
                );
            }
            let others = record.entries.iter().filter(|e| !e.is_unused()).count();
            let wanted = protective_sectors(disk_sectors);
            if others == 1 && entry.sectors != wanted && entry.sectors != u32::MAX {
                odd(
                    OddityKind::ProtectiveSize,
                    format!("the protective entry covers {} sectors, not {wanted}", entry.sectors),
                );
            }
        }
    }
    let hybrid = hybrid(record);
    if !hybrid.is_empty() && protective.is_some() {
        let numbers: Vec<u32> = hybrid.iter().map(|p| p.number).collect();
        odd(OddityKind::HybridMbr, format!("sector 0 also lists MBR partitions {numbers:?}"));
    }
    hybrid
}

fn hybrid(record: &Record) -> Vec<Partition> {
    (1u32..)
        .zip(&record.entries)
        .filter(|(_, e)| e.kind != MBR_PROTECTIVE && e.kind != 0 && e.sectors > 0)
        .map(|(number, e)| Partition {
            number,
            start: u64::from(e.start),
            sectors: u64::from(e.sectors),
            kind: PartitionType::Mbr(e.kind),
            role: Role::Primary,
            name: String::new(),
            uuid: None,
            attributes: 0,
            bootable: e.status & 0x80 != 0,
            raw_name: None,
        })
        .collect()
}

/// What the protective entry is to cover: everything behind sector 0, as far as 32 bits go.
fn protective_sectors(disk_sectors: u64) -> u32 {
    u32::try_from(disk_sectors.saturating_sub(1)).unwrap_or(u32::MAX)
}

/// The record to write in front of `table`. The entries of a hybrid MBR stay as they are in
/// `old` while the partition behind each is still there; else the usual single entry.
pub(crate) fn encode(table: &Table, old: &Record) -> Record {
    let kept: Vec<&Partition> = table
        .hybrid
        .iter()
        .filter(|h| table.partitions.iter().any(|p| p.start == h.start && p.sectors == h.sectors))
        .collect();
    let has_protective = old.entries.iter().any(|e| e.kind == MBR_PROTECTIVE);
    if !kept.is_empty() && kept.len() == table.hybrid.len() && has_protective {
        return Record { signed: true, ..*old };
    }
    let sectors = protective_sectors(table.disk_sectors);
    let last = Geometry::default().chs(u64::from(sectors)).to_disk();
    let entry = Entry {
        status: 0,
        first_chs: [0, 2, 0],
        kind: MBR_PROTECTIVE,
        // What fits is written as an address; UEFI wants ff ff ff for the rest.
        last_chs: if last == [0xfe, 0xff, 0xff] { [0xff; 3] } else { last },
        start: 1,
        sectors,
    };
    Record {
        signed: true,
        disk_id: old.disk_id,
        entries: [entry, Entry::default(), Entry::default(), Entry::default()],
    }
}
