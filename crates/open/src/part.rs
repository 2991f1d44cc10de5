//! From an address to a disk: the image, its snapshot, its partition.

use std::any::Any;
use std::path::Path;
use std::sync::Arc;

use disksmith_disk::{Context, Disk, Error, Extent, Kind, Result, State, pass_on};
use disksmith_formats::{Image, ResizeRequest};
use disksmith_partitions::probe::Usage;
use disksmith_partitions::{Content, Label, Partition, Table, find, probe, read};

use crate::{Address, Node, Settings, chain_map};

/// The disk that an address means, open.
#[derive(Debug)]
pub struct OpenedDisk {
    /// Its bytes: the whole disk, or one partition.
    pub disk: Arc<dyn Disk>,
    /// The image it lies in.
    pub node: Arc<Node>,
    /// Where it begins in the whole disk, in bytes.
    pub start: u64,
    /// The partition, if it is one.
    pub partition: Option<Partition>,
    /// As the user named it, without path.
    pub shown: String,
}

/// Opens what an address names, up to its partition. The address's path does not matter here,
/// but a path without a partition means the filesystem that the disk has, as an empty one does.
pub fn open_disk(address: &Address, settings: &Settings) -> Result<OpenedDisk> {
    let shown = address.disk_name();
    let mut node = crate::open(&address.spec()?, settings)?;
    if let Some(name) = &address.snapshot {
        if settings.mode.writes() {
            return Err(Error::new(Kind::Refused, "a snapshot cannot be written to")
                .context(format!("Could not open '{shown}'")));
        }
        let image = node
            .image
            .open_snapshot(name)
            .with_context(|| format!("Could not open snapshot '{name}' of '{}'", node.shown))?;
        node = Node { image, ..node };
    }
    part_of(Arc::new(node), address)
}

/// What an address means in an image that is open already: only its partition matters here.
pub fn part_of(node: Arc<Node>, address: &Address) -> Result<OpenedDisk> {
    let shown = address.disk_name();
    let whole: Arc<dyn Disk> = Arc::new(View { node: node.clone() });
    let attempt = || format!("Could not open '{shown}'");
    let part = match (&address.part, &address.path) {
        (None, Some(_)) => Some(""),
        (part, _) => part.as_deref(),
    };
    let Some(wanted) = part else {
        return Ok(OpenedDisk { disk: whole, node, start: 0, partition: None, shown });
    };
    let Some((table, partition)) = select(&whole, wanted).with_context(attempt)? else {
        return Ok(OpenedDisk { disk: whole, node, start: 0, partition: None, shown });
    };
    let slice = table.slice(whole, partition.number).with_context(attempt)?;
    let start = slice.start();
    Ok(OpenedDisk { disk: Arc::new(slice), node, start, partition: Some(partition), shown })
}

/// The part of an image that is open already, if `address` names one in its file. A disk cannot be
/// opened twice when one of both writes.
pub fn sibling(node: &Arc<Node>, address: &Address) -> Result<Option<OpenedDisk>> {
    let own = node.file.as_ref().and_then(|file| file.id().ok());
    let other = disksmith_host::FileDisk::open(Path::new(&address.image), Default::default());
    let same = own.is_some() && own == other.ok().and_then(|file| file.id().ok());
    let format = address.format.as_deref();
    if !same || address.snapshot.is_some() || format.is_some_and(|f| f != node.image.format()) {
        return Ok(None);
    }
    part_of(node.clone(), address).map(Some)
}

impl OpenedDisk {
    /// All of an open image.
    pub fn whole(node: Node, shown: &str) -> Self {
        let node = Arc::new(node);
        let disk = Arc::new(View { node: node.clone() });
        Self { disk, node, start: 0, partition: None, shown: shown.to_string() }
    }

    /// The whole disk, whichever part of it was named.
    pub fn whole_disk(&self) -> Arc<dyn Disk> {
        Arc::new(View { node: self.node.clone() })
    }

    /// Writes everything that waits and leaves the image clean.
    pub fn close(&self) -> Result<()> {
        self.node.close()
    }

    /// The disk as a node of its own, for operations that work on chains. A plain image is
    /// handed over as it is.
    pub fn into_node(self) -> Node {
        let Self { disk, node, partition, shown, .. } = self;
        if partition.is_some() {
            return window(disk, node, false, shown);
        }
        drop(disk);
        match Arc::try_unwrap(node) {
            Ok(node) => node,
            Err(node) => window(Arc::new(View { node: node.clone() }), node, true, shown),
        }
    }
}

/// A disk made from (a part of) an image as a raw image of its own, for operations that work on
/// chains.
pub fn disk_node(disk: Arc<dyn Disk>, under: Arc<Node>, shown: &str) -> Node {
    window(disk, under, false, shown.to_string())
}

fn window(disk: Arc<dyn Disk>, under: Arc<Node>, whole: bool, shown: String) -> Node {
    let spec = under.spec.clone();
    let image = Window { disk, view: Arc::new(View { node: under.clone() }), under, whole };
    Node {
        image: Arc::new(image),
        shown,
        spec,
        path: None,
        file: None,
        data_file: None,
        below: None,
        export: None,
        backing: None,
        probed: false,
        ambiguous: Vec::new(),
    }
}

/// The partition that is meant; `None` is the whole disk.
fn select(whole: &Arc<dyn Disk>, wanted: &str) -> Result<Option<(Table, Partition)>> {
    let table = read(whole)?;
    let found = match wanted {
        "" => only_filesystem(whole, &table)?,
        name => named(whole, &table, name)?,
    };
    Ok(found.map(|partition| (table, partition)))
}

fn only_filesystem(whole: &Arc<dyn Disk>, table: &Table) -> Result<Option<Partition>> {
    // Swap space is alone on its disk, too: `label` and `fsck` know what to do with it.
    let alone = |content: Content| content.usage == Usage::Filesystem || content.kind == "swap";
    if probe(whole)?.is_some_and(alone) {
        return Ok(None);
    }
    let filesystems: Vec<_> = contents(whole, table)
        .into_iter()
        .filter(|(_, content)| content.usage == Usage::Filesystem)
        .collect();
    match filesystems.as_slice() {
        [(only, _)] => Ok(Some(only.clone())),
        [] => Err(Error::new(Kind::NotFound, "no filesystem was found on it")),
        several => {
            let error = Error::new(
                Kind::InvalidInput,
                format!("it has {} filesystems; say which one", several.len()),
            );
            Err(error.with_hint(listing(several)))
        }
    }
}

fn named(whole: &Arc<dyn Disk>, table: &Table, name: &str) -> Result<Option<Partition>> {
    if let Some(partition) = find(table, name)? {
        return Ok(Some(partition.clone()));
    }
    let bears = |content: &Content| {
        content.label.as_deref() == Some(name)
            || content.uuid.as_deref().is_some_and(|uuid| uuid.eq_ignore_ascii_case(name))
    };
    let all = contents(whole, table);
    let fits: Vec<_> = all.iter().filter(|(_, content)| bears(content)).collect();
    match fits.as_slice() {
        [(only, _)] => Ok(Some(only.clone())),
        [(first, _), (second, _), ..] => Err(Error::new(
            Kind::InvalidInput,
            format!("partitions {} and {} are both '{name}'", first.number, second.number),
        )
        .with_hint("Say which one by its number.")),
        [] if probe(whole)?.is_some_and(|content| bears(&content)) => Ok(None),
        [] => Err(not_found(table, &all, name)),
    }
}

fn not_found(table: &Table, all: &[(Partition, Content)], name: &str) -> Error {
    let error = Error::new(Kind::NotFound, format!("there is no partition '{name}'"));
    if name.starts_with('/') {
        return error.with_hint(format!("A path comes after a second colon: IMAGE::{name}"));
    }
    if table.label == Label::None || table.partitions.is_empty() {
        return error.with_hint("The disk has no partitions; IMAGE::PATH names a file on it.");
    }
    let numbers: Vec<_> = table.partitions.iter().map(|p| p.number.to_string()).collect();
    match all {
        [] => error.with_hint(format!("There are: {}.", numbers.join(", "))),
        all => error.with_hint(listing(all)),
    }
}

fn listing(partitions: &[(Partition, Content)]) -> String {
    let lines = partitions.iter().map(|(partition, content)| {
        let label = content.label.as_deref().map(|l| format!(" '{l}'")).unwrap_or_default();
        format!("{}: {}{label}", partition.number, content.kind)
    });
    format!("There are {}.", lines.collect::<Vec<_>>().join(", "))
}

/// What the partitions hold, as far as it can be read and is recognised.
fn contents(whole: &Arc<dyn Disk>, table: &Table) -> Vec<(Partition, Content)> {
    let partitions = table.partitions.iter().filter(|partition| !partition.is_extended());
    let content = |partition: &Partition| {
        let slice = table.slice(whole.clone(), partition.number).ok()?;
        Some((partition.clone(), probe(&slice).ok()??))
    };
    partitions.filter_map(content).collect()
}

/// What the guest sees of an image; says of a range what the whole chain says.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) node: Arc<Node>,
}

impl Disk for View {
    pass_on!(
        |own| own.node.image;
        size read_at write_at write_zeroes discard flush read_only geometry announce
    );

    fn map(&self, offset: u64, length: u64) -> Result<Extent> {
        let run = chain_map(&self.node, offset, length)?;
        let plain = self.host_window().and(run.place);
        Ok(Extent {
            length: run.length,
            state: if run.data && !run.zero { State::Data } else { State::Zero },
            place: plain,
            compressed: run.compressed,
        })
    }

    fn host_window(&self) -> Option<(std::os::fd::BorrowedFd<'_>, u64)> {
        match self.node.backing {
            None => self.node.image.host_window(),
            Some(_) => None,
        }
    }
}

/// A part of an image, as a raw image of its own.
#[derive(Debug)]
struct Window {
    disk: Arc<dyn Disk>,
    view: Arc<dyn Disk>,
    under: Arc<Node>,
    /// All of it, so that its size can be changed.
    whole: bool,
}

impl Disk for Window {
    pass_on!(
        |own| own.disk;
        size read_at write_at write_zeroes discard flush map read_only geometry announce
        host_window
    );
}

impl Image for Window {
    fn format(&self) -> &'static str {
        "raw"
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    /// The whole disk: [`Disk::map`] tells places in it.
    fn storage(&self) -> &Arc<dyn Disk> {
        &self.view
    }

    fn resize(&self, request: ResizeRequest) -> Result<()> {
        match self.whole {
            true => self.under.image.resize(request),
            false => Err(Error::new(Kind::Unsupported, "a partition has the size that it has")
                .with_hint("Change it with: partition IMAGE resize.")),
        }
    }

    fn close(&self) -> Result<()> {
        self.under.image.close()
    }
}
