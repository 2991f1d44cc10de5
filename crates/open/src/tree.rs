//! Option trees as flat tables: `file.filename` names a value two levels down.

use std::collections::BTreeMap;

use disksmith_disk::{Error, Kind, Result};
use disksmith_formats::Options;
use serde_json::{Map, Value};

/// Deepest nesting of a `json:` tree.
const MAX_DEPTH: usize = 32;

/// Values by dotted name, each as it was given: text, number or flag.
pub(crate) type Tree = BTreeMap<String, Value>;

/// Reads the text behind `json:`. Strings may stand in single quotes.
pub(crate) fn parse_json(text: &str) -> Result<Tree> {
    let attempt = |what: &str| invalid(format!("Could not parse the JSON options: {what}"));
    let value: Value = serde_json::from_str(&double_quoted(text)).map_err(|error| {
        attempt(match error.is_eof() {
            true => "JSON parse error, premature EOI",
            false => "JSON parse error, expecting value",
        })
    })?;
    if !value.is_object() {
        return Err(invalid("Invalid JSON object given".into()));
    }
    let mut tree = Tree::new();
    flatten(value, String::new(), 0, &mut tree)?;
    Ok(tree)
}

/// The tree of `--image-opts`: all values are text.
pub(crate) fn from_options(options: &Options) -> Tree {
    options.iter().map(|(name, value)| (name.to_string(), Value::from(value))).collect()
}

/// Takes everything below `prefix` (which ends with a dot) out of a tree.
pub(crate) fn subtree(tree: &mut Tree, prefix: &str) -> Tree {
    let names: Vec<_> = tree.keys().filter(|name| name.starts_with(prefix)).cloned().collect();
    names
        .into_iter()
        .filter_map(|name| Some((name[prefix.len()..].to_string(), tree.remove(&name)?)))
        .collect()
}

/// A value as options spell it.
pub(crate) fn spelled(value: &Value) -> String {
    match value {
        Value::Bool(flag) => if *flag { "on" } else { "off" }.into(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Takes a value out of a tree, as text.
pub(crate) fn take(tree: &mut Tree, name: &str) -> Option<String> {
    tree.remove(name).map(|value| spelled(&value))
}

/// The remaining values as options.
pub(crate) fn options(tree: &Tree) -> Options {
    let mut options = Options::new();
    for (name, value) in tree {
        options.set(name, spelled(value));
    }
    options
}

/// One line of JSON, the fields of objects in the order in which QEMU prints them.
pub(crate) fn one_line(value: &Value) -> String {
    match value {
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_by_key(|(name, _)| bucket(name));
            let fields = fields.into_iter();
            let fields: Vec<_> = fields
                .map(|(n, v)| format!("{}: {}", Value::from(n.as_str()), one_line(v)))
                .collect();
            format!("{{{}}}", fields.join(", "))
        }
        Value::Array(values) => {
            let values: Vec<_> = values.iter().map(one_line).collect();
            format!("[{}]", values.join(", "))
        }
        other => other.to_string(),
    }
}

/// An object of these fields.
pub(crate) fn object(fields: impl IntoIterator<Item = (String, Value)>) -> Value {
    Value::Object(fields.into_iter().collect::<Map<_, _>>())
}

/// QEMU prints fields in the order of its hash table of 512 buckets; scripts compare the text.
fn bucket(name: &str) -> u32 {
    let start = 0x238f_13af_u32.wrapping_mul(name.len() as u32);
    let sum = name.bytes().enumerate().fold(start, |sum, (index, byte)| {
        sum.wrapping_add(u32::from(byte) << (index as u32 * 5 % 24))
    });
    sum.wrapping_mul(1_103_515_243).wrapping_add(12_345) % 512
}

/// JSON for a parser that knows double quotes only.
fn double_quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let (mut quote, mut escaped) = (None, false);
    for letter in text.chars() {
        match (quote, letter) {
            (Some(_), _) if escaped => {
                escaped = false;
                // An escaped single quote is no escape in JSON.
                if letter == '\'' {
                    out.pop();
                }
                out.push(letter);
            }
            (Some(_), '\\') => {
                escaped = true;
                out.push(letter);
            }
            (Some(open), _) if letter == open => {
                quote = None;
                out.push('"');
            }
            (Some('\''), '"') => out.push_str("\\\""),
            (None, '\'' | '"') => {
                quote = Some(letter);
                out.push('"');
            }
            _ => out.push(letter),
        }
    }
    out
}

fn flatten(value: Value, path: String, depth: usize, out: &mut Tree) -> Result<()> {
    if depth > MAX_DEPTH {
        return Err(invalid("The JSON options are nested too deeply".into()));
    }
    let below = |name: &str| match path.is_empty() {
        true => name.to_string(),
        false => format!("{path}.{name}"),
    };
    match value {
        Value::Object(map) => {
            for (name, value) in map {
                flatten(value, below(&name), depth + 1, out)?;
            }
        }
        Value::Array(list) => {
            for (index, value) in list.into_iter().enumerate() {
                flatten(value, below(&index.to_string()), depth + 1, out)?;
            }
        }
        plain => drop(out.insert(path, plain)),
    }
    Ok(())
}

fn invalid(text: String) -> Error {
    Error::new(Kind::InvalidInput, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_of_both_kinds() {
        let tree = parse_json(r#"{'a': "it's", 'b': 'say "x"', "c": {'d': [1, true]}}"#).unwrap();
        let pairs: Vec<_> = tree.iter().map(|(n, v)| (n.as_str(), spelled(v))).collect();
        let expected = [("a", "it's"), ("b", "say \"x\""), ("c.d.0", "1"), ("c.d.1", "on")];
        assert_eq!(pairs, expected.map(|(n, v)| (n, v.to_string())));
        assert!(parse_json("[]").is_err() && parse_json("{'a'").is_err());
    }

    #[test]
    fn fields_come_in_qemus_order() {
        let value = parse_json("{'file':'f','size':1,'driver':'raw','offset':2}").unwrap();
        let line = one_line(&object(value));
        assert_eq!(line, r#"{"offset": 2, "driver": "raw", "size": 1, "file": "f"}"#);
    }
}
