//! `clone`: copy a whole disk, from a device or an image, to either.

mod destination;
mod resume;
mod still;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use destination::{Destination, refuse_itself, refuse_target_in_use};
use disksmith_disk::{Disk, human_size};
use disksmith_formats::OpenMode;
use disksmith_host::{FileDisk, OpenOptions, publish};
use disksmith_open::{Address, ImageSpec, Locking, Node, OpenedDisk, Settings, open_disk};
use disksmith_operations::Observer;
use disksmith_operations::clone::{
    CloneRequest, PartUse, Reader, Record, clone, free_space_of, verify,
};
use serde_json::json;

use super::Verb;
use super::build::{refuse_holding, refuse_in_use};
use super::common::{Form, Purpose, Source};
use crate::face::{DONE, FAILED, Face, Failure, Outcome, refuse};
use crate::making::{Plan, creatable, format_of_name, join_lists};
use crate::progress::{Telling, Watch};
use crate::render::json::pretty;
use crate::signals;

/// The arguments of `clone`.
#[derive(clap::Args, Debug, Default)]
#[command(after_help = HELP)]
pub(crate) struct CloneVerb {
    #[command(flatten)]
    pub source: Source,
    /// Leave out what ext, FAT and swap say is free
    #[arg(long)]
    pub used_only: bool,
    /// Go on past what cannot be read, and list it in this file, in ddrescue's form
    #[arg(long, value_name = "MAPFILE")]
    pub rescue: Option<PathBuf>,
    /// Read the copy back and compare it with what was read from the source
    #[arg(long)]
    pub verify: bool,
    /// Even if the target holds data, or the source is mounted and cannot be frozen
    #[arg(long)]
    pub force: bool,
    /// Show what would be done, and do nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Format of the target; told from the suffix of its name when not given
    #[arg(short = 'O', long, value_name = "FMT")]
    pub target_format: Option<String>,
    /// Options of the target's format, as name=value,…
    #[arg(short, long, value_name = "OPTIONS")]
    pub options: Vec<String>,
    #[command(flatten)]
    pub form: Form,
    #[command(flatten)]
    pub telling: Telling,
    /// The disk to copy: a block device or an image
    #[arg(value_name = "SOURCE")]
    pub from: String,
    /// Where to: an image to make, or a block device
    #[arg(value_name = "TARGET")]
    pub to: String,
}

const HELP: &str = "\
A copy that was cut short goes on where it stopped when the same command is run again. Until it is
whole, an image lies beside the target, as .TARGET.clone with .TARGET.clone-map; what was copied to
a device is recorded in ~/.local/state/disksmith. A device that is mounted is kept still while it is
copied (root). Exit status 1 with --rescue also means that something could not be read; the copy is
there all the same.";

impl Verb for CloneVerb {
    const NAME: &'static str = "clone";
    const ABOUT: &'static str =
        "Copy a whole disk, from a device or an image, to an image or a device";

    fn run(self, face: &Face) -> Outcome {
        self.form.is_json()?;
        let source = self.open_source(face)?;
        let mut target = Destination::of(&self.to)?;
        refuse_itself(&source, &self.to)?;
        if self.dry_run {
            return self.tell_plan(face, &source);
        }
        let frozen = self.keep_still(face, &source, &mut target)?;
        let result = self.copy(face, &source, &target);
        drop(frozen);
        result.map_err(|failure| match failure {
            Failure::Error(error) => {
                Failure::Error(error.context(format!("Could not clone '{}'", self.from)))
            }
            other => other,
        })
    }
}

impl CloneVerb {
    fn open_source(&self, face: &Face) -> Result<OpenedDisk, Failure> {
        let purpose = Purpose { locking: Locking::Still, ..Purpose::new(OpenMode::Read) };
        let settings = self.source.settings(purpose)?;
        let device = std::fs::metadata(&self.from).is_ok_and(|meta| !meta.is_file());
        let mut address = match self.source.image_opts || self.from == "-" {
            true => {
                let spec = self.source.read_spec(face, &self.from)?;
                return Ok(OpenedDisk::whole(disksmith_open::open(&spec, &settings)?, &self.from));
            }
            false => Address::parse(&self.from).with_format(self.source.format.as_deref()),
        };
        if device && address.is_plain() {
            // A device is copied as it is, whatever its first bytes look like.
            address.format.get_or_insert_with(|| "raw".into());
        }
        Ok(open_disk(&address, &settings)?)
    }

    fn copy(&self, face: &Face, source: &OpenedDisk, target: &Destination) -> Outcome {
        let identity = self.identity(source)?;
        let (free, parts) = match self.used_only {
            true => free_space_of(&source.disk)?,
            false => Default::default(),
        };
        let record = self.rescue.clone().or(target.map.clone());
        if let (true, Some(file)) = (self.used_only, &source.node.file) {
            // What is free is not read by mistake either.
            file.no_readahead();
        }
        let size = source.disk.size();
        let known = match &record {
            Some(path) => {
                self.earlier(face, source, target, (path.as_path(), identity.as_str()), &free)?
            }
            None => None,
        };
        if let (None, None, Some(map)) = (&known, &self.rescue, &target.map) {
            // What an earlier copy of something else left behind.
            let _ = std::fs::remove_file(map);
        }
        let start = known.as_ref().map_or(0, |known| known.resumable());
        if start > 0 && !self.telling.quiet {
            face.note(&format!("going on from {} of {}\n", human_size(start), human_size(size)));
        }
        let mut reader = Reader::new(source.disk.clone()).without(free);
        if self.rescue.is_some() {
            let bad = known.as_ref().map(|known| known.bad()).unwrap_or_default();
            reader = reader.rescuing(past_the_cache(source), bad);
        }
        if self.verify {
            reader = reader.hashing();
        }
        let reader = Arc::new(reader);
        let node = self.open_target(face, target, size, start)?;
        let wanted = self.rescue.is_some();
        let request = CloneRequest {
            reader: reader.clone(),
            source: source.node.clone(),
            target: &node,
            target_is_zero: !target.device,
            start,
            record: record.clone().map(|path| Record { path, identity, wanted }),
        };
        let watch = Stoppable::new(Watch::new(face, self.telling.progress(face)));
        let result = clone(&request, &watch);
        watch.inner.finish();
        let result = result.and_then(|()| node.close());
        drop(node);
        if let Err(error) = result {
            return Err(target.leave(error, record.as_deref()).into());
        }
        if self.verify {
            self.read_back(target, &reader, start, &watch)?;
        }
        if !target.device {
            publish(&target.place, &target.path)?;
        }
        if let (Some(map), None) = (&target.map, &self.rescue) {
            let _ = std::fs::remove_file(map);
        }
        self.report(face, &reader, &parts)
    }

    fn tell_plan(&self, face: &Face, source: &OpenedDisk) -> Outcome {
        let size = human_size(source.disk.size());
        let used = if self.used_only { ", without what filesystems say is free," } else { "" };
        let mut lines = Vec::new();
        if std::fs::metadata(&self.to).is_ok() {
            let settings = self.source.settings(Purpose::new(OpenMode::Read))?;
            let there = open_disk(&Address::parse(&self.to), &settings)?;
            lines.extend(super::mkfs::loss(&*there.disk, self.force));
        }
        let format = self.format();
        lines.push(format!("copy {size}{used} from '{}' to '{}' ({format})", self.from, self.to));
        if self.verify {
            lines.push("read the copy back and compare it".into());
        }
        face.print(&format!("{}\n", lines.join("\n")));
        Ok(DONE)
    }

    fn format(&self) -> String {
        self.target_format
            .clone()
            .unwrap_or_else(|| format_of_name(&self.to).unwrap_or("raw").to_string())
    }

    fn open_target(
        &self,
        face: &Face,
        target: &Destination,
        size: u64,
        start: u64,
    ) -> Result<Node, Failure> {
        let format = self.format();
        let settings = Settings { locking: Locking::Serve, ..Settings::new(OpenMode::Write) };
        if target.device {
            let shown = self.to.as_str();
            refuse_in_use(&target.path)?;
            if !self.force && start == 0 {
                refuse_holding(&target.path)?;
            }
            let spec = ImageSpec::from_path(&target.path, shown, Some("raw"));
            let node = disksmith_open::open(&spec, &settings)?;
            if node.image.size() < size {
                return refuse(format!(
                    "'{shown}' has {} bytes, the source has {size}: it does not fit",
                    node.image.size()
                ));
            }
            return Ok(node);
        }
        if start > 0 {
            let spec = ImageSpec::from_path(&target.place, &self.to, Some(&format));
            return Ok(disksmith_open::open(&spec, &settings)?);
        }
        let driver = creatable(&format)?;
        let mut options = join_lists(&self.options)?;
        if options.text("data_file").is_some() || options.text("backing_file").is_some() {
            return refuse("a clone stands by itself: no data_file or backing_file");
        }
        options.set("size", size.to_string());
        let place = target.place.to_string_lossy().into_owned();
        let plan = Plan { driver, name: place, options };
        plan.check()?;
        refuse_target_in_use(&target.path)?;
        if !self.force {
            refuse_holding(&target.path)?;
        }
        let made = plan.make(face, &self.source.keys.secrets()?)?;
        made.keep()?;
        let spec = ImageSpec::from_path(&target.place, &self.to, Some(&format));
        Ok(disksmith_open::open(&spec, &settings)?)
    }

    fn read_back(
        &self,
        target: &Destination,
        reader: &Reader,
        start: u64,
        watch: &dyn Observer,
    ) -> Result<(), Failure> {
        let format = if target.device { "raw".to_string() } else { self.format() };
        let spec = ImageSpec::from_path(&target.place, &self.to, Some(&format));
        let node = disksmith_open::open(&spec, &Settings::new(OpenMode::Read))?;
        if let Some(file) = &node.file {
            // What the device has, not what memory has.
            file.drop_cache(0, 0);
        }
        let opened = OpenedDisk::whole(node, &self.to);
        Ok(verify(reader, &*opened.disk, start, !target.device, watch)?)
    }

    fn report(&self, face: &Face, reader: &Reader, parts: &[PartUse]) -> Outcome {
        if self.form.is_json()? {
            face.print(&self.as_json(reader, parts));
        } else if !self.telling.quiet {
            for part in parts {
                face.print(&format!("{}\n", told(part)));
            }
            let checked = if self.verify { ", read back and equal" } else { "" };
            face.print(&format!(
                "copied {} of {}{checked}\n",
                human_size(reader.bytes_read()),
                human_size(reader.size())
            ));
        }
        let bad = reader.bad();
        if bad.is_empty() {
            return Ok(DONE);
        }
        let bytes: u64 = bad.iter().map(|range| range.end - range.start).sum();
        let map = self.rescue.as_deref().unwrap_or(Path::new("")).display().to_string();
        face.complain(&format!(
            "{bytes} bytes in {} places of '{}' could not be read; they are zeroes in the copy, and listed in '{map}'",
            bad.len(),
            self.from
        ));
        Ok(FAILED)
    }

    fn as_json(&self, reader: &Reader, parts: &[PartUse]) -> String {
        let part = |part: &PartUse| {
            json!({
                "partition": part.partition,
                "type": part.kind,
                "size": part.size,
                "used": part.used,
                "copied-whole-because": part.whole,
            })
        };
        let bad = reader.bad().into_iter();
        pretty(&json!({
            "size": reader.size(),
            "copied": reader.bytes_read(),
            "verified": self.verify,
            "parts": parts.iter().map(part).collect::<Vec<_>>(),
            "unreadable": bad
                .map(|range| json!({ "start": range.start, "length": range.end - range.start }))
                .collect::<Vec<_>>(),
        }))
    }
}

fn told(part: &PartUse) -> String {
    let place =
        part.partition.map_or_else(|| "disk".to_string(), |number| format!("partition {number}"));
    let kind = part.kind.unwrap_or("nothing recognised");
    match (&part.whole, part.used == part.size) {
        (Some(why), _) => format!("{place}: {kind}, copied whole: {why}"),
        (None, true) => format!("{place}: {kind}, copied whole: {}", human_size(part.size)),
        (None, false) => {
            format!("{place}: {kind}, {} of {} used", human_size(part.used), human_size(part.size))
        }
    }
}

/// The source for small pieces: a device's own sectors where it is one.
fn past_the_cache(source: &OpenedDisk) -> Arc<dyn Disk> {
    let device = source
        .node
        .path
        .as_deref()
        .filter(|_| source.partition.is_none() && source.node.image.format() == "raw");
    let direct = OpenOptions { direct: true, ..OpenOptions::default() };
    match device.and_then(|path| FileDisk::open(path, direct).ok()) {
        Some(disk) if disk.is_block_device() && disk.size() == source.disk.size() => Arc::new(disk),
        _ => source.disk.clone(),
    }
}

/// Stops in good order when the user wants to: what was copied can be gone on with.
struct Stoppable {
    inner: Watch,
    stop: Arc<AtomicBool>,
}

impl Stoppable {
    fn new(inner: Watch) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let seen = stop.clone();
        signals::on_stop(Box::new(move || seen.store(true, Ordering::Release)));
        Self { inner, stop }
    }
}

impl Observer for Stoppable {
    fn progress(&self, done: u64, total: u64) {
        self.inner.progress(done, total);
    }

    fn warning(&self, text: &str) {
        self.inner.warning(text);
    }

    fn cancelled(&self) -> bool {
        self.stop.load(Ordering::Acquire) || self.inner.cancelled()
    }
}
