//! A file, and what its directory says of it.

use super::layout::attribute;
use crate::Time;

/// A file: its number, its entry (or set of entries), and where that lies.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Node<E> {
    pub(crate) number: u64,
    pub(crate) entry: E,
    /// In units of 32 bytes; `None` for files without a name and the root.
    pub(crate) place: Option<u64>,
}

/// Which of the times that a file bears.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Stamp {
    Created,
    Modified,
    Accessed,
}

/// What an entry of every kind of FAT says.
pub(crate) trait FileEntry: Clone {
    /// Read-only 1, hidden 2, system 4, directory 16, archive 32.
    fn attributes(&self) -> u8;

    fn set_attributes(&mut self, attributes: u8);

    fn time(&self, which: Stamp) -> Option<Time>;

    fn set_time(&mut self, which: Stamp, time: Time);

    fn is_directory(&self) -> bool {
        self.attributes() & attribute::DIRECTORY != 0
    }

    /// Of a mode, FAT keeps whether its owner may write. For directories the bit means something
    /// else to Windows.
    fn set_mode(&mut self, mode: u16) {
        if !self.is_directory() {
            let kept = self.attributes() & !attribute::READ_ONLY;
            let bit = if mode & 0o200 == 0 { attribute::READ_ONLY } else { 0 };
            self.set_attributes(kept | bit);
        }
    }

    fn is_writable(&self) -> bool {
        self.is_directory() || self.attributes() & attribute::READ_ONLY == 0
    }

    /// The content changed.
    fn touch(&mut self, now: Time) {
        self.set_time(Stamp::Modified, now);
        self.set_attributes(self.attributes() | attribute::ARCHIVE);
    }
}
