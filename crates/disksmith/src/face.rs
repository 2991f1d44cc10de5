//! What differs between the program's faces: its name, how it words errors and warnings.

use std::borrow::Cow;
use std::io::Write;

use disksmith_disk::{Error, Kind, names};

/// The status of success.
pub(crate) const DONE: u8 = 0;
/// The status of failure.
pub(crate) const FAILED: u8 = 1;

/// Under which name and with whose manners the program speaks.
#[derive(Clone, Debug)]
pub(crate) struct Face {
    /// The name before each error line.
    pub program: String,
    /// Speaks as qemu-img does: same words, same defaults, in-place targets.
    pub drop_in: bool,
}

/// Why a command ended early.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Something went wrong; shown with its context and hint.
    Error(Error),
    /// The command line makes no sense.
    Usage(String),
    /// Everything was said already.
    Status(u8),
}

/// The exit status of a command.
pub(crate) type Outcome = Result<u8, Failure>;

/// Lines on their way to stdout, a few thousand bytes at a time: an image that makes them many
/// costs time, not memory. The rest goes out when the page ends.
pub(crate) struct Page<'a> {
    face: &'a Face,
    held: String,
}

impl Page<'_> {
    const MOST: usize = 16 << 10;

    /// One line, without its end.
    pub(crate) fn line(&mut self, text: &str) {
        self.held.push_str(text);
        self.held.push('\n');
        if self.held.len() >= Self::MOST {
            self.face.print(&self.held);
            self.held.clear();
        }
    }
}

impl Drop for Page<'_> {
    fn drop(&mut self) {
        if !self.held.is_empty() {
            self.face.print(&self.held);
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

/// Refuses what the user typed.
pub(crate) fn usage<T>(text: impl Into<String>) -> Result<T, Failure> {
    Err(Failure::Usage(text.into()))
}

/// What the user typed cannot be read.
#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
pub(crate) fn senseless(error: Error) -> Failure {
    let hint = error.hint().iter().map(|hint| format!("\n{hint}")).collect::<String>();
    Failure::Usage(format!("{error}{hint}"))
}

/// A failure of the operation itself, in these words.
pub(crate) fn refuse<T>(text: impl Into<String>) -> Result<T, Failure> {
    Err(Failure::Error(Error::new(Kind::InvalidInput, text)))
}

impl Face {
    /// The native one.
    pub(crate) fn native(program: &str) -> Self {
        Self { program: program.to_string(), drop_in: false }
    }

    /// The drop-in.
    pub(crate) fn qemu_img(program: &str) -> Self {
        Self { program: program.to_string(), drop_in: true }
    }

    /// Writes results to stdout, at once. A reader that went away ends the program quietly, as
    /// it would a C program.
    pub(crate) fn print(&self, text: &str) {
        let mut out = std::io::stdout().lock();
        if let Err(error) = out.write_all(&names::to_bytes(text)).and_then(|()| out.flush()) {
            drop(out);
            self.end_unread(&error);
        }
    }

    /// Ends the program, whose results cannot be written. That the reader went away is his choice;
    /// everything else is told.
    pub(crate) fn end_unread(&self, error: &std::io::Error) -> ! {
        if error.kind() != std::io::ErrorKind::BrokenPipe {
            let cause = Error::from(std::io::Error::from(error.kind()));
            let cause = error.raw_os_error().map_or(cause, Error::from_errno);
            self.complain(&format!("Could not write to stdout: {cause}"));
        }
        crate::signals::remove_unfinished();
        std::process::exit(i32::from(FAILED));
    }

    /// Writes results line by line, for text that an image can make long.
    pub(crate) fn page(&self) -> Page<'_> {
        Page { face: self, held: String::new() }
    }

    /// Writes to stderr without a prefix.
    pub(crate) fn note(&self, text: &str) {
        let bytes = match self.drop_in {
            true => names::to_bytes(text),
            false => Cow::Owned(harmless(text).into_bytes()),
        };
        // Nobody is left to tell when stderr is gone.
        let _ = std::io::stderr().lock().write_all(&bytes);
    }

    /// Draws on the terminal at stderr: what moves the cursor is meant to.
    pub(crate) fn draw(&self, text: &str) {
        let _ = std::io::stderr().lock().write_all(text.as_bytes());
    }

    /// `program: text`.
    pub(crate) fn complain(&self, text: &str) {
        self.note(&format!("{}: {text}\n", self.program));
    }

    /// `program: warning: text`.
    pub(crate) fn warn(&self, text: &str) {
        self.complain(&format!("warning: {text}"));
    }

    /// Shows an error and the hint that belongs to it.
    pub(crate) fn report(&self, error: &Error) {
        // qemu-img repeats itself, and so does the drop-in.
        self.complain(&match self.drop_in {
            true => error.to_string(),
            // Other programs end what they say with a line's end.
            false => error.told_once().trim_end_matches('\n').to_string(),
        });
        for line in error.hint().iter().flat_map(|hint| hint.lines()) {
            if !self.drop_in || is_qemu_hint(line) {
                self.note(&format!("{line}\n"));
            }
        }
    }
}

/// Messages name files, in images too, and may end on a terminal: what could drive it is escaped,
/// and so are bytes that are no UTF-8.
fn harmless(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        match names::carried(letter) {
            Some(byte) => safe.push_str(&format!("\\x{byte:02x}")),
            None if letter.is_control() && letter != '\n' => safe.extend(letter.escape_default()),
            None => safe.push(letter),
        }
    }
    safe
}

/// The advice that qemu-img gives too. Ours goes further; in the drop-in it would only be in
/// the way of scripts that compare.
fn is_qemu_hint(line: &str) -> bool {
    const KNOWN: [&str; 14] = [
        "server reported: ",
        "Is another process using the image",
        "Could not open backing image.",
        "Detected format of ",
        "Optional suffix k, M, G, T, P or E",
        "and exabytes, respectively.",
        "This option is only supported for image creation",
        "Specify the 'raw' format explicitly",
        "Either fix the current base image",
        "Try compat=",
        "Try block-dirty-bitmap-remove",
        "Try --skip-broken-bitmaps",
        "You can force-remove ",
        "You can use 'qemu-img rebase' instead.",
    ];
    KNOWN.iter().any(|known| line.starts_with(known))
}
