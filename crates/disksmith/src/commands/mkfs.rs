//! `mkfs`: a new filesystem in an image or a part of it.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use disksmith_disk::{Context, Disk, Error, Kind};
use disksmith_filesystems::ext::{MakeOptions, Profile, make, make_from};
use disksmith_filesystems::source::{DirectorySource, Source, TarSource};
use disksmith_filesystems::Time;
use disksmith_formats::OpenMode;
use disksmith_open::{Locking, open_disk};

use super::Verb;
use crate::face::{DONE, Face, Failure, Outcome, usage};
use crate::guest::Access;

/// The arguments of `mkfs`.
#[derive(clap::Args, Debug, Default)]
pub(crate) struct Mkfs {
    #[command(flatten)]
    pub access: Access,
    /// ext2, ext3 or ext4
    #[arg(short = 't', long = "type", value_name = "TYPE", default_value = "ext4")]
    pub kind: String,
    /// Label, of at most 16 bytes
    #[arg(short = 'L', long)]
    pub label: Option<String>,
    /// UUID; without it a random one
    #[arg(long, value_name = "UUID")]
    pub uuid: Option<String>,
    /// Features to add, or with ^ to leave out: ^has_journal,casefold
    #[arg(short = 'O', long, value_name = "LIST")]
    pub features: Option<String>,
    /// Bytes per block: 1024 to 65536
    #[arg(short, long, value_name = "SIZE")]
    pub block_size: Option<u32>,
    /// One inode for so many bytes
    #[arg(short = 'i', long, value_name = "BYTES")]
    pub inode_ratio: Option<u64>,
    /// So many inodes
    #[arg(short = 'N', long, value_name = "COUNT")]
    pub inodes: Option<u64>,
    /// Per cent of the blocks that only root may use
    #[arg(short = 'm', long, value_name = "PERCENT")]
    pub reserved: Option<f64>,
    /// Fill it from a directory, a tar file, or - for a tar stream on stdin
    #[arg(short = 'd', long, value_name = "DIR|TAR|-")]
    pub from: Option<String>,
    /// Even over a filesystem or partition table that is there
    #[arg(long)]
    pub force: bool,
    /// What to make it in: IMAGE, IMAGE:PART
    #[arg(value_name = "ADDRESS")]
    pub address: String,
}

impl Verb for Mkfs {
    const NAME: &'static str = "mkfs";
    const ABOUT: &'static str = "Make a filesystem in an image or a part of it";

    fn run(self, _face: &Face) -> Outcome {
        let options = self.options()?;
        let address = self.access.address(&self.address);
        if address.path.is_some() {
            return usage("a filesystem is made in IMAGE or IMAGE:PART, not in a path");
        }
        let mut settings = self.access.settings(true)?;
        (settings.mode, settings.locking) = (OpenMode::Write, Locking::Serve);
        let opened = open_disk(&address, &settings)?;
        if !self.force {
            refuse_if_used(&*opened.disk)
                .with_context(|| format!("Could not make a filesystem in '{}'", opened.shown))?;
        }
        let attempt = || format!("Could not make a filesystem in '{}'", opened.shown);
        match &self.from {
            None => make(opened.disk.clone(), &options).with_context(attempt)?,
            Some(from) => {
                let mut source = source(from)?;
                make_from(opened.disk.clone(), &options, &mut *source).with_context(attempt)?;
            }
        }
        opened.disk.flush().with_context(attempt)?;
        opened.close()?;
        Ok(DONE)
    }
}

impl Mkfs {
    fn options(&self) -> Result<MakeOptions, Failure> {
        let profile = match self.kind.as_str() {
            "ext2" => Profile::Ext2,
            "ext3" => Profile::Ext3,
            "ext4" => Profile::Ext4,
            other => return usage(format!("filesystem type '{other}' is not known (ext2, ext3, ext4)")),
        };
        let default = MakeOptions::default();
        let label = self.label.clone().unwrap_or_default().into_bytes();
        if label.len() > 16 {
            return usage("a label has at most 16 bytes");
        }
        let uuid = self.uuid.as_deref().map(parse_uuid).transpose()?;
        let time = epoch()?;
        Ok(MakeOptions {
            profile,
            // Reproducible when everything that could differ is given.
            hash_seed: uuid.filter(|_| time.is_some()),
            features: self.features.clone().unwrap_or_default(),
            block_size: self.block_size,
            inode_ratio: self.inode_ratio,
            inodes: self.inodes,
            reserved: self.reserved.unwrap_or(default.reserved),
            label,
            uuid,
            time,
            ..default
        })
    }
}

/// Reads a UUID.
pub(crate) fn parse_uuid(text: &str) -> Result<[u8; 16], Failure> {
    match uuid::Uuid::parse_str(text) {
        Ok(uuid) => Ok(uuid.into_bytes()),
        Err(_) => usage(format!("'{text}' is not a UUID")),
    }
}

/// The time that everything made bears, if the environment asks for a reproducible result.
pub(crate) fn epoch() -> Result<Option<Time>, Failure> {
    match std::env::var("SOURCE_DATE_EPOCH") {
        Err(_) => Ok(None),
        Ok(text) => match text.parse() {
            Ok(seconds) => Ok(Some(Time::from_seconds(seconds))),
            Err(_) => usage(format!("SOURCE_DATE_EPOCH is '{text}', which is no number of seconds")),
        },
    }
}

fn source(from: &str) -> Result<Box<dyn Source>, Error> {
    if from != "-" && Path::new(from).is_dir() {
        return Ok(Box::new(DirectorySource::new(from)));
    }
    let stream: Box<dyn Read> = match from {
        "-" => Box::new(std::io::stdin()),
        path => Box::new(File::open(path).with_context(|| format!("Could not open '{path}'"))?),
    };
    Ok(Box::new(TarSource::new(BufReader::with_capacity(1 << 20, stream))))
}

/// What is recognised is not overwritten unasked.
pub(crate) fn refuse_if_used(disk: &dyn Disk) -> Result<(), Error> {
    let content = disksmith_partitions::probe(disk)?.map(|content| content.kind.to_string());
    let table = disksmith_partitions::read(disk)?;
    let table = (!table.partitions.is_empty()).then(|| "a partition table".to_string());
    match content.or(table) {
        None => Ok(()),
        Some(what) => Err(Error::new(Kind::Refused, format!("it holds {what}"))
            .with_hint("Say --force to overwrite it.")),
    }
}
