//! What a disk is to be made of, as users write it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use disksmith_disk::{Error, Kind, Result, parse_size};
use serde::Deserialize;

/// No disk is described by more than this many partitions.
const PARTITIONS_MAX: usize = 128;

/// A disk to be made. [`DiskSpec::parse`] reads it from TOML:
///
/// ```toml
/// format = "qcow2"
/// table = "gpt"
/// size = "auto"
///
/// [[partition]]
/// type = "linux"
/// filesystem = "ext4"
/// from = "tree"
/// ```
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct DiskSpec {
    /// Format of the image.
    pub format: Option<String>,
    /// Options of the format.
    pub options: BTreeMap<String, String>,
    /// Bytes of the disk, or `auto`: what the partitions need.
    pub size: Option<String>,
    /// `gpt`, `mbr` or `none`.
    pub table: Option<String>,
    /// Bytes in a sector of the disk: 512, or 4096.
    pub sector_size: Option<u32>,
    /// What partitions begin at multiples of; 1 MiB.
    pub align: Option<String>,
    /// The id of the disk.
    pub id: Option<String>,
    /// Goes into every id that is not given; `random` makes each build another.
    pub seed: Option<String>,
    /// `bios` or `uefi`: put what is missing to boot from it.
    pub boot: Option<String>,
    /// With `uefi`, go on though there is nothing to boot yet.
    pub boot_later: bool,
    /// The partitions, in the order of the disk.
    #[serde(rename = "partition")]
    pub partitions: Vec<PartitionSpec>,
}

/// A partition to be made.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct PartitionSpec {
    /// What it is for, as `partition add --type` takes it.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// Its name (GPT).
    pub name: String,
    /// Its id (GPT).
    pub uuid: Option<String>,
    /// To be booted from.
    pub bootable: bool,
    /// Its length: a size, `auto` (what its files need) or `rest`.
    pub size: Option<String>,
    /// Its share of the rest, in proportion to the others' weights.
    pub weight: Option<u32>,
    /// Free room to leave with `auto`: a size or a percentage.
    pub slack: Option<String>,
    /// The filesystem; without one the partition stays empty.
    pub filesystem: Option<String>,
    /// The filesystem's label.
    pub label: String,
    /// The filesystem's UUID, or the serial number of a FAT.
    pub filesystem_uuid: Option<String>,
    /// The filesystem's features.
    pub features: String,
    /// Bytes in a block.
    pub block_size: Option<u32>,
    /// Number of inodes.
    pub inodes: Option<u64>,
    /// Per cent of the blocks that only root may use.
    pub reserved: Option<f64>,
    /// A directory or tar file with its files: the short form of one `content`.
    pub from: Option<String>,
    /// Where its files come from; later ones replace earlier ones.
    pub content: Vec<ContentSpec>,
    /// Single files.
    pub file: Vec<FileSpec>,
    /// `UID:GID` for all its files, whatever their source says.
    pub owner: Option<String>,
    /// A file with the owners of its files: lines of `PATH UID:GID [MODE]`.
    pub manifest: Option<String>,
}

/// Files from a directory or a tar file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct ContentSpec {
    /// The directory or tar file; `-` is a tar stream on standard input.
    pub from: String,
    /// Where in the filesystem they go; its root when not given.
    pub to: Option<String>,
    /// Only what lies below this path of the source, without it.
    pub below: Option<String>,
    /// Nothing of what lies below these paths of the source.
    pub except: Vec<String>,
}

/// One file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct FileSpec {
    /// Its path in the filesystem.
    pub to: String,
    /// The host file with its content …
    pub from: Option<String>,
    /// … or the content itself …
    pub text: Option<String>,
    /// … or where it points, of a symlink …
    pub link: Option<String>,
    /// … or an empty directory.
    pub directory: bool,
    /// Permission bits, in octal: `"644"`.
    pub mode: Option<String>,
    /// `UID:GID`.
    pub owner: Option<String>,
}

/// How long a partition is to be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PartSize {
    /// So many bytes.
    Given(u64),
    /// What its files need.
    Auto,
    /// A share of what the others leave.
    Share(u32),
}

impl DiskSpec {
    /// Reads TOML. Names in it are relative to `folder`.
    pub fn parse(text: &str, folder: &Path) -> Result<Self> {
        let mut spec: Self = toml::from_str(text).map_err(|error| {
            Error::new(Kind::InvalidInput, error.to_string().trim_end().replace('\n', "\n  "))
        })?;
        if spec.partitions.len() > PARTITIONS_MAX {
            return Err(invalid(format!("more than {PARTITIONS_MAX} partitions")));
        }
        if spec.partitions.is_empty() {
            return Err(invalid("no [[partition]] is described"));
        }
        let place = |name: &mut String| {
            if name != "-" {
                *name = resolve(folder, name);
            }
        };
        for (index, part) in spec.partitions.iter_mut().enumerate() {
            part.from.iter_mut().for_each(place);
            part.manifest.iter_mut().for_each(place);
            part.content.iter_mut().for_each(|content| place(&mut content.from));
            part.file.iter_mut().filter_map(|file| file.from.as_mut()).for_each(place);
            part.check().map_err(|error| error.context(format!("partition {}", index + 1)))?;
        }
        Ok(spec)
    }

    /// Bytes in a sector.
    pub fn sector(&self) -> Result<u32> {
        match self.sector_size {
            None => Ok(512),
            Some(size @ (512 | 4096)) => Ok(size),
            Some(other) => Err(invalid(format!("sectors have 512 or 4096 bytes, not {other}"))),
        }
    }

    /// The size of the disk; `None`: what the partitions need.
    pub fn bytes(&self) -> Result<Option<u64>> {
        match self.size.as_deref() {
            None | Some("auto") => Ok(None),
            Some(text) => parse_size(text).map(Some),
        }
    }
}

impl PartitionSpec {
    fn check(&self) -> Result<()> {
        let contents = usize::from(self.from.is_some()) + self.content.len() + self.file.len();
        if contents > 0 && self.filesystem.is_none() {
            return Err(invalid("it has files but no filesystem"));
        }
        if self.content.iter().any(|content| content.from.is_empty()) {
            return Err(invalid("a [[partition.content]] needs 'from'"));
        }
        if self.filesystem.as_deref() == Some("swap") && contents > 0 {
            return Err(invalid("swap holds no files"));
        }
        self.length().map(drop)
    }

    /// How long it is to be.
    pub fn length(&self) -> Result<PartSize> {
        match (self.size.as_deref(), self.weight) {
            (Some("auto"), None) => Ok(PartSize::Auto),
            (Some("rest"), None) => Ok(PartSize::Share(1)),
            (Some(text), None) => match parse_size(text)? {
                0 => Err(invalid("a partition of no length")),
                bytes => Ok(PartSize::Given(bytes)),
            },
            (None | Some("rest"), Some(weight @ 1..=1_000_000)) => Ok(PartSize::Share(weight)),
            (None, None) => Ok(PartSize::Auto),
            (None | Some("rest"), Some(_)) => Err(invalid("a weight is 1 to 1000000")),
            (Some(_), Some(_)) => Err(invalid("either a size or a weight, not both")),
        }
    }

    /// All its sources: `from` and the `content`s.
    pub fn contents(&self) -> Vec<ContentSpec> {
        let short =
            self.from.iter().map(|from| ContentSpec { from: from.clone(), ..Default::default() });
        short.chain(self.content.iter().cloned()).collect()
    }

    /// How much room to leave beyond what `bytes` of files need.
    pub fn slack(&self, bytes: u64) -> Result<u64> {
        let Some(text) = self.slack.as_deref() else { return Ok(0) };
        match text.strip_suffix('%') {
            None => parse_size(text),
            Some(number) => match number.trim().parse::<u64>() {
                Ok(percent @ 0..=10_000) => Ok((bytes / 100).saturating_mul(percent)),
                _ => Err(invalid(format!("'{text}' is no percentage"))),
            },
        }
    }
}

fn resolve(folder: &Path, name: &str) -> String {
    let path: PathBuf = folder.join(name);
    path.to_string_lossy().into_owned()
}

/// Reads `UID:GID`.
pub(crate) fn parse_owner(text: &str) -> Result<(u32, u32)> {
    let owner =
        text.split_once(':').and_then(|(uid, gid)| Some((uid.parse().ok()?, gid.parse().ok()?)));
    owner.ok_or_else(|| invalid(format!("'{text}' is no owner")).with_hint("Write numbers: 0:0."))
}

/// Reads permission bits in octal.
pub(crate) fn parse_mode(text: &str) -> Result<u16> {
    let digits = text.strip_prefix("0o").unwrap_or(text);
    match u16::from_str_radix(digits, 8) {
        Ok(mode) if mode <= 0o7777 => Ok(mode),
        _ => Err(invalid(format!("'{text}' is no mode")).with_hint("Write octal digits: 644.")),
    }
}

pub(crate) fn invalid(text: impl Into<String>) -> Error {
    Error::new(Kind::InvalidInput, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(text: &str) -> String {
        DiskSpec::parse(text, Path::new("/x")).unwrap_err().to_string()
    }

    #[test]
    fn names_are_relative_to_the_spec() {
        let text =
            "size = '1G'\n[[partition]]\nfilesystem = 'ext4'\nfrom = 'tree'\nmanifest = '/m'\n";
        let spec = DiskSpec::parse(text, Path::new("/x")).unwrap();
        assert_eq!(spec.bytes().unwrap(), Some(1 << 30));
        assert_eq!(spec.partitions[0].from.as_deref(), Some("/x/tree"));
        assert_eq!(spec.partitions[0].manifest.as_deref(), Some("/m"));
        assert_eq!(spec.partitions[0].length().unwrap(), PartSize::Auto);
    }

    #[test]
    fn what_is_not_known_is_named() {
        assert!(failure("tabel = 'gpt'").contains("tabel"));
        assert!(failure("table = 'gpt'").contains("no [[partition]]"));
        assert!(
            failure("[[partition]]\nfrom = 'x'")
                .contains("partition 1: it has files but no filesystem")
        );
        assert!(failure("[[partition]]\nsize = '1G'\nweight = 2").contains("not both"));
        assert!(failure("[[partition]]\nweight = 0").contains("weight"));
    }

    #[test]
    fn slack_is_a_size_or_a_share() {
        let part = |slack: &str| PartitionSpec { slack: Some(slack.into()), ..Default::default() };
        assert_eq!(part("10%").slack(1000).unwrap(), 100);
        assert_eq!(part("1M").slack(1000).unwrap(), 1 << 20);
        assert!(part("x%").slack(1).is_err());
    }
}
