//! Writing dumps.

use std::fmt::Write;

use serde_json::{Map, Value, json};

use super::attributes_text;
use crate::render::device_name;
use crate::{Label, Partition, Table};

/// The table as `sfdisk --dump` writes it; `device` is the name of the image.
pub fn dump_script(table: &Table, device: &str) -> String {
    let mut lines = vec![format!("label: {}", table.label.name())];
    lines.extend(table.id.map(|id| format!("label-id: {id}")));
    lines.extend([format!("device: {device}"), "unit: sectors".to_string()]);
    if table.label == Label::Gpt {
        lines.push(format!("first-lba: {}", table.first_usable));
        lines.push(format!("last-lba: {}", table.last_usable));
        if table.capacity != crate::gpt::DEFAULT_ENTRIES {
            lines.push(format!("table-length: {}", table.capacity));
        }
    }
    lines.extend([format!("sector-size: {}", table.sector_size), String::new()]);
    lines.extend(table.partitions.iter().map(|partition| partition_line(partition, device)));
    lines.join("\n") + "\n"
}

fn partition_line(p: &Partition, device: &str) -> String {
    let node = device_name(device, p.number);
    let mut line =
        format!("{node} : start={:>12}, size={:>12}, type={}", p.start, p.sectors, p.kind);
    if let Some(uuid) = p.uuid {
        line += &format!(", uuid={uuid}");
    }
    if !p.name.is_empty() {
        line += &format!(", name=\"{}\"", quoted(&p.name));
    }
    let attributes = attributes_text(p.attributes);
    if !attributes.is_empty() {
        line += &format!(", attrs=\"{attributes}\"");
    }
    if p.bootable {
        line += ", bootable";
    }
    line
}

/// What a shell or sfdisk itself would stumble over is written as `\x22`.
fn quoted(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'"' | b'\\' | b'`' | b'$' | 0..0x20 | 0x7f.. => {
                let _ = write!(text, "\\x{byte:02x}");
            }
            _ => text.push(char::from(byte)),
        }
    }
    text
}

/// The table with the keys of `sfdisk --json`, in its order. Serialise it with indentation for
/// people, or add keys behind.
pub fn dump_json(table: &Table, device: &str) -> Value {
    let mut map = Map::new();
    map.insert("label".into(), json!(table.label.name()));
    if let Some(id) = table.id {
        map.insert("id".into(), json!(id.to_string()));
    }
    map.insert("device".into(), json!(device));
    map.insert("unit".into(), json!("sectors"));
    if table.label == Label::Gpt {
        map.insert("firstlba".into(), json!(table.first_usable));
        map.insert("lastlba".into(), json!(table.last_usable));
        if table.capacity != crate::gpt::DEFAULT_ENTRIES {
            map.insert("table-length".into(), json!(table.capacity));
        }
    }
    map.insert("sectorsize".into(), json!(table.sector_size));
    if !table.partitions.is_empty() {
        let partitions: Vec<Value> =
            table.partitions.iter().map(|p| partition(p, device)).collect();
        map.insert("partitions".into(), Value::Array(partitions));
    }
    json!({ "partitiontable": map })
}

fn partition(p: &Partition, device: &str) -> Value {
    let mut map = Map::new();
    map.insert("node".into(), json!(device_name(device, p.number)));
    map.insert("start".into(), json!(p.start));
    map.insert("size".into(), json!(p.sectors));
    map.insert("type".into(), json!(p.kind.to_string()));
    if let Some(uuid) = p.uuid {
        map.insert("uuid".into(), json!(uuid.to_string()));
    }
    if !p.name.is_empty() {
        map.insert("name".into(), json!(p.name));
    }
    let attributes = attributes_text(p.attributes);
    if !attributes.is_empty() {
        map.insert("attrs".into(), json!(attributes));
    }
    if p.bootable {
        map.insert("bootable".into(), json!(true));
    }
    Value::Object(map)
}
