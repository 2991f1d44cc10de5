//! Initialization vectors from sector numbers.

use cipher::array::Array;
use cipher::consts::{U8, U16};
use cipher::{Block, BlockCipherEncrypt, KeyInit};
use disksmith_disk::Result;

use crate::modes::{bad_key, with_cipher};
use crate::{CipherSpec, IvGenerator, Secret};

/// One IV; ciphers of 8-byte blocks use the first half.
pub(crate) type Iv = [u8; 16];

/// Makes IVs of one volume.
pub(crate) enum IvMaker {
    Plain,
    Plain64,
    Essiv(Box<dyn EncryptIvs>),
}

impl IvMaker {
    pub(crate) fn new(spec: &CipherSpec, key: &[u8]) -> Result<Self> {
        match spec.iv {
            IvGenerator::Plain => Ok(Self::Plain),
            IvGenerator::Plain64 => Ok(Self::Plain64),
            IvGenerator::Essiv => {
                let (cipher, hash) = spec.essiv_cipher()?;
                let salt = Secret::from(hash.digest(&[key]));
                Ok(Self::Essiv(with_cipher!(cipher, C => Box::new(Essiv(
                    C::new_from_slice(salt.bytes()).map_err(bad_key)?,
                )))))
            }
        }
    }

    /// Fills `ivs` for sectors `first`, `first + step` …
    pub(crate) fn fill(&self, first: u64, step: u64, ivs: &mut [Iv]) {
        let mut sector = first;
        for iv in ivs.iter_mut() {
            let number = if matches!(self, Self::Plain) { sector & 0xffff_ffff } else { sector };
            *iv = u128::from(number).to_le_bytes();
            sector = sector.wrapping_add(step);
        }
        if let Self::Essiv(cipher) = self {
            cipher.encrypt_ivs(ivs);
        }
    }
}

/// A cipher keyed for ESSIV.
pub(crate) trait EncryptIvs: Send + Sync {
    fn encrypt_ivs(&self, ivs: &mut [Iv]);
}

struct Essiv<C>(C);

impl<C> EncryptIvs for Essiv<C>
where
    C: BlockCipherEncrypt + Send + Sync,
    C::BlockSize: IvBlocks<C>,
{
    fn encrypt_ivs(&self, ivs: &mut [Iv]) {
        C::BlockSize::encrypt(&self.0, ivs);
    }
}

/// Encrypts IVs with ciphers of one block size.
pub(crate) trait IvBlocks<C: BlockCipherEncrypt> {
    fn encrypt(cipher: &C, ivs: &mut [Iv]);
}

impl<C: BlockCipherEncrypt<BlockSize = U16>> IvBlocks<C> for U16 {
    fn encrypt(cipher: &C, ivs: &mut [Iv]) {
        cipher.encrypt_blocks(Array::cast_slice_from_core_mut(ivs));
    }
}

impl<C: BlockCipherEncrypt<BlockSize = U8>> IvBlocks<C> for U8 {
    fn encrypt(cipher: &C, ivs: &mut [Iv]) {
        for iv in ivs {
            let (blocks, _) = Block::<C>::slice_as_chunks_mut(iv);
            cipher.encrypt_blocks(&mut blocks[..1]);
        }
    }
}
