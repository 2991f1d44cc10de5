//! PBKDF2 (RFC 8018) and how many of its iterations fit a time.

use std::thread;
use std::time::{Duration, Instant};

use disksmith_disk::{Error, Kind, Result};
use hmac::{EagerHash, Hmac, KeyInit, Mac};
use zeroize::Zeroize;

use crate::HashAlgorithm;
use crate::hash::with_hash;

/// The fewest iterations of a new key slot, as QEMU and cryptsetup have it.
pub(crate) const MIN_ITERATIONS: u32 = 1000;

/// Below this many iterations a thread costs more than it saves.
const THREAD_ITERATIONS: u32 = 20_000;

/// Fills `key` with PBKDF2-HMAC of `password`. Blocks of the result are computed in parallel
/// when there are many iterations.
pub fn pbkdf2(
    hash: HashAlgorithm,
    password: &[u8],
    salt: &[u8],
    iterations: u32,
    key: &mut [u8],
) -> Result<()> {
    let parallel = iterations >= THREAD_ITERATIONS && key.len() > hash.digest_bytes();
    with_hash!(hash, H => derive::<H>(password, salt, iterations, key, parallel))
}

fn derive<H: EagerHash>(
    password: &[u8],
    salt: &[u8],
    iterations: u32,
    key: &mut [u8],
    parallel: bool,
) -> Result<()>
where
    Hmac<H>: Sync,
{
    let keyed = Hmac::<H>::new_from_slice(password)
        .map_err(|_| Error::new(Kind::InvalidInput, "The password cannot be used as a key"))?;
    let size = <H as sha2::digest::OutputSizeUser>::output_size();
    if !parallel || !fill_in_threads(&keyed, salt, iterations, key.chunks_mut(size)) {
        for (n, block) in (1u32..).zip(key.chunks_mut(size)) {
            fill_block(&keyed, salt, iterations, n, block);
        }
    }
    Ok(())
}

/// One thread per block. False if the system gives no threads: some blocks are not filled then.
fn fill_in_threads<'a, H: EagerHash>(
    keyed: &Hmac<H>,
    salt: &[u8],
    iterations: u32,
    blocks: impl Iterator<Item = &'a mut [u8]>,
) -> bool
where
    Hmac<H>: Sync,
{
    thread::scope(|scope| {
        (1u32..).zip(blocks).all(|(n, block)| {
            let work = move || fill_block(keyed, salt, iterations, n, block);
            thread::Builder::new().spawn_scoped(scope, work).is_ok()
        })
    })
}

/// Block `number` (from 1) of the result.
fn fill_block<H: EagerHash>(
    keyed: &Hmac<H>,
    salt: &[u8],
    iterations: u32,
    number: u32,
    block: &mut [u8],
) {
    let mut mac = keyed.clone();
    mac.update(salt);
    mac.update(&number.to_be_bytes());
    let mut round = mac.finalize().into_bytes();
    let mut sum = round.clone();
    for _ in 1..iterations {
        let mut mac = keyed.clone();
        mac.update(&round);
        round = mac.finalize().into_bytes();
        for (a, b) in sum.iter_mut().zip(&round) {
            *a ^= b;
        }
    }
    let length = block.len();
    block.copy_from_slice(&sum[..length]);
    sum.as_mut_slice().zeroize();
    round.as_mut_slice().zeroize();
}

/// How many iterations of PBKDF2 for a key of `key_bytes` take `time` on one core of this
/// machine: at least 1000. Measures for a tenth of a second at most.
pub fn iterations_for(hash: HashAlgorithm, key_bytes: usize, time: Duration) -> Result<u32> {
    // The fastest of several runs: other work on the machine only ever slows one down, and a
    // count taken from a slow run would make a weak slot.
    const RUNS: u32 = 3;
    let enough = (time / 4).clamp(Duration::from_millis(1), Duration::from_millis(25));
    let mut key = vec![0; key_bytes.clamp(1, 64)];
    let mut iterations = 1000u32;
    let mut best = f64::INFINITY;
    let mut runs = 0;
    while runs < RUNS {
        let start = Instant::now();
        with_hash!(hash, H => derive::<H>(b"password", b"salt", iterations, &mut key, false))?;
        let taken = start.elapsed();
        if taken < enough && iterations < 1 << 24 {
            iterations = iterations.saturating_mul(2);
            continue;
        }
        best = best.min(taken.as_secs_f64() / f64::from(iterations));
        runs += 1;
    }
    let count = time.as_secs_f64() / best.max(1e-12);
    Ok((count.min(f64::from(u32::MAX)) as u32).max(MIN_ITERATIONS))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }

    #[test]
    fn rfc_6070() {
        let mut key = [0; 20];
        pbkdf2(HashAlgorithm::Sha1, b"password", b"salt", 4096, &mut key).unwrap();
        assert_eq!(hex(&key), "4b007901b765489abead49d926f721d065a429c1");
        let mut key = [0; 25];
        let (password, salt) =
            (b"passwordPASSWORDpassword", b"saltSALTsaltSALTsaltSALTsaltSALTsalt");
        pbkdf2(HashAlgorithm::Sha1, password, salt, 4096, &mut key).unwrap();
        assert_eq!(hex(&key), "3d2eec4fe41c849b80c8d83662c0e44a8b291a964cf2f07038");
    }

    #[test]
    fn rfc_7914() {
        let mut key = [0; 64];
        pbkdf2(HashAlgorithm::Sha256, b"passwd", b"salt", 1, &mut key).unwrap();
        assert!(hex(&key).starts_with("55ac046e56e3089fec1691c22544b605f94185216dde0465e68b9d57"));
    }

    #[test]
    fn threads_do_not_change_the_result() {
        for hash in HashAlgorithm::ALL {
            let (mut one, mut many) = ([0; 70], [0; 70]);
            with_hash!(hash, H => derive::<H>(b"p", b"s", 50, &mut one, false)).unwrap();
            with_hash!(hash, H => derive::<H>(b"p", b"s", 50, &mut many, true)).unwrap();
            assert_eq!(one, many);
        }
    }

    /// Not a test of speed: prints it.
    #[test]
    fn iterations_per_second() {
        for hash in HashAlgorithm::ALL {
            let count = iterations_for(hash, hash.digest_bytes(), Duration::from_secs(1)).unwrap();
            println!("{}: {count} iterations per second and block", hash.name());
        }
    }

    #[test]
    fn counts_grow_with_time() {
        let few = iterations_for(HashAlgorithm::Sha256, 32, Duration::ZERO).unwrap();
        assert_eq!(few, 1000);
        let many = iterations_for(HashAlgorithm::Sha256, 32, Duration::from_secs(1)).unwrap();
        assert!(many > 20_000, "{many}");
    }
}
