//! The hash functions that headers may name.

use disksmith_disk::{Error, Kind, Result};
use sha2::Digest;

/// A hash function.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum HashAlgorithm {
    /// SHA-1, 20 bytes.
    Sha1,
    /// SHA-224, 28 bytes.
    Sha224,
    /// SHA-256, 32 bytes.
    Sha256,
    /// SHA-384, 48 bytes.
    Sha384,
    /// SHA-512, 64 bytes.
    Sha512,
    /// RIPEMD-160, 20 bytes.
    Ripemd160,
}

/// Runs `$body` with the type `$name` being the hash that the value stands for.
macro_rules! with_hash {
    ($hash:expr, $name:ident => $body:expr) => {
        match $hash {
            $crate::HashAlgorithm::Sha1 => {
                type $name = sha1::Sha1;
                $body
            }
            $crate::HashAlgorithm::Sha224 => {
                type $name = sha2::Sha224;
                $body
            }
            $crate::HashAlgorithm::Sha256 => {
                type $name = sha2::Sha256;
                $body
            }
            $crate::HashAlgorithm::Sha384 => {
                type $name = sha2::Sha384;
                $body
            }
            $crate::HashAlgorithm::Sha512 => {
                type $name = sha2::Sha512;
                $body
            }
            $crate::HashAlgorithm::Ripemd160 => {
                type $name = ripemd::Ripemd160;
                $body
            }
        }
    };
}
pub(crate) use with_hash;

impl HashAlgorithm {
    /// Every hash function, in the order of their names' table.
    pub const ALL: [Self; 6] =
        [Self::Ripemd160, Self::Sha1, Self::Sha224, Self::Sha256, Self::Sha384, Self::Sha512];

    /// The name in headers and options: `sha256`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sha1 => "sha1",
            Self::Sha224 => "sha224",
            Self::Sha256 => "sha256",
            Self::Sha384 => "sha384",
            Self::Sha512 => "sha512",
            Self::Ripemd160 => "ripemd160",
        }
    }

    /// The hash function of that name; an error of kind `Unsupported` if it is not known.
    pub fn from_name(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|h| h.name() == name).ok_or_else(|| {
            Error::new(Kind::Unsupported, format!("Hash algorithm '{name}' not supported"))
        })
    }

    /// Bytes of its result.
    pub fn digest_bytes(self) -> usize {
        with_hash!(self, H => <H as Digest>::output_size())
    }

    /// The hash of `parts`, one after the other.
    pub fn digest(self, parts: &[&[u8]]) -> Vec<u8> {
        fn run<H: Digest>(parts: &[&[u8]]) -> Vec<u8> {
            let mut hash = H::new();
            for part in parts {
                hash.update(part);
            }
            hash.finalize().to_vec()
        }
        with_hash!(self, H => run::<H>(parts))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_lengths() {
        for hash in HashAlgorithm::ALL {
            assert_eq!(HashAlgorithm::from_name(hash.name()).unwrap(), hash);
            assert_eq!(hash.digest(&[b"a", b"bc"]), hash.digest(&[b"abc"]));
            assert_eq!(hash.digest(&[]).len(), hash.digest_bytes());
        }
        let error = HashAlgorithm::from_name("whirlpool").unwrap_err();
        assert_eq!(error.to_string(), "Hash algorithm 'whirlpool' not supported");
    }
}
