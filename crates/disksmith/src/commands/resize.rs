//! `resize`: change the size of an image.

use disksmith_disk::{Context, Error, Kind};
use disksmith_formats::{OpenMode, Preallocation, ResizeRequest};
use disksmith_open::{Address, Locking, open_disk};
use disksmith_operations::ResizePart;
use serde_json::json;

use super::Verb;
use super::common::{Form, Purpose, Source};
use crate::face::{DONE, FAILED, Face, Failure, Outcome, refuse, usage};
use crate::render::json::pretty;

/// The arguments of `resize`.
#[derive(clap::Args, Debug, Default)]
pub(crate) struct Resize {
    #[command(flatten)]
    pub source: Source,
    /// How to reserve what is added: off, metadata, falloc or full
    #[arg(long, value_name = "MODE")]
    pub preallocation: Option<String>,
    /// Allow the image to lose what lies past its new end
    #[arg(long)]
    pub shrink: bool,
    /// Do not tell what was done
    #[arg(short, long)]
    pub quiet: bool,
    #[command(flatten)]
    pub form: Form,
    /// The image; or IMAGE:PART: a partition with the filesystem in it
    #[arg(value_name = "IMAGE")]
    pub image: String,
    /// The new size, or what to add or take away: 20G, +5G, -1G
    #[arg(value_name = "[+-]SIZE", allow_hyphen_values = true)]
    pub size: String,
}

impl Verb for Resize {
    const NAME: &'static str = "resize";
    const ABOUT: &'static str = "Change the size of an image";

    fn run(self, face: &Face) -> Outcome {
        let preallocation = match self.preallocation.as_deref() {
            None | Some("off") => Preallocation::Off,
            Some("metadata") => Preallocation::Metadata,
            Some("falloc") => Preallocation::Falloc,
            Some("full") => Preallocation::Full,
            Some(other) => return refuse(format!("Invalid preallocation mode '{other}'")),
        };
        let json = self.form.is_json()?;
        let change = Change::parse(face, &self.size)?;
        let address = Address::parse(&self.image).with_format(self.source.format.as_deref());
        if !face.drop_in && !self.source.image_opts && address.part.is_some() {
            return self.part(face, &address, change, json);
        }
        let purpose = Purpose { locking: Locking::Resize, ..Purpose::new(OpenMode::Write) };
        let node = self.source.open(face, &self.image, purpose)?;
        let image = &node.image;
        let old = image.size();
        let Some(size) = change.apply(old).filter(|size| *size > 0) else {
            return refuse("New image size must be positive");
        };
        if size <= old && preallocation != Preallocation::Off {
            return refuse("Preallocation can only be used for growing images");
        }
        if size < old && !self.shrink {
            face.complain("Use the --shrink option to perform a shrink operation.");
            face.warn("Shrinking an image will delete all data beyond the shrunken image's end. Before performing such an operation, make sure there is no important data there.");
            return Ok(FAILED);
        }
        image.resize(ResizeRequest { size, preallocation })?;
        node.close()?;
        self.tell(face, "Image", (old, size), json);
        Ok(DONE)
    }
}

impl Resize {
    /// A partition with the filesystem in it, or a filesystem with its disk.
    fn part(&self, face: &Face, address: &Address, change: Change, json: bool) -> Outcome {
        if address.path.as_deref().is_some_and(|path| !path.is_empty()) {
            return usage("an image or a part of it is resized, not a path in it");
        }
        if !matches!(self.preallocation.as_deref(), None | Some("off")) {
            return usage("--preallocation is for whole images");
        }
        let purpose = Purpose { locking: Locking::Serve, ..Purpose::new(OpenMode::Write) };
        let opened = open_disk(address, &self.source.settings(purpose)?)?;
        let old = opened.disk.size();
        let Some(new) = change.apply(old).filter(|size| *size > 0) else {
            return refuse("The new size must be positive");
        };
        let attempt = || format!("Could not resize '{}'", self.image);
        if new < old && !self.shrink {
            let why = Error::new(Kind::Refused, format!("it has {old} bytes, and would be smaller"));
            let hint = "With --shrink the filesystem is shrunk first; no file is lost.";
            return Err(why.with_hint(hint).context(attempt()).into());
        }
        let partition = opened.partition.as_ref().map(|partition| partition.number);
        let request = ResizePart { disk: opened.whole_disk(), partition, old, new };
        request.apply(&*opened.node.image).with_context(attempt)?;
        opened.close()?;
        let what = if partition.is_some() { "Partition" } else { "Image" };
        self.tell(face, what, (old, new), json);
        Ok(DONE)
    }

    fn tell(&self, face: &Face, what: &str, (old, new): (u64, u64), json: bool) {
        if json {
            face.print(&pretty(&json!({ "filename": self.image, "old-size": old, "new-size": new })));
        } else if !self.quiet {
            face.print(&format!("{what} resized.\n"));
        }
    }
}

/// Whether it is a size from 2^63 up to 2^64 - 1.
fn is_huge(text: &str) -> bool {
    let half = |digits: &str| digits.parse::<f64>().is_ok_and(|number| (8.0..16.0).contains(&number));
    text.strip_suffix(['E', 'e']).is_some_and(half)
        || text.parse::<u64>().is_ok_and(|size| i64::try_from(size).is_err())
}

#[derive(Clone, Copy)]
enum Change {
    Add(u64),
    Subtract(u64),
    To(u64),
}

impl Change {
    fn parse(face: &Face, text: &str) -> Result<Self, Failure> {
        let size = |text: &str| {
            // What QEMU counts as negative: 2^63 bytes and more.
            if crate::numbers::size(face, "size", text).is_err() && is_huge(text) {
                return refuse("New image size must be positive");
            }
            crate::numbers::size(face, "size", text).map_err(|_| {
                Failure::Error(
                    Error::new(
                        Kind::InvalidInput,
                        "Parameter 'size' expects a non-negative number below 2^64",
                    )
                    .with_hint("Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, peta-\nand exabytes, respectively."),
                )
            })
        };
        Ok(match (text.strip_prefix('+'), text.strip_prefix('-')) {
            (Some(more), _) => Self::Add(size(more)?),
            (None, Some(less)) => Self::Subtract(size(less)?),
            (None, None) => Self::To(size(text)?),
        })
    }

    fn apply(self, old: u64) -> Option<u64> {
        match self {
            Self::Add(more) => old.checked_add(more),
            Self::Subtract(less) => old.checked_sub(less),
            Self::To(size) => Some(size),
        }
    }
}
