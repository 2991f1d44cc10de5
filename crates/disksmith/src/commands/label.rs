//! `label`: the name and the UUID of a filesystem.

use disksmith_disk::{Context, Disk, Error, Kind};
use disksmith_filesystems::{ext, fat, swap};
use disksmith_formats::OpenMode;
use disksmith_open::{Locking, open_disk};
use serde_json::json;

use super::Verb;
use super::common::Form;
use super::mkfs::parse_uuid;
use crate::face::{DONE, Face, Failure, Outcome, usage};
use crate::guest::Access;
use crate::render::json::pretty;

/// The arguments of `label`.
#[derive(clap::Args, Debug, Default)]
pub(crate) struct Label {
    #[command(flatten)]
    pub access: Access,
    /// Give it this UUID, or a random one
    #[arg(long, value_name = "UUID|random")]
    pub uuid: Option<String>,
    #[command(flatten)]
    pub form: Form,
    /// Which: IMAGE, IMAGE:PART
    #[arg(value_name = "ADDRESS")]
    pub address: String,
    /// The new label; without it and --uuid the present one is printed
    #[arg(value_name = "NEWLABEL")]
    pub label: Option<String>,
}

impl Verb for Label {
    const NAME: &'static str = "label";
    const ABOUT: &'static str = "Print or change the label and the UUID of a filesystem";

    fn run(self, face: &Face) -> Outcome {
        let json = self.form.is_json()?;
        let mut address = self.access.address(&self.address);
        if address.path.is_some() {
            return usage("a filesystem is named by IMAGE or IMAGE:PART, not by a path");
        }
        if address.part.is_none() {
            address.part = Some(String::new());
        }
        let change = self.label.is_some() || self.uuid.is_some();
        let mut settings = self.access.settings(change)?;
        if change {
            (settings.mode, settings.locking) = (OpenMode::Write, Locking::Serve);
        }
        let opened = open_disk(&address, &settings)?;
        if !change {
            return show(face, &*opened.disk, json);
        }
        let attempt = || format!("Could not change the label of '{}'", opened.shown);
        let kind = disksmith_partitions::probe(&*opened.disk)?.map(|content| content.kind);
        match kind {
            Some("ext2" | "ext3" | "ext4") => {
                let uuid = self.uuid.as_deref().map(new_uuid).transpose()?;
                let label = self.label.as_ref().map(|label| label.as_bytes().to_vec());
                let changes = ext::Tune { label, uuid, ..ext::Tune::default() };
                ext::tune(&opened.disk, &changes).with_context(attempt)?;
            }
            Some(kind @ ("vfat" | "exfat")) => {
                let serial = self.uuid.as_deref().map(new_serial).transpose()?;
                let label = self.label.as_ref().map(|label| label.as_bytes().to_vec());
                let time = super::mkfs::epoch()?;
                let changes = fat::Tune { label, serial, time };
                let tune = if kind == "vfat" { fat::tune } else { fat::exfat::tune };
                tune(opened.disk.clone(), &changes).with_context(attempt)?;
            }
            Some("swap") => {
                let uuid = self.uuid.as_deref().map(new_uuid).transpose()?;
                let label = self.label.as_ref().map(|label| label.as_bytes());
                swap::tune(&*opened.disk, label, uuid).with_context(attempt)?;
            }
            Some(other) => {
                let why = format!(
                    "The label of {other} cannot be changed (only of ext2, ext3, ext4, FAT, exFAT and swap)"
                );
                return Err(Error::new(Kind::Unsupported, why).context(attempt()).into());
            }
            None => {
                let why = "There is no filesystem that is known";
                return Err(Error::new(Kind::NotFound, why).context(attempt()).into());
            }
        }
        opened.close()?;
        Ok(DONE)
    }
}

fn show(face: &Face, disk: &dyn Disk, json: bool) -> Outcome {
    let content = disksmith_partitions::probe(disk)?;
    face.print(&match json {
        true => pretty(&json!({
            "type": content.as_ref().map(|content| content.kind),
            "label": content.as_ref().and_then(|content| content.label.as_deref()),
            "uuid": content.as_ref().and_then(|content| content.uuid.as_deref()),
        })),
        false => {
            let label = content.and_then(|content| content.label).unwrap_or_default();
            format!("{}\n", crate::guest::show::name(label.as_bytes()))
        }
    });
    Ok(DONE)
}

/// Reads a UUID, or makes one up.
pub(crate) fn new_uuid(text: &str) -> Result<[u8; 16], Failure> {
    match text {
        "random" | "time" => Ok(uuid::Uuid::new_v4().into_bytes()),
        "clear" => Ok([0; 16]),
        text => parse_uuid(text),
    }
}

/// Reads a serial number of FAT, or makes one up.
fn new_serial(text: &str) -> Result<u32, Failure> {
    match text {
        "random" | "time" => Ok((uuid::Uuid::new_v4().as_u128() & 0xFFFF_FFFF) as u32),
        "clear" => Ok(0),
        text => super::mkfs::parse_serial(text),
    }
}
