//! Deflate streams to clusters: libdeflate first, a patient decoder for what it refuses.

use disksmith_disk::{Error, Kind, Result};
use flate2::{Decompress, FlushDecompress};

/// Expands raw deflate streams.
pub(crate) struct Decoder {
    fast: libdeflater::Decompressor,
    patient: Option<Decompress>,
}

impl Decoder {
    pub(crate) fn new() -> Self {
        Self { fast: libdeflater::Decompressor::new(), patient: None }
    }

    /// Fills `out` from the stream at the front of `input`.
    pub(crate) fn decompress(&mut self, input: &[u8], out: &mut [u8]) -> Result<()> {
        match self.fast.deflate_decompress(input, out) {
            Ok(length) if length == out.len() => Ok(()),
            Ok(length) => Err(too_short(length, out.len())),
            Err(_) => self.decompress_patiently(input, out),
        }
    }

    /// libdeflate insists on the end of the stream. It is enough, though, that a cluster comes
    /// out: the stream may go on past it, or may never have been finished.
    #[cold]
    fn decompress_patiently(&mut self, input: &[u8], out: &mut [u8]) -> Result<()> {
        let patient = self.patient.get_or_insert_with(|| Decompress::new(false));
        patient.reset(false);
        patient
            .decompress(input, out, FlushDecompress::Finish)
            .map_err(|_| Error::new(Kind::Corrupt, "the deflate stream is damaged"))?;
        match usize::try_from(patient.total_out()) {
            Ok(length) if length == out.len() => Ok(()),
            Ok(length) => Err(too_short(length, out.len())),
            Err(_) => Err(Error::new(Kind::Corrupt, "the deflate stream is damaged")),
        }
    }
}

fn too_short(length: usize, wanted: usize) -> Error {
    Error::new(Kind::Corrupt, format!("the deflate stream ends after {length} of {wanted} bytes"))
}
