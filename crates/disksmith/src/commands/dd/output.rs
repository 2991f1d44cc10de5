//! Where dd writes.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::sync::Arc;

use disksmith_disk::{Context, Error, Kind, Result};
use disksmith_formats::{Image, OpenMode, Options, Preallocation, ResizeRequest};
use disksmith_open::{Address, Node, open_disk};

use super::Dd;
use super::operands::Operands;
use crate::commands::common::{Purpose, Source};
use crate::face::{Face, Failure};
use crate::making::{Made, Plan, creatable, format_of_name};

/// An open output.
pub(super) enum Output {
    /// Written from its beginning to its end, once.
    Stream(Box<dyn Write + Send>),
    /// Something that is there.
    InPlace(InPlace),
    /// An image that is being made.
    New { node: Node, made: Made },
}

/// An image, a device or a partition that is written where it is.
pub(super) struct InPlace {
    /// All of the image, for an input that is another part of it.
    pub(super) image: Arc<Node>,
    /// Where the part begins in the image.
    pub(super) start: u64,
    pub(super) target: Node,
    /// Its size is given: a partition, a device.
    pub(super) fixed: bool,
}

impl Output {
    /// Opens or makes it; `length` is how much will be written, if that is known.
    pub(super) fn open(
        verb: &Dd,
        face: &Face,
        operands: &Operands,
        length: Option<u64>,
    ) -> Result<Self, Failure> {
        let Some(name) = &operands.output else {
            return Ok(Self::Stream(Box::new(std::io::stdout())));
        };
        if let Some(file) = stream(name, File::options().write(true))? {
            return Ok(Self::Stream(Box::new(file)));
        }
        let address = Address::parse(name).with_format(verb.output_format.as_deref());
        let exists = address.part.is_some() || Path::new(&address.image).exists();
        let attempt = || format!("Could not write '{name}'");
        if exists && operands.conv.excl {
            return Err(Error::new(Kind::AlreadyExists, "it exists").context(attempt()).into());
        }
        if !exists && operands.conv.nocreat {
            return Err(Error::new(Kind::NotFound, "it does not exist").context(attempt()).into());
        }
        match exists && in_place(&address, operands) {
            true => Self::existing(verb, operands, &address),
            false => Self::make(verb, face, operands, name, length),
        }
    }

    fn existing(verb: &Dd, operands: &Operands, address: &Address) -> Result<Self, Failure> {
        let source = Source {
            format: verb.output_format.clone(),
            keys: verb.source.keys.clone(),
            untrusted: verb.source.untrusted,
            ..Source::default()
        };
        let purpose = Purpose { cache: operands.output_cache, ..Purpose::new(OpenMode::Write) };
        let opened = open_disk(address, &source.settings(purpose)?)?;
        let device = opened.node.file.as_ref().is_some_and(|file| file.is_block_device());
        Ok(Self::InPlace(InPlace {
            image: opened.node.clone(),
            start: opened.start,
            fixed: opened.partition.is_some() || device,
            target: opened.into_node(),
        }))
    }

    fn make(
        verb: &Dd,
        face: &Face,
        operands: &Operands,
        name: &str,
        length: Option<u64>,
    ) -> Result<Self, Failure> {
        let format = match &verb.output_format {
            Some(format) => format.as_str(),
            None => format_of_name(name).unwrap_or("raw"),
        };
        let driver = creatable(format)?;
        let size = operands.to.saturating_add(length.unwrap_or(0));
        let mut options = Options::new();
        options.set("size", size.to_string());
        let plan = Plan { driver, name: name.to_string(), options };
        let secrets = verb.source.keys.secrets()?;
        let made = plan.make(face, &secrets).with_context(|| format!("Could not make '{name}'"))?;
        made.unlock()?;
        let spec = made.target.spec(name, format)?;
        let purpose = Purpose { cache: operands.output_cache, ..Purpose::new(OpenMode::Write) };
        let settings = Source::default().settings(purpose)?;
        Ok(Self::New { node: disksmith_open::open(&spec, &settings)?, made })
    }
}

/// Whether what exists is written into; as with dd, a plain file is made anew unless it is
/// written from some place on, or told to be kept.
fn in_place(address: &Address, operands: &Operands) -> bool {
    let file = std::fs::metadata(&address.image).is_ok_and(|metadata| metadata.is_file());
    !address.is_plain() || !file || operands.conv.notrunc || operands.append || operands.to > 0
}

/// Opens `name` if it is a stream: a pipe, a terminal, /dev/zero.
pub(super) fn stream(name: &str, options: &mut std::fs::OpenOptions) -> Result<Option<File>> {
    let Ok(metadata) = std::fs::metadata(name) else { return Ok(None) };
    let kind = metadata.file_type();
    if !kind.is_char_device() && !kind.is_fifo() {
        return Ok(None);
    }
    let file = options.open(name).with_context(|| format!("Could not open '{name}'"))?;
    Ok(Some(file))
}

impl InPlace {
    /// Makes the size right for `length` bytes from `to` on: what was behind goes unless it is
    /// to stay. Refuses what does not fit.
    pub(super) fn fit(&self, to: u64, length: u64, keep: bool) -> Result<()> {
        let size = self.target.image.size();
        let end = to.saturating_add(length);
        if self.fixed {
            if end > size {
                return Err(Error::new(
                    Kind::OutOfSpace,
                    format!("{length} bytes from byte {to} on do not fit into {size} bytes"),
                )
                .with_hint("Nothing was written. Say with count= how much to copy."));
            }
            return Ok(());
        }
        if !keep {
            resize(&*self.target.image, to)?;
            return resize(&*self.target.image, end);
        }
        match length > 0 && end > size {
            true => resize(&*self.target.image, end),
            false => Ok(()),
        }
    }
}

/// Formats other than raw count whole sectors; a raw file has any length.
pub(super) fn resize(image: &dyn Image, size: u64) -> Result<()> {
    let raw = image.format() == "raw";
    let size = if raw { size } else { size.next_multiple_of(512) };
    if size == image.size() && !raw {
        return Ok(());
    }
    image.resize(ResizeRequest { size, preallocation: Preallocation::Off })
}
