//! The encryption of qcow, and of qcow2 before LUKS (crypt method 1).

use disksmith_disk::Result;

use crate::{Cipher, CipherSpec, IvGenerator, Mode, Secret, SectorCipher};

/// The cipher of crypt method 1: AES-128 in CBC, the first 16 bytes of the password as the key
/// (filled up with zeroes), the guest's 512-byte sector number as IV.
///
/// There is nothing to check a password against: a wrong one gives a cipher that decrypts to
/// noise.
pub fn legacy_aes(password: &[u8]) -> Result<SectorCipher> {
    let spec = CipherSpec {
        cipher: Cipher::Aes128,
        mode: Mode::Cbc,
        iv: IvGenerator::Plain64,
        iv_hash: None,
    };
    let mut key = Secret::zeroed(spec.key_bytes());
    for (target, byte) in key.bytes_mut().iter_mut().zip(password) {
        *target = *byte;
    }
    SectorCipher::new(&spec, key.bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sixteen_bytes_count() {
        let crypt = |password: &[u8]| {
            let mut data = [7; 1024];
            legacy_aes(password).unwrap().encrypt(5, &mut data);
            data
        };
        assert_eq!(crypt(b"0123456789abcdefX"), crypt(b"0123456789abcdefY"));
        assert_eq!(crypt(b"short"), crypt(b"short\0\0"));
        assert_ne!(crypt(b"short"), crypt(b"shorT"));
    }
}
