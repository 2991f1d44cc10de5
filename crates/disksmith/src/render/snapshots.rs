//! The table of internal snapshots.

use disksmith_disk::human_size;
use disksmith_formats::Snapshot;
use serde_json::{Map, Value, json};

/// The heading, the column names and one line per snapshot; nothing if there are none.
pub(crate) fn table(snapshots: &[Snapshot]) -> impl Iterator<Item = String> {
    let names = || line(&["ID", "TAG", "VM_SIZE", "DATE", "VM_CLOCK", "ICOUNT"]);
    let heading = (!snapshots.is_empty()).then(|| ["Snapshot list:".to_string(), names()]);
    heading.into_iter().flatten().chain(snapshots.iter().map(row))
}

fn row(snapshot: &Snapshot) -> String {
    line(&[
        &snapshot.id,
        &snapshot.name,
        &human_size(snapshot.vm_state_size),
        &local_time(snapshot.date_seconds),
        &clock(snapshot.vm_clock_nanoseconds),
        &snapshot.instruction_count.map_or("--".to_string(), |count| count.to_string()),
    ])
}

/// One as JSON, with qemu-img's keys in its order.
pub(crate) fn value(snapshot: &Snapshot) -> Value {
    let mut map = Map::new();
    if let Some(count) = snapshot.instruction_count {
        map.insert("icount".into(), json!(count));
    }
    map.insert("vm-clock-nsec".into(), json!(snapshot.vm_clock_nanoseconds % 1_000_000_000));
    map.insert("name".into(), json!(snapshot.name));
    map.insert("date-sec".into(), json!(snapshot.date_seconds));
    map.insert("date-nsec".into(), json!(snapshot.date_nanoseconds));
    map.insert("vm-clock-sec".into(), json!(snapshot.vm_clock_nanoseconds / 1_000_000_000));
    map.insert("id".into(), json!(snapshot.id));
    map.insert("vm-state-size".into(), json!(snapshot.vm_state_size));
    Value::Object(map)
}

fn line(columns: &[&str; 6]) -> String {
    let [id, tag, size, date, clock, icount] = columns;
    format!("{id:<7} {tag:<16} {size:>8} {date:>19} {clock:>15} {icount:>10}")
}

fn clock(nanoseconds: u64) -> String {
    let seconds = nanoseconds / 1_000_000_000;
    format!(
        "{:04}:{:02}:{:02}.{:03}",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60,
        nanoseconds / 1_000_000 % 1000
    )
}

fn local_time(seconds: u32) -> String {
    jiff::Timestamp::from_second(i64::from(seconds))
        .map(|stamp| {
            stamp.to_zoned(jiff::tz::TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string()
        })
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_have_fixed_widths() {
        let snapshot = Snapshot {
            id: "1".into(),
            name: "s1".into(),
            vm_clock_nanoseconds: 3_723_004_000_000,
            ..Snapshot::default()
        };
        let last = table(&[snapshot]).last().unwrap();
        assert!(last.starts_with("1       s1                    0 B "));
        assert!(last.ends_with("  0001:02:03.004         --"));
        assert_eq!(table(&[]).count(), 0);
    }
}
