//! The difference of two tables, in words.

use disksmith_disk::human_size;

use crate::{Label, Partition, Table};

pub(super) fn changes(before: &Table, after: &Table) -> Vec<String> {
    let mut lines = Vec::new();
    if before.label != after.label {
        lines.push(format!("partition table: {} → {}", before.label.name(), after.label.name()));
    }
    if before.id != after.id
        && let Some(id) = after.id
    {
        lines.push(match before.id {
            Some(old) if before.label == after.label => format!("disk id: {old} → {id}"),
            _ => format!("disk id: {id}"),
        });
    }
    if before.disk_sectors != after.disk_sectors {
        let bytes = |table: &Table| {
            human_size(table.disk_sectors.saturating_mul(u64::from(table.sector_size)))
        };
        lines.push(format!("disk: {} → {}", bytes(before), bytes(after)));
    }
    if before.label == Label::Gpt
        && after.label == Label::Gpt
        && before.last_usable != after.last_usable
    {
        lines.push(format!("last usable sector: {} → {}", before.last_usable, after.last_usable));
    }
    let mut unmatched: Vec<&Partition> = after.partitions.iter().collect();
    for old in &before.partitions {
        let found = unmatched
            .iter()
            .position(|p| same_place(p, old))
            .or_else(|| unmatched.iter().position(|p| p.number == old.number && similar(p, old)));
        match found {
            Some(index) => lines.extend(change(old, unmatched.swap_remove(index), after)),
            None => {
                lines.push(format!("partition {}: removed ({})", old.number, summary(old, before)))
            }
        }
    }
    unmatched.sort_by_key(|p| p.number);
    for new in unmatched {
        lines.push(format!("partition {}: added ({})", new.number, summary(new, after)));
    }
    lines
}

fn same_place(a: &Partition, b: &Partition) -> bool {
    a.start == b.start && a.is_extended() == b.is_extended()
}

/// The same partition at another place: its id, or its size and type.
fn similar(a: &Partition, b: &Partition) -> bool {
    match (a.uuid, b.uuid) {
        (Some(x), Some(y)) => x == y,
        _ => a.sectors == b.sectors && a.kind == b.kind,
    }
}

fn summary(p: &Partition, table: &Table) -> String {
    let name = if p.name.is_empty() { String::new() } else { format!(", '{}'", p.name) };
    format!(
        "sectors {} to {}, {}, {}{name}",
        p.start,
        p.end(),
        human_size(p.length_bytes(table.sector_size)),
        p.kind.name()
    )
}

fn change(old: &Partition, new: &Partition, table: &Table) -> Option<String> {
    let kind = |p: &Partition| format!("{} ({})", p.kind.name(), p.kind);
    let mut parts = Vec::new();
    let mut part = |what: &str, a: String, b: String| {
        if a != b {
            parts.push(format!("{what} {a} → {b}"));
        }
    };
    part("number", old.number.to_string(), new.number.to_string());
    part("start", old.start.to_string(), new.start.to_string());
    let size = |p: &Partition| human_size(p.length_bytes(table.sector_size));
    if old.sectors != new.sectors {
        part(
            "sectors",
            format!("{} ({})", old.sectors, size(old)),
            format!("{} ({})", new.sectors, size(new)),
        );
    }
    part("type", kind(old), kind(new));
    part("name", format!("'{}'", old.name), format!("'{}'", new.name));
    let uuid = |p: &Partition| p.uuid.map_or_else(|| "none".to_string(), |u| u.to_string());
    part("id", uuid(old), uuid(new));
    part("bootable", old.boots().to_string(), new.boots().to_string());
    part("attributes", format!("0x{:x}", old.attributes), format!("0x{:x}", new.attributes));
    (!parts.is_empty()).then(|| format!("partition {}: {}", new.number, parts.join(", ")))
}
