//! Storage that keeps a log of everything done to it.

use std::sync::{Arc, Mutex, PoisonError};

use disksmith_disk::{Disk, Extent, MemoryDisk, Result, ZeroMode};

/// One change of storage, with the number of the file it was done to.
#[derive(Clone, Debug)]
pub enum Operation {
    /// Bytes were written.
    Write {
        /// Which file.
        file: usize,
        /// Where.
        offset: u64,
        /// What.
        data: Arc<[u8]>,
    },
    /// A range was zeroed.
    Zero {
        /// Which file.
        file: usize,
        /// Where.
        offset: u64,
        /// How much.
        length: u64,
    },
    /// A range was discarded. What it reads as is open; zero is assumed.
    Discard {
        /// Which file.
        file: usize,
        /// Where.
        offset: u64,
        /// How much.
        length: u64,
    },
    /// The size was changed.
    Resize {
        /// Which file.
        file: usize,
        /// To what.
        size: u64,
    },
    /// Everything done to this file before is durable.
    Flush {
        /// Which file.
        file: usize,
    },
    /// Step `n` of the test's workload begins.
    Begin(u64),
    /// The guest was told that the steps before `n` are durable.
    Durable(u64),
}

impl Operation {
    /// Which file it was done to; marks belong to none.
    pub fn file(&self) -> Option<usize> {
        match self {
            Self::Write { file, .. }
            | Self::Zero { file, .. }
            | Self::Discard { file, .. }
            | Self::Resize { file, .. }
            | Self::Flush { file } => Some(*file),
            Self::Begin(_) | Self::Durable(_) => None,
        }
    }

    /// Does it to the files' contents.
    pub fn apply(&self, files: &[MemoryDisk]) {
        let Some(file) = self.file().and_then(|file| files.get(file)) else { return };
        let done = match self {
            Self::Write { offset, data, .. } => file.write_at(data, *offset),
            Self::Zero { offset, length, .. } => {
                file.write_zeroes(*offset, *length, ZeroMode::Keep)
            }
            Self::Discard { offset, length, .. } => file.discard(*offset, *length),
            Self::Resize { size, .. } => file.set_size(*size),
            Self::Flush { .. } | Self::Begin(_) | Self::Durable(_) => Ok(()),
        };
        debug_assert!(done.is_ok(), "memory disks do not fail");
    }
}

/// The log that several recording disks share.
#[derive(Debug, Default)]
pub struct Recorder {
    log: Mutex<Vec<Operation>>,
}

impl Recorder {
    /// An empty log.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// A disk with that content, whose changes are recorded under the number `file`.
    pub fn disk(self: &Arc<Self>, file: usize, content: MemoryDisk) -> Arc<RecordingDisk> {
        Arc::new(RecordingDisk { recorder: self.clone(), file, content })
    }

    /// Notes that step `n` begins.
    pub fn begin(&self, step: u64) {
        self.push(Operation::Begin(step));
    }

    /// Notes that the guest was told: the steps before `n` are durable.
    pub fn durable(&self, step: u64) {
        self.push(Operation::Durable(step));
    }

    /// What was recorded so far.
    pub fn log(&self) -> Vec<Operation> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn push(&self, operation: Operation) {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).push(operation);
    }
}

/// A memory disk that records what is done to it.
#[derive(Debug)]
pub struct RecordingDisk {
    recorder: Arc<Recorder>,
    file: usize,
    content: MemoryDisk,
}

impl RecordingDisk {
    /// A copy of the present content.
    pub fn content(&self) -> MemoryDisk {
        self.content.clone()
    }
}

impl Disk for RecordingDisk {
    fn size(&self) -> u64 {
        self.content.size()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        self.content.read_at(buffer, offset)
    }

    fn write_at(&self, data: &[u8], offset: u64) -> Result<()> {
        self.recorder.push(Operation::Write { file: self.file, offset, data: data.into() });
        self.content.write_at(data, offset)
    }

    fn write_zeroes(&self, offset: u64, length: u64, mode: ZeroMode) -> Result<()> {
        self.recorder.push(Operation::Zero { file: self.file, offset, length });
        self.content.write_zeroes(offset, length, mode)
    }

    fn discard(&self, offset: u64, length: u64) -> Result<()> {
        self.recorder.push(Operation::Discard { file: self.file, offset, length });
        self.content.discard(offset, length)
    }

    fn flush(&self) -> Result<()> {
        self.recorder.push(Operation::Flush { file: self.file });
        Ok(())
    }

    fn map(&self, offset: u64, length: u64) -> Result<Extent> {
        self.content.map(offset, length)
    }

    fn set_size(&self, size: u64) -> Result<()> {
        self.recorder.push(Operation::Resize { file: self.file, size });
        self.content.set_size(size)
    }
}
