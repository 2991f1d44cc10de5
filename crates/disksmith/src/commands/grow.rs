//! `grow`: give a disk more room, down to its last filesystem.

use disksmith_disk::Context;
use disksmith_open::open_disk;
use disksmith_operations::grow::{FilesystemChange, GrowPlan, GrowRequest};
use disksmith_operations::{Silent, SizeChange};
use serde_json::{Value, json};

use super::Verb;
use super::common::Form;
use crate::face::{DONE, Face, Outcome, usage};
use crate::guest::Access;
use crate::render::json::pretty;

/// The arguments of `grow`.
#[derive(clap::Args, Debug, Default)]
#[command(after_help = HELP)]
pub(crate) struct Grow {
    #[command(flatten)]
    pub access: Access,
    /// Grow the disk and the partition even if what is in it cannot be grown
    #[arg(long)]
    pub force: bool,
    /// Show what would be done, and do nothing
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub form: Form,
    /// Do not tell what was done
    #[arg(short, long)]
    pub quiet: bool,
    /// The image, or IMAGE:PART to give the room to another partition than the last
    #[arg(value_name = "IMAGE")]
    pub image: String,
    /// The new size of the disk, or what to add to it: 20G, +5G
    #[arg(value_name = "SIZE|+SIZE")]
    pub size: String,
}

const HELP: &str = "\
The disk, its partition table, its last (or the named) partition and the filesystem in it become
larger, in this order. Everything is tried first: what cannot be grown is refused, and then nothing
is changed. A run that was cut short is completed by running it again.";

impl Verb for Grow {
    const NAME: &'static str = "grow";
    const ABOUT: &'static str =
        "Give a disk, its last partition and the filesystem in it more room";

    fn run(self, face: &Face) -> Outcome {
        let json = self.form.is_json()?;
        let address = self.access.address(&self.image);
        if address.path.is_some() {
            return usage("IMAGE or IMAGE:PART is grown, not a path in it");
        }
        if self.size.starts_with('-') {
            return usage("grow takes SIZE or +SIZE; making smaller is what 'shrink' does");
        }
        let opened = open_disk(&address, &self.access.settings(!self.dry_run)?)?;
        let attempt = || format!("Could not grow '{}'", self.image);
        let disk = opened.whole_disk();
        let request = GrowRequest {
            disk: disk.clone(),
            change: SizeChange::parse(&self.size)?,
            partition: opened.partition.as_ref().map(|partition| partition.number),
            force: self.force,
        };
        let plan = GrowPlan::new(&request).with_context(attempt)?;
        if !self.dry_run {
            plan.apply(&*opened.node.image, &disk, &Silent).with_context(attempt)?;
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

fn told(plan: &GrowPlan) -> String {
    let lines = plan.describe();
    match lines.is_empty() {
        true => "Nothing to do: the disk has that size, and everything on it reaches to its end.\n"
            .into(),
        false => joined(&lines),
    }
}

/// Steps, a line each.
pub(crate) fn joined(lines: &[String]) -> String {
    lines.iter().map(|line| format!("{line}\n")).collect()
}

/// What becomes of a filesystem.
pub(crate) fn filesystem_json(change: &FilesystemChange) -> Value {
    json!({
        "type": change.content.kind,
        "old-size": change.old_size,
        "new-size": change.new_size,
    })
}

fn as_json(plan: &GrowPlan) -> Value {
    json!({
        "old-size": plan.old_size,
        "new-size": plan.new_size,
        "resumed": plan.resumed,
        "partition": plan.partition(),
        "filesystem": plan.filesystem.as_ref().map(filesystem_json),
        "steps": plan.describe(),
    })
}
