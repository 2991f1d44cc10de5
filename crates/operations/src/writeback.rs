//! Writing back to the disk while copying goes on.

use std::sync::atomic::{AtomicU64, Ordering};

use disksmith_host::FileDisk;
use disksmith_open::Node;

/// Writing back is started in runs of this many bytes.
const STEP: u64 = 32 << 20;

/// Has the kernel start on what was written, so that the flush at the end finds little to do.
/// Does nothing where flushes do nothing.
#[derive(Debug)]
pub(crate) struct Writeback<'a> {
    file: Option<&'a FileDisk>,
    written: AtomicU64,
}

impl<'a> Writeback<'a> {
    /// For guest data of this image.
    pub(crate) fn new(target: &'a Node) -> Self {
        let data_file = target.data_file.as_ref().map(|(_, file)| file);
        let file = data_file.or(target.file.as_ref()).map(|file| &**file);
        Self { file, written: AtomicU64::new(0) }
    }

    /// So many more bytes were written.
    pub(crate) fn wrote(&self, bytes: u64) {
        let before = self.written.fetch_add(bytes, Ordering::Relaxed);
        let after = before.saturating_add(bytes);
        if before / STEP != after / STEP
            && let Some(file) = self.file
        {
            file.start_writeback(0, 0);
        }
    }
}
