//! `rebase`: let an image stand on another one.

use disksmith_disk::{Error, Kind};
use disksmith_formats::{Backing, OpenMode, driver};
use disksmith_open::{Cache, ImageSpec, Locking, Name, Node, Settings, resolve};
use disksmith_operations::{RebaseRequest, rebase, rebase_unsafe};

use super::Verb;
use super::commit::find_in_chain;
use super::common::{Purpose, Source};
use super::convert::source_cache;
use crate::face::{DONE, Face, Failure, Outcome, refuse, usage};
use crate::making::names_format;
use crate::progress::{Telling, Watch};

/// The arguments of `rebase`.
#[derive(clap::Args, Debug, Default)]
pub(crate) struct Rebase {
    #[command(flatten)]
    pub source: Source,
    /// The image to stand on; empty: none
    #[arg(short, long, value_name = "FILE")]
    pub backing: Option<String>,
    /// Its format
    #[arg(short = 'F', long, value_name = "FMT")]
    pub backing_format: Option<String>,
    /// Only change the name that the image stores; its content may change
    #[arg(short = 'u', long)]
    pub backing_unsafe: bool,
    /// Store what must be copied compressed
    #[arg(short, long)]
    pub compress: bool,
    /// Cache mode of the image
    #[arg(short = 't', long, value_name = "CACHE")]
    pub cache: Option<String>,
    /// Cache mode of the backing file
    #[arg(short = 'T', long, value_name = "CACHE")]
    pub backing_cache: Option<String>,
    /// Open the backing files even while other processes write them
    #[arg(short = 'U', long)]
    pub force_share: bool,
    #[command(flatten)]
    pub telling: Telling,
    /// The image
    #[arg(value_name = "IMAGE")]
    pub image: String,
}

impl Verb for Rebase {
    const NAME: &'static str = "rebase";
    const ABOUT: &'static str = "Let an image stand on another one, or on none";

    fn run(self, face: &Face) -> Outcome {
        if self.backing.is_none() && !self.backing_unsafe {
            return usage("Must specify backing file (-b) or use unsafe mode (-u)");
        }
        let progress = self.telling.progress(face);
        let purpose = Purpose {
            follow_backing: !self.backing_unsafe,
            ..Purpose::new(OpenMode::Write).cached(self.cache.as_deref())?
        };
        let cache = self.backing_cache.as_deref().map(source_cache).transpose()?.unwrap_or_default();
        let node = self.source.open(face, &self.image, purpose)?;
        if self.compress && node.image.compression().is_none() {
            return refuse("Compression not supported for this file format");
        }
        if let Some(format) = self.backing_format.as_deref().filter(|f| !names_format(f)) {
            return refuse(format!("Invalid format name: '{format}'"));
        }
        let name = self.backing.clone().unwrap_or_default();
        let watch = Watch::new(face, progress);
        let result = self.change(face, &node, &name, cache, &watch);
        watch.finish();
        result?;
        node.close()?;
        Ok(DONE)
    }
}

impl Rebase {
    fn change(
        &self,
        face: &Face,
        node: &Node,
        name: &str,
        cache: Cache,
        watch: &Watch,
    ) -> Result<(), Failure> {
        let mut record = (!name.is_empty()).then(|| Backing {
            name: name.to_string(),
            format: self.backing_format.clone(),
        });
        let failed = |error: Error| error.context(format!("Could not change the backing file to '{name}'"));
        if self.backing_unsafe {
            check_format(record.as_ref()).map_err(failed)?;
            return Ok(rebase_unsafe(&*node.image, record.as_ref()).map_err(failed)?);
        }
        if !supports_backing(node) && record.is_none() {
            return Err(failed(Error::new(Kind::Unsupported, "Operation not supported")).into());
        }
        let opened;
        let new = match (&record, find_in_chain(face, node, name).map(|(_, found)| found)) {
            (None, _) => None,
            (Some(_), Some(found)) => Some(found),
            (Some(_), None) => {
                opened = self.open_new(node, name, cache)?;
                Some(&opened)
            }
        };
        if let (Some(record), Some(new), false) = (&mut record, new, face.drop_in) {
            record.format.get_or_insert_with(|| new.image.format().to_string());
        }
        check_format(record.as_ref()).map_err(failed)?;
        if record.is_some() && !supports_backing(node) {
            return Err(failed(Error::new(Kind::Unsupported, "Operation not supported")).into());
        }
        rebase(
            &RebaseRequest {
                image: node,
                new,
                record: record.as_ref(),
                compress: self.compress,
                store_zeroes: face.drop_in,
            },
            watch,
        )?;
        Ok(())
    }

    fn open_new(&self, node: &Node, name: &str, cache: Cache) -> Result<Node, Failure> {
        let spec = match (Name::parse(name), &node.path) {
            (Name::Path(path), Some(image)) => {
                let path = resolve(image, &path.to_string_lossy());
                ImageSpec::from_path(&path, &path.to_string_lossy(), self.backing_format.as_deref())
            }
            _ => ImageSpec::from_name(name, self.backing_format.as_deref())?,
        };
        let settings = Settings {
            locking: if self.force_share { Locking::Shared } else { Locking::Normal },
            cache,
            secrets: self.source.keys.secrets()?,
            ..Settings::new(OpenMode::Read)
        };
        disksmith_open::open_plainly(&spec, &settings)
            .map_err(|error| error.context(format!("Could not open new backing file '{name}'")).into())
    }
}

fn supports_backing(node: &Node) -> bool {
    driver(node.image.format()).is_some_and(|driver| driver.backing)
}

/// An image that names a backing file without its format makes the next reader guess it.
fn check_format(record: Option<&Backing>) -> Result<(), Error> {
    match record {
        Some(Backing { format: None, .. }) => {
            Err(Error::new(Kind::InvalidInput, "backing format must be specified"))
        }
        _ => Ok(()),
    }
}
