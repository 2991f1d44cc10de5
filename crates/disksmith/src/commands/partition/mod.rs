//! `partition`: print and edit partition tables.

mod add;
mod edit;
mod set;
mod show;

use disksmith_disk::Context;
use disksmith_formats::OpenMode;
use disksmith_operations::Resizable;
use disksmith_partitions::{dump_json, dump_script, read};

use self::add::AddArguments;
use self::set::SetArguments;
use super::Verb;
use super::common::{Form, Purpose, Source};
use crate::face::{DONE, Face, Failure, Outcome};
use crate::render::json::pretty;

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
                let plan =
                    self.plan(face, &disk, &table, action).map_err(|e| in_image(e, &self.image))?;
                return self
                    .carry_out(face, &disk, &plan, json)
                    .map_err(|e| in_image(e, &self.image));
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
