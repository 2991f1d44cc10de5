//! `df`: how full the filesystems of images are.

use disksmith_disk::{Disk, Result};
use disksmith_filesystems::Statistics;
use disksmith_open::{Address, OpenedDisk, open_disk, open_filesystem};
use disksmith_partitions::probe::Usage;
use serde_json::{Value, json};

use super::Verb;
use super::common::Form;
use crate::face::{DONE, FAILED, Face, Outcome};
use crate::guest::{Access, show};
use crate::render::json::pretty;
use crate::render::printable;

/// The arguments of `df`.
#[derive(clap::Args, Debug, Default)]
#[command(disable_help_flag = true)]
pub(crate) struct Df {
    #[command(flatten)]
    pub access: Access,
    /// Sizes as 1.5K, 20M
    #[arg(short = 'h', long, alias = "human-readable")]
    pub human: bool,
    /// In units of 1 KiB and with types, which is the rule
    #[arg(short = 'k', hide = true)]
    pub kibibytes: bool,
    /// The same
    #[arg(short = 'T', long, hide = true)]
    pub print_type: bool,
    /// Print help
    #[arg(long, action = clap::ArgAction::Help)]
    pub help: Option<bool>,
    /// Inodes instead of blocks
    #[arg(short, long)]
    pub inodes: bool,
    #[command(flatten)]
    pub form: Form,
    /// Images, or parts of them
    #[arg(value_name = "ADDRESS", required = true)]
    pub addresses: Vec<String>,
}

/// One filesystem.
struct Row {
    name: String,
    kind: String,
    label: String,
    numbers: Statistics,
}

impl Verb for Df {
    const NAME: &'static str = "df";
    const ABOUT: &'static str = "Tell how full the filesystems of images are";

    fn run(self, face: &Face) -> Outcome {
        let json = self.form.is_json()?;
        let settings = self.access.settings(false)?;
        let (mut rows, mut status) = (Vec::new(), DONE);
        for text in &self.addresses {
            let address = self.access.address(text);
            let whole = Address { path: None, ..address.clone() };
            let opened = open_disk(&whole, &settings)?;
            let told = match address.part {
                None => all(face, &opened, &mut rows),
                Some(_) => one(&opened.disk, &opened.shown).map(|row| rows.push(row)),
            };
            if let Err(error) = told {
                face.report(&error);
                status = FAILED;
            }
        }
        match json {
            true => {
                let rows = rows.iter().map(Row::json).collect();
                face.print(&pretty(&Value::Array(rows)));
            }
            false => self.table(face, &rows),
        }
        Ok(status)
    }
}

/// All filesystems of a disk.
fn all(face: &Face, opened: &OpenedDisk, rows: &mut Vec<Row>) -> Result<()> {
    let holds = |disk: &dyn Disk| {
        Ok::<_, disksmith_disk::Error>(
            disksmith_partitions::probe(disk)?.is_some_and(|c| c.usage == Usage::Filesystem),
        )
    };
    if holds(&opened.disk)? {
        rows.push(one(&opened.disk, &opened.shown)?);
        return Ok(());
    }
    let table = disksmith_partitions::read(&opened.disk)?;
    for partition in table.partitions.iter().filter(|partition| !partition.is_extended()) {
        let slice = table.slice(opened.disk.clone(), partition.number)?;
        if !holds(&slice)? {
            continue;
        }
        let slice: std::sync::Arc<dyn Disk> = std::sync::Arc::new(slice);
        match one(&slice, &format!("{}:{}", opened.shown, partition.number)) {
            Ok(row) => rows.push(row),
            Err(error) => face.report(&error),
        }
    }
    Ok(())
}

fn one(disk: &std::sync::Arc<dyn Disk>, shown: &str) -> Result<Row> {
    let content = disksmith_partitions::probe(disk)?;
    match open_filesystem(disk, shown, true) {
        Ok(tree) => Ok(Row {
            name: shown.to_string(),
            kind: tree.type_name().to_string(),
            label: show::name(&tree.label()),
            numbers: tree.statistics()?,
        }),
        // What cannot be opened may still say in its superblock how full it is.
        Err(error) => match content.and_then(|c| Some((c.kind, c.label, c.size?, c.used?))) {
            Some((kind, label, size, used)) => Ok(Row {
                name: shown.to_string(),
                kind: kind.to_string(),
                label: show::name(label.unwrap_or_default().as_bytes()),
                numbers: Statistics {
                    block_size: 512,
                    blocks: size / 512,
                    free: size.saturating_sub(used) / 512,
                    available: size.saturating_sub(used) / 512,
                    ..Statistics::default()
                },
            }),
            None => Err(error),
        },
    }
}

impl Row {
    fn bytes(&self, blocks: u64) -> u64 {
        blocks.saturating_mul(u64::from(self.numbers.block_size))
    }

    fn used(&self) -> u64 {
        self.bytes(self.numbers.blocks.saturating_sub(self.numbers.free))
    }

    fn json(&self) -> Value {
        json!({
            "filesystem": self.name,
            "type": self.kind,
            "label": self.label,
            "size": self.bytes(self.numbers.blocks),
            "used": self.used(),
            "available": self.bytes(self.numbers.available),
            "inodes": self.numbers.inodes,
            "inodes-used": self.numbers.inodes.saturating_sub(self.numbers.free_inodes),
            "inodes-free": self.numbers.free_inodes,
        })
    }
}

/// As df(1): rounded up.
fn percent(used: u64, available: u64) -> String {
    match used.checked_add(available) {
        None | Some(0) => "-".to_string(),
        Some(all) => format!("{}%", (u128::from(used) * 100).div_ceil(u128::from(all))),
    }
}

impl Df {
    fn table(&self, face: &Face, rows: &[Row]) {
        let size = |bytes: u64| match self.human {
            true => show::human(bytes),
            false => bytes.div_ceil(1024).to_string(),
        };
        let heads = match (self.inodes, self.human) {
            (true, _) => ["Filesystem", "Type", "Inodes", "IUsed", "IFree", "IUse%"],
            (_, true) => ["Filesystem", "Type", "Size", "Used", "Avail", "Use%"],
            _ => ["Filesystem", "Type", "1K-blocks", "Used", "Available", "Use%"],
        };
        let mut table = vec![heads.map(str::to_string)];
        for row in rows {
            let n = &row.numbers;
            let (name, kind) = (printable(&row.name), row.kind.clone());
            let inodes_used = n.inodes.saturating_sub(n.free_inodes);
            let available = row.bytes(n.available);
            table.push(match self.inodes {
                true => [
                    name,
                    kind,
                    n.inodes.to_string(),
                    inodes_used.to_string(),
                    n.free_inodes.to_string(),
                    percent(inodes_used, n.free_inodes),
                ],
                false => [
                    name,
                    kind,
                    size(row.bytes(n.blocks)),
                    size(row.used()),
                    size(available),
                    percent(row.used(), available),
                ],
            });
        }
        let width = |c: usize| table.iter().map(|r| r[c].chars().count()).max().unwrap_or(0);
        let w: Vec<_> = (0..6).map(width).collect();
        for [name, kind, a, b, c, d] in &table {
            face.print(&format!(
                "{name:<0$} {kind:<1$} {a:>2$} {b:>3$} {c:>4$} {d:>5$}\n",
                w[0], w[1], w[2], w[3], w[4], w[5]
            ));
        }
    }
}
