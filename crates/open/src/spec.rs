//! What the user asked to be opened, as a tree: image format over file, with options.

use std::collections::BTreeMap;
use std::path::PathBuf;

use disksmith_disk::{Error, Kind, Result};
use disksmith_formats::Options;
use serde_json::Value;

use crate::{Name, parse_options};

/// Deepest nesting of a `json:` tree.
const MAX_DEPTH: usize = 32;
/// Options that make the same file another disk: a name without them would lead elsewhere.
const CHANGES_CONTENT: [&str; 2] = ["offset", "size"];

/// Where the bytes of an image come from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum FileSpec {
    /// A file or block device.
    Path(PathBuf),
    /// Another protocol with its options (`driver` among them).
    Other(Options),
}

/// What is to lie under an image.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum BackingSpec {
    /// What the image names.
    #[default]
    AsNamed,
    /// Nothing, whatever the image names.
    Nothing,
    /// This instead.
    Instead(Box<ImageSpec>),
}

/// An image as the user named it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ImageSpec {
    /// As given, for messages.
    pub shown: String,
    /// The format; `None` = to be probed.
    pub format: Option<String>,
    /// Where its bytes are.
    pub file: FileSpec,
    /// Runtime options of the format, nested names dotted (`encrypt.key-secret`).
    pub options: Options,
    /// What lies under it.
    pub backing: BackingSpec,
    /// An external data file instead of the one that the image names.
    pub data_file: Option<Box<ImageSpec>>,
    /// Opened by name (and not by an option tree).
    pub by_name: bool,
}

impl ImageSpec {
    /// From a file operand: a path, `json:{…}` or a protocol name.
    pub fn from_name(name: &str, format: Option<&str>) -> Result<Self> {
        match Name::parse(name) {
            Name::Path(path) => Ok(Self::from_path(path, name, format)),
            Name::Json(text) => {
                let value: Value = serde_json::from_str(&text.replace('\'', "\""))
                    .map_err(|e| invalid(format!("Could not parse the JSON options: {e}")))?;
                let mut flat = BTreeMap::new();
                flatten(&value, String::new(), 0, &mut flat)?;
                let mut spec = Self::from_flat(flat, name)?;
                if let Some(format) = format {
                    spec.format.get_or_insert_with(|| format.to_string());
                }
                Ok(spec)
            }
            Name::Protocol(protocol, whole) => {
                let mut options = Options::new();
                options.set("driver", protocol);
                options.set("filename", whole);
                Ok(Self {
                    file: FileSpec::Other(options),
                    ..Self::from_path(PathBuf::new(), name, format)
                })
            }
        }
    }

    /// From a plain path.
    pub fn from_path(path: impl Into<PathBuf>, shown: &str, format: Option<&str>) -> Self {
        Self {
            shown: shown.to_string(),
            format: format.map(str::to_string),
            file: FileSpec::Path(path.into()),
            options: Options::new(),
            backing: BackingSpec::AsNamed,
            data_file: None,
            by_name: true,
        }
    }

    /// From an `--image-opts` operand: `driver=qcow2,file.filename=a.qcow2`.
    pub fn from_image_opts(text: &str) -> Result<Self> {
        let options = parse_options(text, Some("file"))?;
        let flat = options.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect();
        Self::from_flat(flat, text)
    }

    /// The path of its file, if it is one.
    pub fn path(&self) -> Option<&std::path::Path> {
        match &self.file {
            FileSpec::Path(path) => Some(path),
            FileSpec::Other(_) => None,
        }
    }

    /// Whether the path alone says how to open it.
    pub fn is_plain(&self) -> bool {
        self.path().is_some()
            && self.data_file.is_none()
            && self.backing == BackingSpec::AsNamed
            && !self.options.iter().any(|(name, _)| CHANGES_CONTENT.contains(&name))
    }

    /// The tree as `json:{…}`; `format` is what the image turned out to be.
    pub fn as_json(&self, format: &str) -> String {
        format!("json:{}", self.tree(format))
    }

    fn tree(&self, format: &str) -> String {
        let mut fields = Vec::new();
        for (name, value) in self.options.iter() {
            fields.push(format!("{}: {}", Value::from(name), Value::from(value)));
        }
        match &self.backing {
            BackingSpec::AsNamed => {}
            BackingSpec::Nothing => fields.push("\"backing\": null".to_string()),
            BackingSpec::Instead(spec) => {
                let format = spec.format.as_deref().unwrap_or("raw");
                fields.push(format!("\"backing\": {}", spec.tree(format)));
            }
        }
        fields.push(format!("\"driver\": {}", Value::from(format)));
        let file = match &self.file {
            FileSpec::Path(path) => format!(
                "{{\"driver\": \"file\", \"filename\": {}}}",
                Value::from(path.to_string_lossy().into_owned())
            ),
            FileSpec::Other(options) => {
                let pairs = options.iter();
                let pairs: Vec<_> =
                    pairs.map(|(n, v)| format!("{}: {}", Value::from(n), Value::from(v))).collect();
                format!("{{{}}}", pairs.join(", "))
            }
        };
        fields.push(format!("\"file\": {file}"));
        format!("{{{}}}", fields.join(", "))
    }

    fn from_flat(mut flat: BTreeMap<String, String>, shown: &str) -> Result<Self> {
        let driver = flat.remove("driver");
        let backing = match (flat.remove("backing"), subtree(&mut flat, "backing.")) {
            (Some(text), _) if text.is_empty() || text == "null" => BackingSpec::Nothing,
            (_, tree) if !tree.is_empty() => {
                BackingSpec::Instead(Box::new(Self::from_flat(tree, shown)?))
            }
            (Some(name), _) => {
                return Err(invalid(format!("Cannot find device='{name}' nor node-name='{name}'")));
            }
            _ => BackingSpec::AsNamed,
        };
        let data_file = match subtree(&mut flat, "data-file.") {
            tree if tree.is_empty() => None,
            tree => Some(Box::new(Self::from_flat(tree, shown)?)),
        };
        let (file, format) = Self::file_of(driver, &mut flat)?;
        let mut options = Options::new();
        for (name, value) in flat {
            options.set(&name, value);
        }
        Ok(Self {
            shown: shown.to_string(),
            format,
            file,
            options,
            backing,
            data_file,
            by_name: false,
        })
    }

    fn file_of(
        driver: Option<String>,
        flat: &mut BTreeMap<String, String>,
    ) -> Result<(FileSpec, Option<String>)> {
        let is_file = |name: &str| matches!(name, "file" | "host_device" | "host_cdrom");
        if let Some(name) = flat.remove("filename") {
            // A protocol node used as an image by itself: raw bytes.
            return match driver.as_deref() {
                None => Ok((Self::from_name(&name, None)?.file, None)),
                Some(driver) if is_file(driver) => {
                    Ok((FileSpec::Path(name.into()), Some("raw".into())))
                }
                Some(driver) => {
                    let mut options = Options::new();
                    options.set("driver", driver);
                    options.set("filename", name);
                    Ok((FileSpec::Other(options), Some("raw".into())))
                }
            };
        }
        let mut file = subtree(flat, "file.");
        let file_driver = file.remove("driver");
        if file.is_empty() && file_driver.is_none() {
            let text = flat.remove("file");
            return Err(match (text, driver) {
                (Some(name), _) => {
                    invalid(format!("Cannot find device='{name}' nor node-name='{name}'"))
                }
                (None, Some(_)) => invalid("A block device must be specified for \"file\"".into()),
                (None, None) => invalid("Must specify either driver or file".into()),
            });
        }
        match (file_driver.as_deref(), file.remove("filename")) {
            (None, Some(name)) => Ok((Self::from_name(&name, None)?.file, driver)),
            (Some(kind), Some(name)) if is_file(kind) => Ok((FileSpec::Path(name.into()), driver)),
            (kind, name) => {
                let mut options = Options::new();
                if let Some(kind) = kind {
                    options.set("driver", kind);
                }
                if let Some(name) = name {
                    options.set("filename", name);
                }
                for (name, value) in file {
                    options.set(&name, value);
                }
                Ok((FileSpec::Other(options), driver))
            }
        }
    }
}

fn subtree(flat: &mut BTreeMap<String, String>, prefix: &str) -> BTreeMap<String, String> {
    let names: Vec<_> = flat.keys().filter(|name| name.starts_with(prefix)).cloned().collect();
    names
        .into_iter()
        .filter_map(|name| Some((name[prefix.len()..].to_string(), flat.remove(&name)?)))
        .collect()
}

fn flatten(
    value: &Value,
    path: String,
    depth: usize,
    out: &mut BTreeMap<String, String>,
) -> Result<()> {
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
                flatten(value, below(name), depth + 1, out)?;
            }
        }
        Value::Array(list) => {
            for (index, value) in list.iter().enumerate() {
                flatten(value, below(&index.to_string()), depth + 1, out)?;
            }
        }
        Value::Bool(flag) => drop(out.insert(path, if *flag { "on" } else { "off" }.into())),
        Value::Null => drop(out.insert(path, "null".into())),
        Value::String(text) => drop(out.insert(path, text.clone())),
        Value::Number(number) => drop(out.insert(path, number.to_string())),
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
    fn trees_and_option_strings_mean_the_same() {
        let a = ImageSpec::from_image_opts("driver=qcow2,file.filename=a.q,encrypt.key-secret=s")
            .unwrap();
        let b = ImageSpec::from_name(
            "json:{'driver':'qcow2','file':{'driver':'file','filename':'a.q'},'encrypt':{'key-secret':'s'}}",
            None,
        )
        .unwrap();
        assert_eq!((&a.format, &a.file, &a.options), (&b.format, &b.file, &b.options));
        assert_eq!(a.path().unwrap().to_str(), Some("a.q"));
        assert!(ImageSpec::from_image_opts("driver=qcow2").is_err());
    }
}
