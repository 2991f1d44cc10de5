//! `convert`: copy images into one of another format.

mod parts;

use disksmith_disk::{Error, Kind};
use disksmith_formats::{Driver, Fact, OpenMode, Options};
use disksmith_open::{Cache, Locking, Node};
use disksmith_operations::{
    ConvertRequest, DeflateWindow, Observer, Offload, WriteOrder, convert, data_ranges,
    snapshot_view,
};

use parts::part_of_file;

use super::Verb;
use super::common::{Purpose, Source, warn_if_guessed_raw};
use crate::face::{DONE, Face, Failure, Outcome, refuse};
use crate::making::{Made, Plan, creatable, format_of_name, join_lists, wants_help};
use crate::progress::{Telling, Watch};
use crate::render::options;
use crate::stream;

/// Sparse detection looks at no more than this at once, as in qemu-img.
const SPARSE_MAX: u64 = 16 << 20;

/// The arguments of `convert`.
#[derive(clap::Args, Debug, Default)]
pub(crate) struct Convert {
    #[command(flatten)]
    pub source: Source,
    /// Read this snapshot of the source
    #[arg(short = 'l', long, value_name = "SNAPSHOT")]
    pub source_snapshot: Option<String>,
    /// Cache mode of the sources
    #[arg(short = 'T', long, value_name = "CACHE")]
    pub source_cache: Option<String>,
    /// Format of the target; told from the suffix of its name when not given
    #[arg(short = 'O', long, value_name = "FMT")]
    pub target_format: Option<String>,
    /// The target is described by options (needs -n)
    #[arg(long)]
    pub target_image_opts: bool,
    /// Options of the target's format, as name=value,…; "help" lists them
    #[arg(short, long, value_name = "OPTIONS")]
    pub options: Vec<String>,
    /// Cache mode of the target
    #[arg(short = 't', long, value_name = "CACHE")]
    pub target_cache: Option<String>,
    /// Let the target stand on this image and store only what differs from it
    #[arg(short = 'B', long, value_name = "FILE")]
    pub backing: Option<String>,
    /// Format of the backing file
    #[arg(short = 'F', long, value_name = "FMT")]
    pub backing_format: Option<String>,
    /// Store the data compressed
    #[arg(short, long)]
    pub compress: bool,
    /// The target exists: write into it
    #[arg(short, long)]
    pub no_create: bool,
    /// The existing target holds zeroes only
    #[arg(long)]
    pub target_is_zero: bool,
    /// Shortest run of zeroes that is not stored; 0 stores everything
    #[arg(short = 'S', long, value_name = "SIZE")]
    pub sparse_size: Option<String>,
    /// Copy persistent bitmaps too
    #[arg(long)]
    pub bitmaps: bool,
    /// Leave out bitmaps that cannot be trusted
    #[arg(long)]
    pub skip_broken_bitmaps: bool,
    /// How many pieces are worked on at once
    #[arg(short = 'm', long, value_name = "N")]
    pub parallel: Option<String>,
    /// Write pieces as they come, not in order
    #[arg(short = 'W', long)]
    pub oob_writes: bool,
    /// Leave the copying to the kernel
    #[arg(short = 'C', long)]
    pub copy_range_offloading: bool,
    /// At most so many bytes per second
    #[arg(short, long, value_name = "BYTES")]
    pub rate: Option<String>,
    /// Go on after read errors, with zeroes in place of what cannot be read
    #[arg(long)]
    pub salvage: bool,
    /// Read even while another process writes the source
    #[arg(short = 'U', long)]
    pub force_share: bool,
    #[command(flatten)]
    pub telling: Telling,
    /// The sources, and last the target
    #[arg(value_name = "IMAGE")]
    pub images: Vec<String>,
}

impl Verb for Convert {
    const NAME: &'static str = "convert";
    const ABOUT: &'static str = "Copy images into one of another format";

    fn run(self, face: &Face) -> Outcome {
        let numbers = self.numbers(face)?;
        let mut lists = join_lists(&self.options)?;
        let packing = Packing::take(face, &mut lists)?;
        self.check_combination()?;
        let target = self.images.last().cloned().unwrap_or_default();
        let format = self.format(face, &target);
        if wants_help(&self.options) {
            return help(face, &format, self.images.len() > 1);
        }
        if self.images.len() < 2 {
            return refuse("Must specify image file name");
        }
        let (sources, open) = match self.open_parts(face, &target)? {
            Some((sources, node)) => (sources, Some(node)),
            None => (self.open_sources(face)?, None),
        };
        if !face.drop_in && stream::is_stream(&target) {
            stream::check(&format, &target)?;
            if self.compress || !lists.is_empty() {
                return refuse(format!(
                    "'{target}' takes raw bytes: -c and -o make no sense there"
                ));
            }
            stream::send(&sources, &target)?;
            return Ok(DONE);
        }
        let made = match self.writes_in_place(face, &target) {
            true => None,
            false => Some(self.plan(face, &format, &target, lists, &sources)?),
        };
        self.check_bitmaps(&sources)?;
        let (node, made) = match (made, open) {
            (Some(plan), _) => self.make_target(face, &plan)?,
            (None, Some(node)) => (node, None),
            (None, None) => (self.open_target(face, &target)?, None),
        };
        self.check_target(&node)?;
        let zero = match &made {
            Some(made) => node.backing.is_none() && made.reads_as_zero(&*node.image),
            None => self.target_is_zero,
        };
        let nodes: Vec<&Node> = sources.iter().collect();
        let mut watch = Watch::new(face, self.telling.progress(face));
        // qemu-img looks for data before it copies, and tells what it cannot look at.
        if self.telling.in_lines() || face.drop_in && self.salvage {
            let salvage = self.salvage.then_some(&watch as &dyn Observer);
            let ranges = data_ranges(&nodes, numbers.sparse == 0, salvage)?;
            watch = watch.counting(ranges.into_iter());
        }
        let result = convert(
            &ConvertRequest {
                target_is_zero: zero,
                target_has_backing: node.backing.is_some()
                    && (made.is_some() || self.backing.is_some()),
                compress: self.compress,
                level: packing.level,
                deflate_window: packing.deflate_window,
                sparse_size: numbers.sparse,
                // A bad disk is read in order: what it says then makes sense.
                threads: if self.salvage { Some(1) } else { numbers.threads },
                writes: if self.oob_writes {
                    WriteOrder::AsTheyCome
                } else {
                    WriteOrder::default()
                },
                offload: if self.copy_range_offloading {
                    Offload::Always
                } else {
                    Offload::default()
                },
                rate: numbers.rate,
                salvage: self.salvage,
                bitmaps: self.bitmaps,
                skip_broken_bitmaps: self.skip_broken_bitmaps,
                ..ConvertRequest::new(&nodes, &node)
            },
            &watch,
        );
        watch.finish();
        result?;
        node.close()?;
        drop(node);
        if let Some(made) = made {
            made.keep()?;
        }
        Ok(DONE)
    }
}

const PACKING_HELP: &str = "
Options of compressing (-c):
  compression_level=<num> - Speed against size: 1 to 9 for zlib, 1 to 19 for zstd
  deflate_window=<str>   - How far zlib matches reach: 4k (every reader), 32k (smaller; not read by all)
";

/// How `-c` compresses: options of the conversion, not of the image.
#[derive(Default)]
struct Packing {
    level: Option<u8>,
    deflate_window: DeflateWindow,
}

impl Packing {
    /// Takes its options out of those for the image. qemu-img knows none of them.
    fn take(face: &Face, options: &mut Options) -> Result<Self, Failure> {
        let mut packing = Self::default();
        if face.drop_in {
            return Ok(packing);
        }
        if let Some(text) = options.take("compression_level") {
            match text.parse() {
                Ok(level) => packing.level = Some(level),
                Err(_) => return refuse(format!("compression_level is a number, not '{text}'")),
            }
        }
        packing.deflate_window = match options.take("deflate_window").as_deref() {
            None | Some("4k") => DeflateWindow::Kib4,
            Some("32k") => DeflateWindow::Kib32,
            Some(other) => {
                return refuse(format!(
                    "deflate_window is 4k, which every reader accepts, or 32k, not '{other}'"
                ));
            }
        };
        Ok(packing)
    }
}

struct Numbers {
    sparse: u64,
    threads: Option<usize>,
    rate: Option<u64>,
}

impl Convert {
    fn numbers(&self, face: &Face) -> Result<Numbers, Failure> {
        use crate::numbers::{bounded, size};
        let sparse = match &self.sparse_size {
            Some(text) => size(face, "buffer size for sparse output", text)?,
            None => 4096,
        };
        if sparse % 512 != 0 || sparse > SPARSE_MAX {
            return refuse(format!(
                "Invalid buffer size for sparse output specified. Valid sizes are multiples of 512 up to {SPARSE_MAX}. Select 0 to disable sparse detection (fully allocates output)."
            ));
        }
        let threads = self.parallel.as_deref();
        let threads =
            threads.map(|text| bounded(face, "number of coroutines", text, 1, 16)).transpose()?;
        let rate = self.rate.as_deref().map(|text| size(face, "rate limit", text)).transpose()?;
        Ok(Numbers { sparse, threads: threads.and_then(|n| usize::try_from(n).ok()), rate })
    }

    fn check_combination(&self) -> Result<(), Failure> {
        let offload = self.copy_range_offloading;
        let refusals = [
            (
                self.no_create && !self.options.is_empty(),
                "-o has no effect when skipping image creation",
            ),
            (
                self.skip_broken_bitmaps && !self.bitmaps,
                "Use of --skip-broken-bitmaps requires --bitmaps",
            ),
            (offload && self.compress, "Cannot enable copy offloading when -c is used"),
            (
                offload && self.sparse_size.is_some(),
                "Cannot enable copy offloading when -S is used",
            ),
            (offload && self.salvage, "Cannot use copy offloading in salvaging mode"),
            (
                self.target_image_opts && !self.no_create,
                "--target-image-opts requires use of -n flag",
            ),
            (self.target_is_zero && !self.no_create, "--target-is-zero requires use of -n flag"),
        ];
        match refusals.iter().find(|(wrong, _)| *wrong) {
            Some((_, text)) => refuse(*text),
            None => Ok(()),
        }
    }

    fn format(&self, face: &Face, target: &str) -> String {
        let guess = || match face.drop_in {
            true => None,
            false => format_of_name(target),
        };
        self.target_format.clone().unwrap_or_else(|| guess().unwrap_or("raw").to_string())
    }

    fn open_sources(&self, face: &Face) -> Result<Vec<Node>, Failure> {
        let purpose = Purpose::new(OpenMode::Read).shared(self.force_share);
        let purpose = match self.force_share {
            true => purpose,
            false => Purpose { locking: Locking::Still, ..purpose },
        };
        let purpose = match self.source_cache.as_deref() {
            Some(mode) => Purpose { cache: source_cache(mode)?, ..purpose },
            None => purpose,
        };
        let names = self.images.split_last().map(|(_, names)| names).unwrap_or_default();
        let mut nodes = Vec::new();
        for name in names {
            nodes.push(self.source.open(face, name, purpose)?);
        }
        let Some(snapshot) = &self.source_snapshot else { return Ok(nodes) };
        let name = SnapshotName::parse(face, snapshot)?;
        if nodes.len() > 1 {
            return refuse("No support for concatenating multiple snapshot");
        }
        let Some(node) = nodes.pop() else { return Ok(nodes) };
        Ok(vec![view(node, &name)?])
    }

    fn plan(
        &self,
        face: &Face,
        format: &str,
        target: &str,
        mut options: Options,
        sources: &[Node],
    ) -> Result<Plan, Failure> {
        let driver = creatable(format)?;
        let total = total(sources)?;
        // qemu-img takes the size of the sources, whatever is asked for.
        if face.drop_in || options.text("size").is_none() {
            options.set("size", total.to_string());
        }
        let mut plan = Plan { driver, name: target.to_string(), options };
        plan.check()?;
        if let Some(backing) = &self.backing {
            if !driver.backing {
                return refuse(format!("Backing file not supported for file format '{format}'"));
            }
            plan.options.set("backing_file", backing);
        }
        if let Some(format) = &self.backing_format {
            plan.options.set("backing_fmt", format);
        }
        if let Some(backing) = plan.backing() {
            if sources.len() > 1 {
                return refuse(
                    "Having a backing file for the target makes no sense when concatenating multiple input images",
                );
            }
            if backing.format.is_none() {
                if face.drop_in {
                    return refuse("Use of backing file requires explicit backing format");
                }
                let node = plan.open_backing(&backing, &self.source.keys.secrets()?)?;
                plan.options.set("backing_fmt", node.image.format());
            }
        }
        self.check_compression(&plan)?;
        Ok(plan)
    }

    fn check_compression(&self, plan: &Plan) -> Result<(), Failure> {
        if !self.compress {
            return Ok(());
        }
        let given = |name: &str| plan.options.text(name).filter(|value| *value != "off");
        if !can_compress(plan.driver) {
            return Err(no_compression().into());
        }
        if given("encryption").is_some() || given("encrypt.format").is_some() {
            return refuse("Compression and encryption not supported at the same time");
        }
        if given("preallocation").is_some() {
            return refuse("Compression and preallocation not supported at the same time");
        }
        Ok(())
    }

    fn check_bitmaps(&self, sources: &[Node]) -> Result<(), Failure> {
        if !self.bitmaps {
            return Ok(());
        }
        match sources {
            [source] if source.image.format() != "qcow2" => refuse("Source lacks bitmap support"),
            [_] => Ok(()),
            _ => refuse("Copying bitmaps only possible with single source"),
        }
    }

    fn check_target(&self, node: &Node) -> Result<(), Failure> {
        let format = node.image.format();
        let old = || -> Result<bool, Error> {
            let facts = node.image.facts()?.unwrap_or_default();
            Ok(facts.iter().any(|(key, fact)| *key == "compat" && *fact == Fact::Text("0.10".into())))
        };
        if self.bitmaps && (format != "qcow2" || old()?) {
            return refuse(format!("Format driver '{format}' does not support bitmaps"));
        }
        if self.compress && node.image.compression().is_none() {
            return Err(no_compression().into());
        }
        Ok(())
    }

    /// How writes to the target are made durable. Scripts that call qemu-img expect its speed,
    /// and sync by themselves where they care; the native face always does.
    fn cache(&self, face: &Face) -> Result<Cache, Failure> {
        match self.target_cache.as_deref() {
            Some(mode) => Ok(Cache::parse(mode)?),
            None if face.drop_in => Ok(Cache::Unsafe),
            None => Ok(Cache::WriteBack),
        }
    }

    fn make_target(&self, face: &Face, plan: &Plan) -> Result<(Node, Option<Made>), Failure> {
        let cache = self.cache(face)?;
        let secrets = self.source.keys.secrets()?;
        let made = plan.make_as(face, &secrets, cache != Cache::Unsafe).map_err(|error| {
            error.context(format!("{}: error while converting {}", plan.name, plan.driver.name))
        })?;
        // A raw file's size, which nobody made durable yet.
        made.target.flush()?;
        let source = Source { keys: self.source.keys.clone(), ..Source::default() };
        let purpose = Purpose { cache, ..Purpose::new(OpenMode::Write) };
        let node = plan.open(&made, &source.settings(purpose)?)?;
        Ok((node, Some(made)))
    }

    /// Asked for with -n; a part of an image cannot be made, only written.
    fn writes_in_place(&self, face: &Face, target: &str) -> bool {
        self.no_create || !face.drop_in && part_of_file(target).is_some()
    }

    fn open_target(&self, face: &Face, name: &str) -> Result<Node, Failure> {
        let cache = self.cache(face)?;
        if let Some(address) = part_of_file(name).filter(|_| !self.target_image_opts) {
            return Ok(self.open_part(face, address)?.into_node());
        }
        let source = Source {
            format: match self.target_image_opts {
                true => self.target_format.clone(),
                // As in qemu-img: without -O, raw.
                false => Some(self.target_format.clone().unwrap_or_else(|| "raw".into())),
            },
            image_opts: self.target_image_opts,
            keys: self.source.keys.clone(),
            untrusted: self.source.untrusted,
        };
        let purpose = Purpose { cache, ..Purpose::new(OpenMode::Write) };
        let spec = source.spec(name)?;
        let node = disksmith_open::open(&spec, &source.settings(purpose)?)?;
        warn_if_guessed_raw(face, &node, OpenMode::Write);
        Ok(node)
    }
}

fn help(face: &Face, format: &str, has_target: bool) -> Outcome {
    let driver = creatable(format)?;
    face.print(&options::create_help(driver, has_target));
    if !face.drop_in && can_compress(driver) {
        face.print(PACKING_HELP);
    }
    Ok(DONE)
}

fn total(sources: &[Node]) -> Result<u64, Error> {
    sources.iter().try_fold(0u64, |sum, node| {
        sum.checked_add(node.image.size())
            .ok_or_else(|| Error::new(Kind::InvalidInput, "the sources are too large together"))
    })
}

/// Formats whose clusters can be compressed.
pub(crate) fn can_compress(driver: &Driver) -> bool {
    ["qcow2", "qcow", "vmdk"].contains(&driver.name)
}

pub(crate) fn no_compression() -> Error {
    Error::new(Kind::Unsupported, "Compression not supported for this file format")
}

/// A cache mode for reading.
pub(crate) fn source_cache(mode: &str) -> Result<Cache, Failure> {
    match Cache::parse(mode) {
        Ok(cache) => Ok(cache),
        Err(_) => refuse(format!("Invalid source cache option: {mode}")),
    }
}

/// Which snapshot of a source is meant.
#[derive(Debug)]
pub(crate) enum SnapshotName {
    /// By its id or else its name.
    Either(String),
    /// By what is given of both.
    Both(Option<String>, Option<String>),
}

impl SnapshotName {
    /// Reads `NAME`, or `snapshot.id=ID,snapshot.name=NAME`.
    pub(crate) fn parse(face: &Face, text: &str) -> Result<Self, Failure> {
        if !text.starts_with("snapshot.") {
            return Ok(Self::Either(text.to_string()));
        }
        let mut options = disksmith_open::parse_options(text, None)?;
        let unknown =
            options.iter().find(|(name, _)| !["snapshot.id", "snapshot.name"].contains(name));
        if let Some((name, _)) = unknown {
            face.complain(&format!("Invalid parameter '{name}'"));
            return refuse(format!("Failed in parsing snapshot param '{text}'"));
        }
        Ok(Self::Both(options.take("snapshot.id"), options.take("snapshot.name")))
    }

    /// What the image calls it.
    fn resolve(&self, node: &Node) -> String {
        let fits =
            |wanted: &Option<String>, have: &str| wanted.as_deref().is_none_or(|w| w == have);
        match self {
            Self::Either(name) => name.clone(),
            Self::Both(id, name) => {
                let mut list = node.image.snapshots().into_iter();
                let found = list.find(|s| fits(id, &s.id) && fits(name, &s.name));
                found.map(|snapshot| snapshot.id).unwrap_or_default()
            }
        }
    }
}

/// The stack with a snapshot's content on top.
pub(crate) fn view(node: Node, name: &SnapshotName) -> Result<Node, Failure> {
    let format = node.image.format();
    if format != "qcow2" {
        return Err(Error::new(
            Kind::Unsupported,
            format!("Block format '{format}' used by device '' does not support temporarily loading internal snapshots"),
        )
        .context("Failed to load snapshot")
        .into());
    }
    let name = name.resolve(&node);
    Ok(snapshot_view(node, &name)?)
}
