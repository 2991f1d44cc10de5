//! What the tests of this crate share: data of many sorts.

// Each test program takes what it needs.
#![allow(dead_code)]

pub(crate) mod inflate;

use std::sync::OnceLock;

/// Numbers that look random and are the same in each run (xorshift64).
pub(crate) struct Numbers(u64);

impl Numbers {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// Bytes that no compressor shrinks.
pub(crate) fn random(length: usize) -> Vec<u8> {
    let mut numbers = Numbers::new(0x5EED);
    (0..length).map(|_| (numbers.next() >> 32) as u8).collect()
}

/// English and Rust, repeated until it is long enough.
pub(crate) fn text(length: usize) -> Vec<u8> {
    let source = [
        include_str!("../../src/lib.rs"),
        include_str!("../../src/deflate/block.rs"),
        include_str!("../../src/deflate/matchfinder.rs"),
        include_str!("../../src/zstd.rs"),
    ];
    source.concat().into_bytes().into_iter().cycle().take(length).collect()
}

/// The front of this very program.
pub(crate) fn elf(length: usize) -> Vec<u8> {
    static PROGRAM: OnceLock<Vec<u8>> = OnceLock::new();
    let program = PROGRAM.get_or_init(|| {
        let path = std::env::current_exe().expect("a test program has a path");
        std::fs::read(path).expect("a test program can be read")
    });
    program.get(..length).expect("the test program is longer").to_vec()
}

/// Random bytes that come again after `period`.
pub(crate) fn periodic(period: usize, length: usize) -> Vec<u8> {
    random(period).into_iter().cycle().take(length).collect()
}

/// Copies of earlier bytes, at all distances and of all lengths, among fresh ones.
pub(crate) fn copies(length: usize) -> Vec<u8> {
    let mut numbers = Numbers::new(7);
    let mut bytes = random(16);
    while bytes.len() < length {
        let distance = 1 + numbers.next() as usize % bytes.len().min(70_000);
        let count = 1 + numbers.next() as usize % 300;
        for _ in 0..count {
            bytes.push(bytes[bytes.len() - distance]);
        }
        for _ in 0..numbers.next() % 8 {
            bytes.push(numbers.next() as u8);
        }
    }
    bytes.truncate(length);
    bytes
}

/// Text, random bytes, zeros and text again: every sort of block in one cluster.
pub(crate) fn mixed(length: usize) -> Vec<u8> {
    let part = length / 4;
    let mut bytes = text(part);
    bytes.extend(random(part));
    bytes.resize(3 * part, 0);
    bytes.extend(text(length - 3 * part));
    bytes
}

/// Symbol counts as steep as they get, for the longest codes.
pub(crate) fn steep(length: usize) -> Vec<u8> {
    let mut numbers = Numbers::new(3);
    (0..length).map(|_| numbers.next().trailing_zeros() as u8 * 5 + 1).collect()
}

/// Clusters of all sorts and sizes, with a name for messages.
pub(crate) fn corpus() -> Vec<(String, Vec<u8>)> {
    let mut corpus = Vec::new();
    for size in [512, 4096, 16 << 10, 64 << 10, 64 << 10 | 1, 200_000, 2 << 20] {
        for (name, make) in [
            ("text", text as fn(usize) -> Vec<u8>),
            ("elf", elf),
            ("random", random),
            ("zeros", |length| vec![0; length]),
            ("copies", copies),
            ("mixed", mixed),
            ("steep", steep),
        ] {
            corpus.push((format!("{name} {size}"), make(size)));
        }
    }
    for period in [1, 2, 3, 4, 5, 7, 8, 9, 255, 257, 4095, 4096, 4097, 4100, 32_768, 32_769] {
        corpus.push((format!("period {period}"), periodic(period, 128 << 10)));
    }
    for size in 1..=600 {
        corpus.push((format!("text {size}"), text(size)));
        corpus.push((format!("elf {size}"), elf(64 + size).split_off(64)));
        corpus.push((format!("zeros {size}"), vec![0; size]));
        corpus.push((format!("random {size}"), random(size)));
        corpus.push((format!("period 3 of {size}"), periodic(3, size)));
        corpus.push((format!("bytes above 143 of {size}"), vec![0xE5; size]));
    }
    corpus
}
