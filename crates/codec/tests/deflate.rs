//! Deflate streams against other people's decoders, and damaged streams against ours.

mod support;

use std::io::Write;
use std::process::{Command, Stdio};

use disksmith_codec::{Algorithm, Compressor, Decompressor, DeflateWindow, Options};
use disksmith_disk::Kind;
use flate2::{Decompress, FlushDecompress, Status};
use proptest::prelude::*;
use support::inflate::inflate;

const DEFAULT_LEVEL: u8 = 5;

/// A cluster that shrank.
struct Case {
    name: String,
    plain: Vec<u8>,
    stored: Vec<u8>,
}

fn compressor(level: u8, deflate_window: DeflateWindow) -> Compressor {
    Compressor::new(Algorithm::Deflate, Options { level: Some(level), deflate_window })
}

fn cases(level: u8, window: DeflateWindow) -> Vec<Case> {
    let mut compressor = compressor(level, window);
    let cases: Vec<Case> = support::corpus()
        .into_iter()
        // The largest take most of the time, and one level is enough for them.
        .filter(|(_, plain)| level == DEFAULT_LEVEL || plain.len() < 1 << 20)
        .filter_map(|(name, plain)| {
            let stored = compressor.compress(&plain)?.to_vec();
            assert!(stored.len() < plain.len(), "{name}");
            Some(Case { name, plain, stored })
        })
        .collect();
    assert!(cases.len() > 1800, "only {} clusters shrink", cases.len());
    cases
}

#[test]
fn every_stream_inflates_with_c_zlib_in_steps_of_1_kib() {
    // zlib looks for a match first in the output buffer, and in its window, here 4 KiB, only
    // beyond that: steps are what makes it refuse a distance that is too large.
    const SCRIPT: &str = "
import sys, struct, zlib
count = 0
while head := sys.stdin.buffer.read(8):
    stored_length, plain_length = struct.unpack('<II', head)
    stored = sys.stdin.buffer.read(stored_length)
    plain = sys.stdin.buffer.read(plain_length)
    inflater = zlib.decompressobj(-12)
    steps = []
    while not inflater.eof:
        step = inflater.decompress(stored, 1024)
        if not step and not inflater.eof: sys.exit(f'stream {count} is not whole')
        steps.append(step)
        stored = inflater.unconsumed_tail
    if b''.join(steps) != plain: sys.exit(f'stream {count} differs')
    if inflater.unused_data: sys.exit(f'stream {count} has a tail')
    count += 1
print(count)
";
    let mut python = Command::new("python3")
        .args(["-c", SCRIPT])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("this test needs python3 (Debian package python3), for its binding of zlib");
    let mut input = python.stdin.take().expect("a pipe was asked for");
    let mut count = 0;
    for level in [1, 5, 9] {
        for case in cases(level, DeflateWindow::Kib4) {
            let lengths = [case.stored.len() as u32, case.plain.len() as u32];
            for length in lengths {
                input.write_all(&length.to_le_bytes()).expect("python reads on");
            }
            input.write_all(&case.stored).expect("python reads on");
            input.write_all(&case.plain).expect("python reads on");
            count += 1;
        }
    }
    drop(input);
    let output = python.wait_with_output().expect("python ends");
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), count.to_string());
}

#[test]
fn every_stream_inflates_with_libdeflate_and_miniz() {
    for window in [DeflateWindow::Kib4, DeflateWindow::Kib32] {
        let mut ours = Decompressor::new(Algorithm::Deflate);
        let mut libdeflate = libdeflater::Decompressor::new();
        for case in cases(5, window) {
            let mut back = vec![0; case.plain.len()];
            ours.decompress(&case.stored, &mut back).unwrap();
            assert!(back == case.plain, "{}", case.name);

            back.fill(0);
            let length = libdeflate.deflate_decompress(&case.stored, &mut back).unwrap();
            assert_eq!(length, case.plain.len());
            assert!(back == case.plain, "{}", case.name);

            back.fill(0);
            let mut miniz = Decompress::new(false);
            let status = miniz.decompress(&case.stored, &mut back, FlushDecompress::Finish);
            assert_eq!(status.unwrap(), Status::StreamEnd);
            assert_eq!(miniz.total_in(), case.stored.len() as u64, "{}", case.name);
            assert!(back == case.plain, "{}", case.name);
        }
    }
}

#[test]
fn distances_keep_to_the_window_and_use_all_of_it() {
    for level in [1, 5, 9] {
        for window in [DeflateWindow::Kib4, DeflateWindow::Kib32] {
            let mut distance_max = 0;
            let mut blocks = [0; 3];
            for case in cases(level, window).into_iter().filter(|case| case.plain.len() < 1 << 20) {
                let inflated = inflate(&case.stored);
                assert!(inflated.bytes == case.plain, "{}", case.name);
                distance_max = distance_max.max(inflated.distance_max);
                for (sum, count) in blocks.iter_mut().zip(inflated.blocks) {
                    *sum += count;
                }
            }
            assert_eq!(distance_max, window.bytes(), "level {level}");
            assert!(blocks.iter().all(|&count| count > 0), "not every sort of block: {blocks:?}");
        }
    }
}

#[test]
fn what_does_not_shrink_is_none() {
    let mut compressor = compressor(5, DeflateWindow::Kib4);
    for size in (0..=600).chain([4096, 64 << 10, 2 << 20]) {
        assert!(compressor.compress(&support::random(size)).is_none(), "{size}");
    }
    assert!(compressor.compress(&[0]).is_none());
    assert!(compressor.compress(&[0; 64]).is_some());
}

#[test]
fn output_depends_on_the_cluster_alone() {
    for window in [DeflateWindow::Kib4, DeflateWindow::Kib32] {
        let corpus: Vec<_> = support::corpus()
            .into_iter()
            .filter(|(_, plain)| (300..1 << 20).contains(&plain.len()))
            .collect();
        let mut used = compressor(5, window);
        let forwards: Vec<_> =
            corpus.iter().map(|(_, plain)| used.compress(plain).map(<[u8]>::to_vec)).collect();
        for ((name, plain), expected) in corpus.iter().zip(&forwards).rev() {
            assert!(used.compress(plain) == expected.as_deref(), "{name}");
        }
        for ((name, plain), expected) in corpus.iter().zip(&forwards).step_by(17) {
            assert!(compressor(5, window).compress(plain) == expected.as_deref(), "{name}");
        }
    }
}

#[test]
fn size_is_about_that_of_zlib() {
    // The real measure is examples/rate.rs on files of all sorts. The tables of relocations and
    // symbols at the front of a program are the worst for short chains.
    for (plain, per_cent_max) in [(support::text(64 << 10), 104), (support::elf(1 << 20), 108)] {
        let mut ours = 0;
        let mut zlib = 0;
        let mut compressor = Compressor::new(Algorithm::Deflate, Options::default());
        for cluster in plain.chunks(64 << 10) {
            ours += compressor.compress(cluster).map_or(cluster.len(), <[u8]>::len);
            zlib += zlib_size(cluster);
        }
        assert!(ours * 100 <= zlib * per_cent_max, "{ours} bytes, zlib {zlib}");
    }
}

#[test]
fn what_repeats_itself_is_one_block_however_long() {
    let mut plain = vec![0; 2 << 20];
    plain[1 << 20..].fill(0x22);
    for stop in [300_000, 1 << 20, (1 << 20) + 32768, 2 << 20] {
        let plain = &plain[..stop];
        let stored = compressor(5, DeflateWindow::Kib4).compress(plain).unwrap().to_vec();
        assert!(inflate(&stored).bytes == plain);
        let zlib = zlib_size(plain);
        assert!(stored.len() <= zlib, "{} bytes, zlib {zlib}", stored.len());
    }
}

#[test]
fn light_and_heavy_windows_follow_each_other() {
    let text = support::text(90 << 10);
    for gap in [1_000, 66_000, 200_000] {
        let mut plain = Vec::new();
        for round in 0..4 {
            plain.extend(std::iter::repeat_n([round, 9, 7], gap).flatten());
            plain.extend_from_slice(&text[..90 << 9 << (round % 2)]);
        }
        let stored = compressor(5, DeflateWindow::Kib4).compress(&plain).unwrap().to_vec();
        assert!(inflate(&stored).bytes == plain);
    }
}

/// What zlib makes at level 6 with a window of 4 KiB, as `qemu-img convert -c` does.
fn zlib_size(cluster: &[u8]) -> usize {
    let script = "import sys, zlib
z = zlib.compressobj(6, zlib.DEFLATED, -12)
print(len(z.compress(sys.stdin.buffer.read()) + z.flush()))";
    let mut python = Command::new("python3")
        .args(["-c", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("this test needs python3 (Debian package python3), for its binding of zlib");
    python.stdin.take().expect("a pipe").write_all(cluster).expect("python reads");
    let output = python.wait_with_output().expect("python ends");
    String::from_utf8_lossy(&output.stdout).trim().parse().expect("a number")
}

#[test]
fn bytes_after_the_stream_do_not_matter() {
    let mut decompressor = Decompressor::new(Algorithm::Deflate);
    let plain = support::text(64 << 10);
    let stored = compressor(5, DeflateWindow::Kib4).compress(&plain).unwrap().to_vec();
    for tail in [vec![0; 511], vec![0xFF; 511], support::random(4096)] {
        let mut back = vec![0; plain.len()];
        decompressor.decompress(&[&stored[..], &tail].concat(), &mut back).unwrap();
        assert!(back == plain);
    }
}

#[test]
fn a_stream_may_go_on_past_the_cluster_or_have_no_end() {
    let mut decompressor = Decompressor::new(Algorithm::Deflate);
    let plain = support::text(64 << 10);
    let stored = compressor(5, DeflateWindow::Kib4).compress(&plain).unwrap().to_vec();
    // 13 and 40001 end amid a match or a run of literals as it happens.
    for length in [0, 1, 13, 4096, 40_001, plain.len() - 1] {
        let mut back = vec![0; length];
        decompressor.decompress(&stored, &mut back).unwrap();
        assert!(back == plain[..length], "{length}");
    }
    // A fixed block of "aaaa" without an end of block, and no final block.
    let mut back = [0; 2];
    decompressor.decompress(&[0x4A, 0x4C, 0x4C, 0x4C, 0x04], &mut back).unwrap();
    assert_eq!(&back, b"aa");
}

#[test]
fn damage_is_an_error() {
    let mut decompressor = Decompressor::new(Algorithm::Deflate);
    let plain = support::mixed(8 << 10);
    let stored = compressor(5, DeflateWindow::Kib4).compress(&plain).unwrap().to_vec();
    let mut back = vec![0; plain.len()];
    // In the last three bytes may be no more than the end of the block, which is not missed.
    for length in 0..stored.len() - 3 {
        let error = decompressor.decompress(&stored[..length], &mut back).unwrap_err();
        assert_eq!(error.kind(), Kind::Corrupt, "{length}: {error}");
    }
    let mut longer = vec![0; plain.len() + 1];
    let error = decompressor.decompress(&stored, &mut longer).unwrap_err();
    assert_eq!(error.to_string(), "the deflate stream ends after 8192 of 8193 bytes");

    // The decompressor is none the worse for it.
    decompressor.decompress(&stored, &mut back).unwrap();
    assert!(back == plain);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn round_trip(
        words in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..20), 1..20),
        picks in prop::collection::vec(any::<prop::sample::Index>(), 1..3000),
        level in 1..=9_u8,
        far in any::<bool>(),
    ) {
        let plain: Vec<u8> = picks.iter().flat_map(|pick| pick.get(&words).clone()).collect();
        let window = if far { DeflateWindow::Kib32 } else { DeflateWindow::Kib4 };
        if let Some(stored) = compressor(level, window).compress(&plain) {
            prop_assert!(stored.len() < plain.len());
            let mut back = vec![0; plain.len()];
            Decompressor::new(Algorithm::Deflate).decompress(stored, &mut back).unwrap();
            prop_assert!(back == plain);
            let inflated = inflate(stored);
            prop_assert!(inflated.bytes == plain && inflated.distance_max <= window.bytes());
        }
    }

    #[test]
    fn garbage_never_panics(garbage in prop::collection::vec(any::<u8>(), 0..2000), length in 0..9000_usize) {
        let mut back = vec![0; length];
        let _ = Decompressor::new(Algorithm::Deflate).decompress(&garbage, &mut back);
    }

    #[test]
    fn flipped_bits_never_panic(at in 0..3000_usize, bit in 0..8_u32) {
        let plain = support::text(16 << 10);
        let mut stored = compressor(5, DeflateWindow::Kib4).compress(&plain).unwrap().to_vec();
        let at = at % stored.len();
        stored[at] ^= 1_u8 << bit;
        let mut back = vec![0; plain.len()];
        let _ = Decompressor::new(Algorithm::Deflate).decompress(&stored, &mut back);
    }
}
