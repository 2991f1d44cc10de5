//! Where files come from - a host folder, a tar stream, another filesystem - and ways to put them
//! elsewhere.

mod ahead;
mod directory;
mod insert;
mod tar;
mod tar_writer;
mod tree;
mod unpack;

pub(crate) use ahead::Ahead;
pub use directory::DirectorySource;
pub use insert::{Keep, insert};
pub use tar::TarSource;
pub use tar_writer::write_tar;
pub use tree::TreeSource;
pub use unpack::unpack;

use disksmith_disk::Result;

use crate::{Device, FileKind, Time};

/// One file of a source.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SourceFile {
    /// Where it goes: components separated by `/`, relative to the root; empty for the root itself.
    pub path: Vec<u8>,
    /// What it is.
    pub node: Node,
    /// Permission bits.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Last change of the content.
    pub modified: Time,
    /// Full names and values (access control lists in Linux's encoding).
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// What a file of a source is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Node {
    /// A regular file of so many bytes; its content comes from [`Source::content`].
    Regular(u64),
    /// A directory.
    Directory,
    /// A symlink to this target.
    Symlink(Vec<u8>),
    /// A device, pipe or socket.
    Special(FileKind, Device),
    /// One more name for the file that came under this path.
    HardLink(Vec<u8>),
}

/// Files, each after the directory that it lies in (missing directories are made up).
pub trait Source: Send {
    /// The next file; `None` at the end.
    fn next_file(&mut self) -> Result<Option<SourceFile>>;

    /// Calls `sink(offset, bytes)` with the data of the regular file that
    /// [`next_file`](Self::next_file) answered last. What is left out are holes.
    fn content(&mut self, sink: &mut dyn FnMut(u64, &[u8]) -> Result<()>) -> Result<()>;

    /// Of the regular file answered last: how many blocks of `block_size` bytes hold data.
    fn data_blocks(&mut self, block_size: u64) -> Result<u64>;
}
