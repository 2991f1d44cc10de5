//! `map`: which ranges of an image hold data, and where.

use disksmith_disk::{Disk, Error, Kind};
use disksmith_formats::OpenMode;
use disksmith_open::{ChainExtent, Node, chain_extents_like_qemu};

use super::Verb;
use super::common::{Form, Purpose, Source};
use crate::face::{DONE, Face, Failure, Outcome};

/// Text is passed on in pieces of about this size, so that a map of a large image does not
/// pile up in memory.
const PIECE: usize = 1 << 16;

/// The arguments of `map`.
#[derive(clap::Args, Debug, Default)]
pub(crate) struct Map {
    #[command(flatten)]
    pub source: Source,
    /// Where to begin
    #[arg(short, long, value_name = "OFFSET")]
    pub start_offset: Option<String>,
    /// How far to look
    #[arg(short = 'l', long, value_name = "LENGTH")]
    pub max_length: Option<String>,
    /// Look even while another process writes the image
    #[arg(short = 'U', long)]
    pub force_share: bool,
    #[command(flatten)]
    pub form: Form,
    /// The image
    #[arg(value_name = "IMAGE")]
    pub image: String,
}

impl Verb for Map {
    const NAME: &'static str = "map";
    const ABOUT: &'static str = "Tell which ranges of an image hold data, and where";

    fn run(self, face: &Face) -> Outcome {
        let json = self.form.is_json()?;
        let number = |text: &Option<String>, what: &str| {
            text.as_deref().map(|text| crate::numbers::size(face, what, text)).transpose()
        };
        let start = number(&self.start_offset, "start offset")?.unwrap_or(0);
        let length = number(&self.max_length, "max length")?;
        let purpose = Purpose::new(OpenMode::Read).shared(self.force_share);
        let node = self.source.open(face, &self.image, purpose)?;
        let length = length.unwrap_or_else(|| node.image.size().saturating_sub(start));
        match json {
            true => print_json(face, &node, start, length)?,
            false => print_text(face, &node, start, length)?,
        }
        Ok(DONE)
    }
}

fn print_text(face: &Face, node: &Node, start: u64, length: u64) -> Result<(), Failure> {
    let mut text = format!("{:<16}{:<16}{:<16}File\n", "Offset", "Length", "Mapped to");
    for extent in chain_extents_like_qemu(node, start, length) {
        let extent = extent?;
        if extent.data && extent.place.is_none() {
            face.print(&text);
            return Err(Error::new(
                Kind::Unsupported,
                "File contains external, encrypted or compressed clusters.",
            )
            .into());
        }
        if extent.data && !extent.zero {
            let file = node.without_filters().chain().nth(extent.depth).map(Node::data_name).unwrap_or_default();
            text += &format!(
                "{}{}{}{file}\n",
                hex(extent.start),
                hex(extent.length),
                hex(extent.place.unwrap_or(0))
            );
        }
        if text.len() > PIECE {
            face.print(&std::mem::take(&mut text));
        }
    }
    face.print(&text);
    Ok(())
}

/// Hexadecimal as C's `%#-16x` has it: zero without a prefix.
fn hex(number: u64) -> String {
    match number {
        0 => format!("{:<16}", "0"),
        number => format!("{:<16}", format!("{number:#x}")),
    }
}

fn print_json(face: &Face, node: &Node, start: u64, length: u64) -> Result<(), Failure> {
    let mut text = String::from("[");
    let mut first = true;
    for extent in chain_extents_like_qemu(node, start, length) {
        if !std::mem::take(&mut first) {
            text += ",\n";
        }
        text += &object(&extent?);
        if text.len() > PIECE {
            face.print(&std::mem::take(&mut text));
        }
    }
    if first {
        // Past the end: one empty range that is nothing.
        text += &object(&ChainExtent {
            start,
            length: 0,
            depth: 0,
            present: false,
            zero: false,
            data: false,
            compressed: false,
            place: None,
        });
    }
    text += "]\n";
    face.print(&text);
    Ok(())
}

fn object(extent: &ChainExtent) -> String {
    let mut text = format!(
        "{{ \"start\": {}, \"length\": {}, \"depth\": {}, \"present\": {}, \"zero\": {}, \"data\": {}, \"compressed\": {}",
        extent.start,
        extent.length,
        extent.depth,
        extent.present,
        extent.zero,
        extent.data,
        extent.compressed
    );
    if let Some(place) = extent.place {
        text += &format!(", \"offset\": {place}");
    }
    text + "}"
}
