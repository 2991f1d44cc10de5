//! Prints speed and size of each algorithm for a file: `rate FILE [CLUSTER-KIB]`.
//!
//! The file is cut into clusters of 64 KiB, or as many KiB as the second argument says; a
//! cluster that does not shrink counts with its own size, as a format would store it.

use std::time::{Duration, Instant};

use disksmith_codec::{Algorithm, Compressor, Decompressor, DeflateWindow, Options};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().ok_or("usage: rate FILE [CLUSTER-KIB]")?;
    let kib: usize = arguments.next().map_or(Ok(64), |kib| kib.parse())?;
    let data = std::fs::read(path)?;
    println!("{:<22} {:>9} {:>9} {:>7} {:>6}", "", "MB/s in", "MB/s out", "ratio", "raw");
    for level in [1, 3, 6, 9] {
        for window in [DeflateWindow::Kib4, DeflateWindow::Kib32] {
            let options = Options { level: Some(level), deflate_window: window };
            let name = format!("deflate-{level} {}k", window.bytes() >> 10);
            measure(&name, Algorithm::Deflate, options, &data, kib << 10)?;
        }
    }
    for level in [1, 2, 3] {
        let options = Options { level: Some(level), ..Options::default() };
        measure(&format!("zstd-{level}"), Algorithm::Zstd, options, &data, kib << 10)?;
    }
    Ok(())
}

fn measure(
    name: &str,
    algorithm: Algorithm,
    options: Options,
    data: &[u8],
    cluster_size: usize,
) -> Result<(), Box<dyn std::error::Error>> {
    let mut compressor = Compressor::new(algorithm, options);
    let mut decompressor = Decompressor::new(algorithm);
    let mut back = vec![0; cluster_size];
    let (mut in_time, mut out_time) = (Duration::ZERO, Duration::ZERO);
    let (mut total, mut raw, mut shrunk) = (0, 0, 0);
    for cluster in data.chunks(cluster_size) {
        let start = Instant::now();
        let stored = compressor.compress(cluster);
        in_time += start.elapsed();
        total += stored.map_or(cluster.len(), <[u8]>::len);
        let Some(stored) = stored else {
            raw += 1;
            continue;
        };
        let back = back.get_mut(..cluster.len()).ok_or("cluster too long")?;
        let start = Instant::now();
        decompressor.decompress(stored, back)?;
        out_time += start.elapsed();
        shrunk += cluster.len();
        if back != cluster {
            return Err(format!("{name}: the cluster came back changed").into());
        }
    }
    println!(
        "{name:<22} {:>9.1} {:>9.1} {:>7.4} {raw:>6}",
        data.len() as f64 / 1e6 / in_time.as_secs_f64(),
        shrunk as f64 / 1e6 / out_time.as_secs_f64(),
        total as f64 / data.len() as f64,
    );
    Ok(())
}
