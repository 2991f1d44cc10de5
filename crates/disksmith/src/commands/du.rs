//! `du`: how much space trees in an image take.

use std::collections::HashSet;

use disksmith_filesystems::{Attributes, FileKind};
use serde_json::{Value, json};

use super::Verb;
use super::common::Form;
use crate::face::{DONE, FAILED, Face, Outcome};
use crate::guest::walk::{join, walk};
use crate::guest::{Access, Guests, path_of, show};
use crate::render::json::pretty;

/// The arguments of `du`.
#[derive(clap::Args, Debug, Default)]
pub(crate) struct Du {
    #[command(flatten)]
    pub access: Access,
    /// Only the sum of each address
    #[arg(short, long)]
    pub summarize: bool,
    /// Files too, not only directories
    #[arg(short, long)]
    pub all: bool,
    /// Sizes as 1.5K, 20M
    #[arg(long)]
    pub human: bool,
    /// Lengths instead of storage, in bytes
    #[arg(short, long)]
    pub bytes: bool,
    #[command(flatten)]
    pub form: Form,
    /// Where: IMAGE:PART:PATH
    #[arg(value_name = "ADDRESS", required = true)]
    pub addresses: Vec<String>,
}

/// A directory on the way, and what was counted below it.
struct Level {
    path: Vec<u8>,
    depth: usize,
    sum: u64,
}

impl Verb for Du {
    const NAME: &'static str = "du";
    const ABOUT: &'static str = "Tell how much space files in an image take";

    fn run(self, face: &Face) -> Outcome {
        let json = self.form.is_json()?;
        let mut guests = Guests::new(&self.access, &[]);
        let (mut all, mut status) = (Vec::new(), DONE);
        for text in &self.addresses {
            let address = self.access.address(text);
            let number = guests.open(&address)?;
            let guest = guests.get(number);
            let begin = path_of(&address).as_bytes();
            let start = match guest.find(path_of(&address), false) {
                Ok(start) => start,
                Err(error) => {
                    face.report(&error);
                    status = FAILED;
                    continue;
                }
            };
            let mut tell = |path: &[u8], size: u64| {
                let path = if path.is_empty() { begin.to_vec() } else { join(begin, path) };
                match json {
                    true => all.push(json!({ "name": String::from_utf8_lossy(&path), "size": size })),
                    false => face.print(&format!("{}\t{}\n", self.size(size), show::name(&path))),
                }
            };
            let mut levels: Vec<Level> = Vec::new();
            let mut seen = HashSet::new();
            let close = |levels: &mut Vec<Level>, depth: usize, tell: &mut dyn FnMut(&[u8], u64)| {
                while levels.last().is_some_and(|level| level.depth >= depth) {
                    let Some(level) = levels.pop() else { break };
                    if !self.summarize || level.depth == 0 {
                        tell(&level.path, level.sum);
                    }
                    if let Some(above) = levels.last_mut() {
                        above.sum = above.sum.saturating_add(level.sum);
                    }
                }
            };
            walk(
                &*guest.tree,
                start,
                &mut |met| {
                    close(&mut levels, met.depth, &mut tell);
                    let found = &met.found;
                    // A file with several names counts once.
                    let again = found.kind != FileKind::Directory
                        && found.links > 1
                        && !seen.insert(found.inode);
                    let size = if again { 0 } else { self.measure(found) };
                    if found.kind == FileKind::Directory {
                        levels.push(Level { path: met.path.to_vec(), depth: met.depth, sum: size });
                    } else {
                        if let Some(level) = levels.last_mut() {
                            level.sum = level.sum.saturating_add(size);
                        }
                        if (self.all && !self.summarize) || met.depth == 0 {
                            tell(met.path, size);
                        }
                    }
                    Ok(true)
                },
                &mut |path, error| {
                    face.report(&error.context(show::name(path)));
                    status = FAILED;
                },
            )?;
            close(&mut levels, 0, &mut tell);
        }
        if json {
            face.print(&pretty(&Value::Array(all)));
        }
        Ok(status)
    }
}

impl Du {
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
