//! `mv`: moves files within a filesystem of an image.

use disksmith_disk::{Context, Error, Kind, Result, names};
use disksmith_filesystems::{FileKind, Rename, errno};

use super::Verb;
use crate::face::{DONE, Face, Outcome, usage};
use crate::guest::{Access, Guest, Guests, path_of, split};

/// `EINVAL`.
const INVALID: i32 = 22;

/// The arguments of `mv`.
#[derive(clap::Args, Debug, Default)]
pub(crate) struct Mv {
    #[command(flatten)]
    pub access: Access,
    /// What is there stays
    #[arg(short, long)]
    pub no_clobber: bool,
    /// Taken for the sake of habit: what is there is replaced anyhow
    #[arg(short, long, hide = true)]
    pub force: bool,
    /// Let both change places
    #[arg(long, conflicts_with = "no_clobber")]
    pub exchange: bool,
    /// Sources, then the target: IMAGE:PART:PATH
    #[arg(value_name = "ADDRESS", required = true, num_args = 2..)]
    pub addresses: Vec<String>,
}

impl Verb for Mv {
    const NAME: &'static str = "mv";
    const ABOUT: &'static str = "Move or rename files in an image";

    fn run(self, _face: &Face) -> Outcome {
        let addresses: Vec<_> = self.addresses.iter().map(|a| self.access.address(a)).collect();
        let Some((target, sources)) = addresses.split_last().filter(|(_, s)| !s.is_empty()) else {
            return usage("say mv SOURCE … TARGET");
        };
        let mut guests = Guests::new(&self.access, &addresses.iter().collect::<Vec<_>>());
        let number = guests.open(target)?;
        let mut result = Ok(());
        for source in sources {
            if guests.open(source)? != number {
                result = Err(Error::new(
                    Kind::InvalidInput,
                    "source and target lie in different filesystems",
                )
                .with_hint("Copy with cp -a, then remove with rm -r."));
                break;
            }
            let (from, to) = (path_of(source), path_of(target));
            result = self.one(guests.get(number), from, to, sources.len() > 1);
            if result.is_err() {
                break;
            }
        }
        let closed = guests.close();
        result.and(closed)?;
        Ok(DONE)
    }
}

impl Mv {
    fn one(&self, guest: &Guest, from: &str, to: &str, several: bool) -> Result<()> {
        let (old_parent, old) = guest.parent(from)?;
        guest.find(from, false)?;
        let into = guest.find(to, true).ok().filter(|there| there.kind == FileKind::Directory);
        let (new_parent, new) = match into {
            Some(folder) if !self.exchange => (folder.inode, names::to_bytes(split(from).1).into_owned()),
            _ if several || to.ends_with('/') => {
                return Err(Error::new(Kind::InvalidInput, "the target is no directory")
                    .context(format!("'{}:{to}'", guest.name)));
            }
            _ => guest.parent(to)?,
        };
        let how = match (self.exchange, self.no_clobber) {
            (true, _) => Rename::Exchange,
            (_, true) => Rename::NoReplace,
            _ => Rename::Replace,
        };
        guest
            .tree
            .rename(old_parent, &old, new_parent, &new, how)
            .map_err(|error| match errno(&error) {
                INVALID => error.context("A directory cannot be moved into itself"),
                _ => error,
            })
            .with_context(|| format!("Could not move '{from}' to '{to}' in '{}'", guest.name))
    }
}
