//! Zstandard frames, RFC 8878, by the C library.

use disksmith_disk::{Error, Kind, Result};
use zstd::zstd_safe::{
    CCtx, CParameter, DCtx, compress_bound, find_frame_compressed_size, get_error_name,
};

/// Level 2 makes 1.01 of what level 3, QEMU's, makes, in five sixths of the time.
pub(crate) const DEFAULT_LEVEL: u8 = 2;

/// Compresses clusters into one frame each.
pub(crate) struct Encoder {
    context: CCtx<'static>,
    output: Vec<u8>,
}

impl Encoder {
    /// An encoder for `level` (1 to 22).
    pub(crate) fn new(level: u8) -> Self {
        let mut context = CCtx::create();
        // Only a level beyond the library's own bounds could be refused.
        let _ = context.set_parameter(CParameter::CompressionLevel(level.into()));
        Self { context, output: Vec::new() }
    }

    /// The frame, or nothing if it is not smaller than `cluster`.
    pub(crate) fn compress(&mut self, cluster: &[u8]) -> Option<&[u8]> {
        // With all of the bound to write into, the library need not check for room.
        self.output.resize(compress_bound(cluster.len()), 0);
        let length = self.context.compress2(self.output.as_mut_slice(), cluster).ok()?;
        (length < cluster.len()).then(|| self.output.get(..length))?
    }
}

/// Expands frames.
pub(crate) struct Decoder {
    context: DCtx<'static>,
}

impl Decoder {
    pub(crate) fn new() -> Self {
        Self { context: DCtx::create() }
    }

    /// Fills `out` from the frames at the front of `input`.
    ///
    /// Frames are expanded whole, straight into `out`: no window is allocated, so a frame
    /// header cannot ask for memory.
    pub(crate) fn decompress(&mut self, mut input: &[u8], out: &mut [u8]) -> Result<()> {
        let mut filled = 0;
        while let Some(rest) = out.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            if input.is_empty() {
                return Err(Error::new(
                    Kind::Corrupt,
                    format!("the zstd frames end after {filled} of {} bytes", out.len()),
                ));
            }
            let frame_length = find_frame_compressed_size(input).map_err(damaged)?;
            let (frame, next) = input
                .split_at_checked(frame_length)
                .ok_or_else(|| Error::new(Kind::Corrupt, "the zstd frame is cut short"))?;
            filled += self.context.decompress(rest, frame).map_err(damaged)?;
            input = next;
        }
        Ok(())
    }
}

fn damaged(code: usize) -> Error {
    let cause = get_error_name(code).to_lowercase();
    Error::new(Kind::Corrupt, format!("the zstd frame is damaged: {cause}"))
}
