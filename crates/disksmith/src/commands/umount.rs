//! `umount`: the end of a mount.

use std::path::PathBuf;

use super::Verb;
use crate::face::{DONE, FAILED, Face, Outcome};

/// The arguments of `umount`.
#[derive(clap::Args, Debug, Default)]
pub(crate) struct Umount {
    /// Directories
    #[arg(value_name = "DIR", required = true)]
    pub directories: Vec<PathBuf>,
}

impl Verb for Umount {
    const NAME: &'static str = "umount";
    const ABOUT: &'static str = "Unmount what mount mounted";

    fn run(self, face: &Face) -> Outcome {
        let mut status = DONE;
        for directory in &self.directories {
            if let Err(error) = disksmith_export::unmount(directory) {
                face.report(&error);
                status = FAILED;
            }
        }
        Ok(status)
    }
}
