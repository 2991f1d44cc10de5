//! Reading a source ahead, in a thread of its own: looking at files and reading them goes on while
//! those before them are written.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::{Builder, Scope};

use disksmith_disk::{Context as _, Error, Kind, Result};

use super::{Node, Source, SourceFile};

/// Files and their content are handed over when they are so many bytes together.
const BATCH: usize = 1 << 20;
/// What a file counts for, apart from its path and attributes.
const FILE_WEIGHT: usize = 256;
/// Batches that wait at most.
const WAITING: usize = 2;

/// What [`Source`] answers, in order.
enum Step {
    File(Box<SourceFile>),
    /// Content of the file before it: where it goes, and where its bytes are in the batch.
    Data(u64, Range<usize>),
    Failed(Error),
    End,
}

#[derive(Default)]
struct Batch {
    steps: VecDeque<Step>,
    bytes: Vec<u8>,
}

/// The files of a source that is being read by another thread.
pub(crate) struct Ahead {
    full: Receiver<Batch>,
    /// Batches go back, so that their memory is used again.
    used: Sender<Batch>,
    batch: Batch,
}

impl Ahead {
    /// Starts reading `source`. The thread ends with the source, or when the answer is dropped.
    pub(crate) fn start<'scope>(
        scope: &'scope Scope<'scope, '_>,
        source: &'scope mut dyn Source,
    ) -> Result<Self> {
        let (full, filled) = sync_channel(WAITING);
        let (used, spent) = channel();
        let reader = Reader { full, spent, batch: Batch::default(), weight: 0 };
        Builder::new()
            .name("reader".into())
            .spawn_scoped(scope, move || reader.read(source))
            .context("Could not start a thread")?;
        Ok(Self { full: filled, used, batch: Batch::default() })
    }

    /// As [`Source::next_file`].
    pub(crate) fn next_file(&mut self) -> Result<Option<SourceFile>> {
        loop {
            match self.step()? {
                Step::File(file) => return Ok(Some(*file)),
                // Content that nobody asked for.
                Step::Data(..) => {}
                Step::Failed(error) => return Err(error),
                Step::End => {
                    self.batch.steps.push_front(Step::End);
                    return Ok(None);
                }
            }
        }
    }

    /// As [`Source::content`].
    pub(crate) fn content(&mut self, sink: &mut dyn FnMut(u64, &[u8]) -> Result<()>) -> Result<()> {
        loop {
            match self.step()? {
                Step::Data(offset, place) => {
                    sink(offset, self.batch.bytes.get(place).unwrap_or(&[]))?;
                }
                Step::Failed(error) => return Err(error),
                next => {
                    self.batch.steps.push_front(next);
                    return Ok(());
                }
            }
        }
    }

    fn step(&mut self) -> Result<Step> {
        loop {
            if let Some(step) = self.batch.steps.pop_front() {
                return Ok(step);
            }
            let next = self.full.recv().map_err(|_| stopped())?;
            // Fails when the reader is done, who then needs no memory.
            let _ = self.used.send(std::mem::replace(&mut self.batch, next));
        }
    }
}

fn stopped() -> Error {
    Error::new(Kind::Io, "the other thread stopped")
}

/// The thread's side.
struct Reader {
    full: SyncSender<Batch>,
    spent: Receiver<Batch>,
    batch: Batch,
    weight: usize,
}

impl Reader {
    fn read(mut self, source: &mut dyn Source) {
        let last = match self.read_all(source) {
            Ok(()) => Step::End,
            Err(error) => Step::Failed(error),
        };
        // Nobody listens any more when the writer failed: it tells its own error.
        let _ = self.add(last, BATCH);
    }

    fn read_all(&mut self, source: &mut dyn Source) -> Result<()> {
        while let Some(file) = source.next_file()? {
            let regular = matches!(file.node, Node::Regular(_));
            let attributes = file.xattrs.iter().map(|(name, value)| name.len() + value.len());
            let weight = FILE_WEIGHT + file.path.len() + attributes.sum::<usize>();
            self.add(Step::File(Box::new(file)), weight)?;
            if regular {
                source.content(&mut |offset, data| self.add_data(offset, data))?;
            }
        }
        Ok(())
    }

    fn add_data(&mut self, offset: u64, data: &[u8]) -> Result<()> {
        let start = self.batch.bytes.len();
        self.batch.bytes.extend_from_slice(data);
        self.add(Step::Data(offset, start..start + data.len()), data.len())
    }

    fn add(&mut self, step: Step, weight: usize) -> Result<()> {
        self.batch.steps.push_back(step);
        self.weight += weight;
        if self.weight < BATCH {
            return Ok(());
        }
        self.weight = 0;
        let mut next = self.spent.try_recv().unwrap_or_default();
        next.bytes.clear();
        let full = std::mem::replace(&mut self.batch, next);
        self.full.send(full).map_err(|_| stopped())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Time;

    /// Files of growing length, then an error if so wanted.
    struct Numbered {
        next: usize,
        files: usize,
        fails: bool,
    }

    fn bytes(number: usize) -> Vec<u8> {
        (0..number * 1000).map(|at| (at * 7 + number) as u8).collect()
    }

    impl Source for Numbered {
        fn next_file(&mut self) -> Result<Option<SourceFile>> {
            if self.next == self.files {
                return if self.fails { Err(crate::errors::stale()) } else { Ok(None) };
            }
            self.next += 1;
            Ok(Some(SourceFile {
                path: self.next.to_string().into_bytes(),
                node: Node::Regular(bytes(self.next).len() as u64),
                mode: 0o644,
                uid: 0,
                gid: 0,
                modified: Time::default(),
                xattrs: Vec::new(),
            }))
        }

        fn content(&mut self, sink: &mut dyn FnMut(u64, &[u8]) -> Result<()>) -> Result<()> {
            let bytes = bytes(self.next);
            bytes.chunks(5000).zip(0..).try_for_each(|(part, at)| sink(at * 5000, part))
        }

        fn data_blocks(&mut self, block_size: u64) -> Result<u64> {
            Ok((bytes(self.next).len() as u64).div_ceil(block_size))
        }
    }

    fn ahead<T>(files: usize, fails: bool, use_it: impl FnOnce(&mut Ahead) -> T) -> T {
        let mut source = Numbered { next: 0, files, fails };
        std::thread::scope(|scope| use_it(&mut Ahead::start(scope, &mut source).unwrap()))
    }

    #[test]
    fn files_and_content_come_in_order() {
        ahead(120, false, |ahead| {
            for number in 1..=120 {
                let file = ahead.next_file().unwrap().unwrap();
                assert_eq!(file.path, number.to_string().into_bytes());
                // The content of some is not asked for.
                if number % 3 == 0 {
                    continue;
                }
                let mut seen = Vec::new();
                let mut take = |offset: u64, data: &[u8]| {
                    assert_eq!(offset, seen.len() as u64);
                    seen.extend_from_slice(data);
                    Ok(())
                };
                ahead.content(&mut take).unwrap();
                assert!(seen == bytes(number));
            }
            assert!(ahead.next_file().unwrap().is_none());
            assert!(ahead.next_file().unwrap().is_none());
        });
    }

    #[test]
    fn errors_come_in_their_place() {
        let seen = ahead(3, true, |ahead| {
            let mut seen = 0;
            loop {
                match ahead.next_file() {
                    Ok(file) => seen += file.is_some() as u32,
                    Err(error) => return (seen, crate::errno(&error)),
                }
            }
        });
        assert_eq!(seen, (3, crate::errno(&crate::errors::stale())));
    }

    #[test]
    fn the_reader_ends_when_nobody_listens() {
        let first = ahead(1000, false, |ahead| ahead.next_file().unwrap().unwrap().path);
        assert_eq!(first, b"1");
    }
}
