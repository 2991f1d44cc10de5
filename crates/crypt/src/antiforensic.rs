//! The anti-forensic splitter of LUKS: a key is spread over thousands of stripes so that it is
//! gone as soon as any one of them is.

use disksmith_disk::Result;

use crate::secret::fill_random;
use crate::{HashAlgorithm, Secret};

/// Spreads `key` over `stripes` stripes of the key's length.
pub(crate) fn split(hash: HashAlgorithm, key: &[u8], stripes: usize) -> Result<Secret> {
    let mut material = Secret::zeroed(key.len().saturating_mul(stripes));
    let body = key.len().saturating_mul(stripes.saturating_sub(1));
    let (random, last) = material.bytes_mut().split_at_mut(body);
    fill_random(random)?;
    let state = fold(hash, random, key.len());
    for ((target, key), state) in last.iter_mut().zip(key).zip(state.bytes()) {
        *target = key ^ state;
    }
    Ok(material)
}

/// Gets the key of `key_bytes` back from its stripes.
pub(crate) fn merge(hash: HashAlgorithm, material: &[u8], key_bytes: usize) -> Secret {
    let (random, last) = material.split_at(material.len().saturating_sub(key_bytes));
    let mut key = fold(hash, random, key_bytes);
    xor(key.bytes_mut(), last);
    key
}

/// What all stripes but the last come to.
fn fold(hash: HashAlgorithm, stripes: &[u8], key_bytes: usize) -> Secret {
    let mut state = Secret::zeroed(key_bytes);
    for stripe in stripes.chunks_exact(key_bytes.max(1)) {
        xor(state.bytes_mut(), stripe);
        diffuse(hash, state.bytes_mut());
    }
    state
}

/// Hashes each digest-sized piece with its number in front.
fn diffuse(hash: HashAlgorithm, state: &mut [u8]) {
    for (n, piece) in (0u32..).zip(state.chunks_mut(hash.digest_bytes())) {
        let digest = hash.digest(&[&n.to_be_bytes(), piece]);
        let length = piece.len();
        piece.copy_from_slice(&digest[..length]);
    }
}

fn xor(target: &mut [u8], with: &[u8]) {
    for (a, b) in target.iter_mut().zip(with) {
        *a ^= b;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        for hash in HashAlgorithm::ALL {
            for length in [16, 24, 32, 64] {
                let key: Vec<u8> = (0..length as u8).collect();
                let material = split(hash, &key, 50).unwrap();
                assert_eq!(material.bytes().len(), 50 * length);
                assert_eq!(merge(hash, material.bytes(), length).bytes(), key);
            }
        }
    }
}
