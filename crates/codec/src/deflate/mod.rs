//! Compression into raw deflate streams, RFC 1951.
//!
//! One call, one stream. The input goes through a [`window`] of 64 KiB; [`parse`] makes
//! literals and matches of it with what the [`matchfinder`] finds; [`block`] counts the
//! symbols, has [`huffman`] make codes for them and writes them as [`bits`].

mod bits;
mod block;
mod counts;
mod huffman;
mod matchfinder;
mod parse;
mod split;
mod tables;
mod window;

use crate::DeflateWindow;
use bits::BitWriter;
use matchfinder::Matchfinder;
use parse::Sequence;
use window::{WINDOW_SIZE, Window};

pub(crate) const DEFAULT_LEVEL: u8 = 3;

/// Compresses clusters into raw deflate streams.
pub(crate) struct Encoder {
    window: Window,
    finder: Finder,
    sequences: Vec<Sequence>,
    out: BitWriter,
}

enum Finder {
    Near(Matchfinder<{ 4 << 10 }, { 16 << 10 }>),
    Far(Matchfinder<{ 32 << 10 }, { 16 << 10 }>),
}

impl Encoder {
    /// An encoder for `level` (1 to 9) whose matches reach back as far as `window`.
    pub(crate) fn new(_level: u8, window: DeflateWindow) -> Self {
        Self {
            window: Window::new(),
            finder: match window {
                DeflateWindow::Kib4 => Finder::Near(Matchfinder::new()),
                DeflateWindow::Kib32 => Finder::Far(Matchfinder::new()),
            },
            sequences: Vec::new(),
            out: BitWriter::default(),
        }
    }

    /// The stream, or nothing if it is not smaller than `cluster`.
    pub(crate) fn compress(&mut self, cluster: &[u8]) -> Option<&[u8]> {
        let Self { window, finder, sequences, out } = self;
        match finder {
            Finder::Near(finder) => compress(cluster, window, finder, sequences, out),
            Finder::Far(finder) => compress(cluster, window, finder, sequences, out),
        }
        out.finish().filter(|stream| stream.len() < cluster.len())
    }
}

fn compress<const REACH: usize, const BUCKETS: usize>(
    cluster: &[u8],
    window: &mut Window,
    finder: &mut Matchfinder<REACH, BUCKETS>,
    sequences: &mut Vec<Sequence>,
    out: &mut BitWriter,
) {
    // Stored blocks make the most of it: five bytes and some bits for each of them.
    out.restart(cluster.len() + 64 + cluster.len() / 1024);
    finder.restart(cluster.len());
    let mut history = 0;
    let mut rest = cluster;
    while !rest.is_empty() {
        let (now, later) = rest.split_at(rest.len().min(WINDOW_SIZE - history));
        let before = window.end();
        let start = window.refill(history, now);
        if history > 0 {
            finder.shift((before - history) as u16);
        }
        sequences.clear();
        split::parse_and_write(out, window, start, finder, sequences, later.is_empty());
        history = REACH;
        rest = later;
    }
}
