//! JSON in the layout that qemu-img prints: four blanks per level, empty lists over two lines,
//! everything outside of ASCII escaped.

use serde_json::Value;

/// The value and a newline.
pub(crate) fn pretty(value: &Value) -> String {
    let mut text = String::new();
    write(value, 0, &mut text);
    text.push('\n');
    text
}

fn write(value: &Value, level: usize, text: &mut String) {
    match value {
        Value::Object(map) => {
            text.push('{');
            for (index, (key, value)) in map.iter().enumerate() {
                separate(index, level + 1, text);
                string(key, text);
                text.push_str(": ");
                write(value, level + 1, text);
            }
            separate(0, level, text);
            text.push('}');
        }
        Value::Array(list) => {
            text.push('[');
            for (index, value) in list.iter().enumerate() {
                separate(index, level + 1, text);
                write(value, level + 1, text);
            }
            separate(0, level, text);
            text.push(']');
        }
        Value::String(value) => string(value, text),
        other => text.push_str(&other.to_string()),
    }
}

fn separate(index: usize, level: usize, text: &mut String) {
    text.push_str(if index > 0 { ",\n" } else { "\n" });
    text.push_str(&"    ".repeat(level));
}

fn string(value: &str, text: &mut String) {
    text.push('"');
    for letter in value.chars() {
        match letter {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            '\u{8}' => text.push_str("\\b"),
            '\u{c}' => text.push_str("\\f"),
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            '\t' => text.push_str("\\t"),
            ' '..='~' => text.push(letter),
            // A byte that is no UTF-8 is nothing that JSON can hold.
            other => {
                let other = match disksmith_disk::names::carried(other) {
                    Some(_) => char::REPLACEMENT_CHARACTER,
                    None => other,
                };
                for unit in other.encode_utf16(&mut [0; 2]) {
                    text.push_str(&format!("\\u{unit:04X}"));
                }
            }
        }
    }
    text.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_layout_is_qemus() {
        let value = json!({"a": [], "b": {"c": 1, "d": [true, "x\u{e9}\"\n"]}});
        assert_eq!(
            pretty(&value),
            "{\n    \"a\": [\n    ],\n    \"b\": {\n        \"c\": 1,\n        \"d\": [\n            true,\n            \"x\\u00E9\\\"\\n\"\n        ]\n    }\n}\n"
        );
    }
}
