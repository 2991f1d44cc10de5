//! `chown`: owners of files in an image, by number.

use disksmith_filesystems::{Changes, FileKind};

use super::Verb;
use crate::face::{Face, Failure, Outcome, usage};
use crate::guest::{Access, change_met};

/// The arguments of `chown`.
#[derive(clap::Args, Debug, Default)]
#[command(disable_help_flag = true)]
pub(crate) struct Chown {
    #[command(flatten)]
    pub access: Access,
    /// Directories with all that is in them
    #[arg(short = 'R', long)]
    pub recursive: bool,
    /// Symlinks themselves
    #[arg(short = 'h', long)]
    pub no_dereference: bool,
    /// Print help
    #[arg(long, action = clap::ArgAction::Help)]
    pub help: Option<bool>,
    /// UID, UID:GID or :GID, as numbers
    #[arg(value_name = "OWNER")]
    pub owner: String,
    /// Which: IMAGE:PART:PATH
    #[arg(value_name = "ADDRESS", required = true)]
    pub addresses: Vec<String>,
}

/// Reads `UID`, `UID:GID` or `:GID`.
pub(crate) fn parse_owner(text: &str) -> Result<(Option<u32>, Option<u32>), Failure> {
    let (uid, gid) = text.split_once(':').unwrap_or((text, ""));
    let number = |text: &str| match text {
        "" => Ok(None),
        text => match text.parse() {
            Ok(number) => Ok(Some(number)),
            Err(_) => usage(format!("'{text}' is no number; the names of a guest are not known")),
        },
    };
    Ok((number(uid)?, number(gid)?))
}

impl Verb for Chown {
    const NAME: &'static str = "chown";
    const ABOUT: &'static str = "Change owners of files in an image";

    fn run(self, face: &Face) -> Outcome {
        let (uid, gid) = parse_owner(&self.owner)?;
        let follow = !self.no_dereference && !self.recursive;
        change_met(face, &self.access, &self.addresses, follow, &mut |guest, met| {
            let found = &met.found;
            // As the kernel: a program does not run as its new owner by accident.
            let program = found.kind == FileKind::Regular && found.mode & 0o6000 != 0;
            let mode = program.then_some(found.mode & !0o6000);
            guest
                .tree
                .set_attributes(found.inode, &Changes { uid, gid, mode, ..Changes::default() })?;
            Ok(self.recursive)
        })
    }
}
