//! Compressed clusters.

use disksmith_codec::{Algorithm, Compressor, Decompressor, Options};
use disksmith_testkit::Rng;

use crate::Target;

const CLUSTER: usize = 65536;

pub(crate) const INFLATE: Target = Target {
    name: "inflate",
    run: |data| decompress(Algorithm::Deflate, data),
    seeds: || seeds(Algorithm::Deflate),
    fields: &[],
    fix: None,
};

pub(crate) const ZSTD: Target = Target {
    name: "zstd",
    run: |data| decompress(Algorithm::Zstd, data),
    seeds: || seeds(Algorithm::Zstd),
    fields: &[],
    fix: None,
};

fn decompress(algorithm: Algorithm, data: &[u8]) {
    let mut cluster = vec![0; CLUSTER];
    drop(Decompressor::new(algorithm).decompress(data, &mut cluster));
}

fn seeds(algorithm: Algorithm) -> Vec<Vec<u8>> {
    let mut rng = Rng::new(3);
    let text: Vec<u8> =
        (0..CLUSTER).map(|_| b"disksmith makes disks\n"[rng.below(22) as usize]).collect();
    let runs: Vec<u8> = (0..CLUSTER).map(|i| (i / 1000) as u8).collect();
    let mut compressor = Compressor::new(algorithm, Options::default());
    [text, runs].iter().filter_map(|c| compressor.compress(c).map(<[u8]>::to_vec)).collect()
}
