//! Guest data that is encrypted where it is stored.

use disksmith_crypt::{SECTOR, Secret, SectorCipher, legacy_aes, luks};
use disksmith_disk::{Disk, Error, Kind, Result};

use super::layout::{CryptoHeader, Header};
use super::util::read_padded;

const AES: u32 = 1;
const LUKS: u32 = 2;
/// Encrypted in memory at once, in bytes.
const STEP: usize = 1 << 20;

/// The cipher of an image's guest data.
#[derive(Debug)]
pub(super) struct Encryption {
    cipher: SectorCipher,
    /// Sectors are numbered by their place in the file, not in the guest.
    by_host: bool,
}

impl Encryption {
    /// Unlocks what `header` says with `secret`; nothing for plain images.
    pub(super) fn unlock(
        storage: &dyn Disk,
        header: &Header,
        place: Option<CryptoHeader>,
        secret: Option<&Secret>,
    ) -> Result<Option<Self>> {
        let secret = || {
            secret.ok_or_else(|| {
                Error::new(
                    Kind::InvalidInput,
                    "Parameter 'encrypt.key-secret' is required for cipher",
                )
                .with_hint("Give its key: --object secret,id=NAME,data=TEXT (or file=PATH).")
            })
        };
        match (header.crypt_method, place) {
            (AES, _) => {
                let cipher = legacy_aes(secret()?.bytes())?;
                Ok(Some(Self { cipher, by_host: false }))
            }
            (LUKS, Some(place)) => {
                let options = luks::UnlockOptions::default();
                let unlocked = luks::unlock(storage, place.offset, secret()?.bytes(), &options)?;
                Ok(Some(Self { cipher: unlocked.cipher, by_host: true }))
            }
            _ => Ok(None),
        }
    }

    fn sector(&self, guest: u64, host: u64) -> u64 {
        if self.by_host { host / SECTOR } else { guest / SECTOR }
    }

    /// Reads and decrypts; neither end need be at a sector's.
    pub(super) fn read(
        &self,
        data: &dyn Disk,
        part: &mut [u8],
        guest: u64,
        host: u64,
    ) -> Result<()> {
        let skip = host % SECTOR;
        if skip == 0 && (part.len() as u64).is_multiple_of(SECTOR) {
            read_padded(data, part, host)?;
            self.cipher.decrypt(self.sector(guest, host), part);
            return Ok(());
        }
        let mut sectors = vec![0; (skip as usize + part.len()).next_multiple_of(SECTOR as usize)];
        read_padded(data, &mut sectors, host - skip)?;
        self.cipher.decrypt(self.sector(guest - skip, host - skip), &mut sectors);
        let skip = skip as usize;
        part.copy_from_slice(sectors.get(skip..skip + part.len()).unwrap_or_default());
        Ok(())
    }

    /// Encrypts and writes whole sectors.
    pub(super) fn write(&self, data: &dyn Disk, part: &[u8], guest: u64, host: u64) -> Result<()> {
        let mut buffer = Vec::with_capacity(part.len().min(STEP));
        for (step, done) in part.chunks(STEP).zip((0..).step_by(STEP)) {
            buffer.clear();
            buffer.extend_from_slice(step);
            self.cipher.encrypt(self.sector(guest + done, host + done), &mut buffer);
            data.write_at(&buffer, host + done)?;
        }
        Ok(())
    }
}
