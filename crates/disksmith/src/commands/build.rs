//! `build`: make a whole disk from a tree, a tar file or a description.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use disksmith_disk::{Context, Disk, Error, human_size};
use disksmith_formats::{OpenMode, Options};
use disksmith_host::{FileDisk, OpenOptions, refuse_mounted};
use disksmith_open::{ImageSpec, Locking, Node, OpenedDisk, Settings, disk_node};
use disksmith_operations::build::{Build, BuildRequest, DiskSpec, TreeRequest};
use disksmith_operations::{ConvertRequest, convert};
use serde_json::json;

use super::Verb;
use super::convert::{can_compress, no_compression};
use super::mkfs::{epoch, keep, refuse_if_used};
use crate::face::{DONE, Face, Failure, Outcome, refuse, usage};
use crate::making::{Plan, creatable, format_of_name, join_lists};
use crate::progress::{Telling, Watch};
use crate::render::json::pretty;

/// A description of a disk has at most so many bytes.
const SPEC_MAX: u64 = 16 << 20;

/// The arguments of `build`.
#[derive(clap::Args, Debug, Default)]
#[command(after_help = HELP)]
pub(crate) struct BuildVerb {
    /// The directory or tar file (also gzip, xz, zstd; - for standard input) to fill the disk with
    #[arg(short = 'd', long, value_name = "DIR|TAR|-")]
    pub from: Option<String>,
    /// Size of the disk, or auto: what the files need
    #[arg(short = 's', long, value_name = "SIZE|auto")]
    pub size: Option<String>,
    /// gpt, mbr or none; mbr with --boot bios, else gpt
    #[arg(long, value_name = "TABLE")]
    pub table: Option<String>,
    /// Type of the filesystem
    #[arg(short = 't', long = "type", value_name = "TYPE")]
    pub kind: Option<String>,
    /// Label of the filesystem
    #[arg(short = 'L', long)]
    pub label: Option<String>,
    /// bios or uefi: add what is missing to boot from the disk
    #[arg(long, value_name = "FIRMWARE")]
    pub boot: Option<String>,
    /// With --boot uefi, go on though the tree has no kernel or boot loader yet
    #[arg(long)]
    pub boot_later: bool,
    /// Bytes in a sector of the disk: 512 or 4096
    #[arg(long, value_name = "BYTES")]
    pub sector_size: Option<u32>,
    /// Owner of all files: UID:GID
    #[arg(long, value_name = "UID:GID")]
    pub owner: Option<String>,
    /// Goes into every id of the disk; 'random' makes another disk each time
    #[arg(long, value_name = "TEXT")]
    pub seed: Option<String>,
    /// The image to make
    #[arg(short, long, value_name = "IMAGE")]
    pub output: Option<String>,
    /// Its format; told from the suffix of its name when not given
    #[arg(short = 'O', long = "format", value_name = "FMT")]
    pub format: Option<String>,
    /// Options of the format, as name=value,…
    #[arg(long, value_name = "OPTIONS")]
    pub options: Vec<String>,
    /// Store it compressed, where the format can (qcow2); needs room for the files beside it
    #[arg(short, long)]
    pub compress: bool,
    /// Even if the target holds data
    #[arg(long)]
    pub force: bool,
    /// Show what would be made, and make nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Describe the disk as JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub telling: Telling,
    /// The description of the disk, in TOML
    #[arg(value_name = "SPEC.toml")]
    pub spec: Option<String>,
}

const HELP: &str = "\
With --boot uefi the tree's /boot/efi becomes the EFI system partition, partition 1, and the root
is partition 2. With --boot bios the tree's /boot/extlinux/extlinux.conf is what boots. Without
--boot there is one partition. The same input gives the same disk, bit by bit: ids follow from the
files, times from SOURCE_DATE_EPOCH or the newest file.";

impl Verb for BuildVerb {
    const NAME: &'static str = "build";
    const ABOUT: &'static str = "Make a whole disk from a directory, a tar file or a description";

    fn run(self, face: &Face) -> Outcome {
        let mut spec = self.disk_spec()?;
        if spec.seed.as_deref() == Some("random") {
            spec.seed = Some(uuid::Uuid::new_v4().to_string());
        }
        let output = match &self.output {
            Some(output) => output.clone(),
            None if self.dry_run => String::new(),
            None => return usage("where to? Say -o IMAGE"),
        };
        let format = self.format.clone().or(spec.format.clone());
        let format = format.unwrap_or_else(|| format_of_name(&output).unwrap_or("raw").to_string());
        let mut options = join_lists(&self.options)?;
        for (name, value) in &spec.options {
            if options.text(name).is_none() {
                options.set(name, value);
            }
        }
        let input = spool(&mut spec)?;
        let watch = Watch::new(face, self.telling.progress(face));
        let request = BuildRequest { spec, input, time: epoch()? };
        let attempt = || format!("Could not build '{output}'");
        let build = Build::prepare(request, &watch).with_context(attempt)?;
        if self.dry_run {
            face.print(&self.described(&build));
            return Ok(DONE);
        }
        let result = self.make(face, &build, &output, &format, options, &watch);
        watch.finish();
        result.map_err(|failure| match failure {
            Failure::Error(error) => Failure::Error(error.context(attempt())),
            other => other,
        })?;
        if !self.telling.quiet || self.json {
            face.print(&self.described(&build));
        }
        Ok(DONE)
    }
}

impl BuildVerb {
    fn described(&self, build: &Build) -> String {
        if self.json { as_json(build) } else { describe(build) }
    }

    fn disk_spec(&self) -> Result<DiskSpec, Failure> {
        let mut spec = match (&self.spec, &self.from) {
            (Some(_), Some(_)) => return usage("either SPEC.toml or --from, not both"),
            (None, None) => return usage("of what? Say --from DIR|TAR, or SPEC.toml"),
            (Some(name), None) => {
                if self.kind.is_some() || self.label.is_some() || self.owner.is_some() {
                    return usage(
                        "--type, --label and --owner go with --from; SPEC.toml has its own",
                    );
                }
                read_spec(name)?
            }
            (None, Some(from)) => {
                let request = TreeRequest {
                    from: from.clone(),
                    kind: self.kind.clone().unwrap_or_else(|| "ext4".into()),
                    label: self.label.clone().unwrap_or_default(),
                    boot: self.boot.clone(),
                    owner: self.owner.clone(),
                    ..TreeRequest::default()
                };
                request.spec()
            }
        };
        spec.size = self.size.clone().or(spec.size);
        spec.table = self.table.clone().or(spec.table);
        spec.boot = self.boot.clone().or(spec.boot);
        spec.seed = self.seed.clone().or(spec.seed);
        spec.boot_later |= self.boot_later;
        spec.sector_size = self.sector_size.or(spec.sector_size);
        Ok(spec)
    }

    fn make(
        &self,
        face: &Face,
        build: &Build,
        output: &str,
        format: &str,
        mut options: Options,
        watch: &Watch,
    ) -> Result<(), Failure> {
        let driver = creatable(format)?;
        if options.text("size").is_some() || options.text("backing_file").is_some() {
            return refuse(
                "size and backing file are not among the options of an image that is built",
            );
        }
        if self.compress && !can_compress(driver) {
            return Err(no_compression().into());
        }
        options.set("size", build.size().to_string());
        let plan = Plan { driver, name: output.to_string(), options };
        plan.check()?;
        let place = plan.path()?;
        refuse_in_use(&place)?;
        if !self.force {
            refuse_holding(&place)?;
        }
        let made = plan.make(face, &Default::default())?;
        let settings = Settings::new(OpenMode::Write);
        let node = plan.open(&made, &settings)?;
        match self.compress {
            true => write_compressed(build, node, &place, watch)?,
            false => {
                let opened = OpenedDisk::whole(node, output);
                build.write(&opened.disk, watch)?;
                opened.close()?;
            }
        }
        made.keep()?;
        Ok(())
    }
}

/// A compressed cluster is written once: the disk is made in a file without a name first.
fn write_compressed(build: &Build, node: Node, place: &Path, watch: &Watch) -> Result<(), Error> {
    let attempt = "Could not make a temporary file for the disk";
    let file = match place.parent() {
        Some(folder) if !folder.as_os_str().is_empty() && !is_device(place) => {
            tempfile::tempfile_in(folder)
        }
        Some(_) if !is_device(place) => tempfile::tempfile_in("."),
        _ => tempfile::tempfile(),
    };
    let options = OpenOptions { write: true, no_flush: true, ..OpenOptions::default() };
    let disk = FileDisk::from_file(file.context(attempt)?, place, options).context(attempt)?;
    disk.set_size(build.size()).context(attempt)?;
    let disk: Arc<dyn Disk> = Arc::new(disk);
    build.write(&disk, watch)?;
    let target = Arc::new(node);
    let source = disk_node(disk, target.clone(), &target.shown);
    let sources = [&source];
    let request = ConvertRequest { compress: true, ..ConvertRequest::new(&sources, &target) };
    convert(&request, watch)?;
    target.close()
}

fn is_device(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|meta| !meta.is_file())
}

fn read_spec(name: &str) -> Result<DiskSpec, Failure> {
    let attempt = || format!("Could not read '{name}'");
    let mut text = String::new();
    File::open(name)
        .and_then(|file| file.take(SPEC_MAX).read_to_string(&mut text))
        .with_context(attempt)?;
    let folder = Path::new(name).parent().unwrap_or(Path::new(""));
    Ok(DiskSpec::parse(&text, folder).with_context(attempt)?)
}

/// What can be read only once (standard input, a pipe) as a file; its name in the description
/// becomes `-`.
fn spool(spec: &mut DiskSpec) -> Result<Option<File>, Failure> {
    let mut names: Vec<&mut String> = Vec::new();
    for part in &mut spec.partitions {
        names.extend(part.from.iter_mut());
        names.extend(part.content.iter_mut().map(|content| &mut content.from));
    }
    let is_stream = |name: &str| {
        name == "-" || std::fs::metadata(name).is_ok_and(|meta| !meta.is_file() && !meta.is_dir())
    };
    names.retain(|name| is_stream(name));
    let Some(first) = names.first().map(|name| (**name).clone()) else { return Ok(None) };
    if names.iter().any(|name| **name != first) {
        return usage("only one source can be a stream: standard input, or one pipe");
    }
    let file = match first.as_str() {
        "-" => keep(&mut std::io::stdin().lock())?,
        path => {
            let attempt = || format!("Could not open '{path}'");
            keep(&mut File::open(path).map_err(Error::from).with_context(attempt)?)?
        }
    };
    names.into_iter().for_each(|name| *name = "-".to_string());
    Ok(Some(file))
}

/// A device of which something is mounted is not written to, whoever asks.
pub(crate) fn refuse_in_use(path: &Path) -> Result<(), Error> {
    use std::os::unix::fs::FileTypeExt;
    match std::fs::metadata(path) {
        Ok(meta) if meta.file_type().is_block_device() => {
            let attempt = || format!("Could not write to '{}'", path.display());
            let device = FileDisk::open(path, OpenOptions::default()).with_context(attempt)?;
            refuse_mounted(&device).with_context(attempt)
        }
        _ => Ok(()),
    }
}

/// A target that holds something is not overwritten unasked.
pub(crate) fn refuse_holding(path: &Path) -> Result<(), Error> {
    use std::os::unix::fs::FileTypeExt;
    let Ok(meta) = std::fs::metadata(path) else { return Ok(()) };
    let attempt = || format!("Could not write to '{}'", path.display());
    if meta.file_type().is_block_device() {
        let device = FileDisk::open(path, OpenOptions::default()).with_context(attempt)?;
        return refuse_if_used(&device).with_context(attempt);
    }
    if !meta.is_file() || meta.len() == 0 {
        return Ok(());
    }
    let shown = path.to_string_lossy();
    let spec = ImageSpec::from_path(path, &shown, None);
    let settings = Settings { locking: Locking::Shared, ..Settings::new(OpenMode::Read) };
    // What cannot be opened is not recognised.
    let Ok(node) = disksmith_open::open(&spec, &settings) else { return Ok(()) };
    refuse_if_used(&*OpenedDisk::whole(node, &shown).disk).with_context(attempt)
}

fn as_json(build: &Build) -> String {
    let table = build.table();
    let partitions = table.iter().flat_map(|table| {
        table.partitions.iter().map(|partition| {
            json!({
                "number": partition.number,
                "start": partition.start_bytes(table.sector_size),
                "size": partition.length_bytes(table.sector_size),
                "type": partition.kind.name(),
            })
        })
    });
    pretty(&json!({
        "size": build.size(),
        "partition-table": table.map(|table| table.label.name()),
        "partitions": partitions.collect::<Vec<_>>(),
    }))
}

fn describe(build: &Build) -> String {
    let mut text = format!("disk of {} ({} bytes)", human_size(build.size()), build.size());
    let Some(table) = build.table() else { return text + "\n" };
    text += &format!(", {} partition table\n", table.label.name());
    for partition in &table.partitions {
        let length = partition.length_bytes(table.sector_size);
        text += &format!(
            "partition {}: {} from byte {}, {}\n",
            partition.number,
            human_size(length),
            partition.start_bytes(table.sector_size),
            partition.kind.name()
        );
    }
    text
}
