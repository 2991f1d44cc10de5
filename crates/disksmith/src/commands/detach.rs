//! `detach`: the end of what `attach` began.

use std::path::{Path, PathBuf};

use disksmith_disk::{Error, Kind, Result};
use disksmith_export::loops;

use super::Verb;
use super::attach::{folder_of_loop, give_up_folder};
use crate::face::{DONE, FAILED, Face, Outcome};

/// The arguments of `detach`.
#[derive(clap::Args, Debug, Default)]
pub(crate) struct Detach {
    /// Directories or loop devices
    #[arg(value_name = "DIR|/dev/loopN", required = true)]
    pub places: Vec<PathBuf>,
}

impl Verb for Detach {
    const NAME: &'static str = "detach";
    const ABOUT: &'static str = "End what attach began";

    fn run(self, face: &Face) -> Outcome {
        let mut status = DONE;
        for place in &self.places {
            if let Err(error) = detach(place) {
                face.report(&error);
                status = FAILED;
            }
        }
        Ok(status)
    }
}

/// Returns when the image is whole and closed.
fn detach(place: &Path) -> Result<()> {
    match place.to_string_lossy().starts_with("/dev/loop") {
        true => detach_loop(place),
        false => disksmith_export::unmount(place),
    }
}

fn detach_loop(device: &Path) -> Result<()> {
    let find = || loops::list().into_iter().find(|known| known.device == device);
    let Some(known) = find() else {
        return Err(Error::new(Kind::NotFound, "nothing is attached to it")
            .context(format!("Could not detach '{}'", device.display())));
    };
    loops::detach(device)?;
    if find().is_some_and(|still| still.file == known.file) {
        return Err(Error::new(Kind::InUse, "it is in use and goes when its last user leaves")
            .context(format!("Could not detach '{}'", device.display()))
            .with_hint("Unmount what is mounted from it."));
    }
    if let Some(folder) = folder_of_loop(&known.file) {
        give_up_folder(&folder);
    }
    Ok(())
}
