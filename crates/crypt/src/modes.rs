//! Chaining modes over whole sectors, many blocks at a time.
//!
//! A block cipher in hardware takes many cycles per block but starts a new block every cycle or
//! two: only batches of independent blocks use it well. XTS, CTR and decryption in CBC have
//! them within a sector; encryption in CBC has them across sectors.

use cipher::array::Array;
use cipher::consts::U16;
use cipher::{Block, BlockCipherDecrypt, BlockCipherEncrypt, BlockSizeUser, KeyInit};
use disksmith_disk::{Error, Kind, Result};

use crate::iv::Iv;
use crate::{CipherSpec, Mode};

/// Sectors handled at once, at most.
pub(crate) const LANES: usize = 32;

/// Blocks handled at once within a sector: one sector of 512 bytes in blocks of 16.
const BATCH: usize = 32;

/// A keyed cipher in some mode. `data` holds one sector of `data.len() / ivs.len()` bytes for
/// each IV; at most [`LANES`] of them. The IVs are scratch space afterwards.
pub(crate) trait SectorMode: Send + Sync {
    fn encrypt(&self, ivs: &mut [Iv], data: &mut [u8]);
    fn decrypt(&self, ivs: &mut [Iv], data: &mut [u8]);
}

/// Runs `$body` with the type `$name` being the cipher that the value stands for.
macro_rules! with_cipher {
    ($cipher:expr, $name:ident => $body:expr) => {{
        use $crate::Cipher;
        match $cipher {
            Cipher::Aes128 => {
                type $name = aes::Aes128;
                $body
            }
            Cipher::Aes192 => {
                type $name = aes::Aes192;
                $body
            }
            Cipher::Aes256 => {
                type $name = aes::Aes256;
                $body
            }
            Cipher::Cast5 => {
                type $name = cast5::Cast5;
                $body
            }
            Cipher::Serpent128 | Cipher::Serpent192 | Cipher::Serpent256 => {
                type $name = serpent::Serpent;
                $body
            }
            Cipher::Twofish128 | Cipher::Twofish192 | Cipher::Twofish256 => {
                type $name = $crate::twofish::Twofish;
                $body
            }
        }
    }};
}
pub(crate) use with_cipher;

/// The cipher of `spec` with `key`, whose length must be the one the spec asks for.
pub(crate) fn build(spec: &CipherSpec, key: &[u8]) -> Result<Box<dyn SectorMode>> {
    if key.len() != spec.key_bytes() {
        return Err(bad_key(()));
    }
    with_cipher!(spec.cipher, C => C::build(spec.mode, key))
}

/// A key whose length does not fit its cipher.
pub(crate) fn bad_key<E>(_: E) -> Error {
    Error::new(Kind::InvalidInput, "The key's length does not fit the cipher")
}

/// Ciphers, by block size: XTS exists for blocks of 16 bytes only.
trait Build: Sized {
    fn build(mode: Mode, key: &[u8]) -> Result<Box<dyn SectorMode>>;
}

macro_rules! wide {
    ($($cipher:ty),*) => {$(
        impl Build for $cipher {
            fn build(mode: Mode, key: &[u8]) -> Result<Box<dyn SectorMode>> {
                if mode != Mode::Xts {
                    return build_narrow::<Self>(mode, key);
                }
                let (data, tweak) = key.split_at(key.len() / 2);
                Ok(Box::new(Xts { data: keyed::<Self>(data)?, tweak: keyed::<Self>(tweak)? }))
            }
        }
    )*};
}
wide!(aes::Aes128, aes::Aes192, aes::Aes256, serpent::Serpent, crate::twofish::Twofish);

impl Build for cast5::Cast5 {
    fn build(mode: Mode, key: &[u8]) -> Result<Box<dyn SectorMode>> {
        build_narrow::<Self>(mode, key)
    }
}

fn build_narrow<C: FullCipher>(mode: Mode, key: &[u8]) -> Result<Box<dyn SectorMode>> {
    let cipher = keyed::<C>(key)?;
    match mode {
        Mode::Ecb => Ok(Box::new(Ecb(cipher))),
        Mode::Cbc => Ok(Box::new(Cbc(cipher))),
        Mode::Ctr => Ok(Box::new(Ctr(cipher))),
        Mode::Xts => Err(Error::new(Kind::Unsupported, "Unsupported cipher mode xts")),
    }
}

fn keyed<C: KeyInit>(key: &[u8]) -> Result<C> {
    C::new_from_slice(key).map_err(bad_key)
}

trait FullCipher: BlockCipherEncrypt + BlockCipherDecrypt + KeyInit + Send + Sync + 'static {}
impl<C> FullCipher for C where
    C: BlockCipherEncrypt + BlockCipherDecrypt + KeyInit + Send + Sync + 'static
{
}

fn blocks<C: BlockSizeUser>(data: &mut [u8]) -> &mut [Block<C>] {
    Block::<C>::slice_as_chunks_mut(data).0
}

#[inline(always)]
fn xor(target: &mut [u8], with: &[u8]) {
    for (a, b) in target.iter_mut().zip(with) {
        *a ^= b;
    }
}

struct Ecb<C>(C);

impl<C: FullCipher> SectorMode for Ecb<C> {
    fn encrypt(&self, _: &mut [Iv], data: &mut [u8]) {
        self.0.encrypt_blocks(blocks::<C>(data));
    }

    fn decrypt(&self, _: &mut [Iv], data: &mut [u8]) {
        self.0.decrypt_blocks(blocks::<C>(data));
    }
}

struct Cbc<C>(C);

impl<C: FullCipher> SectorMode for Cbc<C> {
    fn encrypt(&self, ivs: &mut [Iv], data: &mut [u8]) {
        let width = C::block_size();
        let sector = data.len() / ivs.len().max(1);
        let mut state: [Block<C>; LANES] = std::array::from_fn(|_| Block::<C>::default());
        let state = &mut state[..ivs.len()];
        for (block, iv) in state.iter_mut().zip(ivs) {
            block.copy_from_slice(&iv[..width]);
        }
        for at in (0..sector).step_by(width) {
            for (block, plain) in state.iter_mut().zip(data.chunks_exact(sector)) {
                xor(block, &plain[at..at + width]);
            }
            self.0.encrypt_blocks(state);
            for (block, target) in state.iter().zip(data.chunks_exact_mut(sector)) {
                target[at..at + width].copy_from_slice(block);
            }
        }
    }

    fn decrypt(&self, ivs: &mut [Iv], data: &mut [u8]) {
        let width = C::block_size();
        let sector = data.len() / ivs.len().max(1);
        for (iv, data) in ivs.iter().zip(data.chunks_exact_mut(sector)) {
            let mut previous = Block::<C>::default();
            previous.copy_from_slice(&iv[..width]);
            for batch in blocks::<C>(data).chunks_mut(BATCH) {
                let mut plain: [Block<C>; BATCH] = std::array::from_fn(|_| Block::<C>::default());
                let plain = &mut plain[..batch.len()];
                plain.clone_from_slice(batch);
                self.0.decrypt_blocks(plain);
                for (plain, block) in plain.iter_mut().zip(batch) {
                    xor(plain, &previous);
                    previous.clone_from(block);
                    block.clone_from(plain);
                }
            }
        }
    }
}

struct Ctr<C>(C);

impl<C: FullCipher> SectorMode for Ctr<C> {
    fn encrypt(&self, ivs: &mut [Iv], data: &mut [u8]) {
        let width = C::block_size();
        let sector = data.len() / ivs.len().max(1);
        for (iv, data) in ivs.iter().zip(data.chunks_exact_mut(sector)) {
            // The counter is big-endian and as wide as a block, at the left of the 16 bytes.
            let shift = 128 - 8 * width as u32;
            let mut counter = u128::from_be_bytes(*iv) >> shift;
            for batch in blocks::<C>(data).chunks_mut(BATCH) {
                let mut stream: [Block<C>; BATCH] = std::array::from_fn(|_| Block::<C>::default());
                let stream = &mut stream[..batch.len()];
                for block in stream.iter_mut() {
                    block.copy_from_slice(&(counter << shift).to_be_bytes()[..width]);
                    counter = counter.wrapping_add(1);
                }
                self.0.encrypt_blocks(stream);
                for (block, stream) in batch.iter_mut().zip(stream) {
                    xor(block, stream);
                }
            }
        }
    }

    fn decrypt(&self, ivs: &mut [Iv], data: &mut [u8]) {
        self.encrypt(ivs, data);
    }
}

struct Xts<C> {
    data: C,
    tweak: C,
}

impl<C: FullCipher + BlockSizeUser<BlockSize = U16>> Xts<C> {
    #[inline(always)]
    fn run(&self, ivs: &mut [Iv], data: &mut [u8], crypt: impl Fn(&C, &mut [Block<C>])) {
        let sector = data.len() / ivs.len().max(1);
        self.tweak.encrypt_blocks(Array::cast_slice_from_core_mut(ivs));
        for (iv, data) in ivs.iter().zip(data.chunks_exact_mut(sector)) {
            let mut tweak = u128::from_le_bytes(*iv);
            for batch in blocks::<C>(data).chunks_mut(BATCH) {
                let mut tweaks = [0; BATCH];
                for slot in &mut tweaks[..batch.len()] {
                    *slot = tweak;
                    tweak = double(tweak);
                }
                whiten(batch, &tweaks);
                crypt(&self.data, batch);
                whiten(batch, &tweaks);
            }
        }
    }
}

impl<C: FullCipher + BlockSizeUser<BlockSize = U16>> SectorMode for Xts<C> {
    fn encrypt(&self, ivs: &mut [Iv], data: &mut [u8]) {
        self.run(ivs, data, |cipher, blocks| cipher.encrypt_blocks(blocks));
    }

    fn decrypt(&self, ivs: &mut [Iv], data: &mut [u8]) {
        self.run(ivs, data, |cipher, blocks| cipher.decrypt_blocks(blocks));
    }
}

/// Multiplies by x in GF(2^128) with the polynomial of IEEE 1619.
#[inline(always)]
fn double(tweak: u128) -> u128 {
    (tweak << 1) ^ (0u128.wrapping_sub(tweak >> 127) & 0x87)
}

#[inline(always)]
fn whiten(blocks: &mut [Array<u8, U16>], tweaks: &[u128; BATCH]) {
    for (block, tweak) in blocks.iter_mut().zip(tweaks) {
        let mixed = u128::from_le_bytes((*block).into()) ^ tweak;
        *block = mixed.to_le_bytes().into();
    }
}
