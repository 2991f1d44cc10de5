//! Encryption of whole sectors.

use std::fmt;

use disksmith_disk::{Error, Kind, Result};

use crate::iv::{Iv, IvMaker};
use crate::modes::{LANES, SectorMode, build};
use crate::{CipherSpec, SECTOR};

/// A keyed cipher that encrypts and decrypts whole sectors in place, each under its number.
pub struct SectorCipher {
    spec: CipherSpec,
    sector_bytes: usize,
    ivs: IvMaker,
    mode: Box<dyn SectorMode>,
}

impl SectorCipher {
    /// A cipher for sectors of 512 bytes. `key` must be [`CipherSpec::key_bytes`] long.
    pub fn new(spec: &CipherSpec, key: &[u8]) -> Result<Self> {
        Self::with_sector_bytes(spec, key, SECTOR as usize)
    }

    /// A cipher for sectors of 512, 1024, 2048 or 4096 bytes. Their numbers still count units of
    /// 512 bytes, as LUKS2 has it: the second sector of 4096 bytes has number 8.
    pub fn with_sector_bytes(spec: &CipherSpec, key: &[u8], sector_bytes: usize) -> Result<Self> {
        if !matches!(sector_bytes, 512 | 1024 | 2048 | 4096) {
            let text = format!("Sectors of {sector_bytes} bytes are not supported");
            return Err(Error::new(Kind::Unsupported, text));
        }
        spec.check()?;
        let mode = build(spec, key)?;
        Ok(Self { spec: *spec, sector_bytes, ivs: IvMaker::new(spec, key)?, mode })
    }

    /// Cipher, mode and IV generator.
    pub fn spec(&self) -> &CipherSpec {
        &self.spec
    }

    /// Bytes that are encrypted as one unit.
    pub fn sector_bytes(&self) -> usize {
        self.sector_bytes
    }

    /// Encrypts `data`, which starts at the 512-byte sector `first_sector`.
    ///
    /// # Panics
    /// If the length of `data` is not a multiple of the sector size: that is a mistake of the
    /// caller's, and going on would leave plain bytes in the result.
    pub fn encrypt(&self, first_sector: u64, data: &mut [u8]) {
        self.each_batch(first_sector, data, |ivs, data| self.mode.encrypt(ivs, data));
    }

    /// Decrypts `data`, which starts at the 512-byte sector `first_sector`.
    ///
    /// # Panics
    /// As [`encrypt`](Self::encrypt).
    pub fn decrypt(&self, first_sector: u64, data: &mut [u8]) {
        self.each_batch(first_sector, data, |ivs, data| self.mode.decrypt(ivs, data));
    }

    fn each_batch(&self, first: u64, data: &mut [u8], run: impl Fn(&mut [Iv], &mut [u8])) {
        assert!(data.len().is_multiple_of(self.sector_bytes), "data must be whole sectors");
        let step = self.sector_bytes as u64 / SECTOR;
        let mut sector = first;
        let mut ivs = [[0; 16]; LANES];
        for batch in data.chunks_mut(LANES * self.sector_bytes) {
            let ivs = &mut ivs[..batch.len() / self.sector_bytes];
            self.ivs.fill(sector, step, ivs);
            run(ivs, batch);
            sector = sector.wrapping_add(step.wrapping_mul(ivs.len() as u64));
        }
    }
}

impl fmt::Debug for SectorCipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SectorCipher")
            .field("spec", &self.spec)
            .field("sector_bytes", &self.sector_bytes)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
