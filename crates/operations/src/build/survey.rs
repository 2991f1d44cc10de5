//! A first look at the files: what they are, how new, and those that booting depends on.

use std::collections::BTreeMap;

use disksmith_disk::Result;
use disksmith_filesystems::Time;
use disksmith_filesystems::source::{Node, Source, SourceFile};
use sha2::{Digest, Sha256};

use crate::Observer;
use crate::observer::check_cancelled;

/// A file that booting depends on is no larger than this.
const TAKEN_MAX: u64 = 256 << 20;

/// What is known of the files of a partition.
#[derive(Clone, Debug, Default)]
pub(super) struct Survey {
    hash: Sha256,
    /// The newest time of any file.
    pub(super) newest: Option<Time>,
    /// Bytes of content.
    pub(super) bytes: u64,
    /// What was looked for and found: by path, with the content where that was wanted.
    pub(super) found: BTreeMap<String, Option<Vec<u8>>>,
}

/// What to do about a file that is seen.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Interest {
    /// Nothing.
    None,
    /// Remember that it is there.
    Note,
    /// Take its content.
    Take,
}

impl Survey {
    /// Stands for all names, attributes and lengths: two trees that are alike have the same.
    pub(super) fn fingerprint(&self) -> [u8; 32] {
        self.hash.clone().finalize().into()
    }

    fn see(&mut self, file: &SourceFile, clamp: Option<Time>) {
        let time = clamp.map_or(file.modified, |clamp| file.modified.min(clamp));
        self.newest = self.newest.max(Some(time));
        let mut field = |bytes: &[u8]| {
            self.hash.update((bytes.len() as u64).to_le_bytes());
            self.hash.update(bytes);
        };
        field(&file.path);
        match &file.node {
            Node::Regular(size) => {
                field(b"file");
                field(&size.to_le_bytes());
                self.bytes += size;
            }
            Node::Directory => field(b"directory"),
            Node::Symlink(target) | Node::HardLink(target) => field(target),
            Node::Special(kind, device) => {
                let mut number = device.major.to_le_bytes().to_vec();
                number.extend(device.minor.to_le_bytes());
                number.extend(kind.mode_bits().to_le_bytes());
                field(&number);
            }
        }
        let mut rest = Vec::with_capacity(24);
        rest.extend(file.mode.to_le_bytes());
        rest.extend(file.uid.to_le_bytes());
        rest.extend(file.gid.to_le_bytes());
        rest.extend(time.seconds.to_le_bytes());
        rest.extend(time.nanoseconds.to_le_bytes());
        field(&rest);
        for (name, value) in &file.xattrs {
            field(name);
            field(value);
        }
    }
}

/// Passes a source on and looks at it.
pub(super) struct Watched<'a> {
    pub(super) source: &'a mut dyn Source,
    pub(super) survey: &'a mut Survey,
    pub(super) interest: &'a (dyn Fn(&str) -> Interest + Sync),
    /// No time counts that is later.
    pub(super) clamp: Option<Time>,
    pub(super) observer: &'a dyn Observer,
    /// The file answered last, if its content is wanted. It is read when nobody asks for anything
    /// else of it any more: a stream can be read only once.
    wanted: Option<String>,
}

impl<'a> Watched<'a> {
    pub(super) fn new(
        source: &'a mut dyn Source,
        survey: &'a mut Survey,
        interest: &'a (dyn Fn(&str) -> Interest + Sync),
        clamp: Option<Time>,
        observer: &'a dyn Observer,
    ) -> Self {
        Self { source, survey, interest, clamp, observer, wanted: None }
    }

    /// Goes through all files.
    pub(super) fn run(&mut self) -> Result<()> {
        while self.next_file()?.is_some() {}
        Ok(())
    }

    fn take_wanted(&mut self) -> Result<()> {
        let Some(path) = self.wanted.take() else { return Ok(()) };
        let mut bytes = Vec::new();
        self.source.content(&mut |offset, data| {
            bytes.resize(usize::try_from(offset.min(TAKEN_MAX)).unwrap_or(0), 0);
            bytes.extend_from_slice(data);
            Ok(())
        })?;
        self.survey.found.insert(path, Some(bytes));
        Ok(())
    }
}

impl Source for Watched<'_> {
    fn next_file(&mut self) -> Result<Option<SourceFile>> {
        check_cancelled(self.observer)?;
        self.take_wanted()?;
        let Some(file) = self.source.next_file()? else { return Ok(None) };
        self.survey.see(&file, self.clamp);
        let path = String::from_utf8_lossy(&file.path).into_owned();
        match (self.interest)(&path) {
            Interest::None => {}
            Interest::Take if matches!(file.node, Node::Regular(size) if size <= TAKEN_MAX) => {
                self.wanted = Some(path);
            }
            _ => {
                self.survey.found.insert(path, None);
            }
        }
        Ok(Some(file))
    }

    fn content(&mut self, sink: &mut dyn FnMut(u64, &[u8]) -> Result<()>) -> Result<()> {
        self.source.content(sink)
    }

    fn data_blocks(&mut self, block_size: u64) -> Result<u64> {
        self.source.data_blocks(block_size)
    }
}

/// Passes a source on and tells how much of it was read.
pub(super) struct Counted<'a> {
    pub(super) source: &'a mut dyn Source,
    pub(super) meter: &'a crate::observer::Meter<'a>,
}

impl Source for Counted<'_> {
    fn next_file(&mut self) -> Result<Option<SourceFile>> {
        self.meter.advance(0)?;
        self.source.next_file()
    }

    fn content(&mut self, sink: &mut dyn FnMut(u64, &[u8]) -> Result<()>) -> Result<()> {
        self.source.content(&mut |offset, data| {
            self.meter.advance(data.len() as u64)?;
            sink(offset, data)
        })
    }

    fn data_blocks(&mut self, block_size: u64) -> Result<u64> {
        self.source.data_blocks(block_size)
    }
}
