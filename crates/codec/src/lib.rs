//! Deflate, zstd and the other compressors behind one cluster-codec interface.
//!
//! An image format hands over whole clusters and gets whole compressed streams, or the news
//! that the cluster does not shrink. Nothing here knows about files or formats.
//!
//! ```
//! use disksmith_codec::{Algorithm, Compressor, Decompressor, Options};
//!
//! let cluster = b"the same words, ".repeat(256);
//! let mut compressor = Compressor::new(Algorithm::Deflate, Options::default());
//! let stored = compressor.compress(&cluster).expect("repetition shrinks");
//!
//! let mut back = vec![0; cluster.len()];
//! Decompressor::new(Algorithm::Deflate).decompress(stored, &mut back)?;
//! assert_eq!(back, cluster);
//! # Ok::<(), disksmith_disk::Error>(())
//! ```

mod deflate;
mod inflate;
mod zstd;

use std::ops::RangeInclusive;

use disksmith_disk::Result;

/// How a cluster is compressed.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Algorithm {
    /// Raw deflate streams, RFC 1951, without zlib or gzip header.
    Deflate,
    /// Zstandard frames, RFC 8878.
    Zstd,
}

impl Algorithm {
    /// The levels that [`Options::level`] may name, fastest first.
    pub fn levels(self) -> RangeInclusive<u8> {
        match self {
            Self::Deflate => 1..=9,
            Self::Zstd => 1..=22,
        }
    }

    /// The level taken when none is named: no larger than what `qemu-img convert -c` makes
    /// by more than one or two per cent, and as fast as that allows.
    pub fn default_level(self) -> u8 {
        match self {
            Self::Deflate => deflate::DEFAULT_LEVEL,
            Self::Zstd => zstd::DEFAULT_LEVEL,
        }
    }
}

/// How far back a deflate match may reach.
///
/// The qcow2 specification names no limit, but several readers inflate with a window of
/// 4 KiB and refuse streams that reach further.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum DeflateWindow {
    /// At most 4096 bytes: every reader accepts it.
    #[default]
    Kib4,
    /// At most 32768 bytes, the most that RFC 1951 can express.
    Kib32,
}

impl DeflateWindow {
    /// The largest match distance, in bytes.
    pub fn bytes(self) -> usize {
        match self {
            Self::Kib4 => 4 << 10,
            Self::Kib32 => 32 << 10,
        }
    }
}

/// What may be chosen about a [`Compressor`].
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct Options {
    /// Speed against size; brought into [`Algorithm::levels`]. `None` is
    /// [`Algorithm::default_level`].
    pub level: Option<u8>,
    /// The reach of deflate matches; zstd does not look at it.
    pub deflate_window: DeflateWindow,
}

/// Compresses clusters, one after another, with memory that is kept between them.
///
/// Make one for each thread. The output depends on the cluster and the options alone,
/// not on what the compressor did before.
pub struct Compressor(CompressorKind);

enum CompressorKind {
    Deflate(Box<deflate::Encoder>),
    Zstd(zstd::Encoder),
}

impl Compressor {
    /// A compressor for `algorithm`.
    pub fn new(algorithm: Algorithm, options: Options) -> Self {
        let levels = algorithm.levels();
        let level = options
            .level
            .unwrap_or(algorithm.default_level())
            .clamp(*levels.start(), *levels.end());
        Self(match algorithm {
            Algorithm::Deflate => CompressorKind::Deflate(Box::new(deflate::Encoder::new(
                level,
                options.deflate_window,
            ))),
            Algorithm::Zstd => CompressorKind::Zstd(zstd::Encoder::new(level)),
        })
    }

    /// The compressed form of `cluster`, or `None` when it would not be at least one byte
    /// smaller than the cluster.
    pub fn compress<'a>(&'a mut self, cluster: &[u8]) -> Option<&'a [u8]> {
        match &mut self.0 {
            CompressorKind::Deflate(encoder) => encoder.compress(cluster),
            CompressorKind::Zstd(encoder) => encoder.compress(cluster),
        }
    }
}

/// Decompresses clusters, one after another, with memory that is kept between them.
///
/// Make one for each thread.
pub struct Decompressor(DecompressorKind);

enum DecompressorKind {
    Deflate(inflate::Decoder),
    Zstd(zstd::Decoder),
}

impl Decompressor {
    /// A decompressor for `algorithm`.
    pub fn new(algorithm: Algorithm) -> Self {
        Self(match algorithm {
            Algorithm::Deflate => DecompressorKind::Deflate(inflate::Decoder::new()),
            Algorithm::Zstd => DecompressorKind::Zstd(zstd::Decoder::new()),
        })
    }

    /// Fills `out` from the stream at the front of `input`; what follows the stream is not
    /// looked at. A deflate match may reach back 32 KiB.
    ///
    /// Memory stays within what `out` implies, whatever the input claims.
    ///
    /// # Errors
    ///
    /// [`Kind::Corrupt`](disksmith_disk::Kind::Corrupt) when the stream is damaged, is cut
    /// short or holds fewer bytes than `out`; for zstd also when the last frame goes on past
    /// the end of `out`. `out` then holds no meaningful bytes.
    pub fn decompress(&mut self, input: &[u8], out: &mut [u8]) -> Result<()> {
        match &mut self.0 {
            DecompressorKind::Deflate(decoder) => decoder.decompress(input, out),
            DecompressorKind::Zstd(decoder) => decoder.decompress(input, out),
        }
    }
}
