//! How a stack is to be opened.

use disksmith_disk::{Error, Kind, Result};
use disksmith_formats::OpenMode;

use crate::Secrets;

/// Cache modes with QEMU's names.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Cache {
    /// Through the page cache; flush makes durable.
    #[default]
    WriteBack,
    /// Every write is durable when it returns.
    WriteThrough,
    /// Past the page cache.
    None,
    /// Past the page cache, every write durable.
    DirectSync,
    /// Flushes do nothing.
    Unsafe,
}

impl Cache {
    /// Reads the name of a mode.
    pub fn parse(text: &str) -> Result<Self> {
        Ok(match text {
            "writeback" => Self::WriteBack,
            "writethrough" => Self::WriteThrough,
            "none" | "off" => Self::None,
            "directsync" => Self::DirectSync,
            "unsafe" => Self::Unsafe,
            _ => {
                return Err(Error::new(
                    Kind::InvalidInput,
                    format!("Invalid cache option: {text}"),
                ));
            }
        })
    }
}

/// Which locks to take.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Locking {
    /// What the mode of opening needs.
    #[default]
    Normal,
    /// As [`Normal`](Self::Normal), and nobody may write meanwhile, raw images included: for a
    /// source that must not change while it is copied.
    Still,
    /// As [`Normal`](Self::Normal), and the size may change, that of raw images included.
    Resize,
    /// As `info`: use nothing, and, where there is metadata to read, forbid others to write.
    Inspect,
    /// None that exclude others (`-U`); for reading only.
    Shared,
    /// As for a server or a mount: others may not write what we write, raw images too.
    Serve,
    /// None at all.
    Off,
}

/// What an image may make this program open.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Trust {
    /// Files that an image names as plain paths.
    #[default]
    References,
    /// Nothing: an image that refers to another file is refused.
    Nothing,
}

/// How a stack is to be opened.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What for; applies to the top image, backing images are opened for reading.
    pub mode: OpenMode,
    /// Whether to open the backing chain. Without it, absent ranges read as zero.
    pub follow_backing: bool,
    /// Cache mode of the top image's files.
    pub cache: Cache,
    /// Which locks to take.
    pub locking: Locking,
    /// What images may refer to.
    pub trust: Trust,
    /// Where `key-secret` names are looked up.
    pub secrets: Secrets,
}

impl Settings {
    /// For the given purpose, with everything else at its default: chain followed, normal locks.
    pub fn new(mode: OpenMode) -> Self {
        Self {
            mode,
            follow_backing: true,
            cache: Cache::default(),
            locking: Locking::default(),
            trust: Trust::default(),
            secrets: Secrets::default(),
        }
    }
}
