//! `mkfs`: a new filesystem in an image or a part of it.

mod extended;
mod types;

pub(crate) use self::extended::epoch;
pub(crate) use self::types::parse_serial;

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use disksmith_disk::{Context, Disk, Error, Kind, Slice, human_size};
use disksmith_filesystems::source::{DirectorySource, Source, TarSource, unpack};
use disksmith_formats::{OpenMode, Options};
use disksmith_open::{Address, Locking, Secrets, open_disk};

use self::types::Making;
use super::Verb;
use crate::face::{DONE, Face, Failure, Outcome, usage};
use crate::guest::Access;
use crate::making::{Plan, creatable, format_of_name};
use crate::signals;

/// The arguments of `mkfs`.
#[derive(clap::Args, Debug, Default)]
pub(crate) struct Mkfs {
    #[command(flatten)]
    pub access: Access,
    /// ext2, ext3, ext4, fat (by size), fat12, fat16, fat32, exfat, swap
    #[arg(short = 't', long = "type", value_name = "TYPE", default_value = "ext4")]
    pub kind: String,
    /// Label, of at most 16 bytes (FAT: 11)
    #[arg(short = 'L', long)]
    pub label: Option<String>,
    /// UUID (FAT: serial number, like 1234-ABCD); without it a random one
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
    /// Bytes per inode: 128, 256 …
    #[arg(short = 'I', long, value_name = "SIZE")]
    pub inode_size: Option<u32>,
    /// Bytes per cluster: of FAT, and of ext with the feature bigalloc
    #[arg(short = 'C', long, value_name = "SIZE")]
    pub cluster_size: Option<u32>,
    /// What it is for: default, small, floppy, big, huge, news, largefile, largefile4
    #[arg(short = 'T', long, value_name = "USAGE")]
    pub usage: Option<String>,
    /// The journal: size=MEBIBYTES
    #[arg(short = 'J', long, value_name = "LIST")]
    pub journal: Option<String>,
    /// stride=, stripe_width= (blocks), lazy_itable_init=0|1, hash_seed=UUID, root_owner=UID:GID
    #[arg(short = 'E', long, value_name = "LIST")]
    pub extended: Option<String>,
    /// Size of the filesystem; auto: as small as holds the files. An image that is not there is made
    #[arg(short = 's', long, value_name = "SIZE|auto")]
    pub size: Option<String>,
    /// Per cent of the blocks that only root may use
    #[arg(short = 'm', long, value_name = "PERCENT")]
    pub reserved: Option<f64>,
    /// Fill it from a directory, a tar file, or - for a tar stream on stdin
    #[arg(short = 'd', long, value_name = "DIR|TAR|-")]
    pub from: Option<String>,
    /// Change names that the filesystem cannot hold, instead of refusing them
    #[arg(long)]
    pub map_names: bool,
    /// Even over a filesystem or partition table that is there
    #[arg(long)]
    pub force: bool,
    /// Show what would be done, and do nothing
    #[arg(long)]
    pub dry_run: bool,
    /// What to make it in: IMAGE, IMAGE:PART
    #[arg(value_name = "ADDRESS")]
    pub address: String,
}

impl Verb for Mkfs {
    const NAME: &'static str = "mkfs";
    const ABOUT: &'static str = "Make a filesystem in an image or a part of it";

    fn run(self, face: &Face) -> Outcome {
        let options = types::read(&self)?;
        let address = self.access.address(&self.address);
        if address.path.is_some() {
            return usage("a filesystem is made in IMAGE or IMAGE:PART, not in a path");
        }
        let mut fill = Fill::new(self.from.as_deref())?;
        if self.size.as_deref() == Some("auto") {
            fill = fill.repeatable()?;
        }
        let (size, options) = self.size(face, options, &fill)?;
        if self.dry_run {
            return self.tell_plan(face, &address, size);
        }
        let new = match size {
            Some(size) if address.is_plain() => self.new_image(face, size)?,
            _ => None,
        };
        self.make(face, (&address, size), &options, &fill)?;
        new.map_or(Ok(()), NewImage::keep)?;
        Ok(DONE)
    }
}

impl Mkfs {
    /// The size asked for in bytes, and the options that go with it.
    fn size(
        &self,
        face: &Face,
        options: Making,
        fill: &Fill,
    ) -> Result<(Option<u64>, Making), Failure> {
        match self.size.as_deref() {
            None => Ok((None, options)),
            Some("auto") => {
                let Some(mut source) = fill.source()? else {
                    return usage("--size auto needs --from: what is the filesystem to hold?");
                };
                let (size, options) = options.size_for(&mut *source).map_err(|failure| {
                    let attempt = "Could not find out how large the filesystem must be";
                    match failure {
                        Failure::Error(error) => Failure::Error(error.context(attempt)),
                        other => other,
                    }
                })?;
                Ok((Some(size), options))
            }
            Some(text) => Ok((Some(crate::numbers::size(face, "filesystem size", text)?), options)),
        }
    }

    fn tell_plan(&self, face: &Face, address: &Address, size: Option<u64>) -> Outcome {
        let missing = address.is_plain() && Path::new(&self.address).symlink_metadata().is_err();
        let mut lines = Vec::new();
        let room = match size.filter(|_| missing) {
            Some(size) => {
                lines.push(format!("make the image '{}' of {}", self.address, human_size(size)));
                size
            }
            None => {
                let opened = open_disk(address, &self.access.settings(false)?)?;
                lines.extend(loss(&*opened.disk, self.force));
                size.unwrap_or(opened.disk.size())
            }
        };
        lines.push(format!("make {} of {} in '{}'", self.kind, human_size(room), self.address));
        if let Some(from) = &self.from {
            lines.push(format!("fill it from '{from}'"));
        }
        face.print(&format!("{}\n", lines.join("\n")));
        Ok(DONE)
    }

    /// Makes the image if it is not there.
    fn new_image(&self, face: &Face, size: u64) -> Result<Option<NewImage>, Failure> {
        let path = Path::new(&self.address);
        if path.symlink_metadata().is_ok() {
            return Ok(None);
        }
        let format = self.access.format.as_deref().or_else(|| format_of_name(&self.address));
        let mut options = Options::new();
        options.set("size", size.to_string());
        let driver = creatable(format.unwrap_or("raw"))?;
        let plan = Plan { driver, name: self.address.clone(), options };
        plan.make(face, &Secrets::default())?.keep()?;
        signals::unfinished(path);
        Ok(Some(NewImage(path.to_path_buf())))
    }

    fn make(
        &self,
        face: &Face,
        (address, size): (&Address, Option<u64>),
        options: &Making,
        fill: &Fill,
    ) -> Result<(), Failure> {
        let mut settings = self.access.settings(true)?;
        (settings.mode, settings.locking) = (OpenMode::Write, Locking::Serve);
        let opened = open_disk(address, &settings)?;
        let attempt = || format!("Could not make a filesystem in '{}'", opened.shown);
        if !self.force {
            refuse_if_used(&*opened.disk).with_context(attempt)?;
        }
        let room = opened.disk.size();
        let mut disk = opened.disk.clone();
        if let Some(size) = size.filter(|size| *size < room) {
            disk = Arc::new(Slice::new(disk, 0, size).with_context(attempt)?);
        } else if let Some(size) = size.filter(|size| *size > room) {
            return Err(Error::new(
                Kind::OutOfSpace,
                format!("{} are needed and {} are there", human_size(size), human_size(room)),
            )
            .context(attempt())
            .into());
        }
        let mut source = fill.source()?;
        let source = source.as_mut().map(|source| &mut **source as &mut dyn Source);
        for loss in options.make(disk, opened.start, source).with_context(attempt)? {
            face.warn(&loss);
        }
        opened.disk.flush().with_context(attempt)?;
        Ok(opened.close()?)
    }
}

/// An image made for the filesystem, which goes away if that cannot be made.
struct NewImage(PathBuf);

impl NewImage {
    fn keep(self) -> Result<(), Failure> {
        signals::finished(&self.0);
        std::mem::forget(self);
        Ok(())
    }
}

impl Drop for NewImage {
    fn drop(&mut self) {
        // It was made a moment ago; what fails here was told already.
        let _ = std::fs::remove_file(&self.0);
        signals::finished(&self.0);
    }
}

/// What a filesystem is filled with.
enum Fill {
    Nothing,
    Folder(PathBuf),
    /// A file that can be read again.
    Tar(File),
    /// Can be read once.
    Stream(File),
}

impl Fill {
    fn new(from: Option<&str>) -> Result<Self, Error> {
        Ok(match from {
            None => Self::Nothing,
            Some("-") => Self::Stream(File::from(std::io::stdin().as_fd().try_clone_to_owned()?)),
            Some(path) if Path::new(path).is_dir() => Self::Folder(path.into()),
            Some(path) => {
                let file = File::open(path).with_context(|| format!("Could not open '{path}'"))?;
                match file.metadata()?.is_file() {
                    true => Self::Tar(file),
                    false => Self::Stream(file),
                }
            }
        })
    }

    /// The same in a form that can be read twice: a stream goes to a file first.
    fn repeatable(self) -> Result<Self, Error> {
        let Self::Stream(mut stream) = self else { return Ok(self) };
        Ok(Self::Tar(keep(&mut stream)?))
    }

    fn source(&self) -> Result<Option<Box<dyn Source>>, Error> {
        let tar = |file: &File| -> Result<Box<dyn Source>, Error> {
            let file = file.try_clone()?;
            let plain = unpack(BufReader::with_capacity(1 << 20, file))?;
            Ok(Box::new(TarSource::new(BufReader::with_capacity(1 << 20, plain))))
        };
        Ok(match self {
            Self::Nothing => None,
            Self::Folder(path) => Some(Box::new(DirectorySource::new(path))),
            Self::Tar(file) => {
                let mut start: &File = file;
                start.seek(SeekFrom::Start(0))?;
                Some(tar(file)?)
            }
            Self::Stream(file) => Some(tar(file)?),
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

/// A stream as a file without a name, which can be read more than once.
pub(crate) fn keep(stream: &mut dyn Read) -> Result<File, Error> {
    let attempt = "Could not keep the stream in a temporary file";
    let mut file = tempfile::tempfile().context(attempt)?;
    std::io::copy(stream, &mut file).context(attempt)?;
    Ok(file)
}

/// What a plan says of what is there: it would be lost, or is not touched without force.
pub(crate) fn loss(disk: &dyn Disk, force: bool) -> Option<String> {
    let held = refuse_if_used(disk).err()?.told_once();
    Some(match force {
        true => format!("lose what is there: {held}"),
        false => format!("would need --force: {held}"),
    })
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
