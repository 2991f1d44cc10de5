//! `attach`: a disk for other programs - a folder of files, or a loop device.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use disksmith_disk::{Context, Disk};
use disksmith_export::loops::{self, LoopDevice, LoopOptions};
use disksmith_export::{
    DiskFile, DiskFolder, FOLDER_KIND, MountOptions, background, mounts, server,
};
use disksmith_formats::OpenMode;
use disksmith_open::{Address, Locking, OpenedDisk, open_disk};
use serde_json::{Value, json};

use super::Verb;
use super::common::{Form, Purpose, Source};
use super::serving::{self, Serving};
use crate::face::{DONE, Face, Failure, Outcome, usage};
use crate::numbers::size;
use crate::render::json::pretty;
use crate::render::printable;

/// Where folders under loop devices are mounted.
const RUNTIME: &str = "/run/disksmith";

/// The arguments of `attach`.
#[derive(clap::Args, Debug, Default)]
pub(crate) struct Attach {
    #[command(flatten)]
    pub source: Source,
    /// Nothing can be written
    #[arg(short, long)]
    pub read_only: bool,
    /// Other users may look in (without root: if /etc/fuse.conf has user_allow_other)
    #[arg(long)]
    pub allow_other: bool,
    #[command(flatten)]
    pub serving: Serving,
    /// Make a kernel loop device with a node per partition (root)
    #[arg(long = "loop")]
    pub as_loop: bool,
    /// The loop device begins at this byte
    #[arg(long, value_name = "SIZE", requires = "as_loop")]
    pub offset: Option<String>,
    /// The loop device has at most so many bytes
    #[arg(long, value_name = "SIZE", requires = "as_loop")]
    pub size_limit: Option<String>,
    /// The loop device bypasses the page cache
    #[arg(long, requires = "as_loop")]
    pub direct: bool,
    /// Bytes per sector of the loop device: 512 to 4096
    #[arg(long, value_name = "SIZE", requires = "as_loop")]
    pub sector: Option<String>,
    /// The loop device goes when it was mounted, or used for swap, and its last user left
    #[arg(long, requires = "as_loop")]
    pub auto_clear: bool,
    /// In the background: see to it that this loop device goes after its use
    #[arg(long, value_name = "DEVICE", hide = true)]
    pub clear_loop: Option<PathBuf>,
    /// Tell what is attached
    #[arg(long, short)]
    pub list: bool,
    #[command(flatten)]
    pub form: Form,
    /// The image, or a part of it
    #[arg(value_name = "IMAGE")]
    pub image: Option<String>,
    /// An existing directory, on which the files appear: disk, p1, p2 …
    #[arg(value_name = "DIR")]
    pub directory: Option<PathBuf>,
}

impl Verb for Attach {
    const NAME: &'static str = "attach";
    const ABOUT: &'static str = "Show a disk and its partitions as files, or as a loop device";

    fn run(self, face: &Face) -> Outcome {
        if let Some(device) = &self.clear_loop {
            return clear_loop(device);
        }
        match (self.list, self.as_loop, &self.image, &self.directory) {
            (true, _, None, None) => self.tell(face),
            (false, true, Some(image), None) => self.make_loop(face, image),
            (false, false, Some(image), Some(directory)) => {
                if let Some(status) = self.serving.delegate()? {
                    return Ok(status);
                }
                self.folder(face, image, directory)
            }
            _ => usage("say attach IMAGE DIR, attach --loop IMAGE or attach --list"),
        }
    }
}

impl Attach {
    fn open(&self, image: &str) -> Result<OpenedDisk, Failure> {
        let mode = if self.read_only { OpenMode::Read } else { OpenMode::Write };
        let purpose = Purpose { locking: Locking::Serve, ..Purpose::new(mode) };
        let settings = self.source.settings(purpose)?;
        if self.source.image_opts {
            let node = disksmith_open::open(&self.source.spec(image)?, &settings)?;
            return Ok(OpenedDisk::whole(node, image));
        }
        let address = Address::parse(image).with_format(self.source.format.as_deref());
        Ok(open_disk(&address, &settings)?)
    }

    fn folder(&self, face: &Face, image: &str, directory: &Path) -> Outcome {
        serving::refuse_if_mounted(directory)?;
        let opened = self.open(image)?;
        let files = files(face, &opened);
        let options = MountOptions {
            source: image.to_string(),
            kind: FOLDER_KIND.to_string(),
            read_only: self.read_only || opened.disk.read_only(),
            allow_other: self.allow_other,
            default_permissions: false,
            ..MountOptions::default()
        };
        let folder = DiskFolder::new(files, options.read_only);
        let (mounted, disks) = disksmith_export::mount(folder, directory, &options)?;
        let finish = move || {
            for disk in &disks {
                disk.flush()?;
            }
            opened.close()
        };
        self.serving.serve(mounted, Box::new(finish))
    }

    fn make_loop(&self, face: &Face, image: &str) -> Outcome {
        let json = self.form.is_json()?;
        let number = |what: &str, text: &Option<String>| match text {
            Some(text) => size(face, what, text),
            None => Ok(0),
        };
        let mut options = LoopOptions {
            offset: number("offset", &self.offset)?,
            size_limit: number("size limit", &self.size_limit)?,
            read_only: self.read_only,
            direct: self.direct,
            sector: number("sector", &self.sector)? as u32,
        };
        let opened = self.open(image)?;
        let plain = opened.node.image.format() == "raw" && opened.disk.host_window().is_some();
        let (device, partitions) = match (&opened.node.path, plain) {
            (Some(path), true) => {
                let path = path.clone();
                options.offset += opened.start;
                if opened.partition.is_some() && options.size_limit == 0 {
                    options.size_limit = opened.disk.size();
                }
                // The kernel takes no locks of QEMU's kind; that nobody else writes was
                // just seen.
                let partitions = partitions(&opened, &options);
                drop(opened);
                (loops::attach(&path, &options)?, partitions)
            }
            _ => {
                let partitions = partitions(&opened, &options);
                drop(opened);
                (self.loop_on_folder(image, &options)?, partitions)
            }
        };
        let mut nodes = Vec::new();
        for (number, start, length) in partitions {
            match loops::add_partition(&device, number, start, length) {
                Ok(()) => nodes.push(format!("{}p{number}", device.device.display())),
                Err(error) => face.report(&error),
            }
        }
        if self.auto_clear {
            let watch: [OsString; 4] = [
                Self::NAME.into(),
                serving::background_flag(),
                "--clear-loop".into(),
                device.device.clone().into(),
            ];
            serving::start(&watch)?;
        }
        let name = device.device.display().to_string();
        face.print(&match json {
            true => pretty(&json!({ "device": name, "partitions": nodes })),
            false => format!("{name}\n"),
        });
        Ok(DONE)
    }

    /// A loop device on the file that our folder of the image shows.
    fn loop_on_folder(&self, image: &str, options: &LoopOptions) -> Result<LoopDevice, Failure> {
        let attempt = || format!("Could not make a folder in {RUNTIME}");
        std::fs::create_dir_all(RUNTIME).with_context(attempt).map_err(|error| {
            error.with_hint("Loop devices need root; without it, use a FUSE folder: attach IMAGE DIR.")
        })?;
        let directory = Path::new(RUNTIME).join(format!("loop-{}", std::process::id()));
        std::fs::create_dir(&directory).with_context(attempt)?;
        let mut arguments: Vec<OsString> = vec![Self::NAME.into(), serving::background_flag()];
        if self.read_only {
            arguments.push("--read-only".into());
        }
        if let Some(format) = &self.source.format {
            arguments.extend(["-f".into(), format.into()]);
        }
        if self.source.image_opts {
            arguments.push("--image-opts".into());
        }
        for object in &self.source.keys.objects {
            arguments.extend(["--object".into(), object.into()]);
        }
        arguments.extend([image.into(), directory.clone().into()]);
        if let Err(failure) = serving::start(&arguments) {
            let _ = std::fs::remove_dir(&directory);
            return Err(failure);
        }
        loops::attach(&directory.join("disk"), options).map_err(|error| {
            give_up_folder(&directory);
            error.into()
        })
    }

    fn tell(&self, face: &Face) -> Outcome {
        let json = self.form.is_json()?;
        let (mounts, mut loops) = (mounts(), loops::list());
        // A folder that is only there to carry a loop device is told as that.
        for device in &mut loops {
            let folder = folder_of_loop(&device.file);
            if let Some(below) = mounts.iter().find(|m| Some(&m.directory) == folder.as_ref()) {
                device.file = below.source.clone().into();
            }
        }
        let mounts: Vec<_> =
            mounts.into_iter().filter(|mount| !mount.directory.starts_with(RUNTIME)).collect();
        if json {
            let mut all: Vec<Value> = Vec::new();
            for mount in &mounts {
                let folder = mount.kind.ends_with(FOLDER_KIND);
                all.push(json!({
                    "place": mount.directory.to_string_lossy(),
                    "kind": if folder { "folder" } else { "filesystem" },
                    "image": mount.source,
                    "read-only": mount.read_only,
                    "process": server(&mount.directory),
                }));
            }
            for device in &loops {
                all.push(json!({
                    "place": device.device.to_string_lossy(),
                    "kind": "loop",
                    "image": device.file.to_string_lossy(),
                    "read-only": device.read_only,
                    "offset": device.offset,
                    "size-limit": device.size_limit,
                }));
            }
            face.print(&pretty(&json!({ "attached": all })));
            return Ok(DONE);
        }
        let mut rows = Vec::new();
        for mount in &mounts {
            let kind = mount.kind.trim_start_matches("fuse.").trim_start_matches("disksmith-");
            let kind = if kind == FOLDER_KIND { "folder" } else { kind };
            let access = if mount.read_only { "ro" } else { "rw" };
            rows.push([
                mount.directory.display().to_string(),
                kind.into(),
                access.into(),
                mount.source.clone(),
            ]);
        }
        for device in &loops {
            let access = if device.read_only { "ro" } else { "rw" };
            rows.push([
                device.device.display().to_string(),
                "loop".into(),
                access.into(),
                device.file.display().to_string(),
            ]);
        }
        let width = rows.iter().map(|row| row[0].chars().count()).max().unwrap_or(0);
        for [place, kind, access, image] in rows {
            face.print(&format!(
                "{:width$}  {kind:<8} {access}  {}\n",
                printable(&place),
                printable(&image)
            ));
        }
        Ok(DONE)
    }
}

/// The process in the background that `--auto-clear` leaves behind.
fn clear_loop(device: &Path) -> Outcome {
    background::leave_session();
    let file = loops::list().into_iter().find(|known| known.device == device).map(|l| l.file);
    background::ready()?;
    loops::clear_after_use(device)?;
    if let Some(folder) = file.as_deref().and_then(folder_of_loop) {
        give_up_folder(&folder);
    }
    Ok(DONE)
}

/// Number, start and length in bytes of the partitions that the loop device is to have.
fn partitions(opened: &OpenedDisk, options: &LoopOptions) -> Vec<(u32, u64, u64)> {
    if options.offset != opened.start || options.size_limit != 0 {
        return Vec::new();
    }
    let Ok(table) = disksmith_partitions::read(&opened.disk) else { return Vec::new() };
    let size = table.sector_size;
    let usable = table.partitions.iter().filter(|partition| !partition.is_extended());
    usable.map(|p| (p.number, p.start_bytes(size), p.length_bytes(size))).collect()
}

/// Unmounts a folder under a loop device and removes its directory.
pub(crate) fn give_up_folder(directory: &Path) {
    // What is still in use stays until somebody detaches it by name.
    if disksmith_export::unmount(directory).is_ok() {
        let _ = std::fs::remove_dir(directory);
    }
}

/// The folder that `file` lies in, if it is one of those under loop devices.
pub(crate) fn folder_of_loop(file: &Path) -> Option<PathBuf> {
    let directory = file.parent()?;
    directory.starts_with(RUNTIME).then(|| directory.to_path_buf())
}

/// The whole disk and its partitions.
fn files(face: &Face, opened: &OpenedDisk) -> Vec<DiskFile> {
    let mut files = vec![DiskFile { name: "disk".into(), disk: opened.disk.clone(), start: 0 }];
    let table = match disksmith_partitions::read(&opened.disk) {
        Ok(table) => table,
        Err(error) => {
            face.report(&error.context("The partitions are not shown"));
            return files;
        }
    };
    for partition in table.partitions.iter().filter(|partition| !partition.is_extended()) {
        match table.slice(opened.disk.clone(), partition.number) {
            Ok(slice) => files.push(DiskFile {
                name: format!("p{}", partition.number),
                start: slice.start(),
                disk: Arc::new(slice) as Arc<dyn Disk>,
            }),
            Err(error) => face.report(&error),
        }
    }
    files
}
