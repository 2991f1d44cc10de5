//! What the user asked to be opened, as a tree: image format over file, with options.

use std::path::{Path, PathBuf};

use disksmith_disk::{Error, Kind, Result, names};
use disksmith_formats::{Options, driver};
use serde_json::Value;

use crate::quorum::CHILDREN_MOST;
use crate::storage::{self, is_file, is_storage};
use crate::tree::{self, Tree, subtree, take};
use crate::{Name, parse_options};

/// Where the bytes of an image come from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum FileSpec {
    /// A file or block device.
    Path(PathBuf),
    /// What another image shows.
    Image(Box<ImageSpec>),
    /// Storage of another kind.
    Other(StorageSpec),
}

/// Storage that is no file: what drives it, and its options.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct StorageSpec {
    /// The driver with QEMU's name: `null-co`, `blkdebug` …
    pub driver: String,
    /// Its options, nested names dotted.
    pub options: Options,
    /// What it stands on, if it is a filter.
    pub image: Option<Box<ImageSpec>>,
    /// The copies, if it is made of several.
    pub children: Vec<FileSpec>,
    given: Tree,
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
    /// The storage itself was named as the image (`driver=file`): its bytes, and no format.
    pub bare: bool,
    given: Tree,
}

impl ImageSpec {
    /// From a file operand: a path, `json:{…}` or a protocol name.
    pub fn from_name(name: &str, format: Option<&str>) -> Result<Self> {
        match Name::parse(name) {
            Name::Path(path) => Ok(Self::from_path(path, name, format)),
            Name::Json(text) => {
                let mut spec = Self::from_tree(tree::parse_json(&text)?, name)?;
                if let Some(format) = format {
                    spec.format.get_or_insert_with(|| format.to_string());
                }
                Ok(spec)
            }
            Name::Protocol(protocol, whole) => {
                let tree = storage::named(&protocol, &whole)?;
                let file = FileSpec::Other(StorageSpec::from_tree(tree, name)?);
                Ok(Self { file, ..Self::from_path(PathBuf::new(), name, format) })
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
            bare: false,
            given: Tree::new(),
        }
    }

    /// From an `--image-opts` operand: `driver=qcow2,file.filename=a.qcow2`.
    pub fn from_image_opts(text: &str) -> Result<Self> {
        let options = parse_options(text, Some("file"))?;
        Self::from_tree(tree::from_options(&options), text)
    }

    /// The path of its file, if it is one.
    pub fn path(&self) -> Option<&Path> {
        match &self.file {
            FileSpec::Path(path) => Some(path),
            FileSpec::Image(_) | FileSpec::Other(_) => None,
        }
    }

    /// The name that alone says how to open it, if there is one.
    pub fn exact_name(&self) -> Option<String> {
        let more = self.backing != BackingSpec::AsNamed
            || self.options.iter().any(|(name, _)| changes_content(name));
        match &self.file {
            _ if more => None,
            // Stdin is read by way of a name that means nothing to others.
            FileSpec::Path(_) if self.shown == "-" => Some(self.shown.clone()),
            FileSpec::Path(path) => Some(names::of_path(path)),
            FileSpec::Other(spec) => storage::exact_name(spec),
            FileSpec::Image(_) => None,
        }
    }

    /// The tree as `json:{…}`; `format` is what the image turned out to be.
    pub fn as_json(&self, format: &str) -> String {
        format!("json:{}", tree::one_line(&self.tree(format)))
    }

    fn tree(&self, format: &str) -> Value {
        if self.bare {
            return self.file.tree();
        }
        let mut fields: Vec<(String, Value)> = Vec::new();
        for (name, text) in self.options.iter().filter(|(name, _)| changes_content(name)) {
            let value = self.given.get(name).cloned().unwrap_or_else(|| Value::from(text));
            fields.push((name.to_string(), value));
        }
        match &self.backing {
            BackingSpec::AsNamed => {}
            BackingSpec::Nothing => fields.push(("backing".into(), Value::Null)),
            BackingSpec::Instead(spec) => {
                let format = spec.format.as_deref().unwrap_or("raw");
                fields.push(("backing".into(), spec.tree(format)));
            }
        }
        if let Some(data) = &self.data_file {
            fields.push(("data-file".into(), data.file.tree()));
        }
        fields.push(("driver".into(), Value::from(format)));
        fields.push(("file".into(), self.file.tree()));
        tree::object(fields)
    }

    fn from_tree(mut given: Tree, shown: &str) -> Result<Self> {
        let named = given.get("driver").map(tree::spelled);
        if let Some(name) = named.as_deref() {
            if is_file(name) || is_storage(name) {
                let file = FileSpec::from_tree(given, shown)?;
                let plain = Self::from_path(PathBuf::new(), shown, Some("raw"));
                return Ok(Self { file, by_name: false, bare: true, ..plain });
            }
            if driver(name).is_none() {
                return Err(invalid(format!("Unknown driver '{name}'")));
            }
        }
        given.remove("driver");
        let backing = match (take(&mut given, "backing"), subtree(&mut given, "backing.")) {
            (Some(text), _) if text.is_empty() || text == "null" => BackingSpec::Nothing,
            (_, tree) if !tree.is_empty() => {
                BackingSpec::Instead(Box::new(Self::from_tree(tree, shown)?))
            }
            (Some(name), _) => return no_node(&name),
            _ => BackingSpec::AsNamed,
        };
        let data_file = match subtree(&mut given, "data-file.") {
            tree if tree.is_empty() => None,
            tree => {
                let file = FileSpec::from_tree(tree, shown)?;
                let plain = Self::from_path(PathBuf::new(), shown, Some("raw"));
                Some(Box::new(Self { file, by_name: false, bare: true, ..plain }))
            }
        };
        let file = match (subtree(&mut given, "file."), take(&mut given, "file"), &named) {
            (tree, _, _) if !tree.is_empty() => FileSpec::from_tree(tree, shown)?,
            (_, Some(name), _) => return no_node(&name),
            (_, None, Some(_)) => {
                return Err(invalid("A block device must be specified for \"file\"".into()));
            }
            (_, None, None) => return Err(invalid("Must specify either driver or file".into())),
        };
        Ok(Self {
            shown: shown.to_string(),
            format: named,
            file,
            options: tree::options(&given),
            backing,
            data_file,
            by_name: false,
            bare: false,
            given,
        })
    }
}

impl FileSpec {
    fn from_tree(mut given: Tree, shown: &str) -> Result<Self> {
        let driver = given.get("driver").map(tree::spelled);
        match driver.as_deref() {
            Some(name) if is_storage(name) => {
                Ok(Self::Other(StorageSpec::from_tree(given, shown)?))
            }
            Some(name) if !is_file(name) => {
                Ok(Self::Image(Box::new(ImageSpec::from_tree(given, shown)?)))
            }
            _ => {
                given.remove("driver");
                let name = take(&mut given, "filename");
                let name = name.ok_or_else(|| match &driver {
                    Some(driver) => {
                        invalid(format!("The '{driver}' block driver requires a file name"))
                    }
                    None => invalid("Must specify either driver or file".into()),
                })?;
                storage::check_options(
                    driver.as_deref().unwrap_or("file"),
                    &tree::options(&given),
                )?;
                Ok(Self::Path(name.into()))
            }
        }
    }

    fn tree(&self) -> Value {
        match self {
            Self::Path(path) => tree::object([
                ("driver".into(), Value::from("file")),
                ("filename".into(), Value::from(path.to_string_lossy().into_owned())),
            ]),
            Self::Image(spec) => spec.tree(spec.format.as_deref().unwrap_or("raw")),
            Self::Other(spec) => {
                let mut fields: Vec<_> =
                    spec.given.iter().map(|(n, v)| (n.clone(), v.clone())).collect();
                fields.push(("driver".into(), Value::from(spec.driver.as_str())));
                if !spec.children.is_empty() {
                    let children = spec.children.iter().map(Self::tree).collect();
                    fields.push(("children".into(), Value::Array(children)));
                }
                if let Some(image) = &spec.image {
                    fields.push((
                        "image".into(),
                        image.tree(image.format.as_deref().unwrap_or("raw")),
                    ));
                }
                tree::object(fields)
            }
        }
    }
}

impl StorageSpec {
    fn from_tree(mut given: Tree, shown: &str) -> Result<Self> {
        let driver = take(&mut given, "driver").unwrap_or_default();
        let image = match (subtree(&mut given, "image."), take(&mut given, "x-image")) {
            (tree, _) if !tree.is_empty() => Some(ImageSpec::from_tree(tree, shown)?),
            // A layer of storage stands on storage: bytes as they are.
            (_, Some(name)) => Some(ImageSpec::from_name(&name, Some("raw"))?),
            _ => None,
        };
        let image = image.map(Box::new);
        let mut children = Vec::new();
        while children.len() < CHILDREN_MOST {
            let child = subtree(&mut given, &format!("children.{}.", children.len()));
            if child.is_empty() {
                break;
            }
            children.push(FileSpec::from_tree(child, shown)?);
        }
        let options = tree::options(&given);
        storage::check_options(&driver, &options)?;
        Ok(Self { driver, options, image, children, given })
    }
}

/// Options that make the same file another disk: a name without them would lead elsewhere.
fn changes_content(name: &str) -> bool {
    ["offset", "size", "key-secret"].contains(&name) || name.starts_with("encrypt.")
}

/// Nodes are QEMU's, in a running machine; there are none here.
fn no_node<T>(name: &str) -> Result<T> {
    Err(invalid(format!("Cannot find device='{name}' nor node-name='{name}'")))
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
        assert!(ImageSpec::from_image_opts("filename=a.q").is_err());
    }
}
