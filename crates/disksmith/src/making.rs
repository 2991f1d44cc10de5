//! Making images: options, backing file, the file itself. What `create` and `convert` share.

use std::path::{Path, PathBuf};

use disksmith_crypt::Secret;
use disksmith_disk::{Disk, Error, Kind, Result};
use disksmith_formats::{Backing, CreateRequest, Driver, Image, OpenMode, Options, driver};
use disksmith_open::{ImageSpec, Locking, Name, Node, Secrets, Settings, parse_options, resolve};

use crate::face::{Face, Failure};
use crate::files::Target;
use crate::render::options::{PROTOCOL, create_options};

/// An image to be made.
pub(crate) struct Plan {
    pub(crate) driver: &'static Driver,
    /// As the user named it.
    pub(crate) name: String,
    /// Everything given, size and backing names included.
    pub(crate) options: Options,
}

/// The format of that name, if images of it can be made.
pub(crate) fn creatable(name: &str) -> Result<&'static Driver> {
    match driver(name) {
        Some(driver) if driver.create.is_some() => Ok(driver),
        _ if !is_driver(name) => Err(unknown_format(name)),
        _ => Err(lacks(name, "image creation")),
    }
}

/// The format of that name, if options of its images can be changed.
pub(crate) fn amendable(name: &str) -> Result<&'static Driver> {
    match driver(name) {
        Some(driver) if !driver.amend_options.is_empty() => Ok(driver),
        _ if !is_driver(name) => Err(unknown_format(name)),
        _ => Err(lacks(name, "option amendment")),
    }
}

fn lacks(name: &str, what: &str) -> Error {
    Error::new(Kind::Unsupported, format!("Format driver '{name}' does not support {what}"))
}

/// Whether there is a driver of that name, here or in QEMU.
pub(crate) fn is_driver(name: &str) -> bool {
    driver(name).is_some() || is_made_by_nobody(name)
}

/// Whether QEMU has a driver of that name, and makes no images with it: formats that it only
/// reads, and layers that stand on something else.
fn is_made_by_nobody(name: &str) -> bool {
    const DRIVERS: [&str; 17] = [
        "blkdebug",
        "blklogwrites",
        "blkreplay",
        "blkverify",
        "bochs",
        "cloop",
        "compress",
        "copy-before-write",
        "copy-on-read",
        "dmg",
        "null-aio",
        "null-co",
        "preallocate",
        "quorum",
        "snapshot-access",
        "throttle",
        "vvfat",
    ];
    DRIVERS.contains(&name)
}

fn unknown_format(name: &str) -> Error {
    invalid(format!("Unknown file format '{name}'")).with_hint(
        "Images can be made in the formats raw and qcow2; say which, whatever the name ends in.",
    )
}

/// Whether an image may say this of its backing file's format: the formats, and QEMU's names for
/// plain files and devices, which mean raw.
pub(crate) fn names_format(name: &str) -> bool {
    driver(name).is_some() || ["file", "host_device", "host_cdrom", "nbd"].contains(&name)
}

/// The format that a file name suggests. It may be one that is not made here: to make a raw disk
/// under such a name would deceive who opens it.
pub(crate) fn format_of_name(name: &str) -> Option<&'static str> {
    let suffix = Path::new(name).extension()?.to_str()?.to_ascii_lowercase();
    let format = match suffix.as_str() {
        "qcow2" | "qcow" => "qcow2",
        "vmdk" => "vmdk",
        "vdi" => "vdi",
        "vhdx" => "vhdx",
        "vhd" | "vpc" => "vpc",
        "qed" => "qed",
        "hdd" | "hds" => "parallels",
        "raw" | "img" | "iso" | "bin" => "raw",
        _ => return None,
    };
    Some(driver(format).map_or(format, |driver| driver.name))
}

/// Joins the lists of several `-o`. A list must not begin or end with a comma, so that joined
/// ones keep their meaning.
pub(crate) fn join_lists(lists: &[String]) -> Result<Options, Failure> {
    let mut all = Options::new();
    for list in lists {
        if list.is_empty() || list.starts_with(',') || list.ends_with(',') {
            return Err(invalid(format!("Invalid option list: {list}")).into());
        }
        for (name, value) in parse_options(list, None)?.iter() {
            all.set(name, value);
        }
    }
    Ok(all)
}

/// Whether one of the lists asks for help.
pub(crate) fn wants_help(lists: &[String]) -> bool {
    // `a,,help` is a value with a comma in it.
    let asks = |list: &String| {
        parse_options(list, None)
            .is_ok_and(|o| ["help", "?"].iter().any(|w| o.text(w) == Some("on")))
    };
    lists.iter().any(asks)
}

impl Plan {
    /// Checks the options against what the format knows.
    pub(crate) fn check(&self) -> Result<()> {
        let mut known = create_options(self.driver);
        known.extend_from_slice(PROTOCOL);
        for (name, value) in self.options.iter() {
            let spec = known.iter().find(|spec| spec.name == name);
            let size = spec.is_some_and(|spec| spec.kind == disksmith_formats::OptionKind::Size);
            if size && value.starts_with('-') && value[1..].parse::<u64>().is_ok() {
                return Err(invalid(format!(
                    "Value '{value}' is out of range for parameter '{name}'"
                )));
            }
        }
        self.options.check(&known)
    }

    /// The backing file and its format, as given.
    pub(crate) fn backing(&self) -> Option<Backing> {
        let name = self.options.text("backing_file").filter(|name| !name.is_empty())?;
        Some(Backing {
            name: name.to_string(),
            format: self.options.text("backing_fmt").map(str::to_string),
        })
    }

    /// Where the image will lie.
    pub(crate) fn path(&self) -> Result<PathBuf> {
        match Name::parse(&self.name) {
            Name::Path(path) => Ok(path),
            Name::Json(_) => {
                ImageSpec::from_name(&self.name, None)?.path().map(Path::to_path_buf).ok_or_else(
                    || invalid("an image can only be made in a file or on a device".into()),
                )
            }
            // No folder belongs to what a server has.
            Name::Protocol(..) => ImageSpec::from_name(&self.name, None).map(|_| PathBuf::new()),
        }
    }

    /// Opens the backing file, to learn its size and format.
    pub(crate) fn open_backing(&self, backing: &Backing, secrets: &Secrets) -> Result<Node> {
        let mut spec = ImageSpec::from_name(&backing.name, backing.format.as_deref())?;
        if let Name::Path(name) = Name::parse(&backing.name) {
            let path = resolve(&self.path()?, &name.to_string_lossy());
            spec = ImageSpec::from_path(&path, &path.to_string_lossy(), backing.format.as_deref());
        }
        let settings = Settings {
            locking: Locking::Shared,
            secrets: secrets.clone(),
            ..Settings::new(OpenMode::Inspect)
        };
        disksmith_open::open_plainly(&spec, &settings)
            .map_err(|error| error.with_hint("Could not open backing image."))
    }

    /// Makes the image. What is returned is whole but not kept yet.
    pub(crate) fn make(&self, face: &Face, secrets: &Secrets) -> Result<Made> {
        self.make_as(face, secrets, true)
    }

    /// Makes the image; whether it is durable before it is kept is up to the caller.
    pub(crate) fn make_as(&self, face: &Face, secrets: &Secrets, durable: bool) -> Result<Made> {
        let mut options = self.options.clone();
        let size = options.size("size")?.unwrap_or(0);
        for spec in PROTOCOL {
            options.take(spec.name);
        }
        for name in ["size", "backing_file", "backing_fmt"] {
            options.take(name);
        }
        let mut target = match Name::parse(&self.name) {
            Name::Protocol(..) => Target::served(&self.name),
            Name::Path(_) | Name::Json(_) => Target::make(face, &self.path()?, durable)?,
        };
        let storage = target.storage()?;
        // As in qemu-img, a failed attempt at a format takes what was there before with it.
        let replaces = face.drop_in && self.driver.name != "raw";
        let ours = replaces.then(|| target.remove_on_failure(true));
        let secret = self.secret(secrets)?;
        let data = match options.take("data_file") {
            Some(name) => Some((name.clone(), Target::make(face, Path::new(&name), durable)?)),
            None => None,
        };
        let data_storage = match &data {
            Some((name, target)) => Some((name.clone(), target.storage()?)),
            None => None,
        };
        let request = CreateRequest {
            size,
            options,
            backing: self.backing(),
            data_file: data_storage,
            secret,
        };
        let create =
            self.driver.create.ok_or_else(|| invalid("this format cannot be made".into()))?;
        create(&storage, &request).map_err(|error| self.reword(error))?;
        if face.drop_in && self.driver.name == "raw" && !target.has_content() {
            store_first_block(&*storage)?;
        }
        if let Some(ours) = ours {
            target.remove_on_failure(ours);
        }
        let preallocated = self.options.text("preallocation").is_some_and(|mode| mode != "off");
        Ok(Made { target, data: data.map(|(_, target)| target), preallocated })
    }

    /// Opens what was made as an image.
    pub(crate) fn open(&self, made: &Made, settings: &Settings) -> Result<Node> {
        made.unlock()?;
        let format = self.driver.name;
        let mut spec = made.target.spec(&self.name, format)?;
        if let Some(data) = &made.data {
            let place = data.place();
            let shown = place.to_string_lossy().into_owned();
            spec.data_file = Some(Box::new(ImageSpec::from_path(place, &shown, Some("raw"))));
        }
        for key in ["encrypt.key-secret", "key-secret"] {
            if let Some(id) = self.options.text(key) {
                spec.options.set(key, id);
            }
        }
        disksmith_open::open(&spec, settings)
    }

    fn secret(&self, secrets: &Secrets) -> Result<Option<Secret>> {
        let id =
            self.options.text("encrypt.key-secret").or_else(|| self.options.text("key-secret"));
        id.map(|id| secrets.get(id).cloned()).transpose()
    }

    /// A file too large for the host, or tables too large for the format, are told alike.
    fn reword(&self, error: Error) -> Error {
        if error.errno() != Some(EFBIG) {
            return error;
        }
        let hint = match self.options.text("cluster_size") {
            Some(_) => " (try using a larger cluster size)",
            None if create_options(self.driver).iter().any(|o| o.name == "cluster_size") => {
                " (try using a larger cluster size)"
            }
            None => "",
        };
        invalid(format!("The image size is too large for file format '{}'{hint}", self.driver.name))
    }
}

/// qemu-img stores the first block of a raw file, so that its alignment can be probed; scripts
/// see it in `map` and in the disk size.
fn store_first_block(storage: &dyn Disk) -> Result<()> {
    const BLOCK: u64 = 4096;
    storage.write_at(&vec![0; BLOCK.min(storage.size()) as usize], 0)
}

/// "File too large" of the host.
const EFBIG: i32 = 27;

/// An image just made, which disappears unless it is kept.
#[derive(Debug)]
pub(crate) struct Made {
    pub(crate) target: Target,
    pub(crate) data: Option<Target>,
    /// Clusters were allocated before anything was written to them.
    preallocated: bool,
}

impl Made {
    /// Whether the new image, as `image` shows it, reads as zero everywhere.
    pub(crate) fn reads_as_zero(&self, image: &dyn Image) -> bool {
        let old_content =
            self.target.has_content() || self.data.as_ref().is_some_and(|data| data.has_content());
        match image.format() {
            "raw" => !old_content,
            // A hole of an encrypted volume decrypts to noise.
            "luks" => false,
            // So does a cluster that is there already; what is not there reads as zero whatever
            // the storage holds.
            _ if self.preallocated || self.data.is_some() => !image.encrypted() && !old_content,
            _ => true,
        }
    }

    /// Lets go of the locks.
    pub(crate) fn unlock(&self) -> Result<()> {
        if let Some(data) = &self.data {
            data.unlock()?;
        }
        self.target.unlock()
    }

    /// Keeps it under its name.
    pub(crate) fn keep(self) -> Result<()> {
        if let Some(data) = self.data {
            data.keep()?;
        }
        self.target.keep()
    }
}

fn invalid(text: String) -> Error {
    Error::new(Kind::InvalidInput, text)
}
