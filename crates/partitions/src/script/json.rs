//! Reading sfdisk's JSON.

use disksmith_disk::{Error, Kind, Result};
use serde_json::Value;

use super::parse::{amount, trailing_number};
use super::{Amount, Dump, DumpPartition};

pub(super) fn parse(text: &str) -> Result<Dump> {
    let root: Value = serde_json::from_str(text)
        .map_err(|e| Error::new(Kind::InvalidInput, format!("the dump is not valid JSON: {e}")))?;
    let table = root
        .get("partitiontable")
        .ok_or_else(|| Error::new(Kind::InvalidInput, "the JSON has no 'partitiontable'"))?;
    let unit = string(table, "unit").unwrap_or_else(|| "sectors".to_string());
    if unit != "sectors" {
        return Err(Error::new(
            Kind::Unsupported,
            format!("the unit '{unit}' (sectors are known)"),
        ));
    }
    let small = |key| number(table, key).and_then(|n| u32::try_from(n).ok());
    let mut dump = Dump {
        label: string(table, "label"),
        id: string(table, "id"),
        sector_size: small("sectorsize"),
        first_lba: number(table, "firstlba"),
        last_lba: number(table, "lastlba"),
        table_length: small("table-length"),
        ..Dump::default()
    };
    for value in table.get("partitions").and_then(Value::as_array).into_iter().flatten() {
        dump.partitions.push(DumpPartition {
            number: string(value, "node").and_then(|node| trailing_number(&node)),
            start: place(value, "start")?,
            size: place(value, "size")?,
            kind: string(value, "type"),
            uuid: string(value, "uuid"),
            name: string(value, "name").unwrap_or_default(),
            attributes: string(value, "attrs").unwrap_or_default(),
            bootable: value.get("bootable").and_then(Value::as_bool).unwrap_or(false),
        });
    }
    Ok(dump)
}

fn string(value: &Value, key: &str) -> Option<String> {
    value.get(key)?.as_str().map(str::to_string)
}

fn number(value: &Value, key: &str) -> Option<u64> {
    let value = value.get(key)?;
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}

fn place(value: &Value, key: &str) -> Result<Option<Amount>> {
    match value.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => amount(text),
        Some(other) => other.as_u64().map(|n| Some(Amount::Sectors(n))).ok_or_else(|| {
            Error::new(Kind::InvalidInput, format!("{key}: {other} is not a number of sectors"))
        }),
    }
}
