//! Arguments that many verbs share, and what follows from them: opening images.

use std::fs::File;
use std::os::fd::{AsFd, IntoRawFd};
use std::path::{Path, PathBuf};

use disksmith_disk::Context;
use disksmith_formats::OpenMode;
use disksmith_open::{Address, Cache, ImageSpec, Locking, Node, Secrets, Settings, Trust};

use crate::face::{Face, Failure, usage};

/// How image operands are to be understood.
#[derive(clap::Args, Clone, Debug, Default)]
pub(crate) struct Source {
    /// Format of the image; told from its content when not given
    #[arg(short, long, value_name = "FMT")]
    pub format: Option<String>,
    /// The image is described by options: driver=qcow2,file.filename=a.qcow2
    #[arg(long)]
    pub image_opts: bool,
    #[command(flatten)]
    pub keys: Keys,
    /// Refuse an image that refers to other files (backing file, data file)
    #[arg(long)]
    pub untrusted: bool,
}

/// Key material.
#[derive(clap::Args, Clone, Debug, Default)]
pub(crate) struct Keys {
    /// Key material: secret,id=NAME,data=TEXT (or file=PATH)
    #[arg(long = "object", value_name = "OBJDEF")]
    pub objects: Vec<String>,
    /// The only key is that of the image, though nobody says so; not in the drop-in.
    #[arg(skip = true)]
    pub implied: bool,
}

impl Keys {
    /// Reads the objects.
    pub(crate) fn secrets(&self) -> Result<Secrets, Failure> {
        let mut secrets = Secrets::default();
        for object in &self.objects {
            secrets.add(object)?;
        }
        if self.implied {
            secrets.imply();
        }
        Ok(secrets)
    }
}

/// How results are to be printed.
#[derive(clap::Args, Clone, Debug, Default)]
pub(crate) struct Form {
    /// human or json
    #[arg(long, value_name = "FORM")]
    pub output: Option<String>,
    /// The same as --output json
    #[arg(long)]
    pub json: bool,
}

impl Form {
    /// Whether JSON is wanted.
    pub(crate) fn is_json(&self) -> Result<bool, Failure> {
        match self.output.as_deref() {
            None => Ok(self.json),
            Some("json") => Ok(true),
            Some("human") => Ok(self.json),
            Some(other) => usage(format!("--output expects 'human' or 'json' not '{other}'")),
        }
    }
}

/// Stdin as a file that can be read anywhere: itself where it is one, else what comes through it, in
/// a temporary file without a name.
fn stdin_as_file() -> disksmith_disk::Result<PathBuf> {
    let stdin = File::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    let file = match stdin.metadata()?.is_file() {
        true => stdin,
        false => super::mkfs::keep(&mut std::io::stdin().lock())?,
    };
    // It stays open as long as the program runs: its name leads through the descriptor.
    Ok(format!("/proc/self/fd/{}", file.into_raw_fd()).into())
}

/// What an image is opened for.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Purpose {
    pub mode: OpenMode,
    pub follow_backing: bool,
    pub locking: Locking,
    pub cache: Cache,
}

impl Purpose {
    /// With the backing chain and the usual locks.
    pub(crate) fn new(mode: OpenMode) -> Self {
        Self { mode, follow_backing: true, ..Self::default() }
    }

    /// `-U`: no lock that excludes others.
    pub(crate) fn shared(mut self, force_share: bool) -> Self {
        if force_share {
            self.locking = Locking::Shared;
        }
        self
    }

    /// With a cache mode by name.
    pub(crate) fn cached(mut self, mode: Option<&str>) -> Result<Self, Failure> {
        if let Some(mode) = mode {
            self.cache = Cache::parse(mode)?;
        }
        Ok(self)
    }
}

impl Source {
    /// What the operand `name` means.
    pub(crate) fn spec(&self, name: &str) -> Result<ImageSpec, Failure> {
        if self.image_opts {
            if self.format.is_some() {
                return Err(disksmith_disk::Error::new(
                    disksmith_disk::Kind::InvalidInput,
                    "--image-opts and --format are mutually exclusive",
                )
                .into());
            }
            return Ok(ImageSpec::from_image_opts(name)
                .map_err(|error| error.context(format!("Could not open '{name}'")))?);
        }
        Ok(ImageSpec::from_name(name, self.format.as_deref())
            .map_err(|error| error.context(format!("Could not open '{name}'")))?)
    }

    /// What the operand `name` means where it is only read: `-` is stdin, unless a file is called so.
    pub(crate) fn read_spec(&self, face: &Face, name: &str) -> Result<ImageSpec, Failure> {
        if name != "-" || face.drop_in || self.image_opts || Path::new(name).exists() {
            return self.spec(name);
        }
        let path = stdin_as_file().context("Could not read from stdin")?;
        Ok(ImageSpec::from_path(path, name, self.format.as_deref()))
    }

    /// The settings for a purpose.
    pub(crate) fn settings(&self, purpose: Purpose) -> Result<Settings, Failure> {
        Ok(Settings {
            follow_backing: purpose.follow_backing,
            cache: purpose.cache,
            locking: purpose.locking,
            trust: if self.untrusted { Trust::Nothing } else { Trust::References },
            secrets: self.keys.secrets()?,
            ..Settings::new(purpose.mode)
        })
    }

    /// Opens the operand `name`.
    pub(crate) fn open(&self, face: &Face, name: &str, purpose: Purpose) -> Result<Node, Failure> {
        if !self.image_opts {
            let address = Address::parse(name).with_format(self.format.as_deref());
            // qemu-img has no addresses: there, only what it would refuse may be one.
            let part = address.is_path && address.part.is_some();
            if part || !face.drop_in && (!address.is_plain() || address.is_path) {
                let opened = disksmith_open::open_disk(&address, &self.settings(purpose)?)?;
                if opened.partition.is_none() {
                    warn_if_guessed_raw(face, &opened.node, purpose.mode);
                }
                return Ok(opened.into_node());
            }
        }
        let spec = match purpose.mode {
            OpenMode::Write => self.spec(name)?,
            _ => self.read_spec(face, name)?,
        };
        let node = disksmith_open::open(&spec, &self.settings(purpose)?)?;
        for finding in node.chain().flat_map(|node| node.image.mended_on_opening()) {
            face.note(&format!("{}\n", finding.text));
        }
        warn_if_guessed_raw(face, &node, purpose.mode);
        Ok(node)
    }
}

/// Writing to what was taken for raw by guess is dangerous: a guest could have written another
/// format's header into it, or will.
pub(crate) fn warn_if_guessed_raw(face: &Face, node: &Node, mode: OpenMode) {
    if !(node.probed && mode.writes() && node.image.format() == "raw") {
        return;
    }
    let name = node.path.as_deref().map(disksmith_disk::names::of_path).unwrap_or_default();
    match face.drop_in {
        true => face.note(&format!(
            "WARNING: Image format was not specified for '{name}' and probing guessed raw.\n         \
             Automatically detecting the format is dangerous for raw images, write operations on block 0 will be restricted.\n         \
             Specify the 'raw' format explicitly to remove the restrictions.\n"
        )),
        false => face.warn(&format!(
            "'{name}' is taken for a raw disk by its content; its first sector is protected (say -f raw to lift that)"
        )),
    }
}

/// Where qemu-img tells what is wrong with a snapshot on a line of its own, and then what it
/// could not do because of it.
pub(crate) fn two_lines(
    face: &Face,
    error: disksmith_disk::Error,
    attempt: &str,
) -> disksmith_disk::Error {
    let message = error.to_string();
    if !face.drop_in || !message.starts_with("Snapshot L1 table") {
        return error;
    }
    face.complain(&message);
    let cause = match message.ends_with("too large") {
        true => "File too large",
        false => "Invalid argument",
    };
    disksmith_disk::Error::new(error.kind(), cause).context(attempt)
}
