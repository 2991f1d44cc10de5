use super::*;
use crate::{Cipher, HashAlgorithm, IvGenerator, Mode};

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    digits
        .chunks(2)
        .map(|c| u8::from_str_radix(std::str::from_utf8(c).unwrap(), 16).unwrap())
        .collect()
}

fn spec(cipher: Cipher, mode: Mode, iv: IvGenerator) -> CipherSpec {
    let iv_hash = (iv == IvGenerator::Essiv).then_some(HashAlgorithm::Sha256);
    CipherSpec { cipher, mode, iv, iv_hash }
}

/// IEEE 1619-2007, annex B, vectors 4, 10 and 11: data units of 512 bytes.
#[test]
fn ieee_1619() {
    let counting: Vec<u8> = (0..=255).chain(0..=255).collect();
    let vectors = [
        (
            Cipher::Aes128,
            "27182818284590452353602874713526 31415926535897932384626433832795",
            0,
            "27a7479befa1d476489f308cd4cfa6e2",
        ),
        (
            Cipher::Aes256,
            "2718281828459045235360287471352662497757247093699959574966967627
             3141592653589793238462643383279502884197169399375105820974944592",
            0xff,
            "1c3b3a102f770386e4836c99e370cf9b",
        ),
        (
            Cipher::Aes256,
            "2718281828459045235360287471352662497757247093699959574966967627
             3141592653589793238462643383279502884197169399375105820974944592",
            0xffff,
            "77a31251618a15e6b92d1d66dffe7b50",
        ),
    ];
    for (cipher, key, sector, start) in vectors {
        let spec = spec(cipher, Mode::Xts, IvGenerator::Plain64);
        let cipher = SectorCipher::new(&spec, &bytes(key)).unwrap();
        let mut data = counting.clone();
        cipher.encrypt(sector, &mut data);
        assert_eq!(data[..16], bytes(start), "{spec:?}");
        cipher.decrypt(sector, &mut data);
        assert_eq!(data, counting);
    }
}

/// Against OpenSSL: the IV is the sector number under AES-256 with the SHA-256 of the key.
#[test]
fn cbc_essiv() {
    let spec = spec(Cipher::Aes128, Mode::Cbc, IvGenerator::Essiv);
    let key = bytes("000102030405060708090a0b0c0d0e0f");
    let mut data: Vec<u8> = (0..=255).chain(0..=255).collect();
    SectorCipher::new(&spec, &key).unwrap().encrypt(0x3039, &mut data);
    assert_eq!(data[..16], bytes("5fa6312de97f494710ed71fe4e920f8c"));
    assert_eq!(data[496..], bytes("a63bd98d5f6545579246eea82e9c9306"));
}

/// Many sectors at once are the same as one at a time, and decryption undoes encryption.
#[test]
fn batches_are_sectors() {
    for cipher in Cipher::ALL {
        for mode in Mode::ALL {
            for iv in IvGenerator::ALL {
                let spec = spec(cipher, mode, iv);
                if spec.check().is_err() {
                    continue;
                }
                let key: Vec<u8> = (1..=spec.key_bytes() as u8).collect();
                let cipher = SectorCipher::new(&spec, &key).unwrap();
                let plain: Vec<u8> = (0..37 * 512).map(|n| (n * 7 / 3) as u8).collect();
                let first = 0xffff_fff0;
                let mut whole = plain.clone();
                cipher.encrypt(first, &mut whole);
                let mut single = plain.clone();
                for (n, sector) in single.chunks_mut(512).enumerate() {
                    cipher.encrypt(first + n as u64, sector);
                }
                assert!(whole == single, "{spec:?}");
                assert!(whole != plain);
                cipher.decrypt(first, &mut whole);
                assert!(whole == plain, "{spec:?}");
                for (n, sector) in single.chunks_mut(512).enumerate() {
                    cipher.decrypt(first + n as u64, sector);
                }
                assert!(single == plain, "{spec:?}");
            }
        }
    }
}

#[test]
fn wide_sectors_count_in_512() {
    let key: Vec<u8> = (0..64).collect();
    let spec = CipherSpec::default();
    let wide = SectorCipher::with_sector_bytes(&spec, &key, 4096).unwrap();
    let mut data = vec![3; 8192];
    wide.encrypt(16, &mut data);
    let mut second = vec![3; 4096];
    wide.encrypt(24, &mut second);
    assert_eq!(data[4096..], second);
    let narrow = SectorCipher::new(&spec, &key).unwrap();
    let mut start = vec![3; 512];
    narrow.encrypt(24, &mut start);
    assert_eq!(second[..512], start);
}

#[test]
fn wrong_keys_and_sizes_are_refused() {
    let spec = CipherSpec::default();
    assert!(SectorCipher::new(&spec, &[0; 63]).is_err());
    assert!(SectorCipher::new(&spec, &[0; 32]).is_err());
    assert!(SectorCipher::with_sector_bytes(&spec, &[0; 64], 1000).is_err());
    let cast = CipherSpec { cipher: Cipher::Cast5, ..spec };
    assert!(SectorCipher::new(&cast, &[0; 32]).is_err());
}

#[test]
fn shows_no_key() {
    let cipher = SectorCipher::new(&CipherSpec::default(), &[0xab; 64]).unwrap();
    assert!(!format!("{cipher:?}").contains("171"));
}

/// Not a test of speed: prints it. Run with `--release -- --nocapture` to see figures.
#[test]
fn throughput() {
    let size = if cfg!(debug_assertions) { 1 << 18 } else { 64 << 20 };
    let mut data = vec![1; 1 << 18];
    for (cipher, mode) in [
        (Cipher::Aes256, Mode::Xts),
        (Cipher::Aes128, Mode::Xts),
        (Cipher::Aes128, Mode::Cbc),
        (Cipher::Serpent256, Mode::Xts),
        (Cipher::Twofish256, Mode::Xts),
    ] {
        let spec = spec(cipher, mode, IvGenerator::Plain64);
        let cipher = SectorCipher::new(&spec, &vec![7; spec.key_bytes()]).unwrap();
        for (name, encrypt) in [("encrypt", true), ("decrypt", false)] {
            let start = std::time::Instant::now();
            for n in 0..size / data.len() as u64 {
                if encrypt { cipher.encrypt(n, &mut data) } else { cipher.decrypt(n, &mut data) }
            }
            let speed = size as f64 / start.elapsed().as_secs_f64() / 1e6;
            println!("{name} {:?} {:?}: {speed:.0} MB/s", spec.cipher, spec.mode);
        }
    }
}
