//! `ln`: one more name for a file of an image, or a symlink.

use disksmith_disk::{Context, Error, Kind, Result, names};
use disksmith_filesystems::{FileKind, errno};

use super::Verb;
use crate::face::{DONE, Face, Outcome};
use crate::guest::{Access, Guest, Guests, path_of, split};

/// `ENOENT`.
const NO_ENTRY: i32 = 2;

/// The arguments of `ln`.
#[derive(clap::Args, Debug, Default)]
pub(crate) struct Ln {
    #[command(flatten)]
    pub access: Access,
    /// A symlink: TARGET is any text, as the guest will see it
    #[arg(short, long)]
    pub symbolic: bool,
    /// Replace what is there
    #[arg(short, long)]
    pub force: bool,
    /// The file (IMAGE:PART:PATH); with -s the text of the link
    #[arg(value_name = "TARGET")]
    pub target: String,
    /// The new name: IMAGE:PART:PATH
    #[arg(value_name = "ADDRESS")]
    pub name: String,
}

impl Verb for Ln {
    const NAME: &'static str = "ln";
    const ABOUT: &'static str = "Make hard links and symlinks in an image";

    fn run(self, _face: &Face) -> Outcome {
        let address = self.access.address(&self.name);
        let mut guests = Guests::new(&self.access, &[&address]);
        let number = guests.open(&address)?;
        let path = path_of(&address);
        let result = match self.symbolic {
            true => self.link(guests.get(number), path, None),
            false => {
                let target = self.access.address(&self.target);
                match guests.open(&target)? == number {
                    true => self.link(guests.get(number), path, Some(path_of(&target))),
                    false => Err(Error::new(
                        Kind::InvalidInput,
                        "a hard link cannot lead to another filesystem",
                    )),
                }
            }
        };
        let closed = guests.close();
        result.and(closed)?;
        Ok(DONE)
    }
}

impl Ln {
    fn link(&self, guest: &Guest, path: &str, old: Option<&str>) -> Result<()> {
        let attempt = || format!("'{}:{path}'", guest.name);
        let source = old.map(|old| guest.find(old, false)).transpose()?;
        if source.is_some_and(|source| source.kind == FileKind::Directory) {
            return Err(Error::new(Kind::InvalidInput, "directories have no hard links")
                .context(attempt()));
        }
        let into = guest.find(path, true).ok().filter(|there| there.kind == FileKind::Directory);
        let (parent, name) = match into {
            Some(folder) => {
                let last = split(old.unwrap_or(&self.target)).1;
                (folder.inode, names::to_bytes(last).into_owned())
            }
            None => guest.parent(path)?,
        };
        if self.force {
            match guest.tree.unlink(parent, &name) {
                Err(error) if errno(&error) == NO_ENTRY => {}
                other => other.with_context(attempt)?,
            }
        }
        match source {
            Some(source) => guest.tree.link(source.inode, parent, &name),
            None => guest.tree.symlink(parent, &name, &names::to_bytes(&self.target), 0, 0),
        }
        .map(drop)
        .with_context(attempt)
    }
}
