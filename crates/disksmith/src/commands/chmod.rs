//! `chmod`: permissions of files in an image.

use disksmith_disk::Result;
use disksmith_filesystems::{Changes, FileKind, acl};

use super::Verb;
use crate::face::{Face, Outcome, senseless};
use crate::guest::mode::ModeChange;
use crate::guest::{Access, change_met};

/// The arguments of `chmod`.
#[derive(clap::Args, Debug, Default)]
pub(crate) struct Chmod {
    #[command(flatten)]
    pub access: Access,
    /// Directories with all that is in them
    #[arg(short = 'R', long)]
    pub recursive: bool,
    /// 644, u+x,go-w …
    #[arg(value_name = "MODE", allow_hyphen_values = true)]
    pub mode: String,
    /// Which: IMAGE:PART:PATH
    #[arg(value_name = "ADDRESS", required = true)]
    pub addresses: Vec<String>,
}

impl Verb for Chmod {
    const NAME: &'static str = "chmod";
    const ABOUT: &'static str = "Change permissions of files in an image";

    fn run(self, face: &Face) -> Outcome {
        let mode = ModeChange::parse(&self.mode).map_err(senseless)?;
        change_met(face, &self.access, &self.addresses, true, &mut |guest, met| {
            let found = &met.found;
            if found.kind != FileKind::Symlink {
                let bits = mode.apply(found.mode, found.kind == FileKind::Directory);
                set(&*guest.tree, found.inode, bits)?;
            }
            Ok(self.recursive)
        })
    }
}

fn set(tree: &dyn disksmith_filesystems::Filesystem, inode: u64, mode: u16) -> Result<()> {
    tree.set_attributes(inode, &Changes { mode: Some(mode), ..Changes::default() })?;
    acl::follow_mode(tree, inode, mode)
}
