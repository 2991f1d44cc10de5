//! `partition IMAGE` and `verify`: the table, for people and for programs.

use std::io::IsTerminal;

use disksmith_disk::{Disk, Result};
use disksmith_partitions::{
    Content, Label, Oddity, Severity, Table, dump_json, free_space, probe, render,
};
use serde_json::{Value, json};

use super::PartitionVerb;
use crate::face::{DONE, FAILED, Face, Failure};
use crate::render::json::pretty;

/// Free regions below this are what alignment leaves over; the listing leaves them out.
const SMALL: u64 = 1 << 20;
/// A bar is at most so wide.
const WIDEST_BAR: usize = 120;

impl PartitionVerb {
    /// Prints the table.
    pub(super) fn print(&self, face: &Face, disk: &dyn Disk, table: &Table) -> Result<()> {
        if self.cylinders {
            face.print(&render::cylinders(table, &self.image));
        } else {
            face.print(&self.overview(table));
        }
        if table.label == Label::None
            && let Some(content) = probe(disk)?
        {
            face.print(&format!("It holds {} as a whole.\n", content.kind));
        }
        for odd in table.oddities.iter().filter(|odd| odd.severity() != Severity::Note) {
            face.warn(&odd.to_string());
        }
        Ok(())
    }

    /// The table, the free space and, where somebody looks on, a bar.
    fn overview(&self, table: &Table) -> String {
        let mut text = render::fdisk(table, &self.image);
        if table.label == Label::None {
            text.push_str("\nThe disk has no partition table.\n");
            return text;
        }
        text.push('\n');
        let least = (SMALL / u64::from(table.sector_size)).max(1);
        text.push_str(&render::free(table, &self.image, least));
        if std::io::stdout().is_terminal() {
            text.push_str(&format!("\n{}\n", render::bar(table, terminal_width())));
        }
        text
    }

    /// sfdisk's keys; ours behind them.
    pub(super) fn as_json(&self, disk: &dyn Disk, table: &Table) -> Result<Value, Failure> {
        let mut root = dump_json(table, &self.image);
        let list = root.pointer_mut("/partitiontable/partitions").and_then(Value::as_array_mut);
        for (value, partition) in list.into_iter().flatten().zip(&table.partitions) {
            let content = match table.slice(disk, partition.number) {
                Ok(slice) if !partition.is_extended() => probe(&slice)?,
                _ => None,
            };
            if let (Some(content), Some(map)) = (content, value.as_object_mut()) {
                map.insert("content".into(), content_json(&content));
            }
        }
        if let Some(map) = root.get_mut("partitiontable").and_then(Value::as_object_mut) {
            let free: Vec<Value> = free_space(table)
                .iter()
                .map(|r| json!({"start": r.start, "size": r.sectors, "logical": r.logical}))
                .collect();
            map.insert("free".into(), Value::Array(free));
            map.insert("oddities".into(), oddities_json(table));
        }
        Ok(root)
    }

    /// Tells what is wrong with it; the exit status says whether something is.
    pub(super) fn verify(&self, face: &Face, table: &Table, json: bool) -> u8 {
        let worst = table.oddities.iter().map(|odd| odd.severity()).max();
        if json {
            face.print(&pretty(
                &json!({"label": table.label.name(), "oddities": oddities_json(table)}),
            ));
        } else if table.label == Label::None {
            face.print("The disk has no partition table.\n");
        } else {
            for odd in &table.oddities {
                face.print(&format!("{}: {odd}\n", severity(odd.severity())));
            }
            let verdict = match worst {
                None => "No problems found.".to_string(),
                Some(Severity::Note) => "No problems found but what is noted above.".to_string(),
                Some(_) => format!(
                    "Mend what can be mended with: {} partition {} repair",
                    face.program, self.image
                ),
            };
            face.print(&format!("{verdict}\n"));
        }
        if worst == Some(Severity::Error) { FAILED } else { DONE }
    }
}

fn severity(severity: Severity) -> &'static str {
    match severity {
        Severity::Note => "note",
        Severity::Warning => "warning",
        Severity::Error => "error",
    }
}

fn oddities_json(table: &Table) -> Value {
    let one = |odd: &Oddity| {
        json!({
            "name": odd.kind.name(),
            "severity": severity(odd.severity()),
            "partition": odd.partition,
            "detail": odd.detail,
        })
    };
    Value::Array(table.oddities.iter().map(one).collect())
}

fn content_json(content: &Content) -> Value {
    let fields = [
        ("type", Some(json!(content.kind))),
        ("version", content.version.as_ref().map(|v| json!(v))),
        ("label", content.label.as_ref().map(|v| json!(v))),
        ("uuid", content.uuid.as_ref().map(|v| json!(v))),
        ("size", content.size.map(|v| json!(v))),
        ("used", content.used.map(|v| json!(v))),
    ];
    fields.into_iter().filter_map(|(key, value)| Some((key.to_string(), value?))).collect()
}

fn terminal_width() -> usize {
    let asked = std::env::var("COLUMNS").ok().and_then(|text| text.parse().ok());
    let told =
        || rustix::termios::tcgetwinsize(std::io::stdout()).ok().map(|s| usize::from(s.ws_col));
    asked.or_else(told).filter(|width| *width > 0).unwrap_or(80).min(WIDEST_BAR)
}
