//! How far long work is.

use std::io::IsTerminal;
use std::sync::Mutex;

use crate::face::Face;
use crate::signals;

/// Shows progress as `    (12.34/100%)`, in qemu-img's form.
pub(crate) struct Progress {
    enabled: bool,
    shown: f64,
    any: bool,
    face: Face,
}

impl Progress {
    /// Silent unless `enabled`; SIGUSR1 is answered in any case.
    pub(crate) fn new(face: &Face, enabled: bool) -> Self {
        Self { enabled, shown: f64::NEG_INFINITY, any: false, face: face.clone() }
    }

    /// `done` of `total` are done. Printed when a per cent more is.
    pub(crate) fn show(&mut self, done: u64, total: u64) {
        let percent = if total == 0 { 100.0 } else { done as f64 * 100.0 / total as f64 };
        if signals::progress_asked() && !self.enabled {
            self.face.note(&format!("    ({percent:3.2}/100%)\n"));
        }
        if self.enabled && (percent - self.shown >= 1.0 || done >= total || done == 0) {
            self.shown = percent;
            self.any = true;
            self.face.print(&format!("    ({percent:3.2}/100%)\r"));
        }
    }

    /// Ends the line.
    pub(crate) fn finish(&mut self) {
        if self.enabled && std::mem::take(&mut self.any) {
            self.face.print("\n");
        }
    }
}

/// Whether progress is shown when nothing is said about it: the native face does on a
/// terminal.
pub(crate) fn wanted(face: &Face, asked: bool, quiet: bool) -> bool {
    !quiet && (asked || (!face.drop_in && std::io::stderr().is_terminal()))
}

/// Progress behind a lock, for operations that tell it from several threads.
pub(crate) struct Shared(Mutex<Progress>);

impl Shared {
    /// Wraps it.
    pub(crate) fn new(progress: Progress) -> Self {
        Self(Mutex::new(progress))
    }

    /// With the progress.
    pub(crate) fn with<T>(&self, act: impl FnOnce(&mut Progress) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }
}
