//! `man`: the manual page, made from the same tables as the help.

use disksmith_disk::{Context, Error};

use super::Verb;
use crate::face::{DONE, Face, Outcome};

/// The arguments of `man`.
#[derive(clap::Args, Debug)]
pub(crate) struct Man {
    /// The verb whose page is wanted; all in one when not given
    pub verb: Option<String>,
}

impl Verb for Man {
    const NAME: &'static str = "man";
    const ABOUT: &'static str = "Print the manual page";

    fn run(self, face: &Face) -> Outcome {
        let command = crate::native::command();
        let command = match &self.verb {
            None => command,
            Some(name) => match command.find_subcommand(name) {
                Some(verb) => verb.clone(),
                None => return crate::face::usage(format!("there is no verb '{name}'")),
            },
        };
        let mut page = Vec::new();
        clap_mangen::Man::new(command).render(&mut page).map_err(Error::from).context("the manual page")?;
        face.print(&String::from_utf8_lossy(&page));
        Ok(DONE)
    }
}
