//! Writing dumps.

use std::fmt::Write;

use serde_json::{Map, Value, json};

use super::attributes_text;
use crate::render::device_name;
use crate::{Label, Partition, Table};

/// The table as `sfdisk --dump` writes it; `device` is the name of the image.
pub fn dump_script(table: &Table, device: &str) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = script(&mut text, table, device);
    text
}

fn script(text: &mut String, table: &Table, device: &str) -> std::fmt::Result {
    writeln!(text, "label: {}", table.label.name())?;
    if let Some(id) = table.id {
        writeln!(text, "label-id: {id}")?;
    }
    writeln!(text, "device: {device}")?;
    writeln!(text, "unit: sectors")?;
    if table.label == Label::Gpt {
        writeln!(text, "first-lba: {}", table.first_usable)?;
        writeln!(text, "last-lba: {}", table.last_usable)?;
        if table.capacity != crate::gpt::DEFAULT_ENTRIES {
            writeln!(text, "table-length: {}", table.capacity)?;
        }
    }
    writeln!(text, "sector-size: {}\n", table.sector_size)?;
    for p in &table.partitions {
        let node = device_name(device, p.number);
        write!(text, "{node} : start={:>12}, size={:>12}, type={}", p.start, p.sectors, p.kind)?;
        if let Some(uuid) = p.uuid {
            write!(text, ", uuid={uuid}")?;
        }
        if !p.name.is_empty() {
            write!(text, ", name=\"{}\"", quoted(&p.name))?;
        }
        let attributes = attributes_text(p.attributes);
        if !attributes.is_empty() {
            write!(text, ", attrs=\"{attributes}\"")?;
        }
        if p.bootable {
            write!(text, ", bootable")?;
        }
        writeln!(text)?;
    }
    Ok(())
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
