//! `mkdir`: directories in an image.

use disksmith_disk::{Context, Result};
use disksmith_filesystems::{Device, FileKind, NewFile, errno};

use super::Verb;
use crate::face::{Face, Outcome, senseless};
use crate::guest::mode::ModeChange;
use crate::guest::{Access, Guest, change, split};

/// `ENOENT`, `EEXIST`.
const NO_ENTRY: i32 = 2;
const EXISTS: i32 = 17;

/// The arguments of `mkdir`.
#[derive(clap::Args, Debug, Default)]
pub(crate) struct Mkdir {
    #[command(flatten)]
    pub access: Access,
    /// Those above too; no error if it is there
    #[arg(short, long)]
    pub parents: bool,
    /// Permissions, as chmod reads them
    #[arg(short, long, value_name = "MODE")]
    pub mode: Option<String>,
    /// Which: IMAGE:PART:PATH
    #[arg(value_name = "ADDRESS", required = true)]
    pub addresses: Vec<String>,
}

impl Verb for Mkdir {
    const NAME: &'static str = "mkdir";
    const ABOUT: &'static str = "Make directories in an image";

    fn run(self, face: &Face) -> Outcome {
        let mode = match &self.mode {
            Some(text) => ModeChange::parse(text).map_err(senseless)?.apply(0o755, true),
            None => 0o755,
        };
        change(face, &self.access, &self.addresses, &mut |guest, path| {
            make(guest, path, mode, self.parents)
        })
    }
}

fn make(guest: &Guest, path: &str, mode: u16, parents: bool) -> Result<()> {
    if parents {
        match guest.find(path, true) {
            Ok(there) if there.kind == FileKind::Directory => return Ok(()),
            Err(error) if errno(&error) != NO_ENTRY => return Err(error),
            _ => {}
        }
        let (above, _) = split(path);
        make(guest, above, 0o755, true)?;
    }
    let (parent, name) = guest.parent(path)?;
    let kind = FileKind::Directory;
    let folder = NewFile { kind, mode, uid: 0, gid: 0, device: Device::default() };
    match guest.tree.create(parent, &name, &folder) {
        Err(error) if parents && errno(&error) == EXISTS => Ok(()),
        made => made.map(drop).with_context(|| format!("'{}:{path}'", guest.name)),
    }
}
