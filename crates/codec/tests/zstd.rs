//! Zstd frames: what comes back, and what is refused.

mod support;

use disksmith_codec::{Algorithm, Compressor, Decompressor, Options};
use disksmith_disk::Kind;
use proptest::prelude::*;

fn compress(plain: &[u8]) -> Option<Vec<u8>> {
    let mut compressor = Compressor::new(Algorithm::Zstd, Options::default());
    compressor.compress(plain).map(<[u8]>::to_vec)
}

/// A frame of any plain bytes, even if it is longer than they.
fn frame(plain: &[u8]) -> Vec<u8> {
    zstd::bulk::compress(plain, 3).expect("any bytes make a frame")
}

fn decompress(input: &[u8], length: usize) -> disksmith_disk::Result<Vec<u8>> {
    let mut back = vec![0; length];
    Decompressor::new(Algorithm::Zstd).decompress(input, &mut back)?;
    Ok(back)
}

#[test]
fn every_frame_comes_back_and_is_smaller() {
    let mut compressor = Compressor::new(Algorithm::Zstd, Options::default());
    let mut decompressor = Decompressor::new(Algorithm::Zstd);
    for (name, plain) in support::corpus() {
        if let Some(stored) = compressor.compress(&plain) {
            assert!(stored.len() < plain.len(), "{name}");
            let mut back = vec![0; plain.len()];
            decompressor.decompress(stored, &mut back).unwrap();
            assert!(back == plain, "{name}");
            assert!(zstd::decode_all(stored).unwrap() == plain, "{name}");
            let fresh = compress(&plain).unwrap();
            assert!(compressor.compress(&plain) == Some(&fresh), "{name} depends on the past");
        }
    }
    for size in [0, 1, 100, 4096, 2 << 20] {
        assert!(compressor.compress(&support::random(size)).is_none(), "{size}");
    }
}

#[test]
fn size_is_about_that_of_level_3() {
    for plain in [support::text(64 << 10), support::elf(1 << 20)] {
        let (mut ours, mut level_3) = (0, 0);
        for cluster in plain.chunks(64 << 10) {
            ours += compress(cluster).map_or(cluster.len(), |stored| stored.len());
            level_3 += frame(cluster).len().min(cluster.len());
        }
        // One cluster is little: the text is this crate's source, and its share moves by some
        // tenths of a per cent when that changes.
        assert!(ours * 100 <= level_3 * 105, "{ours} bytes, level 3 {level_3}");
    }
}

#[test]
fn several_frames_fill_a_cluster() {
    let plain = support::text(64 << 10);
    let (first, second) = plain.split_at(10_000);
    let skippable = [&[0x50, 0x2A, 0x4D, 0x18, 3, 0, 0, 0][..], b"any"].concat();
    let tail = support::random(700);
    let input = [frame(first), skippable, frame(&[]), frame(second), tail].concat();
    assert!(decompress(&input, plain.len()).unwrap() == plain);
    // The cluster is full after the first frame: nothing else is looked at.
    assert!(decompress(&input, first.len()).unwrap() == first);
    assert_eq!(decompress(&[1, 2, 3], 0).unwrap(), []);
}

#[test]
fn a_frame_without_a_content_size_comes_back() {
    let plain = support::text(64 << 10);
    let mut encoder = zstd::Encoder::new(Vec::new(), 3).unwrap();
    std::io::Write::write_all(&mut encoder, &plain).unwrap();
    assert!(decompress(&encoder.finish().unwrap(), plain.len()).unwrap() == plain);
}

#[test]
fn damage_is_an_error() {
    let plain = support::mixed(8 << 10);
    let whole = frame(&plain);
    for length in 0..whole.len() {
        let error = decompress(&whole[..length], plain.len()).unwrap_err();
        assert_eq!(error.kind(), Kind::Corrupt, "{length}: {error}");
    }
    let past_the_end = decompress(&whole, plain.len() - 1).unwrap_err();
    assert_eq!(past_the_end.kind(), Kind::Corrupt, "{past_the_end}");
    let too_short = decompress(&whole, plain.len() + 1).unwrap_err();
    assert_eq!(too_short.to_string(), "the zstd frames end after 8192 of 8193 bytes");
    let unrelated = [whole, vec![0xA5; 512]].concat();
    assert!(decompress(&unrelated, plain.len() + 1).is_err());
}

#[test]
fn a_frame_cannot_ask_for_memory() {
    // A header that declares a window of 3.75 TiB, and one that declares a content of 2^63.
    let window = [0x28, 0xB5, 0x2F, 0xFD, 0x00, 0xFF, 0x01, 0x00, 0x00];
    let content = [0x28, 0xB5, 0x2F, 0xFD, 0xE0, 0, 0, 0, 0, 0, 0, 0, 0x80, 0x01, 0x00, 0x00];
    assert_eq!(decompress(&window, 4096).unwrap_err().kind(), Kind::Corrupt);
    assert_eq!(decompress(&content, 4096).unwrap_err().kind(), Kind::Corrupt);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn round_trip(
        words in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..20), 1..20),
        picks in prop::collection::vec(any::<prop::sample::Index>(), 1..3000),
    ) {
        let plain: Vec<u8> = picks.iter().flat_map(|pick| pick.get(&words).clone()).collect();
        if let Some(stored) = compress(&plain) {
            prop_assert!(stored.len() < plain.len());
            prop_assert!(decompress(&stored, plain.len()).unwrap() == plain);
        }
    }

    #[test]
    fn garbage_never_panics(garbage in prop::collection::vec(any::<u8>(), 0..2000), length in 0..9000_usize) {
        let _ = decompress(&garbage, length);
        let magic = [&[0x28, 0xB5, 0x2F, 0xFD][..], &garbage].concat();
        let _ = decompress(&magic, length);
    }

    #[test]
    fn flipped_bits_never_panic(at in 0..3000_usize, bit in 0..8_u32) {
        let plain = support::text(16 << 10);
        let mut stored = compress(&plain).unwrap();
        let at = at % stored.len();
        stored[at] ^= 1_u8 << bit;
        let _ = decompress(&stored, plain.len());
    }
}
