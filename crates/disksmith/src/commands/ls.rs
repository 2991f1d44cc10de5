//! `ls`: the names in a directory of an image.

use std::cmp::Reverse;

use disksmith_disk::{Result, names};
use disksmith_filesystems::{Attributes, FileKind};

use super::Verb;
use super::common::Form;
use crate::face::{Face, Outcome};
use crate::guest::look::{Looking, look};
use crate::guest::walk::{entries, join};
use crate::guest::{Access, Guest, show};

/// The arguments of `ls`.
#[derive(clap::Args, Debug, Default)]
#[command(disable_help_flag = true)]
pub(crate) struct Ls {
    #[command(flatten)]
    pub access: Access,
    /// One line with mode, owner, size and time of each file
    #[arg(short)]
    pub long: bool,
    /// Names that begin with a dot too
    #[arg(short, long)]
    pub all: bool,
    /// The same: `.` and `..` are never shown
    #[arg(short = 'A', long, hide = true)]
    pub almost_all: bool,
    /// One name a line, which is the rule
    #[arg(short = '1', hide = true)]
    pub one: bool,
    /// In long form with numbers for owners, which are not known by name anyhow
    #[arg(short = 'n', long, hide = true)]
    pub numeric_uid_gid: bool,
    /// The newest first
    #[arg(short = 't')]
    pub by_time: bool,
    /// The largest first
    #[arg(short = 'S', conflicts_with = "by_time")]
    pub by_size: bool,
    /// In reverse order
    #[arg(short, long)]
    pub reverse: bool,
    /// Directories below too
    #[arg(short = 'R', long)]
    pub recursive: bool,
    /// Directories themselves, not what is in them
    #[arg(short, long)]
    pub directory: bool,
    /// Inode numbers
    #[arg(short, long)]
    pub inode: bool,
    /// Sizes as 1.5K, 20M
    #[arg(short = 'h', long, alias = "human-readable")]
    pub human: bool,
    /// Print help
    #[arg(long, action = clap::ArgAction::Help)]
    pub help: Option<bool>,
    #[command(flatten)]
    pub form: Form,
    /// Where: IMAGE:PART:PATH
    #[arg(value_name = "ADDRESS", required = true)]
    pub addresses: Vec<String>,
}

impl Verb for Ls {
    const NAME: &'static str = "ls";
    const ABOUT: &'static str = "List files in an image";

    fn run(mut self, face: &Face) -> Outcome {
        self.long |= self.numeric_uid_gid;
        self.all |= self.almost_all;
        let several = self.addresses.len() > 1;
        look(face, &self.access, &self.form, &self.addresses, &mut |looking, guest, path| {
            Listing { verb: &self, looking }.address(guest, path, several)
        })
    }
}

struct Listing<'a, 'b> {
    verb: &'a Ls,
    looking: &'a mut Looking<'b>,
}

impl Listing<'_, '_> {
    fn address(&mut self, guest: &Guest, path: &str, several: bool) -> Result<()> {
        // As ls: a symlink that is named is followed, unless shown in long form.
        let follow = !self.verb.long || path.ends_with('/');
        let found = guest.find(path, follow)?;
        if found.kind != FileKind::Directory || self.verb.directory {
            self.lines(guest, &[(names::to_bytes(path).into_owned(), found)]);
            return Ok(());
        }
        let titled = several || self.verb.recursive;
        let mut todo = vec![(names::to_bytes(path).into_owned(), found)];
        let mut first = true;
        while let Some((path, found)) = todo.pop() {
            let files = match self.files(guest, &found) {
                Ok(files) => files,
                Err(error) => {
                    self.looking.fail_at(&path, error);
                    continue;
                }
            };
            if titled && !self.looking.json {
                let gap = if std::mem::take(&mut first) { "" } else { "\n" };
                self.looking.face.print(&format!("{gap}{}:\n", show::name(&path)));
            }
            match self.looking.json {
                true => {
                    let files: Vec<_> =
                        files.iter().map(|(name, found)| (join(&path, name), *found)).collect();
                    self.lines(guest, &files);
                }
                false => self.lines(guest, &files),
            }
            if self.verb.recursive {
                let folders = files.into_iter().rev().filter(|(_, f)| f.kind == FileKind::Directory);
                todo.extend(folders.map(|(name, found)| (join(&path, &name), found)));
            }
        }
        Ok(())
    }

    fn files(&mut self, guest: &Guest, directory: &Attributes) -> Result<Vec<(Vec<u8>, Attributes)>> {
        let mut files = Vec::new();
        for entry in entries(&*guest.tree, directory.inode)? {
            if entry.name.starts_with(b".") && !self.verb.all {
                continue;
            }
            match guest.tree.attributes(entry.inode) {
                Ok(found) => files.push((entry.name, found)),
                Err(error) => {
                    self.looking.fail_at(&entry.name, error);
                }
            }
        }
        self.sort(&mut files);
        Ok(files)
    }

    /// They come in the order of their names.
    fn sort(&self, files: &mut [(Vec<u8>, Attributes)]) {
        if self.verb.by_time {
            files.sort_by_key(|(_, f)| Reverse((f.modified.seconds, f.modified.nanoseconds)));
        } else if self.verb.by_size {
            files.sort_by_key(|(_, found)| Reverse(found.size));
        }
        if self.verb.reverse {
            files.reverse();
        }
    }

    fn lines(&mut self, guest: &Guest, files: &[(Vec<u8>, Attributes)]) {
        if self.looking.json {
            for (name, found) in files {
                let target = target(guest, found);
                self.looking.tell(show::json(name, found, target.as_deref()));
            }
            return;
        }
        let rows: Vec<_> = files.iter().map(|(_, found)| self.columns(found)).collect();
        let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
        let widths: Vec<_> = (0..7).map(width).collect();
        let mut text = String::new();
        for ((name, found), row) in files.iter().zip(&rows) {
            for (column, cell) in row.iter().enumerate().filter(|_| widths.iter().any(|w| *w > 0)) {
                if widths[column] > 0 {
                    text += &match column {
                        1 | 6 => format!("{cell:<width$} ", width = widths[column]),
                        _ => format!("{cell:>width$} ", width = widths[column]),
                    };
                }
            }
            text += &show::name(name);
            if self.verb.long && let Some(target) = target(guest, found) {
                text += &format!(" -> {}", show::name(&target));
            }
            text.push('\n');
        }
        self.looking.face.print(&text);
    }

    /// Inode, mode, links, owner, group, size, time; empty where not wanted.
    fn columns(&self, found: &Attributes) -> [String; 7] {
        let mut row: [String; 7] = Default::default();
        if self.verb.inode {
            row[0] = found.inode.to_string();
        }
        if self.verb.long {
            row[1] = show::mode(found);
            row[2] = found.links.to_string();
            row[3] = found.uid.to_string();
            row[4] = found.gid.to_string();
            row[5] = match (found.kind.is_device(), self.verb.human) {
                (true, _) => format!("{}, {}", found.device.major, found.device.minor),
                (false, true) => show::human(found.size),
                (false, false) => found.size.to_string(),
            };
            row[6] = show::time(found.modified, false);
        }
        row
    }
}

fn target(guest: &Guest, found: &Attributes) -> Option<Vec<u8>> {
    match found.kind {
        FileKind::Symlink => guest.tree.read_link(found.inode).ok(),
        _ => None,
    }
}

