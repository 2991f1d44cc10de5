//! One error type: a few stable kinds, a chain of contexts, the exact cause.

use std::fmt;
use std::io;

/// Shorthand for results of this project.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What sort of failure it is. Stable: programs may match on it.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Kind {
    /// Something with that name is there already.
    AlreadyExists,
    /// The user stopped the work.
    Cancelled,
    /// The bytes on disk break the format's rules.
    Corrupt,
    /// Somebody else uses the image in a way that excludes ours.
    InUse,
    /// The request makes no sense: a bad option, a range outside the disk.
    InvalidInput,
    /// The host failed to read or write.
    Io,
    /// A limit that protects against hostile input was met.
    LimitExceeded,
    /// There is no such file, snapshot, bitmap, partition …
    NotFound,
    /// No space left, on the host or inside the image.
    OutOfSpace,
    /// The host does not permit it.
    PermissionDenied,
    /// Refused for safety's sake: read-only, untrusted reference, data would be lost.
    Refused,
    /// A feature that this program does not know or this format does not have.
    Unsupported,
}

/// What went wrong: a [`Kind`], a message, and what was being attempted, outermost first.
///
/// Displayed on one line, `attempt: attempt: cause`. A [`hint`](Self::hint), where there is
/// one, says what to do and is shown on a line of its own.
#[derive(Debug)]
pub struct Error(Box<Inner>);

#[derive(Debug)]
struct Inner {
    kind: Kind,
    message: String,
    /// Innermost first.
    contexts: Vec<String>,
    hint: Option<String>,
    errno: Option<i32>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error of `kind` that `message` tells: no full stop, no newline.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            message: message.into(),
            contexts: Vec::new(),
            hint: None,
            errno: None,
            source: None,
        }))
    }

    /// An error of `kind` whose exact cause is `source`.
    pub fn with_source(kind: Kind, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        let mut error = Self::new(kind, source.to_string());
        error.0.source = Some(Box::new(source));
        error
    }

    /// The error of a system call, from its number.
    pub fn from_errno(errno: i32) -> Self {
        Self::from(io::Error::from_raw_os_error(errno))
    }

    /// What sort of failure it is.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// The system's error number, if a system call failed.
    pub fn errno(&self) -> Option<i32> {
        self.0.errno
    }

    /// What the user can do about it; may have several lines.
    pub fn hint(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// The innermost message, without what was being attempted.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// As displayed, but an attempt that is told twice in a row is told once.
    pub fn told_once(&self) -> String {
        let mut attempts: Vec<&str> = self.0.contexts.iter().rev().map(String::as_str).collect();
        attempts.dedup();
        attempts.push(&self.0.message);
        attempts.join(": ")
    }

    /// The same error with a further, outer attempt in front: `attempt: …`.
    #[must_use]
    pub fn context(mut self, attempt: impl Into<String>) -> Self {
        self.0.contexts.push(attempt.into());
        self
    }

    /// The same error with advice; the first advice given stays.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint.get_or_insert_with(|| hint.into());
        self
    }

    /// The same error under another kind.
    #[must_use]
    pub fn with_kind(mut self, kind: Kind) -> Self {
        self.0.kind = kind;
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for context in self.0.contexts.iter().rev() {
            write!(f, "{context}: ")?;
        }
        f.write_str(&self.0.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|s| s as _)
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        use io::ErrorKind as E;
        let kind = match error.kind() {
            E::NotFound => Kind::NotFound,
            E::PermissionDenied => Kind::PermissionDenied,
            E::AlreadyExists => Kind::AlreadyExists,
            E::StorageFull | E::QuotaExceeded | E::FileTooLarge => Kind::OutOfSpace,
            E::Unsupported => Kind::Unsupported,
            E::InvalidInput => Kind::InvalidInput,
            E::ReadOnlyFilesystem => Kind::PermissionDenied,
            _ => Kind::Io,
        };
        let errno = error.raw_os_error();
        let mut text = error.to_string();
        if let Some(at) = text.find(" (os error ") {
            text.truncate(at);
        }
        let mut result = Self::new(kind, text);
        result.0.errno = errno;
        result.0.source = Some(Box::new(error));
        result
    }
}

/// Adds what was being attempted to a failing result.
pub trait Context<T> {
    /// With a fixed text.
    fn context(self, attempt: impl Into<String>) -> Result<T>;
    /// With a text that is made only on failure.
    fn with_context<S: Into<String>>(self, attempt: impl FnOnce() -> S) -> Result<T>;
}

impl<T, E: Into<Error>> Context<T> for Result<T, E> {
    fn context(self, attempt: impl Into<String>) -> Result<T> {
        self.map_err(|e| e.into().context(attempt))
    }

    fn with_context<S: Into<String>>(self, attempt: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|e| e.into().context(attempt()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contexts_read_outermost_first() {
        let error =
            Error::from_errno(2).context("Could not open 'b'").context("Could not open 'a'");
        assert_eq!(
            error.to_string(),
            "Could not open 'a': Could not open 'b': No such file or directory"
        );
        assert_eq!(error.kind(), Kind::NotFound);
        assert_eq!(error.errno(), Some(2));
    }

    #[test]
    fn what_was_attempted_twice_is_told_once() {
        let error =
            Error::from_errno(2).context("Could not open 'a'").context("Could not open 'a'");
        assert_eq!(error.told_once(), "Could not open 'a': No such file or directory");
        assert_eq!(error.context("Could not open 'b'").told_once().matches("Could").count(), 2);
    }

    #[test]
    fn the_first_hint_stays() {
        let error = Error::new(Kind::Refused, "no").with_hint("inner").with_hint("outer");
        assert_eq!(error.hint(), Some("inner"));
    }
}
