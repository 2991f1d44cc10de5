//! `snapshot`: list, take, return to and remove internal snapshots.

use std::time::{SystemTime, UNIX_EPOCH};

use disksmith_disk::{Error, Kind};
use disksmith_formats::{Image, OpenMode, Snapshot as Record};
use serde_json::json;

use super::Verb;
use super::common::{Form, Purpose, Source, two_lines};
use crate::face::{DONE, Face, Failure, Outcome, usage};
use crate::render::{json::pretty, snapshots};

/// The arguments of `snapshot`.
#[derive(clap::Args, Debug, Default)]
pub(crate) struct Snapshot {
    #[command(flatten)]
    pub source: Source,
    /// List the snapshots (the default)
    #[arg(short, long)]
    pub list: bool,
    /// Take one
    #[arg(short, long, value_name = "NAME")]
    pub create: Option<String>,
    /// Return to the content of one
    #[arg(short, long, value_name = "NAME")]
    pub apply: Option<String>,
    /// Remove one
    #[arg(short, long, value_name = "NAME")]
    pub delete: Option<String>,
    /// Look even while another process writes the image
    #[arg(short = 'U', long)]
    pub force_share: bool,
    /// Print nothing but errors
    #[arg(short, long)]
    pub quiet: bool,
    #[command(flatten)]
    pub form: Form,
    /// The image
    #[arg(value_name = "IMAGE")]
    pub image: String,
}

impl Verb for Snapshot {
    const NAME: &'static str = "snapshot";
    const ABOUT: &'static str = "List, take, return to and remove internal snapshots";

    fn run(self, face: &Face) -> Outcome {
        let actions = [self.create.is_some(), self.apply.is_some(), self.delete.is_some(), self.list];
        if actions.iter().filter(|given| **given).count() > 1 {
            return usage("Cannot mix '-l', '-a', '-c', '-d'");
        }
        let changes = actions[..3].contains(&true);
        let mode = if changes { OpenMode::Write } else { OpenMode::Read };
        let purpose = Purpose::new(mode).shared(self.force_share);
        let node = self.source.open(face, &self.image, purpose)?;
        let image = &*node.image;
        if let Some(name) = &self.create {
            create(image, name).map_err(|e| e.context(format!("Could not create snapshot '{name}'")))?;
        } else if let Some(name) = &self.apply {
            apply(image, name)
                .map_err(|e| two_lines(face, e, "Failed to load snapshot"))
                .map_err(|e| e.context(format!("Could not apply snapshot '{name}'")))?;
        } else if let Some(name) = &self.delete {
            delete(image, name)
                .inspect_err(|error| tell_unfreed(face, error))
                .map_err(|e| e.context(format!("Could not delete snapshot '{name}'")))?;
        } else {
            self.show(face, image)?;
        }
        if changes {
            node.close()?;
        }
        Ok(DONE)
    }
}

impl Snapshot {
    fn show(&self, face: &Face, image: &dyn Image) -> Result<(), Failure> {
        let list = image.snapshots();
        if self.form.is_json()? {
            let list = list.iter().map(snapshots::value).collect();
            face.print(&pretty(&json!({"snapshots": serde_json::Value::Array(list)})));
        } else {
            let mut page = face.page();
            snapshots::table(&list).for_each(|row| page.line(&row));
        }
        Ok(())
    }
}

fn create(image: &dyn Image, name: &str) -> Result<(), Error> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    image.create_snapshot(Record {
        name: name.to_string(),
        date_seconds: u32::try_from(now.as_secs()).unwrap_or(u32::MAX),
        date_nanoseconds: now.subsec_micros() * 1000,
        instruction_count: Some(0),
        disk_size: Some(image.size()),
        ..Record::default()
    })?;
    image.flush()
}

fn apply(image: &dyn Image, name: &str) -> Result<(), Error> {
    if image.snapshots().is_empty() && image.format() == "raw" {
        return Err(Error::new(Kind::Unsupported, "Block driver does not support snapshots"));
    }
    if !image.snapshots().iter().any(|s| s.id == name || s.name == name) {
        return Err(Error::new(Kind::NotFound, "No such file or directory")
            .context("Failed to load snapshot"));
    }
    image.apply_snapshot(name)?;
    image.flush()
}

fn delete(image: &dyn Image, name: &str) -> Result<(), Error> {
    let list = image.snapshots();
    let Some(found) = list.iter().find(|s| s.name == name) else {
        return Err(Error::new(Kind::NotFound, "snapshot not found"));
    };
    image.delete_snapshot(&found.id)?;
    image.flush()
}

/// A snapshot is gone from the list, and its storage could not be given back: qemu-img says the
/// same of the old list first.
fn tell_unfreed(face: &Face, error: &Error) {
    let message = error.to_string();
    if let Some(cause) = message.strip_prefix("Failed to free the cluster and L1 table: ")
        && face.drop_in
    {
        face.note(&format!("qcow2_free_clusters failed: {cause}\n"));
    }
}
