//! `tar`: trees of an image to and from tar streams.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::Path;

use disksmith_disk::Context;
use disksmith_filesystems::source::{TarSource, unpack};
use disksmith_filesystems::{FileKind, errors};

use super::Verb;
use crate::face::{DONE, FAILED, Face, Failure, Outcome, usage};
use crate::guest::{Access, Guests, path_of, show, tar};

/// Bytes that are gathered before they are written.
const BUFFER: usize = 1 << 20;

/// The arguments of `tar`.
#[derive(clap::Args, Debug, Default)]
pub(crate) struct Tar {
    #[command(flatten)]
    pub access: Access,
    /// From the image to the stream
    #[arg(long, short = 'c', required_unless_present = "import", conflicts_with = "import")]
    pub export: bool,
    /// From the stream, which may be packed with gzip, xz or zstd, into the image
    #[arg(long, short = 'x')]
    pub import: bool,
    /// The directory: IMAGE:PART:PATH
    #[arg(value_name = "ADDRESS")]
    pub address: String,
    /// The tar file, as tar(1) takes it; - for stdin or stdout, which is the default
    #[arg(short = 'f', long = "file", value_name = "FILE", conflicts_with = "file")]
    pub named: Option<String>,
    /// The same
    #[arg(value_name = "FILE")]
    pub file: Option<String>,
}

impl Verb for Tar {
    const NAME: &'static str = "tar";
    const ABOUT: &'static str = "Copy a directory of an image to or from a tar stream";

    fn run(self, face: &Face) -> Outcome {
        match (self.export, self.import) {
            (true, _) => self.write(face),
            (_, true) => self.read(face),
            _ => usage("say --export or --import"),
        }
    }
}

impl Tar {
    fn name(&self) -> &str {
        self.named.as_deref().or(self.file.as_deref()).unwrap_or("-")
    }

    fn write(&self, face: &Face) -> Outcome {
        let address = self.access.address(&self.address);
        let mut guests = Guests::new(&self.access, &[]);
        let at = guests.open(&address)?;
        let guest = guests.get(at);
        let start = guest.find(path_of(&address), true)?;
        if start.kind != FileKind::Directory {
            return Err(errors::not_a_directory().context(format!("'{}'", self.address)).into());
        }
        let mut status = DONE;
        let mut fail = |path: &[u8], error: disksmith_disk::Error| {
            face.report(&error.context(format!("'{}'", show::name(path))));
            status = FAILED;
        };
        let name = self.name();
        if name == "-" {
            let mut out = BufWriter::with_capacity(BUFFER, std::io::stdout());
            tar::export(&*guest.tree, start, &mut out, &mut fail)?;
            return Ok(status);
        }
        let path = Path::new(name);
        let attempt = || format!("Could not write '{}'", path.display());
        // A stream or device is written in place; a file appears when it is whole.
        if std::fs::metadata(path).is_ok_and(|metadata| !metadata.is_file()) {
            let file = File::options().write(true).open(path).with_context(attempt)?;
            let mut out = BufWriter::with_capacity(BUFFER, file);
            tar::export(&*guest.tree, start, &mut out, &mut fail)?;
            return Ok(status);
        }
        let new = crate::signals::new_file(path, Default::default()).with_context(attempt)?;
        let temporary = new.temporary().to_path_buf();
        let mut out = BufWriter::with_capacity(BUFFER, new.disk().file());
        tar::export(&*guest.tree, start, &mut out, &mut fail)?;
        out.flush().with_context(attempt)?;
        drop(out);
        new.publish()?;
        crate::signals::finished(&temporary);
        Ok(status)
    }

    fn read(&self, face: &Face) -> Outcome {
        let address = self.access.address(&self.address);
        let input: Box<dyn Read + Send> = match self.name() {
            "-" => Box::new(std::io::stdin()),
            path => Box::new(File::open(path).with_context(|| format!("Could not open '{path}'"))?),
        };
        let mut guests = Guests::new(&self.access, &[&address]);
        let at = guests.open(&address)?;
        let guest = guests.get(at);
        let mut status = DONE;
        let mut fail = |path: &[u8], error: disksmith_disk::Error| {
            face.report(&error.context(format!("'{}'", show::name(path))));
            status = FAILED;
        };
        let result = guest.find(path_of(&address), true).and_then(|folder| match folder.kind {
            FileKind::Directory => {
                let plain = unpack(BufReader::with_capacity(BUFFER, input))?;
                let mut source = TarSource::new(BufReader::with_capacity(BUFFER, plain));
                tar::import(&mut source, &*guest.tree, folder.inode, &mut fail)
            }
            _ => Err(errors::not_a_directory().context(format!("'{}'", self.address))),
        });
        let closed = guests.close();
        let attempt = || match self.name() {
            "-" => "Could not import the stream on stdin".to_string(),
            path => format!("Could not import '{path}'"),
        };
        result.with_context(attempt).and(closed).map_err(Failure::from)?;
        Ok(status)
    }
}
