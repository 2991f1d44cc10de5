//! `tour`: the guide on a scratch folder.

use std::path::PathBuf;

use super::Verb;
use crate::face::{Face, Outcome};

/// The arguments of `tour`.
#[derive(clap::Args, Debug)]
pub(crate) struct Tour {
    /// Where to make the disks; a fresh folder below the temporary one when not given
    #[arg(value_name = "DIR")]
    pub folder: Option<PathBuf>,
}

impl Verb for Tour {
    const NAME: &'static str = "tour";
    const ABOUT: &'static str = "Walk through the guide on scratch disks, each command shown";

    fn run(self, face: &Face) -> Outcome {
        crate::tour::run(face, self.folder)
    }
}
