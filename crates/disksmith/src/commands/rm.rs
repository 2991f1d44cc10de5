//! `rm`: removes files in an image.

use disksmith_disk::{Context, Error, Kind, Result};
use disksmith_filesystems::{FileKind, Filesystem, errno};

use super::Verb;
use crate::face::{Face, Outcome};
use crate::guest::walk::entries;
use crate::guest::{Access, Guest, change};

/// `ENOENT`.
const NO_ENTRY: i32 = 2;

/// The arguments of `rm`.
#[derive(clap::Args, Debug, Default)]
pub(crate) struct Rm {
    #[command(flatten)]
    pub access: Access,
    /// Directories with all that is in them
    #[arg(short, long, visible_short_alias = 'R')]
    pub recursive: bool,
    /// No error where nothing is
    #[arg(short, long)]
    pub force: bool,
    /// Empty directories
    #[arg(short, long)]
    pub dir: bool,
    /// Which: IMAGE:PART:PATH
    #[arg(value_name = "ADDRESS", required = true)]
    pub addresses: Vec<String>,
}

impl Verb for Rm {
    const NAME: &'static str = "rm";
    const ABOUT: &'static str = "Remove files in an image";

    fn run(self, face: &Face) -> Outcome {
        change(face, &self.access, &self.addresses, &mut |guest, path| self.remove(guest, path))
    }
}

impl Rm {
    fn remove(&self, guest: &Guest, path: &str) -> Result<()> {
        let found = match guest.find(path, false) {
            Err(error) if self.force && errno(&error) == NO_ENTRY => return Ok(()),
            found => found?,
        };
        let (parent, name) = guest.parent(path)?;
        let attempt = || format!("'{}:{path}'", guest.name);
        match found.kind {
            FileKind::Directory if self.recursive => {
                empty(&*guest.tree, found.inode).with_context(attempt)?;
                guest.tree.remove_directory(parent, &name)
            }
            FileKind::Directory if self.dir => guest.tree.remove_directory(parent, &name),
            FileKind::Directory => {
                Err(Error::new(Kind::InvalidInput, "it is a directory; remove it with -r"))
            }
            _ => guest.tree.unlink(parent, &name),
        }
        .with_context(attempt)
    }
}

/// Removes everything in a directory; the deepest first, without recursion.
fn empty(tree: &dyn Filesystem, directory: u64) -> Result<()> {
    let mut way: Vec<(u64, Vec<u8>)> = vec![(directory, Vec::new())];
    while let Some((at, name)) = way.last().cloned() {
        let mut deeper = None;
        for entry in entries(tree, at)? {
            // What has the name decides, not what the directory says of it.
            if tree.lookup(at, &entry.name)?.kind == FileKind::Directory {
                if way.iter().any(|(above, _)| *above == entry.inode) {
                    return Err(Error::new(Kind::Corrupt, "the directory leads into itself"));
                }
                deeper = Some((entry.inode, entry.name));
                break;
            }
            tree.unlink(at, &entry.name)?;
        }
        match deeper {
            Some(deeper) => way.push(deeper),
            None => {
                way.pop();
                if let Some((above, _)) = way.last() {
                    tree.remove_directory(*above, &name)?;
                }
            }
        }
    }
    Ok(())
}
