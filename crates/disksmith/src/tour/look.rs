//! What a disk looks like at some moment, side by side with how it looked before: the table that
//! the guide draws.

use std::os::unix::fs::FileTypeExt;

use disksmith_disk::{Disk, Result, human_size};
use disksmith_formats::OpenMode;
use disksmith_open::{ImageSpec, Settings};
use disksmith_partitions::{Label, Table, probe, read};

/// The rows of the table.
const ROWS: [&str; 6] = ["file", "content", "table", "identifier", "cylinders", "partitions"];
/// A column is at most so wide.
const WIDEST: usize = 30;

/// The columns so far, of one image.
#[derive(Debug, Default)]
pub(super) struct Looks {
    image: String,
    columns: Vec<(String, [String; ROWS.len()])>,
}

impl Looks {
    /// Looks at `image` and draws what was seen so far.
    pub(super) fn look(&mut self, image: &str, column: &str) -> Result<String> {
        if self.image != image {
            *self = Self { image: image.to_string(), columns: Vec::new() };
        }
        self.columns.push((column.to_string(), facts(image)?));
        Ok(self.draw())
    }

    fn draw(&self) -> String {
        let mut text = String::new();
        let widths: Vec<usize> = self.columns.iter().map(width).collect();
        let mut line = |name: &str, cells: Vec<&str>| {
            text += &format!("  {name:<10}");
            for (cell, width) in cells.iter().zip(&widths) {
                text += &format!(" | {cell:<width$}");
            }
            text.truncate(text.trim_end().len());
            text.push('\n');
        };
        line("", self.columns.iter().map(|(name, _)| name.as_str()).collect());
        line("", widths.iter().map(|width| &DASHES[..(*width).min(DASHES.len())]).collect());
        for (row, name) in ROWS.iter().enumerate() {
            line(name, self.columns.iter().map(|(_, facts)| facts[row].as_str()).collect());
        }
        text
    }
}

const DASHES: &str = "------------------------------";

fn width((name, facts): &(String, [String; ROWS.len()])) -> usize {
    let cells = facts.iter().map(String::as_str).chain([name.as_str()]);
    cells.map(|cell| cell.chars().count()).max().unwrap_or(0).min(WIDEST)
}

fn facts(image: &str) -> Result<[String; ROWS.len()]> {
    let kind = std::fs::metadata(image)?.file_type();
    let node = disksmith_open::open(
        &ImageSpec::from_name(image, Some("raw"))?,
        &Settings::new(OpenMode::Read),
    )?;
    let table = read(&*node.image)?;
    Ok([
        if kind.is_block_device() { "block device" } else { "regular file" }.to_string(),
        content(&*node.image, &table)?,
        match table.label {
            Label::None => "none",
            Label::Mbr => "MBR",
            Label::Gpt => "GPT",
        }
        .to_string(),
        table.id.map_or_else(|| "none".to_string(), |id| id.to_string()),
        table.geometry.cylinders(table.disk_sectors).to_string(),
        partitions(&table),
    ])
}

fn content(disk: &dyn Disk, table: &Table) -> Result<String> {
    let found = probe(disk)?.map(|content| content.kind.to_string());
    Ok(found.unwrap_or_else(|| match table.label {
        Label::None => "zeroes".to_string(),
        _ => "a partition table".to_string(),
    }))
}

fn partitions(table: &Table) -> String {
    let one = |p: &disksmith_partitions::Partition| {
        format!("{} {}, {}", p.number, p.kind.name(), human_size(p.length_bytes(table.sector_size)))
    };
    match table.partitions.as_slice() {
        [] => "none".to_string(),
        all => all.iter().map(one).collect::<Vec<_>>().join("; "),
    }
}
