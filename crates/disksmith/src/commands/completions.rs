//! `completions`: what a shell needs to complete our command line.

use clap_complete::Shell;

use super::Verb;
use crate::face::{DONE, Face, Outcome};

/// The arguments of `completions`.
#[derive(clap::Args, Debug)]
pub(crate) struct Completions {
    /// bash, elvish, fish, powershell or zsh
    pub shell: Shell,
}

impl Verb for Completions {
    const NAME: &'static str = "completions";
    const ABOUT: &'static str = "Print the completion script for a shell";

    fn run(self, face: &Face) -> Outcome {
        let mut script = Vec::new();
        let mut command = crate::native::command();
        clap_complete::generate(self.shell, &mut command, "disksmith", &mut script);
        face.print(&String::from_utf8_lossy(&script));
        Ok(DONE)
    }
}
