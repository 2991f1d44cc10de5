//! `partition`: print and edit partition tables.

use std::io::{IsTerminal, Read};

use disksmith_disk::{Context, Disk, Error, Extent, Geometry, Kind, Result, ZeroMode};
use disksmith_formats::{Image, OpenMode, Preallocation, ResizeRequest};
use disksmith_partitions::{
    AddRequest, Align, Amount, Change, DiskId, Label, Length, Plan, Severity, Source as Copy,
    Step, Table, add, convert, dump_json, dump_script, find, free_space, init_with_id, minimise,
    move_partition, parse_attributes, parse_dump, probe, read, remove, render, repair, resize,
    restore, set, types,
};
use serde_json::{Value, json};

use super::Verb;
use super::common::{Form, Purpose, Source};
use crate::face::{DONE, FAILED, Face, Failure, Outcome, usage};
use crate::progress::Progress;
use crate::render::json::pretty;

/// A dump that is read has at most so many bytes.
const MAX_DUMP: u64 = 16 << 20;
/// Free regions below this are what alignment leaves over; the listing leaves them out.
const SMALL: u64 = 1 << 20;
/// A bar is at most so wide.
const WIDEST_BAR: usize = 120;

/// The arguments of `partition`.
#[derive(clap::Args, Debug, Default)]
#[command(args_conflicts_with_subcommands = false, after_help = HELP)]
pub(crate) struct PartitionVerb {
    #[command(flatten)]
    pub source: Source,
    /// Read even while another process writes the image
    #[arg(short = 'U', long)]
    pub force_share: bool,
    /// Show cylinders, heads and 1 KiB blocks, as fdisk did when disks had them
    #[arg(long)]
    pub cylinders: bool,
    /// human or json
    #[arg(long, value_name = "FORM", global = true)]
    pub output: Option<String>,
    /// The same as --output json
    #[arg(long, global = true)]
    pub json: bool,
    /// Show what would be done, and do nothing
    #[arg(long, global = true)]
    pub dry_run: bool,
    /// Do it even where recognised content would be lost
    #[arg(long, global = true)]
    pub force: bool,
    /// Do not tell what was done
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// The image
    #[arg(value_name = "IMAGE")]
    pub image: String,
    /// What to do; without it the table is printed
    #[command(subcommand)]
    pub action: Option<Action>,
}

const HELP: &str = "\
Positions are sectors when they have no unit: 2048, 1MiB. Sizes are bytes: 10G, 512M, 100s.
A partition is named by its number, its name or its id. Types are words (linux, swap, esp,
bios-boot, lvm, raid, …), hexadecimal codes, GUIDs or the names that fdisk prints.";

/// What to do with the table.
#[derive(clap::Subcommand, Debug)]
pub(crate) enum Action {
    /// Make a new, empty table
    Init {
        /// gpt or mbr
        label: String,
        /// The id of the disk; random when not given
        #[arg(long)]
        id: Option<String>,
    },
    /// Add a partition
    Add(AddArguments),
    /// Take partitions out of the table
    Remove {
        /// Number, name or id
        #[arg(required = true, value_name = "PARTITION")]
        partitions: Vec<String>,
    },
    /// Change the length of a partition (not of what is in it)
    Resize {
        /// Number, name or id
        partition: String,
        /// The new length, or 'rest' for all the room behind it
        size: String,
        /// What the end is rounded to with 'rest'
        #[arg(long, default_value = "1MiB")]
        align: String,
    },
    /// Move a partition with its data; a move that was interrupted is resumed
    Move {
        /// Number, name or id
        partition: String,
        /// Where it is to start
        start: String,
    },
    /// Change properties of a partition, or of the disk
    Set(SetArguments),
    /// Check the table; the exit status is 1 when something is wrong
    Verify,
    /// Write a damaged table anew from what is whole, finish an interrupted move
    Repair {
        /// Which copy of a GPT to believe: auto, primary or backup
        #[arg(long, value_name = "COPY", default_value = "auto")]
        from: String,
    },
    /// Turn an MBR into a GPT or back; the partitions stay where they are
    Convert {
        /// gpt or mbr
        label: String,
    },
    /// Print the table as a script of sfdisk, or with --json as its JSON
    Dump,
    /// Write a table from a dump in either form
    Restore {
        /// The dump; standard input when not given
        file: Option<String>,
    },
    /// Make the disk end behind its last partition
    Minimise,
}

/// The arguments of `add`.
#[derive(clap::Args, Debug)]
pub(crate) struct AddArguments {
    /// The length, or 'rest' for the largest free region
    #[arg(long, default_value = "rest")]
    size: String,
    /// Where it starts; the first place where it fits when not given
    #[arg(long, value_name = "SECTOR")]
    start: Option<String>,
    /// What it is for
    #[arg(long = "type", value_name = "TYPE", default_value = "linux")]
    kind: String,
    /// Its name (GPT)
    #[arg(long, default_value = "")]
    name: String,
    /// To be booted from
    #[arg(long)]
    bootable: bool,
    /// In the extended partition (MBR)
    #[arg(long)]
    logical: bool,
    /// 1MiB, another size, optimal (what the device likes), cylinder or none
    #[arg(long, default_value = "1MiB")]
    align: String,
    /// Its number; the lowest free one when not given
    #[arg(long)]
    number: Option<u32>,
    /// Its id (GPT); random when not given
    #[arg(long)]
    uuid: Option<String>,
    /// Attributes (GPT): RequiredPartition, LegacyBIOSBootable, GUID:60, 0x…
    #[arg(long, default_value = "")]
    attributes: String,
}

/// The arguments of `set`.
#[derive(clap::Args, Debug)]
pub(crate) struct SetArguments {
    /// Number, name or id; not needed for --disk-id
    partition: Option<String>,
    /// What it is for
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<String>,
    /// Its name (GPT)
    #[arg(long)]
    name: Option<String>,
    /// Whether to boot from it
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    bootable: Option<bool>,
    /// Its id (GPT)
    #[arg(long)]
    uuid: Option<String>,
    /// Attributes (GPT): all of them, replacing what is set
    #[arg(long, alias = "flags")]
    attributes: Option<String>,
    /// The id of the disk
    #[arg(long, value_name = "ID")]
    disk_id: Option<String>,
}

impl Verb for PartitionVerb {
    const NAME: &'static str = "partition";
    const ABOUT: &'static str = "Print, make, edit, check and repair partition tables";

    fn run(self, face: &Face) -> Outcome {
        let json = Form { output: self.output.clone(), json: self.json }.is_json()?;
        let writes = self.action.as_ref().is_some_and(Action::writes) && !self.dry_run;
        let mode = if writes { OpenMode::Write } else { OpenMode::Read };
        let spec = self.source.spec(&self.image)?;
        let purpose = Purpose::new(mode).shared(self.force_share);
        // No warning about a raw image that is raw by guess: a partition table cannot be mistaken
        // for another format, and what could be is refused by the guard of the first sector.
        let node = disksmith_open::open(&spec, &self.source.settings(purpose)?)?;
        let disk = Resizable(&*node.image);
        let attempt = || self.image.clone();
        let table = read(&disk).with_context(attempt)?;
        match &self.action {
            None if json => face.print(&pretty(&self.as_json(&disk, &table)?)),
            None => self.print(face, &disk, &table)?,
            Some(Action::Verify) => return Ok(self.verify(face, &table, json)),
            Some(Action::Dump) => face.print(&match json {
                true => pretty(&dump_json(&table, &self.image)),
                false => dump_script(&table, &self.image),
            }),
            Some(action) => {
                let plan = self.plan(face, &disk, &table, action).map_err(|e| in_image(e, &self.image))?;
                return self.carry_out(face, &disk, &plan, json).map_err(|e| in_image(e, &self.image));
            }
        }
        Ok(DONE)
    }
}

impl Action {
    fn writes(&self) -> bool {
        !matches!(self, Self::Verify | Self::Dump)
    }
}

fn in_image(failure: Failure, image: &str) -> Failure {
    match failure {
        Failure::Error(error) => Failure::Error(error.context(image)),
        other => other,
    }
}

impl PartitionVerb {
    fn print(&self, face: &Face, disk: &dyn Disk, table: &Table) -> Result<()> {
        if self.cylinders {
            face.print(&render::cylinders(table, &self.image));
        } else {
            face.print(&self.overview(table));
        }
        if table.label == Label::None
            && let Some(content) = probe(disk)?
        {
            face.print(&format!("It holds {} as a whole.\n", content.kind));
        }
        for odd in table.oddities.iter().filter(|odd| odd.severity() != Severity::Note) {
            face.warn(&odd.to_string());
        }
        Ok(())
    }

    /// The table, the free space and, where somebody looks on, a bar.
    fn overview(&self, table: &Table) -> String {
        let mut text = render::fdisk(table, &self.image);
        if table.label == Label::None {
            text.push_str("\nThe disk has no partition table.\n");
            return text;
        }
        text.push('\n');
        let least = (SMALL / u64::from(table.sector_size)).max(1);
        text.push_str(&render::free(table, &self.image, least));
        if std::io::stdout().is_terminal() {
            text.push_str(&format!("\n{}\n", render::bar(table, terminal_width())));
        }
        text
    }

    /// sfdisk's keys; ours behind them.
    fn as_json(&self, disk: &dyn Disk, table: &Table) -> Result<Value, Failure> {
        let mut root = dump_json(table, &self.image);
        let list = root.pointer_mut("/partitiontable/partitions").and_then(Value::as_array_mut);
        for (value, partition) in list.into_iter().flatten().zip(&table.partitions) {
            let content = match table.slice(disk, partition.number) {
                Ok(slice) if !partition.is_extended() => probe(&slice)?,
                _ => None,
            };
            if let (Some(content), Some(map)) = (content, value.as_object_mut()) {
                map.insert("content".into(), content_json(&content));
            }
        }
        if let Some(map) = root.get_mut("partitiontable").and_then(Value::as_object_mut) {
            let free: Vec<Value> = free_space(table)
                .iter()
                .map(|r| json!({"start": r.start, "size": r.sectors, "logical": r.logical}))
                .collect();
            map.insert("free".into(), Value::Array(free));
            map.insert("oddities".into(), oddities_json(table));
        }
        Ok(root)
    }

    fn verify(&self, face: &Face, table: &Table, json: bool) -> u8 {
        let worst = table.oddities.iter().map(|odd| odd.severity()).max();
        if json {
            face.print(&pretty(&json!({"label": table.label.name(), "oddities": oddities_json(table)})));
        } else if table.label == Label::None {
            face.print("The disk has no partition table.\n");
        } else {
            for odd in &table.oddities {
                face.print(&format!("{}: {odd}\n", severity(odd.severity())));
            }
            let verdict = match worst {
                None => "No problems found.".to_string(),
                Some(Severity::Note) => "No problems found but what is noted above.".to_string(),
                Some(_) => format!("Mend what can be mended with: {} partition {} repair", face.program, self.image),
            };
            face.print(&format!("{verdict}\n"));
        }
        if worst == Some(Severity::Error) { FAILED } else { DONE }
    }

    fn plan(&self, face: &Face, disk: &dyn Disk, table: &Table, action: &Action) -> Result<Plan, Failure> {
        let new = match action {
            Action::Init { label, id } => {
                let label = sort(label)?;
                let id = id.as_deref().map(|id| DiskId::parse(id, label)).transpose()?;
                init_with_id(table, label, id)?
            }
            Action::Add(arguments) => add(table, &arguments.request(disk, table)?)?.0,
            Action::Remove { partitions } => removed(table, partitions)?,
            Action::Resize { partition, size, align } => {
                let number = number(table, partition)?;
                resize(table, number, length(size)?, Align::parse(align, disk)?)?
            }
            Action::Move { partition, start } => {
                let to = start.parse::<Amount>()?.sectors(table.sector_size);
                return Ok(move_partition(disk, table, number(table, partition)?, to)?);
            }
            Action::Set(arguments) => arguments.apply(table)?,
            Action::Repair { from } => return self.repair(face, disk, table, from),
            Action::Convert { label } => convert(table, sort(label)?)?,
            Action::Restore { file } => restore(table, &parse_dump(&read_dump(file.as_deref())?)?)?,
            Action::Minimise => minimise(table)?,
            Action::Verify | Action::Dump => table.clone(),
        };
        Ok(Plan::new(disk, table, &new)?)
    }

    fn repair(&self, face: &Face, disk: &dyn Disk, table: &Table, from: &str) -> Result<Plan, Failure> {
        let source = match from {
            "auto" => Copy::Auto,
            "primary" => Copy::Primary,
            "backup" => Copy::Backup,
            other => return usage(format!("--from expects auto, primary or backup, not '{other}'")),
        };
        let repair = repair(disk, table, source)?;
        if !self.quiet {
            let done = if self.dry_run { "would mend" } else { "mended" };
            for odd in repair.fixed.iter().filter(|_| repair.plan.permit(self.force || self.dry_run).is_ok()) {
                face.note(&format!("{done}: {odd}\n"));
            }
            for odd in repair.remaining.iter().filter(|odd| odd.severity() != Severity::Note) {
                face.note(&format!("left as it is: {odd}\n"));
            }
        }
        Ok(repair.plan)
    }

    fn carry_out(&self, face: &Face, disk: &dyn Disk, plan: &Plan, json: bool) -> Outcome {
        if json {
            face.print(&pretty(&plan_json(plan)));
        } else if self.dry_run || !self.quiet {
            let mut lines = plan.changes();
            if plan.is_empty() {
                lines.push("nothing to do".to_string());
            }
            if self.dry_run {
                lines.extend(plan.describe());
                lines.extend(plan.losses.iter().map(|loss| format!("would need --force: {loss}")));
            } else {
                // What is told as done must have been permitted first.
                plan.permit(self.force)?;
            }
            if !lines.is_empty() {
                face.print(&format!("{}\n", lines.join("\n")));
            }
        }
        if self.dry_run {
            return Ok(DONE);
        }
        let mut progress = Progress::new(face, false, self.quiet);
        let result = plan.apply_with(disk, self.force, &mut |now| {
            progress.show(now.done, now.total);
            Ok(())
        });
        progress.finish();
        result?;
        Ok(DONE)
    }
}

impl AddArguments {
    fn request(&self, disk: &dyn Disk, table: &Table) -> Result<AddRequest, Failure> {
        let start = self.start.as_deref().map(str::parse::<Amount>).transpose()?;
        Ok(AddRequest {
            length: length(&self.size)?,
            start: start.map(|start| start.sectors(table.sector_size)),
            kind: match table.label {
                Label::None => None,
                label => Some(types::parse(&self.kind, label)?),
            },
            name: self.name.clone(),
            bootable: self.bootable,
            logical: self.logical,
            number: self.number,
            uuid: self.uuid.as_deref().map(str::parse).transpose()?,
            attributes: parse_attributes(&self.attributes)?,
            align: Align::parse(&self.align, disk)?,
        })
    }
}

impl SetArguments {
    fn apply(&self, table: &Table) -> Result<Table, Failure> {
        let mut changes = Vec::new();
        if let Some(kind) = &self.kind {
            changes.push(Change::Type(types::parse(kind, table.label)?));
        }
        changes.extend(self.name.clone().map(Change::Name));
        if let Some(text) = &self.attributes {
            changes.push(Change::Attributes(parse_attributes(text)?));
        }
        changes.extend(self.bootable.map(Change::Bootable));
        if let Some(uuid) = &self.uuid {
            changes.push(Change::Uuid(uuid.parse()?));
        }
        let mut new = table.clone();
        if let Some(id) = &self.disk_id {
            new = set(&new, 0, &Change::DiskId(DiskId::parse(id, table.label)?))?;
        } else if changes.is_empty() {
            return usage("nothing was named to be set");
        }
        match (&self.partition, changes.is_empty()) {
            (None, false) => return usage("which partition is meant?"),
            (Some(selector), _) => {
                let number = number(table, selector)?;
                for change in &changes {
                    new = set(&new, number, change)?;
                }
            }
            (None, true) => {}
        }
        Ok(new)
    }
}

fn number(table: &Table, selector: &str) -> Result<u32, Failure> {
    match find(table, selector)? {
        Some(partition) => Ok(partition.number),
        None => Err(Error::new(Kind::NotFound, format!("there is no partition '{selector}'")).into()),
    }
}

/// From the last one on: removing a logical partition changes the numbers behind it.
fn removed(table: &Table, selectors: &[String]) -> Result<Table, Failure> {
    let mut numbers = Vec::new();
    for selector in selectors {
        numbers.push(number(table, selector)?);
    }
    numbers.sort_unstable_by(|a, b| b.cmp(a));
    numbers.dedup();
    let mut new = table.clone();
    for number in numbers {
        // The logical ones go with the extended one.
        if new.partition(number).is_some() {
            new = remove(&new, number)?;
        }
    }
    Ok(new)
}

fn length(text: &str) -> Result<Length, Failure> {
    if text == "rest" {
        return Ok(Length::Rest);
    }
    if let Some(sectors) = text.strip_suffix('s').and_then(|digits| digits.parse().ok()) {
        return Ok(Length::Sectors(sectors));
    }
    
    Ok(Length::Bytes(disksmith_disk::parse_size(text)?))
}

fn sort(label: &str) -> Result<Label, Failure> {
    match label {
        "gpt" => Ok(Label::Gpt),
        "mbr" | "dos" | "msdos" => Ok(Label::Mbr),
        other => usage(format!("'{other}' is no sort of partition table: gpt and mbr are")),
    }
}

fn read_dump(file: Option<&str>) -> Result<String> {
    let mut text = String::new();
    match file.filter(|name| *name != "-") {
        None => std::io::stdin().lock().take(MAX_DUMP).read_to_string(&mut text),
        Some(name) => std::fs::File::open(name)
            .and_then(|file| file.take(MAX_DUMP).read_to_string(&mut text)),
    }
    .with_context(|| format!("Could not read '{}'", file.unwrap_or("-")))?;
    Ok(text)
}

fn severity(severity: Severity) -> &'static str {
    match severity {
        Severity::Note => "note",
        Severity::Warning => "warning",
        Severity::Error => "error",
    }
}

fn oddities_json(table: &Table) -> Value {
    let one = |odd: &disksmith_partitions::Oddity| {
        json!({
            "name": odd.kind.name(),
            "severity": severity(odd.severity()),
            "partition": odd.partition,
            "detail": odd.detail,
        })
    };
    Value::Array(table.oddities.iter().map(one).collect())
}

fn content_json(content: &disksmith_partitions::Content) -> Value {
    let fields = [
        ("type", Some(json!(content.kind))),
        ("version", content.version.as_ref().map(|v| json!(v))),
        ("label", content.label.as_ref().map(|v| json!(v))),
        ("uuid", content.uuid.as_ref().map(|v| json!(v))),
        ("size", content.size.map(|v| json!(v))),
        ("used", content.used.map(|v| json!(v))),
    ];
    fields.into_iter().filter_map(|(key, value)| Some((key.to_string(), value?))).collect()
}

fn plan_json(plan: &Plan) -> Value {
    let step = |step: &Step| match step {
        Step::Flush => json!({"step": "flush"}),
        Step::SetSize(bytes) => json!({"step": "set-size", "size": bytes}),
        Step::Move(step) => {
            json!({"step": "move", "from": step.from, "to": step.to, "length": step.length})
        }
        Step::Write { offset, data, what } => {
            json!({"step": "write", "offset": offset, "length": data.len(), "what": what})
        }
    };
    json!({
        "changes": plan.changes(),
        "steps": plan.steps.iter().map(step).collect::<Vec<Value>>(),
        "losses": plan.losses.iter().map(|loss| loss.to_string()).collect::<Vec<String>>(),
    })
}

fn terminal_width() -> usize {
    let asked = std::env::var("COLUMNS").ok().and_then(|text| text.parse().ok());
    let told = || rustix::termios::tcgetwinsize(std::io::stdout()).ok().map(|s| usize::from(s.ws_col));
    asked.or_else(told).filter(|width| *width > 0).unwrap_or(80).min(WIDEST_BAR)
}

/// An image whose size can be changed through the disk interface.
#[derive(Debug)]
struct Resizable<'i>(&'i dyn Image);

impl Disk for Resizable<'_> {
    fn size(&self) -> u64 {
        self.0.size()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        self.0.read_at(buffer, offset)
    }

    fn write_at(&self, data: &[u8], offset: u64) -> Result<()> {
        self.0.write_at(data, offset)
    }

    fn write_zeroes(&self, offset: u64, length: u64, mode: ZeroMode) -> Result<()> {
        self.0.write_zeroes(offset, length, mode)
    }

    fn discard(&self, offset: u64, length: u64) -> Result<()> {
        self.0.discard(offset, length)
    }

    fn flush(&self) -> Result<()> {
        self.0.flush()
    }

    fn map(&self, offset: u64, length: u64) -> Result<Extent> {
        self.0.map(offset, length)
    }

    fn set_size(&self, size: u64) -> Result<()> {
        self.0.resize(ResizeRequest { size, preallocation: Preallocation::Off })
    }

    fn read_only(&self) -> bool {
        self.0.read_only()
    }

    fn geometry(&self) -> Geometry {
        self.0.geometry()
    }
}
