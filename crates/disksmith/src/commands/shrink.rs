//! `shrink`: make a disk smaller, from its last filesystem up.

use disksmith_disk::{Context, Error, Kind};
use disksmith_open::open_disk;
use disksmith_operations::shrink::{ShrinkPlan, ShrinkRequest, ShrinkTo};
use disksmith_operations::{Silent, SizeChange};
use serde_json::{Value, json};

use super::Verb;
use super::common::Form;
use super::grow::{filesystem_json, joined};
use crate::face::{DONE, Face, Outcome, senseless, usage};
use crate::guest::Access;
use crate::render::json::pretty;

/// The arguments of `shrink`.
#[derive(clap::Args, Debug, Default)]
#[command(after_help = HELP)]
pub(crate) struct Shrink {
    #[command(flatten)]
    pub access: Access,
    /// Make it as small as it can be (the default without SIZE)
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
    /// The image, or IMAGE:PART
    #[arg(value_name = "IMAGE")]
    pub image: String,
    /// The new size of the disk, or what to take from it: 8G, -2G
    #[arg(value_name = "SIZE|-SIZE", allow_hyphen_values = true)]
    pub size: Option<String>,
}

const HELP: &str = "\
The filesystem in the last partition, the partition, its table and the disk become smaller, in this
order. Files are moved out of the way; none is lost. Everything is tried first: what cannot be made
smaller is refused, and then nothing is changed. A run that was cut short is completed by running it
again.";

impl Verb for Shrink {
    const NAME: &'static str = "shrink";
    const ABOUT: &'static str = "Make a disk, its last partition and the filesystem in it smaller";

    fn run(self, face: &Face) -> Outcome {
        let json = self.form.is_json()?;
        let address = self.access.address(&self.image);
        if address.path.is_some() {
            return usage("IMAGE or IMAGE:PART is made smaller, not a path in it");
        }
        let to = match &self.size {
            None => ShrinkTo::Minimum,
            Some(size) if size.starts_with('+') => {
                return usage("shrink takes SIZE or -SIZE; making larger is what 'grow' does");
            }
            Some(size) => ShrinkTo::Size(SizeChange::parse(size).map_err(senseless)?),
        };
        let opened = open_disk(&address, &self.access.settings(!self.dry_run)?)?;
        let attempt = || format!("Could not shrink '{}'", self.image);
        if opened.node.file.as_ref().is_some_and(|file| file.is_block_device()) {
            let why = Error::new(Kind::Unsupported, "it is a device, which has the size that it has");
            let hint = "Copy it to an image, which can be shrunk: disksmith clone DEVICE IMAGE.";
            return Err(why.with_hint(hint).context(attempt()).into());
        }
        let disk = opened.whole_disk();
        let request = ShrinkRequest {
            disk: disk.clone(),
            to,
            partition: opened.partition.as_ref().map(|partition| partition.number),
        };
        let plan = ShrinkPlan::new(&request).with_context(attempt)?;
        if !self.dry_run && !plan.is_empty() {
            plan.apply(&*opened.node.image, &disk, &Silent).with_context(attempt)?;
        }
        if !self.dry_run {
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

fn told(plan: &ShrinkPlan) -> String {
    let lines = joined(&plan.describe());
    match plan.is_empty() {
        true => format!("Nothing to do: the disk is no larger than that.\n{lines}"),
        false => lines,
    }
}

fn as_json(plan: &ShrinkPlan) -> Value {
    json!({
        "old-size": plan.old_size,
        "new-size": plan.new_size,
        "partition": plan.partition,
        "filesystem": plan.filesystem.as_ref().map(filesystem_json),
        "steps": plan.describe(),
    })
}
