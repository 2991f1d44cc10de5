//! Opening an image with everything under it.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use disksmith_disk::{Context, Disk, Error, Kind, Result, names};
use disksmith_formats::{Driver, Image, OpenMode, OpenRequest, Options, driver};
use disksmith_host::{FileDisk, FileId, LockSet, OpenOptions, Permission};
use disksmith_nbd::NbdDisk;

use crate::{
    BackingSpec, Cache, FileSpec, ImageSpec, Locking, MAX_CHAIN, MAX_NAME, Name, Settings,
    StorageSpec, Trust, probe_file, resolve, storage,
};

/// An open image with what it stands on.
#[derive(Debug)]
pub struct Node {
    /// The image; as a disk, what the guest sees.
    pub image: Arc<dyn Image>,
    /// As the user, or the image above, named it.
    pub shown: String,
    /// Its path, if it is a file.
    pub path: Option<PathBuf>,
    /// The file it lies in, if it is one.
    pub file: Option<Arc<FileDisk>>,
    /// The external data file, if the image has one and it was opened.
    pub data_file: Option<(PathBuf, Arc<FileDisk>)>,
    /// The image whose bytes it lies in, if it lies in one.
    pub below: Option<Arc<Node>>,
    /// The export that it is, if it is one.
    pub export: Option<Arc<NbdDisk>>,
    /// The image under it.
    pub backing: Option<Arc<Node>>,
    /// What was asked for.
    pub spec: ImageSpec,
    /// The format was guessed from the content.
    pub probed: bool,
    /// Further formats that the content fits.
    pub ambiguous: Vec<&'static str>,
}

impl Node {
    /// This image and those under it, top first.
    pub fn chain(&self) -> impl Iterator<Item = &Node> {
        std::iter::successors(Some(self), |node| node.backing.as_deref())
    }

    /// The image that shows the same: itself, or the one below layers that pass everything on.
    pub fn without_filters(&self) -> &Node {
        match (&self.spec.file, &self.below) {
            (FileSpec::Other(filter), Some(below)) if self.spec.bare && filter.image.is_some() => {
                below.without_filters()
            }
            _ => self,
        }
    }

    /// Writes everything that waits and leaves the image clean. Verbs that write end with this:
    /// what dropping an image does cannot fail for anyone to see.
    pub fn close(&self) -> Result<()> {
        self.image.close().with_context(|| format!("Could not close '{}'", self.shown))?;
        match &self.below {
            Some(below) if !below.image.read_only() => below.close(),
            _ => Ok(()),
        }
    }

    /// The name that says how to open it again: its path or address, or an option tree if there
    /// is more to say than that.
    pub fn filename(&self) -> String {
        self.spec.exact_name().unwrap_or_else(|| self.spec.as_json(self.image.format()))
    }

    /// The path of the file that holds the guest's data, or the name of what is in its place.
    pub fn data_name(&self) -> String {
        let path = self.data_file.as_ref().map(|(path, _)| path.as_path()).or(self.path.as_deref());
        match (path, &self.spec.file) {
            (Some(_), _) if self.shown == "-" => self.shown.clone(),
            (Some(path), _) => names::of_path(path),
            (None, FileSpec::Other(spec)) => storage::exact_name(spec).unwrap_or_default(),
            (None, _) => self.shown.clone(),
        }
    }

    /// The name of the backing image that this image names, resolved against its own place;
    /// protocol names stay as they are.
    pub fn full_backing_name(&self) -> Option<String> {
        let name = self.image.backing()?.name;
        match Name::parse(&name) {
            Name::Path(path) => {
                let path = resolve(self.path.as_deref()?, &names::of_path(&path));
                Some(names::of_path(&path))
            }
            _ => Some(name),
        }
    }

    /// The backing image that this image names, as something to open. Only plain paths are.
    pub fn backing_spec(&self) -> Result<ImageSpec> {
        let backing = self.image.backing().unwrap_or_default();
        let path = self.path.as_deref().unwrap_or(Path::new(""));
        let path = plain_reference(path, &backing.name, "backing file")?;
        let shown = names::of_path(&path);
        Ok(ImageSpec::from_path(path, &shown, backing.format.as_deref()))
    }
}

/// Opens what `spec` names. Errors read `Could not open 'NAME': reason`.
pub fn open(spec: &ImageSpec, settings: &Settings) -> Result<Node> {
    open_plainly(spec, settings).with_context(|| format!("Could not open '{}'", spec.shown))
}

/// Opens what `spec` names; errors are the bare reason.
pub fn open_plainly(spec: &ImageSpec, settings: &Settings) -> Result<Node> {
    Opener { settings, seen: HashSet::new(), depth: 0 }.top(spec)
}

/// Opens a plain host file with cache and write settings.
pub fn open_file(path: &Path, write: bool, cache: Cache) -> Result<FileDisk> {
    let options = OpenOptions {
        write,
        create: false,
        direct: matches!(cache, Cache::None | Cache::DirectSync),
        sync: matches!(cache, Cache::WriteThrough | Cache::DirectSync),
        no_flush: cache == Cache::Unsafe,
    };
    FileDisk::open(path, options)
        .with_context(|| format!("Could not open '{}'", names::of_path(path)))
}

struct Opener<'a> {
    settings: &'a Settings,
    seen: HashSet<FileId>,
    depth: usize,
}

impl Opener<'_> {
    fn top(&mut self, spec: &ImageSpec) -> Result<Node> {
        self.node(spec, self.settings.mode, false)
    }

    fn node(&mut self, spec: &ImageSpec, mode: OpenMode, below: bool) -> Result<Node> {
        self.depth += 1;
        if self.depth > MAX_CHAIN {
            return Err(Error::new(
                Kind::LimitExceeded,
                format!("the backing chain is longer than {MAX_CHAIN} images"),
            ));
        }
        let named = spec.format.as_deref().map(known_driver).transpose()?;
        let locking = locking(spec, self.settings.locking)?;
        if locking == Locking::Shared && mode.writes() {
            return Err(Error::new(
                Kind::InvalidInput,
                "force-share=on can only be used with read-only images",
            ));
        }
        let under = self.under(&spec.file, mode)?;
        if let Some(file) = &under.file
            && !self.seen.insert(file.id()?)
            && below
        {
            return Err(Error::new(
                Kind::Corrupt,
                format!("the backing chain leads back to '{}'", spec.shown),
            ));
        }
        let probe = match named {
            Some(driver) => crate::ProbeResult { driver, others: Vec::new() },
            None => probe_file(&*under.disk)
                .context("Could not read image for determining its format")?,
        };
        check_options(probe.driver, &spec.options)?;
        if let Some(file) = &under.file {
            file.lock(locks(probe.driver, mode, locking, below))?;
        }
        let image = self.image(spec, probe.driver, named.is_none(), mode, &under.disk)?;
        let data_file = self.data_file(spec, &*image, under.path.as_deref(), mode)?;
        let mut node = Node {
            image,
            shown: spec.shown.clone(),
            spec: spec.clone(),
            path: under.path,
            file: under.file,
            data_file,
            below: under.image,
            export: under.export,
            backing: None,
            probed: named.is_none(),
            ambiguous: probe.others,
        };
        if self.settings.follow_backing {
            self.attach_backing(&mut node, spec)?;
        }
        Ok(node)
    }

    /// Opens what an image lies on.
    fn under(&mut self, spec: &FileSpec, mode: OpenMode) -> Result<Under> {
        match spec {
            FileSpec::Path(path) => {
                let file = Arc::new(open_file(path, mode.writes(), self.settings.cache)?);
                let disk: Arc<dyn Disk> = file.clone();
                Ok(Under { file: Some(file), path: Some(path.clone()), ..Under::disk(disk) })
            }
            FileSpec::Image(spec) => {
                let node = Arc::new(self.node(spec, mode, false)?);
                let (file, path) = (node.file.clone(), node.path.clone());
                let disk: Arc<dyn Disk> = match transparent(&node) {
                    true => node.image.storage().clone(),
                    false => Arc::new(crate::part::View { node: node.clone() }),
                };
                let file = file.filter(|_| transparent(&node));
                Ok(Under { file, path, image: Some(node), ..Under::disk(disk) })
            }
            FileSpec::Other(spec) => {
                let below = spec.image.as_ref().map(|image| FileSpec::Image(image.clone()));
                let below = below.map(|below| self.under(&below, mode)).transpose()?;
                let (below, path, image) = match below {
                    Some(under) => (Some(under.disk), under.path, under.image),
                    None => (None, None, None),
                };
                let children = self.children(spec, mode)?;
                let opened = storage::open(spec, below, children, mode.writes())?;
                let export = opened.export;
                Ok(Under { path, image, export, ..Under::disk(opened.disk) })
            }
        }
    }

    /// Opens the copies that storage is made of.
    fn children(&mut self, spec: &StorageSpec, mode: OpenMode) -> Result<Vec<Arc<dyn Disk>>> {
        let mut children = Vec::new();
        for child in &spec.children {
            let child = self.under(child, mode)?;
            if let Some(file) = &child.file {
                file.lock(data_locks(mode, self.settings.locking))?;
            }
            children.push(child.disk);
        }
        Ok(children)
    }

    fn image(
        &self,
        spec: &ImageSpec,
        driver: &Driver,
        probed: bool,
        mode: OpenMode,
        storage: &Arc<dyn Disk>,
    ) -> Result<Arc<dyn Image>> {
        let mut options = spec.options.clone();
        let secret = match take_key_name(&mut options) {
            Some(id) if mode != OpenMode::Inspect => Some(self.settings.secrets.get(&id)?.clone()),
            None if mode != OpenMode::Inspect => self.settings.secrets.implied().cloned(),
            _ => None,
        };
        if driver.name == "raw" && probed && mode.writes() {
            options.set("guard", "on");
        }
        (driver.open)(storage.clone(), OpenRequest { mode, secret, options })
    }

    fn data_file(
        &self,
        spec: &ImageSpec,
        image: &dyn Image,
        path: Option<&Path>,
        mode: OpenMode,
    ) -> Result<Option<(PathBuf, Arc<FileDisk>)>> {
        let Some(name) = image.data_file() else { return Ok(None) };
        if mode == OpenMode::Inspect {
            return Ok(None);
        }
        let data_path = match spec.data_file.as_deref().and_then(ImageSpec::path) {
            Some(path) => path.to_path_buf(),
            None => {
                let beside = self.reference(path.unwrap_or(Path::new("")), &name, "data file")?;
                data_path(&name, beside)
            }
        };
        let data = open_file(&data_path, mode.writes(), self.settings.cache)?;
        let data = Arc::new(data);
        data.lock(data_locks(mode, self.settings.locking))?;
        image.attach_data_file(data.clone())?;
        Ok(Some((data_path, data)))
    }

    fn attach_backing(&mut self, node: &mut Node, spec: &ImageSpec) -> Result<()> {
        let below = match &spec.backing {
            BackingSpec::Nothing => return Ok(()),
            BackingSpec::Instead(spec) => (**spec).clone(),
            BackingSpec::AsNamed => match self.named_backing(node)? {
                Some(spec) => spec,
                None => return Ok(()),
            },
        };
        let mode = match self.settings.mode {
            OpenMode::Inspect => OpenMode::Inspect,
            _ => OpenMode::Read,
        };
        let backing = self
            .node(&below, mode, true)
            .map_err(|error| {
                let (below, above) = (&below.shown, &node.shown);
                error.with_hint(format!("'{below}' is the backing file of '{above}'."))
            })
            .context("Could not open backing file")?;
        node.image.attach_backing(Some(backing.image.clone()))?;
        node.backing = Some(Arc::new(backing));
        Ok(())
    }

    fn named_backing(&self, node: &Node) -> Result<Option<ImageSpec>> {
        let Some(backing) = node.image.backing() else { return Ok(None) };
        let Some(path) = &node.path else {
            return Err(Error::new(
                Kind::Refused,
                "an image that is no file cannot name a relative backing file",
            ));
        };
        let resolved = self.reference(path, &backing.name, "backing file")?;
        let shown = names::of_path(&resolved);
        Ok(Some(ImageSpec::from_path(resolved, &shown, backing.format.as_deref())))
    }

    /// The path that an image refers to, if it may be opened.
    fn reference(&self, image: &Path, name: &str, what: &str) -> Result<PathBuf> {
        if self.settings.trust == Trust::Nothing {
            return Err(Error::new(
                Kind::Refused,
                format!(
                    "the image refers to the {what} '{name}', which an untrusted image may not"
                ),
            )
            .with_hint("Open it without --untrusted if you trust where the image came from."));
        }
        plain_reference(image, name, what)
    }
}

/// The data file that an image means by a name. QEMU looks from the working directory [measured
/// with 10.0.2]; who moved both files together finds it beside the image.
fn data_path(name: &str, beside: PathBuf) -> PathBuf {
    let from_here = resolve(Path::new(""), name);
    if from_here.exists() || !beside.exists() { from_here } else { beside }
}

/// The path that an image means by a name. Anything but a plain path is refused: what comes
/// out of an image never chooses a protocol or sets options.
fn plain_reference(image: &Path, name: &str, what: &str) -> Result<PathBuf> {
    if name.len() > MAX_NAME {
        return Err(Error::new(Kind::LimitExceeded, format!("the name of the {what} is too long")));
    }
    match Name::parse(name) {
        Name::Path(name) => Ok(resolve(image, &names::of_path(&name))),
        Name::Json(_) | Name::Protocol(..) => Err(Error::new(
            Kind::Refused,
            format!("the image names its {what} '{name}', which is not a plain path"),
        )
        .with_hint(
            "Give the whole stack yourself (json:{…} or --image-opts) if it is what you want.",
        )),
    }
}

/// What an image lies on, open.
struct Under {
    disk: Arc<dyn Disk>,
    /// The file, if it is one as it is.
    file: Option<Arc<FileDisk>>,
    /// The path against which names in the image are meant.
    path: Option<PathBuf>,
    /// The image, if it is one.
    image: Option<Arc<Node>>,
    /// The export, if it is one.
    export: Option<Arc<NbdDisk>>,
}

impl Under {
    fn disk(disk: Arc<dyn Disk>) -> Self {
        Self { disk, file: None, path: None, image: None, export: None }
    }
}

/// Whether an image is its file, byte for byte.
fn transparent(node: &Node) -> bool {
    let window = ["offset", "size"].iter().any(|name| node.spec.options.text(name).is_some());
    node.image.format() == "raw" && !window
}

/// Options that concern opening, not the format.
fn locking(spec: &ImageSpec, usual: Locking) -> Result<Locking> {
    let shared = spec.options.flag("force-share")?.unwrap_or(false);
    Ok(if shared && usual != Locking::Off { Locking::Shared } else { usual })
}

/// Refuses runtime options that the format does not have.
fn check_options(driver: &Driver, options: &Options) -> Result<()> {
    let is_known = |name: &str| {
        storage::is_common(name) || driver.runtime_options.iter().any(|spec| spec.name == name)
    };
    if let Some((name, _)) = options.iter().find(|(name, _)| !is_known(name)) {
        let text = format!("Block format '{}' does not support the option '{name}'", driver.name);
        return Err(Error::new(Kind::InvalidInput, text));
    }
    let mut own = options.clone();
    let names: Vec<_> = options.iter().map(|(name, _)| name.to_string()).collect();
    for name in names.iter().filter(|name| storage::is_common(name)) {
        own.take(name);
    }
    own.check(driver.runtime_options)
}

fn known_driver(name: &str) -> Result<&'static Driver> {
    // QEMU's names for the file below: the bytes as they are.
    let name = if matches!(name, "file" | "host_device" | "host_cdrom") { "raw" } else { name };
    driver(name).ok_or_else(|| Error::new(Kind::Unsupported, format!("Unknown driver '{name}'")))
}

fn take_key_name(options: &mut Options) -> Option<String> {
    options.take("encrypt.key-secret").or_else(|| options.take("key-secret"))
}

/// The locks that QEMU takes in the same place; measured, see the table in the format digest.
fn locks(driver: &Driver, mode: OpenMode, locking: Locking, below: bool) -> LockSet {
    use Permission::{ConsistentRead, Resize, Write};
    let metadata = driver.name != "raw";
    match locking {
        Locking::Off => LockSet::NONE,
        Locking::Inspect if metadata || below => LockSet::new(&[], &[Write, Resize]),
        Locking::Inspect => LockSet::NONE,
        Locking::Shared => LockSet::new(&[ConsistentRead], &[]),
        Locking::Resize if mode.writes() && !metadata => {
            LockSet::new(&[ConsistentRead, Write, Resize], &[])
        }
        Locking::Serve if mode.writes() && !metadata => {
            LockSet::new(&[ConsistentRead, Write], &[Write, Resize])
        }
        Locking::Serve if !mode.writes() && !metadata => LockSet::new(&[ConsistentRead], &[Resize]),
        Locking::Normal | Locking::Still | Locking::Resize | Locking::Serve
            if mode.writes() && metadata =>
        {
            LockSet::new(&[ConsistentRead, Write, Resize], &[Write, Resize])
        }
        Locking::Normal | Locking::Still if mode.writes() => {
            LockSet::new(&[ConsistentRead, Write], &[])
        }
        Locking::Still | Locking::Serve => LockSet::new(&[ConsistentRead], &[Write, Resize]),
        Locking::Normal | Locking::Resize if metadata || below => {
            LockSet::new(&[ConsistentRead], &[Write, Resize])
        }
        Locking::Normal | Locking::Resize => LockSet::new(&[ConsistentRead], &[]),
    }
}

fn data_locks(mode: OpenMode, locking: Locking) -> LockSet {
    use Permission::{ConsistentRead, Resize, Write};
    match locking {
        Locking::Off => LockSet::NONE,
        Locking::Inspect => LockSet::new(&[], &[Write, Resize]),
        Locking::Shared => LockSet::new(&[ConsistentRead], &[]),
        Locking::Normal | Locking::Still | Locking::Resize | Locking::Serve if mode.writes() => {
            LockSet::new(&[ConsistentRead, Write, Resize], &[Write, Resize])
        }
        Locking::Normal | Locking::Still | Locking::Resize | Locking::Serve => {
            LockSet::new(&[ConsistentRead], &[Write, Resize])
        }
    }
}
