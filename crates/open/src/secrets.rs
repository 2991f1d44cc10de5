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
    implied: bool,
}

impl Secrets {
    /// Adds what the text of one `--object` describes.
    pub fn add(&mut self, object: &str) -> Result<()> {
        let mut options = parse_options(object, Some("qom-type"))?;
        match options.take("qom-type").as_deref() {
            Some("secret") => {}
            None | Some("") => return Err(invalid("Parameter 'qom-type' is missing".into())),
            Some(kind) => {
                let text = format!("Parameter 'qom-type' does not accept value '{kind}'");
                return Err(invalid(text));
            }
        }
        let id = options.take("id").ok_or_else(|| invalid("Parameter 'id' is missing".into()))?;
        let bytes = match (options.take("data"), options.take("file")) {
            (Some(data), None) => data.into_bytes(),
            (None, Some(path)) => read(&path)?,
            (None, None) => {
                return Err(invalid("Either 'file' or 'data' must be provided".into()));
            }
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
        if self.by_id.contains_key(&id) {
            return Err(invalid(format!(
                "attempt to add duplicate property '{id}' to object (type 'container')"
            )));
        }
        self.by_id.insert(id, Secret::new(bytes));
        Ok(())
    }

    /// Adds one by itself.
    pub fn insert(&mut self, id: impl Into<String>, secret: Secret) {
        self.by_id.insert(id.into(), secret);
    }

    /// Lets the only secret be that of an image for which none is named. QEMU wants it named.
    pub fn imply(&mut self) {
        self.implied = true;
    }

    /// The secret of an image for which none is named.
    pub fn implied(&self) -> Option<&Secret> {
        let (id, _) = self.by_id.first_key_value().filter(|_| self.by_id.len() == 1)?;
        self.get(id).ok().filter(|_| self.implied)
    }

    /// The secret of that id.
    pub fn get(&self, id: &str) -> Result<&Secret> {
        let secret = self.by_id.get(id);
        let secret = secret.ok_or_else(|| invalid(format!("No secret with id '{id}'")))?;
        match std::str::from_utf8(secret.bytes()) {
            Ok(_) => Ok(secret),
            Err(_) => Err(invalid(format!("Data from secret {id} is not valid UTF-8"))),
        }
    }
}

fn read(path: &str) -> Result<Vec<u8>> {
    use std::io::Read;
    let mut bytes = Vec::new();
    let file = fs::File::open(path)
        .with_context(|| format!("Unable to read {path}: Failed to open file “{path}”"))?;
    file.take(MAX_SECRET)
        .read_to_end(&mut bytes)
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
