//! `measure`: how large an image will become.

use disksmith_disk::{Error, Kind};
use disksmith_formats::OpenMode;
use serde_json::{Map, json};

use super::Verb;
use super::common::{Form, Purpose, Source};
use super::convert::{SnapshotName, view};
use crate::face::{DONE, Face, Outcome, refuse};
use crate::making::{Plan, creatable, join_lists, wants_help};
use crate::measuring::{Measured, measure};
use crate::render::json::pretty;
use crate::render::options;

/// The arguments of `measure`.
#[derive(clap::Args, Debug, Default)]
pub(crate) struct Measure {
    #[command(flatten)]
    pub source: Source,
    /// Format of the image to be made
    #[arg(short = 'O', long, value_name = "FMT")]
    pub target_format: Option<String>,
    /// Options of that format
    #[arg(short, long, value_name = "OPTIONS")]
    pub options: Vec<String>,
    /// An empty image of this size
    #[arg(short, long, value_name = "SIZE")]
    pub size: Option<String>,
    /// A snapshot of the image
    #[arg(short = 'l', long, value_name = "SNAPSHOT")]
    pub snapshot: Option<String>,
    /// Read even while another process writes the image
    #[arg(short = 'U', long)]
    pub force_share: bool,
    #[command(flatten)]
    pub form: Form,
    /// The image to be converted
    #[arg(value_name = "IMAGE")]
    pub image: Option<String>,
}

impl Verb for Measure {
    const NAME: &'static str = "measure";
    const ABOUT: &'static str = "Tell how large an image will become";

    fn run(self, face: &Face) -> Outcome {
        let json = self.form.is_json()?;
        let size = self.size.as_deref().map(|text| crate::numbers::size(face, "image size", text)).transpose()?;
        let snapshot = self.snapshot.as_deref().map(|text| SnapshotName::parse(face, text)).transpose()?;
        let lists = join_lists(&self.options)?;
        if self.image.is_none()
            && (self.source.image_opts || self.source.format.is_some() || snapshot.is_some())
        {
            return refuse("--image-opts, -f, and -l require a filename argument.");
        }
        match (&self.image, size) {
            (Some(_), Some(_)) => return refuse("--size N cannot be used together with a filename."),
            (None, None) if face.drop_in || !wants_help(&self.options) => {
                return refuse("Either --size N or one filename must be specified.");
            }
            _ => {}
        }
        let node = match &self.image {
            Some(name) => {
                let purpose = Purpose::new(OpenMode::Read).shared(self.force_share);
                let node = self.source.open(face, name, purpose)?;
                Some(match &snapshot {
                    Some(snapshot) => view(node, snapshot)?,
                    None => node,
                })
            }
            None => None,
        };
        let format = self.target_format.as_deref().unwrap_or("raw");
        let driver = creatable(format)?;
        if wants_help(&self.options) {
            face.print(&options::create_help(driver, false));
            return Ok(DONE);
        }
        let mut plan = Plan { driver, name: String::new(), options: lists };
        if let Err(error) = plan.check() {
            face.report(&error);
            return refuse(format!("Invalid options for file format '{format}'"));
        }
        let size = node.as_ref().map_or(size.unwrap_or(0), |node| disksmith_disk::Disk::size(&*node.image));
        plan.options.set("size", size.to_string());
        let measured = measure(&plan, node.as_ref(), size)?;
        let Some(measured) = measured else {
            return Err(Error::new(
                Kind::Unsupported,
                format!("Block driver '{format}' does not support size measurement"),
            )
            .into());
        };
        face.print(&if json { as_json(&measured) } else { as_text(&measured) });
        Ok(DONE)
    }
}

fn as_text(measured: &Measured) -> String {
    let mut text = format!(
        "required size: {}\nfully allocated size: {}\n",
        measured.required, measured.fully_allocated
    );
    if let Some(bitmaps) = measured.bitmaps {
        text += &format!("bitmaps size: {bitmaps}\n");
    }
    text
}

fn as_json(measured: &Measured) -> String {
    let mut map = Map::new();
    if let Some(bitmaps) = measured.bitmaps {
        map.insert("bitmaps".into(), json!(bitmaps));
    }
    map.insert("required".into(), json!(measured.required));
    map.insert("fully-allocated".into(), json!(measured.fully_allocated));
    pretty(&map.into())
}
