//! `--object secret,id=…`: key material by name.

use std::collections::BTreeMap;
use std::fs;

use disksmith_crypt::Secret;
use disksmith_disk::{Context, Error, Kind, Result};

use crate::parse_options;

/// Longest secret read from a file, in bytes.
const MAX_SECRET: u64 = 1 << 20;

/// Key material by id.
#[derive(Clone, Debug, Default)]
pub struct Secrets {
    by_id: BTreeMap<String, Secret>,
}

impl Secrets {
    /// Adds what the text of one `--object` describes.
    pub fn add(&mut self, object: &str) -> Result<()> {
        let mut options = parse_options(object, Some("qom-type"))?;
        let kind = options.take("qom-type").unwrap_or_default();
        if kind != "secret" {
            return Err(invalid(format!("Invalid parameter '{kind}'")));
        }
        let id = options.take("id").ok_or_else(|| invalid("Parameter 'id' is missing".into()))?;
        let bytes = match (options.take("data"), options.take("file")) {
            (Some(data), None) => data.into_bytes(),
            (None, Some(path)) => read(&path)?,
            _ => return Err(invalid("'file' and 'data' are mutually exclusive".into())),
        };
        let bytes = match options.take("format").as_deref() {
            None | Some("raw") => bytes,
            Some("base64") => decode_base64(&bytes)
                .ok_or_else(|| invalid(format!("Base64 data of secret '{id}' is not valid")))?,
            Some(other) => {
                return Err(invalid(format!("Parameter 'format' does not accept value '{other}'")));
            }
        };
        self.by_id.insert(id, Secret::new(bytes));
        Ok(())
    }

    /// Adds one by itself.
    pub fn insert(&mut self, id: impl Into<String>, secret: Secret) {
        self.by_id.insert(id.into(), secret);
    }

    /// The secret of that id.
    pub fn get(&self, id: &str) -> Result<&Secret> {
        self.by_id.get(id).ok_or_else(|| invalid(format!("No secret with id '{id}'")))
    }
}

fn read(path: &str) -> Result<Vec<u8>> {
    use std::io::Read;
    let mut bytes = Vec::new();
    fs::File::open(path)
        .and_then(|file| file.take(MAX_SECRET).read_to_end(&mut bytes))
        .with_context(|| format!("Unable to read {path}"))?;
    Ok(bytes)
}

fn decode_base64(text: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut count) = (0u32, 0u32);
    for letter in text.iter().filter(|c| !c.is_ascii_whitespace() && **c != b'=') {
        let value = match letter {
            b'A'..=b'Z' => letter - b'A',
            b'a'..=b'z' => letter - b'a' + 26,
            b'0'..=b'9' => letter - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
            bits &= (1 << count) - 1;
        }
    }
    Some(bytes)
}

fn invalid(text: String) -> Error {
    Error::new(Kind::InvalidInput, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_come_from_data_and_base64() {
        let mut secrets = Secrets::default();
        secrets.add("secret,id=s0,data=abc").unwrap();
        secrets.add("secret,id=s1,data=aGVsbG8=,format=base64").unwrap();
        assert_eq!(secrets.get("s0").unwrap().bytes(), b"abc");
        assert_eq!(secrets.get("s1").unwrap().bytes(), b"hello");
        assert!(secrets.get("s2").is_err());
        assert!(secrets.add("tls-creds-x509,id=t").is_err());
    }
}
