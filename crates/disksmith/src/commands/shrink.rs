//! `shrink`: take room from a disk, down to what its files need.

use disksmith_disk::{Context, Error, Kind};
use disksmith_formats::OpenMode;
use disksmith_open::{Locking, open_disk};
use disksmith_operations::shrink::{ShrinkPlan, ShrinkRequest};
use serde_json::{Value, json};

use super::Verb;
use super::common::Form;
use crate::face::{DONE, Face, Outcome, senseless, usage};
use crate::guest::Access;
use crate::render::json::pretty;

/// The arguments of `shrink`.
#[derive(clap::Args, Debug, Default)]
#[command(after_help = HELP)]
pub(crate) struct Shrink {
    #[command(flatten)]
    pub access: Access,
    /// As small as holds what is there; also without SIZE
    #[arg(long, conflicts_with = "size")]
    pub minimum: bool,
    /// Show what would be done, and do nothing
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub form: Form,
    /// Do not tell what was done
    #[arg(short, long)]
    pub quiet: bool,
    /// The image
    #[arg(value_name = "IMAGE")]
    pub image: String,
    /// The new size of the disk, or what to take from it: 20G, -5G
    #[arg(value_name = "SIZE|-SIZE", allow_hyphen_values = true)]
    pub size: Option<String>,
}

const HELP: &str = "\
The filesystem in the last partition, the partition, the table and the disk become smaller, in this
order; files are moved out of the way, and none is lost. Everything is tried first: what cannot be
shrunk is refused, and then nothing is changed. A run that was cut short is completed by running it
again.";

impl Verb for Shrink {
    const NAME: &'static str = "shrink";
    const ABOUT: &'static str = "Take room from a disk, its last partition and the filesystem in it";

    fn run(self, face: &Face) -> Outcome {
        let json = self.form.is_json()?;
        let address = self.access.address(&self.image);
        if address.part.is_some() || address.path.is_some() {
            return usage("an IMAGE is shrunk, with its last partition");
        }
        let mut settings = self.access.settings(!self.dry_run)?;
        settings.mode = if self.dry_run { OpenMode::Read } else { OpenMode::Write };
        if !self.dry_run {
            settings.locking = Locking::Serve;
        }
        let opened = open_disk(&address, &settings)?;
        let disk = opened.whole_disk();
        let attempt = || format!("Could not shrink '{}'", self.image);
        if opened.node.file.as_ref().is_some_and(|file| file.is_block_device()) {
            let why = Error::new(Kind::Unsupported, "it is a device, which has the size that it has");
            let hint = "Copy it to an image, which can be shrunk: disksmith clone DEVICE IMAGE.";
            return Err(why.with_hint(hint).context(attempt()).into());
        }
        let size = match self.size.as_deref() {
            None => None,
            Some(text) => Some(size_of(text, disk.size())?),
        };
        let request = ShrinkRequest { disk: disk.clone(), size };
        let plan = ShrinkPlan::new(&request).with_context(attempt)?;
        if !self.dry_run {
            plan.apply(&*opened.node.image, &disk).with_context(attempt)?;
            opened.close()?;
        }
        if json {
            face.print(&pretty(&as_json(&plan)));
        } else if !self.quiet {
            face.print(&told(&plan));
        }
        Ok(DONE)
    }
}

fn size_of(text: &str, old: u64) -> Result<u64, crate::face::Failure> {
    let size = |text: &str| disksmith_disk::parse_size(text).map_err(senseless);
    match text.strip_prefix('-') {
        Some(less) => match old.checked_sub(size(less)?).filter(|rest| *rest > 0) {
            Some(rest) => Ok(rest),
            None => usage(format!("the disk has no more than {old} bytes")),
        },
        None => size(text),
    }
}

fn told(plan: &ShrinkPlan) -> String {
    match plan.describe() {
        [] => "Nothing to do: the disk is as small as that already.\n".into(),
        lines => lines.iter().map(|line| format!("{line}\n")).collect(),
    }
}

fn as_json(plan: &ShrinkPlan) -> Value {
    json!({
        "old-size": plan.old_size,
        "new-size": plan.new_size,
        "partition": plan.partition,
        "filesystem": plan.filesystem.map(|(kind, old, new)| json!({
            "type": kind,
            "old-size": old,
            "new-size": new,
        })),
        "steps": plan.describe(),
    })
}
