//! `cat`: the content of files in an image.

use std::io::Write;

use disksmith_disk::{Context, PageBuffer, Result};
use disksmith_filesystems::{FileKind, errors};

use super::Verb;
use crate::face::{DONE, FAILED, Face, Outcome};
use crate::guest::{Access, Guest, Guests, path_of};

/// Read at once.
const STEP: usize = 1 << 20;

/// The arguments of `cat`.
#[derive(clap::Args, Debug, Default)]
pub(crate) struct Cat {
    #[command(flatten)]
    pub access: Access,
    /// Which: IMAGE:PART:PATH
    #[arg(value_name = "ADDRESS", required = true)]
    pub addresses: Vec<String>,
}

impl Verb for Cat {
    const NAME: &'static str = "cat";
    const ABOUT: &'static str = "Write the content of files in an image to stdout";

    fn run(self, face: &Face) -> Outcome {
        let mut guests = Guests::new(&self.access, &[]);
        let mut status = DONE;
        for text in &self.addresses {
            let address = self.access.address(text);
            let guest = guests.open(&address)?;
            if let Err(error) = cat(guests.get(guest), path_of(&address), &mut std::io::stdout()) {
                // Whoever read it has enough.
                if error.errno() == Some(rustix::io::Errno::PIPE.raw_os_error()) {
                    return Ok(FAILED);
                }
                face.report(&error);
                status = FAILED;
            }
        }
        Ok(status)
    }
}

/// Writes a file to `out`.
pub(crate) fn cat(guest: &Guest, path: &str, out: &mut dyn Write) -> Result<()> {
    let found = guest.find(path, true)?;
    let attempt = |error: disksmith_disk::Error| error.context(format!("'{}:{path}'", guest.name));
    match found.kind {
        FileKind::Regular => {}
        FileKind::Directory => return Err(attempt(errors::is_a_directory())),
        _ => return Err(attempt(errors::invalid())),
    }
    let mut buffer = PageBuffer::zeroed(STEP.min(usize::try_from(found.size).unwrap_or(STEP)).max(1));
    let mut at = 0;
    while at < found.size {
        let count = guest.tree.read(found.inode, at, &mut buffer).map_err(attempt)?;
        if count == 0 {
            break;
        }
        out.write_all(&buffer[..count]).context("Could not write to stdout")?;
        at += count as u64;
    }
    out.flush().context("Could not write to stdout")
}
