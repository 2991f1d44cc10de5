//! What a disk holds, as file(1) and blkid(8) would tell: boot code, partition table, and what
//! is in each partition.

use disksmith_disk::{Disk, Result, Slice, human_size};
use disksmith_partitions::probe::{has_boot_code, has_boot_signature};
use disksmith_partitions::{Content, Label, Role, Table, probe, read};
use serde_json::{Map, Value, json};

use crate::render::info::partition_value;

/// What was found, for people and for programs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Findings {
    /// The first line, and one for each partition.
    pub(crate) lines: Vec<String>,
    /// The same with keys.
    pub(crate) json: Map<String, Value>,
}

/// Looks at a disk. What cannot be read is told as unreadable, it is no error.
pub(crate) fn look(disk: &dyn Disk) -> Findings {
    examine(disk).unwrap_or_else(|error| Findings {
        lines: vec![format!("unreadable: {error}")],
        json: Map::new(),
    })
}

fn examine(disk: &dyn Disk) -> Result<Findings> {
    let mut findings = Findings::default();
    if let Some(content) = probe(disk)? {
        findings.lines.push(words(&content));
        findings.json.insert("content".into(), value(&content));
        return Ok(findings);
    }
    let table = read(disk)?;
    if table.label != Label::None {
        partitions(disk, &table, &mut findings)?;
        return Ok(findings);
    }
    let line = match (has_boot_signature(disk)?, starts_with_zeroes(disk)?) {
        (true, _) => "boot sector",
        (false, true) => "nothing recognised (starts with zeroes)",
        (false, false) => "data",
    };
    findings.lines.push(line.to_string());
    findings.json.insert("content".into(), json!({ "type": line }));
    Ok(findings)
}

fn partitions(disk: &dyn Disk, table: &Table, findings: &mut Findings) -> Result<()> {
    let count = table.partitions.len();
    let boot = if has_boot_code(disk)? { "boot code, " } else { "" };
    let label = if table.label == Label::Gpt { "GPT" } else { "MBR" };
    let plural = if count == 1 { "" } else { "s" };
    findings.lines.push(format!("{boot}{label} partition table, {count} partition{plural}"));
    let sector = u64::from(table.sector_size);
    let mut list = Vec::new();
    for partition in &table.partitions {
        let start = partition.start.saturating_mul(sector);
        let length =
            partition.sectors.saturating_mul(sector).min(disk.size().saturating_sub(start));
        let content = match (partition.role, length) {
            (Role::Extended, _) | (_, 0) => None,
            // What the table claims may lie beyond the disk.
            _ => Slice::new(disk, start, length).ok().and_then(|part| probe(&part).ok().flatten()),
        };
        let name = match partition.name.is_empty() {
            true => String::new(),
            false => format!(" \"{}\"", partition.name),
        };
        let held = content.as_ref().map(words).unwrap_or_else(|| "nothing recognised".into());
        findings.lines.push(format!(
            "partition {}: {}, {}{name}: {held}",
            partition.number,
            human_size(length),
            partition.kind.name()
        ));
        let mut about = partition_value(partition, start, length);
        if let Some(about) = about.as_object_mut() {
            about.insert("content".into(), content.as_ref().map_or(Value::Null, value));
        }
        list.push(about);
    }
    for oddity in &table.oddities {
        findings.lines.push(format!("note: {oddity}"));
    }
    findings.json.insert(
        "partition-table".into(),
        json!({
            "label": table.label.name(),
            "id": table.id.map(|id| id.to_string()),
            "sector-size": table.sector_size,
            "partitions": list,
            "notes": table.oddities.iter().map(ToString::to_string).collect::<Vec<_>>(),
        }),
    );
    Ok(())
}

fn words(content: &Content) -> String {
    let mut text = content.kind.to_string();
    if let Some(version) = &content.version {
        text += &format!(" {version}");
    }
    if let Some(label) = &content.label {
        text += &format!(" \"{label}\"");
    }
    if let Some(size) = content.size {
        text += &format!(", {}", human_size(size));
    }
    if let Some(used) = content.used {
        text += &format!(", {} used", human_size(used));
    }
    if let Some(uuid) = &content.uuid {
        text += &format!(", UUID {uuid}");
    }
    text
}

fn value(content: &Content) -> Value {
    json!({
        "type": content.kind,
        "version": content.version,
        "label": content.label,
        "uuid": content.uuid,
        "size": content.size,
        "used": content.used,
    })
}

fn starts_with_zeroes(disk: &dyn Disk) -> Result<bool> {
    let mut start = vec![0; 65536.min(disk.size()) as usize];
    disk.read_at(&mut start, 0)?;
    Ok(disksmith_disk::is_zero(&start))
}

#[cfg(test)]
mod tests {
    use super::*;
    use disksmith_disk::MemoryDisk;

    #[test]
    fn content_is_recognised() {
        let disk = MemoryDisk::new(8 << 20);
        assert_eq!(look(&disk).lines, ["nothing recognised (starts with zeroes)"]);
        disk.write_at(&[0x55, 0xaa], 510).unwrap();
        disk.write_at(&[0x83, 0, 0, 0, 0, 8, 0, 0, 0, 8, 0, 0], 450).unwrap();
        let found = look(&disk);
        assert!(found.lines[0].contains("partition table, 1 partition"), "{:?}", found.lines);
        assert!(found.lines[1].starts_with("partition 1: 1 MiB, Linux"), "{:?}", found.lines);
        disk.write_at(b"data", 0).unwrap();
        assert!(look(&disk).lines[0].starts_with("boot code"));
    }
}
