//! What the program does when it is told to stop, and when it is asked how far it is.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use disksmith_disk::Result;
use disksmith_host::{NewFile, OpenOptions};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;

/// Files that are not whole yet, and must not outlive this process.
static UNFINISHED: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());
/// Somebody sent SIGUSR1 and waits for a progress line.
static PROGRESS_ASKED: AtomicBool = AtomicBool::new(false);

/// What a server does instead of ending at once.
static STOP: Mutex<Option<Stop>> = Mutex::new(None);

/// Ends a server in good order.
pub(crate) type Stop = Box<dyn FnOnce() + Send>;

/// The first signal to stop calls this instead of ending the program; the second one ends it.
pub(crate) fn on_stop(stop: Stop) {
    *STOP.lock().unwrap_or_else(PoisonError::into_inner) = Some(stop);
}

/// Starts listening. A program that cannot listen works all the same.
pub(crate) fn install() {
    let Ok(mut signals) = Signals::new([SIGINT, SIGTERM, SIGHUP, SIGUSR1]) else { return };
    let listener = std::thread::Builder::new().name("signals".to_string());
    let _ = listener.spawn(move || {
        for signal in signals.forever() {
            if signal == SIGUSR1 {
                PROGRESS_ASKED.store(true, Ordering::Release);
                continue;
            }
            let stop = STOP.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(stop) = stop {
                stop();
                continue;
            }
            // Kept to the end: nobody makes another file between the removal and that.
            let mut unfinished = hold();
            remove(&mut unfinished);
            let _ = signal_hook::low_level::emulate_default_handler(signal);
        }
    });
}

/// True once for every time that progress was asked for.
pub(crate) fn progress_asked() -> bool {
    PROGRESS_ASKED.swap(false, Ordering::AcqRel)
}

/// Remembers that `path` is to be removed if the program is stopped.
pub(crate) fn unfinished(path: &Path) {
    hold().push(path.to_path_buf());
}

/// The files that are to be removed if the program is stopped. It is not stopped by a signal while
/// this is held: from before such a file is made until it is remembered here.
pub(crate) fn hold() -> MutexGuard<'static, Vec<PathBuf>> {
    UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes a file that appears under its name when it is whole, and is removed if the program is
/// stopped before.
pub(crate) fn new_file(path: &Path, options: OpenOptions) -> Result<NewFile> {
    let mut unfinished = hold();
    let file = NewFile::create(path, options)?;
    unfinished.push(file.temporary().to_path_buf());
    Ok(file)
}

/// `path` is whole, or gone.
pub(crate) fn finished(path: &Path) {
    hold().retain(|other| other != path);
}

/// Removes what is not whole.
pub(crate) fn remove_unfinished() {
    remove(&mut hold());
}

fn remove(unfinished: &mut Vec<PathBuf>) {
    for path in unfinished.drain(..) {
        let _ = std::fs::remove_file(path);
    }
}
