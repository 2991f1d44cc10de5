//! What mounts of all sorts share: going to the background, ending in good order.

use std::ffi::OsString;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use disksmith_disk::{Error, Result};
use disksmith_export::background::{self, Started};
use disksmith_export::{MountEntry, Mounted};

use crate::face::{DONE, FAILED, Failure, Outcome};
use crate::signals;

/// After a signal to stop, users of a mount have so long to leave it.
const GRACE: Duration = Duration::from_secs(5);

/// The flag by which the process in the background knows what it is.
const FLAG: &str = "--in-background";

/// Where the server runs.
#[derive(clap::Args, Clone, Debug, Default)]
pub(crate) struct Serving {
    /// Stay, and serve until it is unmounted or stopped
    #[arg(long)]
    pub foreground: bool,
    /// This process was started to be in the background
    #[arg(long, hide = true)]
    pub in_background: bool,
}

impl Serving {
    /// In the process that the user started, unless it is to stay: starts the one in the
    /// background and answers its status. `None`: this process is the one to serve.
    pub(crate) fn delegate(&self) -> Result<Option<u8>, Failure> {
        if self.in_background {
            background::leave_session();
            return Ok(None);
        }
        if self.foreground {
            return Ok(None);
        }
        let mut arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
        arguments.insert(1.min(arguments.len()), FLAG.into());
        start(&arguments).map(Some)
    }

    /// Serves a mount until it ends. `finish` makes everything durable and closes the image; it
    /// is called once.
    pub(crate) fn serve<F: disksmith_export::FuseFilesystem>(
        &self,
        mounted: Mounted<F>,
        finish: Box<dyn FnOnce() -> Result<()> + Send>,
    ) -> Outcome {
        let finish = Arc::new(Mutex::new(Some(finish)));
        let stopper = mounted.stopper();
        let last = finish.clone();
        signals::on_stop(Box::new(move || {
            std::thread::spawn(move || {
                stopper.stop();
                std::thread::sleep(GRACE);
                // Somebody still uses it: what was written so far is kept, and it ends.
                let status = if once(&last).is_ok() { DONE } else { FAILED };
                std::process::exit(i32::from(status));
            });
        }));
        if self.in_background {
            background::ready()?;
        }
        let served = mounted.serve();
        once(&finish)?;
        served?;
        Ok(DONE)
    }
}

type Finish = Mutex<Option<Box<dyn FnOnce() -> Result<()> + Send>>>;

/// Finishes if nobody did, and waits for him who is at it.
fn once(finish: &Finish) -> Result<()> {
    let mut finish = finish.lock().unwrap_or_else(PoisonError::into_inner);
    finish.take().map_or(Ok(()), |finish| finish())
}

/// Starts this program in the background with these arguments.
pub(crate) fn start(arguments: &[OsString]) -> Result<u8, Failure> {
    match background::start(arguments)? {
        Started::Ready(_) => Ok(DONE),
        Started::Failed(status) => Err(Failure::Status(status)),
    }
}

/// The arguments that start `attach` of an image on a directory in the background.
pub(crate) fn background_flag() -> OsString {
    FLAG.into()
}

/// Refuses a directory that is a mount of ours already: a second one would hide it.
pub(crate) fn refuse_if_mounted(directory: &Path) -> Result<()> {
    match disksmith_export::mount_entry(directory) {
        Some(entry) if MountEntry::is_ours(&entry) => Err(Error::new(
            disksmith_disk::Kind::InUse,
            format!("'{}' is mounted on it", entry.source),
        )
        .context(format!("Could not mount on '{}'", directory.display()))
        .with_hint("Unmount it first: disksmith umount DIR.")),
        _ => Ok(()),
    }
}
