//! `du`: how much space trees in an image take.

use std::cell::RefCell;
use std::collections::HashSet;

use disksmith_disk::names;
use disksmith_filesystems::{Attributes, FileKind};
use serde_json::json;

use super::Verb;
use super::common::Form;
use crate::face::{Face, Outcome};
use crate::guest::look::{Looking, look};
use crate::guest::walk::{Met, join, walk};
use crate::guest::{Access, show};

/// The arguments of `du`.
#[derive(clap::Args, Debug, Default)]
#[command(disable_help_flag = true)]
pub(crate) struct Du {
    #[command(flatten)]
    pub access: Access,
    /// Only the sum of each address
    #[arg(short, long)]
    pub summarize: bool,
    /// Only down to this depth
    #[arg(short = 'd', long, value_name = "N", conflicts_with = "summarize")]
    pub max_depth: Option<usize>,
    /// Files too, not only directories
    #[arg(short, long)]
    pub all: bool,
    /// Sizes as 1.5K, 20M
    #[arg(short = 'h', long, alias = "human-readable")]
    pub human: bool,
    /// In units of 1 KiB, which is the rule
    #[arg(short = 'k', hide = true)]
    pub kibibytes: bool,
    /// Print help
    #[arg(long, action = clap::ArgAction::Help)]
    pub help: Option<bool>,
    /// Lengths instead of storage, in bytes
    #[arg(short, long)]
    pub bytes: bool,
    #[command(flatten)]
    pub form: Form,
    /// Where: IMAGE:PART:PATH
    #[arg(value_name = "ADDRESS", required = true)]
    pub addresses: Vec<String>,
}

impl Verb for Du {
    const NAME: &'static str = "du";
    const ABOUT: &'static str = "Tell how much space files in an image take";

    fn run(self, face: &Face) -> Outcome {
        look(face, &self.access, &self.form, &self.addresses, &mut |looking, guest, begin| {
            let start = guest.find(begin, false)?;
            let begin = names::to_bytes(begin);
            let looking = RefCell::new(looking);
            let sums = RefCell::new(Sums {
                verb: &self,
                begin: &begin,
                levels: Vec::new(),
                seen: HashSet::new(),
            });
            walk(
                &*guest.tree,
                start,
                &mut |met| {
                    sums.borrow_mut().add(met, &mut looking.borrow_mut());
                    Ok(true)
                },
                &mut |path, error| looking.borrow_mut().fail_at(path, error),
            )?;
            sums.borrow_mut().close(0, &mut looking.borrow_mut());
            Ok(())
        })
    }
}

/// The directories on the way to where the walk is, with what was counted below them.
struct Sums<'a> {
    verb: &'a Du,
    begin: &'a [u8],
    levels: Vec<Level>,
    /// Files with several names.
    seen: HashSet<u64>,
}

struct Level {
    path: Vec<u8>,
    depth: usize,
    sum: u64,
}

impl Sums<'_> {
    fn add(&mut self, met: &Met<'_>, looking: &mut Looking<'_>) {
        self.close(met.depth, looking);
        let found = &met.found;
        let folder = found.kind == FileKind::Directory;
        // A file with several names counts once.
        let again = !folder && found.links > 1 && !self.seen.insert(found.inode);
        let size = if again { 0 } else { self.verb.measure(found) };
        if folder {
            self.levels.push(Level { path: met.path.to_vec(), depth: met.depth, sum: size });
            return;
        }
        if let Some(level) = self.levels.last_mut() {
            level.sum = level.sum.saturating_add(size);
        }
        if (self.verb.all && self.verb.shows(met.depth)) || met.depth == 0 {
            self.tell(met.path, size, looking);
        }
    }

    /// Tells of the directories from this depth on, and adds them to the one above.
    fn close(&mut self, depth: usize, looking: &mut Looking<'_>) {
        while let Some(level) = self.levels.pop_if(|level| level.depth >= depth) {
            if self.verb.shows(level.depth) || level.depth == 0 {
                self.tell(&level.path, level.sum, looking);
            }
            if let Some(above) = self.levels.last_mut() {
                above.sum = above.sum.saturating_add(level.sum);
            }
        }
    }

    fn tell(&self, path: &[u8], size: u64, looking: &mut Looking<'_>) {
        let path = if path.is_empty() { self.begin.to_vec() } else { join(self.begin, path) };
        if looking.json {
            looking.tell(json!({ "name": String::from_utf8_lossy(&path), "size": size }));
        } else {
            looking.face.print(&format!("{}\t{}\n", self.verb.size(size), show::name(&path)));
        }
    }
}

impl Du {
    fn shows(&self, depth: usize) -> bool {
        !self.summarize && self.max_depth.is_none_or(|most| depth <= most)
    }

    /// In bytes.
    fn measure(&self, found: &Attributes) -> u64 {
        if self.bytes { found.size } else { found.blocks.saturating_mul(512) }
    }

    fn size(&self, bytes: u64) -> String {
        match (self.human, self.bytes) {
            (true, _) => show::human(bytes),
            (_, true) => bytes.to_string(),
            _ => bytes.div_ceil(1024).to_string(),
        }
    }
}
