//! Every size of small cluster, and some large ones, come back as they were.

use disksmith_codec::{Algorithm, Compressor, Decompressor, Options};

#[test]
fn round_trip() {
    let text = include_bytes!("../src/deflate/block.rs");
    let sizes = (0..600).chain([4096, 65_536, 65_537, 70_000, 2 << 20]);
    for algorithm in [Algorithm::Deflate, Algorithm::Zstd] {
        let mut compressor = Compressor::new(algorithm, Options::default());
        let mut decompressor = Decompressor::new(algorithm);
        for size in sizes.clone() {
            let cluster: Vec<u8> = text.iter().copied().cycle().take(size).collect();
            if let Some(stored) = compressor.compress(&cluster) {
                assert!(stored.len() < size);
                let mut back = vec![0; size];
                decompressor.decompress(stored, &mut back).unwrap();
                assert!(back == cluster, "{algorithm:?} {size}");
            } else {
                assert!(size < 300, "{size} does not shrink");
            }
        }
    }
}
